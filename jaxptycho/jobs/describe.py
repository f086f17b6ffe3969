"""Contents of files in words, and the check of a job without computing."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from ..data import Batch
from ..distributed.memory_plan import plan, size_of
from ..distributed.sharding import even
from ..io.datasets import read, reading_of
from ..io.hdf5 import open_hdf5
from ..io.readers.completion import completed, missing
from ..io.readers.detector import with_detector
from ..io.readers.incomplete import is_scan, read_incomplete
from ..io.readers.reading import Reading
from ..io.results import load_attributes, load_history
from ..live.watch import history_of, run_line, run_status
from ..reports.describe import describe_data
from ..reports.describe_result import describe_result
from ..reports.readings import describe_reading, is_small
from ..runs.batch_source import BatchSource
from ..runs.folder import LOG, load_result, result_of
from .build import descan_statement
from .job import Job
from .measurement import WINDOWS, measurement_rows, part_of_data
from .optimisation import build_loss
from .reading import read_job
from .runner import Runner
from .simulation import check_simulation
from .steps.refine import RefineStep
from .steps.simulate import SimulateStep

EMPTY: Mapping[str, Any] = MappingProxyType({})
HISTORY = "history.csv"
PATIENCE = 10  # epochs without another one, after which a run may have ended
PATIENCE_S = 60.0
OF_ALL_PATTERNS = ("masked pixels", "bright field")  # not of a sample


def describe(path: Path, known: Mapping[str, Any] = EMPTY) -> dict[str, str]:
    """Contents of a dataset, a result, a run or a job.

    `known` are as in `read` of a dataset, and the keys of a job that take part of it.
    """
    if (path / "run.toml").exists():
        status = run_status(path, history_of(path / HISTORY))
        if not status["over"]:
            return describe_progress(path, status)
    path = result_of(path)
    parts = {name: value for name, value in known.items() if name in WINDOWS}
    known = {name: value for name, value in known.items() if name not in WINDOWS}
    if path.suffix == ".toml":
        return describe_job(read_job(path))
    if path.suffix != ".cxi" and path.exists() and h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            result = "model" in file
        if result:
            history = load_history(path)
            return describe_result(load_result(path), history, load_attributes(path))
    reading = reading_of(path, **known) or large_scan(path)
    if reading is None:
        return describe_data(part_of_data(read(path, **known), parts))
    reading = with_detector(completed(reading, known))
    rows = describe_reading(reading)
    if not is_small(reading) or missing(reading):
        return rows
    try:
        further = describe_data(part_of_data(read(path, **known), parts))
    except ValueError as error:  # also of what no reconstruction could use, all is reported
        return rows | {"not usable": str(error)}
    names = (*OF_ALL_PATTERNS, "patterns") if parts else OF_ALL_PATTERNS
    replaced = {name: further[name] for name in names if name in further}
    return rows | {n: text for n, text in further.items() if n not in rows} | replaced


def large_scan(path: Path) -> Reading | None:
    """Reading of a native file of one scan that is too large to be read to describe it."""
    with open_hdf5(path) as file:
        one = is_scan(file) and "positions" in file
    reading = read_incomplete(path) if one else None
    return None if reading is None or is_small(reading) else reading


def describe_job(job: Job) -> dict[str, str]:
    """The steps of a job in short."""
    rows = {} if job.data.file is None else {"data": job.data.file} | measurement_rows(job)
    for number, step in enumerate(job.step):
        kind: str = step.kind  # pyright: ignore[reportAttributeAccessIssue]
        name = getattr(step, "name", kind)
        rows[f"step {number} {kind}" + (f" ({name})" if name != kind else "")] = step.summary()
    return rows


def describe_progress(folder: Path, status: Mapping[str, Any]) -> dict[str, str]:
    """Steps and `status` of a run that is under way, or was interrupted."""
    rows = describe_job(read_job(folder / "run.toml")) | {"progress": run_line(dict(status))}
    log = folder / LOG
    if log.exists():
        rows["run.log ends"] = log.read_text(encoding="utf-8").splitlines()[-1]
    if (folder / HISTORY).exists():
        ago = time.time() - (folder / HISTORY).stat().st_mtime
        rows["last epoch"] = f"{ago:.0f} s ago"
        if ago > max(PATIENCE * status["seconds_per_epoch"], PATIENCE_S):
            rows["if it no longer runs"] = f"jaxptycho resume {folder}"
    return rows


def check_job(job: Job) -> dict[str, str]:
    """Rows of a job with its data: all built, nothing computed; the object and its memory."""
    rows = describe_job(job)
    runner = Runner(job, Path("."))
    model = runner.check()
    for step in job.step:
        if isinstance(step, SimulateStep):
            rows |= check_simulation(step)
    source = runner.source
    refining = [step for step in job.step if isinstance(step, RefineStep)]
    if source is None or model is None:
        return rows
    data = source.data
    pixels = math.prod(data.grid.shape)
    sizes = zip(data.n_shots, data.kinds, strict=True)
    counts = sum(n * pixels * kind.itemsize for n, kind in sizes)
    slices = model.specimen.shapes(model.grid).transmission
    rows |= descan_statement(job, data)
    rows |= {"object": " × ".join(map(str, slices.shape)) + " (slice, y, x)"}
    rows |= model.specimen.summary()
    rows |= {"parameters": megabytes(size_of(model)), "counts": megabytes(counts)}
    rows["held out"] = f"{sum(map(len, source.held))} of {sum(data.n_shots)} shots"
    if not refining:
        return rows
    last = refining[-1]
    state = last.first_state(model, runner.context(0, last))
    loss: Any = build_loss(last, job.run.budget_gib)
    return rows | plan(loss, model, state, blank_batch(last, source), source.devices).table()


def blank_batch(step: RefineStep, source: BatchSource) -> Batch:
    """A batch of a step, without its counts."""
    size = min(step.batch_of(source.shots_per_epoch), max(map(len, source.learn)))
    counts = np.zeros((size, *source.data.grid.shape), source.data.kinds[0])
    batch = Batch(np.int32(0), np.zeros(size, np.int32), counts, np.ones(size, np.float32))
    return even(batch, source.devices)


def megabytes(size: int) -> str:
    """A size [bytes] as people read it."""
    return f"{size / 1e6:.4g} MB"
