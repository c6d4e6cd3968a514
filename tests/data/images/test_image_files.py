"""Which files are read, and that the others are named."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from mpl_tf.data.images import content, image_files
from mpl_tf.data.images.folders import from_folders
from mpl_tf.data.images.reading import ReadingReport


def encoded(form, **options):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
        file, form, **options
    )
    return file.getvalue()


# What pillow-heif writes begins so; the package need not be there.
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100)


@pytest.fixture
def folder(tmp_path):
    """Writes files by their names."""

    def write(files):
        for name, data in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path

    return write


def found_in(folder):
    report = ReadingReport()
    return [file.relative_name for file in image_files.image_files("folder", folder, report)], report


FORMS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"]


@pytest.mark.parametrize("form", FORMS)
def test_content_tells_the_format(form):
    data = encoded(form)
    assert content.format_of(data[: content.HEAD_BYTES]) == form
    assert content.format_of(data[:3]) in (None, "JPEG")


@pytest.mark.parametrize(
    "head",
    [b"", b"BMW and other cars, a list of them all", b"RIFF\0\0\0\0WAVEfmt ", b"%PDF-1.7",
     b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
     b"<svg xmlns=", b"8BPS\0\1", b"PK\3\4", b"II*", b"SQLite format 3\0"],
)  # fmt: skip
def test_what_is_no_image_is_none(head):
    assert content.format_of(head) is None


def test_images_are_found_whatever_they_are_called(folder):
    jpeg = encoded("JPEG")
    names = [
        "a.jpg", "b.JPEG", "c.jfif", "d.JPE", "e", "0123456789abcdef", "f.jpg_large", "g.image", "h.jpg?w=640",
        "deep/er/i.pjpeg", "j.2026", "k.txt.jpg",
    ]  # fmt: skip
    files = dict.fromkeys(names, jpeg) | {
        "m.tif": encoded("TIFF"),
        "n.avif": encoded("AVIF"),
        "o.dat": encoded("BMP"),
    }
    found, report = found_in(folder(files))
    assert sorted(found) == sorted(files)
    assert not report.passed_over


SYSTEM = [
    ".DS_Store", "__MACOSX/a.jpg", "Thumbs.db", ".ipynb_checkpoints/a-checkpoint.png", "@eaDir/a.jpg/THUMB_XL.jpg",
    "lost+found/x.jpg", "$RECYCLE.BIN/a.jpg", "System Volume Information/a.jpg", "#recycle/a.jpg", "desktop.ini",
    "._a.jpg", ".Trash-1000/files/a.jpg", ".thumbnails/a.png", "deep/@eaDir/a.jpg", "@Recycle/a.jpg", "Icon\r",
    "ehthumbs.db", ".git/a.png", "FOUND.000/a.jpg", "Network Trash Folder/a.jpg", "Temporary Items/a.jpg",
]  # fmt: skip


def test_what_systems_leave_is_passed_over(folder):
    root = folder({"a.jpg": encoded("JPEG")} | dict.fromkeys(SYSTEM, encoded("JPEG")))
    found, report = found_in(root)
    assert found == ["a.jpg"]
    counts = {kind: count for counts in report.passed_over.values() for kind, count in counts.items()}
    # Each folder is named, each file counted.
    assert {
        "__MACOSX",
        "@eaDir",
        ".ipynb_checkpoints",
        "Thumbs.db",
        "lost+found",
        "desktop.ini",
    } <= counts.keys()
    assert counts["@eaDir"] == 2


def test_folders_of_systems_are_no_classes(folder):
    files = {
        f"{name}/a{i}.png": encoded("PNG") for name in ("__MACOSX", "@eaDir", "lost+found") for i in (1, 2)
    }
    files |= {
        "ant/a.jpg": encoded("JPEG"),
        "cat/b.png": encoded("PNG"),
        ".DS_Store": b"x",
        "labels.csv": b"a,b",
    }
    source = from_folders(folder(files), image_size=8)
    assert source.class_names == ("ant", "cat")
    assert source.reading.passed_over["folder of the system"] == {"@eaDir": 1, "__MACOSX": 1, "lost+found": 1}
    assert source.reading.passed_over["no image"] == {".csv": 1}


def test_everything_else_is_named_by_its_reason(folder, monkeypatch):
    monkeypatch.setattr(content, "can_read_heif", lambda: False)
    tiff, jpeg = encoded("TIFF"), encoded("JPEG")
    files = {
        "a.jpg": jpeg, "b.NEF": tiff, "c.dng": tiff, "d.cr2": tiff, "e.jpg.crdownload": jpeg, "f.png.part": jpeg,
        "g.jpg~": jpeg, "h.jpg.bak": jpeg, "i.HEIC": HEIC, "j": HEIC, "k.txt": b"text", "l": b"", "m.mp4": b"\0" * 60,
        ".n.jpg.icloud": b"x", ".hidden.jpg": jpeg, "o.svg": b"<svg>",
    }  # fmt: skip
    root = folder(files)
    os.mkfifo(root / "pipe.jpg")
    found, report = found_in(root)
    assert found == ["a.jpg"]
    assert report.passed_over == {
        "camera raw": {".nef": 1, ".dng": 1, ".cr2": 1},
        "unfinished download": {".crdownload": 1, ".part": 1},
        "backup copy": {".jpg~": 1, ".bak": 1},
        content.HEIF_REASON: {".heic": 1, "no extension": 1},
        "no image": {".txt": 1, "no extension": 1, ".mp4": 1, ".svg": 1},
        "still in iCloud": {".icloud": 1},
        "hidden": {".jpg": 1},
        "no regular file": {".jpg": 1},
    }
    assert "1 .heic, 1 no extension (HEIC, which needs `pip install mpl_tf[heic]`)" in str(report)
    assert report.examples["camera raw"].endswith("b.NEF")


def test_a_folder_without_images_says_what_is_there(folder, monkeypatch):
    monkeypatch.setattr(content, "can_read_heif", lambda: False)
    root = folder({"ant/a.heic": HEIC, "ant/b.heic": HEIC, "cat/c.png": encoded("PNG")})
    with pytest.raises(
        ValueError, match=r"ant has no images \(2 \.heic \(HEIC, which needs .*heic\]`\) passed over\)"
    ):
        from_folders(root)
    with pytest.raises(ValueError, match=r"folder=.*ant has no images at any depth \(2 \.heic"):
        image_files.image_files("folder", root / "ant")


def test_heic_under_another_name_is_said_to_be_so(folder, monkeypatch):
    monkeypatch.setattr(content, "can_read_heif", lambda: False)
    root = folder({"ant/a.jpg": HEIC, "ant/b.png": encoded("PNG"), "cat/c.png": encoded("PNG")})
    with pytest.raises(ValueError, match=r"a\.jpg \(it is HEIC, which needs `pip install mpl_tf\[heic\]`\)"):
        from_folders(root, image_size=4)


def test_heic_is_read_where_the_package_is(folder):
    pillow_heif = pytest.importorskip("pillow_heif")
    content.can_read_heif.cache_clear()
    pillow_heif.register_heif_opener()
    gradient = np.linspace(0, 255, 64).astype(np.uint8)[None, :, None] * np.ones((32, 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(gradient).save(file, "HEIF", quality=95)
    root = folder({"ant/a.HEIC": file.getvalue(), "ant/b.jpg": file.getvalue(), "cat/c.png": encoded("PNG")})
    source = from_folders(root, image_size=(32, 64), duplicates="keep")
    assert abs(source.train.examples[0].astype(int) - gradient).mean() < 4
    np.testing.assert_array_equal(source.train.examples[0], source.train.examples[1])


def test_links_that_loop_are_followed_once(folder):
    root = folder({"x/a.png": encoded("PNG"), "x/y/b.jpg": encoded("JPEG")})
    (root / "x" / "y" / "up").symlink_to(root / "x")
    (root / "x" / "self").symlink_to(root / "x")
    (root / "z").symlink_to(root / "x" / "y")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    found, report = found_in(root)
    assert sorted(os.path.realpath(root / name) for name in found) == [
        str(root / "x/a.png"),
        str(root / "x/y/b.jpg"),
    ]
    assert sum(report.passed_over["link to a folder that is read already"].values()) == 3
    assert report.passed_over["cannot be opened"] == {"no extension": 2}


def test_links_to_folders_elsewhere_are_followed(folder):
    root = folder({"elsewhere/a.png": encoded("PNG"), "images/b.jpg": encoded("JPEG")})
    (root / "images" / "more").symlink_to(root / "elsewhere")
    assert found_in(root / "images")[0] == ["b.jpg", "more/a.png"]


def test_a_link_that_leads_nowhere_is_a_broken_image(folder):
    root = folder({"ant/a.png": encoded("PNG"), "cat/b.jpg": encoded("JPEG")})
    (root / "ant" / "gone.png").symlink_to(root / "nothing")
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be decoded, such as .*gone\.png"):
        from_folders(root, image_size=4)


def test_reports_are_one_line_and_fit_into_json(folder):
    import json

    source = from_folders(
        folder({"ant/a.png": encoded("PNG"), "cat/b.jpg": encoded("JPEG"), "cat/c.txt": b"text"}),
        image_size=8,
    )
    assert str(source.reading) == "2 images (1 .png, 1 .jpg); passed over: 1 .txt (no image)"
    assert json.loads(json.dumps(source.reading.as_dict()))["read"] == {".png": 1, ".jpg": 1}
