"""Epochs of optimiser steps: the loop around `make_step`."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data import materialize, prefetch
from ..distributed.multihost import allreduce_sum
from ..distributed.sharding import distribute, keep_sharding, place_on_mesh, restore, snapshot
from ..inverse.step import identity, init_state, make_step
from ..model import Model
from . import diagnose
from .batch_source import BatchSource
from .diagnose import require_finite, require_held
from .progress import ProgressListener
from .state import Diverged, Progress, Row

Change = Callable[[Model, int], tuple[Model, bool]]


def unchanged(model: Model, epoch: int) -> tuple[Model, bool]:
    """The model as it is, with the state of its optimiser."""
    return model, False


class Refinement(NamedTuple):
    """Objective of a refinement, and its optimiser.

    `after_step(model)` projects the model after every step. `after_epoch(model, epoch)` returns
    the model that the next epoch begins with, and whether the state of the optimiser is reset.
    """

    loss: Callable[[Model, Any], jax.Array]
    optimiser: optax.GradientTransformation
    epochs: int
    batch: int = 64
    order: str = "random"
    penalty: Callable[[Model], jax.Array] | None = None
    after_step: Callable[[Model], Model] = identity
    after_epoch: Change = unchanged
    name: str = "refine"
    remedy: str = "lower the rate of this part or constrain it"


@dataclass(eq=False)
class Loop:
    """A refinement on a measurement, epoch by epoch.

    `stop()` is a reason to stop, or None; `on_epoch(progress)` sees every finished epoch.
    """

    plan: Refinement
    source: BatchSource
    listener: ProgressListener
    stop: Callable[[], str | None] = lambda: None
    on_epoch: Callable[[Progress], None] = lambda progress: None

    def run(self, progress: Progress) -> str | None:
        """Move `progress` on in place; return the reason to stop, None at the end.

        Raises Diverged, with the last good model in `progress`.
        """
        require_finite(progress.model)
        progress.model = place_on_mesh(progress.model, self.devices)
        state = progress.state
        state = init_state(self.plan.optimiser, progress.model) if state is None else state
        progress.state = place_on_mesh(state, self.devices, progress.model)
        while progress.epoch < self.plan.epochs:
            if why := self.stop():
                return why
            self.epoch(progress)
        return None

    def epoch(self, progress: Progress) -> None:
        """Work off the rest of an epoch, or as much of it as `stop` allows."""
        if not progress.losses:
            progress.home = self.source.home(progress.model)
        began = time.monotonic()
        good = self._snapshot(progress)
        finite = self._steps(progress)
        over = len(progress.losses) == self.steps
        if over:
            progress.model, reset = self.plan.after_epoch(progress.model, progress.epoch)
            state = progress.state
            state = init_state(self.plan.optimiser, progress.model) if reset else state
            both = progress.model, state
            progress.model, progress.state = place_on_mesh(both, self.devices, progress.model)
        if not (finite and all_finite(progress.model)):
            self._diverged(progress, good)
        self._require_inside(progress, good)
        held_out = self.source.held_out_loss(self._loss, progress.model) if over else None
        progress.seconds += time.monotonic() - began
        if over:
            self._close(progress, held_out)

    def _steps(self, progress: Progress) -> bool:
        """Take the steps of the epoch that are left; return whether all losses are finite."""
        fetched = []
        stacks = self.source.stacks(self._batches(progress), self.steps)
        with contextlib.closing(prefetch(stacks)) as ready:
            for batch in ready:
                complete = self.source.complete(batch)
                model = progress.model
                state = progress.state
                progress.model, progress.state, info = self._step(model, state, complete)
                fetched.append((info, batch.weight.sum(-1)))
                self.listener.batch(float(batch.weight.sum()) * jax.process_count())
                if self.stop():
                    break
        infos = jax.device_get([info for info, _ in fetched])
        none = np.zeros(0)
        of_process = np.concatenate([none, *(np.atleast_1d(shots) for _, shots in fetched)])
        losses = np.concatenate([none, *(np.atleast_1d(info["loss"]) for info in infos)])
        progress.losses += zip(losses.tolist(), allreduce_sum(of_process).tolist(), strict=True)
        return all(np.all(info["finite"]) for info in infos)

    def _close(self, progress: Progress, held_out: float | None) -> None:
        losses, shots = np.array(progress.losses).T
        loss = float(np.average(losses, weights=shots))
        number = len(progress.history) + 1
        row = Row(number, self.plan.name, loss, held_out, progress.seconds)
        progress.history.append(row)
        progress.epoch += 1
        progress.losses = []
        progress.seconds = 0.0
        self.listener.epoch(row)
        self.on_epoch(progress)

    def _batches(self, progress: Progress):
        """Batches of the current epoch that are left."""
        number = len(progress.history)
        done = len(progress.losses)
        return self.source.epoch(progress.home, self.plan.batch, self.plan.order, number, done)

    @property
    def devices(self):
        """Mesh of the devices."""
        return self.source.devices

    @cached_property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return self.source.steps_per_epoch(self.plan.batch)

    @cached_property
    def _distributed(self) -> Callable:
        return distribute(self.plan.loss, self.devices)

    @cached_property
    def _loss(self) -> Callable:
        """The loss, compiled, for held-out shots."""
        return eqx.filter_jit(lambda m, b: self._distributed(m, materialize(b)))

    @cached_property
    def _step(self) -> Callable:
        plan = self.plan
        after = keep_sharding(plan.after_step, self.devices)
        return make_step(self._distributed, plan.optimiser, after, plan.penalty)

    def _objective(self, model: Model, batch: Any) -> jax.Array:
        penalty = 0.0 if self.plan.penalty is None else self.plan.penalty(model)
        return self._distributed(model, materialize(batch)) + penalty

    def _snapshot(self, progress: Progress) -> Progress:
        model, state = snapshot((progress.model, progress.state))
        return replace(progress, model=model, state=state, losses=list(progress.losses))

    def _restore(self, progress: Progress, good: Progress) -> None:
        progress.model, progress.state = restore((good.model, good.state))
        progress.losses = list(good.losses)

    def _require_inside(self, progress: Progress, good: Progress) -> None:
        """Stop at the last good model where refined positions or angles leave the object."""
        try:
            require_held(progress.model, self.source.data.n_views, self.source.slabs)
        except ValueError as error:
            self._restore(progress, good)
            number = len(progress.history) + 1
            where = f"step {self.plan.name!r}, epoch {number}"
            raise Diverged(f"in {where} {error}") from error

    def _diverged(self, progress: Progress, good: Progress) -> None:
        self._restore(progress, good)
        left = map(self.source.complete, self._batches(progress))
        cause = diagnose.first_nonfinite(
            self._step, self._objective, self.plan.optimiser, progress.model, progress.state, left
        )
        self._restore(progress, good)
        number = len(progress.history) + 1
        raise Diverged(
            f"the loss became NaN or infinite in step {self.plan.name!r}, epoch {number}: "
            f"{cause}; the last good model is kept; {self.plan.remedy}"
        )


@eqx.filter_jit
def _all_finite(model: Model) -> jax.Array:
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def all_finite(model: Model) -> bool:
    """True if every parameter is a finite number."""
    return bool(_all_finite(model))


def with_something(model: Model) -> Model:
    """A model of the same shapes that holds a specimen, for checks before there is one."""
    return replace(model, specimen=model.specimen.map_stacks(jnp.ones_like))
