"""Files that the flags of a run which goes on name by another path."""

import pytest
from absl import flags

from mpl_tf.runs.folder import RunFolder
from recipes.common import program


@pytest.fixture
def adopted(tmp_path, monkeypatch):
    """Makes a run that was given some files, and says by which paths it goes on, given others."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.keras", "b.keras"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path)
    folder = RunFolder("run")
    folder.verify_or_write_config({"initialize": "a.keras", "models": "mlp,a.keras"})

    def adopt(*, initialize, models, has_results=True):
        if has_results:
            folder.write_metrics({})
        known = flags.FlagValues()
        flags.DEFINE_string("initialize", None, "A file.", flag_values=known)
        flags.DEFINE_list("models", None, "Names or files.", flag_values=known)
        known(["recipe", f"--initialize={initialize}", f"--models={','.join(models)}"])
        monkeypatch.setattr(program, "FLAGS", known)
        program._adopt_spellings(folder)
        return known.initialize, known.models

    return adopt


def test_another_path_to_the_same_file_is_the_one_that_the_run_was_given(adopted, tmp_path):
    for path in (f"{tmp_path}/a.keras", "link/a.keras", "run/../a.keras", "./a.keras"):
        assert adopted(initialize=path, models=["mlp", path]) == ("a.keras", ["mlp", "a.keras"])


def test_another_file_stays_another(adopted, tmp_path):
    for given in (
        ("b.keras", ["mlp", "b.keras"]),
        ("none.keras", ["a.keras"]),
        ("supervised", ["a.keras", "mlp"]),
    ):
        assert adopted(initialize=given[0], models=given[1]) == given


def test_where_nothing_has_been_trained_the_flags_count(adopted):
    given = ("link/a.keras", ["mlp", "link/a.keras"])
    assert adopted(initialize=given[0], models=given[1], has_results=False) == given
