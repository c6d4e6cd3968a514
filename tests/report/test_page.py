import collections
import dataclasses
import html.parser
import json
import re
import shutil
import warnings

import keras
import numpy as np
import pytest

from mpl_tf import data, report
from mpl_tf.report.html import samples
from mpl_tf.report.html.images import inline_image
from mpl_tf.report.html.svg import inline_svg
from mpl_tf.report.plots import style
from mpl_tf.runs.folder import RunFolder
from mpl_tf.training import finalize
from tests.report import browser
from tests.support import tiny

NASTY = ("cat & <b>dog</b>", 'the "quoted"', "<script>alert(1)</script>")


def run_data(*, known=True):
    """A hundred tiny images, three classes whose names need escaping, twenty of them held out."""
    images, labels = tiny.examples(100)
    source = data.from_arrays(images.astype(np.uint8), labels, name="tiny", flip=False, class_names=NASTY)
    split = data.draw_split(source, num_labeled=9, seed=0, validation=60)
    if not known:
        source.train.labels[split.unlabeled] = -1
        source.train.labels[split.labeled] = labels[split.labeled]
    weak, strong = data.make_views(
        source.image_shape, flip=False, num_operations=0, magnitude=5.0, policy="paper", noise=0.0
    )
    return data.RunData(source=source, split=split, weak=weak, strong=strong)


