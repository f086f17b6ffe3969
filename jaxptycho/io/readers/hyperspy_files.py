"""Signals of HyperSpy: `.hspy` in HDF5 and `.zspy` in Zarr, of one structure.

`Experiments/NAME` holds `data` and groups `axis-0` … with `size`, `scale`, `units` and `navigate`.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..hdf5 import is_zarr, open_hdf5
from .frames import guarded_frames, stored_frames, zarr_frames
from .reading import Reading, Value, scan_values, stated, steps_of
from .source import Source, require_filters, scalar_of, string_of, unwritten

TEM = "metadata/Acquisition_instrument/TEM"


def is_hspy(source: Source) -> bool:
    """True for an HDF5 file of HyperSpy."""
    return source.file is not None and "Experiments" in source.file


def is_zspy(source: Source) -> bool:
    """True for a Zarr store, as a folder or as a zip file."""
    return is_zarr(source.path) or source.suffix in (".zspy", ".zarr")


def read_hspy(path: Path, dataset: str | None = None) -> Reading:
    """Reading of the signal of a `.hspy` file; `dataset` names one of several."""
    with open_hdf5(path) as file:
        signal = _signal(file, path, dataset)
        require_filters(signal["data"], path)
        axes = _axes(signal)
        frames = stored_frames(signal["data"], axes)
        fault = unwritten(signal["data"])
        return Reading(path, "HyperSpy HSPY", frames, _quantities(signal, axes), fault=fault)


def read_zspy(path: Path, dataset: str | None = None) -> Reading:
    """Reading of the signal, or the array `dataset`, of a Zarr store of version 2 or 3."""
    try:
        import zarr
        from zarr.storage import ZipStore
    except ImportError:
        raise ValueError(
            f"{path} is a Zarr store, which requires a package: pip install zarr"
        ) from None
    try:
        packed = path.is_file() and zipfile.is_zipfile(path)
        where: Any = ZipStore(str(path), mode="r") if packed else str(path)
        store: Any = zarr.open(where, mode="r")
    except Exception as error:  # of the store or of its zip file, in any of zarr's kinds
        line = " ".join(str(error).split())
        raise ValueError(f"{path} is no complete Zarr store ({line}); copy it again") from None
    if "Experiments" in store:
        signal = _signal(store, path, dataset)
        axes = _axes(signal)
        stored, kind, values = signal["data"], "HyperSpy ZSPY", _quantities(signal, axes)
    else:
        stored = store if hasattr(store, "shape") else _only_array(store, path, dataset)
        axes, kind, values = None, "Zarr array", scan_values(stored.shape)
    frames = guarded_frames(zarr_frames(stored, axes), path)
    return Reading(path, kind, frames, values, notes=_absent_chunks(stored))


def _absent_chunks(stored: Any) -> tuple[str, ...]:
    """Note on chunks that are not stored: empty ones, or those that were not written."""
    absent = stored.nchunks - stored.nchunks_initialized
    if not absent:
        return ()
    return (f"{absent} of {stored.nchunks} chunks are not stored and read as {stored.fill_value}",)


def _only_array(store: Any, path: Path, dataset: str | None) -> Any:
    """Array of patterns in a Zarr group."""
    if dataset is not None and dataset in store:
        return store[dataset]
    found = [name for name in store if getattr(store[name], "ndim", 0) in (3, 4)]
    if len(found) == 1 and dataset is None:
        return store[found[0]]
    listed = ", ".join(found) or "none"
    raise ValueError(
        f"{path} is a Zarr store without the one array of patterns (of three or four axes: "
        f'{listed}); name one: dataset="…", in a job data.dataset'
    )


def _signal(file: Any, path: Path, dataset: str | None) -> Any:
    """Group of the one signal of patterns, or of that which `dataset` names."""
    group = file["Experiments"]
    names = [n for n in group if "data" in group[n] and group[n]["data"].ndim in (3, 4)]
    if dataset is not None:
        wanted = dataset.strip("/").removeprefix("Experiments/").removesuffix("/data")
        names = [name for name in names if name == wanted]
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise ValueError(
            f"{path} holds {len(names)} signals of patterns ({listed}); one is required, name it: "
            'dataset="…", in a job data.dataset'
        )
    return group[names[0]]


def _axis(signal: Any, number: int) -> Mapping[str, Any]:
    for name in (f"axis-{number}", f"_sig_axis-{number}"):
        if name in signal:
            return signal[name].attrs
    return {}


def _axes(signal: Any) -> tuple[int, ...]:
    """Axes of the scan before those of the signal."""
    count = signal["data"].ndim
    scan = [n for n in range(count) if bool(_axis(signal, n).get("navigate", n < count - 2))]
    return (
        (*scan, *(n for n in range(count) if n not in scan))
        if len(scan) == count - 2
        else (tuple(range(count)))
    )


def _quantities(signal: Any, axes: tuple[int, ...]) -> dict[str, Value]:
    values = scan_values(tuple(signal["data"].shape[axis] for axis in axes))
    steps = [
        (scalar_of(_axis(signal, n).get("scale")), string_of(_axis(signal, n).get("units", "")))
        for n in axes
    ]
    values |= steps_of(steps)
    tem = signal[TEM].attrs if TEM in signal else {}
    length = scalar_of(tem.get("camera_length"))
    return values | stated(
        voltage_kv=(scalar_of(tem.get("beam_energy")), "beam_energy"),
        semiangle_mrad=(scalar_of(tem.get("convergence_angle")), "convergence_angle"),
        camera_length_m=(None if length is None else length * 1e-3, "camera_length"),
    )
