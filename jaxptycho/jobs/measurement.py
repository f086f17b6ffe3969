"""Measurement of a job, as its sections describe it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data import ALONE, Dataset, ProcessShard
from ..data.half_sets import checkerboard, thinned
from ..data.ordering import spread
from ..data.windows import with_windows
from ..io.axis import quarter_turns, rotate_patterns
from ..io.datasets import arrangement_of, read, tilt_axis_of
from ..io.images import read_image
from ..io.readers.source import opened
from ..physics.grids import Grid
from ..runs.references import is_reference, resolve
from .data_sections import Data
from .sections import Setup

NOT_OF_FILE = {"file", "reader", "options", "half", "fraction", "dose_fraction", "hold_out"}
WINDOWS = ("region_angstrom", "crop", "bin", "pad")
NOT_OF_FILE |= {"vacuum_file", *WINDOWS}
LAYOUT = ("shape", "step_angstrom", "order", "affine", "transform", "rotation_deg")
CHANGES = ("dark_file", "threshold", "counts_per_electron", "mask_file", *WINDOWS)
IMAGE_KEYS = ("dark_file", "mask_file", "zero_frequency")
FIELDS = ("black", "white")  # halves of the shots
QUANTA = ("first", "second")  # halves of every shot


def read_data(job: Setup, sharing: ProcessShard = ALONE) -> Dataset:
    """Dataset that a job names, with the values of the job in place of the file's.

    `sharing` is the shard of each process.
    """
    section = job.data
    seed = job.run.seed
    data = windows_of(job, _whole(job, sharing))
    if section.dose_fraction < 1:
        data = thinned(data, seed=2 * seed + 1, fraction=section.dose_fraction, sharing=sharing)
    if section.half in QUANTA:
        data = thinned(data, QUANTA.index(section.half), 2 * seed, sharing=sharing)
    fields = (
        checkerboard(data)[FIELDS.index(section.half)]
        if section.half in FIELDS
        else map(np.arange, data.n_shots)
    )
    pairs = enumerate(zip(fields, data.positions, strict=True))
    shots = [
        mine[spread(positions[mine], section.fraction, seed * data.n_views + view)]
        for view, (mine, positions) in pairs
    ]
    complete = sum(map(len, shots)) == sum(data.n_shots)
    # what is left by windows is read and checked here, by each process its part
    return data if complete and not has_windows(section) else data.subset(shots, sharing)


def _whole(job: Setup, sharing: ProcessShard) -> Dataset:
    """Dataset of the file of a job."""
    section = job.data
    if section.file is None:
        raise ValueError("data.file is missing; give the measurement")
    known = acquisition_of(job) | {
        name: value
        for name, value in section
        if name not in NOT_OF_FILE and value is not None and value is not False
    }
    reader = section.reader
    if reader is not None and is_reference(reader):
        known.pop("semiangle_mrad", None)
        return read(section.file, sharing, resolve(reader), **known, **section.options)
    if section.options:
        raise ValueError("data.options are keywords of a data.reader of yours; leave them out")
    return read(section.file, sharing, reader, **known)


def acquisition_of(job: Setup) -> dict[str, Any]:
    """Scan and semiangle that a job gives beside the file, as keywords of `read`."""
    scan = job.scan
    found = {
        "scan_shape": scan.shape,
        "step_angstrom": scan.step_angstrom,
        "scan_order": scan.order,
        "scan_affine": scan.affine,
        "scan_transform": scan.transform,
        "rotation_deg": scan.rotation_deg,
        "semiangle_mrad": job.probe.semiangle_mrad,
    }
    return {name: value for name, value in found.items() if value is not None}


def has_windows(section: Data) -> bool:
    """True if a job uses part of the patterns, or of their pixels."""
    return not all(section.is_default(name) for name in WINDOWS)


def windows_of(job: Setup, data: Dataset) -> Dataset:
    """The region of the scan and the window of the detector that a job uses."""
    section = job.data
    of_detector = section.crop is not None or section.bin > 1 or section.pad is not None
    if of_detector and job.detector.effective_distance_angstrom is not None:
        raise ValueError(
            "data.crop, bin and pad are of diffraction patterns, and "
            "detector.effective_distance_angstrom is of in-line holograms; leave one of them out"
        )
    return part_of_data(data, {name: getattr(section, name) for name in WINDOWS})


def part_of_data(data: Dataset, keys: Mapping[str, Any]) -> Dataset:
    """The part of a dataset that keys of a job name, `WINDOWS`."""
    region, crop, bins, pad = (keys.get(name) for name in WINDOWS)
    return with_windows(data, region, crop, None if bins == 1 else bins, pad)


def measurement_rows(job: Setup) -> dict[str, str]:
    """Rows of what a job makes of the scan and of the patterns of a file."""
    said = {"scan": (job.scan, LAYOUT), "patterns": (job.data, CHANGES)}
    rows = {
        row: ", ".join(
            f"{name} = {getattr(section, name)}" for name in names if not section.is_default(name)
        )
        for row, (section, names) in said.items()
    }
    return {row: words for row, words in rows.items() if words}


def vacuum_of(job: Setup, data: Dataset) -> Float[np.ndarray, "y x"] | None:
    """Pattern of the beam without a specimen that a job names, as those of `data`; None without.

    Its zero frequency is in the middle. Raises ValueError for one of another shape.
    """
    file = job.data.vacuum_file
    if file is None:
        return None
    given = {name: getattr(job.data, name) for name in IMAGE_KEYS}
    known: dict[str, Any] = {"tilt_axis_deg": job.data.tilt_axis_deg}
    with opened(str(job.data.file)) as source:
        turns = quarter_turns(tilt_axis_of(source, known))
    try:
        arrangement = arrangement_of(given)
        image = read_image(file)[None]
        counts, mask = arrangement.counts(image), arrangement.mask(None)
        pattern = rotate_patterns(np.asarray(counts[:]), turns)
        mask = None if mask is None else rotate_patterns(mask, turns)
        grid = Grid(pattern.shape[-2:], 1.0, data.grid.voltage_kv or 300.0)
        one = Dataset(pattern, np.zeros((1, 2)), grid, mask, bad_data="keep")
        of_detector = {name: getattr(job.data, name) for name in WINDOWS[1:]}
        vacuum = part_of_data(one, of_detector).mean_pattern()
    except ValueError as error:
        raise ValueError(f"data.vacuum_file = {file}: {error}") from error
    if vacuum.shape != data.grid.shape:
        raise ValueError(
            f"data.vacuum_file = {file} is an image of {' × '.join(map(str, image.shape[1:]))} "
            f"pixels, of which data.crop, bin and pad make {vacuum.shape}, and the patterns are "
            f"{data.grid.shape}; give one of the same camera"
        )
    return vacuum


def known_of(job: Setup, slices: int) -> dict[str, Any]:
    """Properties that a job specifies in place of the file, under the names of the native format.

    `slices` is the largest number of them.
    """
    return {
        "semiangle_mrad": job.probe.semiangle_mrad,
        "defocus_angstrom": job.probe.defocus_angstrom,
        "thickness_angstrom": getattr(job.specimen, "thickness_angstrom", None),
        "slices": slices,
        "effective_distance_angstrom": job.detector.effective_distance_angstrom,
    }
