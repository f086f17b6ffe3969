"""Stacks of images in TIFF and BigTIFF."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from .frames import Frames
from .plain_files import array_reading
from .reading import Reading, scan_values
from .source import Source


def is_tiff(source: Source) -> bool:
    """True for TIFF and BigTIFF in both byte orders."""
    return source.head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(path: Path) -> Reading:
    """Reading of the first series of images; compressed pages are read one by one."""
    with _opened(path) as file:
        series = file.series[0]
        shape, dtype, offset = series.shape, np.dtype(series.dtype), series.dataoffset
        order, pages = file.byteorder, len(file.pages)
    if len(shape) not in (3, 4) or dtype.kind not in "uif":
        raise ValueError(
            f"{path} holds images {list(shape)} of {dtype}; a stack of at least two patterns of "
            "real numbers is required"
        )
    count = int(np.prod(shape[:-2]))
    if offset is not None:
        reading = array_reading(path, "TIFF", shape, dtype.newbyteorder(order), offset)
    else:
        frames = Frames(
            (count, *shape[-2:]), dtype, lambda shots: _pages(path, shots, shape, dtype)
        )
        reading = Reading(path, "TIFF", frames, scan_values(shape))
    if pages in (1, count) or reading.fault is not None:
        return reading
    return replace(
        reading, fault=f"has {pages} pages, and its first one announces {count} patterns"
    )


def _pages(path: Path, shots: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    with _opened(path) as file:
        images = [file.pages[int(shot)].asarray() for shot in shots]
    return np.stack(images) if images else np.empty((0, *shape[-2:]), dtype)


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open file; any damage is one sentence, and not a log beside it."""
    log = logging.getLogger("tifffile")
    disabled, log.disabled = log.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    except Exception as error:  # of its header or of any codec
        line = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as TIFF ({line}); copy it again") from None
    finally:
        log.disabled = disabled
