"""Batches of a measurement on the devices of a run, and passes over its patterns."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from ..analysis import verdict
from ..analysis.fit import SUMS, fit_sums, measures
from ..data import Batch, Dataset, materialize, prefetch, split, stacked
from ..distributed import device_cache
from ..distributed.multihost import global_batch, part
from ..distributed.sharding import over_shots
from ..distributed.slabs.batching import slab_batches, slabs_of_shots
from ..distributed.slabs.halo import SLABS
from ..inverse.step import AHEAD
from ..model import Model

MAX_SHOTS_PER_PASS = 64  # shots of a batch where no step is taken
Shots = list[np.ndarray]  # of every view


@dataclass(frozen=True, eq=False)
class BatchSource:
    """Patterns of a measurement, split into those to learn from and those held out.

    Batches come in groups of the slabs of a specimen (`distributed.slabs`), each process reading
    its part; where all patterns fit on every device they stay there.
    """

    data: Dataset
    devices: Mesh
    learn: Shots
    held: Shots
    seed: int = 0

    @classmethod
    def of(cls, data: Dataset, devices: Mesh, hold_out: float, seed: int = 0) -> "BatchSource":
        """The source of a measurement, a random fraction `hold_out` of whose shots is held out."""
        return cls(data, devices, *split(data, hold_out, seed), seed)

    def without(self, views: Collection[int]) -> "BatchSource":
        """The same without the shots of some views, neither to learn from nor held out."""

        def left(shots: Shots) -> Shots:
            return [chosen[:0] if view in views else chosen for view, chosen in enumerate(shots)]

        if not views:
            return self
        source = replace(self, learn=left(self.learn), held=left(self.held))
        source.__dict__["table"] = self.table  # the same patterns
        return source

    @cached_property
    def table(self) -> jax.Array | None:
        """All patterns, where they fit on every device; otherwise batches are streamed."""
        return device_cache.pattern_table(self.data, self.devices)

    @property
    def slabs(self) -> int:
        """Number of slabs of the specimen."""
        return dict(self.devices.shape).get(SLABS, 1)

    @property
    def shots_per_epoch(self) -> int:
        """Number of shots to learn from."""
        return sum(map(len, self.learn))

    def steps_per_epoch(self, size: int) -> int:
        """Number of batches of at most `size` shots in an epoch."""
        return sum(-(-len(shots) // min(size, len(shots))) for shots in self.learn if len(shots))

    def home(self, model: Model) -> list[np.ndarray]:
        """The slab of every shot of every view."""
        return slabs_of_shots(model, self.data.n_shots, self.devices)

    def epoch(
        self, home: list[np.ndarray], size: int, order: str, number: int, done: int = 0
    ) -> Iterator[Batch]:
        """Batches of the epoch `number`, without the first `done`; seed and number decide them."""
        chosen = {"order": order, "seed": self.seed, "first_epoch": number, "shots": self.learn}
        return islice(self._deal(home, size, **chosen), done, None)

    def stacks(self, batches: Iterator[Batch], steps: int) -> Iterator[Batch]:
        """Batches of an epoch of `steps` stacked, so that one call works several off."""
        return stacked(batches) if self.table is None else device_cache.in_calls(batches, steps)

    def complete(self, batch: Batch) -> Batch:
        """A batch of all processes with its patterns, from the part of this one."""
        return device_cache.attached(global_batch(batch, self.devices), self.table)

    def over(
        self, shots: Shots, function: Callable[[Batch], Any], model: Model, at_least: int = 1
    ) -> list[Any]:
        """`function` of batches of these shots, on the host; each process reads its part.

        Batches are padded to `at_least` shots by some of weight 0.
        """
        if not any(map(len, shots)):
            return []
        size = min(MAX_SHOTS_PER_PASS, max(map(len, shots)))
        drawn = self._deal(self.home(model), size, order="compact", shots=shots, at_least=at_least)
        found = []
        with contextlib.closing(prefetch(drawn)) as ready:
            for batch in ready:
                found.append(function(self.complete(batch)))
                # otherwise the batches of all calls would be on the device at once
                jax.block_until_ready(found[-AHEAD - 1 : -AHEAD])
        return jax.device_get(found)

    def held_out_loss(self, loss: Callable[[Model, Batch], Any], model: Model) -> float | None:
        """Mean of a compiled loss over the held-out shots, None without any."""
        return self._mean_loss(self.held, loss, model) if any(map(len, self.held)) else None

    def held_out_losses(
        self, loss: Callable[[Model, Batch], Any], model: Model, groups: int
    ) -> np.ndarray:
        """Means of a compiled loss over `groups` of the held-out shots, which show its scatter."""
        shares = [[shots[n::groups] for shots in self.held] for n in range(groups)]
        return np.array([self._mean_loss(shots, loss, model) for shots in shares])

    def _mean_loss(self, shots: Shots, loss: Callable[[Model, Batch], Any], model: Model) -> float:
        size = min(MAX_SHOTS_PER_PASS, max(map(len, self.held)))  # one program for all of them
        found = self.over(shots, lambda b: (loss(model, b), b.weight.sum()), model, size)
        losses, counts = zip(*found, strict=True)
        return float(np.average(np.asarray(losses, float), weights=counts))

    def fit(self, model: Model) -> dict[str, float]:
        """Fit of a model to all patterns, and χ² of those held out (`analysis.fit`)."""
        of_batch = partial(sum_over_devices, fit_sums, self.devices, model)
        size = min(MAX_SHOTS_PER_PASS, max(self.data.n_shots))  # one program for both sums

        def sums(shots: Shots) -> np.ndarray:
            return np.sum([np.zeros(SUMS), *self.over(shots, of_batch, model, size)], 0)

        pairs = zip(self.data.n_shots, self.held, strict=True)
        rest = sums([np.setdiff1d(np.arange(n), held) for n, held in pairs])
        aside = sums(self.held)
        n_held = sum(map(len, self.held))
        found = measures(rest + aside, self.data, sum(self.data.n_shots))
        if not n_held:
            return found
        return found | {"held_out_chi2": measures(aside, self.data, n_held)["chi2"]}

    def verdict(self, model: Model, history: list) -> verdict.Verdict:
        """Verdict about a model, the same in all processes (`analysis.verdict`)."""
        empty = [np.zeros(0, int)] * self.data.n_views

        def sums(function: Callable, view: int, shots: np.ndarray) -> np.ndarray:
            of_view = [*empty[:view], shots, *empty[view + 1 :]]
            of_batch = partial(sum_over_devices, function, self.devices, model)
            found = self.over(of_view, of_batch, model)
            return np.sum([np.asarray(part, float) for part in found], 0)

        evidence = verdict.evidence(self.data, self.learn, self.held, sums)
        return verdict.conclude(evidence, history)

    def _deal(self, home: list[np.ndarray], size: int, **chosen: Any) -> Iterator[Batch]:
        data = self.data if self.table is None else self.data.indexed()
        return slab_batches(data, size, home=home, mesh=self.devices, part=part(), **chosen)


@eqx.filter_jit
def sum_over_devices(
    function: Callable[[Model, Batch], Any], devices: Mesh, model: Model, batch: Batch
) -> Any:
    """`function`, a tree of sums over a batch's shots; compiled once for all steps and runs."""
    return over_shots(function, devices)(model, materialize(batch))
