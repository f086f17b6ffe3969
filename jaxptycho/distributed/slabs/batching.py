"""Batches for devices that hold slabs: the shots of each device are contiguous, in its order.

The positions of the windows follow the scan, so a batch of random shots would load slabs unequally.
Shots are therefore drawn within each slab, the same fraction of every slab for every batch.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from ...data import Batch, Dataset, batches
from ...data.ordering import ORDERS
from ...model import Model
from ..sharding import SHOTS, even
from .layout import SLABS, homes


def arrange(batch: Batch, home: Int[np.ndarray, " shot"], mesh: Mesh) -> Batch:
    """The shots of a batch in the order of the devices, the same number for each, padded with
    weight 0.

    `home` is the slab of every shot of the batch's view, by `slabs.homes`.
    """
    seen = np.flatnonzero(np.asarray(batch.weight) > 0)
    index, real = _side_by_side(home[np.asarray(batch.shots)[seen]], mesh)
    index = seen[index]
    counts = jax.tree.map(lambda values: values[index], batch.counts)
    return Batch(batch.view, batch.shots[index], counts, np.asarray(batch.weight)[index] * real)


def _side_by_side(home, mesh: Mesh, share: int = 0):
    """Indices of shots that live in the slabs `home`, `share` for each device or as many as needed,
    and their weight.
    """
    groups = mesh.shape[SHOTS]
    slabs = mesh.shape[SLABS]
    by_slab = [np.flatnonzero(home == slab) for slab in range(slabs)]
    share = max(share, math.ceil(max(map(len, by_slab)) / groups))
    index = np.zeros((groups, slabs, share), int)
    real = np.zeros((groups, slabs, share), np.float32)
    for slab, mine in enumerate(by_slab):
        for group in range(groups):
            own = mine[group::groups]
            index[group, slab, : len(own)] = own
            real[group, slab, : len(own)] = 1
    return index.ravel(), real.ravel()


def slabs_of_shots(model: Model, shots: list[int], mesh: Mesh) -> list[Int[np.ndarray, " _"]]:
    """Slab of every shot of every view, from its current window; `shots` are those of the views."""
    if SLABS not in mesh.shape:
        return [np.zeros(n, np.int16) for n in shots]
    return [
        homes(model, view, mesh.shape[SLABS])[:n].astype(np.int16) for view, n in enumerate(shots)
    ]


def slab_batches(
    data: Dataset,
    size: int,
    epochs: int = 1,
    *,
    home: list[Int[np.ndarray, " _"]],
    mesh: Mesh,
    order: str = "random",
    seed: int = 0,
    first_epoch: int = 0,
    shots: Any = None,
    part: tuple[int, int] = (0, 1),
    at_least: int = 1,
) -> Iterator[Batch]:
    """Return `data.batches` for the devices of `mesh`: batches of about `size` shots by slabs.

    `home` from `slabs_of_shots` gives the slab of every shot; windows may move by some rows
    (`slabs.halo`) until it is computed again. The rest of an epoch requires the `home` of its
    beginning.
    """
    if SLABS not in mesh.shape:
        drawn = batches(
            data,
            size,
            epochs,
            order=order,
            seed=seed,
            first_epoch=first_epoch,
            shots=shots,
            part=part,
            at_least=at_least,
        )
        yield from (even(batch, mesh) for batch in drawn)
        return
    slabs = mesh.shape[SLABS]
    shots = (
        [np.arange(n) for n in data.n_shots] if shots is None else [np.asarray(s) for s in shots]
    )
    counts = [math.ceil(len(mine) / size) for mine in shots]  # 0 of a view that is left out
    of_slab = [
        [mine[home[v][mine] == slab] for slab in range(slabs)] for v, mine in enumerate(shots)
    ]
    most = max(
        math.ceil(len(s) / count)
        for mine, count in zip(of_slab, counts, strict=True)
        if count
        for s in mine
    )
    share = max(math.ceil(most / mesh.shape[SHOTS]), math.ceil(at_least / mesh.size))
    for epoch in range(first_epoch, first_epoch + epochs):
        rng = np.random.default_rng([seed, epoch, 0])
        groups = []
        for view, (mine, count) in enumerate(zip(of_slab, counts, strict=True)):
            if not count:
                continue
            parts = [_parts(data.positions[view], own, count, order, rng) for own in mine]
            groups += [
                (view, np.concatenate(together))
                for together in zip(*_covering(parts, count), strict=True)
            ]
        for i in rng.permutation(len(groups)):
            view, together = groups[i]
            index, weight = _side_by_side(home[view][together], mesh, share)
            own = slice(part[0] * len(index) // part[1], (part[0] + 1) * len(index) // part[1])
            here = together[index[own]].astype(np.int32)
            yield Batch(np.int32(view), here, data.counts_of(view, here), weight[own])


def _parts(positions, own, count: int, order: str, rng) -> list[np.ndarray]:
    """The shots of one slab in `count` parts, by an order of `data.batches`; fewer shots than that
    are in one each.
    """
    parts = [
        own[group]
        for group in ORDERS[order](positions[own], math.ceil(len(own) / max(count, 1)) or 1, rng)
    ]
    if len(parts) == count or not parts:
        return parts
    return np.array_split(np.concatenate(parts), min(count, len(own)))


def _covering(parts: list[list[np.ndarray]], count: int) -> list[list[np.ndarray]]:
    """The parts of all slabs in `count` places, each slab's where those of the one before end, so
    that no place is empty in all slabs.
    """
    first = 0
    found = []
    for own in parts:
        places = [np.zeros(0, int)] * count
        for number, part in enumerate(own):
            places[(first + number) % count] = part
        found.append(places)
        first += len(own)
    return found
