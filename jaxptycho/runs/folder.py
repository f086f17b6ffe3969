"""Folder of a run.

`run.toml` (the job as run, all defaults included), `run.log`, `steps/NN-kind/` (the result of each
step), `checkpoints/`, `history.csv`, `result.h5`, `figures/`, `report.html`; `atoms.xyz` of a
specimen made of atoms.
"""

import json
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..distributed.gather import on_process_zero
from ..distributed.multihost import all_processes, require_seen, run_on_rank0
from ..io.atomic_write import atomic_path, write_table
from ..io.exports import structure
from ..io.hdf5 import is_zarr
from ..io.results import load, write
from ..io.structures import write_structure
from ..model import Model
from .references import absolute, is_reference, resolve
from .state import Row, State, columns_of

LOG = "run.log"
STATE = "state.json"
MODEL = "model.h5"


def refuse_existing(folder: Path) -> None:
    """Raise ValueError where a new folder would fall on an old one that holds anything."""
    hidden = folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())
    if folder.exists() and not hidden:
        run = (folder / "run.toml").exists()
        resumable = f", or continue it with `jaxptycho resume {folder}`" if run else ""
        kind = "the folder " if folder.is_dir() else ""
        raise ValueError(
            f"{kind}{folder} exists and is not overwritten; choose another with --out{resumable}"
        )


def require_run(folder: Path) -> None:
    """Raise ValueError if `folder` is not that of a run."""
    if (folder / "run.toml").exists():
        return
    if folder.is_dir():
        why = "is no run: it holds no run.toml"
    elif folder.exists():
        why = "is a file"
    else:
        why = "does not exist"
    inside = folder.is_file() and (folder.parent / "run.toml").exists()
    parent = f", such as {folder.parent}" if inside else ""
    raise ValueError(f"{folder} {why}; give a folder that `jaxptycho run` made{parent}")


def result_of(path: Path) -> Path:
    """Result in the folder of a run, or the file itself; ValueError for a folder without one."""
    if not path.is_dir() or is_zarr(path):
        return path
    if (path / "result.h5").exists():
        return path / "result.h5"
    if (path / "run.toml").exists():
        raise ValueError(
            f"the run in {path} has no result yet; continue it: jaxptycho resume {path}"
        )
    raise ValueError(
        f"the folder {path} is no run: it holds no result.h5; give a result, or the folder of a run"
    )


def load_result(path: Path) -> Model:
    """Model of a run's folder or of a result file.

    A file imports nothing: a `module:function` is imported from the place that the
    run.toml of the run names. Raises ValueError for a folder without a result.
    """
    path = result_of(path)
    for folder in (path.parent, *path.parents[1:3]):
        if (folder / "run.toml").exists():
            text = (folder / "run.toml").read_text(encoding="utf-8")
            _import_kinds(tomllib.loads(text), folder)
    return load(path)


def _import_kinds(values: Any, folder: Path) -> None:
    """Import every `kind` of nested values that is `module:function`."""
    if isinstance(values, dict):
        kind = values.get("kind")
        if isinstance(kind, str) and is_reference(kind):
            resolve(absolute(kind, folder))
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            _import_kinds(value, folder)


def step_folder(run: Path, number: int, kind: str) -> Path:
    """Folder of the result of a step."""
    return run / "steps" / f"{number:02d}-{kind.rpartition(':')[2]}"


def hand_on(folder: Path, state: State) -> State:
    """Write the result of a step, and return it as the next step will read it.

    `model.h5` and, last, `state.json`, which marks the step as done.
    """
    if state.model is not None:
        on_process_zero(partial(write, folder / MODEL, overwrite=True), state.model)
    about = {
        "left_out": list(state.left_out),
        "history": [list(row) for row in state.history],
        "measurement": None if state.measurement is None else str(state.measurement),
        "found": state.found,
    }
    run_on_rank0(partial(_write_text, folder / STATE, json.dumps(about)))
    require_seen(folder / STATE)
    return read_state(folder, state.views)


def is_done(folder: Path) -> bool:
    """True if a step has written its result."""
    return all_processes((folder / STATE).exists())


def read_state(folder: Path, views: dict[int, Model]) -> State:
    """Result of a step; `views` are those of a step before."""
    about = json.loads((folder / STATE).read_text(encoding="utf-8"))
    measurement = about["measurement"]
    return State(
        load(folder / MODEL) if (folder / MODEL).exists() else None,
        views,
        tuple(about["left_out"]),
        tuple(Row(*row) for row in about["history"]),
        None if measurement is None else Path(measurement),
        about.get("found", {}),
    )


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write the history as a table, completely or not at all."""
    write_table(path, Row._fields, history)


def write_result(folder: Path, model: Model, history: Sequence[Row], **about: Any) -> None:
    """Write history, result and, of a specimen made of atoms, `atoms.xyz`."""

    def written(model: Model) -> None:
        write_history(folder / "history.csv", history)
        write(folder / "result.h5", model, columns_of(history), overwrite=True, **about)
        if model.specimen.listed_atoms() is not None:
            write_structure(folder / "atoms.xyz", structure(model), overwrite=True)

    on_process_zero(written, model)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, overwrite=True) as draft:
        draft.write_text(text, encoding="utf-8")
