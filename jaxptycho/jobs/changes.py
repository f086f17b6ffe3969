"""Changes to the job of a run that is under way: which can be made, and which would make its checkpoint worthless."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .reading import kind_of, read_job
from .schema import Job, Section
from .tomogram_schema import TomogramJob

FREE = {"run", "figures"}  # sections that decide nothing of what was computed so far
FIXED_IN_RUN = {
    "seed": "it decided which shots were held out and the order of batches",
    "out": "the run is already in its folder",
}
FIXED_IN_STAGE = {"batch", "order", "optimiser", "accumulate", "slices", "modes", "precondition", "anew", "elements"}


def changed_job(folder: Path, settings: Sequence[str]) -> tuple[Job | TomogramJob, list[str]]:
    """The job of a run with `settings` in the place of its own, and the keys that are another value by them."""
    path = folder / "run.toml"
    kind: Any = TomogramJob if kind_of(path) is TomogramJob else Job
    job = read_job(path, settings, kind)
    return job, differences(read_job(path, kind=kind), job)


def differences(before: Section, after: Section) -> list[str]:
    """Keys, as `--set` takes them, whose values differ between two jobs."""
    return list(_different(before.model_dump(), after.model_dump(), ""))


def _different(one: Any, other: Any, where: str):
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = {name: (one.get(name), other.get(name)) for name in one | other}
    elif isinstance(one, list) and isinstance(other, list) and any(isinstance(entry, dict) for entry in one + other):
        longest = max(len(one), len(other))
        padded = ([*values, *[None] * (longest - len(values))] for values in (one, other))
        pairs = {str(number): pair for number, pair in enumerate(zip(*padded, strict=True))}
    else:
        if one != other:
            yield where
        return
    for name, (before, after) in pairs.items():
        yield from _different(before, after, f"{where}.{name}" if where else name)


def require_applicable(keys: Sequence[str], job: Job | TomogramJob, reached: tuple[int, int] | None) -> None:
    """Raises ValueError for a key that can no longer change; `reached` are stage and epoch of the last checkpoint."""
    for key in keys:
        section, _, rest = key.partition(".")
        if section in FREE:
            if section == "run" and rest in FIXED_IN_RUN:
                raise ValueError(f"--set {key} cannot be applied to a run under way: {FIXED_IN_RUN[rest]}; {NEW}")
        elif section == "stage":
            _require_open(key, job, reached)
        elif (section, rest) not in job.FILES.items():  # a file may have moved
            raise ValueError(
                f"--set {key} cannot be applied to a run under way, all of which was computed with its value; {NEW}"
            )


NEW = "start a new run with it, in another folder"


def _require_open(key: str, job: Job | TomogramJob, reached: tuple[int, int] | None) -> None:
    """Raises ValueError for a key of a stage that is over, or that the stage under way depends on."""
    if reached is None:
        return
    (stage, epoch), (number, name) = reached, (int(key.split(".")[1]), [*key.split("."), ""][2])
    if len(job.stage) <= stage:
        raise ValueError(f"--set {key} takes away stage.{stage}, which has begun; {NEW}")
    if number > stage:
        return
    done = job.stage[number].epochs if number < stage else epoch
    if number < stage:
        raise ValueError(f"--set {key} cannot be applied: stage.{number} is over, and stage.{stage} has begun; {NEW}")
    if name == "epochs":
        if job.stage[number].epochs < epoch:
            raise ValueError(
                f"--set {key}={job.stage[number].epochs}: stage.{number} has run {epoch} epochs; give it more"
            )
    elif epoch >= job.stage[number].epochs:
        raise ValueError(
            f"--set {key} would change nothing: stage.{number} has run all of its {done} epochs; give it more of them, "
            f"stage.{number}.epochs={done + 10}, or {NEW}"
        )
    elif name in FIXED_IN_STAGE:
        raise ValueError(f"--set {key} cannot be applied: stage.{number} is under way with another value; {NEW}")


def require_files(job: Job | TomogramJob, folder: Path) -> None:
    """Raises ValueError for a file of the job that is not where `run.toml` names it."""
    for section, name in job.FILES.items():
        file = getattr(getattr(job, section), name)
        if file is not None and not Path(file).exists():
            raise ValueError(
                f"there is no file {file}, which {folder / 'run.toml'} names as {section}.{name} (the run or the file was "
                f"moved); name its place: jaxptycho resume {folder} --set {section}.{name}=PATH"
            )


def warn_of_differences(job: Job | TomogramJob, folder: Path, settings: Sequence[str]) -> None:
    """Warns of keys that a job file gives otherwise than the run in `folder`, which goes on with its own."""
    if kind_of(folder / "run.toml") is not type(job):
        raise ValueError(f"the run in {folder} is one of another kind of job; choose another folder with --out")
    goes_on, _ = changed_job(folder, settings)
    keys = [key for key in differences(goes_on, job) if key != "run.out"]
    if keys:
        warnings.warn(
            f"the job gives {', '.join(keys)} another value than the run in {folder} began with, which goes on with its "
            f"own (run.toml); change it by --set, such as --set {keys[0]}=VALUE",
            stacklevel=2,
        )
