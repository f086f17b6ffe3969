"""Errors of probe, positions and alignment against true ones, without the gauge freedoms."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from scipy.optimize import minimize

from ..physics.types import Numbers
from .gauge import register
from .maxima import highest_lag
from .volumes import as_rotations

Modes = Complex[np.ndarray, "_ y x"]


class Fidelity(NamedTuple):
    """Fidelity of two probes, from 0 to 1, and the gauge removed from the found one."""

    fidelity: float
    shift: np.ndarray  # (y, x) [Å]
    ramp: np.ndarray  # (y, x) [rad/Å]


def probe_fidelity(found: Modes, true: Modes, pixel: Numbers) -> Fidelity:
    """Fidelity of two probes of any number of modes, at the best shift and phase ramp.

    F = ‖⟨ψ_a|φ_b⟩‖²_* / (‖ψ‖²‖φ‖²), with the nuclear norm (sum of singular values) of the overlaps
    of all modes: the fidelity (Tr √(√ρ σ √ρ))² of the mixed states (Uhlmann, Rep. Math. Phys. 9,
    273 (1976); Jozsa, J. Mod. Opt. 41, 2315 (1994)), and |⟨ψ,φ⟩|²/(‖ψ‖²‖φ‖²) of single modes.
    It does not depend on a constant phase or on the choice of the modes. Shift and ramp are
    removed, as positions and object can absorb them. `pixel` in Å.
    """
    if found.shape[1:] != true.shape[1:]:
        raise ValueError(
            f"a probe on {found.shape[1:]} pixels came with a true one on {true.shape[1:]}; give "
            "both on one grid"
        )
    found, true = (
        modes / np.sqrt(np.sum(np.abs(modes) ** 2, dtype=float)) for modes in (found, true)
    )
    shape = np.array(true.shape[1:])
    spectra = np.fft.fft2(true)
    power, true_power = (
        np.fft.fftshift(np.sum(np.abs(np.fft.fft2(modes)) ** 2, axis=0)) for modes in (found, true)
    )
    turns = -register(true_power, power).shift  # a ramp displaces the spectrum, for any shift
    crosses = np.fft.ifft2(spectra.conj()[:, None] * np.fft.fft2(_level(found, turns))[None])
    begin = [*highest_lag(np.sum(np.abs(crosses) ** 2, axis=(0, 1))), *turns]
    best = minimize(lambda p: -_overlap(spectra, found, p[:2], p[2:]), begin, method="BFGS").x
    fidelity = _overlap(spectra, found, best[:2], best[2:]) ** 2
    return Fidelity(fidelity, best[:2] * pixel, 2 * np.pi * best[2:] / (shape * pixel))


def _level(modes, turns):
    """Modes without a phase ramp of `turns` (y, x) over their window."""
    places = [
        (np.arange(n) - n // 2) / n * turn for n, turn in zip(modes.shape[1:], turns, strict=True)
    ]
    return modes * np.exp(-2j * np.pi * np.add.outer(*places))


def _overlap(spectra, modes, shift, turns) -> float:
    """Nuclear norm of the overlaps of all modes with those moved by −shift [pixels]."""
    k = [np.fft.fftfreq(n) * s for n, s in zip(modes.shape[1:], shift, strict=True)]
    moved = np.fft.fft2(_level(modes, turns)) * np.exp(2j * np.pi * np.add.outer(*k))
    overlaps = np.einsum("ayx,byx->ab", spectra.conj(), moved) / k[0].size / k[1].size
    return float(np.linalg.svd(overlaps, compute_uv=False).sum())


class PositionError(NamedTuple):
    """Residual between found and true positions [Å], and the map that was removed.

    found = mean + matrix·(true − mean) + shift + residual, with the mean of the true positions.
    """

    residual: np.ndarray  # [shot, 2] (y, x) [Å]
    shift: np.ndarray  # (y, x) [Å]
    matrix: np.ndarray

    def summary(self) -> dict[str, str]:
        """Root mean square, mean and maximum for a table."""
        distance = np.hypot(*self.residual.T)
        rms = np.sqrt(np.mean(distance**2))
        return {
            "position error": (
                f"{rms:.3g} Å rms, mean {distance.mean():.3g} Å, at most {distance.max():.3g} Å"
            )
        }


def position_error(
    found: Float[np.ndarray, "_ 2"], true: Float[np.ndarray, "_ 2"], affine: bool = True
) -> PositionError:
    """Errors of positions [Å] without their common shift and, if `affine`, a linear map."""
    if len(found) != len(true):
        raise ValueError(
            f"{len(found)} positions came with {len(true)} true ones; give those of the same shots"
        )
    mean = true.mean(0)
    shift = found.mean(0) - mean
    matrix = np.eye(2)
    if affine:
        matrix = np.linalg.lstsq(true - mean, found - found.mean(0), rcond=None)[0].T
    return PositionError(found - (mean + (true - mean) @ matrix.T + shift), shift, matrix)


class Alignment(NamedTuple):
    """Alignment of a tilt series: r (z, y, x) is seen at (rotation·r)_{y,x} + shift in a view."""

    rotations: np.ndarray  # [view, 3, 3] on (z, y, x); from angles by `volumes.rotation_matrices`
    shifts: np.ndarray  # [view, 2] (y, x) [Å]


class AlignmentError(NamedTuple):
    """Errors of every view, and the common translation and rotation removed before.

    A point r of the true specimen is at rotation·(r − translation) in the found one.
    """

    shifts: np.ndarray  # [view, 2] (y, x) [Å]
    turns: np.ndarray  # [view, 3] rotation vectors (z, y, x) in the frame of the view [degrees]
    translation: np.ndarray  # (z, y, x) [Å]
    rotation: np.ndarray  # on (z, y, x)
    voxel: float  # Å

    def distances(self) -> np.ndarray:
        """Magnitude of the shift error of every view [Å]."""
        return np.hypot(*self.shifts.T)

    def angles(self) -> np.ndarray:
        """Magnitude of the rotation error of every view [degrees]."""
        return np.linalg.norm(self.turns, axis=1)

    def summary(self) -> dict[str, str]:
        """Mean, median and maximum for a table."""
        distances = self.distances()
        angles = self.angles()
        return {
            "shift error": _statistics(distances, "Å"),
            "shift error in voxels": _statistics(distances / self.voxel, "voxels"),
            "angle error": _statistics(angles, "°"),
        }


def alignment_error(found: Alignment, true: Alignment, voxel: float) -> AlignmentError:
    """Errors of the shifts and angles of a tilt series without its gauge, by least squares; `voxel`
    in Å.

    The specimen may be rotated and moved as a rigid body: R̂_l ≈ R_l Qᵀ, with Q the mean of R̂_lᵀ
    R_l (which minimises Σ‖R̂_l − R_l Qᵀ‖²), and τ̂_l ≈ τ_l + Π R_l t.
    """
    views = len(true.rotations)
    lengths = {len(values) for values in (*found, *true)}
    if lengths != {views}:
        raise ValueError(f"got alignments of {sorted(lengths)} views; give those of the same views")
    turned, given = (as_rotations(alignment.rotations) for alignment in (found, true))
    whole = (turned.inv() * given).mean()
    moved = found.shifts - true.shifts
    translation = np.linalg.lstsq(true.rotations[:, 1:].reshape(-1, 3), moved.ravel(), rcond=None)[
        0
    ]
    turns = (turned * whole * given.inv()).as_rotvec(degrees=True)[:, ::-1]
    rest = moved - np.einsum("vij,j->vi", true.rotations[:, 1:], translation)
    return AlignmentError(rest, turns, translation, whole.as_matrix()[::-1, ::-1], voxel)


def _statistics(values, unit: str) -> str:
    mean = np.mean(values)
    median = np.median(values)
    maximum = np.max(values)
    return f"mean {mean:.3g}, median {median:.3g}, maximum {maximum:.3g} {unit}"
