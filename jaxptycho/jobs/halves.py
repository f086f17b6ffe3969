"""Two halves of a measurement, each reconstructed separately, and their agreement."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..model import Model
from ..reports.compare import common_area, compare_models
from ..runs.folder import refuse_existing
from ..runs.progress import ProgressListener
from .job import Job
from .measurement import FIELDS, QUANTA, read_data
from .runner import Runner, start
from .steps.refine import RefineStep

HALVES = {"positions": FIELDS, "counts": QUANTA}


def compare_halves(
    job: Job,
    folder: Path,
    by: str,
    listener: Callable[[], ProgressListener] = ProgressListener,
) -> dict[str, str]:
    """Agreement of two halves of the data, each reconstructed separately in `folder`.

    `by` "positions" each half has every second shot of a checkerboard, by "counts" half of the
    quanta of every shot. First guess, probe, positions and alignment are separate.
    """
    if job.data.half != "all":
        raise ValueError(
            f'the job uses one half already (data.half = "{job.data.half}"); set it to "all"'
        )
    if job.data.file is None:
        raise ValueError("halves are those of a measurement; give it as data.file")
    refuse_existing(folder)
    if job.data.fraction == 1 and max(read_data(job).n_shots) < 2:
        raise ValueError("a single shot has no halves; give a scan of several shots")
    jobs = [with_half(job, half) for half in HALVES[by]]
    require_comparable(jobs, folder)
    verdicts: dict[str, str] = {}

    def reconstructed(half: str, of_half: Job) -> Model:
        outcome = start(of_half, folder / half, listener())
        if not outcome.finished or outcome.model is None:
            raise ValueError(
                f"the {half} half was stopped by {outcome.why}; finish it with `jaxptycho resume "
                f"{outcome.folder}`"
            )
        if outcome.verdict is not None and not outcome.verdict.explains:
            verdicts[f"verdict of the {half} half"] = outcome.verdict.lines[0]
        return outcome.model

    first, second = map(reconstructed, HALVES[by], jobs)
    rows = compare_models(first, second, folder)
    shared = "the file's probe_guess" if starts_from_file(job) else "nothing"
    return rows | verdicts | {"shared by both": shared}


def with_half(job: Job, half: str) -> Job:
    """The job with one half of its data."""
    return job.model_copy(update={"data": job.data.model_copy(update={"half": half})})


def require_comparable(jobs: Sequence[Job], folder: Path) -> None:
    """Raise ValueError where one of the jobs cannot be computed on its data, or their scans cannot
    be compared."""
    first = []
    for job in jobs:
        runner = Runner(job, folder)
        runner.check()
        step = job.step[0]
        if isinstance(step, RefineStep) and not job.is_series:
            first.append(step.begin(None, runner.context(0, step)))
    if first:
        common_area(*first)


def starts_from_file(job: Job) -> bool:
    """True if the probe starts from the guess in the file, which may stem from all data."""
    if job.probe.start != "auto" or job.data.vacuum_file is not None:
        return job.probe.start == "file"
    return read_data(job).probe_guess is not None
