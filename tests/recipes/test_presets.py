"""Two steps of every preset: its networks at their real size, its flags, and random images of its dataset's shape."""

import contextlib
import json
import math
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from mpl_tf import data, models
from recipes.common import candidates
from tests.programs import forked

ROOT = pathlib.Path(__file__).parents[2]
PRESETS = {path.stem: path for path in sorted((ROOT / "recipes" / "presets").glob("*.flags"))}

# Flags of presets whose batches would not fit 12 GB or a minute of one core; all others make theirs.
SMALLER = {
    "celeba": ["--batch_size=2"],
    "cifar10_4k": ["--batch_size=2", "--finetune_batch_size=16"],
    "dafl_cifar10": ["--batch_size=16"],
    "dafl_cifar100": ["--batch_size=16"],
    "fixmatch_cifar100_10000": ["--batch_size=1"],
    "fixmatch_cifar10_250": ["--batch_size=2"],
    "freematch_cifar10_40": ["--batch_size=2"],
    "imagenet_10percent": ["--batch_size=1", "--finetune_batch_size=4"],
    "imagenet_resnet50": ["--batch_size=1", "--finetune_batch_size=4"],
    # To trace one step of L2 takes more than 13 GB, so that B0 makes them; a test of its own builds L2.
    "large_scale": [
        "--model=efficientnet-b0",
        "--image_size=128",
        "--batch_size=1",
        "--finetune_batch_size=4",
        "--strategy=default",
    ],
    "noisy_student_imagenet": ["--batch_size=1"],
    "noisy_student_svhn": ["--batch_size=2"],
    # Keras would download the weights.
    "own_images": ["--weights=none", "--batch_size=4"],
    "svhn_1k": ["--batch_size=2", "--finetune_batch_size=16"],
    "uda_cifar10_4k": ["--batch_size=2"],
}


def recipe_of(preset: str) -> str:
    """The recipe in the command that the preset's header shows."""
    return re.search(rf"python -m recipes\.(\w+) --preset={preset}\b", PRESETS[preset].read_text("utf-8"))[1]


def teacher_of(preset: str) -> list[str]:
    """The flag of a teacher, where the preset needs one: the network that its header trains for it, by name."""
    _, needed, command = PRESETS[preset].read_text("utf-8").partition("Its teacher")
    return [f"--teacher={re.search(r'--model=(.+?) ', command)[1]}"] if needed else []


