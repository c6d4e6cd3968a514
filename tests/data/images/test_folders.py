import os
import pathlib
import shutil

import numpy as np
import pytest

from mpl_tf.data.images.folders import from_folders
from mpl_tf.data.images.images import ArrayImages, FileImages


@pytest.fixture
def folders(tmp_path, save_image):
    """Two classes with two images each, three unlabeled ones at different depths, a test image per class."""
    pixels = {}
    for name in (
        "labeled/cat/a.png",
        "labeled/cat/deep/er/b.PNG",
        "labeled/ant/c.png",
        "labeled/ant/d.bmp",
        "unlabeled/e.png",
        "unlabeled/x/f.png",
        "unlabeled/x/y/g.png",
        "test/cat/h.png",
    ):
        pixels[name] = save_image(tmp_path / name)
    (tmp_path / "labeled" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "labeled" / "cat" / "._a.png").write_text("left by another system")
    (tmp_path / "labeled" / ".hidden").mkdir()
    return pixels


def load(tmp_path, **options):
    return from_folders(tmp_path / "labeled", tmp_path / "unlabeled", test_dir=tmp_path / "test", **options)


def test_folders_name_the_classes_and_unlabeled_images_may_be_anywhere(tmp_path, folders):
    source = load(tmp_path)
    names = ["ant/c.png", "ant/d.bmp", "cat/a.png", "cat/deep/er/b.PNG"]
    names = [f"labeled/{name}" for name in names] + [
        f"unlabeled/{n}" for n in ("e.png", "x/f.png", "x/y/g.png")
    ]
    assert source.class_names == ("ant", "cat")
    assert source.train.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert list(source.train.names) == [str(tmp_path / name) for name in names]
    np.testing.assert_array_equal(source.train.examples, [folders[name] for name in names])
    assert source.test.labels.tolist() == [1]
    np.testing.assert_array_equal(source.test.examples, [folders["test/cat/h.png"]])
    assert (source.name, source.image_shape, source.flip, source.unreadable) == (
        "folders",
        (6, 6, 3),
        True,
        (),
    )


def test_large_folders_are_read_when_needed_and_give_the_same(tmp_path, folders):
    kept, left = load(tmp_path).train, load(tmp_path, memory_limit=6 * 6 * 3 * 7 - 1).train
    assert isinstance(kept, ArrayImages)
    assert isinstance(left, FileImages)
    np.testing.assert_array_equal(left.fetch(np.arange(7)), kept.examples)
    assert left.fingerprint() == kept.fingerprint()


