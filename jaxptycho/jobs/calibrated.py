"""Keys of a job from the calibration of its measurement, each with its error and source."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..start.calibrate import Calibration
from ..start.hologram import MeasuredHologram
from ..start.measured import Measured
from ..start.slicing import beyond_focus, fitting_slices, slice_limit
from .template_files import template_text

LOW_DOSE = 1000.0  # electrons per Å², below which specimens are such that radiation damages
MAGNITUDES = (
    "astigmatism_angstrom",
    "coma_angstrom",
    "threefold_astigmatism_angstrom",
    "spherical_aberration_angstrom",
)
SPARSE = 1.0  # counts in the median pixel, below which their noise is not Gaussian
COUNTED = 1.5  # variance over mean, up to which counts are of single quanta
SIGNIFICANT = 3.0  # standard errors
WEAK_SCATTERING = 0.2  # fraction of the counts outside of the disc
UNEVEN = 0.02  # relative standard deviation inside the disc
RIM = 0.1  # of the radius, that belongs to neither side of the rim


class FoundKey(NamedTuple):
    """Value of a key of a job, and what it comes from."""

    value: Any
    source: str


def sign_of(defocus: float | None) -> int | None:
    """Sign of a defocus that is known, 1 for underfocus."""
    return None if not defocus else int(math.copysign(1, defocus))


def found_keys(look: Calibration) -> dict[str, FoundKey]:
    """Keys of a job that a calibration determines, by their path: "probe.defocus_angstrom"."""
    if look.optics is None:
        return {} if look.hologram is None else _of_hologram(look, look.hologram)
    rows = look.rows()
    thickness = look.data.about.get("thickness_angstrom")
    found = {"probe.semiangle_mrad": _of(rows["semiangle_mrad"])}
    stated = look.data.about.get("defocus_angstrom")
    if stated is not None and not look.optics.determined:
        words = "that of the file; the patterns do not determine it"
        return found | {"probe.defocus_angstrom": FoundKey(float(stated), words)}
    found["probe.defocus_angstrom"] = _defocus(look, thickness)
    found |= _scan_keys(look)
    further = _aberrations(look)
    if further.value:
        found["probe.aberrations_angstrom"] = further
    return found


def _of_hologram(look: Calibration, hologram: MeasuredHologram) -> dict[str, FoundKey]:
    """Keys of in-line holograms."""
    words = "no bright-field disc, and the patterns move with the scan"
    found = {"data.near_field": FoundKey(True, words)} | _scan_keys(look)
    focus = look.data.about.get("focus_to_sample_angstrom")
    if focus is not None:
        found["data.focus_to_sample_angstrom"] = FoundKey(focus, "given")
    elif hologram.focus_to_sample is not None:
        found["data.focus_to_sample_angstrom"] = _of(hologram.focus_to_sample)
    return found


def _of(measured: Measured, digits: int = 6) -> FoundKey:
    """Value with the digits that its error leaves, and the error and source in words."""
    value = measured.value
    if measured.error > 0:
        digits = max(1, math.ceil(math.log10(max(abs(value) / measured.error, 1.0))) + 2)
    return FoundKey(float(f"{value:.{digits}g}"), str(measured))


def _scan_keys(look: Calibration) -> dict[str, FoundKey]:
    """Orientation of the scan, where it is not that of the detector.

    One rotation if the scan is not mirrored, otherwise a transform and a rotation.
    """
    assert look.orientation is not None
    found = {}
    rotation = look.rows()["rotation_deg"]
    matrix = look.orientation.matrix
    if np.linalg.det(matrix) > 0:
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        rotation = replace(rotation, value=angle)
    else:
        transform = look.orientation.transform
        found["scan.transform"] = FoundKey(transform, "largest of eight evidences")
    if abs(rotation.value) > rotation.error:
        found["scan.rotation_deg"] = _of(rotation)
    return found


def _defocus(look: Calibration, thickness: float | None) -> FoundKey:
    """Defocus at the entrance of the beam: that of the middle and half of the thickness."""
    middle = look.rows()["defocus_angstrom"]
    if not thickness:
        return _of(middle)
    value, source = _of(middle)
    entrance = FoundKey(float(f"{value + thickness / 2:.6g}"), source)
    return entrance._replace(source=f"{source}, + half of the thickness of {thickness:g} Å")


def _aberrations(look: Calibration) -> FoundKey:
    """Aberrations beside the defocus, if one of them is significant."""
    assert look.optics is not None
    sizes = {name: row for name, row in look.rows().items() if name in MAGNITUDES}
    certain = [row for row in sizes.values() if abs(row.value) > SIGNIFICANT * row.error]
    if not certain:
        return FoundKey({}, "")
    chosen = {
        name: float(f"{value:.5g}")
        for name, value in look.optics.aberrations.items()
        if name != "C10"
    }
    words = (f"{name.removesuffix('_angstrom')} {row.amount}" for name, row in sizes.items())
    return FoundKey(chosen, f"{', '.join(words)} ← {certain[0].source}")


def fitting_template(look: Calibration) -> str:
    """Name of the template for data such as these."""
    data = look.data
    if look.hologram is not None:
        return "near_field"
    if data.grid.voltage_kv is None:
        return "siemens_star"
    return "rotavirus" if counts_per_area(look) < LOW_DOSE else "bilayer"


def counts_per_area(look: Calibration) -> float:
    """Electrons, or counts where their number is unknown, per Å² of the scan."""
    row = look.rows().get("dose_per_square_angstrom")
    return math.inf if row is None else row.value


def suggested_slices(look: Calibration) -> tuple[int, str]:
    """Number of slices, and the reason."""
    thickness = look.data.about.get("thickness_angstrom")
    if not thickness or look.optics is None:
        return 1, "thickness unknown: give it, and compare numbers of slices by the held-out loss"
    grid = look.data.grid
    why = f"{thickness:g} Å in slices of at most {slice_limit(grid):.3g} Å"
    return fitting_slices(thickness, grid), why


def probe_start(look: Calibration) -> tuple[str, str]:
    """Start of the probe, and the reason.

    An aperture that is not evenly illuminated is seen in the mean pattern, unless much is scattered
    by a crystal, whose beams overlap in it.
    """
    unevenness, scattered = _disc_shares(look)
    uneven = unevenness > UNEVEN and scattered < WEAK_SCATTERING
    words = (
        f"the disc is uneven by {100 * unevenness:.1f} %, and {100 * scattered:.0f} % of the "
        "counts are outside of it"
    )
    return ("mean_pattern" if uneven else "optics"), words


def _disc_shares(look: Calibration) -> tuple[float, float]:
    """Relative deviation of the mean pattern inside the disc; fraction of the counts outside."""
    disc = look.camera.disc
    assert disc is not None
    mean = look.camera.mean
    axes = (np.arange(n) - n // 2 - c for n, c in zip(mean.shape, disc.centre, strict=True))
    distance = np.hypot(*np.meshgrid(*axes, indexing="ij")) / disc.radius
    inside = mean[distance < 1 - RIM]
    spread = 0.5 * np.subtract(*np.percentile(inside, (84, 16)))  # robust against bad pixels
    return float(spread / max(np.median(inside), 1e-30)), look.camera.scattered


def job_values(look: Calibration, file: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Nested values of a job for a calibrated file, and the sources of its keys by their path."""
    if look.hologram is not None:
        values = tomllib.loads(template_text("near_field"))
        values["data"] = {"file": file, "hold_out": values["data"]["hold_out"]}
        return _nested(found_keys(look), values)
    refine: dict[str, Any] = {"kind": "refine"}
    values = {"data": {"file": file}, "step": [refine]}
    if look.optics is None:  # nothing is found, and what suits a bright field need not suit others
        return values, {}
    if np.median(look.camera.mean) < SPARSE and _counts_quanta(look):
        refine["loss"] = "poisson"
    return _nested(found_keys(look) | _suggestions(look), values)


