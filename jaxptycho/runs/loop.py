"""Epochs of optimiser steps: the loop around `make_step`."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from ..data import materialize, prefetch
from ..distributed.multihost import allreduce_sum
from ..distributed.sharding import distribute, keep_sharding, place_on_mesh, restore, snapshot
from ..inverse.adjustable import adjust, adjustable
from ..inverse.alike import made_once
from ..inverse.step import init_state, make_step
from ..model import Model
from ..parts.branches import on_main_branch, share_past_pi
from . import diagnose
from .batch_source import BatchSource
from .course import LOWER, MAX_RESTARTS, Course, advance, changes, diverges, extended, restarted
from .diagnose import all_finite, require_finite, require_held
from .held_out import GROUPS, NeighbourSums, clearly_lower, interpolated, interpolation
from .progress import ProgressListener
from .range_test import MIN_TRIAL, TRIAL, describe_rates, find_rate
from .refinement import Refinement
from .state import Diverged, Progress, Row

START = Course({}, False)  # of a step that has not begun
FEWEST_JUDGES = 4  # held-out shots; by fewer, chance decides which model is the best
TIED_SHARE = 0.75  # of the greatest fall of the loss, which the rate of tied slices has to reach


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
    on_rates: Callable[[Mapping[str, float], int | None], None] = lambda rates, modes: None

    def run(self, progress: Progress) -> str | None:
        """Move `progress` on in place; return the reason to stop, None at the end.

        Raises Diverged, with the last good model in `progress`.
        """
        require_finite(progress.model)
        progress.model = place_on_mesh(progress.model, self.devices)
        state = progress.state
        state = init_state(self._optimiser, progress.model) if state is None else state
        progress.state = place_on_mesh(state, self.devices, progress.model)
        if progress.course is not None:
            progress.course = extended(progress.course, self.plan.epochs)
        while progress.epoch < self.plan.epochs and not (progress.course or START).over:
            if why := self.stop():
                return why
            if progress.course is None:
                progress.course = self._begin(progress)
            self.epoch(progress)
        self._report(progress)
        return None

    def result(self, progress: Progress) -> Model:
        """The model of the least held-out loss so far, of all epochs and the one given."""
        model = progress.model if progress.best is None else restore(progress.best)
        if share_past_pi(model.specimen, model.grid) == 0:
            return model
        return replace(model, specimen=on_main_branch(model.specimen, model.grid))

    def _begin(self, progress: Progress) -> Course:
        """The course of the step, with the rates that a range test finds."""
        plan = self.plan
        project = made_once(eqx.filter_jit, keep_sharding(plan.after_step, self.devices))
        progress.model = project(progress.model)  # a result even if no epoch improves it
        progress.home = self.source.home(progress.model)
        first = self._judged(progress.model) if plan.compares else None
        rates = {part: plan.rates.get(part, 1.0) for part in plan.parts}
        known = math.inf if first is None else first
        tied = plan.automatic and plan.tied
        course = Course(rates, plan.automatic, known, known, gained=known, tied=tied)
        if not plan.automatic or plan.rates:
            return course
        good = self._snapshot(progress)
        share = TIED_SHARE if tied else 1.0
        trial = partial(self._trial, progress, good, course)
        factor, tried = find_rate(trial, known, share)
        self._restore(progress, good)
        found = {part: factor * rate for part, rate in rates.items()}
        self.listener.say(f"range test of step {plan.name!r}: {describe_rates(factor, tried)}")
        course = course._replace(rates=found)
        tries = plan.modes and plan.compares and self._judges
        modes = self._choose_modes(progress, course) if tries else None
        self.on_rates(found, modes)
        if modes in (None, 1):
            return course
        first = self._held_out(progress.model) or math.inf
        return course._replace(first=first, best=first, gained=first)

    def _choose_modes(self, progress: Progress, course: Course) -> int:
        """The number of probe modes, 1 or one of the plan's, that short trials speak for.

        The model in `progress` is given as many.
        """
        chosen = 1
        given = self._snapshot(progress)
        before = self._losses_after_trial(progress, given, course)
        for modes in self.plan.modes:
            model = restore(given.model)
            model = replace(model, probe=model.probe.with_modes(modes))
            both = model, init_state(self._optimiser, model)
            progress.model, progress.state = place_on_mesh(both, self.devices, model)
            more = self._snapshot(progress)
            after = self._losses_after_trial(progress, more, course)
            better = clearly_lower(after, before)
            verb = "are" if better else "are not"
            self.listener.say(
                f"step {self.plan.name!r}: {modes} probe modes {verb} taken: held-out loss of a "
                f"trial {np.mean(after):.5g}, with {chosen} {np.mean(before):.5g}"
            )
            if not better:
                break
            chosen, given, before = modes, more, after
        self._restore(progress, given)
        return chosen

    def _losses_after_trial(
        self, progress: Progress, good: Progress, course: Course
    ) -> Float[np.ndarray, " group"]:
        """Losses of groups of held-out shots after a few steps at the rates of the course."""
        if not math.isfinite(self._trial(progress, good, course, course.level)):
            return np.full(GROUPS, math.inf)
        groups = min(GROUPS, sum(map(len, self.source.held)))
        return self.source.held_out_losses(self._loss, progress.model, groups)

    def _trial(self, progress: Progress, good: Progress, course: Course, rate: float) -> float:
        """Loss after a few steps at a common rate, infinite if it is no number.

        The rate does not fall: where it did, data of low dose would be given a rate too high.
        """
        self._restore(progress, good)
        count = min(self.steps, max(MIN_TRIAL, round(TRIAL * self.steps)))
        level = course._replace(level=rate)
        progress.state = self._adjusted(progress.state, level, progress.epoch)
        batches = islice(self._batches(progress), count)
        finite = self._steps(progress, batches)
        losses = [loss for loss, _ in progress.losses]
        progress.losses = []
        if not (finite and all_finite(progress.model)):
            return math.inf
        held_out = self._judged(progress.model)
        return float(np.mean(losses[-MIN_TRIAL:])) if held_out is None else held_out

    def _adjusted(self, state: Any, course: Course, epoch: int) -> Any:
        """The optimiser's state with the rates of an epoch."""
        late = self.plan.late
        rates = {p: 0.0 if epoch < late.get(p, 0) else r for p, r in course.rates.items()}
        return adjust(state, rates, course.level, course.fall / self.steps, course.tied)

    def epoch(self, progress: Progress) -> None:
        """Work off the rest of an epoch, or as much of it as `stop` allows."""
        if progress.course is None:
            progress.course = self._begin(progress)
        if not progress.losses:
            progress.home = self.source.home(progress.model)
            progress.state = self._adjusted(progress.state, progress.course, progress.epoch)
        began = time.monotonic()
        good = self._snapshot(progress)
        if progress.best is None:
            progress.best = good.model  # of the steps that follow none is known to be better
        finite = self._steps(progress, self._batches(progress))
        over = len(progress.losses) == self.steps
        if over:
            if self._interpolation is not None:
                progress.model = interpolated(progress.model, self._interpolation)
            progress.model, reset = self.plan.after_epoch(progress.model, progress.epoch)
            state = progress.state
            state = init_state(self._optimiser, progress.model) if reset else state
            both = progress.model, state
            progress.model, progress.state = place_on_mesh(both, self.devices, progress.model)
        if not (finite and all_finite(progress.model)):
            self._diverged(progress, good)
            return
        self._require_inside(progress, good)
        held_out = self._held_out(progress.model) if over else None
        progress.seconds += time.monotonic() - began
        if over:
            self._close(progress, held_out)

    def _steps(self, progress: Progress, batches: Iterator) -> bool:
        """Take the steps of `batches`; return whether all losses are finite."""
        fetched = []
        stacks = self.source.stacks(batches, self.steps)
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
        judge = held_out if self._judges else None
        if self.plan.compares and (judge is not None or self.plan.automatic):
            self._advance(progress, loss if judge is None else judge)
        else:
            progress.best = None  # nothing shows which model is the best
        self.listener.epoch(row)
        self.on_epoch(progress)

    def _advance(self, progress: Progress, loss: float) -> None:
        """Keep the best model, and go on from it where the course says so."""
        course = progress.course
        assert course is not None  # since the first epoch
        if course.automatic and diverges(course, loss):
            self._restart(progress, f"the loss rose to {loss:.4g} from {course.best:.4g}")
            return
        progress.course, back = advance(course, loss, progress.epoch, self.plan.epochs)
        if progress.course.best_epoch == progress.epoch:
            progress.best = None
        elif back:  # with the optimiser's knowledge of the size of gradients
            progress.model = restore(progress.best)
        for change in changes(course, progress.course, progress.epoch):
            self.listener.say(f"step {self.plan.name!r}: {change}")

    def _restart(self, progress: Progress, why: str) -> bool:
        """Go on from the best model with lower rates; False if that was tried often enough."""
        course = progress.course
        assert course is not None  # since the first epoch
        if course.restarts == MAX_RESTARTS:
            return False
        progress.model = restore(progress.best)
        state = init_state(self._optimiser, progress.model)
        progress.state = place_on_mesh(state, self.devices, progress.model)
        progress.losses = []
        progress.course = restarted(course)
        self.listener.say(
            f"step {self.plan.name!r}, epoch {len(progress.history) + 1}: {why}; it goes on from "
            f"the best model with {LOWER:g} of the rates"
        )
        return True

    def _report(self, progress: Progress) -> None:
        """Say which model is the result, if it is not the last, and what is corrected in it."""
        model = progress.model if progress.best is None else restore(progress.best)
        if share := share_past_pi(model.specimen, model.grid):
            self.listener.say(
                f"step {self.plan.name!r}: the phase of a slice passes ±π in {100 * share:.2g} % "
                "of the pixels and is brought back by 2π, which leaves the patterns as they are; "
                'take specimen.kind = "complex", which returns through 0, or more specimen.slices'
            )
        course = progress.course
        if course is None or progress.best is None:
            return
        origin = (
            f"that of epoch {course.best_epoch}" if course.best_epoch else "the one it began with"
        )
        self.listener.say(
            f"step {self.plan.name!r}: the model of the least held-out loss, {course.best:.6g}, is "
            f"{origin}, and is the result"
        )

    def _held_out(self, model: Model) -> float | None:
        return self.source.held_out_loss(self._loss, model)

    def _judged(self, model: Model) -> float | None:
        """The held-out loss, where it tells models apart."""
        return self._held_out(model) if self._judges else None

    @property
    def _judges(self) -> bool:
        """True if enough shots are held out to tell models apart."""
        return sum(map(len, self.source.held)) >= FEWEST_JUDGES

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
    def _interpolation(self) -> NeighbourSums | None:
        """NeighbourSums of the held-out shots of a scan of one view."""
        source = self.source
        if source.data.n_views > 1 or not len(source.held[0]):
            return None
        return interpolation(source.data, source.learn[0], source.held[0])

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
        return made_once(_compiled_loss, self._distributed)

    @cached_property
    def _step(self) -> Callable:
        plan = self.plan
        after = keep_sharding(plan.after_step, self.devices)
        return make_step(self._distributed, self._optimiser, after, plan.penalty)

    @cached_property
    def _optimiser(self) -> optax.GradientTransformation:
        return adjustable(self.plan.optimiser, self.plan.parts, self.plan.tied)

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
        """Go on at lower rates; raise Diverged with the cause once these do not help."""
        if self._restart(progress, "the loss became NaN or infinite"):
            return
        self._restore(progress, good)
        left = map(self.source.complete, self._batches(progress))
        cause = diagnose.first_nonfinite(
            self._step, self._objective, self._optimiser, progress.model, progress.state, left
        )
        self._restore(progress, good)
        number = len(progress.history) + 1
        raise Diverged(
            f"the loss became NaN or infinite in step {self.plan.name!r}, epoch {number}: "
            f"{cause}; the last good model is kept; {self.plan.remedy}"
        )


def _compiled_loss(loss: Callable) -> Callable:
    return eqx.filter_jit(lambda model, batch: loss(model, materialize(batch)))


def with_something(model: Model) -> Model:
    """A model of the same shapes that holds a specimen, for checks before there is one."""
    return replace(model, specimen=model.specimen.map_stacks(jnp.ones_like))
