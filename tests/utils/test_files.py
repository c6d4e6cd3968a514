import json
import os
import pathlib
import unicodedata

import numpy as np
import pytest

from mpl_tf.utils import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_parents(tmp_path):
    with files.replacing(tmp_path / "run" / "split.json") as path:
        path.write_text("new")
    assert (tmp_path / "run" / "split.json").read_text() == "new"
    assert names(tmp_path / "run") == ["split.json"]


def test_a_file_is_replaced_only_when_the_block_ends(tmp_path):
    target = tmp_path / "history.csv"
    target.write_text("old")
    with files.replacing(str(target)) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_the_temporary_path_lies_beside_the_target_and_keeps_its_suffixes(tmp_path):
    with files.replacing(tmp_path / "model.weights.h5") as path:
        path.touch()
        assert path.parent == tmp_path
        assert path.name.endswith(".weights.h5")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind_and_the_old_file_intact(tmp_path, error):
    target = tmp_path / "split.json"
    target.write_text("old")

    def fail():
        with files.replacing(target) as path:
            path.write_text("half a fi")
            raise error("disk on fire")

    with pytest.raises(error, match="disk on fire"):
        fail()
    assert names(tmp_path) == ["split.json"]
    assert target.read_text() == "old"


def test_a_folder_is_written_whole(tmp_path):
    with files.replacing(tmp_path / "1") as path:
        path.mkdir()
        (path / "saved_model.pb").write_text("graph")
        assert not (tmp_path / "1").exists()
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "graph"
    assert names(tmp_path) == ["1"]


def test_a_failure_leaves_no_half_written_folder(tmp_path):
    def fail():
        with files.replacing(tmp_path / "1") as path:
            path.mkdir()
            (path / "saved_model.pb").write_text("gra")
            raise RuntimeError("out of disk")

    with pytest.raises(RuntimeError, match="out of disk"):
        fail()
    assert names(tmp_path) == []


def test_contents_are_on_the_disk_before_their_name_is(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace

    def noted(descriptor):
        events.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def renamed(old, new):
        events.append(pathlib.Path(new).name)
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    with files.replacing(tmp_path / "weights.h5") as path:
        path.write_text("new")
    with files.replacing(tmp_path / "export") as folder:
        (folder / "variables").mkdir(parents=True)
        for name in ("graph", "variables/weights"):
            (folder / name).write_text(name)
    inode = {path.name: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
    assert events[:2] == [inode["weights.h5"], "weights.h5"]
    assert set(events[2:4]) == {inode["graph"], inode["weights"]}
    assert events[4:] == ["export"]


def test_a_folder_that_exists_is_not_touched(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("old")

    def overwrite():
        with files.replacing(tmp_path / "1") as path:
            path.mkdir()
            (path / "other").touch()

    with pytest.raises(OSError, match="not empty"):
        overwrite()
    assert names(tmp_path) == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "old"


def test_a_block_that_writes_nothing_fails(tmp_path):
    def write_nothing():
        with files.replacing(tmp_path / "split.json"):
            pass

    with pytest.raises(FileNotFoundError):
        write_nothing()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "names",
    [
        ("+lr", "-lr", "lr", "lr+", "l r", "l-r"),
        ("no feedback", "no-feedback", "no  feedback", "no_feedback", "No feedback", "NO FEEDBACK"),
        ("μ=7", "μ=5", "日本", "本日", "ü", "u", "ù", "Ü"),
        ("", " ", "-", "+", ".", "..", "/", "\\", "*", "\0", "\n", "\udce9"),
        ("a" * 300, "a" * 301, "a" * 300 + "b", "日" * 200, "日" * 201),
        ("con", "CON", "aux ", "a.", "a"),
    ],
    ids=["signs", "case and spaces", "scripts", "nothing left", "long", "reserved"],
)
def test_different_names_get_different_folders_on_every_file_system(tmp_path, names):
    folders = [files.folder_name(name) for name in names]
    # As a file system that is blind to case and to Unicode's forms tells them apart.
    assert len({unicodedata.normalize("NFD", folder).casefold() for folder in folders}) == len(names)
    for folder in folders:
        (tmp_path / f"{folder}.0").mkdir()
        assert not folder.startswith(".")
    assert len(list(tmp_path.iterdir())) == len(names)


def test_simple_names_stay_as_they_are_and_two_unicode_forms_are_one_name():
    assert files.folder_name("no feedback 2") == "no-feedback-2"
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    assert files.folder_name(forms[0]) == files.folder_name(forms[1])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~/run", "{home}/run"),
        ("~", "{home}"),
        ("$WHERE/run", "{home}/run"),
        ("${WHERE}/a b/", "{home}/a b"),
        ("runs/digits/", "runs/digits"),
        ("./runs//digits", "runs/digits"),
        ("/absolute/", "/absolute"),
        ("a b", "a b"),
    ],
)
def test_paths_are_what_a_user_means(tmp_path, monkeypatch, given, meant):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path))
    assert str(files.user_path(given)) == meant.format(home=tmp_path)
    assert files.user_path(files.user_path(given)) == files.user_path(given)


