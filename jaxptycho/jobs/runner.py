"""The folder of a run: the job as run, history, checkpoints, the result and its figures.

`result.h5`, `run.toml` (every default filled in), `history.csv`, `figures/`, `checkpoints/`; `atoms.xyz` of a specimen
made of atoms.
"""

import csv
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np

from ..analysis.verdict import Verdict
from ..cli.errors import Diverged
from ..data import Dataset
from ..distributed.checkpoint import Checkpoints
from ..distributed.gather import handed, whole
from ..distributed.memory_plan import size_of
from ..distributed.multihost import agreed, everywhere, once, said, sharing
from ..distributed.sharding import place, place_anew
from ..distributed.slabs.layout import fitted
from ..figures import plots
from ..figures import series as plots_series
from ..io.atomic_write import drafted
from ..io.exports import structure
from ..io.hdf5 import is_zarr
from ..io.results import load, write
from ..io.structures import write_structure
from ..model import Model
from ..runs.loop import Loop, Progress, Row
from ..runs.progress import Stopper, Watch
from ..start.cautions import cautions
from ..tomography.series import off_axis
from . import build, tomogram, tomogram_atoms
from .changes import changed_job, require_applicable, require_files
from .reading import beside, write_job
from .schema import Job
from .tomogram_schema import TomogramJob

Stop = Callable[[], str | None]
DRAWN_BYTES = 2**33  # of a specimen that one host holds beside its figures


@dataclass
class Outcome:
    """How a run ended."""

    folder: Path
    why: str  # "finished", or what stopped it
    fit: dict[str, float]
    model: Model = field(repr=False)
    history: list[Row] = field(repr=False)
    verdict: Verdict | None = None  # None before the first epoch

    @property
    def finished(self) -> bool:
        return self.why == "finished"


def start(job: Job | TomogramJob, folder: Path, watch: Watch | None = None, stop: Stop | None = None) -> Outcome:
    """How a new run of `job` in `folder`, which must not exist yet, ended."""
    with Stopper(job.run.wall_time_minutes) as stopper:  # from here on a signal is heard, however long reading takes
        once(partial(refuse_existing, folder))
        loop = loop_of(job, folder, watch)
        loop.check()  # before anything is written
        once(partial(_begin, job, folder))
        for name, words in build.descan_statement(job, loop.data).items():
            loop.watch.say(f"{name} {words}")
        return _go(loop, folder, stop, stopper)


def resume(folder: Path, watch: Watch | None = None, stop: Stop | None = None, settings: Sequence[str] = ()) -> Outcome:
    """How an interrupted run, gone on with to the result that it would have had, ended.

    `settings` such as `stage.0.epochs=80` change its job for what is still to come. Raises ValueError for one that does
    not apply any more.
    """
    require_run(folder)
    job, keys = changed_job(folder, settings)
    require_files(job, folder)
    with Stopper(job.run.wall_time_minutes) as stopper:
        reached = _reached(folder) if keys else None
        require_applicable(keys, job, None if reached is None else (reached.stage, reached.epoch))
        loop = loop_of(job, folder, watch)
        if keys:
            loop.check()
            if reached is not None:
                if not np.allclose(reached.quanta or quanta_of(loop.data), quanta_of(loop.data), rtol=1e-6):
                    raise ValueError(
                        f"{job.data.file} holds another measurement than the one that the run began with: "
                        f"{quanta_of(loop.data):.8g} quanta, not {reached.quanta:.8g}; give the same file"
                    )
                before, _ = changed_job(folder, ())
                require_same_state(replace(loop, job=before), loop, reached.stage)
            once(partial(_begin, job, folder))
        return _go(loop, folder, stop, stopper)


def require_run(folder: Path) -> None:
    """Raises ValueError where `folder` is none of a run."""
    if (folder / "run.toml").exists():
        return
    if folder.is_dir():
        why = "is no run: it holds no run.toml"
    elif folder.exists():
        why = "is a file"
    else:
        why = "is not there"
    parent = f", such as {folder.parent}" if folder.is_file() and (folder.parent / "run.toml").exists() else ""
    raise ValueError(f"{folder} {why}; give a folder that `jaxptycho reconstruct` or `tomogram` made{parent}")


def result_of(path: Path) -> Path:
    """The result in the folder of a run, or the file itself; ValueError for a folder without one."""
    if not path.is_dir() or is_zarr(path) or (path / "result.h5").exists():
        return path if not path.is_dir() or is_zarr(path) else path / "result.h5"
    if (path / "run.toml").exists():
        raise ValueError(f"the run in {path} has no result yet; go on with it: jaxptycho resume {path}")
    raise ValueError(f"the folder {path} is no run: it holds no result.h5; give a result, or the folder of a run")