def stages_of(preset: str, folder: pathlib.Path, *flags: str, steps: int) -> dict:
    """What `tests.programs.two_steps` notes of each stage of a preset."""
    facts = folder / "facts.json"
    arguments = [preset, recipe_of(preset), *flags, *teacher_of(preset)]
    finished = forked.start("tests.programs.two_steps", facts, steps, *arguments).finish(timeout=3600)
    assert finished.returncode == 0, finished.stderr[-3000:]
    print(facts.read_text())
    return json.loads(facts.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_two_steps_of_every_preset(preset, tmp_path):
    stages = stages_of(preset, tmp_path, *SMALLER.get(preset, []), steps=2)
    assert stages
    for stage, seen in stages.items():
        assert len(seen["losses"]) == 2
        for losses in seen["losses"]:
            assert losses
            assert all(math.isfinite(loss) for loss in losses.values()), (stage, losses)
        for role, fraction in seen["moved"].items():
            assert fraction == (1.0 if role in seen["learners"] else 0.0), (stage, role, fraction)


@pytest.mark.slow
def test_the_network_of_the_large_scale_preset_is_built_at_its_size():
    network = models.build("efficientnet-l2", 1000, (512, 512, 3))
    # The 480 million that learn, and the statistics of BatchNorm.
    assert network.count_params() == 481_399_996


@pytest.mark.parametrize("preset", PRESETS)
def test_the_page_has_the_time_that_the_header_says(preset):
    page = (ROOT / "docs" / "presets.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| `{preset}` \| (.*) \| (.*) \|$", page, re.MULTILINE)
    (said,) = re.findall(
        r"^# Time on a server CPU(.*?)^# python -m",
        PRESETS[preset].read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    said = said.replace("\n# ", " ")
    step, length = row
    assert re.match(r"(?:about )?[\d.,]+|not measured", step)[0] in said
    assert length in said
    steps = re.search(r"^--steps=(\d+)$", PRESETS[preset].read_text("utf-8"), re.MULTILINE)[1]
    assert preset == "noisy_student_digits" or f"{int(steps):,} steps" in length


def test_own_images_are_trained_as_recipes_auto_trains_them():
    text, auto = PRESETS["own_images"].read_text("utf-8"), candidates.PRETRAINED
    preset = dict(re.findall(r"^--(\w+)=(\S+)$", text, re.MULTILINE))
    of_stage = (
        "model",
        "weights",
        "image_size",
        "batch_size",
        "unlabeled_ratio",
        "optimizer",
        "learning_rate",
    )
    expected = {name: getattr(auto, name) for name in of_stage}
    expected["warmup_steps"] = round(auto.warmup_fraction * int(preset["steps"]))
    # What the header adds for another recipe; the first two are defaults there, and its ramp has one step at least.
    header = text[: text.index("\n--")].replace("\n#", "")
    left_out = {"feedback", "student_targets", "uda_ramp_steps"}
    for method in ("uda", "mpl", "fixmatch", "freematch"):
        added = re.search(rf"recipes\.{method} --preset=own_images ([^…]*)", header)[1]
        found = preset | dict(re.findall(r"--(\w+)=([^\s,]+)", added))
        flags = {"consistency_weight": "uda_weight", "temperature": "uda_temperature"}
        flags |= {"threshold": "uda_threshold"} if method == "uda" else {}
        chosen = auto.methods[method]
        options = {
            flags.get(name, name): value for name, value in chosen.options.items() if name not in left_out
        }
        for name, value in (expected | options | {"distribution_alignment": chosen.alignment}).items():
            assert type(value)(found[name]) == value, (method, name)


def program_of(preset: str) -> str:
    """The lines of Python in a preset's header, which make folders of its dataset's published files."""
    lines = re.findall(r"^#     (.*)$", PRESETS[preset].read_text("utf-8"), re.MULTILINE)
    return "\n".join(line for line in lines if not line.startswith("--"))


def test_the_header_of_usps_makes_folders_of_its_file(tmp_path):
    rng = np.random.default_rng(0)
    levels = np.round(rng.uniform(-1, 1, (4, 256)), 3)
    levels[0, 0], levels[0, 255] = -1.0, 1.0
    digits = [6, 0, 6, 9]
    np.savetxt(tmp_path / "zip.train.gz", np.column_stack([digits, levels]), fmt="%.4f")
    with contextlib.chdir(tmp_path):
        exec(program_of("usps"), {})
    files = sorted(path.relative_to(tmp_path / "usps").as_posix() for path in tmp_path.glob("usps/*/*"))
    assert files == ["0/0001.png", "6/0000.png", "6/0002.png", "9/0003.png"]
    pixels = np.asarray(Image.open(tmp_path / "usps" / "6" / "0000.png"))
    assert pixels.shape == (22, 22)
    np.testing.assert_allclose(pixels[3:-3, 3:-3].ravel(), (levels[0] + 1) * 127.5, atol=0.51)
    assert (pixels[3, 3], pixels[18, 18]) == (0, 255)
    assert not pixels[:3].any()
    assert not pixels[:, -3:].any()
    source = data.load("folders", labeled_dir=tmp_path / "usps", image_size=28, channels=1)
    assert source.image_shape == (28, 28, 1)
    assert source.class_names == ("0", "6", "9")


def test_the_header_of_celeba_makes_folders_of_its_files(tmp_path):
    answers = {
        "000001.jpg": "-1  1 -1",
        "000002.jpg": " 1  1 -1",
        "000003.jpg": "-1 -1 -1",
        "000004.jpg": " 1  1  1",
    }
    rows = [f"{file} {values}" for file, values in answers.items()]
    lines = [str(len(rows)), "Attractive Young Blurry ", *rows]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    parts = zip(answers, (0, 1, 2, 2), strict=True)
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{file} {part}\n" for file, part in parts))
    (tmp_path / "img_align_celeba").mkdir()
    for value, file in enumerate(answers):
        Image.new("RGB", (178, 218), (value, 0, 0)).save(tmp_path / "img_align_celeba" / file)
    with contextlib.chdir(tmp_path):
        exec(program_of("celeba"), {})
    files = sorted(path.relative_to(tmp_path / "celeba").as_posix() for path in tmp_path.glob("celeba/*/*/*"))
    assert files == [
        "test/Attractive/000004.jpg",
        "test/not_Attractive/000003.jpg",
        "train/Attractive/000002.jpg",
        "train/not_Attractive/000001.jpg",
    ]
