"""The first step of a job, a refinement, opened for a look inside."""

from pathlib import Path
from typing import Any, NamedTuple

from jaxptycho import Model
from jaxptycho.jobs.context import Context
from jaxptycho.jobs.job import Job
from jaxptycho.jobs.runner import Runner
from jaxptycho.jobs.steps.refine import RefineStep, split_into_slabs
from jaxptycho.runs.loop import Loop
from jaxptycho.runs.progress import ProgressListener


class Opened(NamedTuple):
    """A step with all that it works with."""

    step: RefineStep
    runner: Runner
    context: Context
    model: Model
    loop: Loop

    @property
    def data(self):
        return self.context.data


def opened(job: Job, folder: Path = Path("unused")) -> Opened:
    """The first step of a job, nothing computed yet."""
    runner = Runner(job, folder)
    step: Any = job.step[0]
    context = runner.context(0, step)
    model = split_into_slabs(step.begin(None, context), context)
    plan = step.plan(model, context, context.source)
    return Opened(step, runner, context, model, Loop(plan, context.source, ProgressListener()))
