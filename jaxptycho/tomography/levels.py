"""Projections of a tilt series: binned, in a rotated frame, and in the field that all share."""

from functools import partial
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.ndimage import affine_transform, gaussian_filter

from ..physics.types import Numbers
from .projections import Images, axis_frame, three

BLUR = 0.7  # voxels, of the measured projections: finer detail than a voxel must not be fitted
MIN_WEIGHT = 0.99  # of a valid resampled pixel


class Level(NamedTuple):
    """The projections on coarser pixels."""

    measured: Images
    weights: Images
    voxel: tuple[float, float, float]
    volume_shape: tuple[int, int, int]
    offset: np.ndarray  # Å (y, x), position of the middle pixel


def rotate_images(
    images: Images, weights: Images, pixel: Numbers, angle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Images and their weights in a frame rotated about the middle pixel, on as many pixels.

    Its y is the direction at `angle` [rad] from y towards x: y′ = y cos + x sin,
    x′ = x cos − y sin.
    """
    back = axis_frame(angle).T * np.reshape(pixel, (1, 2)) / np.reshape(pixel, (2, 1))
    middle = np.array(images.shape[1:]) // 2
    offset = middle - back @ middle
    to_frame: Any = partial(affine_transform, matrix=back, offset=cast(Any, offset), order=1)
    valid = [to_frame((own > 0).astype(float)) > MIN_WEIGHT for own in weights]
    known = [np.where(own > 0, image, 0.0) for image, own in zip(images, weights, strict=True)]
    turned = [to_frame(image, order=3) for image in known]
    held = [to_frame(own) for own in weights]
    return np.stack(turned), np.where(valid, held, 0)


def common_field(
    shape: tuple[int, int], tilts: Numbers, across: Numbers = 0.0
) -> Float[np.ndarray, "view y x"]:
    """Weights of a film: 1 where every view shows the area of the untilted one, 0 outside.

    |x| ≤ ½X cos θ about its shift `across` [pixels].
    """
    x = np.arange(shape[1]) - shape[1] // 2 - np.reshape(across, (-1, 1))
    inside = np.abs(x) <= shape[1] / 2 * np.cos(np.asarray(tilts))[:, None]
    return np.broadcast_to(inside[:, None], (len(inside), *shape)).astype(float)


def binned(
    projections: Images,
    weights: Images,
    voxel: tuple[float, float, float],
    volume_shape: tuple[int, int, int],
    size: int,
) -> Level:
    """Projections, blurred and summed over size × size pixels, with weights and voxels."""

    def mean(images: Any) -> np.ndarray:
        views, y, x = images.shape
        cut = images[:, : y // size * size, : x // size * size]
        return cut.reshape(views, y // size, size, x // size, size).mean((2, 4))

    spread = (0, BLUR * size, BLUR * size)
    valid = gaussian_filter((weights > 0).astype(float), spread)
    known = gaussian_filter(np.where(weights > 0, projections, 0.0), spread) / np.maximum(
        valid, 1e-6
    )
    own = weights * (valid > 0.5)
    total = mean(own)
    measured = np.where(total > 0, mean(own * known) / np.where(total > 0, total, 1), 0)
    middle = [(n // size // 2) * size + (size - 1) / 2 - n // 2 for n in projections.shape[1:]]
    cells = tuple(-(-n // size) for n in volume_shape)
    steps = three(tuple(size * v for v in voxel))
    measured, total = (jnp.asarray(array, np.float32) for array in (measured, total))
    return Level(
        measured, total, steps, (cells[0], cells[1], cells[2]), np.multiply(middle, voxel[1:])
    )
