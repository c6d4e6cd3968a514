import pytest

from mpl_tf.runs.folder import RunFolder
from recipes.common import completed_run
from tests.support import tiny


@pytest.fixture
def folder(tmp_path):
    """A run that evaluated two networks, and saved a generator and a network of nobody beside them."""
    folder = RunFolder(tmp_path)
    for seed, role in enumerate(("teacher", "student", "generator", "stranger")):
        folder.save_network(role, tiny.plain_network(role, seed=seed))
    folder.write_metrics({"validation": {"teacher": {}, "student": {}}, "steps": 5})
    return folder


def test_the_networks_of_a_run_are_those_that_it_evaluated_in_the_order_of_the_training(folder):
    networks = completed_run.networks(folder)
    assert list(networks) == ["teacher", "student"]
    for seed, (role, network) in enumerate(networks.items()):
        expected = tiny.plain_network(role, seed=seed).get_weights()
        assert all((one == other).all() for one, other in zip(network.get_weights(), expected, strict=True))
    assert list(completed_run.networks(folder, ["student"])) == ["student"]


def test_roles_come_from_the_test_images_or_the_files_where_there_is_no_validation_split(folder):
    folder.write_metrics({"test": {"student": {}}})
    assert completed_run.classifiers(folder) == ["student"]
    folder.write_metrics({"steps": 5})
    assert completed_run.classifiers(folder) == ["generator", "stranger", "student", "teacher"]


def test_roles_and_files_that_are_not_there_are_refused(folder):
    with pytest.raises(ValueError, match="role='generator' is unknown: Choose one of 'teacher', 'student'"):
        completed_run.networks(folder, ["generator"])
    (folder.path / "networks" / "teacher.keras").unlink()
    with pytest.raises(FileNotFoundError, match=r"teacher.keras does not exist: give a \.keras file"):
        completed_run.networks(folder)
