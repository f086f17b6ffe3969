"""Contents of a camera's file: patterns, and quantities with their origin."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from .frames import Frames

# Quantities that a header may state, with their units in the name, in the order of tables.
# Pairs are (y, x). `scan_rotation_deg` is that of the scan coils as the microscope reports it, not
# the rotation between scan and detector.
QUANTITIES = (
    "scan_shape",
    "step_angstrom",
    "voltage_kv",
    "wavelength_angstrom",
    "semiangle_mrad",
    "detector_step_mrad",
    "dk_inverse_angstrom",
    "pixel_angstrom",
    "defocus_angstrom",
    "scan_rotation_deg",
    "exposure_s",
    "camera_length_m",
    "saturation_counts",
)
LENGTHS = {"angstrom": 1.0, "a": 1.0, "å": 1.0, "pm": 0.01, "nm": 10.0, "um": 1e4, "µm": 1e4}
LENGTHS |= {"mm": 1e7, "cm": 1e8, "m": 1e10}  # in Å
ANGLES = {"mrad": 1.0, "rad": 1e3, "urad": 1e-3, "µrad": 1e-3, "deg": 1e3 * np.pi / 180}  # in mrad

Origin = Literal["header", "given", "measured", "unknown"]


class Value(NamedTuple):
    """Quantity, its origin, and the field of the header or the method that it comes from."""

    value: Any = None
    origin: Origin = "unknown"
    source: str = ""


UNKNOWN = Value()


@dataclass(frozen=True, eq=False)
class Reading:
    """Contents of a file of one scan.

    `patterns` are [shot, y, x] in the layout of the camera, read when they are indexed. `values`
    hold the known ones of `QUANTITIES`; `reading["voltage_kv"]` is one of them, or `UNKNOWN`.
    `lines` is the axis of the scan along which shots follow one another, in `order` (a serpentine
    runs every second line backwards). `positions` [shot, 2]
    (y, x) [Å] are those that the file lists, `mask` is True where a pixel counts, `notes` are
    remarks on contradictions. `fault` is the way in which the file is incomplete; it is then read
    only where the user names the `frames` to read.
    """

    path: Path
    format: str
    patterns: Frames
    values: Mapping[str, Value] = field(default_factory=dict)
    positions: np.ndarray | None = None
    mask: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    fault: str | None = None
    lines: Literal["x", "y"] = "x"
    order: Literal["raster", "serpentine"] = "raster"

    def __getitem__(self, name: str) -> Value:
        return self.values.get(name, UNKNOWN)


def stated(**fields: tuple[Any, str]) -> dict[str, Value]:
    """Quantities of a header as (value, field), without those that it leaves empty, zero or NaN."""
    return {
        name: Value(plain, "header", source)
        for name, (value, source) in fields.items()
        if (plain := _plain(value)) is not None and (plain or name == "scan_rotation_deg")
    }


def in_angstrom(value: float, unit: str) -> float | None:
    """Length in Å; None for an unknown unit."""
    factor = LENGTHS.get(unit.strip().lower().replace("μ", "µ"))
    return None if factor is None else value * factor


def detector_step(step: float, unit: str) -> dict[str, float]:
    """Step of the detector under its name, for a unit of angle or of inverse length.

    Empty for an unknown unit.
    """
    plain = unit.strip().lower().replace("μ", "µ")
    if plain in ANGLES:
        return {"detector_step_mrad": step * ANGLES[plain]}
    for mark in ("^-1", "-1"):
        if plain.endswith(mark):
            return _inverse(step, plain.removesuffix(mark))
    return _inverse(step, plain.partition("/")[2]) if plain.replace(" ", "")[:2] == "1/" else {}


def _inverse(step: float, unit: str) -> dict[str, float]:
    length = in_angstrom(1.0, unit)
    return {} if length is None else {"dk_inverse_angstrom": step / length}


def _plain(value: Any) -> Any:
    """Number, or tuple of numbers, of Python; None for nothing and for what is no finite number."""
    array = np.asarray(value)
    if value is None or array.dtype.kind not in "uif" or not np.isfinite(array).all():
        return None
    listed = array.reshape(-1)[0].item() if array.size == 1 else tuple(array.tolist())
    return listed if np.any(array) else 0


def scan_values(shape: tuple[int, ...], source: str = "shape of the array") -> dict[str, Value]:
    """Shape of the scan of an array [scan y, scan x, y, x]; empty for one of three axes."""
    return stated(scan_shape=(shape[:2], source)) if len(shape) == 4 else {}


def steps_of(steps: list[tuple[float | None, str]]) -> dict[str, Value]:
    """Steps of the scan and of the detector, from (step, unit) of all axes in their order."""
    values: dict[str, Value] = {}
    *scan, y, x = steps
    lengths = [None if step is None else in_angstrom(step, unit) for step, unit in scan]
    if len(lengths) == 2 and None not in lengths:
        values |= stated(step_angstrom=(tuple(lengths), "axes of the scan"))
    sizes = [{} if step is None else detector_step(abs(step), unit) for step, unit in (y, x)]
    if sizes[0] and sizes[0].keys() == sizes[1].keys():
        (name,) = sizes[0]
        values |= stated(**{name: ((sizes[0][name], sizes[1][name]), "axes of the detector")})
    return values
