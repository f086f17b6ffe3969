"""Step `refine`: epochs of optimiser steps on the patterns themselves."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import optax

from ...distributed.multihost import local, run_on_rank0
from ...distributed.sharding import on_the_host, place_on_mesh
from ...distributed.slabs.layout import fitted, require_lent
from ...inverse.adjustable import adjustable
from ...inverse.automatic import MODES, late, modes_to_try
from ...inverse.geometry_numbers import DEFOCUS, SCAN
from ...inverse.step import copy_for_donation, init_state
from ...model import Model
from ...runs import checkpoints
from ...runs.batch_source import BatchSource
from ...runs.loop import Loop, with_something
from ...runs.refinement import Refinement
from ...runs.state import Diverged, Progress, State, Stopped
from ...start.position_search import require_searchable
from ...start.reslice import with_modes, with_slices
from ...tomography.poses import BUDGET, refine_poses, reset_volume, without_drift
from ..calibration import (
    CALIBRATION,
    append_numbers,
    calibrate_model,
    describe_calibration,
    require_calibrated,
)
from ..context import Context, Step
from ..optimisation import (
    AUTO,
    Optimisation,
    build_constraints,
    build_loss,
    build_optimiser,
    build_penalty,
)
from ..schema import key

LONG = 10  # epochs that a step may take, so that a model that explains little had its time
LITTLE = 0.8  # of the variation between patterns; sound scans reach 0.89 and more


class RefineStep(Optimisation, Step):
    """Refine all parts from the patterns; each such step starts from the result of the last."""

    kind: Literal["refine"]
    slices: int | None = key("change the number of slices", None, 4, ge=1)
    modes: int | None = key(
        "change the number of probe modes; default: with automatic rates and a probe of one, "
        f"{' or '.join(map(str, MODES))} if trials show a clearly lower held-out loss",
        None,
        3,
        ge=1,
    )
    poses: Literal["nominal", "shifts", "all"] = key(
        "poses of views that a Newton step refines after every epoch: nominal (none), shifts "
        "while they are poor, then all",
        "nominal",
    )
    pose_shots: int = key("patterns of every view for its Newton step", 48, ge=1)
    calibration: list[str] = key(
        "numbers of the geometry that a Gauss–Newton step refines between epochs: "
        f"{', '.join(SCAN)}, {DEFOCUS}, or a path such as probe.semiangle, detector.shift",
        [],
    )
    calibration_every: int = key(
        "interval of these steps in epochs; each costs about 100 passes over its patterns, the "
        "first and the last more, for the errors",
        10,
        ge=1,
    )
    calibration_shots: int = key("neighbouring patterns that such a step uses", 400, ge=9)
    reset_volume: bool = key(
        "begin with an empty volume after every epoch, so that it does not keep errors of the "
        "poses",
        False,
    )

    def summary(self) -> str:
        batches = "" if self.batch is None else f", batches of {self.batch}"
        course = "at most " if self.automatic else ""
        parts = "all parts" if self.rates == AUTO else ", ".join(self.rates)
        return (
            f"{course}{self.epochs} epochs of {self.optimiser}, {self.loss.kind} loss{batches}, "
            f"refines {parts}"
        )

    def changed(self, model: Model) -> Model:
        """Model of the step before, with the slices and modes of this one."""
        model = model if self.slices is None else with_slices(model, self.slices)
        return model if self.modes is None else with_modes(model, self.modes)

    def begin(self, model: Model | None, context: Context) -> Model:
        """The model that the step starts from; the first of the run for None."""
        model = context.first_model() if model is None else model
        with on_the_host():  # a specimen too large for one device does not pass through one
            return self.changed(model)

    def plan(self, model: Model, context: Context, source: BatchSource) -> Refinement:
        """Loss, optimiser and constraints of the step, which starts from `model`."""
        after_step, projections = build_constraints(self, model)
        parts = tuple(self.rates_of(model))
        return Refinement(
            loss=build_loss(self, context.job.run.budget_gib),
            optimiser=build_optimiser(self, model, self.steps_per_epoch(source)),
            epochs=self.epochs,
            batch=self.batch_of(source.shots_per_epoch),
            parts=parts,
            rates=self.known_rates(parts),
            automatic=self.automatic,
            tied=self.ties(model),
            compares=not self.reset_volume,
            late=late(parts) if self.automatic else {},
            modes=self._modes_to_try(model),
            order=self.order,
            penalty=build_penalty(self),
            after_step=_reducing(after_step, model),
            after_epoch=self._after_epoch(projections, context, source),
            name=self.name,
            remedy=self.remedy,
        )

    def _modes_to_try(self, model: Model) -> tuple[int, ...]:
        fixed = self.modes is not None or self.needs_first_model or not self.automatic
        return () if fixed else modes_to_try(model)

    def steps_per_epoch(self, source: BatchSource) -> int:
        """Number of batches of an epoch."""
        return source.steps_per_epoch(self.batch_of(source.shots_per_epoch))

    def _after_epoch(self, projections: list, context: Context, source: BatchSource) -> Callable:
        run = context.job.run
        budget = BUDGET if run.budget_gib is None else min(BUDGET, run.budget_gib * 2**30)

        def change(model: Model, epoch: int) -> tuple[Model, bool]:
            for term, project in projections:
                model = project(model) if term.due(epoch) else model
            if self.poses != "nominal":
                seed = (epoch, run.seed)
                moved = refine_poses(
                    model, source.data, self.poses, self.pose_shots, seed, source.learn, budget
                )
                model = copy_for_donation(without_drift(moved, model))
            if self.calibration and self._calibrates(epoch):
                model = self._calibrated(model, epoch, context, source)
            if self.reset_volume:
                model = copy_for_donation(reset_volume(model))
            return model, self.reset_volume

        return change

    def _calibrated(self, model: Model, epoch: int, context: Context, source: BatchSource) -> Model:
        seed = (epoch, context.job.run.seed)
        first = epoch < self.calibration_every
        last = epoch + self.calibration_every >= self.epochs
        parts = tuple(self.rates_of(model))
        count = self.calibration_shots
        new, numbers = calibrate_model(
            model, source, self.calibration, parts, count, seed, first or last
        )
        context.listener.say(
            f"calibration after epoch {epoch + 1}: {describe_calibration(numbers)}"
        )
        write = partial(append_numbers, context.run / CALIBRATION, self.name, epoch + 1, numbers)
        run_on_rank0(write)
        return new

    def _calibrates(self, epoch: int) -> bool:
        """True if a step of the geometry follows this epoch; at least the last of a short step."""
        every = min(self.calibration_every, self.epochs)
        return (epoch + 1) % every == 0

    def preview(self, model: Model | None, context: Context) -> Model | None:
        if context.job.scan.error_angstrom is not None:
            require_searchable(context.data)
        model = split_into_slabs(self.begin(model, context), context)
        if self.poses != "nominal" and not model.specimen.rotates:
            raise ValueError(
                f"step.{context.number}.poses = {self.poses!r} came with a specimen that does not "
                'rotate; set poses = "nominal", or specimen.kind = "volume" for a tilt series'
            )
        if self.calibration:
            require_calibrated(model, context.source, self.calibration, tuple(self.rates_of(model)))
        if context.job.run.slabs > 1:
            require_lent(model)
        checkpoints.require_countable(self.steps_per_epoch(context.source) * self.epochs)
        self.first_state(model, context)
        self.plan(model, context, context.source)
        if self.reset_volume:
            return reset_volume(model)
        return with_something(model) if model.specimen.held else model

    def first_state(self, model: Model, context: Context) -> Any:
        """Shapes of the first state of the optimiser."""
        optimiser = self._optimiser(model, context.source)
        return eqx.filter_eval_shape(partial(init_state, optimiser), model)

    def _optimiser(self, model: Model, source: BatchSource) -> optax.GradientTransformation:
        optimiser = build_optimiser(self, model, self.steps_per_epoch(source))
        return adjustable(optimiser, tuple(self.rates_of(model)), self.ties(model))

    def run(self, state: State, context: Context) -> State:
        reached = self._refined(state, context)
        if state.model is not None or not self._doubts_positions(reached, context):
            return reached
        context.listener.say(
            f"step {self.name!r} explains too little; are the positions wrong by pixels? Every "
            'shot is searched for (scan.search = "off" prevents it)'
        )
        if not context.search_positions():
            context.listener.say("the recorded positions are kept: no others fit better")
            return reached
        context.listener.say(f"step {self.name!r} begins again at the positions found")
        return self._refined(replace(state, history=reached.history), context)

    def _doubts_positions(self, reached: State, context: Context) -> bool:
        """True if a model of recorded positions, which had time, explains little that varies."""
        model = reached.model
        settled = self.automatic and self.epochs >= LONG and context.searches
        if model is None or not settled or "scan" not in self.rates_of(model):
            return False
        found = context.source.verdict(model, list(reached.history)).evidence
        return found.varies and found.share_at_most < LITTLE

    def _refined(self, state: State, context: Context) -> State:
        """The state after all epochs."""
        if state.model is None:
            context.find_scan()
        source = context.source.without(state.left_out)
        first = self.begin(state.model, context)
        progress = checkpoints.restore_progress(
            context.checkpoints, context.number, first, partial(self._template, source), source
        )
        if progress is None:
            begun = place_on_mesh(split_into_slabs(first, context), source.devices)
            progress = Progress(begun, history=list(state.history))
        if progress.begun is None and self.needs_first_model:
            progress.begun = copy_for_donation(progress.model)
        refers_to = first if progress.begun is None else local(progress.begun)
        plan = self.plan(refers_to, context, source)
        patterns = source.shots_per_epoch
        context.listener.begin(self.name, context.epochs, patterns, len(progress.history))
        chosen = {"tied": plan.tied, "passive": self.keeps_passive}

        def on_rates(rates: Mapping[str, float], modes: int | None) -> None:
            tried = {} if modes is None else {"modes": modes}
            context.write_found(context.number, chosen | tried | {"found": dict(rates)})

        loop = Loop(plan, source, context.listener, context.stop, context.on_epoch, on_rates)

        def reached() -> State:
            return replace(state, model=loop.result(progress), history=tuple(progress.history))

        def keep() -> None:
            number = progress.epoch * loop.steps + len(progress.losses)
            checkpoints.save_progress(context.checkpoints, context.number, number, progress, source)

        loop.on_epoch = partial(self._epoch_over, loop.on_epoch, keep, context)
        try:
            why = loop.run(progress)
        except Diverged as error:
            keep()
            error.state = reached()
            raise
        keep()
        if why is not None:
            raise Stopped(why, reached())
        return reached()

    def _epoch_over(
        self, follow: Callable, keep: Callable, context: Context, progress: Progress
    ) -> None:
        follow(progress)
        if len(progress.history) % context.job.run.checkpoint_every == 0:
            keep()

    def _template(self, source: BatchSource, model: Model) -> dict[str, Any]:
        """The tree of a checkpoint from which the step continues with a model such as `model`."""
        optimiser = self._optimiser(model, source)
        begun = {"begun": model} if self.needs_first_model else {}
        return {"model": model, "state": init_state(optimiser, model)} | begun


def split_into_slabs(model: Model, context: Context) -> Model:
    """A copy of the model that falls into the slabs of the run."""
    with on_the_host():
        return copy_for_donation(fitted(model, context.job.run.slabs))


def shapes(tree: Any) -> list[str]:
    """Names and shapes of the arrays of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f"{jax.tree_util.keystr(path)} {leaf}" for path, leaf in leaves]


def _reducing(project: Callable[[Model], Model], model: Model) -> Callable[[Model], Model]:
    """The projection after a step, which also reduces a scan whose numbers are redundant."""
    if not model.scan.redundant:
        return project
    return lambda moved: project(replace(moved, scan=moved.scan.reduced()))
