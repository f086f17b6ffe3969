"""Results and checkpoints: a model in the form of its tree, its history and its origin.

`/model/<part>/<field>` holds every array with its `units` and `axes`, `/outline` the other parts of
the model (JSON), `/history/<column>` the progress, `/entry` the specimen for viewers (NXdata). Root
attributes hold `format="jaxptycho-result"`, the beam, `pixel_angstrom` (y, x), `slice_angstrom` (of
every slice), `frame_angstrom` (y, x), from which positions and the specimen's origin are counted,
versions, date, host and devices, and all attributes passed to `write` (the job as TOML text).
"""

import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..model import Model
from ..physics.types import Numbers
from .hdf5 import create_hdf5, open_hdf5, plain_value, save_array
from .instrument import properties_of
from .labels import HISTORY, label, label_tree
from .native import RESULT_FORMAT, check_format
from .nexus import write_entry
from .provenance import provenance
from .pytree_hdf5 import read_like, read_tree, write_tree

VERSION = 1
STATE = "jaxptycho-state"


def write(
    path: str | Path,
    model: Model,
    history: Mapping[str, Numbers] | Numbers | None = None,
    *,
    overwrite: bool = False,
    **attributes: Any,
) -> None:
    """Write a result: the model, `history` (columns by name, or losses only) and `attributes`.

    An existing file is kept unless `overwrite`; even then it is replaced only once the new one is
    complete.
    """
    columns = (
        history if isinstance(history, Mapping) else {} if history is None else {"loss": history}
    )
    with create_hdf5(path, overwrite) as file:
        file.attrs.update({name: value for name, value in attributes.items() if value is not None})
        file.attrs.update({"format": RESULT_FORMAT, "version": VERSION} | _sampling(model))
        file.attrs.update(provenance())
        group = file.create_group("model")
        file["outline"] = json.dumps(write_tree(group, model))
        label_tree(group, model)
        for name, values in columns.items():
            stored = save_array(file.require_group("history"), name, _column(values))
            label(stored, HISTORY.get(name), ("epoch",))
        write_entry(file, model)


def load(path: str | Path, like: Model | None = None) -> Model:
    """Model of a result, built from the classes of the running program, or like `like`."""
    with _result(path) as file:
        if like is not None:
            return read_like(file["model"], like)
        return read_tree(file["model"], json.loads(file["outline"].asstr()[()]))


def load_history(path: str | Path) -> dict[str, np.ndarray]:
    """Columns of a result's history."""
    with _result(path) as file:
        columns = file.get("history", {})
        return {
            name: (c.asstr() if h5py.check_string_dtype(c.dtype) else c)[()]
            for name, c in columns.items()
        }


def load_attributes(path: str | Path) -> dict[str, Any]:
    """Further attributes of a result: the job, the versions."""
    with _result(path) as file:
        return {name: plain_value(value) for name, value in file.attrs.items()}


def save_state(path: str | Path, state: Any, *, overwrite: bool = False) -> None:
    """Write any tree of arrays and numbers, such as the state of an optimiser, uncompressed."""
    with create_hdf5(path, overwrite) as file:
        file.attrs.update({"format": STATE, "version": VERSION} | provenance())
        write_tree(file.create_group("state"), state, compress=False)


def load_state(path: str | Path, like: Any) -> Any:
    """Saved state in the form of `like`, for example that of a freshly initialised optimiser."""
    with open_hdf5(path) as file:
        check_format(dict(file.attrs), path, STATE, VERSION)
        return read_like(file["state"], like)


@contextmanager
def _result(path):
    with open_hdf5(path) as file:
        form = "jaxptycho-dataset" if {"counts", "positions", "views"} & set(file) else None
        check_format({"format": form} | dict(file.attrs), path, RESULT_FORMAT, VERSION)
        yield file


def _sampling(model: Model) -> dict[str, Any]:
    """Attributes of the beam, the pixels, and the slices where all shots share their thickness."""
    found = properties_of(model.grid)
    if any(model.frame):
        found["frame_angstrom"] = model.frame
    try:
        thickness = np.asarray(model.specimen.shared_thickness(model.grid), float)
    except ValueError:  # another in every shot
        return found
    return found | {"slice_angstrom": thickness}


def _column(values) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values
