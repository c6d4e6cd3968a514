"""The README's Python, executed as a user would paste it."""

import pathlib
import re

import numpy as np
import PIL.Image

from tests.programs import forked

ROOT = pathlib.Path(__file__).parents[1]


# What stands in the README → what needs no download, and is small.
SMALLER = {
    "image_size=96": "image_size=16",
    '"mobilenetv2"': '"convnet"',
    ', weights="imagenet"': "",
}


def write_images(folder, count, brightness):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        pixels = np.clip(rng.normal(brightness, 40, (24, 32, 3)), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.jpg")


def test_python_blocks_run(tmp_path):
    write_images(tmp_path / "labeled" / "cats", 12, 80)
    write_images(tmp_path / "labeled" / "dogs", 12, 170)
    write_images(tmp_path / "unlabeled" / "from_the_web", 30, 120)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    program = "\n".join(blocks)
    for number in re.findall(r"(?:steps_per_epoch|epochs)=(\d+)", program):
        program = program.replace(f"={number}", "=2")
    for text, smaller in SMALLER.items():
        assert program.count(text) == 1, text
        program = program.replace(text, smaller)
    finished = forked.run(program, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert (tmp_path / "saved_models" / "pets" / "1" / "saved_model.pb").exists()
