"""Start of the optics from the shifts of bright-field images, without a first guess.

The image in the bright-field pixel k is shifted by λ·M·k, M = −TᵀC with C the matrix of defocus and
astigmatism and T the orientation of the scan. Cross-correlations of all pairs of images are added
for equal differences of k, Σ_k G*(k)G(k + d), which needs no picture of any single pixel: at low
doses the sum shows a peak at λ·M·d where no image shows anything. M is searched over all defoci,
rotations and both handednesses, improved as a matrix, and its polar decomposition is C and T.
"""

from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Float, Int, Num
from scipy.optimize import minimize

from ..direct.placement import place
from .sidebands import LONGEST, image_spectra
from .superpixels import SuperpixelImages

MAX_SIDE = 64  # frequencies of the scan along an axis
FEWEST_PAIRS = 3  # of cells with one difference
CORRELATED = 1.5  # cells, within which the noise of neighbours is correlated
RINGS = 12  # of |Q|, in which images are whitened
FINER = 2  # entries of a correlation per position of the scan
KEPT = 3  # matrices of each handedness
APART = 3.0  # entries between the shifts of different matrices at the rim of the disc
BATCH = 256  # matrices at once


class Correlations(NamedTuple):
    """Sums of the cross-correlations of images whose cells differ by `differences`."""

    differences: Int[np.ndarray, "d 2"]  # cells (y, x)
    values: Float[np.ndarray, "d Y X"]  # at shifts in `steps`, zero in the corner, in units of σ
    steps: Float[np.ndarray, "2 2"]  # Å, one entry along rows and columns


class LinearShifts(NamedTuple):
    """Shift (y, x) [Å] of an image per cell, `matrix` @ difference, and its significance."""

    matrix: Float[np.ndarray, "2 2"]
    score: float


def linear_shifts(images: SuperpixelImages) -> list[LinearShifts]:
    """Most probable maps from cells to shifts, some of each handedness, the best one first."""
    pairs = cross_correlations(images)
    found = [one for mirror in (1, -1) for one in _searched(pairs, mirror)]
    return sorted(found, key=lambda one: -one.score)


def cross_correlations(images: SuperpixelImages) -> Correlations:
    """Correlations for all differences between cells, one of each pair ±d."""
    placement = place(images.positions)
    ny, nx = placement.grid.shape
    size = min(ny, MAX_SIDE), min(nx, MAX_SIDE)
    g = image_spectra(images, placement, part=lambda g: _resized(g, (ny, nx), size))
    q = _resized(np.moveaxis(placement.grid.frequencies(), -1, 0), (ny, nx), size)
    length = np.hypot(*q)
    g = g / _ring_amplitude(g, length)
    g[:, length < LONGEST / np.sqrt(placement.grid.area * ny * nx)] = 0
    steps = placement.grid.steps * np.array([[ny / size[0]], [nx / size[1]]]) / FINER
    shape = 2 * (images.cells.max(0) + 1)
    lattice = np.zeros((*shape, *g.shape[1:]), np.complex64)
    lattice[tuple(images.cells.T)] = g
    members = np.zeros(shape)
    members[tuple(images.cells.T)] = 1
    counts = np.real(_autocorrelation(members))
    axes = (np.rint(np.fft.fftfreq(n, 1 / n)).astype(int) for n in shape)
    differences = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    y, x = differences[..., 0], differences[..., 1]
    used = ((y > 0) | ((y == 0) & (x > 0))) & (np.hypot(y, x) > CORRELATED)
    used &= counts > FEWEST_PAIRS - 0.5
    spectra = _autocorrelation(lattice)[used]
    fine = FINER * size[0], FINER * size[1]
    values = np.asarray(scipy.fft.irfft2(_resized(spectra, size, fine), fine))
    values -= values.mean((1, 2), keepdims=True)
    return Correlations(differences[used], values / np.sqrt(np.sum(values.var((1, 2)))), steps)


def _autocorrelation(lattice):
    """Σ_k lattice*(k) lattice(k + d) over the first two axes."""
    power = np.abs(np.asarray(scipy.fft.fft2(lattice, axes=(0, 1)))) ** 2
    return np.asarray(scipy.fft.ifft2(power, axes=(0, 1)))


