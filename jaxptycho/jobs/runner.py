"""Runner of jobs: every step in order, from the first that is not done."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.verdict import Verdict
from ..distributed.checkpoint import Checkpoints
from ..distributed.gather import gather_leaves, on_process_zero
from ..distributed.memory_plan import size_of
from ..distributed.multihost import agreed, run_on_rank0, sharing
from ..distributed.multihost import first as is_first
from ..distributed.sharding import mesh
from ..figures.plots import save
from ..figures.scan import write_figures
from ..figures.series import write_series_figures
from ..figures.summary import facts_of
from ..io.atomic_write import atomic_path
from ..io.provenance import hashing
from ..model import Model
from ..reports.calibration import PAGE
from ..reports.run import write_run_report
from ..runs import checkpoints
from ..runs.batch_source import BatchSource
from ..runs.folder import (
    LOG,
    hand_on,
    is_done,
    read_state,
    refuse_existing,
    require_run,
    step_folder,
    write_history,
    write_result,
)
from ..runs.progress import Listeners, ProgressListener, RunLog, SignalStopper
from ..runs.references import resolve
from ..runs.state import Diverged, Progress, Row, State, Stopped
from ..start.cautions import cautions
from ..tomography.series import off_axis
from .build import descan_statement, with_slice_count
from .changes import Reached, changed_job, require_applicable, require_files
from .context import Context, Step
from .job import Job
from .measurement import known_of, read_data
from .reading import beside
from .sections import with_keys
from .steps.refine import RefineStep, shapes, split_into_slabs
from .steps.views import read_views
from .writing import write_job

Stop = Callable[[], str | None]
MAX_BYTES_DRAWN = 2**33  # of a specimen that one host holds beside its figures


@dataclass
class Outcome:
    """Outcome of a run."""

    folder: Path
    why: str  # "finished", or what stopped it
    fit: dict[str, float]
    model: Model | None = field(repr=False)
    history: list[Row] = field(repr=False)
    verdict: Verdict | None = None  # None before the first epoch

    @property
    def finished(self) -> bool:
        return self.why == "finished"

    def summary(self) -> dict[str, str]:
        """Rows of a table: the file of the result, its epochs, its fit."""
        files = {"result": self.folder / "result.h5", "report": self.folder / PAGE}
        rows = {} if self.model is None else {name: str(path) for name, path in files.items()}
        rows["ended by"] = self.why
        if self.history:
            rows["epochs"] = str(len(self.history))
            rows["loss"] = f"{self.history[-1].loss:.5g}"
            rows["seconds"] = f"{sum(row.seconds for row in self.history):.1f}"
        # R may prefer a wrong geometry
        fit = sorted(self.fit.items(), key=lambda item: item[0] == "R")
        # dark pixels weigh most in Pearson's χ²; the verdict has the variation over counting noise
        return rows | {name: f"{value:.4f}" for name, value in fit if not name.endswith("chi2")}


def start(
    job: Job,
    folder: Path,
    listener: ProgressListener | None = None,
    stop: Stop | None = None,
    attach: Callable[[Path], None] = lambda folder: None,
) -> Outcome:
    """Start a run of `job` in `folder`, which must not exist yet, and return its outcome.

    `attach` writes what belongs to the run beside its job, before the first step.
    """
    with SignalStopper(job.run.wall_time_minutes) as stopper:  # active while the data are read
        run_on_rank0(partial(refuse_existing, folder))
        with Runner(job, folder, listener, stop, stopper) as runner:
            runner.check()  # before anything is written
            run_on_rank0(partial(_write_job, runner.job, folder))
            run_on_rank0(partial(attach, folder))
            return runner.run()


def resume(
    folder: Path,
    listener: ProgressListener | None = None,
    stop: Stop | None = None,
    settings: Sequence[str] = (),
) -> Outcome:
    """Continue an interrupted run to the result that it would have had; return its outcome.

    `settings` such as `step.0.epochs=80` change its job for the remaining work. Raises
    ValueError for one that does not apply any more.
    """
    require_run(folder)
    job, keys = changed_job(folder, settings)
    require_files(job, folder)
    with (
        SignalStopper(job.run.wall_time_minutes) as stopper,
        Runner(job, folder, listener, stop, stopper) as runner,
    ):
        if keys:
            before, _ = changed_job(folder, ())
            runner.require_applicable(keys, before)
            run_on_rank0(partial(_write_job, job, folder))
        return runner.run()


class Runner:
    """A job in the folder of its run."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        listener: ProgressListener | None = None,
        stop: Stop | None = None,
        stopper: SignalStopper | None = None,
    ):
        self.job = job
        self.folder = folder
        self.log = RunLog(folder / LOG) if is_first() else ProgressListener()
        self.listener = Listeners(listener or ProgressListener(), self.log)
        why = (stopper or SignalStopper()).why
        self.stop = agreed(lambda: (stop and stop()) or why())
        self.checkpoints = Checkpoints(folder / "checkpoints", job.run.checkpoints_kept)
        self.source: BatchSource | None = None
        self.first: Model | None = None  # before all steps, for figures
        self.cautions: list[str] = []  # about the measurement
        self.data_sha256: Future[str | None] | None = None  # of the file of the measurement
        self.found: dict[str, Any] = {}  # keys of a calibration that the job has taken
        if job.data.file is not None:
            self._read()

    def __enter__(self):
        return self

    def __exit__(self, *error: object):
        self.checkpoints.__exit__(*error)

    def check(self) -> Model | None:
        """Raise ValueError for contradictions, before anything is computed.

        Returns the model after the last step, as far as its shapes go.
        """
        model = None
        for number, step in enumerate(self.job.step):
            if self.source is None and not step.simulates:
                return None  # known once the measurement is simulated
            model = step.preview(model, self.context(number, step))
            if step.finds_keys:
                return None  # known once the measurement is calibrated
        return model

    def run(self) -> Outcome:
        """Every step that is not done; all is saved at the end, or at what stops it."""
        for caution in self.cautions:
            self.log.say(f"caution: {caution}")
        for name, words in self._descan().items():
            self.listener.say(f"{name} {words}")
        if self.source is not None:
            self._hash_data()
        state = State()
        try:
            with self.listener:
                for number, step in enumerate(self.job.step):
                    state = self._step(number, step, state)
            why = "finished"
        except Stopped as stopped:
            why = stopped.reason
            state = stopped.state
        except Diverged as error:
            self.log.say(f"diverged: {error}")
            self._save(error.state or state)
            raise
        self.log.say(f"ended by: {why}" if why != "finished" else why)
        return self._save(state, why)

    def _step(self, number: int, step: Step, state: State) -> State:
        context = self.context(number, step)
        if is_done(context.folder):
            views = read_views(context) or state.views
            state = read_state(context.folder, views)
            return self._follow(state)
        if number and (why := self.stop()):
            raise Stopped(why, state)
        self.log.say(f"step {number}: {step.summary()}")
        if number + 1 == len(self.job.step) and isinstance(step, RefineStep):
            return step.run(state, context)  # its checkpoint and the result hold the state
        run_on_rank0(partial(context.folder.mkdir, parents=True, exist_ok=True))
        return self._follow(hand_on(context.folder, step.run(state, context)))

    def _follow(self, state: State) -> State:
        """The state, whose measurement, where a step made one, is read."""
        if self.source is None and state.measurement is not None:
            data = self.job.data.model_copy(update={"file": str(state.measurement)})
            self.job = self.job.model_copy(update={"data": data})
            if not all(step.simulates for step in self.job.step):
                self._read()
                self._hash_data()
        if state.found != self.found:
            self.found = state.found
            self.job = with_keys(self.job, state.found)
            if not all(path.startswith("specimen.") for path in state.found):
                self._read()
        return state

    def _read(self) -> None:
        data = read_data(self.job, sharing())
        self.job = job = with_slice_count(self.job, data)
        self.cautions = [str(caution) for caution in cautions(data, known_of(job, job.slices))]
        if job.is_series and (aside := off_axis(data)):
            self.cautions.append(aside)
        for caution in self.cautions:
            run_on_rank0(partial(warnings.warn, caution))
        devices = mesh(job.run.devices, job.run.slabs)
        self.source = BatchSource.of(data, devices, job.data.hold_out, job.run.seed)

    def _hash_data(self) -> None:
        """Begin to hash the file of the measurement beside the steps, in the first process."""
        if is_first():
            self.data_sha256 = hashing(str(self.job.data.file))

    def _descan(self) -> dict[str, str]:
        return {} if self.source is None else descan_statement(self.job, self.source.data)

    def context(self, number: int, step: Step) -> Context:
        """Context of a step."""
        kind: str = step.kind  # pyright: ignore[reportAttributeAccessIssue]
        return Context(
            self.job,
            self.source,
            self.folder,
            number,
            step_folder(self.folder, number, kind),
            self.listener,
            self.stop,
            self.checkpoints,
            self.job.epochs,
            self._epoch_over,
            self._write_found,
        )

    def _write_found(self, number: int, keys: Mapping[str, Any]) -> None:
        """Write the keys that a step has found into the job of the run."""
        steps = list(self.job.step)
        steps[number] = steps[number].model_copy(update=dict(keys))
        self.job = self.job.model_copy(update={"step": steps})
        run_on_rank0(partial(_write_job, self.job, self.folder))

    def _epoch_over(self, progress: Progress) -> None:
        history = progress.history
        every = self.job.figures.every
        run_on_rank0(partial(write_history, self.folder / "history.csv", history))
        if every and len(history) % every == 0:
            self.draw(progress.model, history)

    def _save(self, state: State, why: str = "finished") -> Outcome:
        """Write history, result and figures of what was reached."""
        model = state.model
        history = list(state.history)
        if self.source is None or model is None:
            return Outcome(self.folder, why, {}, model, history)
        source = self.source.without(state.left_out)
        fit = source.fit(model)
        verdict = source.verdict(model, history) if history else None
        about = {} if verdict is None else {"verdict": str(verdict), "explains": verdict.explains}
        about |= {
            "data_file": self.job.data.file,
            "data_sha256": self.data_sha256 and self.data_sha256.result(),
        }
        write_result(self.folder, model, history, job=write_job(self.job), **fit, **about)
        self.draw(model, history)
        outcome = Outcome(self.folder, why, fit, model, history, verdict)
        rows = facts_of(model, source.data) | outcome.summary()
        job = write_job(self.job)
        report = partial(write_run_report, self.folder, rows, verdict, self.cautions, job)
        run_on_rank0(report)
        return outcome

    def draw(self, model: Model, history: Sequence[Row]) -> None:
        """Draw the figures of the run, unless its specimen is too large for the host that draws."""
        assert self.source is not None
        if size_of(model.specimen) > MAX_BYTES_DRAWN:
            self.listener.say(
                f"the specimen takes more than {MAX_BYTES_DRAWN / 2**30:g} GiB and is not drawn; "
                "see result.h5"
            )
            return
        if self.first is None:
            self.first = self.context(0, self.job.step[0]).first_model()
        draw = write_series_figures if self.job.is_series else write_figures
        more = {} if self.job.is_series else {"band_pass": self.job.figures.band_pass_angstrom}
        data = self.source.data
        first = self.first
        folder = self.folder / "figures"

        def drawn(model: Model) -> None:
            complete = gather_leaves(model)
            draw(folder, complete, first, data, history, **more)
            for name in self.job.figures.further:
                save(resolve(name)(complete, data, history), folder / file_name(name))

        on_process_zero(drawn, model)

    def reached(self) -> Reached:
        """The place that the run has reached."""
        done = 0
        for number, step in enumerate(self.job.step):
            kind: str = step.kind  # pyright: ignore[reportAttributeAccessIssue]
            folder = step_folder(self.folder, number, kind)
            if not is_done(folder):
                made = folder.exists() and any(folder.iterdir())
                last = checkpoints.newest_place(self.checkpoints)
                inside = last is not None and last.step == number
                return Reached(number, last.epoch if last and inside else 0, made or inside)
            done = number + 1
        return Reached(done, 0, False)

    def require_applicable(self, keys: Sequence[str], before: Job) -> None:
        """Raise ValueError for changed keys that contradict what the run of `before` has done."""
        reached = self.reached()
        require_applicable(keys, self.job, reached)
        last = checkpoints.newest_place(self.checkpoints)
        if self.source is None or last is None:
            return
        quanta = checkpoints.quanta_of(self.source.data)
        if not np.allclose(last.quanta or quanta, quanta, rtol=1e-6):
            raise ValueError(
                f"{self.job.data.file} holds another measurement than the one that the run began "
                f"with: {quanta:.8g} quanta, not {last.quanta:.8g}; give the same file"
            )
        if reached.begun and last.step == reached.step:
            self._require_same_state(before.step[last.step], last.step)

    def _require_same_state(self, before: Step, number: int) -> None:
        """Raise ValueError if the state of the optimiser of a step under way has changed."""
        after = self.job.step[number]
        if not (isinstance(before, RefineStep) and isinstance(after, RefineStep)):
            return
        model = self._model_before(number)
        context = self.context(number, after)
        old, new = (
            shapes(step.first_state(split_into_slabs(step.begin(model, context), context), context))
            for step in (before, after)
        )
        if old != new or before.needs_first_model != after.needs_first_model:
            raise ValueError(
                f"step.{number} is under way, and by the change its optimiser or its constraints "
                "would require what its checkpoint does not hold; change its epochs, the size of "
                "its rates or later steps, or start a new run"
            )
        after.preview(model, context)

    def _model_before(self, number: int) -> Model | None:
        """Models from the steps before `number`."""
        if not number:
            return None
        kind: str = self.job.step[number - 1].kind  # pyright: ignore
        return read_state(step_folder(self.folder, number - 1, kind), {}).model


def file_name(reference: str) -> str:
    """The file of a figure that a job names `module:function`."""
    return f"{reference.rpartition(':')[2]}.png"


def _write_job(job: Job, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "run.toml", overwrite=True) as draft:
        draft.write_text(write_job(beside(job, folder)), encoding="utf-8")
