"""The native dataset: an HDF5 file of counts, positions and properties of the measurement.

`/counts` `[view, shot, y, x]` or `[shot, y, x]` (zero frequency in the middle), `/positions`
`[…, 2]` (y, x) Å, or where views differ in their number of shots a group `/views/0`, `/views/1` …
for each, with separate `counts` and `positions` (version 2); optional `/tilt_deg [view]`, `/mask`,
`/probe_guess`; root attributes `format="jaxptycho-dataset"`, `version`, `voltage_kv` or
`wavelength_angstrom`, `pixel_angstrom` (object pixel; (y, x) where they differ) or
`dk_inverse_angstrom`, and further known properties (`semiangle_mrad`, `defocus_angstrom` …), which
become `Dataset.about`. The defocus is that at the entrance of the beam into the specimen, in a tilt
series that at the height of the tilt axis. `tilt_axis_deg` is the direction of the tilt axis in the
patterns, from y (0) towards x (90): a positive tilt moves the far side of the axis along x for 0,
along −y for 90. Patterns, mask, guess of the probe and positions are rotated together by quarter
turns as they are read, until the axis is within 45° of y; `Dataset.about["tilt_axis_deg"]` is the
remaining angle.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike

from ..data import ALONE, Dataset, ProcessShard
from ..data.numbers import numbers
from ..physics.grids import Grid
from ..physics.types import Numbers
from .arrangement import DATASET, Arrangement
from .axis import RotatedCounts, quarter_turns, rotate_patterns, rotate_positions, rotate_properties
from .hdf5 import FILTER, H5, OnDisk, create_hdf5, open_hdf5, plain_value, save_array
from .instrument import check_known, check_values, grid_of, merge_properties, properties_of
from .labels import LENGTH, label

FORMAT = "jaxptycho-dataset"
RESULT_FORMAT = "jaxptycho-result"
FORMATS = {FORMAT: "measurement", RESULT_FORMAT: "result"}  # by the attribute `format`
VERSION = 2
RAGGED = 2  # first version with views of different lengths; all others are written as version 1
LABELS = {
    "mask": ("1", ("y", "x")),
    "probe_guess": ("sqrt(counts)", ("mode", "y", "x")),
    "tilt_deg": ("degree", ("view",)),
}
BLOCK = 16  # patterns written at once
CHUNK_BYTES = 2**13  # of patterns compressed together; a batch reads single ones by whole chunks


def read_native(
    path: str | Path,
    sharing: ProcessShard = ALONE,
    arrangement: Arrangement = DATASET,
    **known: Any,
) -> Dataset:
    """Dataset of a native file; `known` properties replace those of the file.

    Patterns stay on disk when they do not fit into memory.
    """
    known = check_known(known)
    with open_hdf5(path) as file:
        about = check_values({name: plain_value(value) for name, value in file.attrs.items()}, path)
        check_format(about, path, FORMAT, VERSION)
        groups = _groups(file, path)
        counts = [OnDisk(_dataset(file, f"{group}counts", path)) for group in groups]
        positions = [_dataset(file, f"{group}positions", path)[()] for group in groups]
        mask, tilt, probe = (
            optional_array(file, name) for name in ("mask", "tilt_deg", "probe_guess")
        )
    wanted = {3: "[shot, y, x]"} | ({4: "[view, shot, y, x]"} if groups == [""] else {})
    for group, own in zip(groups, counts, strict=True):
        if len(own.shape) not in wanted:
            raise ValueError(
                f"/{group}counts in {path} has shape {own.shape}; expected "
                f"{' or '.join(wanted.values())}"
            )
    about = merge_properties(about, known)
    if "tilt_axis_deg" in about:
        turns = quarter_turns(float(about["tilt_axis_deg"]))
        about = rotate_properties(about, turns)
        arrangement = arrangement.rotated(turns)
        counts = [RotatedCounts(own, turns) for own in counts] if turns else counts
        positions = [rotate_positions(np.asarray(own, float), turns) for own in positions]
        mask, probe = (
            None if image is None else rotate_patterns(image, turns) for image in (mask, probe)
        )
    grid = grid_of(about, counts[0].shape[-2:], path)
    tilts = None if tilt is None else _radians(numbers(tilt, f"/tilt_deg in {path}", float), path)
    both = (counts, positions) if groups != [""] else (counts[0], positions[0])
    return arrangement.dataset(
        *both, grid, mask, tilts=tilts, probe_guess=probe, about=about, sharing=sharing
    )


def _radians(degrees: np.ndarray, path: str | Path) -> np.ndarray:
    """Tilts [rad]; ValueError for more than a full turn."""
    largest = np.max(np.abs(degrees), where=np.isfinite(degrees), initial=0)
    if largest > 360:
        raise ValueError(
            f"/tilt_deg in {path} reaches {largest:.4g}, more than a full turn; the tilts of a "
            "file are required in degrees"
        )
    return np.deg2rad(degrees)


def read_truth(path: str | Path) -> dict[str, Any]:
    """Ground truth in `/truth` of a simulated file: arrays and numbers by name, lengths in Å.

    Raises ValueError for a file without a truth.
    """
    with open_hdf5(path) as file:
        group = _truth_in(file, path)
        truth = {
            name: plain_value(stored[()])
            for name, stored in group.items()
            if isinstance(stored, h5py.Dataset)
        }
        truth.setdefault(
            "pixel_angstrom",
            file.attrs.get("truth_pixel_angstrom", file.attrs.get("pixel_angstrom")),
        )
    return truth


def require_truth(path: str | Path) -> None:
    """Raise ValueError for a file without a truth with which a specimen can be compared."""
    with open_hdf5(path) as file:
        _truth_in(file, path)


def _truth_in(file: Any, path: str | Path) -> Any:
    group = file.get("truth")
    if group is None:
        raise ValueError(f"{path} holds no /truth; give the file that a step `simulate` wrote")
    if "projected_potential" not in group:
        raise ValueError(
            f"{path} has no /truth/projected_potential [V·Å]; only specimens are compared"
        )
    return group


def write_native(path: str | Path, data: Dataset, truth: Mapping[str, Any] | None = None) -> None:
    """Write `data` as a native file, compressed, with one type of counts for all views.

    `truth` goes under `/truth`. An existing file is never overwritten.
    """
    kind = np.result_type(*data.kinds)
    about = data.about
    positions = [places + data.frame for places in data.positions]
    with native_writer(
        path, data.grid, positions, kind, data.mask, data.tilts, data.probe_guess, about, truth
    ) as put:
        for view in range(data.n_views):
            for block, patterns in pattern_blocks(data, view):
                put(view, block, patterns)


@contextmanager
def native_writer(
    path: str | Path,
    grid: Grid,
    positions: Sequence[np.ndarray],
    dtype: DTypeLike,
    mask: Numbers | None = None,
    tilts: Numbers | None = None,
    probe_guess: Numbers | None = None,
    about: Mapping[str, Any] | None = None,
    truth: Mapping[str, Any] | None = None,
) -> Iterator[Callable[[int, slice, np.ndarray], None]]:
    """Open a new native file, in which `put(view, shots, counts)` writes patterns.

    Their zero frequency is in the middle. The arguments are those of a `Dataset`. The file is
    renamed to `path` once it is complete.
    """
    shots = [len(own) for own in positions]
    ragged = len(set(shots)) > 1 or (len(shots) > 1 and tilts is None)
    views = () if len(shots) == 1 or ragged else (len(shots),)
    named = ("view",) if views else ()
    with create_hdf5(path) as file:
        version = RAGGED if ragged else 1
        file.attrs.update(
            {"format": FORMAT, "version": version} | properties_of(grid) | dict(about or {})
        )
        groups = [f"views/{view}/" for view in range(len(shots))] if ragged else [""]
        counts = [
            file.create_dataset(f"{group}counts", **chunk_layout(grid, n, dtype, views), **FILTER)
            for group, n in zip(groups, shots, strict=False)
        ]
        for group, places in zip(
            groups,
            positions if ragged else [np.stack(positions) if views else positions[0]],
            strict=True,
        ):
            file[f"{group}positions"] = places
            label(file[f"{group}positions"], LENGTH, (*named, "shot", "yx"))
        for stored in counts:
            label(stored, "counts", (*named, "shot", "y", "x"))
        optional = {"mask": mask, "probe_guess": probe_guess}
        optional["tilt_deg"] = None if tilts is None else np.rad2deg(tilts)
        optional |= {f"truth/{name}": value for name, value in (truth or {}).items()}
        for name, value in optional.items():
            if value is not None:
                label(save_array(file, name, value), *LABELS.get(name, (None, None)))

        def put(view: int, block: slice, patterns: np.ndarray) -> None:
            counts[view if ragged else 0][(view, block) if views else block] = patterns

        yield put


def chunk_layout(
    grid: Grid, shots: int, dtype: DTypeLike, views: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Shape, type and chunks of an HDF5 dataset for the patterns of one view, or of `views`."""
    each = tuple(1 for _ in views)
    together = CHUNK_BYTES // (math.prod(grid.shape) * np.dtype(dtype).itemsize)
    return {
        "shape": (*views, shots, *grid.shape),
        "dtype": dtype,
        "chunks": (*each, min(max(together, 1), shots), *grid.shape),
    }


