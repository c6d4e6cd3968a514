"""One image in two positions: in two classes, or in what is trained on and in what is measured on."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mpl_tf.data.images import copies
from mpl_tf.data.images.folders import from_folders
from mpl_tf.data.images.load import from_arrays
from mpl_tf.data.splits import draw_split


@pytest.fixture
def save(tmp_path, rng):
    """Writes images of 12 pixels by their names, drawn anew."""

    def write(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)

    write(*(f"labeled/{name}/{i}.png" for name in ("ant", "cat") for i in range(6)))
    write(
        *(f"unlabeled/{i}.png" for i in range(4)),
        *(f"test/{name}/{i}.png" for name in ("ant", "cat") for i in "ab"),
    )
    return write


def load(tmp_path, **options):
    return from_folders(
        tmp_path / "labeled", tmp_path / "unlabeled", test_dir=tmp_path / "test", image_size=8, **options
    )


def copy_file(one, other):
    shutil.copy(one, other)


def link(one, other):
    other.symlink_to(one)


def hard_link(one, other):
    other.hardlink_to(one)


def in_another_format(one, other):
    Image.open(one).save(other.with_suffix(".bmp"))


def with_a_note(one, other):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    Image.open(one).save(other, exif=exif)


def turned_with_a_note(one, other):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(one).rotate(180).save(other, exif=exif)


WAYS = [copy_file, link, hard_link, in_another_format, with_a_note, turned_with_a_note]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_one_image_in_two_classes_is_refused_with_both_paths(tmp_path, save, way, memory_limit):
    way(tmp_path / "labeled/ant/0.png", tmp_path / "labeled/cat/copy.png")
    message = r"ant/0\.png \('ant'\) and .*cat/copy\.\w+ \('cat'\) hold the same pixels under two labels"
    with pytest.raises(ValueError, match=f"{message}: remove one"):
        load(tmp_path, memory_limit=memory_limit)
    with pytest.warns(UserWarning, match=message):
        source = load(tmp_path, memory_limit=memory_limit, duplicates="keep")
    assert len(source.train) == 17


@pytest.mark.parametrize("way", WAYS)
def test_a_test_image_with_another_label_is_refused(tmp_path, save, way):
    way(tmp_path / "labeled/ant/0.png", tmp_path / "test/cat/copy.png")
    with pytest.raises(ValueError, match=r"under two labels|images are in labeled_dir and in test_dir"):
        load(tmp_path)


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_in_one_kind_of_data(tmp_path, save, way):
    for name in ("ant", "cat"):
        for i in range(6):
            way(tmp_path / f"labeled/{name}/{i}.png", tmp_path / f"labeled/{name}/{i} (1).png")
            way(tmp_path / f"labeled/{name}/{i}.png", tmp_path / f"unlabeled/{name}{i}.png")
        way(tmp_path / f"test/{name}/a.png", tmp_path / f"unlabeled/{name}-test.png")
        way(tmp_path / f"test/{name}/a.png", tmp_path / f"test/{name}/again.png")
    with pytest.warns(UserWarning, match="copies"):
        source = load(tmp_path)
    assert np.bincount(source.train.labels + 1).tolist() == [4, 6, 6]
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    everything = [e.tobytes() for part in (source.train, source.test) for e in part.examples]
    assert len(set(everything)) == len(everything) == 20
    split = draw_split(source, num_labeled=None, seed=0, validation=0.4)
    trained = {source.train.examples[i].tobytes() for i in np.union1d(split.labeled, split.unlabeled)}
    assert not any(source.train.examples[i].tobytes() in trained for i in split.validation)


def test_test_copies_of_labeled_images_leave_the_test_set(tmp_path, save):
    for i in range(3):
        copy_file(tmp_path / f"labeled/ant/{i}.png", tmp_path / f"test/ant/copy{i}.png")
    copy_file(tmp_path / "test/ant/a.png", tmp_path / "unlabeled/copy.png")
    with pytest.warns(
        UserWarning,
        match=r"3 test copies of labeled images and 1 unlabeled .*, such as .*copy0\.png of .*0\.png: they are left",
    ):
        source = load(tmp_path)
    assert (len(source.train), len(source.test)) == (16, 4)
    assert source.reading.copies == {
        "unlabeled copies of test images": 1,
        "test copies of labeled images": 3,
    }
    assert pathlib.Path(source.reading.copy_examples["unlabeled copies of test images"][0][1]).parts[-3:] == (
        "test", "ant", "a.png",
    )  # fmt: skip
    assert "test copies of labeled images: 3" in str(source.reading)
    with pytest.warns(UserWarning, match=r"3 test copies .*: they are used all the same"):
        source = load(tmp_path, duplicates="keep")
    assert (len(source.train), len(source.test)) == (17, 7)


def test_a_test_set_of_copies_is_refused(tmp_path, save):
    shutil.rmtree(tmp_path / "test")
    shutil.copytree(tmp_path / "labeled", tmp_path / "test")
    with (
        pytest.warns(UserWarning, match="12 test copies of labeled images"),
        pytest.raises(
            ValueError,
            match=r"Every image in test_dir=.*test is a copy of a labeled one, or looks like one: give others",
        ),
    ):
        load(tmp_path)


def test_collections_on_disk_lose_their_copies_too(tmp_path, save):
    copy_file(tmp_path / "labeled/ant/0.png", tmp_path / "unlabeled/copy.png")
    stored, on_disk = load(tmp_path), load(tmp_path, memory_limit=0)
    assert len(stored.train) == len(on_disk.train) == 16
    assert stored.train.names == on_disk.train.names
    np.testing.assert_array_equal(on_disk.train.fetch(np.arange(16)), stored.train.examples)


def test_what_is_to_be_done_about_copies_is_one_of_two(tmp_path):
    for wrong in ("remove", True, None):
        with pytest.raises(ValueError, match=r"duplicates=.* is unknown: .*Choose one of 'drop', "):
            from_folders(tmp_path, duplicates=wrong)
        with pytest.raises(ValueError, match=r"duplicates=.* is unknown"):
            from_arrays(np.zeros((2, 2, 2, 1)), [0, 1], duplicates=wrong)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)


LABELS = [0, 1] * 4


def test_arrays_keep_their_places_and_say_what_leaks(images):
    with pytest.warns(
        UserWarning,
        match=r"2 test copies of labeled images, such as test images\[0\] of images\[2\]: they are used",
    ):
        source = from_arrays(images, LABELS, test=(images[2:4], LABELS[2:4]))
    assert (len(source.train), len(source.test)) == (8, 2)
    twice = np.concatenate([images, images[:2]])
    with pytest.warns(
        UserWarning, match=r"2 copies among labeled images, such as images\[8\] of images\[0\]"
    ):
        from_arrays(twice, [*LABELS, 0, 1])
    with pytest.warns(
        UserWarning, match=r"images\[0\] \('0'\) and images\[8\] \('1'\) hold .* two labels \(and 1 more"
    ):
        from_arrays(twice, [*LABELS, 1, 0])


def test_arrays_may_lose_their_copies(images):
    with pytest.raises(ValueError, match="hold the same pixels under two labels: remove"):
        from_arrays(images[[*range(8), 0]], [*LABELS, 1], duplicates="drop")
    with pytest.warns(UserWarning, match="1 test copies"):
        source = from_arrays(
            images[[*range(6), 0]],
            [*LABELS[:6], 0],
            unlabeled_images=images[[1, 6]],
            test=(images[[0, 7]], [0, 1]),
            duplicates="drop",
        )
    np.testing.assert_array_equal(source.train.examples, images[:7])
    assert source.train.labels.tolist() == [*LABELS[:6], -1]
    np.testing.assert_array_equal(source.test.examples, images[7:])
    with (
        pytest.warns(UserWarning, match="8 test copies"),
        pytest.raises(ValueError, match="Every test image is a copy of a labeled one"),
    ):
        from_arrays(images, LABELS, test=(images, LABELS), duplicates="drop")


def test_unlabeled_copies_of_labeled_arrays_are_warned_of(images):
    with pytest.warns(UserWarning, match="3 unlabeled copies of labeled images"):
        from_arrays(images, LABELS, unlabeled_images=images[:3])


def test_points_are_no_copies(warned):
    from_arrays(np.zeros((4, 2)), [0, 1, 0, 1])
    assert warned() == []


def photograph(rng):
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((96, 72), Image.Resampling.BICUBIC)


def test_images_that_look_alike_are_named(tmp_path, rng):
    for name in ("ant", "cat"):
        (tmp_path / name).mkdir()
    originals = [photograph(rng) for _ in range(8)]
    for i, image in enumerate(originals):
        image.save(tmp_path / ("ant", "cat")[i % 2] / f"{i}.png")
    originals[0].save(tmp_path / "ant/compressed.jpg", quality=40)
    originals[2].resize((48, 36)).save(tmp_path / "ant/smaller.png")
    ImageEnhance.Brightness(originals[1]).enhance(0.8).save(tmp_path / "cat/darker.png")
    found = set()
    with pytest.warns(UserWarning, match="near copies among labeled images: 3, such as"):
        source = from_folders(tmp_path, image_size=32, near_duplicates=4)
    for one, other in source.reading.near_copies["near copies among labeled images"]:
        found.add(frozenset((pathlib.Path(one).stem, pathlib.Path(other).stem)))
    assert found == {frozenset(("0", "compressed")), frozenset(("2", "smaller")), frozenset(("1", "darker"))}
    assert len(source.train) == 11
    for wrong in (-1, 17, 2.5, True):
        with pytest.raises(ValueError, match=r"near_duplicates=.* is out of range: pass 0 to 16 bits"):
            from_folders(tmp_path, image_size=32, near_duplicates=wrong)


def test_near_images_are_those_with_few_different_bits(rng, monkeypatch):
    # Blocks of a few images, so that pairs over their edges count.
    monkeypatch.setattr(copies, "_BLOCK", 50)
    hashes = rng.integers(0, 2**63, 40).astype(np.uint64)
    hashes[[7, 33]] = hashes[3] ^ np.uint64(0b1011), hashes[20] ^ np.uint64(0b11111)
    streams = np.zeros(40, int)
    bits = np.unpackbits(hashes[:, None].view(np.uint8), axis=1).astype(int)
    distances = abs(bits[:, None] - bits[None]).sum(-1)
    expected = {(j, i) for j in range(40) for i in range(j) if distances[i, j] <= 4}
    assert (
        {(copy.index, copy.original) for copy in copies.find_near(hashes, streams, 4)} == expected == {(7, 3)}
    )


def picture(seed):
    """Smooth enough that recompression changes few bits of its hash, and unlike any other."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)


