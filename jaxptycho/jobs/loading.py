"""Models of runs, whose own kinds of specimen are imported first."""

from pathlib import Path

from ..io.results import load
from ..model import Model
from .reading import kind_of, read_job
from .references import is_reference, resolve
from .runner import result_of
from .schema import Job


def load_result(path: Path) -> Model:
    """The model of a run's folder or of a result file.

    A file itself imports nothing: a `module:function` is imported where the run.toml beside the
    result names it. Raises ValueError for a folder without a result.
    """
    path = result_of(path)
    job = path.parent / "run.toml"
    if job.exists() and kind_of(job) is Job:
        kind = read_job(job).specimen.kind
        if is_reference(kind):
            resolve(kind)
    return load(path)