def _ring_amplitude(g, length):
    """Root mean square of the images in the ring of every Q."""
    ring = np.minimum(RINGS * length / length.max(), RINGS - 1).astype(int)
    power = np.mean(g.real**2 + g.imag**2, 0)
    count = np.maximum(np.bincount(ring.ravel(), minlength=RINGS), 1)
    mean = np.bincount(ring.ravel(), power.ravel(), RINGS) / count
    return np.sqrt(np.maximum(mean, 1e-30))[ring]


def _resized(
    g: Num[np.ndarray, "n Y half"], shape: tuple[int, int], size: tuple[int, int]
) -> Num[np.ndarray, "n y part"]:
    """Half plane of a spectrum of `shape`, cut or padded with zeros to that of `size`."""
    rows = min(shape[0], size[0])
    columns = min(shape[1], size[1]) // 2 + 1
    result = np.zeros((len(g), size[0], size[1] // 2 + 1), g.dtype)
    upper, lower = (rows + 1) // 2, rows // 2
    result[:, :upper, :columns] = g[:, :upper, :columns]
    if lower:
        result[:, -lower:, :columns] = g[:, -lower:, :columns]
    return result


def _searched(pairs, mirror):
    """Best maps of one handedness, over all magnifications and rotations."""
    reach = np.abs(pairs.differences).max()
    entry = np.sqrt(abs(np.linalg.det(pairs.steps)))
    largest = min(pairs.values.shape[1:]) // 2  # entries of a shift at the rim
    polar = [
        (radius, angle)
        for radius in np.arange(0.5, largest)
        for angle in np.linspace(0, 2 * np.pi, 6 + int(2 * np.pi * radius), endpoint=False)
    ]
    radius, angle = np.array(polar).T
    vectors = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1) * entry / reach
    y, x = vectors.T
    matrices = np.stack([np.stack([y, -mirror * x], -1), np.stack([x, mirror * y], -1)], -2)
    batches = [matrices[i : i + BATCH] for i in range(0, len(matrices), BATCH)]
    scores = np.concatenate([_scores(pairs, batch) for batch in batches])
    chosen: list[int] = []
    for i in np.argsort(-scores):
        away = [np.hypot(*(vectors[i] - vectors[j])) * reach / entry for j in chosen]
        if min(away, default=np.inf) > APART:
            chosen.append(int(i))
        if len(chosen) == KEPT:
            break
    return [_improved(pairs, matrices[i], 1.5 * entry / reach) for i in chosen]


def _entries(pairs, matrices):
    """Shifts [n, d, 2] in entries of the correlations."""
    shifts = np.einsum("nij,dj->ndi", matrices, pairs.differences)
    return shifts @ np.linalg.inv(pairs.steps)


def _scores(pairs, matrices):
    """Sum of the correlations at the nearest entries, for matrices [n, 2, 2]."""
    ny, nx = pairs.values.shape[1:]
    nearest = np.rint(_entries(pairs, matrices)).astype(int)
    y, x = nearest[..., 0], nearest[..., 1]
    inside = (np.abs(y) <= ny // 2) & (np.abs(x) <= nx // 2)
    found = pairs.values[np.arange(len(pairs.values)), y % ny, x % nx]
    return np.sum(found * inside, 1)


def _improved(pairs, matrix, size):
    """Map of the largest interpolated score near `matrix`, all four elements free."""

    def _negative(flat):
        return -_interpolated(pairs, flat.reshape(2, 2))

    start = matrix.ravel()
    simplex = start + np.concatenate([np.zeros((1, 4)), size * np.eye(4)])
    options = {"initial_simplex": simplex, "maxiter": 150, "xatol": 0.02 * size, "fatol": 1e-2}
    best = minimize(_negative, start, method="Nelder-Mead", options=options)
    return LinearShifts(best.x.reshape(2, 2), -float(best.fun))


def _interpolated(pairs, matrix):
    """Sum of the correlations at shifts between entries, linear in both directions."""
    ny, nx = pairs.values.shape[1:]
    exact = _entries(pairs, matrix[None])[0]
    first = np.floor(exact).astype(int)
    y, x = (exact - first).T
    numbers = np.arange(len(exact))
    corners = ((0, 0, (1 - y) * (1 - x)), (0, 1, (1 - y) * x), (1, 0, y * (1 - x)), (1, 1, y * x))
    return sum(
        float(weight @ pairs.values[numbers, (first[:, 0] + i) % ny, (first[:, 1] + j) % nx])
        for i, j, weight in corners
    )