def test_a_file_that_is_called_so_literally_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("~", "$HOME", "$missing"):
        (tmp_path / name).mkdir()
        assert files.user_path(name) == pathlib.Path(name)


def test_paths_that_cannot_be_filled_in_are_refused(monkeypatch):
    monkeypatch.delenv("MISSING", raising=False)
    for path in ("$MISSING/run", "${MISSING}"):
        with pytest.raises(ValueError, match=r"names the variable .*MISSING.*, which is not set"):
            files.user_path(path)
    with pytest.raises(ValueError, match="names a home that is not known"):
        files.user_path("~nobody_of_this_name/run")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "in" / "it"):
        with pytest.raises(ValueError, match=r"run_dir=.* cannot be made, because .*file is a file"):
            files.check_writable(path, "run_dir")
    with pytest.raises(ValueError, match=r"export_dir=.* cannot be written to"):
        files.check_writable("/proc/run", "export_dir")
    files.check_writable(tmp_path / "new" / "folder", "run_dir")
    assert not (tmp_path / "new").exists()


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path):
    files.check_room(tmp_path / "new", 1000)
    with pytest.raises(
        files.DiskFullError, match=r"about 1,000,000,000,000 MB are needed and [\d,]+ MB are free"
    ):
        files.check_room(tmp_path / "new", 10**18)


@pytest.mark.parametrize("keep", [0, 1, 0.4, 0.99], ids=lambda part: f"{part} of it")
@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_a_file_that_was_cut_off_is_named_with_what_to_do(tmp_path, suffix, keep):
    path = tmp_path / f"numbers.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, numbers=np.arange(1000))
    else:
        path.write_text(json.dumps({"numbers": list(range(1000))}))

    def read():
        with files.reading(path, "write it again"):
            return np.load(path)["numbers"] if suffix == "npz" else json.loads(path.read_text())["numbers"]

    if keep == 1:
        assert list(read()) == list(range(1000))
        return
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=rf"numbers\.{suffix} is damaged \(\w+: .+\): write it again\.$"):
        read()


def test_a_file_whose_bits_have_changed_or_that_lacks_something_is_named_too(tmp_path):
    path = tmp_path / "numbers.npz"
    np.savez_compressed(path, numbers=np.arange(1000))
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (
        content[:middle] + bytes(reversed(content[middle : middle + 9])) + content[middle + 9 :],
        bytes(len(content)),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"numbers\.npz is damaged"), files.reading(path, "mend it"):
            np.load(path)["numbers"]
    path.write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"numbers\.npz is damaged \(KeyError"),
        files.reading(path, "mend it"),
    ):
        np.load(path)["others"]


def test_a_file_that_may_not_be_read_or_is_not_there_is_not_called_damaged(tmp_path):
    path = tmp_path / "numbers.json"
    with pytest.raises(FileNotFoundError), files.reading(path, "remove it"):
        path.read_text()