def test_fingerprints_stay_when_folders_move_or_sizes_change(tmp_path, folders):
    before = load(tmp_path).train.fingerprint()
    assert load(tmp_path, image_size=4).train.fingerprint() == before
    for name in ("labeled", "unlabeled", "test"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    assert load(tmp_path / "elsewhere").train.fingerprint() == before
    (tmp_path / "elsewhere/labeled/cat/a.png").rename(tmp_path / "elsewhere/labeled/ant/a.png")
    assert load(tmp_path / "elsewhere").train.fingerprint() != before


def test_labeled_and_test_images_are_not_unlabeled_ones_too(tmp_path, folders):
    source = from_folders(tmp_path / "labeled", tmp_path, test_dir=tmp_path / "test")
    assert sorted(source.train.labels.tolist()) == [-1, -1, -1, 0, 0, 1, 1]
    assert len(set(source.train.names)) == 7


def test_images_are_resized_and_cropped(tmp_path, folders, save_image):
    wide = save_image(tmp_path / "labeled/cat/wide.png", size=(6, 10))
    source = load(tmp_path, image_size=(6, 4))
    assert source.image_shape == (6, 4, 3)
    position = source.train.names.index(str(tmp_path / "labeled/cat/wide.png"))
    np.testing.assert_array_equal(source.train.examples[position], wide[:, 3:7])
    assert from_folders(tmp_path / "labeled", image_size=4, channels=1).image_shape == (4, 4, 1)


def test_unlabeled_images_take_the_size_of_the_labeled_ones(tmp_path, folders, save_image):
    save_image(tmp_path / "unlabeled/large.png", size=(20, 30))
    assert load(tmp_path).image_shape == (6, 6, 3)


def test_labeled_images_of_several_sizes_need_one(tmp_path, folders, save_image):
    save_image(tmp_path / "labeled/cat/large.png", size=(20, 30))
    with pytest.raises(
        ValueError, match=r"from 6×6 to 20×30 \(height × width\): give the size .* as image_size"
    ):
        load(tmp_path)


@pytest.mark.parametrize("memory_limit", [0, 2**20])
def test_broken_images_are_named_or_left_out_and_counted(tmp_path, folders, memory_limit):
    broken = tmp_path / "unlabeled" / "x" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 cut off")
    with pytest.raises(
        ValueError, match=r"1 of 9 images cannot be decoded, such as .*broken\.jpg .*skip_unreadable"
    ):
        load(tmp_path, memory_limit=memory_limit)
    with pytest.warns(
        UserWarning, match=r"1 of 9 images cannot be decoded, such as .*broken\.jpg .*: left out"
    ):
        source = load(tmp_path, skip_unreadable=True, memory_limit=memory_limit)
    assert source.unreadable == (str(broken),)
    assert len(source.train) == 7
    assert str(broken) not in source.train.names


def test_a_class_of_broken_images_only_is_refused(tmp_path, folders):
    for name in ("c.png", "d.bmp"):
        (tmp_path / "labeled/ant" / name).write_bytes(b"broken")
    with (
        pytest.warns(UserWarning, match="2 of 8 images cannot be decoded"),
        pytest.raises(
            ValueError, match=r"No image of the class 'ant' in .* can be decoded: mend some, or remove it"
        ),
    ):
        load(tmp_path, skip_unreadable=True)


def test_missing_folders_are_named(tmp_path, folders):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(
        FileNotFoundError, match=r"labeled_dir=.*nowhere does not exist: give a folder of images"
    ):
        from_folders(nowhere)
    with pytest.raises(FileNotFoundError, match=r"unlabeled_dir=.*nowhere does not exist"):
        from_folders(tmp_path / "labeled", nowhere)
    with pytest.raises(FileNotFoundError, match=r"test_dir=.*nowhere does not exist"):
        from_folders(tmp_path / "labeled", test_dir=nowhere)
    with pytest.raises(FileNotFoundError, match=r"labeled_dir=.*a\.png is a file"):
        from_folders(tmp_path / "labeled/cat/a.png")


@pytest.mark.parametrize("locked", ["labeled", "labeled/ant", "unlabeled"])
def test_folders_that_may_not_be_read_are_named(tmp_path, folders, monkeypatch, locked):
    scan = os.scandir

    def guarded(path):
        if os.fspath(path) == str(tmp_path / locked):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    # Whoever runs the tests may be allowed to read everything.
    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(
        ValueError, match=rf"{locked} cannot be read \(Permission denied\): give yourself the"
    ):
        load(tmp_path)


def test_folders_laid_out_in_another_way_are_refused(tmp_path, folders, save_image):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        ValueError, match=r"labeled_dir=.*empty has no class folders: make one folder per class"
    ):
        from_folders(empty)
    with pytest.raises(ValueError, match=r"unlabeled_dir=.*empty has no images at any depth"):
        from_folders(tmp_path / "labeled", empty)
    (tmp_path / "labeled/dog").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*dog has no images: add some, or remove it"):
        load(tmp_path)
    (tmp_path / "labeled/dog").rmdir()
    save_image(tmp_path / "labeled/loose.png")
    with pytest.raises(ValueError, match=r"has images outside any class, such as loose\.png: move each"):
        load(tmp_path)


def test_other_folders_do_not_lie_in_that_of_a_class(tmp_path, folders):
    (tmp_path / "unlabeled").rename(tmp_path / "labeled" / "unlabeled")
    for option, inner in (("unlabeled_dir", "unlabeled/x"), ("test_dir", "cat"), ("trusted_dir", "ant")):
        name = inner.split("/")[0]
        with pytest.raises(
            ValueError, match=rf"{option}=.*{inner} lies in labeled_dir, .* class '{name}': move"
        ):
            from_folders(tmp_path / "labeled", **{option: tmp_path / "labeled" / inner})


def test_unlabeled_images_that_are_none_are_warned_of(tmp_path, folders):
    for folder in ("labeled", "test"):
        with pytest.warns(
            UserWarning, match=rf"unlabeled_dir=.*{folder} brings nothing, since all .* lie in labe"
        ):
            source = from_folders(tmp_path / "labeled", tmp_path / folder, test_dir=tmp_path / "test")
        assert source.train.labels.tolist() == [0, 0, 1, 1]


def test_one_class_is_not_enough(tmp_path, save_image):
    save_image(tmp_path / "labeled/cat/a.png")
    with pytest.raises(ValueError, match="'folders' has 1 class: a classifier needs at least two"):
        from_folders(tmp_path / "labeled")


def test_test_folders_have_the_names_of_classes(tmp_path, folders, save_image):
    save_image(tmp_path / "test/dog/a.png")
    with pytest.raises(
        ValueError, match=r"has a class 'dog' that labeled_dir lacks: name .* those are, ant, cat"
    ):
        load(tmp_path)


def test_labeled_images_cannot_be_test_images(tmp_path, folders):
    with pytest.raises(
        ValueError, match=r"4 images are in labeled_dir and in test_dir, such as .*: keep each in one"
    ):
        from_folders(tmp_path / "labeled", test_dir=tmp_path / "labeled")


def test_images_are_in_color_or_gray(tmp_path, folders):
    with pytest.raises(ValueError, match=r"channels=4 is not possible: pass 3 for RGB or 1 for gray"):
        from_folders(tmp_path / "labeled", channels=4)