class Reached(NamedTuple):
    """Where the last checkpoint was made."""

    stage: int
    epoch: int
    quanta: float | None  # of all patterns


def _reached(folder: Path) -> Reached | None:
    """Where the last checkpoint was made, the same in all processes; None without any."""

    def read():
        with Checkpoints(folder / "checkpoints") as kept:
            about = kept.about()
        return None if about is None else json.dumps([about["stage"], about["epoch"], about.get("quanta")])

    found = said(once(read))
    return None if found is None else Reached(*json.loads(found))


def quanta_of(data: Dataset) -> float:
    """Quanta of all patterns, by which another measurement is told from the same one."""
    return float(sum(data.dose(view).sum() for view in range(data.n_views)))


def require_same_state(before: Loop, after: Loop, stage: int) -> None:
    """Raises ValueError where the optimiser of a stage under way has another state by the changed job."""

    def shapes(loop: Loop) -> list[str]:
        state = eqx.filter_eval_shape(partial(loop.first_state, stage), loop.first_model(stage))
        return [f"{jax.tree_util.keystr(path)} {leaf}" for path, leaf in jax.tree_util.tree_leaves_with_path(state)]

    if shapes(before) != shapes(after) or before.looks_back(stage) != after.looks_back(stage):
        raise ValueError(
            f"stage.{stage} is under way, and by the change its optimiser or its constraints would require what its "
            "checkpoint does not hold; change its epochs, the size of its rates or later stages, or start a new run"
        )


def loop_of(job: Job | TomogramJob, folder: Path | None = None, watch: Watch | None = None) -> Loop:
    """A job with its data; in `folder` may lie what its first model is made of."""
    data = build.read_data(job.data, job.run.seed, sharing())
    for caution in cautions(data, build.known_of(job)):
        once(partial(warnings.warn, str(caution)))
    if isinstance(job, TomogramJob):
        if aside := off_axis(data):
            warnings.warn(aside, stacklevel=2)
        known = None if folder is None else folder / tomogram.START

        def begun():
            return load(known) if known and known.exists() else tomogram.series_of(job, data)

        loop = Loop(job, data, watch or Watch(), begun)
        loop.between, loop.filled = tomogram.between(job, data, lambda: loop.learn), tomogram.filled(job)
        loop.entered = tomogram_atoms.entered(job, folder)
        if folder is not None:
            loop.hand_over = tomogram_atoms.hand_over(job, folder)
        return loop

    def first():
        known = None if folder is None else folder / tomogram.START
        return load(known) if known and known.exists() else build.build_model(job, data)

    return Loop(job, data, watch or Watch(), first)


def place_scan(job: Job, data: Dataset, folder: Path, say: Callable[[str], None]) -> None:
    """Find the map of an affine scan, once a run, and write the model that begins with it as `start.h5`."""
    if not (folder / tomogram.START).exists():
        matrix = build.found_map(job, data, say)
        write(folder / tomogram.START, build.build_model(job, data, matrix))


def refuse_existing(folder: Path) -> None:
    """Raises ValueError where a new folder would fall on an old one that holds anything."""
    if folder.exists() and not (folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())):
        resumable = f", or go on with `jaxptycho resume {folder}`" if (folder / "run.toml").exists() else ""
        raise ValueError(f"the folder {folder} exists and is not overwritten; choose another with --out{resumable}")


