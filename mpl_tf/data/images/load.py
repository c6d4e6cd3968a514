"""Where images come from: arrays, folders, any TFDS name, and two sets that come with scikit-learn."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpl_tf.data.images import copies, value_range
from mpl_tf.data.images.folders import from_folders
from mpl_tf.data.images.images import ArrayImages, FileImages, Images, TfdsImages
from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.data.images.source import Source
from mpl_tf.data.images.tfds import from_tfds
from mpl_tf.utils.validation import check_choice, check_integer

__all__ = [
    "OWN_NAMES",
    "ArrayImages",
    "FileImages",
    "Images",
    "Source",
    "TfdsImages",
    "from_arrays",
    "from_folders",
    "from_tfds",
    "load",
]

OWN_NAMES = ("digits", "two_moons", "folders")
_DIGITS_TEST_FRACTION = 0.2
_DIGITS_TEST_SEED = 20_210_301
_MOONS_NOISE = 0.1


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    labeled_dir: str | os.PathLike | None = None,
    unlabeled_dir: str | os.PathLike | None = None,
    test_dir: str | os.PathLike | None = None,
    trusted_dir: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    skip_unreadable: bool = False,
    channels: int | None = None,
    flip: bool | None = None,
    resize: str | None = None,
    interpolation: str | None = None,
    duplicates: str | None = None,
    near_duplicates: int | None = None,
    seed: int = 0,
) -> Source:
    """Loads a dataset by name.

    Args:
        name: "digits", "two_moons", "folders", or the name of a dataset in TFDS.
        data_dir: where TFDS keeps its datasets; None for its default. Nothing else reads it.
        labeled_dir: for "folders", holds one folder per class.
        unlabeled_dir: for "folders", holds unlabeled images at any depth.
        test_dir: for "folders", laid out as `labeled_dir`.
        trusted_dir: for "folders", laid out as `labeled_dir`: images whose labels somebody has checked.
        image_size: H = W, or (H, W), that images of folders and of TFDS are brought to.
        skip_unreadable: for "folders", leaves broken images out, with a warning, instead of refusing them.
        channels: for "folders", 3 (RGB) or 1 (gray); None for RGB.
        flip: whether a mirrored image keeps its label. None is True for folders, and for datasets other than
            digits, characters and signs.
        resize: for folders and TFDS, what becomes of other aspect ratios, `"crop"`, as None is, `"stretch"` or
            `"pad"`; see `from_folders`.
        interpolation: for folders and TFDS; None is `"bilinear"`.
        duplicates: for "folders", whether copies are left out, `"drop"`, as None is, images that look alike too,
            `"drop_near"`, or none, `"keep"`.
        near_duplicates: for "folders", in how many bits of a perceptual hash images that look alike may
            differ; None looks for none.
        seed: of the two moons.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for an unknown name, or arguments that do not go with it.
    """
    folders: dict[str, Any] = {
        "labeled_dir": labeled_dir,
        "unlabeled_dir": unlabeled_dir,
        "test_dir": test_dir,
        "trusted_dir": trusted_dir,
    }
    options: dict[str, Any] = {
        "channels": channels,
        "duplicates": duplicates,
        "near_duplicates": near_duplicates,
        "flip": flip,
    }
    options = {argument: value for argument, value in options.items() if value is not None}
    resizing: dict[str, Any] = {"resize": resize, "interpolation": interpolation}
    resizing = {argument: value for argument, value in resizing.items() if value is not None}
    if name == "folders":
        if labeled_dir is None:
            raise ValueError(
                "The dataset 'folders' needs labeled_dir: give the folder that holds one per class."
            )
        return from_folders(
            **folders, image_size=image_size, skip_unreadable=skip_unreadable, **resizing, **options
        )
    options.pop("flip", None)
    for argument, value in {**folders, **options}.items():
        if value is not None:
            raise ValueError(
                f"{argument}={value} is read for the dataset 'folders' and not for {name!r}: leave one of them out."
            )
    if name not in OWN_NAMES:
        return from_tfds(
            name, data_dir=data_dir, image_size=image_size, flip=flip, also_known=OWN_NAMES, **resizing
        )
    for argument, value in {"image_size": image_size, **resizing}.items():
        if value is not None:
            raise ValueError(
                f"{argument}={value} does not apply to {name!r}, which has one size: leave it out."
            )
    source = _digits() if name == "digits" else _two_moons(seed)
    return source if flip is None else dataclasses.replace(source, flip=flip)


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    unlabeled_images: np.ndarray | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    flip: bool = True,
    duplicates: str = "keep",
    trusted: np.ndarray | None = None,
) -> Source:
    """Images or points that are in memory already.

    Args:
        images: images `[N, H, W, C]` or `[N, H, W]` with values in 0…255 (rounded to uint8), or
            floating-point points `[N, D]`.
        labels: int `[N]` or `[N, 1]`, each in 0…K-1.
        unlabeled_images: more of the same, without labels.
        test: held-out images and labels.
        class_names: K names. None numbers the classes up to the largest label.
        name: of the dataset.
        flip: whether a mirrored image keeps its label.
        duplicates: what is done about images with the same pixels. `"keep"` uses them all, so that positions
            in the arrays are those in `Source.train`, and warns where one has two labels or is in two kinds
            of data. `"drop"` leaves copies out and refuses two labels, as `from_folders` does.
        trusted: bool `[N]`, whose labels somebody has checked, where the others are cheap ones; None where
            nothing is known of that.

    Returns:
        A `Source`.

    Raises:
        ValueError: for values, shapes or labels that are none of the above.
    """
    check_choice("duplicates", duplicates, ("drop", "keep"))
    images = _checked_examples("images", images)
    labels = _checked_labels("labels", labels, len(images), class_names)
    test_images, test_labels = (None, None) if test is None else test
    if test is not None:
        test_images = _checked_examples("test images", test_images)
        test_labels = _checked_labels("test labels", test_labels, len(test_images), class_names)
    if class_names is None:
        largest = max(labels.max(), -1 if test_labels is None else test_labels.max())
        class_names = [str(label) for label in range(largest + 1)]
    if unlabeled_images is not None:
        unlabeled_images = _checked_examples("unlabeled_images", unlabeled_images)
        if unlabeled_images.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"unlabeled_images have the shape {unlabeled_images.shape[1:]} and images {images.shape[1:]}: "
                "give both the same."
            )
    if trusted is not None:
        trusted = _checked_trusted(trusted, len(images))
    given = {"images": images, "unlabeled_images": unlabeled_images, "test images": test_images}
    parts = {what: examples for what, examples in given.items() if examples is not None}
    report = None
    if images.ndim == 4:
        parts = value_range.to_bytes(parts)
        everything = {"images": labels, "unlabeled_images": None, "test images": test_labels}
        known = {what: everything[what] for what in parts}
        parts, known, report, kept = _without_copies(
            parts, known, tuple(map(str, class_names)), duplicates, trusted
        )
        labels, test_labels = known["images"], known.get("test images")
        trusted = None if trusted is None else trusted[kept]
    images = parts["images"]
    if "unlabeled_images" in parts:
        unlabeled = parts["unlabeled_images"]
        images = np.concatenate([images, unlabeled])
        labels = np.concatenate([labels, np.full(len(unlabeled), -1, np.int32)])
        trusted = None if trusted is None else np.concatenate([trusted, np.zeros(len(unlabeled), bool)])
    return Source(
        name,
        tuple(map(str, class_names)),
        ArrayImages(images, labels),
        None if test_labels is None else ArrayImages(parts["test images"], test_labels),
        flip=flip,
        reading=report,
        trusted=trusted,
    )


def _without_copies(
    parts: dict, labels: dict, class_names: tuple[str, ...], duplicates: str, trusted: np.ndarray | None
):
    """The images, and their labels, of which each is there once, or all of them with a warning.

    Last a bool for each of `images`, whether it stays.
    """
    streams = {"images": copies.LABELED, "unlabeled_images": copies.UNLABELED, "test images": copies.TEST}
    names = [f"{what}[{index}]" for what, examples in parts.items() for index in range(len(examples))]
    owners = np.concatenate([np.full(len(examples), streams[what]) for what, examples in parts.items()])
    if trusted is not None:
        owners[: len(trusted)][trusted] = copies.TRUSTED
    known = [
        np.full(len(examples), -1) if labels[what] is None else labels[what]
        for what, examples in parts.items()
    ]
    hashes = [copies.content_hash(example) for examples in parts.values() for example in examples]
    report = ReadingReport()
    dropped = copies.resolve_copies(
        hashes,
        owners,
        np.concatenate(known),
        class_names,
        names.__getitem__,
        report,
        drop=duplicates == "drop",
    )
    keep = ~np.isin(np.arange(len(owners)), list(dropped))
    starts = np.cumsum([0, *(len(examples) for examples in parts.values())])
    chosen = {
        what: keep[start : start + len(examples)]
        for start, (what, examples) in zip(starts, parts.items(), strict=False)
    }
    if "test images" in chosen and not chosen["test images"].any():
        raise ValueError(
            'Every test image is a copy of a labeled one: give others to test on, or pass duplicates="keep".'
        )
    if dropped:
        parts = {what: examples[chosen[what]] for what, examples in parts.items()}
        labels = {what: None if own is None else own[chosen[what]] for what, own in labels.items()}
    return parts, labels, report, chosen["images"]


def _checked_trusted(trusted, count: int) -> np.ndarray:
    trusted = np.asarray(trusted)
    if trusted.dtype != bool or trusted.shape != (count,) or not trusted.any():
        raise ValueError(
            f"trusted is {trusted.dtype} of the shape {trusted.shape} with {np.count_nonzero(trusted)} true: pass "
            f"one bool for each of the {count} images, true for those whose labels somebody has checked."
        )
    return trusted


def _checked_examples(what: str, examples) -> np.ndarray:
    """Images as `[N, H, W, C]`, points as float32 `[N, D]`."""
    examples = np.asarray(examples)
    if examples.ndim not in (2, 3, 4) or examples.dtype.kind not in "iuf" or not examples.size:
        raise ValueError(
            f"{what} are {examples.dtype} of the shape {examples.shape}: pass numbers, images [N, H, W, C] "
            "or points [N, D], and at least one."
        )
    if not np.isfinite(examples).all():
        raise ValueError(f"{what} hold NaN or infinity: mend or remove these examples.")
    if examples.ndim == 2:
        if examples.dtype.kind != "f":
            raise ValueError(
                f"{what} are {examples.dtype} of the shape {examples.shape}: reshape flattened images to "
                "[N, H, W, C], or pass points as floating-point numbers."
            )
        return examples.astype(np.float32)
    if examples.ndim == 3:
        examples = examples[..., np.newaxis]
    if examples.shape[-1] > 4:
        raise ValueError(
            f"{what} have the shape {examples.shape}: the channels, 1 to 4 of them, must come last."
        )
    return examples


def _checked_labels(what: str, labels, count: int, class_names: Sequence[str] | None) -> np.ndarray:
    """Labels as int32 `[N]`."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(f"{what} have the shape {labels.shape}, as if one-hot: pass their argmax, [N].")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{what} are {labels.dtype}: pass whole numbers, one class index per image.")
    if labels.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"{what} have the shape {labels.shape}, and there are {count} images: pass [{count}]."
        )
    labels = labels.reshape(count)
    if labels.min() < 0:
        raise ValueError(
            f"{what} hold {labels.min()}, and classes count from 0: pass images without a label as "
            "unlabeled_images."
        )
    if labels.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f"{what} hold {labels.max()}, and classes count from 0: number the classes, as by the second result of "
            "np.unique(labels, return_inverse=True)."
        )
    if class_names is not None and labels.max() >= len(class_names):
        raise ValueError(
            f"{what} hold {labels.max()}, outside 0…{len(class_names) - 1}: mend them or give more class_names."
        )
    return labels.astype(np.int32)


def _digits() -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8×8; a fifth of each class is the test set."""
    from sklearn import datasets, model_selection

    values, labels = datasets.load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    # Everybody's test images are the same, whatever seed they train with.
    train, test = model_selection.train_test_split(
        np.arange(len(labels)),
        test_size=_DIGITS_TEST_FRACTION,
        random_state=_DIGITS_TEST_SEED,
        stratify=labels,
    )
    return Source(
        "digits",
        tuple("0123456789"),
        ArrayImages(images[train], labels[train]),
        ArrayImages(images[test], labels[test]),
        flip=False,
    )


def _two_moons(seed: int) -> Source:
    """Two interleaved half circles: 1,000 points of each to train on and 500 of each to test on.

    The noise has the standard deviation .1. The test points come from another seed than the training points.
    """
    from sklearn import datasets

    def draw(count, stream):
        state = np.random.SeedSequence([seed, stream]).generate_state(1)[0]
        points, labels = datasets.make_moons(count, noise=_MOONS_NOISE, random_state=int(state))
        return ArrayImages(points.astype(np.float32), labels)

    check_integer("seed", seed, low=0)
    return Source("two_moons", ("upper", "lower"), draw(2000, 0), draw(1000, 1), flip=False)
