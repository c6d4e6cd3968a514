"""Images that are there twice: in two classes, or in what is trained on and what is measured on."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from mpl_tf.data.images.reading import ReadingReport

LABELED, UNLABELED, TEST, TRUSTED = 0, 1, 2, 3
# Whose image is used in the place of its copies, by stream: a trusted one first, an unlabeled one last.
_RANK = np.array([1, 3, 2, 0])
# Of each image that is left out: where it is, and where the one is that it has the pixels of.
KINDS = {
    (TRUSTED, TRUSTED): "copies among trusted images",
    (LABELED, TRUSTED): "cheaply labeled copies of trusted images",
    (UNLABELED, TRUSTED): "unlabeled copies of trusted images",
    (TEST, TRUSTED): "test copies of trusted images",
    (LABELED, LABELED): "copies among labeled images",
    (UNLABELED, LABELED): "unlabeled copies of labeled images",
    (UNLABELED, UNLABELED): "copies among unlabeled images",
    (UNLABELED, TEST): "unlabeled copies of test images",
    (TEST, LABELED): "test copies of labeled images",
    (TEST, TEST): "copies among test images",
}
_BLOCK = 2**24


@dataclasses.dataclass(frozen=True, order=True)
class Copy:
    """An image that has the pixels of another one.

    Attributes:
        index: of the copy.
        original: index of the image that is used in its place.
        kind: one of `KINDS`' values.
    """

    index: int
    original: int
    kind: str


def content_hash(pixels: np.ndarray) -> bytes:
    """16 bytes that images share that look the same to a network, pixel by pixel."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


def find_copies(hashes: Sequence[bytes], streams: np.ndarray) -> list[Copy]:
    """Finds images that are there more than once.

    The one that is used in their place is the first trusted one, else the first labeled one, else the first test
    image, else the first.

    Args:
        hashes: of the N images.
        streams: int `[N]`: `TRUSTED`, `LABELED`, `UNLABELED` or `TEST`.

    Returns:
        The others, in rising order of their indices.
    """
    rank = _RANK[streams]
    originals: dict[bytes, int] = {}
    copies = []
    for index in np.argsort(rank, kind="stable").tolist():
        original = originals.setdefault(hashes[index], index)
        if original != index:
            copies.append(Copy(index, original, KINDS[int(streams[index]), int(streams[original])]))
    return sorted(copies)


def resolve_copies(
    hashes: Sequence[bytes],
    streams: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    name: Callable[[int], str],
    report: ReadingReport,
    *,
    drop: bool,
) -> set[int]:
    """Finds copies, counts them, and warns of those that are in what is measured on.

    Args:
        hashes: as for `find_copies`.
        streams: as for `find_copies`.
        labels: int `[N]`, -1 where unknown.
        class_names: in the order of the labels.
        name: says what the image of an index is called.
        report: takes up the copies.
        drop: whether copies are left out.

    Returns:
        The indices of the images to leave out; none where `drop` is False.

    Raises:
        ValueError: for an image with two labels, where `drop` is True.
    """
    found = find_copies(hashes, streams)
    for copy in found:
        report.add_copy(copy.kind, name(copy.index), name(copy.original))
    if drop:
        _note_corrections(found, labels, class_names, name, report)
    if wrong := _two_labels(found, labels, class_names, name, correct=drop):
        if drop:
            raise ValueError(
                f'{wrong}: remove one of each pair, or pass duplicates="keep" to train on both labels.'
            )
        warnings.warn(f"{wrong}.", stacklevel=3)
    # Copies among labeled images would be in what is trained on and in the validation split; unlabeled ones
    # are usually made on purpose, and are harmless once they are left out.
    kinds = [(TEST, LABELED), (TEST, TRUSTED), (UNLABELED, TEST), (TEST, TEST)]
    kinds += [] if drop else [(LABELED, LABELED), (TRUSTED, TRUSTED), (LABELED, TRUSTED)]
    kinds += [] if drop else [(UNLABELED, LABELED), (UNLABELED, TRUSTED)]
    if leaks := [copy for kind in kinds for copy in found if copy.kind == KINDS[kind]]:
        counts = " and ".join(
            f"{report.copies[kind]:,} {kind}" for kind in dict.fromkeys(c.kind for c in leaks)
        )
        done = (
            "they are left out, so that nothing is measured on what was trained on"
            if drop
            else 'they are used all the same, so that accuracy may be too high; duplicates="drop" leaves them out'
        )
        warnings.warn(
            f"There are {counts}, such as {name(leaks[0].index)} of {name(leaks[0].original)}: {done}.",
            stacklevel=3,
        )
    return {copy.index for copy in found} if drop else set()