NEAR = {
    "compressed": lambda image, path: image.save(path.with_suffix(".jpg"), quality=60),
    "compressed much": lambda image, path: image.save(path.with_suffix(".webp"), quality=30),
    "smaller": lambda image, path: image.resize((48, 48)).save(path),
    "brighter": lambda image, path: ImageEnhance.Brightness(image).enhance(1.15).save(path),
    "of fewer colors": lambda image, path: image.quantize(32).save(path),
}


@pytest.mark.filterwarnings("ignore:near")
@pytest.mark.parametrize("way", NEAR)
@pytest.mark.parametrize(
    ("place", "kind", "sizes"),
    [
        # What is left of 4 labeled, 2 unlabeled and 2 test images; the new one is always the one that goes.
        ("labeled/ant/z.png", "near copies among labeled images", (6, 2)),
        ("unlabeled/z.png", "near unlabeled copies of labeled images", (6, 2)),
        ("test/ant/z.png", "near test copies of labeled images", (6, 2)),
        # Another class: that they look alike to 64 bits is no proof, and no leak.
        ("labeled/cat/z.png", None, (7, 2)),
        ("test/cat/z.png", None, (6, 3)),
    ],
)
def test_near_copies_may_be_left_out_too(tmp_path, way, place, kind, sizes):
    names = ["labeled/ant/0", "labeled/ant/1", "labeled/cat/0", "labeled/cat/1", "unlabeled/0", "unlabeled/1"]
    for seed, name in enumerate([*names, "test/ant/0", "test/cat/0"]):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(path)
    NEAR[way](picture(0), tmp_path / place)
    source = from_folders(
        tmp_path / "labeled",
        tmp_path / "unlabeled",
        test_dir=tmp_path / "test",
        image_size=32,
        duplicates="drop_near",
    )
    assert (len(source.train), len(source.test)) == sizes
    assert set(source.reading.near_copies) == ({kind} if kind else set())
    if kind:
        ((gone, stays),) = source.reading.near_copies[kind]
        assert pathlib.Path(gone).stem == "z"
        assert stays == str(tmp_path / "labeled/ant/0.png")
        assert gone not in (*source.train.names, *source.test.names)


