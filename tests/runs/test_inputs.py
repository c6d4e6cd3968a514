"""The files that a run was made of: noted, compared, and refused where they are others."""

import json
import os

import pytest

from mpl_tf.runs import inputs
from mpl_tf.runs.inputs import describe, verify_or_write_inputs


def write(path, content, *, time=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if time is not None:
        os.utime(path, ns=(time, time))
    return path


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()

    def verify(has_results=True, **named):
        verify_or_write_inputs(tmp_path / "run", named, has_results=has_results)
        path = tmp_path / "run" / "inputs.json"
        return json.loads(path.read_text()) if path.exists() else None

    return verify


def changes(path):
    """Ways in which other people's files come to lie where a run's were: (what, whether it is another one)."""
    content, old = path.read_bytes(), path.stat().st_mtime_ns
    yield "touched", False, lambda: os.utime(path)
    yield "copied anew", False, lambda: (path.unlink(), write(path, content))
    yield "another size", True, lambda: write(path, content + b"!")
    yield "same size", True, lambda: write(path, bytes(reversed(content)))
    yield "shorter, of the same time", True, lambda: write(path, content[:-1], time=old)
    yield (
        "replaced by a link to another",
        True,
        lambda: (
            path.unlink(),
            path.symlink_to(write(path.with_name("other"), b"other")),
        ),
    )


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("flag", ["teacher", "weights", "model"])
def test_a_changed_file_is_refused_and_a_copied_one_is_not(run, tmp_path, number, flag):
    path = write(tmp_path / "teacher.keras", bytes(range(200)))
    first = run(has_results=False, **{flag: path})
    _, is_another, change = list(changes(path))[number]
    change()
    if is_another:
        with pytest.raises(ValueError, match=f"made with another --{flag}=.*teacher.keras.*Put back"):
            run(**{flag: path})
        assert json.loads((tmp_path / "run" / "inputs.json").read_text()) == first
        # Where nothing has been made of it, it is simply noted.
        assert run(has_results=False, **{flag: path})[flag]["sha256"] != first[flag]["sha256"]
    else:
        assert run(**{flag: path})[flag]["sha256"] == first[flag]["sha256"]


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        (lambda store: write(store / "shard_00001.npy", b"tail"), True),
        (lambda store: write(store / "shard_00000.npy", b"22"), True),
        (lambda store: (store / "shard_00000.npy").rename(store / "shard_00001.npy"), True),
        (lambda store: (store / "store.json").unlink(), True),
        (lambda store: write(store / ".lock", b""), False),
        (lambda store: os.utime(store / "store.json"), False),
    ],
)
def test_a_folder_of_labels_is_all_of_its_files(run, tmp_path, change, is_another):
    store = tmp_path / "labels"
    write(store / "store.json", b"{}")
    write(store / "shard_00000.npy", b"11")
    run(has_results=False, label_store=store)
    change(store)
    if is_another:
        with pytest.raises(ValueError, match="--label_store="):
            run(label_store=store)
    else:
        run(label_store=store)


def test_large_files_are_told_apart_by_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_WHOLE", 100)
    monkeypatch.setattr(inputs, "_END", 10)
    found = {
        describe(write(tmp_path / "file", content))["sha256"]
        for content in (b"a" * 500, b"b" + b"a" * 499, b"a" * 499 + b"b", b"a" * 501)
    }
    assert len(found) == 4


def test_nothing_is_written_without_files_and_runs_of_before_go_on(run, tmp_path):
    assert run(teacher=tmp_path / "nowhere.keras") is None
    path = write(tmp_path / "teacher.keras", b"1")
    assert set(run(teacher=path)) == {"teacher"}
    # The file has gone: what is complete stays so, and whoever needs the file says that it is missing.
    path.unlink()
    assert set(run(teacher=path)) == {"teacher"}


def test_notes_that_are_damaged_are_named(run, tmp_path):
    path, notes = write(tmp_path / "teacher.keras", b"1"), tmp_path / "run" / "inputs.json"
    before = run(teacher=path)
    for keep in (0, 50):
        notes.write_text(json.dumps(before)[:keep])
        with pytest.raises(ValueError, match=r"inputs\.json is damaged .* remove it if .* as they were"):
            run(teacher=path)
    notes.unlink()
    assert run(teacher=path) == before


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path, monkeypatch):
    path = write(tmp_path / "teacher.keras", b"1")
    known = describe(path)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert describe(path, known) == known
