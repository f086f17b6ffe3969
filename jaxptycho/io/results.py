"""Results and checkpoints: a model by its own tree, the history, and how they came about.

`/model/<part>/<field>` holds every array, `/outline` what else the model is made of (JSON),
`/history/<column>` the course; root attributes hold `format="jaxptycho-result"`, the versions of
jaxptycho, JAX and numpy, `frame_angstrom` (y, x), from which positions and the specimen's origin
are counted, and whatever was passed to `write` (the job as TOML text).
"""

import json
from collections.abc import Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..model import Model
from .hdf5 import created, opened, plain_value, save_array
from .native import check_format
from .pytree_hdf5 import read_like, read_tree, write_tree

FORMAT, VERSION = "jaxptycho-result", 1
STATE = "jaxptycho-state"


def write(
    path: str | Path, model: Model, history=None, *, overwrite: bool = False, **attributes: Any
) -> None:
    """A result: the model, `history` (columns by name, or the losses alone) and `attributes`.

    An existing file stays unless `overwrite`; even then the old one goes only when the new one
    is complete.
    """
    columns = (
        history if isinstance(history, Mapping) else {} if history is None else {"loss": history}
    )
    with created(path, overwrite) as file:
        file.attrs.update({name: value for name, value in attributes.items() if value is not None})
        frame = {"frame_angstrom": model.frame} if any(model.frame) else {}
        file.attrs.update({"format": FORMAT, "version": VERSION} | frame | versions())
        outline = write_tree(file.create_group("model"), model)
        file["outline"] = json.dumps(outline)
        for name, values in columns.items():
            save_array(file.require_group("history"), name, _column(values))


def load(path: str | Path, like: Model | None = None) -> Model:
    """The model of a result, built from the classes of the running program, or like `like`."""
    with _result(path) as file:
        if like is not None:
            return read_like(file["model"], like)
        return read_tree(file["model"], json.loads(file["outline"].asstr()[()]))


def load_history(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a result's history."""
    with _result(path) as file:
        columns = file.get("history", {})
        return {
            name: (c.asstr() if h5py.check_string_dtype(c.dtype) else c)[()]
            for name, c in columns.items()
        }


def load_attributes(path: str | Path) -> dict[str, Any]:
    """What else a result says: the job, the versions."""
    with _result(path) as file:
        return {name: plain_value(value) for name, value in file.attrs.items()}


def save_state(path: str | Path, state: Any, *, overwrite: bool = False) -> None:
    """Any tree of arrays and numbers, such as the state of an optimiser, uncompressed."""
    with created(path, overwrite) as file:
        file.attrs.update({"format": STATE, "version": VERSION} | versions())
        write_tree(file.create_group("state"), state, compress=False)


def load_state(path: str | Path, like: Any) -> Any:
    """A saved state in the form of `like`, for example that of a freshly initialised optimiser."""
    with opened(path) as file:
        check_format(dict(file.attrs), path, STATE, VERSION)
        return read_like(file["state"], like)


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    return {f"{package}_version": version(package) for package in ("jaxptycho", "jax", "numpy")}


@contextmanager
def _result(path):
    with opened(path) as file:
        form = "jaxptycho-dataset" if {"counts", "positions", "views"} & set(file) else None
        check_format({"format": form} | dict(file.attrs), path, FORMAT, VERSION)
        yield file


def _column(values) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values
