"""Results for other programs: specimen, probe and patterns as calibrated stacks, atoms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from ase import Atoms as Structure
from ase.data import chemical_symbols

from ..analysis.pictures import probe_modes
from ..analysis.scanned import scanned
from ..analysis.tracing import atoms_of
from ..model import Model, predict, probe_positions
from ..parts.slices import Of, Voxels
from .export_formats import LENGTH, WRITERS, CalibratedStack, StackAxis, writer_of
from .structures import WRITABLE, to_ase, write_structure

SPECIMEN = ("phase", "amplitude", "absorption")
PROBE = ("probe", "probe_amplitude", "probe_phase")
PATTERNS = "patterns"
WAVE_UNIT = "√counts"
BLOCK = 32  # patterns predicted at once


def export(
    model: Model,
    path: str | Path,
    elements: Sequence[str] = (),
    threshold: float | None = None,
    what: str = "phase",
    cropped: bool = True,
) -> str:
    """Write a quantity of a model to `path`, in the format of its ending; return a description.

    `what` is as for `quantity`; a specimen is `cropped` to the scanned area. As atoms a volume has
    those traced in it, of these `elements`, above a `threshold` [V] (`analysis.tracing`). An
    existing file is never overwritten.
    """
    path = Path(path)
    if path.suffix.lower() in WRITABLE:
        specimen = model.specimen
        trace = specimen.rotates and specimen.listed_atoms() is None
        found = trace_structure(model, elements, threshold) if trace else structure(model)
        write_structure(path, found)
        return f"{found.get_chemical_formula()} traced" if trace else "atoms"
    writer = writer_of(path)
    if writer is None:
        known = ", ".join([*WRITERS, *WRITABLE])
        raise ValueError(
            f"{path} ends in none of {known}; choose one of them, result.h5 itself is HDF5"
        )
    held = quantity(model, what, cropped)
    writer(path, held)
    names = ", ".join(axis.name for axis in held.axes)
    return f"{held.what}, {' × '.join(map(str, held.values.shape))} ({names})"


def quantity(model: Model, what: str = "phase", cropped: bool = True) -> CalibratedStack:
    """Quantity of a model as a stack of images.

    "phase" is the phase [rad] or potential [V] of the slices or the volume, "absorption" is −ln|t|
    or an absorptive potential, "amplitude" is |t|; slices are `cropped` to the scanned area.
    "probe" are the modes of the first shot, complex, with "probe_amplitude" and "probe_phase";
    "patterns" are the predicted counts of all shots of the first view. Raises ValueError for a
    quantity that the model has not.
    """
    if what in SPECIMEN:
        return _specimen(model, what, cropped)
    if what in PROBE:
        return _probe(model, what.partition("_")[2])
    if what != PATTERNS:
        known = ", ".join((*SPECIMEN, *PROBE, PATTERNS))
        raise ValueError(f"{what!r} is no quantity of a result; known are {known}")
    return _patterns(model)


def _specimen(model: Model, what: str, cropped: bool) -> CalibratedStack:
    held = voxels(model, "phase" if what == "phase" else "absorption")
    values = held.values
    start = np.array(held.corner)
    name, _, unit = held.what.removesuffix(")").partition(" (")
    if what == "amplitude":
        if unit:
            raise ValueError(
                f"the specimen holds an {held.what}, whose amplitude depends on the path of the "
                "beam; export its absorption"
            )
        values = np.exp(-values)
        name = "amplitude"
    if cropped and not model.specimen.rotates:
        area = scanned(model)
        values = np.ascontiguousarray(values[:, *area])
        start[1:] += np.multiply(held.voxel[1:], [part.start for part in area])
    axes = [
        StackAxis(letter, step, float(first), LENGTH)
        for letter, step, first in zip("zyx", held.voxel, start, strict=True)
    ]
    return CalibratedStack(values, (axes[0], axes[1], axes[2]), name, unit)


def _probe(model: Model, part: str) -> CalibratedStack:
    """Modes of the probe about its centre."""
    waves = probe_modes(model).waves.astype(np.complex64)
    axes = _images("mode", waves.shape, model.grid.pixel, LENGTH)
    if part == "phase":
        return CalibratedStack(np.angle(waves), axes, "probe_phase", "rad")
    if part == "amplitude":
        return CalibratedStack(np.abs(waves), axes, "probe_amplitude", WAVE_UNIT)
    return CalibratedStack(waves, axes, "probe", WAVE_UNIT)


def _patterns(model: Model) -> CalibratedStack:
    """Predicted patterns, zero frequency in the middle."""
    last = len(probe_positions(model)) - 1
    blocks = []
    predicted = eqx.filter_jit(predict)
    for start in range(0, last + 1, BLOCK):
        shots = np.arange(start, start + BLOCK)
        block = np.asarray(predicted(model, np.minimum(shots, last)), np.float32)
        blocks.append(np.fft.fftshift(block, axes=(1, 2))[: last + 1 - start])
    values = np.concatenate(blocks)
    axes = _images("shot", values.shape, *model.detector.sampling(model.grid))
    return CalibratedStack(values, axes, PATTERNS, "counts")


def _images(
    name: str, shape: Sequence[int], steps: tuple[float, float], unit: str
) -> tuple[StackAxis, StackAxis, StackAxis]:
    """Axes of numbered images whose middle is at zero."""
    y, x = (
        StackAxis(letter, step, -(n // 2) * step, unit)
        for letter, n, step in zip("yx", shape[1:], steps, strict=True)
    )
    return StackAxis(name), y, x


def voxels(model: Model, of: Of = "phase") -> Voxels:
    """Voxels of a model's specimen.

    Slices are in the frame of the measurement, a volume is about its tilt axis.
    """
    held = model.specimen.voxels(model.grid, of)
    if model.specimen.rotates:
        return held
    z, y, x = held.corner
    return held._replace(corner=(z, y + model.frame[0], x + model.frame[1]))


def structure(model: Model) -> Structure:
    """Atoms of a specimen made of them, with Debye–Waller factor B [Å²] and occupancy.

    Heights are counted from the tilt axis if there is one, as a volume's voxels are, else from the
    entrance face.
    """
    listed = model.specimen.listed_atoms()
    if listed is None:
        raise ValueError(
            f"the specimen is a {type(model.specimen).__name__} and holds no atoms; export it as "
            f"{' or '.join(WRITERS)}, or find atoms in it with `analysis.peaks`"
        )
    columns = {"debye_waller": listed.debye_waller, "occupancy": listed.occupancy}
    symbols = [chemical_symbols[z] for z in listed.numbers]
    height = 0.0 if listed.axis is None else listed.axis
    return to_ase(np.add(listed.positions, (-height, *model.frame)), symbols, columns=columns)


def trace_structure(
    model: Model, elements: Sequence[str], threshold: float | None = None
) -> Structure:
    """Atoms traced in a volume, positions relative to the tilt axis, as for its voxels."""
    if not elements:
        raise ValueError(
            "the specimen is a volume, whose atoms have yet to be found; give its elements, as in "
            f"--elements Pt,Al,O, or export it as {' or '.join(WRITERS)}"
        )
    volume: Any = model.specimen.in_voxels(model.grid)
    found: Any = atoms_of(volume, elements, threshold, smooth=max(volume.voxel))
    symbols = [chemical_symbols[z] for z in found.numbers]
    positions = np.asarray(found.positions, float) - [float(found.axis), 0.0, 0.0]
    return to_ase(positions, symbols)
