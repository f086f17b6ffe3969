"""Reading of measured counts in any known format."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..data import ALONE, Dataset, ProcessShard
from ..data.numbers import numbers
from .arrangement import ARRANGEMENT, DATASET, IMAGES, Arrangement
from .axis import quarter_turns
from .cxi import CXI_PROPERTIES, is_cxi, read_cxi
from .hdf5 import H5
from .images import read_image
from .instrument import INSTRUMENT, check_known
from .native import FORMAT, read_native
from .readers.completion import ACQUISITION, dataset_of
from .readers.reading import Reading
from .readers.registry import FORMATS, Format
from .readers.source import Source, opened
from .scan_layout import ScanLayout

ORIGINS = ("axis", "middle")  # of the positions of a tilt series


class Reader(NamedTuple):
    """Format of a file: a test of a source, and the function that reads it.

    `reading` returns what a camera's file gives; the native format and CXI, which are complete,
    have none.
    """

    recognises: Callable[[Source], bool]
    read: Callable[..., Dataset]  # (path, sharing, arrangement, **known)
    reading: Callable[..., Reading] | None = None  # (path, **options)


def is_native(file: H5) -> bool:
    """True for an open file of the native format."""
    named = str(file.attrs.get("format")) == FORMAT
    return named or bool({"counts", "positions", "views"} & set(file))


def _read_camera(
    form: Format,
    path: str | Path,
    sharing: ProcessShard = ALONE,
    arrangement: Arrangement = DATASET,
    **known: Any,
) -> Dataset:
    """Dataset of a camera's file."""
    reading = _reading(form, path, known)
    return dataset_of(reading, sharing, arrangement, **known)


def _reading(form: Format, path: str | Path, known: dict[str, Any]) -> Reading:
    """Reading of a file, for which the options of its format are taken out of `known`."""
    options = {name: known.pop(name) for name in OPTIONS if name in known}
    options = {name: value for name, value in options.items() if value is not None}
    accepted = list(inspect.signature(form.read).parameters)[1:]
    for name in options:
        if name not in accepted:
            takes = f"takes {', '.join(accepted)}" if accepted else "takes none of these options"
            raise ValueError(f"{name} came for {path}, whose format {takes}; leave it out")
    return form.read(Path(path), **options)


OPTIONS = ("dataset", "frame_shape", "dtype", "offset_bytes", "gap_bytes")
READERS: dict[str, Reader] = {
    name: Reader(form.recognises, partial(_read_camera, form), partial(_reading, form))
    for name, form in FORMATS.items()
}
COMPLETE = {
    "cxi": Reader(lambda source: source.file is not None and is_cxi(source.file), read_cxi),
    "native": Reader(
        lambda source: source.file is not None and is_native(source.file), read_native
    ),
}
# files that `convert` left incomplete are native ones otherwise
READERS = {"converted": READERS["converted"]} | COMPLETE | READERS
KEYS = dict.fromkeys((*INSTRUMENT, *CXI_PROPERTIES, *ACQUISITION, *OPTIONS))


def read(
    path: str | Path,
    sharing: ProcessShard = ALONE,
    reader: str | Callable[..., Dataset] | None = None,
    **known: Any,
) -> Dataset:
    """Return the dataset of a file in one of `READERS`, recognised by its contents.

    Files of cameras are read shot by shot and completed by `scan_shape`, `step_angstrom`,
    `scan_order` ("raster", "serpentine", or positions of the "file"), `detector_step_mrad` and the
    properties below; `frames` (first, stop) are those to read,
    `ignore_header` prefers given values to a header that contradicts them, and `dataset`,
    `frame_shape`, `dtype`, `offset_bytes` and `gap_bytes` are options of some formats.

    `reader` is the name of a format, or a function `read(path, **known) -> Dataset` of yours.
    `known` gives properties that the file lacks or states wrongly, under the names of the native
    format (`voltage_kv`, `pixel_angstrom`, `semiangle_mrad`, `defocus_angstrom` …); `near_field`
    and `focus_to_sample_angstrom` as in `read_cxi`. `scan_affine`, `scan_transform` and
    `rotation_deg` map the axes of the scan to those of the detector (`ScanLayout`).
    `tilt_axis_deg` is the direction of the tilt axis in the patterns, from y towards x. `origin`
    is that of the positions of a tilt series: the "axis", or the corner of a scan through whose
    "middle" the axis goes (in every view separately). `position_unit`, `zero_frequency`,
    `counts_per_electron`, `threshold` and `bad_data` as in `Arrangement`; `dark_file` and
    `mask_file` (not zero where a pixel counts) name its images. None means unknown.
    Each process reads its part of the patterns (`sharing`). Raises ValueError, or
    FileNotFoundError, in one sentence.
    """
    layout = ScanLayout.taken_from(known)
    arrangement = arrangement_of(known)
    origin = known.pop("origin", None) or "axis"
    if origin not in ORIGINS:
        raise ValueError(f"no origin is called {origin!r}; known are {', '.join(ORIGINS)}")
    if callable(reader):
        _refuse_images(reader, arrangement)
        axis = known.get("tilt_axis_deg") or 0.0
        data = reader(path, **known)
        if not isinstance(data, Dataset):
            raise ValueError(
                f"the reader {getattr(reader, '__name__', reader)} returned a "
                f"{type(data).__name__}; it must return a jaxptycho.Dataset"
            )
    else:
        known = check_known(known, KEYS)
        with opened(path) as source:
            axis = tilt_axis_of(source, known)
            chosen = READERS[reader] if reader is not None else reader_of(source)
        if chosen.reading is None:
            _refuse_acquisition(path, known)
        data = chosen.read(path, sharing, arrangement, **known)
    if data.tilts is None and known.get("tilt_axis_deg") is not None:
        raise ValueError(
            f"tilt_axis_deg came for {path}, which gives no tilts; write tilt_deg [view] beside "
            "its counts"
        )
    turns = quarter_turns(axis)  # as the patterns were rotated
    data.positions = layout.applied(data.positions, data.tilts is not None, turns)
    if origin == "middle":
        data.positions = [own - (own.min(0) + own.max(0)) / 2 for own in data.positions]
    return data


