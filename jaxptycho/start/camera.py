"""The camera from the data: bright-field disc, descan, defective pixels, gain and dose."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ..analysis.cumulants import cumulants
from ..analysis.design import area_per_shot
from ..analysis.electron_response import (
    NOISELESS,
    ElectronResponse,
    measured_response,
    neighbouring_sample,
    threshold_of,
)
from ..data import Dataset
from ..data.bad_pixels import describe_pixels
from ..data.tiles import tiles_of
from .caution import Measurement
from .cautions import of_centre, of_numbers
from .disc import Disc
from .disc_shifts import DiscShifts, fit_moving_disc, scan_places
from .measured import Measured
from .pixel_response import odd_pixels
from .rim import first_circle
from .tiles import tile_sums

FEWEST_FOR_PIXELS = 16  # patterns, that pixels are compared in
LARGE = 0.4  # of the shorter side of the detector, a radius that leaves little dark field
PASSES = 2  # the second one without the bad pixels that the first one finds
CUT = 0.95  # fraction of the rim in view, below which the disc is cut by an edge
BEYOND = 0.1  # of the radius, from the rim to what is surely scattered
IMPRECISE = 0.1  # pixels, of the centre of the disc


@dataclass(frozen=True, eq=False)
class MeasuredCamera:
    """Measured properties of the camera; `rows()` is their table.

    `shifts` are the shifts of the disc (y, x) [pixels] of all shots from its centre, by their
    robust plane; `tiles` holds the shifts that the plane was fitted to. `bad_pixels` are masks of
    pixels by kind of defect, beside those that the dataset hides.
    """

    mean: Float[np.ndarray, "y x"]  # counts per pattern, zero frequency in the middle
    disc: Disc | None
    tiles: DiscShifts | None
    shifts: Float[np.ndarray, "shot 2"]
    bad_pixels: dict[str, Bool[np.ndarray, "y x"]]
    gain: ElectronResponse | None
    warnings: tuple[str, ...]
    _rows: dict[str, Measured]

    def rows(self) -> dict[str, Measured]:
        """Measured quantities by the name that ends in their unit."""
        return dict(self._rows)

    @property
    def scattered(self) -> float:
        """Fraction of the counts beyond the bright-field disc and its rim, 0 without a disc."""
        if self.disc is None:
            return 0.0
        sound = ~np.any([np.zeros_like(self.mean, bool), *self.bad_pixels.values()], axis=0)
        beyond = self.disc.distance(self.mean.shape) > BEYOND * self.disc.radius
        return float(self.mean[sound & beyond].sum() / max(self.mean[sound].sum(), 1e-30))

    def bounds(self) -> dict[str, float]:
        """Smallest standard errors of rows that counting noise permits (Cramér–Rao)."""
        if self.disc is None:
            return {}
        y, x, radius, *_ = self.disc.bounds
        found = {"disc_centre_y_pixels": y, "disc_centre_x_pixels": x}
        found["disc_radius_pixels"] = radius
        if self.tiles is not None:
            found |= dict(zip(_DESCAN, self.tiles.bounds.ravel(), strict=True))
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}


_DESCAN = tuple(f"descan_{i}_along_{j}_pixels" for i in "yx" for j in "yx")


def measure_camera(data: Dataset, view: int = 0) -> MeasuredCamera:
    """Camera of a scan, from its counts alone: of one view of a tilt series.

    Reads the patterns twice, a sample of them for the gain. Rows that the data do not determine are
    left out, with a warning; without a bright-field disc, as in a near field, these are those of
    the disc and of the descan.
    """
    if data.n_views > 1:
        data = data.view(view)
    positions = data.positions[0]
    tiles = tiles_of(positions)
    sums = tile_sums(data, tiles)
    visible = np.ones(data.grid.shape, bool) if data.mask is None else np.asarray(data.mask, bool)
    places = scan_places(positions)
    middles = np.stack([places[tiles == i].mean(0) for i in range(len(sums))])
    least = 1.0 if data.kinds[0].kind in "ui" else 0.0
    limits = least, threshold_of(data)
    disc, movement, gain, bad = _solved(sums, middles, visible, *neighbouring_sample(data), limits)
    shifts = np.zeros_like(places) if movement is None else movement.at(places)
    total = sums.sum(0)
    rows = _disc_rows(data, disc, movement) | _dose_rows(data, gain)
    about = Measurement(data, data.about)
    warnings = (
        *(caution.text for caution in of_centre(about)),
        *_disc_warnings(disc, total),
        *_pixel_warnings(bad),
        *(caution.text for caution in of_numbers(about)),
        *_gain_warnings(gain),
    )
    return MeasuredCamera(total / len(positions), disc, movement, shifts, bad, gain, warnings, rows)


def _solved(sums, middles, visible, sample, parts, limits: tuple[float, float]):
    """Disc, its movement, gain and bad pixels, each with what the others tell of it."""
    total = sums.sum(0)
    moments = cumulants(sample, parts)
    variance = sample.var(0) / np.maximum(sample.mean(0), 1e-12)
    noise = _excess(sample)
    mask, bad, gain = visible, {}, None
    for _ in range(PASSES):
        start = first_circle(total, mask, noise)
        moving = None if start is None else fit_moving_disc(sums, mask, start, middles, noise)
        disc, movement = (None, None) if moving is None else moving
        if moments is not None:
            gain = measured_response(moments, _dark(disc, total.shape), mask, *limits)
        noise = noise if gain is None else gain.noise
        if len(sample) >= FEWEST_FOR_PIXELS:
            bad = odd_pixels(total, variance, visible, disc, noise)
        before, mask = mask, visible & ~np.any([~visible, *bad.values()], axis=0)
        if (mask == before).all():
            break
    return disc, movement, gain, bad


def _excess(sample: Float[np.ndarray, "n y x"]) -> float:
    """Median variance over mean of the illuminated pixels: an upper bound of the noise."""
    mean, variance = sample.mean(0), sample.var(0)
    seen = mean > 0.1 * mean.max()
    if not seen.any():
        return 1.0
    return max(float(np.median(variance[seen] / mean[seen])), NOISELESS * float(mean.max()))


def _dark(disc: Disc | None, shape: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Pixels outside of the disc and of its edge."""
    if disc is None:
        return np.ones(shape, bool)
    return disc.distance(shape) > 4 * disc.edge + 2