def _counts_quanta(look: Calibration) -> bool:
    """True if the noise of the counts is that of single quanta.

    Where it is larger, the likelihood of single quanta is ruled by the background in dark pixels.
    """
    row = look.rows().get("variance_over_mean")
    return row is not None and row.value < COUNTED


def _suggestions(look: Calibration) -> dict[str, FoundKey]:
    """Keys of a job that suit the data."""
    slices, why = suggested_slices(look)
    found = {"specimen.slices": FoundKey(slices, why)}
    if slices > 1:
        thickness = float(look.data.about["thickness_angstrom"])
        found["specimen.thickness_angstrom"] = FoundKey(thickness, "that of the file")
        if beyond_focus(thickness, look.data.grid, look.semiangle):
            found["propagator.tilt_mrad"] = FoundKey([0.0, 0.0], "refined: it is thick")
            found["specimen.start"] = FoundKey("columns", "where the dark field is bright")
    found["probe.start"] = FoundKey(*probe_start(look))
    found.setdefault("specimen.start", FoundKey("direct", "the phase of a matched filter"))
    thick = "a phase alone is trapped in thick specimens" if slices > 1 else ""
    found["specimen.kind"] = FoundKey("complex" if slices > 1 else "phase", thick)
    return found


def _nested(
    found: Mapping[str, FoundKey], values: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of a job with those found, and the sources of these."""
    for path, one in found.items():
        section, key = path.split(".")
        values.setdefault(section, {})[key] = one.value
    return values, {path: one.source for path, one in found.items() if one.source}
