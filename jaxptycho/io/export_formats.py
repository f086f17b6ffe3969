"""Writers of calibrated stacks of images: MRC, OME-TIFF, ImageJ, HyperSpy, EMD, OME-NGFF, NPY, PNG.

HyperSpy, EMD and OME-NGFF are written by RosettaSciIO and Zarr, which `jaxptycho[formats]`
installs.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import mrcfile
import numpy as np
import tifffile
from matplotlib.image import imsave

from ..analysis.gauge import without_ramp
from ..analysis.pictures import limits
from ..data.frame import spacing, warn_of_rounding
from .atomic_write import atomic_path

LENGTH = "Å"
PLAIN_UNITS = {"Å": "angstrom", "1/Å": "1/angstrom", "": ""}
FORMATS_EXTRA = "pip install 'jaxptycho[formats]' writes it; .mrc, .tif and .npy need nothing more"


class StackAxis(NamedTuple):
    """An axis of a stack: entry n is at start + n·step."""

    name: str  # z, y, x, mode or shot
    step: float = 1.0
    start: float = 0.0
    unit: str = ""  # Å or 1/Å, empty for a number


class CalibratedStack(NamedTuple):
    """Images with the names, steps, places and units of their axes."""

    values: np.ndarray  # [z, y, x], [mode, y, x] or [shot, y, x]
    axes: tuple[StackAxis, StackAxis, StackAxis]
    name: str
    unit: str

    @property
    def what(self) -> str:
        """Name of the quantity with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


Writer = Callable[[Path, CalibratedStack], None]


def writer_of(path: Path) -> Writer | None:
    """Writer of the format that the name of a file ends in, None for any other."""
    name = path.name.lower()
    return next((WRITERS[ending] for ending in WRITERS if name.endswith(ending)), None)


def write_mrc(path: str | Path, held: CalibratedStack) -> None:
    """Write an MRC file: columns are x, rows y, sections z; a stack of images of other sections.

    Voxel size and origin in Å (Cheng et al. 2015).
    """
    _require_lengths(path, held)
    z, y, x = held.axes
    with atomic_path(path) as draft, mrcfile.new(draft) as file:
        file.set_data(held.values)
        (file.set_volume if z.unit else file.set_image_stack)()  # a single section is a volume too
        file.voxel_size = (x.step, y.step, z.step)
        corner = (z.start, y.start, x.start)
        step = min(x.step, y.step)
        warn_of_rounding("the origins of MRC files", spacing(corner, np.float32), step)
        header: Any = file.header
        header.origin = corner[::-1]
        what = normalize("NFKD", held.what).encode("ascii", "ignore").decode()  # labels are ASCII
        file.add_label(f"jaxptycho {version('jaxptycho')}: {what}")


def write_ome_tiff(path: str | Path, held: CalibratedStack) -> None:
    """Write OME-TIFF, a page for every section, with physical sizes and positions in Å.

    (Goldberg et al. 2005)
    """
    _require_lengths(path, held)
    _require_real(path, held)
    first, *plane = held.axes
    spatial = held.axes if first.unit else plane
    about: dict[str, Any] = {"axes": "ZYX" if first.unit else "CYX", "Name": held.what}
    places = {}
    for axis in spatial:
        letter = axis.name.upper()
        about |= {f"PhysicalSize{letter}": axis.step, f"PhysicalSize{letter}Unit": LENGTH}
        starts = axis.start + axis.step * np.arange(len(held.values)) * (axis is first)
        places |= {
            f"Position{letter}": np.broadcast_to(starts, len(held.values)).tolist(),
            f"Position{letter}Unit": [LENGTH] * len(held.values),
        }
    about["Plane"] = places
    with atomic_path(path) as draft:
        tifffile.imwrite(draft, held.values, ome=True, photometric="minisblack", metadata=about)


def write_imagej(path: str | Path, held: CalibratedStack) -> None:
    """Write a TIFF of 32 bit that ImageJ opens with its pixels, unit, origin and grey values."""
    _require_real(path, held)
    first, y, x = held.axes
    low, high = limits(held.values)
    origins = {f"{axis.name}origin": -axis.start / axis.step for axis in (x, y)}
    about = {"unit": PLAIN_UNITS[x.unit], "axes": "ZYX", "min": low, "max": high, **origins}
    if first.unit:
        about |= {"spacing": first.step, "zorigin": -first.start / first.step}
    else:
        about["axes"] = "TYX"
    with atomic_path(path) as draft:
        tifffile.imwrite(
            draft,
            np.asarray(held.values, np.float32),
            imagej=True,
            resolution=(1 / x.step, 1 / y.step),
            metadata=about,
        )