def test_whether_a_mirror_keeps_the_label_is_the_users_to_say(tmp_path, folders):
    assert load(tmp_path).flip is True
    assert load(tmp_path, flip=False).flip is False


def test_sources_say_in_a_line_what_they_are(tmp_path, folders):
    source = load(tmp_path, flip=False)
    assert repr(source) == (
        "Source('folders': 2 classes, 4 labeled and 3 unlabeled, 1 test, 6×6×3, flip=False)"
    )
    assert repr(source.train) == "ArrayImages(7 images of 6×6×3, 4 labeled)"
    assert repr(source.test) == "ArrayImages(1 images of 6×6×3)"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "val"), r"train, val, .* give .*/train as labeled_dir, .*/val as test_dir"),
        (("Train", "Test"), r"give .*/Train as labeled_dir, .*/Test as test_dir"),
        (("training", "validation", "annotations"), r"give .*/training as labeled_dir, .*validation as test"),
        (
            ("labeled", "unlabeled", "test"),
            r"labeled as labeled_dir, .*test as test_dir, .*/unlabeled as unlabeled",
        ),
        (("train",), r"give .*/train as labeled_dir"),
        (("archive",), r"nothing but the folder 'archive', which holds 2 folders: .* give .*/archive"),
    ],
)
def test_the_folder_above_the_one_that_is_meant_is_recognized(tmp_path, save_image, names, message):
    for part in names:
        for name in ("ant", "cat"):
            save_image(tmp_path / part / name / "a.png")
    with pytest.raises(ValueError, match=message):
        from_folders(tmp_path, image_size=4)


def test_classes_may_be_called_like_parts_of_a_dataset(tmp_path, save_image):
    for name in ("train", "test", "plane"):
        save_image(tmp_path / name / "a.png")
    assert from_folders(tmp_path).class_names == ("plane", "test", "train")


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_one_name_in_two_unicode_forms_is_one_name(tmp_path, save_image):
    for folder in (f"labeled/{COMPOSED}", f"labeled/{DECOMPOSED}", "labeled/tea", f"test/{DECOMPOSED}"):
        save_image(tmp_path / folder / "a.png")
    source = from_folders(tmp_path / "labeled", test_dir=tmp_path / "test")
    assert source.class_names == (COMPOSED, "tea")
    assert source.train.labels.tolist() == [0, 0, 1]
    assert source.test.labels.tolist() == [0]


def test_fingerprints_do_not_depend_on_the_unicode_form_of_names(tmp_path, save_image):
    fingerprints = set()
    for number, form in enumerate((COMPOSED, DECOMPOSED)):
        for name in ("tea", "ice"):
            save_image(
                tmp_path / f"{number}/{name}/{form}.png",
                np.full((4, 4, 3), len(fingerprints), np.uint8)
                + np.arange(3, dtype=np.uint8) * 80
                + ord(name[0]) % 7,
            )
        fingerprints.add(from_folders(tmp_path / str(number)).train.fingerprint())
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (os.fsdecode(b"caf\xe9"), r"not UTF-8, .*/caf\\xe9: rename it, perhaps to 'café'"),
        (os.fsdecode("Straße".encode("utf-16-le")[:-1] + b"e").replace("\0", "\udc80"), "not UTF-8"),
        ("two\nlines", r"a line break or a control character in its name, 'two\\nlines': rename"),
        ("a\u2028b", "a line break or a control character"),
        ("tea ", r"names look the same, 'tea' and 'tea ': rename one"),
        ("te\u200ba", r"names look the same"),
        ("\uff54ea", "names look the same"),
    ],
)
def test_names_of_classes_can_be_written_and_told_apart(tmp_path, save_image, name, message):
    for folder in ("tea", name):
        save_image(tmp_path / folder / "a.png")
    with pytest.raises(ValueError, match=message):
        from_folders(tmp_path)


def test_names_of_files_may_be_anything(tmp_path, save_image):
    for folder in ("tea", "ice"):
        save_image(tmp_path / folder / os.fsdecode(b"caf\xe9.png"))
    source = from_folders(tmp_path)
    assert len(source.train) == 2
    assert len(source.train.fingerprint()) == 64
    str(source.reading).encode()


def test_locked_files_and_folders_around_are_named(tmp_path, folders, monkeypatch):
    def locked(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", os.fspath(path))

    read_bytes = pathlib.Path.read_bytes
    monkeypatch.setattr(
        pathlib.Path, "read_bytes", lambda path: locked(path) if path.name == "e.png" else read_bytes(path)
    )
    with pytest.raises(
        ValueError, match=r"1 of 8 images cannot be decoded, such as .*e\.png .*Permission denied"
    ):
        load(tmp_path)
    monkeypatch.setattr(os, "stat", locked)
    with pytest.raises(ValueError, match=r"folder .*labeled cannot be read \(Permission denied\)"):
        load(tmp_path)