def pattern_blocks(data: Dataset, view: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Patterns of a view, block by block, with the zero frequency in the middle as in files."""
    for start in range(0, data.n_shots[view], BLOCK):
        block = slice(start, min(start + BLOCK, data.n_shots[view]))
        yield (
            block,
            np.fft.fftshift(data.patterns(view, np.arange(block.start, block.stop)), axes=(1, 2)),
        )


def check_format(attributes: dict[str, Any], path: str | Path, wanted: str, newest: int) -> None:
    """Remove `format` and `version` from the attributes; ValueError if they cannot be read."""
    form = plain_value(attributes.pop("format", wanted))
    version = plain_value(attributes.pop("version", newest))
    if form is None:
        raise ValueError(
            f"{path} is no file of jaxptycho; a {wanted} is required, give another file"
        )
    if isinstance(form, str) and form != wanted and {form, wanted} <= set(FORMATS):
        raise ValueError(f"{path} is a {FORMATS[form]}, and a {FORMATS[wanted]} is required here")
    fits = isinstance(form, str) and form == wanted and isinstance(version, int | float)
    if not fits or version not in range(1, newest + 1):
        raise ValueError(
            f"{path} says it is {form!r} version {version!r}; expected {wanted!r} up to version "
            f"{newest}, convert the file or use a newer jaxptycho"
        )


def _dataset(file: H5, name: str, path) -> H5:
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset):
        raise ValueError(
            f"{path} has no dataset /{name}; a {FORMAT} file requires /counts and /positions, or "
            "/views with these for each"
        )
    if stored.shape is None:
        raise ValueError(
            f"/{name} in {path} holds nothing; write its values, or leave it out if it is optional"
        )
    return stored


def _groups(file: H5, path) -> list[str]:
    """Groups of the counts and positions of every view; the root for one array of all views."""
    if "views" not in file:
        return [""]
    views = file.get("views")
    if not isinstance(views, h5py.Group) or not len(views):
        raise ValueError(
            f"/views in {path} is no group of views; a group for each, /views/0, /views/1 …, is "
            "required"
        )
    return [f"views/{view}/" for view in range(len(views))]


def optional_array(file: H5, name: str) -> Any:
    """Array of an open native file, None without one; ValueError for what is no array."""
    return _dataset(file, name, file.filename)[()] if name in file else None
