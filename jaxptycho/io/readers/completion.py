"""From a `Reading` and what the user gives to a `Dataset`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from ...data import ALONE, Dataset, ProcessShard
from ..arrangement import DATASET, Arrangement
from ..instrument import BEAM, check_number, grid_of
from ..scan_layout import SCAN_ORDERS, raster_positions
from .detector import DETECTOR, frequency_step, wavelength_in, with_detector
from .frames import Frames, part_of
from .reading import QUANTITIES, Reading, Value

# keys that describe the acquisition, beside those of the instrument
ACQUISITION = ("scan_shape", "step_angstrom", "scan_order")
ACQUISITION += ("detector_step_mrad", "frames", "ignore_header")
LAID_OUT = ("scan_shape", "step_angstrom", "scan_order")  # keys from which positions follow
ABOUT = ("semiangle_mrad", "defocus_angstrom", "scan_rotation_deg", "exposure_s", "camera_length_m")
# relative difference from the header that is a calibration; beyond, one of the two is wrong
TOLERANCE = {"voltage_kv": 0.01, "step_angstrom": 0.3, "semiangle_mrad": 0.3}
TOLERANCE |= dict.fromkeys(DETECTOR, 0.3) | {"wavelength_angstrom": 0.01}
TOLERANCE |= {"defocus_angstrom": np.inf}  # as users find it
FEWEST = 4  # patterns of a scan
EXAMPLES = {"step_angstrom": 0.4, "voltage_kv": 300, "semiangle_mrad": 21}


def dataset_of(
    reading: Reading,
    sharing: ProcessShard = ALONE,
    arrangement: Arrangement = DATASET,
    **known: Any,
) -> Dataset:
    """Dataset of a reading and of what is `known` beside its file.

    Positions are a raster, y from line to line, unless the file lists them. Raises ValueError in
    one sentence that names all that is missing, or both numbers of a contradiction.
    """
    if arrangement.position_unit != "angstrom":
        raise ValueError(
            f"{reading.path}: position_unit = {arrangement.position_unit!r} is of files that list "
            "positions without a unit; give scan.step_angstrom for this one"
        )
    for name in ("near_field", "focus_to_sample_angstrom"):
        if known.get(name):
            raise ValueError(f"{name} is of CXI files, and {reading.path} is none; leave it out")
    reading = completed(reading, known)
    if reading.patterns.shape[0] < FEWEST:
        raise ValueError(
            f"{reading.path} holds {reading.patterns.shape[0]} patterns, and a scan has at least "
            f"{FEWEST}; give the file of a scan"
        )
    frames = arrangement.counts(reading.patterns)
    corrected = Frames(frames.shape, frames.dtype, frames.__getitem__)
    seen = replace(reading, patterns=corrected, mask=arrangement.mask(reading.mask))
    reading = replace(reading, values=with_detector(seen).values)
    if (absent := missing_sentence(reading)) is not None:
        raise ValueError(absent)
    about = {
        name: reading[name].value for name in (*BEAM, *DETECTOR[::2]) if name in reading.values
    }
    grid = grid_of(about, reading.patterns.shape[1:], reading.path)
    about = {name: reading[name].value for name in ABOUT if name in reading.values}
    further = ("thickness_angstrom", "effective_distance_angstrom")
    about |= {name: known[name] for name in further if name in known}
    try:
        return arrangement.dataset(
            reading.patterns,
            positions_of(reading),
            grid,
            reading.mask,
            about=about,
            sharing=sharing,
        )
    except ValueError as error:
        raise ValueError(f"{reading.path}: {error}") from error


def completed(reading: Reading, known: Mapping[str, Any]) -> Reading:
    """Reading with the frames and the quantities that are given.

    Raises ValueError for an incomplete file, for a scan of another number of patterns, and where
    the header contradicts what is given.
    """
    given = _checked(reading, known)
    if "frames" in given:
        reading = _chosen(reading, given["frames"])
    elif reading.fault is not None:
        raise ValueError(
            f"{reading.path} {reading.fault}; where it is truncated, copy it again, else name the "
            f"patterns to read and their scan: frames=(0, {reading.patterns.shape[0]}), "
            "scan_shape=(y, x), in a job data.frames and scan.shape"
        )
    quantities = {name: value for name, value in given.items() if name in QUANTITIES}
    if not given.get("ignore_header"):
        _refuse_contradictions(reading, quantities)
    values = dict(reading.values)
    for group in (BEAM, DETECTOR):
        if set(group) & set(quantities):
            values = {name: value for name, value in values.items() if name not in group}
    values |= {name: Value(value, "given") for name, value in quantities.items()}
    ordered = {name: values[name] for name in QUANTITIES if name in values}
    reading = _ordered(replace(reading, values=ordered), given)
    _check_scan(reading)
    return reading


def _ordered(reading: Reading, given: Mapping[str, Any]) -> Reading:
    """Reading with the order of its shots that is given.

    Raises ValueError where the file lists positions, and those of a raster are asked for as well.
    """
    order = given.get("scan_order")
    if order not in (None, *SCAN_ORDERS):
        raise ValueError(f"no scan_order is called {order!r}; known are {', '.join(SCAN_ORDERS)}")
    if order == "file":
        if reading.positions is None:
            raise ValueError(
                f"{reading.path} lists no positions, and scan_order = 'file' takes them from it; "
                "give raster or serpentine with the shape and the step of the scan"
            )
        return reading
    laid_out = [name for name in LAID_OUT if name in given]
    if reading.positions is not None and laid_out:
        if not given.get("ignore_header"):
            raise ValueError(
                f"{reading.path} lists its positions, and {', '.join(laid_out)} would lay out "
                "others; leave them out, or set ignore_header=True to take those of the raster, in "
                "a job data.ignore_header"
            )
        reading = replace(reading, positions=None)
    return replace(reading, order=order or reading.order)


def _checked(reading: Reading, known: Mapping[str, Any]) -> dict[str, Any]:
    """Known values without Nones, those of the acquisition in their types."""
    given = {name: value for name, value in known.items() if value is not None}
    for name in ("step_angstrom", "detector_step_mrad"):
        if name in given:
            given[name] = _positive_pair(name, given[name])
    for name, least in (("scan_shape", 1), ("frames", 0)):
        if name in given:
            pair = np.asarray(given[name])
            if pair.shape != (2,) or pair.dtype.kind not in "iu" or pair.min() < least:
                what = "two numbers (y, x)" if least else "the first and the one after the last"
                raise ValueError(f"{reading.path}: {name} = {given[name]!r}; expected {what}")
            given[name] = (int(pair[0]), int(pair[1]))
    return given


def _positive_pair(name: str, value: Any) -> float | tuple[float, float]:
    """Positive number, or two (y, x)."""
    # of the same kind as a pixel: one number or (y, x)
    try:
        return check_number("dk_inverse_angstrom", value, "")
    except ValueError:
        raise ValueError(f"{name} = {value!r}; one number above 0 is expected, or (y, x)") from None


def _chosen(reading: Reading, frames: tuple[int, int]) -> Reading:
    """Reading of some of the frames; the shape of the scan is then another one."""
    first, stop = frames
    total = reading.patterns.shape[0]
    if not first < stop <= total:
        raise ValueError(
            f"{reading.path} holds {total} patterns, and frames = ({first}, {stop}) were asked "
            f"for; give the first one and the one after the last, up to {total}"
        )
    if (first, stop) == (0, total) and reading.fault is None:
        return reading
    values = {name: value for name, value in reading.values.items() if name != "scan_shape"}
    positions = None if reading.positions is None else reading.positions[first:stop]
    return replace(
        reading,
        patterns=part_of(reading.patterns, first, stop),
        values=values,
        positions=positions,
        fault=None,
    )


def _refuse_contradictions(reading: Reading, given: Mapping[str, Any]) -> None:
    """Raise ValueError where a header and a given value cannot both be right."""
    for name, value in given.items():
        if reading[name].origin == "header":
            _require_near(reading, name, reading[name].value, value, name)
    stated = {name: value.value for name, value in reading.values.items()}
    names = [next((n for n in DETECTOR if n in some), None) for some in (stated, given)]
    wavelength = wavelength_in({**stated, **given})
    header, value = (
        frequency_step(some, wavelength, reading.patterns.shape[1:]) for some in (stated, given)
    )
    # the same detector under two names
    if names[0] != names[1] and header is not None and value is not None:
        _require_near(reading, str(names[0]), header, value, f"1/Å of {names[1]}")


def _require_near(reading: Reading, name: str, header: Any, value: Any, what: str) -> None:
    """Raise ValueError for a value beyond the tolerance of a header's."""
    try:
        one, other = np.broadcast_arrays(np.asarray(header, float), np.asarray(value, float))
    except ValueError:
        raise ValueError(f"{name} = {value!r}; one number, or (y, x), is expected") from None
    if np.all(np.abs(one - other) <= TOLERANCE.get(name, 0.0) * np.abs(one)):
        return
    source = reading[name].source or "header"
    raise ValueError(
        f"{reading.path} gives {what} = {_shown(header)} ({source}), and {_shown(value)} is "
        "given; correct it, or set ignore_header=True, in a job data.ignore_header"
    )


