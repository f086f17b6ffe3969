"""The native dataset: an HDF5 file with counts, positions and what is known.

`/counts` `[view, shot, y, x]` or `[shot, y, x]` (zero frequency in the middle), `/positions`
`[…, 2]` (y, x) Å, optional `/tilt_deg [view]`, `/mask`, `/probe_guess`; root attributes
`format="jaxptycho-dataset"`, `version`, `voltage_kv` or `wavelength_angstrom`,
`pixel_angstrom` (object pixel) or `dk_inverse_angstrom`, and whatever else is known
(`semiangle_mrad`, `defocus_angstrom` …), which becomes `Dataset.about`.
"""

from pathlib import Path

import h5py
import numpy as np

from ..data import Dataset
from ..physics.grids import Grid

FORMAT, VERSION = "jaxptycho-dataset", 1


def read_native(path: str | Path) -> Dataset:
    """Dataset of a native file; patterns stay on disk when they do not fit into memory."""
    file = h5py.File(path)
    about = {name: _plain(value) for name, value in file.attrs.items()}
    if about.pop("format", FORMAT) != FORMAT or about.pop("version", VERSION) > VERSION:
        raise ValueError(
            f"{path} says it is {file.attrs['format']!r} version {file.attrs.get('version')}; "
            f"this release reads {FORMAT!r} up to version {VERSION}"
        )
    for name in ("counts", "positions"):
        if name not in file:
            raise ValueError(f"{path} has no dataset /{name}; a {FORMAT} file wants /counts and /positions")
    counts, positions = file["counts"], file["positions"]
    if counts.ndim not in (3, 4):
        raise ValueError(f"/counts in {path} has shape {counts.shape}; wanted [shot, y, x] or [view, shot, y, x]")
    return Dataset(
        [_View(counts, view) for view in range(counts.shape[0])] if counts.ndim == 4 else counts,
        positions[()],
        grid_of(about, counts.shape[-2:], path),
        mask=_optional(file, "mask"),
        tilts=None if "tilt_deg" not in file else np.deg2rad(file["tilt_deg"][()]),
        probe_guess=_optional(file, "probe_guess"),
        about=about,
    )


def write_native(path: str | Path, data: Dataset, truth: dict | None = None) -> None:
    """`data` as a native file, gzip-compressed; `truth` goes under `/truth`. Never overwrites."""
    with h5py.File(path, "x") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "pixel_angstrom": data.grid.pixel[0]})
        if data.grid.voltage_kv is None:
            file.attrs["wavelength_angstrom"] = data.grid.wavelength
        else:
            file.attrs["voltage_kv"] = data.grid.voltage_kv
        file.attrs.update(data.about)
        views = [np.fft.fftshift(data.patterns(v, np.arange(n)), axes=(1, 2)) for v, n in enumerate(data.n_shots)]
        single = data.n_views == 1
        chunks = (*(() if single else (1,)), min(16, min(data.n_shots)), *data.grid.shape)
        counts = views[0] if single else np.stack(views)
        file.create_dataset("counts", data=counts, chunks=chunks, compression="gzip", shuffle=True)
        file["positions"] = data.positions[0] if single else np.stack(data.positions)
        optional = {"mask": data.mask, "probe_guess": data.probe_guess}
        optional["tilt_deg"] = None if data.tilts is None else np.rad2deg(data.tilts)
        for name, value in optional.items():
            if value is not None:
                file[name] = value
        for name, value in (truth or {}).items():
            file[f"truth/{name}"] = value


def grid_of(about: dict, shape, path) -> Grid:
    """Grid of a pattern of `shape` from the attributes of a file, which it takes out of `about`."""
    voltage, wavelength = about.pop("voltage_kv", None), about.pop("wavelength_angstrom", None)
    pixel, dk = about.pop("pixel_angstrom", None), about.pop("dk_inverse_angstrom", None)
    if voltage is None and wavelength is None:
        raise ValueError(f"{path} names neither voltage_kv nor wavelength_angstrom; set one as a root attribute")
    if pixel is None and dk is None:
        raise ValueError(f"{path} names neither pixel_angstrom nor dk_inverse_angstrom; set one as a root attribute")
    if dk is not None:  # exact for rectangular patterns, where one object pixel would not be
        by_dk = tuple(1 / (n * dk) for n in shape)
        if pixel is not None and abs(by_dk[0] / pixel - 1) > 1e-3:
            raise ValueError(
                f"{path}: pixel_angstrom = {pixel} and dk_inverse_angstrom = {dk} disagree for {shape[0]} pixels "
                f"(1/(N·dk) = {by_dk[0]:.6g} Å); correct or remove one"
            )
        pixel = by_dk
    return Grid(shape, pixel, None if voltage is None else voltage, None if voltage is not None else wavelength)


class _View:
    """One view of a four-dimensional HDF5 dataset, read when indexed."""

    def __init__(self, counts, view):
        self._counts, self._view = counts, view
        self.shape, self.dtype = counts.shape[1:], counts.dtype

    def __getitem__(self, shots):
        return self._counts[self._view, shots]


def _optional(file, name):
    return file[name][()] if name in file else None


def _plain(value):
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
