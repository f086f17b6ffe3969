"""Orientation and pixel of in-line holograms, from how they move with the scan.

A feature of the specimen at r is in the hologram of the probe's position r_p at (r − r_p)/pixel
from the middle, so that holograms of two positions are shifted by −T(r_i − r_j)/pixel, where T maps
the axes of the scan to those of the detector: there is no ambiguity of sign.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree

from ..data import Dataset
from ..data.orientation import SCAN_TRANSFORMS, orientation_matrix
from .measured import Measured

MAX_SHOTS = 400
NEIGHBOURS = 6
BAND = (0.02, 0.25)  # cycles per pixel, of the features that are compared
DIM = 0.05  # of the largest mean, below which pixels are not illuminated
AGREEMENT = 1.5  # pixels, of a shift with that of the fit
MIN_AGREEING = 0.5  # fraction of the pairs
ROUNDS = 8


@dataclass(frozen=True, eq=False)
class MeasuredHologram:
    """Map from positions to holograms; `evidence` are fractions of pairs that agree with each
    orientation.
    """

    transform: str
    rotation: Measured  # deg, after the transform
    pixel: Measured  # Å, at the specimen
    focus_to_sample: Measured | None  # Å, where the distance of the detector is known
    evidence: dict[str, float]
    warnings: tuple[str, ...]

    def rows(self) -> dict[str, Measured]:
        """Measured quantities by names that end in their unit."""
        rows = {"hologram_pixel_angstrom": self.pixel, "rotation_deg": self.rotation}
        distance = self.focus_to_sample
        return rows if distance is None else rows | {"focus_to_sample_angstrom": distance}

    @property
    def matrix(self) -> Float[np.ndarray, "2 2"]:
        """Orientation as a matrix on positions (y, x)."""
        return orientation_matrix(self.transform, math.radians(self.rotation.value))


def measure_hologram(data: Dataset) -> MeasuredHologram | None:
    """Orientation and pixel of the holograms of a scan; None where they do not move with it."""
    shots = np.unique(np.linspace(0, data.n_shots[0] - 1, MAX_SHOTS).astype(int))
    positions = data.positions[0][shots]
    pairs = _neighbours(positions)
    if len(pairs) < 2 * NEIGHBOURS:
        return None
    moved = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    shifts = _shifts(np.fft.fftshift(data.patterns(0, shots), axes=(1, 2)), pairs)
    matrix, agree = _robust_map(moved, -shifts)
    distance = np.hypot(*(moved @ matrix.T).T)
    if agree.mean() < MIN_AGREEING or np.median(distance) < AGREEMENT:
        return None
    axes = {name: np.array(t, float) for name, t in SCAN_TRANSFORMS.items()}
    evidence = {name: _agreement(moved, -shifts, t) for name, t in axes.items()}
    transform = max(evidence, key=lambda name: evidence[name])
    if evidence[transform] < MIN_AGREEING:
        return None
    turn, pixel = _similarity(moved[agree], -shifts[agree], matrix, axes[transform])
    focus = _focus_to_sample(data, pixel)
    return MeasuredHologram(transform, turn, pixel, focus, evidence, _contradiction(data, pixel))


def require_hologram(data: Dataset) -> MeasuredHologram:
    """`measure_hologram` of patterns without a bright-field disc; ValueError for no holograms."""
    found = measure_hologram(data)
    if found is None:
        raise ValueError(
            "the mean pattern has no bright-field disc with a rim, and the patterns do not move "
            "with the scan as in-line holograms do: is the zero frequency in the corner "
            '(data.zero_frequency = "corner"), is the disc beyond the camera, are the patterns in '
            "another order?"
        )
    return found


def _neighbours(positions: Float[np.ndarray, "shot 2"]) -> np.ndarray:
    """Pairs of shots next to one another, each once."""
    count = min(NEIGHBOURS + 1, len(positions))
    near = KDTree(positions).query(positions, k=count)[1].reshape(len(positions), -1)
    pairs = {tuple(sorted((i, int(j)))) for i, row in enumerate(near) for j in row if i != j}
    return np.array(sorted(pairs)).reshape(-1, 2)


def _shifts(patterns: np.ndarray, pairs: np.ndarray) -> Float[np.ndarray, "pair 2"]:
    """Shift (y, x) [pixels] of the first hologram of every pair from the second.

    Phase correlation of relative holograms (Kuglin & Hines 1975) within a band.
    """
    mean = patterns.mean(0)
    bright = mean > DIM * mean.max()
    relative = np.where(bright, patterns / np.maximum(mean, 1e-30) - 1, 0.0)
    shape = mean.shape
    window = np.outer(*(np.hanning(n) for n in shape))
    spectra = np.fft.fft2(relative * window)
    axes = (np.fft.fftfreq(n) for n in shape)
    cycles = np.hypot(*np.meshgrid(*axes, indexing="ij"))
    band = (cycles > BAND[0]) & (cycles < BAND[1])
    found = np.zeros((len(pairs), 2))
    for number, (i, j) in enumerate(pairs):
        cross = spectra[i] * spectra[j].conj()
        peak = np.fft.ifft2(band * cross / np.maximum(np.abs(cross), 1e-30)).real
        found[number] = _peak(np.fft.fftshift(peak))
    return found


def _peak(image: Float[np.ndarray, "y x"]) -> tuple[float, float]:
    """Position of the maximum from the middle, by a parabola along each axis."""
    smooth = ndimage.gaussian_filter(image, 0.7, mode="wrap")
    top = np.unravel_index(int(np.argmax(smooth)), image.shape)
    place = []
    for axis in (0, 1):
        line = np.moveaxis(smooth, axis, 0)[:, top[1 - axis]]
        before, here, after = (line[(top[axis] + step) % len(line)] for step in (-1, 0, 1))
        curve = before - 2 * here + after
        offset = 0.5 * (before - after) / curve if curve < 0 else 0.0
        place.append(float(top[axis] - image.shape[axis] // 2 + offset))
    return place[0], place[1]


def _robust_map(
    moved: Float[np.ndarray, "pair 2"], shifts: Float[np.ndarray, "pair 2"]
) -> tuple[Float[np.ndarray, "2 2"], Bool[np.ndarray, " pair"]]:
    """Matrix of `shifts = moved @ matrix.T`, and the pairs that agree with it."""
    agree = np.ones(len(moved), bool)
    matrix = np.zeros((2, 2))
    for _ in range(ROUNDS):
        matrix = np.linalg.lstsq(moved[agree], shifts[agree], rcond=None)[0].T
        distance = np.hypot(*(shifts - moved @ matrix.T).T)
        agree = distance < max(AGREEMENT, 2.5 * float(np.median(distance[agree])))
    return matrix, np.hypot(*(shifts - moved @ matrix.T).T) < AGREEMENT


def _agreement(
    moved: Float[np.ndarray, "pair 2"],
    shifts: Float[np.ndarray, "pair 2"],
    transform: Float[np.ndarray, "2 2"],
) -> float:
    """Fraction of the pairs that move as an orientation of the axes says, at its best scale."""
    expected = moved @ transform.T
    ratio = (shifts * expected).sum(1) / np.maximum((expected**2).sum(1), 1e-30)
    scale = max(float(np.median(ratio)), 0.0)
    return float(np.mean(np.hypot(*(shifts - scale * expected).T) < AGREEMENT))


def _similarity(
    moved: Float[np.ndarray, "pair 2"],
    shifts: Float[np.ndarray, "pair 2"],
    matrix: Float[np.ndarray, "2 2"],
    transform: Float[np.ndarray, "2 2"],
) -> tuple[Measured, Measured]:
    """Rotation after the transform [deg] and pixel [Å].

    Errors from the scatter of the shifts, and from what the matrix differs from a similarity.
    """
    left = matrix @ transform.T
    scale = math.sqrt(abs(np.linalg.det(left)))
    angle = math.degrees(math.atan2(left[1, 0] - left[0, 1], left[0, 0] + left[1, 1]))
    residual = shifts - moved @ matrix.T
    freedom = max(2 * len(moved) - 4, 1)
    scatter = math.sqrt((residual**2).sum() / freedom / ((moved**2).sum() / 2)) / scale
    large, small = np.linalg.svd(matrix, compute_uv=False)
    relative = math.hypot(scatter, (large - small) / (large + small))
    source = f"shifts of {len(moved)} pairs of holograms"
    turn = Measured(angle, math.degrees(relative), "°", source)
    return turn, Measured(1 / scale, relative / scale, "Å", source)


def _focus_to_sample(data: Dataset, pixel: Measured) -> Measured | None:
    """Distance z₂/(M − 1) [Å] from the focus, M the detector's pixel over that of the holograms."""
    distance = data.about.get("detector_distance_angstrom")
    if distance is None:
        return None
    magnification = data.about.get("magnification", 1.0)
    if "effective_distance_angstrom" in data.about:
        camera = magnification * data.grid.pixel[0]
    else:  # read as a far field
        camera = data.grid.dk[0] * data.grid.wavelength * distance
    ratio = camera / pixel.value
    if ratio <= 1:
        return None
    value = distance / (ratio - 1)
    error = value * ratio / (ratio - 1) * pixel.error / pixel.value
    return Measured(value, error, "Å", "magnification of the holograms")


def _contradiction(data: Dataset, pixel: Measured) -> tuple[str, ...]:
    """Warning of a pixel of the file that the holograms contradict."""
    stated = math.sqrt(math.prod(data.grid.pixel))
    if abs(pixel.value - stated) <= 3 * pixel.error:
        return ()
    return (
        f"the holograms move by a pixel of {pixel.amount} at the specimen, and the file says "
        f"{stated:.5g} Å: give the distance from the focus, or the pixel at the specimen",
    )
