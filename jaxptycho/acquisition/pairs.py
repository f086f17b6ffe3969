"""Pairs of images of a target whose shift is measured: which ones, and how well."""

import numpy as np
from jaxtyping import ArrayLike, Float, Int

PAIR_LOSS_ANGLE = np.deg2rad(6.0)  # tilt between two images that doubles the variance of a shift


def pair_sigma(
    first: Float[ArrayLike, "*s"], second: Float[ArrayLike, "*s"], sigma: float
) -> Float[np.ndarray, "*s"]:
    """Standard deviation of the shift between images at two tilts [rad], `sigma` at the same one.

    σ √(1 + (Δθ / 6°)²): projections of a specimen differ the more, the further their tilts.
    """
    apart = (np.asarray(first) - second) / PAIR_LOSS_ANGLE
    return sigma * np.sqrt(1 + apart**2)


def closest_tilts(
    angles: Float[np.ndarray, " tilt"], tilt: int, exposed: Int[np.ndarray, " _"], count: int
) -> Int[np.ndarray, " _"]:
    """Numbers of the `count` tilts closest to a tilt of those `exposed`, on either branch.

    Several partners for each image keep errors of single shifts from adding up along the series.
    """
    order = np.argsort(np.abs(angles[exposed] - angles[tilt]), kind="stable")
    return exposed[order[:count]]
