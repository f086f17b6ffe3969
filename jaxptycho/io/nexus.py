"""Specimen of a result as NXdata, the form in which viewers of HDF5 files show it (NeXus)."""

from collections.abc import Mapping

import h5py
import jax
import numpy as np

from ..analysis.pictures import picture
from ..analysis.scanned import origin, scanned
from ..distributed.gather import ShardedLeaf
from ..model import Model
from .hdf5 import H5, save_array
from .labels import LENGTH, label

POTENTIAL = "/model/specimen/potential"  # of a volume, within the file of its result


def write_entry(file: H5, model: Model) -> None:
    """Write `/entry` of an open result, NXdata of its specimen with positions in Å.

    Slices are the phase [rad] on the scanned area without the ramp of their sum, NaN outside, and
    the amplitude; of a volume it is a link to its potential. A specimen that is spread over
    devices, or that has no slices to be shown, has no entry.
    """
    if model.specimen.rotates:
        if POTENTIAL in file:
            _write_volume(file, model)
    elif not any(isinstance(leaf, ShardedLeaf) for leaf in jax.tree.leaves(model)):
        try:
            _write_slices(file, model)
        except (ValueError, TypeError):  # a part without a picture; the result counts more
            file.pop("entry", None)


def _write_slices(file: H5, model: Model) -> None:
    shown = picture(model)
    rows, columns = scanned(model)
    y, x = origin(model) + model.frame + np.multiply((rows.start, columns.start), shown.pixel)
    middles = (shown.faces[1:] + shown.faces[:-1]) / 2
    depth = np.shape(shown.phase)[1:]
    plane = {
        name: start + step * np.arange(count)
        for name, start, step, count in zip("yx", (y, x), shown.pixel, depth, strict=True)
    }
    group = _data_group(file, "phase", {"z": middles, **plane})
    label(save_array(group, "phase", np.float32(shown.phase)), "rad", ("z", "y", "x"))
    if shown.amplitude is not None:
        group = _data_group(file, "amplitude", plane)
        label(save_array(group, "amplitude", np.float32(shown.amplitude)), "1", ("y", "x"))


def _write_volume(file: H5, model: Model) -> None:
    steps = model.specimen.voxel_size(model.grid)
    lengths = zip("zyx", file[POTENTIAL].shape, steps, strict=True)
    axes = {name: (np.arange(count) - count // 2) * step for name, count, step in lengths}
    group = _data_group(file, "potential", axes)
    group["potential"] = h5py.SoftLink(POTENTIAL)


def _data_group(file: H5, signal: str, axes: Mapping[str, np.ndarray]) -> H5:
    """New NXdata group of /entry with the positions [Å] along its axes."""
    entry = file.require_group("entry")
    entry.attrs["NX_class"] = "NXentry"
    entry.attrs.setdefault("default", signal)
    file.attrs["default"] = "entry"
    group = entry.create_group(signal)
    group.attrs.update({"NX_class": "NXdata", "signal": signal, "axes": list(axes)})
    for name, values in axes.items():
        label(save_array(group, name, values), LENGTH, (name,))
    return group
