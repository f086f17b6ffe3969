"""Optics of a series from its kept bright field, and its camera from what is recorded."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..direct.bright_field import BrightField, BrightFieldStack
from ..direct.processor import Block, over
from ..io.datasets import read
from ..start.camera import measure_camera
from ..start.measured import Measured
from ..start.optics import optics_of
from ..start.optics_search import Knowledge
from ..start.optics_table import MeasuredOptics
from ..start.superpixels import superpixels_of
from .scan import LiveScan

BLOCK = 64


def measure_live(
    scan: LiveScan,
    bright: BrightField,
    stack: BrightFieldStack,
    recording: Path,
    layout: dict[str, Any],
) -> tuple[MeasuredOptics, dict[str, Measured]]:
    """Optics, and the rows of the camera."""
    return measure_live_optics(scan, bright, stack), measure_live_camera(recording, layout)


def measure_live_optics(
    scan: LiveScan, bright: BrightField, stack: BrightFieldStack
) -> MeasuredOptics:
    """Defocus, aberrations and orientation with errors, from the shots that have come; no frame is
    read again.

    The sign of a stated defocus settles a rotation by 180° with the opposite one, which patterns of
    a weak phase do not tell apart.
    """
    step = np.multiply(scan.grid.dk, scan.grid.wavelength)
    radius = scan.semiangle / float(np.sqrt(np.prod(step)))
    centres = np.broadcast_to(np.divide(scan.centre, step), (len(scan.positions), 2))
    mask = np.ones(scan.grid.shape, bool)
    cells = superpixels_of(scan.grid, mask, radius, centres)
    (images,) = over(kept_blocks(scan, bright, stack), cells)
    sign = None if scan.defocus == 0 else 1 if scan.defocus > 0 else -1
    known = Knowledge(sign, None, None)
    return optics_of(images, scan.semiangle, scan.grid.wavelength, known)


def measure_live_camera(recording: Path, layout: dict[str, Any]) -> dict[str, Measured]:
    """Disc, descan, counts of an electron and dose, as of the file of what has come.

    Reads the recording, or the native file that it has become; empty where neither can be judged.
    """
    native = recording.with_suffix(".h5")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of frames that are still missing
            data = read(recording if recording.exists() else native, **layout)
            return measure_camera(data).rows()
    except (ValueError, OSError):
        return {}


def kept_blocks(scan: LiveScan, bright: BrightField, stack: BrightFieldStack) -> Iterator[Block]:
    """Blocks of patterns that are zero beyond the kept pixels, for any processor of these."""
    counts = np.asarray(stack.counts)
    n_shots = len(counts)
    usable = scan.usable(stack.seen)
    for start in range(0, n_shots, BLOCK):
        shots = np.arange(start, start + BLOCK)
        inside = np.minimum(shots, n_shots - 1)
        weight = (shots < n_shots) & usable[inside]
        patterns = np.zeros((BLOCK, int(np.prod(scan.grid.shape))), counts.dtype)
        patterns[:, bright.pixels] = counts[inside]
        patterns = patterns.reshape(BLOCK, *scan.grid.shape)
        yield Block(inside, scan.positions[inside], jnp.asarray(patterns), weight.astype(float))
