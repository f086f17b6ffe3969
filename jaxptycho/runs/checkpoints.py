"""Checkpoints of the progress within a step of epochs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..data import Dataset
from ..distributed.checkpoint import Checkpoints
from ..distributed.sharding import place_on_mesh, place_on_new_mesh, restore, snapshot
from ..distributed.slabs.layout import fitted
from ..model import Model
from .batch_source import BatchSource
from .course import Course
from .state import Progress, Row

PER_STEP = 10**8  # batches of a step; numbers of checkpoints fit 32 bits, as orbax sends them
NUMBERS = ("epoch", "losses", "seconds", "history")


class CheckpointPlace(NamedTuple):
    """Place of the newest checkpoint."""

    step: int
    epoch: int
    quanta: float | None  # of all patterns


def newest_place(kept: Checkpoints) -> CheckpointPlace | None:
    """Place of the newest checkpoint that can be read, None without any."""
    about = kept.about()
    if about is None:
        return None
    return CheckpointPlace(about["step"], about["epoch"], about.get("quanta"))


def require_countable(batches: int) -> None:
    """Raise ValueError for a step of more batches than checkpoints of a step can be numbered by."""
    if batches >= PER_STEP:
        raise ValueError(
            f"a step takes {batches:.4g} batches, and less than {PER_STEP:.0e} are possible; use "
            "larger batches, or several steps"
        )


def quanta_of(data: Dataset) -> float:
    """Quanta of all patterns, which identify the measurement."""
    return float(sum(data.dose(view).sum() for view in range(data.n_views)))


def save_progress(
    kept: Checkpoints, step: int, number: int, progress: Progress, source: BatchSource
) -> None:
    """Begin to write a checkpoint of all that the step needs to continue as if never interrupted.

    `number` counts the batches of the step.
    """
    course = progress.course
    about = {name: getattr(progress, name) for name in NUMBERS}
    about |= {"step": step, "slabs": source.slabs, "quanta": quanta_of(source.data)}
    about |= {"course": None if course is None else course._asdict()}
    about |= {"best": progress.best is not None}
    home = progress.home or source.home(progress.model)
    tree = {"model": progress.model, "state": progress.state, "home": home}
    begun = {} if progress.begun is None else {"begun": progress.begun}
    best = {} if progress.best is None else {"best": restore(progress.best)}
    kept.save(step * PER_STEP + number, tree | begun | best, about)


def restore_progress(
    kept: Checkpoints,
    step: int,
    model: Model,
    tree_of: Callable[[Model], dict[str, Any]],
    source: BatchSource,
) -> Progress | None:
    """Progress of the newest checkpoint of a step, None without any.

    `model` is one of the same structure, and `tree_of(model)` the tree of a checkpoint (model,
    state of the optimiser …) with it. Other slabs than those of the checkpoint share the rest of
    the epoch otherwise.
    """

    def template(about: dict[str, Any]) -> dict[str, Any]:
        then = fitted(model, about["slabs"])
        placed = place_on_new_mesh(then, source.devices, then)
        tree = tree_of(placed)
        tree["state"] = place_on_new_mesh(tree["state"], source.devices, placed)
        tree |= {"best": placed} if about["best"] else {}
        return tree | {"home": [np.zeros(n, np.int16) for n in source.data.n_shots]}

    last = kept.last(template, step * PER_STEP)
    if last is None:
        return None
    tree, about = last
    slabs = source.slabs
    if about["slabs"] != slabs:
        old = tree["model"]
        parts = ("state", "begun", "best", "model")
        tree |= {name: fitted(old, slabs, tree[name]) for name in parts if name in tree}
        tree["home"] = source.home(place_on_mesh(tree["model"], source.devices))
    history = [Row(*row) for row in about["history"]]
    losses = [(float(loss), float(shots)) for loss, shots in about["losses"]]
    course = None if about["course"] is None else Course(**about["course"])
    if "best" in tree:
        tree["best"] = snapshot(place_on_mesh(tree["best"], source.devices))
    place = {"epoch": about["epoch"], "seconds": about["seconds"], "course": course}
    return Progress(**tree, **place, history=history, losses=losses)