def arrangement_of(known: dict[str, Any]) -> Arrangement:
    """Arrangement among `known` properties, which is removed from them, its images read."""
    images = {
        field: numbers(read_image(file), f"the image in {file}", kind)
        for name, (field, kind) in IMAGES.items()
        if (file := known.pop(name, None)) is not None
    }
    return replace(Arrangement.taken_from(known), **images)


def tilt_axis_of(source: Source, known: Mapping[str, Any]) -> float:
    """Direction of the tilt axis in the patterns of a file [degrees], 0 unless it is known."""
    stored = {} if source.file is None else source.file.attrs
    return float(known.get("tilt_axis_deg") or stored.get("tilt_axis_deg", 0.0))


def _refuse_images(reader: Callable[..., Dataset], arrangement: Arrangement) -> None:
    """Raise ValueError for changes of the counts that a user's reader returns."""
    if arrangement.of_counts:
        raise ValueError(
            f"{', '.join(arrangement.of_counts)} came with the reader "
            f"{getattr(reader, '__name__', reader)}, which returns a finished Dataset; let it "
            "correct the counts, and leave them out"
        )


def _refuse_acquisition(path: str | Path, known: dict[str, Any]) -> None:
    """Raise ValueError for keys of a camera's file."""
    if known.get("scan_order") == "file":  # as they are
        del known["scan_order"]
    for name in (*ACQUISITION, *OPTIONS):
        if name in known:
            raise ValueError(
                f"{name} describes the file of a camera, and {path} is a dataset that lists its "
                "patterns and positions; leave it out"
            )


def reading_of(path: str | Path, reader: str | None = None, **known: Any) -> Reading | None:
    """Return what a camera's file gives, before it is completed.

    None for a file of the native format and CXI. `known` are as in `read`; those of the layout of
    the scan and of the counts have no effect here.
    """
    known = {name: value for name, value in known.items() if name not in ARRANGEMENT}
    ScanLayout.taken_from(known)
    known = check_known(known, KEYS)
    with opened(path) as source:
        chosen = READERS[reader] if reader is not None else reader_of(source)
    return None if chosen.reading is None else chosen.reading(path, known)


def reader_of(source: Source) -> Reader:
    """Return the reader of a file; ValueError if its format is unknown."""
    found = next((reader for reader in READERS.values() if reader.recognises(source)), None)
    if found is not None:
        return found
    if source.path.suffix.lower() == ".toml":
        raise ValueError(
            f"{source.path} is a job by its name, and the file of a measurement is required here; "
            "`jaxptycho run` and `jaxptycho validate` take jobs"
        )
    if source.file is None:
        raise ValueError(
            f"{source.path} is in no format known here; where it is a binary of numbers, name "
            'reader="raw" with frame_shape and dtype, in a job data.reader, else read it by a '
            "function of yours"
        )
    file = source.file
    kind = file.attrs.get("format", f"an HDF5 file with {', '.join(file) or 'nothing in it'}")
    raise ValueError(
        f"{source.path} is neither a native dataset (/counts and /positions) nor a CXI file "
        f"(/entry_1) nor one of a camera, but {kind}"
    )
