"""Step `calibrate`: camera, optics and orientation from the patterns, for the steps after it."""

import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from ...distributed.multihost import run_on_rank0
from ...model import Model
from ...reports.calibration import write_calibration
from ...runs.state import State
from ...start.calibrate import Calibration, calibrate
from ..calibrated import found_keys, sign_of
from ..context import Context, Step
from ..schema import Section

REPORT = "calibration"  # folder in that of the step


class CalibrateStep(Step):
    """Measure camera, optics and orientation; later steps use them where the job gives none."""

    finds_keys: ClassVar = True
    kind: Literal["calibrate"]

    def preview(self, model: Model | None, context: Context) -> Model | None:
        if model is not None:
            raise ValueError(
                f"step.{context.number} calibrates, and a step before it has made a model; put it "
                "first, or after simulate"
            )
        if context.batches is not None and context.data.n_views > 1:
            raise ValueError(
                f"step.{context.number} calibrates one scan, and the measurement has "
                f"{context.data.n_views} views; leave it out"
            )
        return None

    def run(self, state: State, context: Context) -> State:
        look = calibrate(context.data, sign_of(context.job.probe.defocus_angstrom))
        for name, value in look.rows().items():
            context.listener.say(f"{name}: {value}")
        for text in look.warnings:
            run_on_rank0(partial(warnings.warn, text))
        run_on_rank0(partial(_write, look, context.folder / REPORT, str(context.job.data.file)))
        keys = found_keys(look)
        unset = {path: one.value for path, one in keys.items() if is_unset(context.job, path)}
        return replace(state, found=unset)


def is_unset(job: Section, path: str) -> bool:
    """True if a job leaves the key at `path` ("probe.defocus_angstrom") at its default."""
    section, name = path.split(".")
    part = getattr(job, section)
    return getattr(part, name) == type(part).model_fields[name].default


def _write(look: Calibration, folder: Path, title: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a step that was killed
    write_calibration(look, folder, title)