def test_what_looks_like_one_that_is_left_out_stays():
    # A, B and C in a row: B is near A and C is near B alone, so that C is no leak once B has gone; D is near A and C.
    hashes = np.array([0b0, 0b11, 0b1111, 0b100], np.uint64)
    streams, labels = np.array([copies.LABELED] * 4), np.array([0, 0, 0, 0])
    found = copies.find_near(hashes, streams, 2, labels=labels)
    assert [(copy.index, copy.original) for copy in found] == [(1, 0), (3, 0)]
    named = copies.find_near(hashes, streams, 2)
    assert [(copy.index, copy.original) for copy in named] == [(1, 0), (2, 1), (3, 0)]
    others = copies.find_near(hashes, streams, 2, labels=np.array([0, 1, -1, 1]))
    assert [(copy.index, copy.original) for copy in others] == [(2, 1)]


# --- trusted images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_a_trusted_label_counts_in_the_place_of_a_cheap_one(tmp_path, save, way, memory_limit):
    save("trusted/ant/new.png", "trusted/cat/new.png")
    way(tmp_path / "labeled/ant/0.png", tmp_path / "trusted/cat/checked.png")
    way(tmp_path / "labeled/ant/1.png", tmp_path / "trusted/ant/checked.png")
    copy_file(tmp_path / "trusted/cat/new.png", tmp_path / "unlabeled/copy.png")
    source = load(tmp_path, trusted_dir=tmp_path / "trusted", memory_limit=memory_limit)
    # 12 cheap ones, of which two are trusted now, the new ones, and 4 unlabeled.
    assert np.bincount(source.train.labels + 1).tolist() == [4, 6, 8]
    assert source.trusted.sum() == 4
    assert sorted(source.train.labels[source.trusted]) == [0, 0, 1, 1]
    corrected = [note for note in source.reading.notes if "corrected" in note]
    # A link is the same file, and lies in one folder of the two.
    assert len(corrected) == (way not in (link, hard_link))
    fetched = [bytes(np.asarray(source.train.fetch([i]))) for i in range(len(source.train))]
    assert len(set(fetched)) == len(fetched) == 18


