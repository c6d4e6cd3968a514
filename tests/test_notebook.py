"""The notebook, executed from first to last cell on images made here, with few updates of a small network."""

import csv
import json
import pathlib
import re
import shutil
import subprocess

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.programs import forked

NOTEBOOK = pathlib.Path(__file__).parents[1] / "notebooks" / "own_images.ipynb"
# What stands in the notebook → what makes it short.
SHORTER = {
    "--undefok=unlabeled_ratio": "--undefok=unlabeled_ratio,confirmation_images\n--confirmation_images=0",
    "--model=wrn-10-1": "--model=mlp\n--randaugment_operations=0",
    "--batch_size=16": "--batch_size=4",
    "--unlabeled_ratio=7": "--unlabeled_ratio=2",
    "--steps=2000": "--steps=2\n--epoch_steps=2\n--warmup_steps=0",
    "--steps=6000 --finetune_steps=200": "--steps=3 --notensorboard",
    "labels alone: supervised": "labels alone: supervised --noreport",
    "Meta Pseudo Labels: mpl": "Meta Pseudo Labels: mpl --noreport",
    "--seeds=0-2": "--seeds=0",
    # The recipes are forked. The trials that the comparison starts are processes of the real Python.
    "pathlib.Path(sys.executable).parent": "pathlib.Path(os.environ['PYTHON_OF_TESTS']).parent",
}


def draw(path, shape, generator):
    """A disc or a square somewhere in a gray image of some size."""
    width, height = generator.integers(40, 60, 2)
    image = Image.new("RGB", (int(width), int(height)), tuple(map(int, generator.integers(80, 160, 3))))
    left, top = generator.integers(5, 20, 2)
    box = [int(left), int(top), int(left) + 18, int(top) + 18]
    pen = ImageDraw.Draw(image)
    {"discs": pen.ellipse, "squares": pen.rectangle}[shape](box, fill=(230, 220, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The folder in which the notebook ran, and the notebook with its outputs."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(12):
        for shape in ("discs", "squares"):
            draw(folder / "labeled" / shape / f"{number}.png", shape, generator)
            draw(folder / "unlabeled" / shape[0] / f"{number}.jpg", shape, generator)
    (folder / "unlabeled" / "notes.txt").write_text("not an image")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sources = "\n".join(cell.source for cell in notebook.cells)
    for long, short in SHORTER.items():
        assert sources.count(long) == 1, long
        for cell in notebook.cells:
            cell.source = cell.source.replace(long, short)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with pytest.MonkeyPatch.context() as patch:
        # Threads that wait for one another cost more than such small networks.
        patch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        patch.setenv("TF_NUM_INTEROP_THREADS", "1")
        patch.setenv("PYTHON_OF_TESTS", forked.python_command())
        client.execute()
    return folder, notebook


def test_it_leaves_what_it_promises(executed):
    folder, notebook = executed
    table = (folder / "runs" / "compare" / "table.md").read_text()
    assert "labels alone" in table
    assert "Meta Pseudo Labels" in table
    assert (folder / "runs" / "images" / "report.html").stat().st_size > 10_000
    metrics = json.loads((folder / "runs" / "images" / "metrics.json").read_text())
    assert {"student", "teacher"} <= set(metrics["validation"])
    assert (folder / "saved_models" / "images" / "1" / "card.md").exists()
    with (folder / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    assert {row["class"] for row in rows} <= {"discs", "squares"}
    texts = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "48 images, classes: discs, squares" in texts
    assert "labeled: {'discs': 9, 'squares': 9}" in texts
    assert "validation: 6, unlabeled: 42" in texts
    assert "24 images, classified by saved_models/images/1" in texts


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_its_curl_line_is_answered(executed, tmp_path):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    from tests.export import contract_server

    folder, notebook = executed
    lines = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    (command,) = (block for block in re.findall(r"```sh\n(.*?)```", lines, re.DOTALL) if "curl" in block)
    shutil.copy(folder / "unlabeled" / "d" / "3.jpg", tmp_path / "photo.jpg")
    with contract_server.serving("images", folder / "saved_models" / "images") as (_, rest):
        assert command.count("http://localhost:8501/") == 1
        command = command.replace("http://localhost:8501", rest)
        finished = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
    (answer,) = json.loads(finished.stdout)["predictions"]
    with (folder / "predictions.csv").open() as stream:
        (row,) = (row for row in csv.DictReader(stream) if row["path"] == "d/3.jpg")
    # Two decoders, a small network: the same class unless it is as sure of both.
    assert set(answer["classes"]) == {"discs", "squares"}
    score = answer["scores"][answer["classes"].index(row["class"])]
    assert score == pytest.approx(float(row["confidence"]), abs=0.05)


def test_it_is_kept_as_it_is_written():
    """Without what a machine added: outputs, numbers of execution, paths."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert not re.search(r"/(home|root|Users|tmp|work)\b", text)
