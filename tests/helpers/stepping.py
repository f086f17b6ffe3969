"""Single steps of a job, outside of a run."""

from pathlib import Path

from jaxptycho.data import Dataset
from jaxptycho.jobs.context import Context
from jaxptycho.jobs.job import Job
from jaxptycho.jobs.runner import Runner
from jaxptycho.jobs.steps.refine import RefineStep, split_into_slabs
from jaxptycho.model import Model
from jaxptycho.runs.batch_source import BatchSource
from jaxptycho.runs.loop import Loop
from jaxptycho.runs.state import State


def context_of(
    job: Job, folder: Path = Path("."), number: int = 0, data: Dataset | None = None
) -> Context:
    """What the step `number` of a job works with, with other `data` where given; its folder is there."""
    context = Runner(job, folder).context(number, job.step[number])
    if data is not None:
        context.batches = BatchSource.of(data, context.source.devices, 0.0)
    if folder != Path("."):
        context.folder.mkdir(parents=True, exist_ok=True)
    return context


def step_of(job: Job, kind: str) -> int:
    """The number of the first step of a kind."""
    return [step.kind for step in job.step].index(kind)


def views_of(job: Job, folder: Path) -> dict[int, Model]:
    """The models of separate views, as a step `views` makes them."""
    number = step_of(job, "views")
    return job.step[number].run(State(), context_of(job, folder, number)).views


def aligned(job: Job, views: dict[int, Model], folder: Path, data: Dataset | None = None) -> State:
    """What the step `align` hands on."""
    number = step_of(job, "align")
    return job.step[number].run(State(views=views), context_of(job, folder, number, data))


def loop_of(job: Job, number: int = 0, without=(), folder: Path = Path(".")) -> tuple[Loop, Model]:
    """The loop of a step `refine`, without some views, and the model that it begins with."""
    step, context = job.step[number], context_of(job, folder, number)
    assert isinstance(step, RefineStep)
    source = context.source.without(without)
    model = split_into_slabs(step.begin(None, context), context)
    return Loop(step.plan(model, context, source), source, context.listener), model
