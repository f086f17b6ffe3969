"""Changes to the job of a run under way: which are possible, and which contradict the past."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .job import Job
from .reading import files_of, read_job
from .schema import Section
from .steps.refine import RefineStep

FREE = {"run", "figures"}  # sections without influence on the results so far
FIXED_IN_RUN = {
    "seed": "it decided which shots were held out and the order of batches",
    "out": "the run is already in its folder",
}
FIXED_IN_STEP = {"kind", "batch", "order", "optimiser", "accumulate", "slices", "modes"}
FIXED_IN_STEP |= {"precondition", "reset_volume"}
NEW = "start a new run with it, in another folder"


class Reached(NamedTuple):
    """Place that a run has reached."""

    step: int  # the first that is not done
    epoch: int  # of the last checkpoint within it
    begun: bool  # whether the step has made anything


def changed_job(folder: Path, settings: Sequence[str]) -> tuple[Job, list[str]]:
    """Job of a run with `settings` in place of previous values, and the keys that differ."""
    path = folder / "run.toml"
    job = read_job(path, settings)
    return job, differences(read_job(path), job)


def differences(before: Section, after: Section) -> list[str]:
    """Keys, in the form of `--set`, whose values differ between two jobs."""
    return list(_different(before.model_dump(), after.model_dump(), ""))


def _different(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = {name: (one.get(name), other.get(name)) for name in one | other}
    elif (_has_sections(one) and _has_sections(other, True)) or (
        _has_sections(other) and isinstance(one, list)
    ):
        longest = max(len(one), len(other))
        padded = ([*values, *[None] * (longest - len(values))] for values in (one, other))
        pairs = {str(n): pair for n, pair in enumerate(zip(*padded, strict=True))}
    else:
        if one != other:
            yield where
        return
    for name, (before, after) in pairs.items():
        yield from _different(before, after, f"{where}.{name}" if where else name)


def _has_sections(value: Any, or_empty: bool = False) -> bool:
    if not isinstance(value, list):
        return False
    return any(isinstance(entry, dict) for entry in value) or (or_empty and not value)


def require_applicable(keys: Sequence[str], job: Job, reached: Reached) -> None:
    """Raise ValueError for a key that can no longer change."""
    files = files_of(job)
    for key in keys:
        section, _, rest = key.partition(".")
        if section in FREE:
            if section == "run" and rest in FIXED_IN_RUN:
                raise ValueError(
                    f"--set {key} cannot be applied to a run under way: {FIXED_IN_RUN[rest]}; {NEW}"
                )
        elif key in files:  # a file may have moved
            continue
        elif section == "step":
            _require_open(key, job, reached)
        else:
            raise ValueError(
                f"--set {key} cannot be applied to a run under way, all of which was computed "
                f"with its value; {NEW}"
            )


def _require_open(key: str, job: Job, reached: Reached) -> None:
    """Raise ValueError for a key of a step that is over, or that the step under way depends on."""
    number = int(key.split(".")[1])
    name = [*key.split("."), ""][2]
    if len(job.step) <= reached.step and reached.begun:
        raise ValueError(f"--set {key} removes step.{reached.step}, which has begun; {NEW}")
    if number > reached.step or (number == reached.step and not reached.begun):
        return
    if number < reached.step:
        begun = f", and step.{reached.step} has begun" if reached.begun else ""
        raise ValueError(f"--set {key} cannot be applied: step.{number} is over{begun}; {NEW}")
    step = job.step[number]
    if not isinstance(step, RefineStep):
        raise ValueError(f"--set {key} cannot be applied: step.{number} is under way; {NEW}")
    if name == "epochs":
        if step.epochs < reached.epoch:
            raise ValueError(
                f"--set {key}={step.epochs}: step.{number} has run {reached.epoch} epochs; give "
                "it more"
            )
    elif reached.epoch >= step.epochs:
        raise ValueError(
            f"--set {key} has no effect: step.{number} has run all of its {reached.epoch} epochs; "
            f"give it more of them, step.{number}.epochs={reached.epoch + 10}, or {NEW}"
        )
    elif name in FIXED_IN_STEP:
        raise ValueError(
            f"--set {key} cannot be applied: step.{number} is under way with another value; {NEW}"
        )


def require_files(job: Job, folder: Path) -> None:
    """Raise ValueError for a file of the job that is not where `run.toml` names it."""
    for key, file in files_of(job).items():
        if not Path(file).exists():
            raise ValueError(
                f"there is no file {file}, which {folder / 'run.toml'} names as {key} (the run or "
                f"the file was moved); name its place: jaxptycho resume {folder} --set {key}=PATH"
            )


def warn_of_differences(job: Job, folder: Path, settings: Sequence[str]) -> None:
    """Warn of keys whose value in a job file differs from that of the run in `folder`.

    Keys that the job leaves open are those that the run has chosen.
    """
    continued, _ = changed_job(folder, settings)
    given = job.model_dump()
    differing = (key for key in differences(continued, job) if key != "run.out")
    keys = [key for key in differing if _value_at(given, key) is not None]
    if keys:
        warnings.warn(
            f"the job gives {', '.join(keys)} another value than the run in {folder} began with, "
            "which continues with that of run.toml; change it by --set, such as --set "
            f"{keys[0]}=VALUE",
            stacklevel=2,
        )


def _value_at(values: Any, key: str) -> Any:
    """Value of a key in nested values, None where there is none."""
    for name in key.split("."):
        if isinstance(values, list):
            values = values[int(name)] if int(name) < len(values) else None
        else:
            values = values.get(name) if isinstance(values, dict) else None
    return values
