"""Properties of the instrument: names that carry their units, and the resulting grid."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..physics.grids import VOLTAGE_KV, Grid, electron_wavelength

POSITIVE = (
    "voltage_kv",
    "wavelength_angstrom",
    "pixel_angstrom",  # of the object; one number or (y, x)
    "dk_inverse_angstrom",  # frequency step of the pattern; one number or (y, x)
    "semiangle_mrad",
    "thickness_angstrom",
    "effective_distance_angstrom",  # of a near-field hologram
)
SIGNED = (
    "defocus_angstrom",  # > 0 is underfocus
    "tilt_axis_deg",  # direction of the tilt axis in the patterns, from y towards x
)
INSTRUMENT = POSITIVE + SIGNED
# values outside are in another unit, which the error asks about
RANGES = {
    "voltage_kv": (*VOLTAGE_KV, "V"),
    "semiangle_mrad": (0.2, 500.0, "radians or degrees"),
    "wavelength_angstrom": (1e-4, 1e4, "metres or nm"),
    "pixel_angstrom": (1e-3, 1e7, "metres or nm"),
}
BEAM = ("voltage_kv", "wavelength_angstrom")
PAIRS = ("pixel_angstrom", "dk_inverse_angstrom")
SYNONYMS = {"energy_kev": "voltage_kv", "energy": "voltage_kv"}
UNITS = [
    "kv",
    "angstrom",
    "inverse_angstrom",
    "mrad",
    "v",
    "ev",
    "kev",
    "mev",
    "m",
    "cm",
    "mm",
    "um",
    "nm",
    "pm",
    "a",
    "ang",
    "inverse_nm",
    "rad",
    "urad",
    "deg",
]


def check_known(known: Mapping[str, Any], names: Collection[str] = INSTRUMENT) -> dict[str, Any]:
    """Known properties without Nones; each name must be one of `names`."""
    known = {name: value for name, value in known.items() if value is not None}
    for name in known:
        if name not in names:
            near = get_close_matches(SYNONYMS.get(name, name), names, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise ValueError(f"no property of a dataset is called {name}; {hint}")
    return check_values(known, "what is given beside the file")


def merge_properties(about: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return `about` updated by `known`.

    A known voltage replaces a wavelength, a known dk a pixel.
    """
    replaced = {name for names in (BEAM, PAIRS) for name in names if set(names) & set(known)}
    return {name: value for name, value in about.items() if name not in replaced} | dict(known)


def check_values(values: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """Values, those of the instrument as numbers.

    Raises ValueError for a property of the instrument in an unknown unit or with an invalid value.
    """
    by_stem = {_stem(name): name for name in INSTRUMENT}
    for name in values:
        wanted = by_stem.get(_stem(name), name)
        if name != wanted:
            raise ValueError(
                f"{source}: {name} is in no unit known here; convert it and call it {wanted}"
            )
    return {
        name: check_number(name, value, source) if name in INSTRUMENT else value
        for name, value in values.items()
    }


def wavelength_of(about: Mapping[str, Any], source: Any) -> float:
    """Wavelength [Å] from the voltage or the wavelength in `about`."""
    voltage, wavelength = (about.get(name) for name in BEAM)
    if voltage is None:
        if wavelength is None:
            raise ValueError(
                f"{source} names neither voltage_kv nor wavelength_angstrom; give one of them"
            )
        return wavelength
    if wavelength is not None and not _agree(electron_wavelength(voltage), wavelength):
        raise ValueError(
            f"{source}: electrons of voltage_kv = {voltage} have "
            f"{electron_wavelength(voltage):.5g} Å, not wavelength_angstrom = {wavelength}; "
            "correct or remove one"
        )
    return electron_wavelength(voltage)


def grid_of(about: dict[str, Any], shape: tuple[int, ...], source: Any) -> Grid:
    """Grid of a pattern of `shape` from the properties in `about`, which are removed from it."""
    wavelength = wavelength_of(about, source)
    voltage, _, pixel, dk = (about.pop(name, None) for name in BEAM + PAIRS)
    if pixel is None and dk is None:
        raise ValueError(
            f"{source} names neither pixel_angstrom nor dk_inverse_angstrom; give one of them"
        )
    if dk is not None:  # exact for rectangular patterns, unlike one object pixel
        by_dk = 1 / (np.asarray(shape) * dk)
        agree = pixel is None or (np.any if np.ndim(pixel) == 0 else np.all)(_agree(by_dk, pixel))
        if not agree:
            raise ValueError(
                f"{source}: pixel_angstrom = {pixel} and dk_inverse_angstrom = {dk} disagree for "
                f"{tuple(shape)} pixels (1/(N·dk) = {by_dk[0]:.6g}, {by_dk[1]:.6g} Å); correct or "
                "remove one"
            )
        pixel = by_dk
    pixel = tuple(map(float, np.broadcast_to(np.asarray(pixel), 2)))
    return Grid(shape, pixel, voltage, wavelength if voltage is None else None)


def properties_of(grid: Grid) -> dict[str, Any]:
    """Properties of a grid from which `grid_of` makes it."""
    beam = (
        {"wavelength_angstrom": grid.wavelength}
        if grid.voltage_kv is None
        else {"voltage_kv": grid.voltage_kv}
    )
    return beam | {
        "pixel_angstrom": grid.pixel[0] if grid.pixel[0] == grid.pixel[1] else grid.pixel
    }


def check_number(name: str, value: Any, source: Any) -> float | tuple[float, float]:
    """Property `name` as a number, or as a pair if that is allowed.

    An array of one number counts as that number; text is no number, as in a job. Raises ValueError
    for a value that is not finite, or not positive where that is required.
    """
    wanted = "one number, or (y, x)" if name in PAIRS else "one number"
    number = np.asarray(value)
    if any(isinstance(one, str | bytes) for one in number.ravel().tolist()):
        raise ValueError(f"{source}: {name} = {value!r}; expected {wanted}, not text")
    number = number.astype(float) if number.dtype.kind in "uif" else np.asarray(np.nan)
    number = number.reshape(()) if number.size == 1 else number
    if number.shape not in [(), (2,)][: 1 + (name in PAIRS)] or not np.isfinite(number).all():
        raise ValueError(f"{source}: {name} = {value!r}; expected {wanted}")
    if name not in SIGNED and number.min() <= 0:
        raise ValueError(f"{source}: {name} = {value!r}; expected more than 0")
    if beyond := out_of_range(name, number):
        raise ValueError(f"{source}: {name} = {value!r}: {beyond}")
    return float(number) if number.ndim == 0 else (float(number[0]), float(number[1]))


def out_of_range(name: str, number: Any) -> str | None:
    """Message for a value outside the range of the property `name` in its unit, else None."""
    low, high, unit = RANGES.get(name, (-np.inf, np.inf, ""))
    if np.min(number) < low or np.max(number) > high:
        return f"{low:g} to {high:g} are expected; is it in {unit}?"
    return None


def _stem(name: str) -> str:
    """Name without its unit."""
    unit = max((u for u in UNITS if name.lower().endswith("_" + u)), key=len, default=None)
    return name if unit is None else name[: -len(unit) - 1]


def _agree(one, other):
    return np.isclose(one, other, rtol=1e-3)
