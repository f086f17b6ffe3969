"""Contents of camera files as rows of text: every quantity with its origin."""

import math

import numpy as np

from ..io.readers.completion import missing
from ..io.readers.detector import DETECTOR, disc_radius, sample_of
from ..io.readers.reading import QUANTITIES, Reading, Value

SMALL_BYTES = 2**28  # of patterns that are all read to describe them
# shown even where they are unknown
ALWAYS = ("scan_shape", "step_angstrom", "voltage_kv", "semiangle_mrad", "scan_rotation_deg")


def describe_reading(reading: Reading) -> dict[str, str]:
    """Format, shape and quantities as `value ← origin`, and what a sample of the patterns shows."""
    frames = reading.patterns
    count, ny, nx = frames.shape
    rows = {
        "format": reading.format,
        "patterns": f"{count} of {ny} × {nx} pixels, {frames.dtype.name}, "
        f"{size_of_patterns(reading) / 1e6:.4g} MB",
    }
    for name in QUANTITIES:
        if name in reading.values or name in ALWAYS:
            rows[name] = shown(reading[name])
    if not set(DETECTOR) & set(reading.values):
        rows["detector_step_mrad"] = shown(Value())
    if reading.positions is not None:
        rows["positions"] = f"{len(reading.positions)} ← header"
    masked = "none" if reading.mask is None else f"{int((~reading.mask).sum())} ← header"
    rows |= {"masked pixels": masked} | _sample_rows(reading)
    rows |= {f"note {number}": note for number, note in enumerate(reading.notes, 1)}
    absent = missing(reading)
    return rows | ({"to be given": ", ".join(absent)} if absent else {})


def shown(value: Value) -> str:
    """Text of a value with its origin."""
    if value.origin == "unknown":
        return "unknown"
    plain = value.value
    several = " × ".join(f"{one:.6g}" for one in plain) if isinstance(plain, tuple) else ""
    source = f" ({value.source})" if value.source else ""
    return f"{several or format(plain, '.6g')} ← {value.origin}{source}"


def size_of_patterns(reading: Reading) -> int:
    """Size of all patterns [bytes]."""
    return math.prod(reading.patterns.shape) * reading.patterns.dtype.itemsize


def is_small(reading: Reading) -> bool:
    """True for patterns that are read in a second."""
    return size_of_patterns(reading) <= SMALL_BYTES


def _sample_rows(reading: Reading) -> dict[str, str]:
    """Counts and the bright-field disc in a sample of the patterns."""
    shots = sample_of(reading.patterns)
    blocks = [np.asarray(reading.patterns[some]) for some in np.array_split(shots, len(shots))]
    finite = [np.nan_to_num(block[0].astype(float), posinf=0, neginf=0) for block in blocks]
    sums = [float(image.sum()) for image in finite]
    largest = max(float(image.max()) for image in finite)
    of = f"in {len(shots)} of {reading.patterns.shape[0]} patterns"
    rows = {
        "counts per pattern": f"{np.mean(sums):.5g} ({min(sums):.4g} to {max(sums):.4g}), largest "
        f"of a pixel {largest:.4g}, {of}"
    }
    radius = disc_radius(reading)
    found = "no disc" if radius is None else f"radius {radius:.2f} pixels ← measured"
    bad = sum(int((~np.isfinite(block)).any()) for block in blocks if block.dtype.kind == "f")
    rows["bright field"] = found
    return rows | ({"not finite": f"{bad} patterns {of}"} if bad else {})