def _note_corrections(found, labels, class_names, name, report) -> None:
    """Notes the cheap labels in whose place another, trusted one is used."""
    corrected = [
        copy
        for copy in found
        if copy.kind == KINDS[LABELED, TRUSTED] and labels[copy.index] != labels[copy.original]
    ]
    if corrected:
        first = corrected[0]
        report.notes.append(
            f"{len(corrected):,} cheap labels are corrected by trusted ones of the same images, such as "
            f"{name(first.index)} ({class_names[labels[first.index]]!r}) by {name(first.original)} "
            f"({class_names[labels[first.original]]!r})"
        )


def _two_labels(found, labels, class_names, name, *, correct) -> str | None:
    """A sentence on the first image with two labels, and how many there are.

    With `correct`, a trusted label counts in the place of a cheap one, and the two are no contradiction.
    """
    if correct:
        found = [copy for copy in found if copy.kind != KINDS[LABELED, TRUSTED]]
    pairs = ((copy, labels[copy.original], labels[copy.index]) for copy in found)
    wrong = [(copy, one, other) for copy, one, other in pairs if one >= 0 and other >= 0 and one != other]
    if not wrong:
        return None
    copy, one, other = wrong[0]
    more = f" (and {len(wrong) - 1:,} more such pairs)" if len(wrong) > 1 else ""
    return (
        f"{name(copy.original)} ({class_names[one]!r}) and {name(copy.index)} ({class_names[other]!r}) hold the same "
        f"pixels under two labels{more}"
    )


def perceptual_hash(pixels: np.ndarray) -> np.uint64:
    """64 bits that change little where an image is compressed, resized or made brighter: where it gets darker.

    Args:
        pixels: uint8 `[H, W, C]`.
    """
    from PIL import Image

    gray = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).convert("L")
    small = np.asarray(gray.resize((9, 8), Image.Resampling.BOX)).astype(int)
    return np.packbits(small[:, 1:] < small[:, :-1]).view(np.uint64)[0]


def find_near(
    hashes: np.ndarray, streams: np.ndarray, distance: int, *, labels: np.ndarray | None = None
) -> list[Copy]:
    """Finds images that look alike. Takes the time of N² comparisons: a second for 20,000 images.

    Args:
        hashes: uint64 `[N]` from `perceptual_hash`.
        streams: as for `find_copies`.
        distance: number of bits of the 64 in which two may differ.
        labels: int `[N]`, -1 where unknown, where the images that are found are to be left out: then each is one that
            looks like an image that stays, and of no other class. None names every image that looks like another.

    Returns:
        Each image with the first one before it, in the order of `find_copies`, that looks like it.
    """
    stays = np.ones(len(hashes), bool)
    order = np.argsort(_RANK[streams], kind="stable")
    ordered, found = np.asarray(hashes)[order], []
    step = max(1, _BLOCK // max(1, len(ordered)))
    for start in range(0, len(ordered), step):
        block = ordered[start : start + step, np.newaxis]
        near = np.bitwise_count(block ^ ordered[np.newaxis, : start + len(block)]) <= distance
        near &= np.arange(near.shape[1]) < np.arange(start, start + len(block))[:, np.newaxis]
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            index = int(order[start + row])
            candidates = order[np.flatnonzero(near[row])]
            if labels is not None:
                # Two classes may look alike to 64 bits: a leak is an image of the same class, or of an unknown one.
                same = (labels[candidates] == labels[index]) | (labels[candidates] < 0) | (labels[index] < 0)
                candidates = candidates[stays[candidates] & same]
                if not len(candidates):
                    continue
                stays[index] = False
            original = int(candidates[0])
            found.append(Copy(index, original, KINDS[int(streams[index]), int(streams[original])]))
    return sorted(found)
