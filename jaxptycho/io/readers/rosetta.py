"""Formats that RosettaSciIO reads, as an optional package: Gatan DM3 and DM4, TVIPS, PRZ and more.

RosettaSciIO has the licence GPL-3.0: it is never required, and imported only here, when a file asks
for it.
"""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from .frames import guarded_frames, zarr_frames
from .reading import Reading, Value, scan_values, stated, steps_of
from .source import Source

# endings whose files may hold patterns, and the module of RosettaSciIO that reads them
MODULES = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".tvips": "tvips",
    ".prz": "pantarhei",
    ".ser": "tia",
    ".emi": "tia",
    ".mrc": "mrc",
    ".mrcz": "mrcz",
    ".app5": "topspin",
    ".de5": "emd",
    ".rpl": "ripple",
    ".unf": "semper",
}
TEM = ("Acquisition_instrument", "TEM")


def is_of_rosetta(source: Source) -> bool:
    """True for the endings of `MODULES`, and for Velox EMD."""
    velox = source.file is not None and "Data" in source.file and "Version" in source.file
    return source.suffix in MODULES or velox


def read_by_rosetta(path: Path, dataset: str | None = None) -> Reading:
    """Reading of the signal of a file by RosettaSciIO; `dataset` is its number, from 0."""
    name = MODULES.get(path.suffix.lower(), "emd")
    try:
        reader: Any = import_module(f"rsciio.{name}").file_reader
    except ImportError:
        raise ValueError(
            f"{path} is read by RosettaSciIO, which is not installed (its licence is GPL-3.0): "
            "pip install 'jaxptycho[formats]'"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signals = _signals(reader, path)
    except Exception as error:  # of any kind, for damaged files
        line = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read by RosettaSciIO ({line}); where it is damaged, copy it again"
        ) from None
    signal = _chosen(signals, path, dataset)
    data, axes = signal["data"], signal["axes"]
    order = _order(axes)
    steps = [(float(a.get("scale", 0)) or None, str(a.get("units") or "")) for a in axes]
    shape = tuple(data.shape[n] for n in order)
    values = scan_values(shape, "axes of the signal") | steps_of([steps[n] for n in order])
    values |= _microscope(signal.get("metadata", {}))
    frames = guarded_frames(zarr_frames(data, order), path)
    return Reading(path, f"RosettaSciIO {name}", frames, values)


def _order(axes: list[dict[str, Any]]) -> tuple[int, ...]:
    """Axes of the scan before the two of the patterns, where the signal tells them apart."""
    scan = [n for n, axis in enumerate(axes) if axis.get("navigate")]
    if len(scan) != len(axes) - 2:
        return tuple(range(len(axes)))
    return (*scan, *(n for n in range(len(axes)) if n not in scan))


def _signals(reader: Any, path: Path) -> list[dict[str, Any]]:
    """Signals of a file, read when they are indexed where the format allows that."""
    try:
        return reader(str(path), lazy=True)
    except NotImplementedError:
        return reader(str(path))


def _chosen(signals: list[dict[str, Any]], path: Path, dataset: str | None) -> dict[str, Any]:
    fits = [signal for signal in signals if signal["data"].ndim in (3, 4)]
    if dataset is not None and dataset.isdigit() and int(dataset) < len(signals):
        fits = [signals[int(dataset)]]
    if len(fits) == 1 and fits[0]["data"].ndim in (3, 4):
        return fits[0]
    shapes = ", ".join(str(list(signal["data"].shape)) for signal in signals) or "nothing"
    raise ValueError(
        f"{path} holds {len(fits)} signals of patterns (shapes: {shapes}); one of three or four "
        'axes is required, name it by its number: dataset="0", in a job data.dataset'
    )


def _microscope(metadata: dict[str, Any]) -> dict[str, Value]:
    found = metadata
    for name in TEM:
        found = found.get(name, {})
    length = found.get("camera_length")
    return stated(
        voltage_kv=(found.get("beam_energy"), "beam_energy"),
        semiangle_mrad=(found.get("convergence_angle"), "convergence_angle"),
        camera_length_m=(None if length is None else length * 1e-3, "camera_length"),
    )