def _begin(job: Job | TomogramJob, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with drafted(folder / "run.toml", overwrite=True) as draft:
        draft.write_text(write_job(beside(job, folder)), encoding="utf-8")


def _go(loop: Loop, folder: Path, stop: Stop | None, stopper: Stopper) -> Outcome:
    """On to the end from where the folder stands, or to what stops it; all is saved either way."""
    job = loop.job

    def after_epoch(progress: Progress) -> None:
        once(partial(write_history, folder / "history.csv", progress.history))
        if len(progress.history) % job.run.checkpoint_every == 0:
            keep(loop, progress, kept)
        if job.figures.every and len(progress.history) % job.figures.every == 0:
            draw(loop, progress.model, progress.history, folder)

    with Checkpoints(folder / "checkpoints", job.run.checkpoints_kept) as kept:
        asked = lambda: (stop and stop()) or stopper.why()  # noqa: E731
        if isinstance(job, TomogramJob):
            why = said(once(partial(tomogram.prepare, job, loop.data, loop.learn, folder, loop.watch.say, asked)))
            if why is not None:
                return Outcome(folder, why, {}, loop.first_model(), [])
            require_seen(folder / tomogram.START)
            loop.leave_out(tomogram.dropped(job, folder))
        elif job.scan.kind == "affine":
            once(partial(place_scan, job, loop.data, folder, loop.watch.say))
            require_seen(folder / tomogram.START)
        loop.after_epoch, loop.stop = after_epoch, agreed(asked)
        progress = found(loop, kept)
        try:
            with loop.watch:
                why = loop.run(progress)
        except Diverged:
            keep(loop, progress, kept)
            save(loop, progress.model, progress.history, folder)
            raise
        keep(loop, progress, kept)
        fit, verdict = save(loop, progress.model, progress.history, folder)
        return Outcome(folder, why, fit, progress.model, progress.history, verdict)


def require_seen(file: Path) -> None:
    """Raises ValueError unless all processes see the file: another first model in one of them would go unnoticed."""
    if not everywhere(file.exists()):
        raise ValueError(f"{file} is not seen by all processes; give a folder on a file system that all of them share")


def keep(loop: Loop, progress: Progress, kept: Checkpoints) -> None:
    """Begins to write a checkpoint of all that the run needs to go on as if nothing had happened."""
    about = {name: getattr(progress, name) for name in ("stage", "epoch", "losses", "seconds", "history")}
    about["slabs"], about["quanta"] = loop.job.run.slabs, quanta_of(loop.data)
    tree = {"model": progress.model, "state": progress.state, "home": progress.home or loop.homed(progress.model)}
    begun = {} if progress.begun is None else {"begun": progress.begun}
    kept.save(loop.done(progress), tree | begun, about)


def found(loop: Loop, kept: Checkpoints) -> Progress:
    """Where the last checkpoint stands, or the beginning if there is none yet."""

    def template(about):
        model = place_anew(first := loop.first_model(about["stage"], about["slabs"]), loop.devices, first)
        state = place_anew(loop.first_state(about["stage"], model), loop.devices, model)
        tree = {"model": model, "state": state, "home": [np.zeros(n, np.int16) for n in loop.data.n_shots]}
        return tree | ({"begun": model} if loop.looks_back(about["stage"]) else {})

    last = kept.last(template)
    if last is None:
        return Progress(loop.first_model())
    tree, about = last
    about.pop("quanta", None)
    if about.pop("slabs") != (slabs := loop.job.run.slabs):  # the rest of this epoch is dealt to others
        model = tree["model"]
        tree |= {name: fitted(model, slabs, tree[name]) for name in ("state", "begun", "model") if name in tree}
        tree["home"] = loop.homed(place(tree["model"], loop.devices))
    about["history"] = [Row(*row) for row in about["history"]]
    about["losses"] = [tuple(pair) for pair in about["losses"]]
    return Progress(**tree, **about)


def save(loop: Loop, model: Model, rows: list[Row], folder: Path) -> tuple[dict[str, float], Verdict | None]:
    """Write history, result and figures; return the fit to all patterns and to held-out ones, and the verdict."""
    fit = loop.fit(model)
    verdict = loop.verdict(model, rows) if rows else None
    about = {} if verdict is None else {"verdict": str(verdict), "explains": verdict.explains}
    nan = float("nan")
    history = {name: [getattr(row, name) for row in rows] for name in Row._fields}
    history["held_out"] = [nan if value is None else value for value in history["held_out"]]

    def written(model):
        write_history(folder / "history.csv", rows)
        write(folder / "result.h5", model, history, overwrite=True, job=write_job(loop.job), **fit, **about)
        if model.specimen.listed_atoms() is not None:
            write_structure(folder / "atoms.xyz", structure(model), overwrite=True)

    handed(written, model)
    draw(loop, model, rows, folder)
    return fit, verdict


def draw(loop: Loop, model: Model, history: list[Row], folder: Path) -> None:
    """The figures of a run as it stands, unless its specimen is too large for the host that draws."""
    if size_of(model.specimen) > DRAWN_BYTES:
        loop.watch.say(f"the specimen takes more than {DRAWN_BYTES / 2**30:g} GiB and is not drawn; see result.h5")
        return

    def drawn(model):
        if isinstance(loop.job, TomogramJob):
            plots_series.draw(folder / "figures", model, loop.first_model(), loop.data, history)
        else:
            plots.draw(folder / "figures", model, loop.first_model(), loop.data, history, loop.job.figures)

    handed(lambda model: drawn(whole(model)), model)


def write_history(path: Path, history: list[Row]) -> None:
    """The history as a table, which appears whole or not at all."""
    with drafted(path, overwrite=True) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(Row._fields)
        rows.writerows(["" if value is None else value for value in row] for row in history)