def _disc_rows(
    data: Dataset, disc: Disc | None, movement: DiscShifts | None
) -> dict[str, Measured]:
    """Rows of the disc and its movement."""
    if disc is None or movement is None:
        return {}
    source = "fit of the rim of the bright-field disc"
    errors = disc.errors.copy()
    errors[:2] = np.fmax(errors[:2], movement.centre_errors)
    y, x = disc.centre
    rows = {
        "disc_centre_y_pixels": Measured(y, errors[0], "px", source),
        "disc_centre_x_pixels": Measured(x, errors[1], "px", source),
        "disc_radius_pixels": Measured(disc.radius, errors[2], "px", source),
    }
    mrad = 1e3 * data.grid.wavelength * math.sqrt(math.prod(data.grid.dk))
    step = f"disc radius × detector step of {mrad:.4g} mrad"
    rows["semiangle_mrad"] = Measured(mrad * disc.radius, mrad * errors[2], "mrad", step)
    ellipticity = float(np.hypot(errors[3], errors[4]) / math.sqrt(2))
    rows["disc_ellipticity"] = Measured(disc.ellipticity, ellipticity, "", source)
    rows["disc_edge_pixels"] = Measured(disc.edge, disc.edge * errors[5], "px", source)
    plane = "robust plane through the disc's shifts over the scan"
    pairs = zip(_DESCAN, movement.slopes.ravel(), movement.errors.ravel(), strict=True)
    rows |= {
        name: Measured(float(value), float(error), "px", plane)
        for name, value, error in pairs
        if math.isfinite(value)
    }
    return rows


def _dose_rows(data: Dataset, gain: ElectronResponse | None) -> dict[str, Measured]:
    """Rows of the counts of an electron and of the dose."""
    dose = data.dose()
    counts = float(dose.mean())
    error = float(dose.std() / math.sqrt(len(dose)))
    rows = {"counts_per_pattern": Measured(counts, error, "", f"mean of {len(dose)} patterns")}
    if gain is None:
        return rows
    source = "second and third cumulants of the counts, continued to few electrons"
    rows["counts_per_electron"] = Measured(gain.mean, gain.error, "", source)
    rows["variance_over_mean"] = Measured(gain.noise, gain.noise_error, "", source)
    rows["event_spread_pixels"] = Measured(gain.spread, gain.spread_error, "px", source)
    electrons = counts / gain.mean
    relative = math.hypot(error / max(counts, 1e-300), gain.error / gain.mean)
    words = "counts per pattern / counts per electron"
    rows["electrons_per_pattern"] = Measured(electrons, relative * electrons, "", words)
    if len(dose) > 1:
        area = area_per_shot(data.positions[0])
        per_area = electrons / area
        unit = "photons/Å²" if data.grid.voltage_kv is None else "e/Å²"
        words = f"electrons per pattern / {area:.4g} Å² per position"
        rows["dose_per_square_angstrom"] = Measured(per_area, relative * per_area, unit, words)
    return rows


def _disc_warnings(disc: Disc | None, total: np.ndarray) -> list[str]:
    """What is wrong with the disc."""
    if disc is None:
        return [
            "the mean pattern has no bright-field disc with a rim: is this a near field, or are "
            "the patterns of another arrangement (zero frequency in the corner)?"
        ]
    found = []
    if disc.arc < CUT:
        found.append(
            f"the disc is cut by an edge or the mask: fitted to {360 * disc.arc:.0f}° of its rim"
        )
    if disc.radius > LARGE * min(total.shape):
        found.append(
            f"the disc has a radius of {disc.radius:.1f} pixels on a detector of "
            f"{min(total.shape)}: little of the dark field is seen"
        )
    worst, bound = float(disc.errors[:2].max()), float(disc.bounds[:2].max())
    if worst > IMPRECISE:
        cause = "the electrons permit" if bound > IMPRECISE else "counting noise alone would permit"
        found.append(
            f"the centre of the disc is known to {worst:.2g} pixels ({cause} {bound:.2g} pixels)"
        )
    return found


def _pixel_warnings(bad: dict[str, np.ndarray]) -> list[str]:
    return [f"{describe_pixels(pixels)} {what}; mask them" for what, pixels in bad.items()]


def _gain_warnings(gain: ElectronResponse | None) -> list[str]:
    if gain is None:
        return ["too few patterns or electrons to measure the counts per electron"]
    if gain.error > 0.1 * gain.mean:
        return [f"counts per electron are uncertain: {gain.mean:.3g} ± {gain.error:.2g}"]
    return []