def _check_scan(reading: Reading) -> None:
    """Raise ValueError for a scan of another number of patterns than there are."""
    shape = reading["scan_shape"].value
    total = reading.patterns.shape[0]
    if shape is None or math.prod(shape) == total:
        return
    scan = math.prod(shape)
    lines = total // shape[1]
    if total > scan and total % scan == 0:
        hint = (
            f"are there {total // scan} scans in one file? name one, frames=(0, {scan}), in a job "
            "data.frames"
        )
    elif likely_shape(total)[0] > 1 or lines < 2:
        hint = f"give a shape of {total} patterns, such as {likely_shape(total)}"
    else:
        hint = (
            f"read its complete lines, frames=(0, {lines * shape[1]}) and scan_shape=({lines}, "
            f"{shape[1]}), in a job data.frames and scan.shape"
        )
    raise ValueError(
        f"{reading.path} holds {total} patterns, and a scan of {shape[0]} × {shape[1]} has {scan}; "
        f"{hint}"
    )


def positions_of(reading: Reading) -> Float[np.ndarray, "shot 2"]:
    """Positions (y, x) [Å] that the file lists, or of its raster (`io.scan_layout`)."""
    if reading.positions is not None:
        return reading.positions
    shape, step = reading["scan_shape"].value, reading["step_angstrom"].value
    return raster_positions(shape, step, reading.order, reading.lines)


