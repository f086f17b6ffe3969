"""One image of a file: a mask, a dark image, the pattern of the beam without a specimen."""

from pathlib import Path

import h5py
import numpy as np
import tifffile
from jaxtyping import Shaped

from .hdf5 import H5
from .readers.frames import Frames, stored_frames
from .readers.registry import FORMATS
from .readers.source import Source, opened

BLOCK = 16  # patterns read at once
ASK = "give an image [y, x], or the patterns of a camera, whose mean is taken"


def read_image(path: str | Path) -> Shaped[np.ndarray, "y x"]:
    """Image [y, x] of an HDF5, TIFF or NPY file, or the mean of the patterns of a camera's file.

    Raises ValueError for a file of anything else.
    """
    with opened(path) as source:
        image = _single(source)
        if image is not None:
            return image
        stored = None if source.file is None else source.file.get("counts")
        if isinstance(stored, h5py.Dataset) and stored.ndim == 3:  # a native dataset
            return mean_of_frames(stored_frames(stored))
        form = next((form for form in FORMATS.values() if form.recognises(source)), None)
    if form is None:
        raise ValueError(f"{path} holds no image that is known here; {ASK}")
    return mean_of_frames(form.read(Path(path)).patterns)


def mean_of_frames(frames: Frames) -> Shaped[np.ndarray, "y x"]:
    """Mean of all patterns; the pattern itself, in its type, where there is one."""
    count = frames.shape[0]
    if count == 1:
        return np.asarray(frames[0:1])[0]
    total = np.zeros(frames.shape[1:])
    for start in range(0, count, BLOCK):
        total += np.asarray(frames[start : start + BLOCK], float).sum(0)
    return total / count


def _single(source: Source) -> np.ndarray | None:
    """The image of a file that holds a single one; None for any other."""
    if source.file is not None:
        found = _images_in(source.file)
        return found[0][()] if len(found) == 1 else None
    if source.head.startswith(b"\x93NUMPY"):
        array = np.load(source.path, mmap_mode="r", allow_pickle=False)
        return np.array(array) if array.ndim == 2 and array.dtype.kind in "buif" else None
    if source.suffix in (".tif", ".tiff"):
        try:
            with tifffile.TiffFile(source.path) as file:
                array = file.series[0].asarray() if len(file.series[0].shape) == 2 else None
        except Exception as error:  # of its header or of any codec
            line = " ".join(str(error).split())
            raise ValueError(
                f"{source.path} cannot be read as TIFF ({line}); copy it again"
            ) from None
        return array
    return None


def _images_in(file: H5) -> list[H5]:
    """Datasets [y, x] of numbers in an HDF5 file without patterns."""
    found: list[H5] = []
    several = []

    def visit(name: str, item: H5) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "buif":
            (found if item.ndim == 2 and min(item.shape) > 1 else several).append(item)

    file.visititems(visit)
    patterns = [item for item in several if item.ndim > 2]
    return [] if patterns else found
