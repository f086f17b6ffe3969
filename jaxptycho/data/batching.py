"""Which shots are kept aside, and the batches that the others are drawn in."""

import math
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from .batch import Batch
from .dataset import Dataset
from .layout import per_view
from .ordering import ORDERS, even_size

TOGETHER = 64  # shots of small batches that one call works off


def split(
    data: Dataset, hold_out: float, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Shots of every view to learn from, and a random fraction `hold_out` to validate with."""
    if not 0 <= hold_out < 1:
        raise ValueError(
            f"hold_out = {hold_out}; wanted a fraction from 0 to less than 1, so that shots are left"
        )
    learn, held = [], []
    for view, n in enumerate(data.n_shots):
        order = np.random.default_rng([seed, view, 1]).permutation(n)
        n_held = min(round(hold_out * n), n - 1)
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
    shots=None,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every shot (or `shots`, of the one view or a list over views) once an epoch, in batches of `size`.

    `order` is "random", "compact" (neighbours together) or "sparse" (each batch spread over
    the scan); anew each epoch, and decided by `seed` and the number of the epoch alone. `part` (i, n) reads the
    i-th of n equal parts of every batch and nothing else.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order of batches {order!r}; known are {', '.join(ORDERS)}")
    if size < 1:
        raise ValueError(f"batches of {size} shots; wanted at least 1")
    shots = [np.arange(n) for n in data.n_shots] if shots is None else per_view(shots)
    largest = max(even_size(len(mine), size) for mine in shots)
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
    data: Dataset, view: int, shots, size: int | None = None, part: tuple[int, int] = (0, 1)
) -> Batch:
    """One batch of the given shots, padded to `size` and to equal parts; the i-th of n of these for `part` (i, n)."""
    shots, (i, n) = np.asarray(shots), part
    own = math.ceil((size or len(shots)) / n)
    padding = own * n - len(shots)
    weight = np.concatenate([np.ones(len(shots), np.float32), np.zeros(padding, np.float32)])
    shots = np.concatenate([shots, np.repeat(shots[:1], padding)]).astype(np.int32)
    weight, shots = weight[i * own : (i + 1) * own], shots[i * own : (i + 1) * own]
    return Batch(np.int32(view), shots, data.counts_of(view, shots), weight)


def stacked(batches: Iterable[Batch], shots: int = TOGETHER) -> Iterator[Batch]:
    """The same batches, small ones stacked `[step, shot, …]` up to `shots` shots: one call works off a stack.

    What does not fill a stack comes singly, so that a step meets two shapes at most.
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
