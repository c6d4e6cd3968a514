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