def test_trusted_folders_are_looked_at_as_the_others(tmp_path, save):
    save("trusted/ant/new.png")
    copy_file(tmp_path / "test/ant/a.png", tmp_path / "trusted/ant/copy.png")
    with pytest.warns(UserWarning, match=r"1 test copies of trusted images, such as .*: they are left out"):
        source = load(tmp_path, trusted_dir=tmp_path / "trusted")
    assert (source.trusted.sum(), len(source.test)) == (2, 3)
    copy_file(tmp_path / "test/ant/b.png", tmp_path / "trusted/cat.png")
    with pytest.raises(ValueError, match=r"trusted_dir=.* has images outside any class"):
        load(tmp_path, trusted_dir=tmp_path / "trusted")
    (tmp_path / "trusted/cat.png").unlink()
    save("trusted/dog/0.png")
    with pytest.raises(ValueError, match=r"trusted_dir=.* has a class 'dog' that labeled_dir lacks"):
        load(tmp_path, trusted_dir=tmp_path / "trusted")
    shutil.rmtree(tmp_path / "trusted/dog")
    link(tmp_path / "test/ant/b.png", tmp_path / "trusted/ant/b.png")
    with pytest.raises(ValueError, match="1 images are in trusted_dir and in test_dir"):
        load(tmp_path, trusted_dir=tmp_path / "trusted")
