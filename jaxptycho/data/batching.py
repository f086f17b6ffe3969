"""Held-out shots, and batches of the others."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from ..physics.types import Numbers
from .batch import Batch
from .dataset import Dataset
from .layout import per_view
from .ordering import ORDERS, even_size

MIN_HELD_OUT = 8  # shots from which held-out ones are enough to judge by
MAX_HELD_OUT = 0.1  # of the shots, to have as many
MAX_SHOTS_PER_CALL = 64  # shots of small batches that are processed in one call


def split(
    data: Dataset, hold_out: float, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Training shots of every view, and a random fraction `hold_out` for validation.

    At least `MIN_HELD_OUT` in all, if that is no more than a tenth, unless `hold_out` is 0: fewer
    do not show whether a model explains what it has not seen.
    """
    if not 0 <= hold_out < 1:
        raise ValueError(
            f"hold_out = {hold_out}; give a fraction from 0 to less than 1, so that shots are left"
        )
    least = max(2, math.ceil(MIN_HELD_OUT / data.n_views))
    learn = []
    held = []
    for view, n in enumerate(data.n_shots):
        order = np.random.default_rng([seed, view, 1]).permutation(n)
        n_held = min(round(hold_out * n), n - 1)
        if hold_out > 0 and least <= MAX_HELD_OUT * n:
            n_held = max(n_held, least)
        held.append(np.sort(order[:n_held]))
        learn.append(np.sort(order[n_held:]))
    return learn, held


def batches(
    data: Dataset,
    size: int,
    epochs: int = 1,
    *,
    order: str = "random",
    seed: int = 0,
    first_epoch: int = 0,
    shots: Any = None,
    part: tuple[int, int] = (0, 1),
    at_least: int = 1,
) -> Iterator[Batch]:
    """Batches of `size` that contain every shot once per epoch.

    `shots` restricts them to some shots, of the single view or as a list over views. `order` is
    "random", "compact" (neighbours together) or "sparse" (each batch spread over the scan);
    it differs in each epoch and depends only on `seed` and the number of the epoch. `part` (i, n)
    reads only the i-th of n equal parts of every batch. Batches are padded to
    `at_least` shots by some of weight 0.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order of batches {order!r}; known are {', '.join(ORDERS)}")
    if size < 1:
        raise ValueError(f"batches of {size} shots; give at least 1")
    shots = [np.arange(n) for n in data.n_shots] if shots is None else per_view(shots)
    largest = max(at_least, *(even_size(len(mine), size) for mine in shots))
    for epoch in range(first_epoch, first_epoch + epochs):
        rng = np.random.default_rng([seed, epoch, 0])
        groups = [
            (view, mine[group])
            for view, mine in enumerate(shots)
            for group in ORDERS[order](data.positions[view][mine], size, rng)
        ]
        for i in rng.permutation(len(groups)):
            yield make_batch(data, *groups[i], size=largest, part=part)


def make_batch(
    data: Dataset,
    view: int,
    shots: Numbers,
    size: int | None = None,
    part: tuple[int, int] = (0, 1),
) -> Batch:
    """One batch of the given shots, padded to `size` and to equal parts.

    `part` (i, n) is the i-th of n parts.
    """
    shots = np.asarray(shots)
    (i, n) = part
    own = math.ceil((size or len(shots)) / n)
    padding = own * n - len(shots)
    weight = np.concatenate([np.ones(len(shots), np.float32), np.zeros(padding, np.float32)])
    shots = np.concatenate([shots, np.repeat(shots[:1], padding)]).astype(np.int32)
    weight = weight[i * own : (i + 1) * own]
    shots = shots[i * own : (i + 1) * own]
    return Batch(np.int32(view), shots, data.counts_of(view, shots), weight)


def stacked(batches: Iterable[Batch], shots: int = MAX_SHOTS_PER_CALL) -> Iterator[Batch]:
    """The same batches, small ones stacked `[step, shot, …]` up to `shots` shots for one call.

    Batches that do not fill a stack are yielded singly, so that a step has at most two shapes.
    """
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        count = shots // len(batch.shots)
        if len(waiting) < count:
            continue
        if count > 1:
            yield jax.tree.map(lambda *arrays: np.stack(arrays), *waiting)
        else:
            yield from waiting
        waiting = []
    yield from waiting
