"""Stages of epochs of steps: the loop around `make_step` that a job describes."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..analysis import verdict
from ..analysis.fit import fit_sums
from ..cli.errors import Diverged
from ..data import Batch, Dataset, at_hand, prefetch, split, stacked
from ..distributed import device_cache as resident
from ..distributed.multihost import added, local, part, whole
from ..distributed.sharding import copied, distribute, keep, mesh, on_the_host, over_shots, place, restored
from ..distributed.slabs.batching import deal, homed
from ..distributed.slabs.layout import fitted, require_lent
from ..inverse.constraints.registry import wants_model
from ..inverse.step import init_state, make_step, owned
from ..jobs import build
from ..jobs.schema import Job
from ..jobs.tomogram_schema import TomogramJob
from ..model import Model
from . import diagnose, passes
from .diagnose import require_finite, require_held
from .progress import Watch


class Row(NamedTuple):
    """One line of the history; losses are means over shots [quanta per shot]."""

    epoch: int  # from 1, over all stages
    stage: str
    loss: float
    held_out: float | None
    seconds: float


@dataclass
class Progress:
    """How far a run has come: all that is needed to go on as if nothing had happened."""

    model: Model
    state: Any = None  # of the optimiser; None before a stage begins
    stage: int = 0
    epoch: int = 0  # of the stage
    losses: list[tuple[float, float]] = field(default_factory=list)  # loss and shots of the batches done in this epoch
    home: list[np.ndarray] = field(default_factory=list)  # slab of every shot, of every view, where this epoch began
    seconds: float = 0.0  # spent on this epoch
    history: list[Row] = field(default_factory=list)
    begun: Model | None = None  # as the stage found it, where one of its constraints looks back at it


class Tools(NamedTuple):
    """What one stage computes with."""

    step: Callable
    loss: Callable  # compiled, for the held-out shots
    objective: Callable
    constraints: list  # after epochs


@dataclass
class Loop:
    """A job on its data; `stop()` says why to stop, or None; `start()` makes the model that it starts from.

    `between(model, stage, epoch)` is the model as an epoch hands it on, and whether its optimiser begins anew;
    `filled(stage)` says whether there is anything in the specimen when a stage begins, where that is not known yet.
    `hand_over(model, stage)` keeps what a stage is handed, `entered(model, stage)` is what the stage makes of it.
    """

    job: Job | TomogramJob
    data: Dataset
    watch: Watch
    start: Callable[[], Model]
    between: Callable[[Model, int, int], tuple[Model, bool]] = lambda model, stage, epoch: (model, False)
    filled: Callable[[int], bool] = lambda stage: stage > 0
    hand_over: Callable[[Model, int], None] = lambda model, stage: None
    entered: Callable[[Model, int], Model] = lambda model, stage: model
    stop: Callable[[], str | None] = lambda: None
    after_epoch: Callable[[Progress], None] = lambda progress: None

    def run(self, progress: Progress) -> str:
        """Why it ended; `progress` is moved on in place, and is the last good one if the run diverges."""
        require_finite(progress.model)
        self.watch.begin(self.job, sum(map(len, self.learn)), len(progress.history))
        while True:
            stage = self.job.stage[progress.stage]
            progress.model = place(progress.model, self.devices)
            if progress.begun is None and self.looks_back(progress.stage):
                progress.begun = owned(progress.model)
            tools = self.tools(progress.stage, progress.model if progress.begun is None else local(progress.begun))
            state = progress.state
            state = self.first_state(progress.stage, progress.model) if state is None else state
            progress.state = place(state, self.devices, progress.model)
            while progress.epoch < stage.epochs:
                if why := self.stop():
                    return why
                self.epoch(tools, progress)
            if progress.stage + 1 == len(self.job.stage):
                return "finished"
            progress.stage, progress.epoch, progress.state, progress.begun = progress.stage + 1, 0, None, None
            model = build.change_model(self.job.stage[progress.stage], progress.model)
            self.hand_over(model, progress.stage)
            progress.model = owned(self.entered(model, progress.stage))

    def epoch(self, tools: Tools, progress: Progress) -> None:
        """The rest of an epoch, or as much of it as `stop` lets pass."""
        if not progress.losses:
            progress.home = self.homed(progress.model)
        began, good = time.monotonic(), self._snapshot(progress)
        fetched = []
        with contextlib.closing(
            prefetch(self._stacked(self.batches_left(progress), self.steps(progress.stage)))
        ) as ready:
            for batch in ready:
                together = self._whole(batch)
                progress.model, progress.state, info = tools.step(progress.model, progress.state, together)
                fetched.append((info, batch.weight.sum(-1)))
                self.watch.batch(float(batch.weight.sum()) * jax.process_count())
                if self.stop():
                    break
        infos = jax.device_get([info for info, _ in fetched])
        shots = added(np.concatenate([np.zeros(0), *(np.atleast_1d(own) for _, own in fetched)]))  # of all processes
        losses = np.concatenate([np.zeros(0), *(np.atleast_1d(info["loss"]) for info in infos)])
        progress.losses += zip(losses.tolist(), shots.tolist(), strict=True)
        over = len(progress.losses) == self.steps(progress.stage)
        if over:
            for constraint, project in tools.constraints:
                progress.model = project(progress.model) if constraint.due(progress.epoch) else progress.model
            progress.model, anew = self.between(progress.model, progress.stage, progress.epoch)
            state = self.first_state(progress.stage, progress.model) if anew else progress.state
            progress.model, progress.state = place((progress.model, state), self.devices, progress.model)
        if not (all(np.all(i["finite"]) for i in infos) and finite(progress.model)):
            self._diverged(tools, progress, good)
        self._still_inside(progress, good)
        held_out = self.held_out(tools, progress.model) if over else None
        progress.seconds += time.monotonic() - began
        if over:
            self._close(progress, held_out)

    def _close(self, progress: Progress, held_out: float | None) -> None:
        losses, shots = np.array(progress.losses).T
        number = len(progress.history) + 1
        stage = self.job.stage[progress.stage].name
        row = Row(number, stage, float(np.average(losses, weights=shots)), held_out, progress.seconds)
        progress.history.append(row)
        progress.epoch, progress.losses, progress.seconds = progress.epoch + 1, [], 0.0
        self.watch.epoch(row)
        self.after_epoch(progress)

    def first_model(self, stage: int = 0, slabs: int | None = None) -> Model:
        """The model that the job starts from, with the slices and modes that it has in `stage`, for the job's slabs or
        others."""
        with on_the_host():  # a specimen too large for one device is not to pass through one
            model = self.start()
            for number, earlier in enumerate(self.job.stage[: stage + 1]):
                model = self.entered(build.change_model(earlier, model), number)
            return owned(fitted(model, slabs or self.job.run.slabs))

    def first_state(self, stage: int, model: Model) -> Any:
        """The optimiser's first state in `stage`, its arrays where those of the model are."""
        return init_state(build.build_optimiser(self.job.stage[stage], self.steps(stage)), model)

    def check(self) -> None:
        """Raises ValueError for what does not fit together, before anything is computed."""
        for stage in range(len(self.job.stage)):
            model = self.first_model(stage)
            if self.job.run.slabs > 1:
                require_lent(model)
            self.tools(stage, something(model) if self.filled(stage) else model)
            eqx.filter_eval_shape(partial(self.first_state, stage), model)

    def batches_left(self, progress: Progress):
        """The batches of the current epoch, less those already done; decided by seed and epoch alone."""
        stage = self.job.stage[progress.stage]
        before = sum(s.epochs for s in self.job.stage[: progress.stage])
        seed, epoch = self.job.run.seed, before + progress.epoch
        chosen = {"order": stage.order, "seed": seed, "first_epoch": epoch, "shots": self.learn}
        return islice(self._deal(progress.home, stage.batch, **chosen), len(progress.losses), None)

    def homed(self, model: Model) -> list[np.ndarray]:
        """The slab of every shot of every view."""
        return homed(model, self.data.n_shots, self.devices)

    def _deal(self, home: list[np.ndarray], size: int, **chosen):
        data = self.data if self.table is None else self.data.indexed()
        return deal(data, size, home=home, mesh=self.devices, part=part(), **chosen)

    def _stacked(self, drawn, steps: int):
        """The batches of an epoch of so many `steps` in stacks, large ones where a batch carries no patterns."""
        return stacked(drawn) if self.table is None else resident.in_calls(drawn, steps)

    def _whole(self, batch: Batch) -> Batch:
        return resident.attached(whole(batch, self.devices), self.table)

    def held_out(self, tools: Tools, model: Model) -> float | None:
        """Mean loss of the shots kept aside, None without any."""
        if not any(map(len, self.held)):
            return None
        found = self._over(self.held, lambda batch: (tools.loss(model, batch), batch.weight.sum()), model)
        losses, shots = zip(*found, strict=True)
        return float(np.average(np.asarray(losses, float), weights=shots))

    def fit(self, model: Model) -> dict[str, float]:
        """How well the model explains all patterns, and with which chi2 those kept aside (`analysis.fit`)."""
        sums = eqx.filter_jit(lambda m, b: over_shots(fit_sums, self.devices)(m, at_hand(b)))
        return passes.fit(self.data, self.held, lambda shots: self._over(shots, partial(sums, model), model))

    def verdict(self, model: Model, history: list[Row]) -> verdict.Verdict:
        """Verdict about a model of this job, the same in all processes (`analysis.verdict`)."""
        compiled = eqx.filter_jit(lambda f, m, b: over_shots(f, self.devices)(m, at_hand(b)))
        nothing = [np.zeros(0, int)] * self.data.n_views

        def sums(function, view: int, shots: np.ndarray) -> np.ndarray:
            batches = [*nothing[:view], shots, *nothing[view + 1 :]]
            found = self._over(batches, partial(compiled, function, model), model)
            return np.sum([np.asarray(own, float) for own in found], 0)

        return verdict.conclude(verdict.evidence(self.data, self.learn, self.held, sums), history)

    def _over(self, shots: list[np.ndarray], function: Callable[[Batch], Any], model: Model) -> list:
        """`function` of batches of all these shots, which each process reads a part of."""
        if not any(map(len, shots)):
            return []
        size = min(passes.SIZE, max(map(len, shots)))
        drawn = self._deal(self.homed(model), size, order="compact", shots=shots)
        return passes.over(drawn, lambda batch: function(self._whole(batch)))

    def done(self, progress: Progress) -> int:
        """Batches since the run began."""
        stages = range(progress.stage)
        before = sum(self.steps(stage) * self.job.stage[stage].epochs for stage in stages)
        return before + self.steps(progress.stage) * progress.epoch + len(progress.losses)

    def steps(self, stage: int) -> int:
        """Batches in an epoch of a stage."""
        return sum(-(-len(mine) // min(self.job.stage[stage].batch, len(mine))) for mine in self.learn if len(mine))

    def looks_back(self, number: int) -> bool:
        """Whether a constraint of the stage is made from the model that the stage starts from."""
        return any(wants_model(term.kind) for term in self.job.stage[number].constraint)

    def tools(self, number: int, begun: Model) -> Tools:
        """Everything that one stage computes with, which starts from the model `begun`."""
        stage = self.job.stage[number]
        loss = distribute(build.build_loss(stage, self.job.run.budget_gib), self.devices)
        penalty = build.build_penalty(stage)
        after_step, after_epoch = build.build_constraints(stage, begun)
        return Tools(
            step=make_step(
                loss, build.build_optimiser(stage, self.steps(number)), keep(after_step, self.devices), penalty
            ),
            loss=eqx.filter_jit(lambda m, b: loss(m, at_hand(b))),
            objective=lambda m, b: loss(m, at_hand(b)) + (0.0 if penalty is None else penalty(m)),
            constraints=after_epoch,
        )

    @cached_property
    def devices(self):
        return mesh(self.job.run.devices, self.job.run.slabs)

    @cached_property
    def table(self) -> jax.Array | None:
        """All patterns, where they fit on every device; else batches are streamed."""
        return resident.table(self.data, self.devices)

    @cached_property
    def _split(self):
        return split(self.data, self.job.data.hold_out, self.job.run.seed)

    @property
    def learn(self):
        """Shots of every view that the model learns from."""
        return self._split[0]

    @property
    def held(self):
        """Shots of every view kept aside."""
        return self._split[1]

    def leave_out(self, views) -> None:
        """Learns nothing more from these views, nor holds their shots against the rest."""

        def left(half):
            return [own[:0] if view in views else own for view, own in enumerate(half)]

        self._split = left(self.learn), left(self.held)

    def _snapshot(self, progress: Progress) -> Progress:
        model, state = copied((progress.model, progress.state))
        return replace(progress, model=model, state=state, losses=list(progress.losses))

    def _back_to(self, good: Progress, progress: Progress) -> None:
        progress.model, progress.state = restored((good.model, good.state))
        progress.losses = good.losses

    def _still_inside(self, progress: Progress, good: Progress) -> None:
        """Stops at the last good model when refined positions or angles leave what is held of the object."""
        try:
            require_held(progress.model, self.data.n_views, self.job.run.slabs)
        except ValueError as error:
            self._back_to(good, progress)
            where = f"stage {self.job.stage[progress.stage].name!r}, epoch {len(progress.history) + 1}"
            raise Diverged(f"in {where} {error}") from error

    def _diverged(self, tools: Tools, progress: Progress, good: Progress):
        stage, number = self.job.stage[progress.stage], len(progress.history) + 1
        self._back_to(good, progress)
        left = (self._whole(batch) for batch in self.batches_left(progress))
        parts, used = tuple(stage.rates), {stage.optimiser, *(rate.optimiser or "" for rate in stage.rates.values())}
        cause = diagnose.culprit(tools.step, tools.objective, parts, progress.model, progress.state, left)
        self._back_to(good, progress)
        raise Diverged(
            f"the loss became NaN or infinite in stage {stage.name!r}, epoch {number}: {cause}; the last good model is "
            f"kept; {diagnose.advice(used, parts)}"
        )


def something(model: Model) -> Model:
    """A model of the same shapes that holds a specimen, for checks before there is one."""
    return replace(model, specimen=model.specimen.map_stacks(jnp.ones_like))


@eqx.filter_jit
def _all_finite(model):
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def finite(model: Model) -> bool:
    """Whether every parameter is a number."""
    return bool(_all_finite(model))