def missing(reading: Reading) -> list[str]:
    """Keys of what a `Dataset` requires and the reading does not give."""
    known = reading.values
    absent = []
    if reading.positions is None:
        absent += [name for name in ("scan_shape", "step_angstrom") if name not in known]
    if not set(BEAM) & set(known):
        absent.append("voltage_kv")
    if not {"dk_inverse_angstrom", "pixel_angstrom", "detector_step_mrad"} & set(known):
        absent.append("detector_step_mrad" if "semiangle_mrad" in known else "semiangle_mrad")
    return absent


# keys of a job that are not in data
PLACES = {"scan_shape": "scan.shape", "step_angstrom": "scan.step_angstrom"}
PLACES |= {"scan_order": "scan.order", "scan_transform": "scan.transform"}
PLACES |= {"rotation_deg": "scan.rotation_deg", "scan_affine": "scan.affine"}
PLACES |= {"semiangle_mrad": "probe.semiangle_mrad"}


def missing_sentence(reading: Reading) -> str | None:
    """Sentence that names what is missing, with example values and keys of a job; None if all is
    known.
    """
    absent = missing(reading)
    if not absent:
        return None
    examples = EXAMPLES | {"scan_shape": likely_shape(reading.patterns.shape[0])}
    examples |= {"detector_step_mrad": 0.5}
    call = ", ".join(f"{name}={examples[name]}" for name in absent)
    keys = ", ".join(PLACES.get(name, f"data.{name}") for name in absent)
    disc = {
        "semiangle_mrad": " (from whose disc the step of the detector follows; or "
        "detector_step_mrad, dk_inverse_angstrom)",
        "detector_step_mrad": " (no disc of the semiangle is found in the patterns)",
    }
    names = ", ".join(f"{name}{disc.get(name, '')}" for name in absent)
    return (
        f"{reading.path} does not give {names}; give {'it' if len(absent) == 1 else 'them'}, as in "
        f'jp.read("{reading.path.name}", {call}), in a job or after --set as {keys}'
    )


def likely_shape(count: int) -> tuple[int, int]:
    """Shape (y, x) nearest to a square of a scan of `count` patterns."""
    side = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
    return side, count // side


def _shown(value: Any) -> str:
    return str(tuple(f"{v:g}" for v in value)).replace("'", "") if np.ndim(value) else f"{value:g}"