def write_hyperspy(path: str | Path, held: CalibratedStack) -> None:
    """Write a HyperSpy signal, or EMD of NCEM where the name ends in .emd."""
    path = Path(path)
    with _extra(path):
        from rsciio import emd, hspy
    axes = [
        {
            "_type": "UniformDataAxis",
            "name": axis.name,
            "scale": axis.step,
            "offset": axis.start,
            "units": axis.unit,
            "size": size,
            "navigate": number == 0,
            "index_in_array": number,
            "is_binned": False,
        }
        for number, (axis, size) in enumerate(zip(held.axes, held.values.shape, strict=True))
    ]
    signal = {
        "data": held.values,
        "axes": axes,
        "metadata": {
            "General": {"title": held.name},
            "Signal": {"quantity": held.what, "signal_type": ""},
        },
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "jaxptycho", "package_version": version("jaxptycho")},
        **{name: {} for name in ("original_metadata", "tmp_parameters", "learning_results")},
        "models": {},
    }
    with atomic_path(path) as draft:
        if path.suffix.lower() == ".emd":
            emd.file_writer(str(draft), signal)
        else:
            hspy.file_writer(str(draft), signal, show_progressbar=False)


def write_ome_zarr(path: str | Path, held: CalibratedStack) -> None:
    """Write a Zarr store of one resolution by OME-NGFF 0.5 (Moore et al. 2021)."""
    path = Path(path)
    with _extra(path):
        import zarr
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another name or remove it first")
    scale = {"type": "scale", "scale": [axis.step for axis in held.axes]}
    place = {"type": "translation", "translation": [axis.start for axis in held.axes]}
    about = {
        "version": "0.5",
        "multiscales": [
            {
                "name": held.what,
                "axes": [_ngff_axis(axis) for axis in held.axes],
                "datasets": [{"path": "0", "coordinateTransformations": [scale, place]}],
            }
        ],
    }
    draft = path.with_name(f".{path.name}.draft")
    try:
        store: Any = zarr.create_group(draft, overwrite=True, attributes={"ome": about})
        store.create_array("0", data=held.values, dimension_names=[a.name for a in held.axes])
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_npy(path: str | Path, held: CalibratedStack) -> None:
    """Write the numbers alone, for NumPy."""
    with atomic_path(path) as draft, draft.open("wb") as file:
        np.save(file, held.values)


def write_png(path: str | Path, held: CalibratedStack) -> None:
    """Write one picture in grey: all slices together, the phase without its ramp, or the first."""
    _require_real(path, held)
    image = np.asarray(held.values, float)
    if held.axes[0].name != "z":
        image = image[0]
    else:
        image = image.prod(0) if held.name == "amplitude" else image.sum(0)
    if held.name == "phase" and min(image.shape) > 2:
        image = without_ramp(image)
    low, high = limits(image)
    with atomic_path(path) as draft:
        imsave(draft, image, cmap="gray", vmin=low, vmax=high, format="png")


def _ngff_axis(axis: StackAxis) -> dict[str, str]:
    """Axis in the words of OME-NGFF."""
    if axis.unit == LENGTH:
        return {"name": axis.name, "type": "space", "unit": "angstrom"}
    unit = {"unit": PLAIN_UNITS[axis.unit]} if axis.unit else {}
    return {"name": axis.name} | unit


@contextmanager
def _extra(path: Path) -> Iterator[None]:
    """Report a package that is not installed in one sentence."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{path} requires {error.name}, which is not installed: {FORMATS_EXTRA}"
        ) from None


def _require_real(path: str | Path, held: CalibratedStack) -> None:
    if np.iscomplexobj(held.values):
        raise ValueError(
            f"{path} can hold no complex numbers; export {held.name}_amplitude or "
            f"{held.name}_phase, or to .mrc, .hspy, .emd, .zarr or .npy"
        )


def _require_lengths(path: str | Path, held: CalibratedStack) -> None:
    unit = held.axes[-1].unit
    if unit != LENGTH:
        raise ValueError(
            f"{path} can hold lengths only, and {held.name} has pixels in {unit}; export to .tif "
            "(ImageJ), .hspy, .emd, .zarr or .npy"
        )


WRITERS: dict[str, Writer] = {
    ".mrc": write_mrc,
    ".ome.tif": write_ome_tiff,
    ".ome.tiff": write_ome_tiff,
    ".tif": write_imagej,
    ".tiff": write_imagej,
    ".hspy": write_hyperspy,
    ".emd": write_hyperspy,
    ".zarr": write_ome_zarr,
    ".npy": write_npy,
    ".png": write_png,
}
