"""Removal of ambiguities of a volume that a tilt series cannot resolve, before comparisons.

A tilt series determines neither the position nor the orientation of the specimen, its projections
do not determine the offset, and with the wrong sign of all angles it yields the mirror image in z.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from ..physics.types import Numbers
from .gauge import same_shape
from .maxima import highest_lag
from .warps import Fit, PhaseTone, Sampled, Warp, applied, eroded, fit, sampled, smoothed

Volume = Float[np.ndarray, "_ _ _"]
TURNS = tuple(np.cross(axis, np.eye(3)).T for axis in np.eye(3))  # generators of rotations
SEARCHED = np.deg2rad(15.0) * np.array(
    list(product((0, -1, 1), repeat=3))
)  # initial rotation vectors
COARSE = 16  # samples along the longest side for these
HANDS = {False: np.eye(3), True: np.diag([-1.0, 1, 1])}


class AlignedVolume(NamedTuple):
    """A volume without its gauge, and the gauge; positions r from the central voxel [n//2, …] [Å].

    volume(rotation·S·r + shift) = scale·reference(r) + offset, where S inverts z in a mirrored
    volume and is otherwise the identity.
    """

    volume: np.ndarray  # on the voxels of the reference, 0 where `inside` is False
    inside: np.ndarray  # region that the volume covers
    shift: np.ndarray  # (z, y, x) [Å]
    rotation: np.ndarray  # on (z, y, x)
    angles: np.ndarray  # degrees: about y, then x, then z
    scale: float
    offset: float
    mirrored: bool  # True if the volume has the opposite hand
    agreement: tuple[float, float]  # correlation with the reference, and with its mirror image


def align_volume(
    volume: Volume,
    reference: Volume,
    voxel: Numbers = 1.0,
    where: Bool[np.ndarray, "_ _ _"] | None = None,
) -> AlignedVolume:
    """Volume rotated, shifted and scaled onto a reference of equal shape.

    Rotations of up to 20° and the hand are determined. `voxel` [Å] is one number or (z, y, x);
    only voxels of the reference `where` are used.
    """
    where = same_shape(volume, reference, where)
    target = sampled(reference, voxel)
    other = sampled(volume, voxel)
    fits = {hand: _by_scales(target, other, matrix, where) for hand, matrix in HANDS.items()}
    moved = {hand: applied(state, target, other) for hand, state in fits.items()}
    agreement = {
        hand: _correlation(values, reference, inside & where)
        for hand, (values, inside) in moved.items()
    }
    mirrored = agreement[True] > agreement[False]
    (matrix, shift), tone = fits[mirrored]
    rotation = matrix @ HANDS[mirrored]
    return AlignedVolume(
        *moved[mirrored],
        shift,
        rotation,
        np.rad2deg(euler_angles(rotation)),
        float(tone.scale),
        float(tone.offset),
        mirrored,
        (agreement[False], agreement[True]),
    )


def rotation_matrices(angles: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotations on (z, y, x) by angles [rad] about y, then x, then z.

    The tilt about y is x′ = x cos θ + z sin θ.
    """
    return Rotation.from_euler("yxz", angles).as_matrix()[..., ::-1, ::-1]


def euler_angles(matrices: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3"]:
    """The angles [rad] of `rotation_matrices`."""
    return as_rotations(matrices).as_euler("yxz")


def as_rotations(matrices: Float[np.ndarray, "*n 3 3"]) -> Rotation:
    """Matrices on (z, y, x) as scipy's rotations, which act on (x, y, z)."""
    return Rotation.from_matrix(matrices[..., ::-1, ::-1])


def _by_scales(target: Sampled, other: Sampled, hand, where) -> Fit:
    """Best of several starts on blurred volumes, refined at decreasing blur."""
    width = max(n * p for n, p in zip(target.values.shape, target.pixel, strict=True)) / COARSE
    a = smoothed(target, width)
    b = smoothed(other, width)
    mask = eroded(where, target, width)
    begun = sorted(
        (_begun(a, b, mask, _turn(vector) @ hand) for vector in SEARCHED), key=lambda pair: -pair[0]
    )
    fits = [_fitted(a, b, state, mask) for _, state in begun[:3]]
    state = max(fits, key=lambda s: _agreement(s, a, b, mask))
    while width > 1.5 * target.pixel.max():
        width /= 2
        state = _fitted(
            smoothed(target, width), smoothed(other, width), state, eroded(where, target, width)
        )
    return _fitted(target, other, state, where)


def _fitted(target, other, begin: Fit, where) -> Fit:
    return fit(target, other, begin, TURNS, (0, 1), where)


def _begun(target: Sampled, other: Sampled, where, matrix) -> tuple[float, Fit]:
    """Correlation for a rotation at the best shift to a voxel, and the fit."""
    tone = PhaseTone(1.0, 0.0, np.zeros(3))
    turned, _ = applied(Fit(Warp(matrix, np.zeros(3)), tone), target, other)
    fixed = (target.values - target.values[where].mean()) * where
    moving = turned - turned.mean()
    shape = [2 * n for n in fixed.shape]
    spectra = [np.fft.rfftn(values, shape, (0, 1, 2)) for values in (moving, fixed)]
    products = np.fft.irfftn(spectra[0] * spectra[1].conj(), shape, (0, 1, 2))
    reached = float(products.max() / np.sqrt(np.sum(fixed**2) * np.sum(moving**2) + 1e-300))
    shift = highest_lag(products) * target.pixel
    return reached, Fit(Warp(matrix, matrix @ shift), tone)


def _turn(vector) -> np.ndarray:
    return Rotation.from_rotvec(vector).as_matrix()


def _agreement(state: Fit, target: Sampled, other: Sampled, where) -> float:
    values, inside = applied(state, target, other)
    return _correlation(values, target.values, inside & where)


def _correlation(first, second, where) -> float:
    a, b = (
        values[where] - values[where].mean() if where.any() else np.zeros(1)
        for values in (first, second)
    )
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-300))
