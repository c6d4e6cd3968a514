"""Moved, turned, tilted and scaled images, each by one projection and one bilinear interpolation."""

import math

import numpy as np
from scipy import ndimage


def project(image: np.ndarray, matrix: np.ndarray, *, edge: str = "grid-constant") -> np.ndarray:
    """Takes every pixel of the result from where a projection says.

    Args:
        image: float `[H, W, C]`.
        matrix: float `[3, 3]`, from the position (row, column, 1) of a pixel, counted from the middle of the
            image, to where it is taken from, up to a factor.
        edge: what lies outside, as `scipy.ndimage.map_coordinates` names it; black by default.

    Returns:
        float `[H, W, C]`.
    """
    height, width = image.shape[:2]
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = np.mgrid[:height, :width]
    positions = np.stack([rows - middle[0], columns - middle[1], np.ones((height, width))])
    row, column, depth = np.tensordot(matrix, positions, axes=1)
    return sample(image, row / depth + middle[0], column / depth + middle[1], edge=edge)


def sample(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, *, edge: str) -> np.ndarray:
    """Interpolates an image at the given positions.

    Args:
        image: float `[H, W, C]`.
        rows: float `[H, W]`.
        columns: float `[H, W]`.
        edge: as for `project`.

    Returns:
        float `[H, W, C]`.
    """
    channels = np.moveaxis(image, -1, 0)
    taken = [ndimage.map_coordinates(channel, (rows, columns), order=1, mode=edge) for channel in channels]
    return np.stack(taken, axis=-1)


def translation(pixels: float) -> np.ndarray:
    """The matrix for `project` that moves an image to the right."""
    return np.array([[1.0, 0.0, 0.0], [0.0, 1.0, -pixels], [0.0, 0.0, 1.0]])


def rotation(degrees: float) -> np.ndarray:
    """The matrix for `project` that turns an image clockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def scaling(factor: float) -> np.ndarray:
    """The matrix for `project` that enlarges an image about its middle."""
    return np.diag([1.0 / factor, 1.0 / factor, 1.0])


def tilt(degrees: float, focal_length: float) -> np.ndarray:
    """The matrix for `project` that turns an image about both of its axes, out of its plane.

    Args:
        degrees: by which it turns about the vertical axis, and then about the horizontal one.
        focal_length: of the camera that looks at its middle, and its distance, in pixels.
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    forward = np.array(
        [
            [focal_length * cosine, -focal_length * sine * sine, 0.0],
            [0.0, focal_length * cosine, 0.0],
            [sine, sine * cosine, focal_length],
        ]
    )
    return np.linalg.inv(forward)