def numbers(hits, count=60):
    confusion = np.diag([count // 3] * 3)
    accuracy = hits / count
    found = {"accuracy": accuracy, "count": count, "nll": 0.5, "ece": 0.03, "confusion": confusion.tolist()}
    return found | {"balanced_accuracy": 0.8765, "macro_f1": 0.7654}


def whole_metrics():
    networks = {"supervised": numbers(20), "teacher": numbers(50), "student": numbers(55)}
    errors = {"gaussian_noise": [0.1] * 5, "fog": [0.3] * 5}
    evaluated = {"corruptions": {"errors": errors, "count": 50}}
    evaluated |= {"fgsm": {"epsilon": [0, 2], "accuracy": [0.9, 0.5]}}
    return {
        "validation": networks, "test": networks, "steps": 8, "images": 100, "seconds": {"method": 3.0},
        "split": "tiny.0@9", "command": "python -m recipes.mpl --model=<x> & more", "versions": {"keras": "3"},
        "evaluation": {"test": {"student": evaluated, "supervised": evaluated}},
    }  # fmt: skip


def leave_files(folder, run):
    """Everything that a run leaves for its page."""
    split = {part: getattr(run.split, part).tolist() for part in ("labeled", "unlabeled", "validation")}
    split = {"counts": {part: len(indices) for part, indices in split.items()}}
    split |= {"name": run.split.name, "labels_per_class": run.split.labels_per_class}
    split |= {"arguments": {"labeled_in_unlabeled": True}}
    (folder / "split.json").write_text(json.dumps(split))
    written = RunFolder(folder)
    written.write_metrics(whole_metrics())
    rows = [
        {"epoch": e, "step": 4 * e + 4, "loss": 1 / (e + 1), "val_accuracy": 0.5, "mask_rate": 0.1}
        for e in (0, 1)
    ]
    written.write_history(rows)
    written.stage("supervised").write_history(rows)
    classes = [{"epoch": e, "step": 4 * e + 4, "images": 30, "0": 0.5, "1": 0.25, "2": 0.25} for e in (0, 1)]
    written.write_rows("pseudo_label_classes.csv", classes)


def networks():
    return {
        role: tiny.plain_network(role, seed=seed)
        for seed, role in enumerate(("supervised", "teacher", "student"))
    }


class Reader(html.parser.HTMLParser):
    """Checks that tags close in order, and collects what matters."""

    VOID = frozenset(("meta", "img", "link", "br"))

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.headings, self.images, self.tags = [], [], [], [], collections.Counter()
        self.addresses = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags[tag] += 1
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.addresses += [
            value for name, value in attrs if name in ("href", "src", "srcset", "action", "data")
        ]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def sound(text):
    """A document as it should be; returns what it is made of."""
    read = Reader(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert read.tags["title"] >= 1
    assert read.tags["script"] == read.tags["link"] == 0
    assert len(set(read.ids)) == len(read.ids)
    assert all(image["alt"] for image in read.images)
    assert read.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(read.headings, read.headings[1:], strict=False))
    assert all(address.startswith(("#", "data:image/")) for address in read.addresses)
    named = {address[1:] for address in read.addresses if address.startswith("#")}
    named |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert named <= set(read.ids)
    assert not re.search(r"url\((?!#)|@import|https?://", text)
    return read


def titles(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a run that has everything, and its folder."""
    folder, run = tmp_path_factory.mktemp("run"), run_data()
    leave_files(folder, run)
    return report.page(folder, run, networks()), folder


def test_a_whole_run_has_every_section_in_one_sound_file(whole):
    page, folder = whole
    text = page.read_text("utf-8")
    read = sound(text)
    assert titles(text) == [
        "Accuracy", "Curves", "Mistakes and confidence", "Pseudo labels", "Training images", "Robustness",
    ]  # fmt: skip
    assert "91.7&nbsp;% of 60 test images, 58.3 ±" in text
    assert "images, the labeled ones among them" in text
    assert "<summary>Supervised baseline</summary>" in text
    assert "<td>87.65</td><td>76.54</td>" in text
    # The accuracies are there three times: with intervals, and their curves for a desktop and for a phone.
    assert read.tags["svg"] >= 10
    assert page == folder / "report.html"
    assert page.stat().st_size < 600_000
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_labels_of_unequal_trust_and_those_to_be_checked_are_shown(whole, tmp_path):
    folder, run = tmp_path / "run", run_data()
    shutil.copytree(whole[1], folder)
    trust = {"trusted": 6, "label_noise": "pairs:0.5"}
    split = data.draw_split(run.source, num_labeled=18, seed=0, validation=60, **trust)
    run = dataclasses.replace(run, split=split)
    (folder / "split.json").unlink()
    data.write_split(folder / "split.json", split)
    labels, given = run.source.train.true_labels, run.source.train.labels
    rows = [
        {
            "image": index, "index": index, "label": NASTY[given[index]], "predicted": NASTY[labels[index]],
            "confidence": "0.9750", "probability_of_label": "0.001", "true_label": NASTY[labels[index]],
        }
        for index in split.mislabeled
    ]  # fmt: skip
    rows.append(rows[0] | {"index": int(np.setdiff1d(split.cheap, split.mislabeled)[0]), "label": NASTY[0]})
    rows[-1]["true_label"] = NASTY[0]
    RunFolder(folder).write_rows("suspect_labels.csv", rows)
    text = report.page(folder, run, networks()).read_text("utf-8")
    sound(text)
    assert "Suspect labels" in titles(text)
    for said in (
        "contradicts 7 labels that nobody has checked",
        "6 of these are wrong, of 6 that label noise has made wrong in all",
        "98%",
        "pairs:0.5",
        "6 of 12 cheap labels made wrong, for an experiment",
        "half of every labeled batch",
        "learned from",
    ):
        assert said in text, said
    assert "Suspect labels" in titles(report.page(folder).read_text("utf-8"))


def test_names_and_commands_are_escaped(whole):
    text = whole[0].read_text("utf-8")
    assert "<b>dog" not in text
    assert "alert(1)</script>" not in text
    assert "cat &amp; &lt;b&gt;dog&lt;/b&gt;" in text
    assert "--model=&lt;x&gt;" in text


def test_a_page_without_data_shows_what_the_files_hold(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[1], run)
    text = report.page(run).read_text("utf-8")
    sound(text)
    assert "Training images" not in titles(text)
    assert "Robustness" in titles(text)
    assert "data:image" not in text


@pytest.mark.parametrize(
    ("missing", "section"),
    [
        ("history.csv", None),
        ("pseudo_label_classes.csv", "Pseudo labels"),
        ("metrics.json", "Accuracy"),
        ("split.json", None),
    ],
)
def test_what_is_missing_is_left_out(whole, tmp_path, missing, section):
    run = tmp_path / "run"
    shutil.copytree(whole[1], run)
    (run / missing).unlink(missing_ok=True)
    text = report.page(run).read_text("utf-8")
    sound(text)
    assert section not in titles(text)
    # The stage's curves are there without the method's own.
    assert "Curves" in titles(text)


def test_the_page_of_recipes_auto_says_what_unlabeled_images_have_brought_and_what_an_hour_might(
    whole, tmp_path
):
    networks = {"supervised": numbers(30), "supervised_longer": numbers(31), "uda": numbers(48)}
    metrics = whole_metrics() | {"validation": networks, "test": networks}
    gain = {"difference": 17 / 60, "standard_error": 0.05, "count": 60}
    metrics["gain"] = {"method": "uda", "reference": "supervised_longer", "methods": 2, "validation": gain}
    metrics["plan"] = {
        "steps": {"supervised": 400, "uda": 1200},
        "seconds": {"supervised": 21.0, "uda": 80.2},
    }
    metrics |= {"seconds": {"probe": 2.0, "supervised": 19.0, "uda": 77.0}, "trends": {}, "longer": None}
    metrics["served"] = {"role": "uda", "reason": "UDA is best by far.", "candidates": list(networks)}
    run = tmp_path / "run"
    shutil.copytree(whole[1], run)
    RunFolder(run).write_metrics(metrics)
    text = report.page(run).read_text("utf-8")
    sound(text)
    assert "Plan and outlook" in titles(text)
    plain = html.unescape(text).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "The unlabeled images have brought 28.3 ± 5.0 percentage points: the UDA student is right on 80.0 %"
        in plain
    )
    assert "UDA is best by far." in plain
    assert "too short to tell how far another hour might go" in plain
    for cell in ("linear probe", "1,200", "77", "80"):
        assert f">{cell}<" in text


def test_an_empty_folder_has_a_page_and_no_folder_has_none(tmp_path):
    text = report.page(tmp_path).read_text("utf-8")
    sound(text)
    assert titles(text) == []
    assert "has not come to its end" in text
    with pytest.raises(FileNotFoundError, match="There is no run folder"):
        report.page(tmp_path / "none")


def test_the_mistakes_are_the_networks_own_on_the_validation_split(whole):
    run, student = run_data(), networks()["student"]
    images, labels = tiny.examples(100)
    held_out = run.split.validation
    logits = np.asarray(student(images.astype(np.uint8)[held_out].astype(np.float32)), np.float64)
    wrong = int((logits.argmax(axis=1) != labels[held_out]).sum())
    assert 0 < wrong < 60
    caption = f"Mistakes of the student, the most confident first: {wrong} of 60 validation images"
    assert caption in whole[0].read_text("utf-8")
    found = samples.predict(student, run, held_out)
    rows = found.most_confident(~found.outcomes.correct, 5)
    assert (np.diff(found.outcomes.confidence[rows]) <= 0).all()
    assert not found.outcomes.correct[rows].any()


def test_pseudo_labels_of_images_whose_class_nobody_knows_are_neither_right_nor_wrong():
    tiles = samples.pseudo_labels(run_data(known=False), networks()["teacher"], "teacher")
    assert [block.caption for block in tiles] == ["Most confident labels of unlabeled images by the teacher"]
    assert not any(tile.wrong or ", is\N{NO-BREAK SPACE}" in tile.text for tile in tiles[0].entries)
    right, wrong, _ = samples.pseudo_labels(run_data(), networks()["teacher"], "teacher")
    counts = [int(re.search(r": (\d+) of", block.caption)[1]) for block in (right, wrong)]
    assert sum(counts) == len(run_data().unlabeled_sample(1000))
    assert all(tile.wrong and ", is\N{NO-BREAK SPACE}" in tile.text for tile in wrong.entries)
    assert not any(tile.wrong for tile in right.entries)


def test_few_images_are_mapped_by_pca_and_many_by_tsne():
    run, student = run_data(), networks()["student"]
    few = samples.predict(student, run, run.split.validation[:20])
    figure, how = samples.feature_map(student, run, few)
    assert how == "PCA, of 20 in the validation split"
    points, rings, *_ = figure.axes[0].collections
    assert len(points.get_offsets()) == 20
    assert len(rings.get_offsets()) == (~few.outcomes.correct).sum()
    many = samples.predict(student, run, run.split.validation)
    assert samples.feature_map(student, run, many)[1].startswith("t-SNE, perplexity 20, of 60")
    assert samples.feature_map(student, run, samples.predict(student, run, run.split.validation[:2])) is None


@pytest.mark.parametrize("value", [0.0, np.nan], ids=["collapsed", "diverged"])
def test_a_network_that_sees_no_difference_between_images_has_no_map(value):
    """t-SNE of equal points is a segmentation fault: it would take the process, and this test's, with it."""
    run, student = run_data(), networks()["student"]
    for weight in student.trainable_variables:
        weight.assign(np.full(weight.shape, value))
    found = samples.predict(student, run, run.split.validation)
    assert len(found.index) >= samples.FEWEST_FOR_TSNE
    assert samples.feature_map(student, run, found) is None


def test_a_thousand_classes_have_a_page_and_their_worst_classes_and_confusions_listed(tmp_path):
    confusion = np.diag([5] * 1000)
    confusion[3, 7], confusion[8, 2] = 4, 2
    found = numbers(50) | {"confusion": confusion.tolist(), "per_class_accuracy": [0.123456789] * 1000}
    RunFolder(tmp_path).write_metrics({"validation": {"student": found}})
    assert (tmp_path / "metrics.json").stat().st_size < 20_000
    path = report.page(tmp_path)
    assert path.stat().st_size < 200_000
    text = path.read_text("utf-8")
    sound(text)
    rows = re.findall(r'<tr><th scope="row">(\d+)</th><td>(\d+)</td><td>(\d+)</td></tr>', text)
    assert rows == [("3", "7", "4"), ("8", "2", "2")]
    assert "Class by class, the 50 worst of 1,000" in text
    # Class 3: 5 of 9 right, and all that were predicted as 3 were: F1 = 2 · 5 / (9 + 5).
    first = re.search(r"<summary>Class by class.*?<tbody>\s*<tr>(.*?)</tr>", text, re.DOTALL)[1]
    assert re.findall(r">([^<]+)<", first) == ["3", "55.6", "100.0", "71.4", "9"]


def test_images_keep_their_pixels_or_are_scaled_down():
    small = inline_image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    assert small.source.startswith("data:image/png")
    assert small[1:] == (4, 4, True)
    large = inline_image(np.zeros((300, 200, 3), np.uint8))
    assert large.source.startswith("data:image/jpeg")
    assert large[1:] == (64, 96, False)
    assert len(large.source) < 5000
    assert inline_image(np.zeros((8, 8, 1), np.uint8)).source.startswith("data:image/png")


def test_a_drawing_has_the_colors_of_the_page_names_of_its_own_and_escaped_words():
    counts = np.array([[3, 1], [1, 3]])
    one, other = (
        str(inline_svg(report.plots.confusion(counts, NASTY[1:]), name)) for name in ("one", "other")
    )
    assert "<script" not in one
    assert "&lt;script" in one
    assert not any(color in one for color in (style.INK, style.PANEL, *style.CLASS_COLORS))
    assert {"currentColor", "var(--color-0)", "var(--color-1)", "var(--panel)"} <= set(
        re.findall(r"currentColor|var\([^)]*\)", one)
    )
    assert one.replace("one-", "other-") == other
    assert 'role="img" aria-label="Confusion matrix of 2 classes, 75.0% right"' in one


def test_a_page_that_cannot_be_drawn_leaves_a_finished_run_and_a_sentence(tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no ink")

    monkeypatch.setattr(finalize.report, "page", fails)
    with pytest.warns(
        UserWarning, match=r"The run is complete, but .*RuntimeError: no ink.*recipes\.report --run_dir="
    ):
        metrics = finalize.finish(RunFolder(tmp_path), run_data(), {"student": networks()["student"]})
    assert RunFolder(tmp_path).read_metrics() == metrics
    assert RunFolder(tmp_path).read_confusions()["validation/student"].sum() == 60
    assert isinstance(
        keras.saving.load_model(tmp_path / "networks" / "student.keras", compile=False), keras.Model
    )


def test_a_finished_run_has_its_page_unless_it_is_not_wanted(tmp_path):
    run = run_data()
    for wanted in (True, False):
        folder = tmp_path / str(wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            facts = {"seconds": {}, "steps": 1, "images": 1}
            finalize.finish(RunFolder(folder), run, networks(), draw_report=wanted, **facts)
        assert (folder / "report.html").exists() == wanted


def comparison_results():
    return {
        "plain & <simple>": {seed: whole_metrics() for seed in (0, 1)},
        "taught": {seed: whole_metrics() for seed in (0, 1)},
    }


def test_a_comparison_links_to_the_pages_that_its_runs_have(tmp_path):
    results = comparison_results()
    runs = {
        trial: {seed: tmp_path / f"{index} #50%?.{seed}" for seed in (0, 1)}
        for index, trial in enumerate(results)
    }
    for path in (runs["taught"][0], runs["taught"][1]):
        path.mkdir()
    (runs["taught"][1] / "report.html").touch()
    (runs["taught"][0] / "log.txt").touch()
    page = report.comparison_page(
        tmp_path,
        results,
        reference="plain & <simple>",
        runs=runs,
        warnings={"taught": {0: ["Beware of <this>."], 1: []}},
        command="python & <x>",
    )
    text = page.read_text("utf-8")
    links = re.findall(r'href="([^#"][^"]*)"', text)
    assert links == ["1%20%2350%25%3F.1/report.html", "1%20%2350%25%3F.0/log.txt"]
    sound(text.replace(links[0], "#runs").replace(links[1], "#runs"))
    assert "taught, seed 0</a></b> Beware of &lt;this&gt;." in " ".join(text.split())
    assert "plain &amp; &lt;simple&gt;" in text
    assert "<simple>" not in text


@pytest.mark.slow
@pytest.mark.skipif(browser.executable() is None, reason="there is no Chromium on the path, nor $CHROMIUM")
def test_a_browser_shows_the_page_without_errors_requests_or_scrolling_sideways(whole):
    address = whole[0].resolve().as_uri()
    with browser.opened() as tab:
        for width in (1280, 375):
            colors = []
            for dark in (False, True):
                tab.show(address, width=width, dark=dark)
                tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
                colors.append(tab.evaluate("getComputedStyle(document.querySelector('svg text')).fill"))
                assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert colors[0] != colors[1]
        assert tab.messages == []
        assert {request for request in tab.requests if not request.startswith("data:")} == {address}
