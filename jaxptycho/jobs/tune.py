"""Tuning of a job: keys of it, within ranges, by the held-out loss (Optuna, Akiba et al. 2019).

A study is a folder: `study.log`, which several workers share and a new one goes on with, and a run
for every trial. Trials whose held-out loss is above the median of others at the same epoch end
early. The keys must change the model or its refinement, not the data or the loss, as the held-out
losses of all trials are compared.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.atomic_write import write_table
from ..runs.progress import Listeners, ProgressListener
from ..runs.state import Row, State, Stopped
from .reading import read_job, setting_value
from .runner import Outcome, start

STUDY = "study.log"
TABLE = "tune.csv"
LOG_SPAN = 10.0  # ratio of the ends of a range from which it is searched on a logarithmic scale
WARM_UP = 5  # epochs, and as many trials, before one is ended early
PRUNED = "a held-out loss above the median of other trials"
COMPARED = ("data", "run", "figures")  # sections whose keys do not enter, or enter all losses
MAX_REPEATS = 20  # proposals in a row that were computed before, after which the search is over
Listen = Callable[[], ProgressListener]


@dataclass(frozen=True)
class Range:
    """A key of a job and the values that it may take."""

    key: str
    low: float | int | None = None
    high: float | int | None = None
    choices: tuple[Any, ...] = ()

    def suggested(self, trial: Any) -> Any:
        """Value that an Optuna trial proposes."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high)
        low, high = float(self.low or 0), float(self.high or 0)
        wide = low > 0 and high / low >= LOG_SPAN
        return trial.suggest_float(self.key, low, high, log=wide)


@dataclass(frozen=True)
class Trial:
    """A computed trial."""

    number: int
    values: dict[str, Any]
    held_out: float | None  # least of its epochs, or that at which it was ended; None if refused
    epochs: int
    state: str  # complete, pruned or fail

    @property
    def settings(self) -> list[str]:
        """Its values in the form of `--set`."""
        return [f"{key}={_text(value)}" for key, value in self.values.items()]


def parse_range(text: str) -> Range:
    """Range of `KEY=LOW..HIGH` (whole numbers or not), or `KEY=A|B|C`; ValueError otherwise."""
    key, _, values = (part.strip() for part in text.partition("="))
    example = "specimen.slices=2..8, step.0.rates.probe=1e-4..1e-2 or step.0.optimiser=adam|awf"
    if not key or not values:
        raise ValueError(f"--over {text}: KEY=LOW..HIGH or KEY=A|B is required, as in {example}")
    parts = key.split(".")
    if parts[0] in COMPARED or "loss" in parts:
        raise ValueError(
            f"--over {text}: trials are compared by their held-out loss, which {key} changes "
            "itself; tune keys of the model or of the rates"
        )
    if "|" in values:
        return Range(key, choices=tuple(setting_value(one) for one in values.split("|")))
    low, dots, high = values.partition("..")
    ends = [setting_value(one) for one in (low, high)]
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    if not dots or not numbers or not ends[0] < ends[1]:
        raise ValueError(
            f"--over {text}: two numbers, the lower one first, are required, as in {example}"
        )
    return Range(key, ends[0], ends[1])


def tune(
    job: Path,
    over: Sequence[str],
    folder: Path,
    trials: int = 20,
    settings: Sequence[str] = (),
    listener: Listen = ProgressListener,
    say: Callable[[str], None] = lambda text: None,
) -> list[Trial]:
    """Compute trials of a job until the study in `folder` has `trials` of them; return all.

    `over` are ranges (`parse_range`), `settings` change the job of all trials. A folder that holds
    a study continues, with several workers at once if they are started so. Raises ValueError
    where no trial could be computed, and Stopped where a trial was asked to stop.
    """
    ranges = [parse_range(text) for text in over]
    if not ranges:
        raise ValueError("nothing is to be tuned; give --over KEY=LOW..HIGH")
    wanted = read_job(job, settings)
    if not wanted.data.hold_out:
        raise ValueError("data.hold_out = 0, and trials are compared by held-out patterns; set it")
    for one in ranges:  # a key that no job has is refused before anything is computed
        first = one.choices[0] if one.choices else one.low
        read_job(job, [*settings, f"{one.key}={_text(first)}"])
    study = _study(folder, wanted.run.seed)
    repeats = 0
    while len(_finished(study)) < trials and repeats < MAX_REPEATS:
        trial = study.ask()
        values = {one.key: one.suggested(trial) for one in ranges}
        known = next((old for old in _finished(study) if old.params == values), None)
        if known is not None:
            repeats += 1
            study.tell(trial, state=_state("FAIL"))
            continue
        repeats = 0
        _compute(study, trial, values, job, settings, folder, listener, say)
    found = trials_of(study)
    write_table(folder / TABLE, _columns(ranges), (_line(trial) for trial in found))
    if best(found) is None:
        raise ValueError(f"no trial of {folder} came to its end; look at their runs")
    return found


def _compute(
    study: Any,
    trial: Any,
    values: dict[str, Any],
    job: Path,
    settings: Sequence[str],
    folder: Path,
    listener: Listen,
    say: Callable[[str], None],
) -> None:
    """Run one trial and tell the study of it."""
    own = [f"{key}={_text(value)}" for key, value in values.items()]
    say(f"trial {trial.number}: {', '.join(own)}")
    pruner = Pruner(trial)
    try:
        outcome = start(
            read_job(job, [*settings, *own]),
            folder / f"trial-{trial.number:03d}",
            Listeners(listener(), pruner),
            pruner.stop,
        )
    except ValueError as error:  # of values that do not fit together, or that diverge
        say(f"trial {trial.number} is left out: {error}")
        trial.set_user_attr("computed", True)
        study.tell(trial, state=_state("FAIL"))
        return
    if not outcome.finished and outcome.why != PRUNED:
        study.tell(trial, state=_state("FAIL"))
        raise Stopped(outcome.why, State())
    trial.set_user_attr("computed", True)
    trial.set_user_attr("epochs", len(outcome.history))
    if outcome.finished:
        study.tell(trial, _least(outcome))
    else:
        study.tell(trial, state=_state("PRUNED"))  # with the last loss that it reported


class Pruner(ProgressListener):
    """Reports the held-out losses of a trial, and stops one that is behind."""

    def __init__(self, trial: Any):
        self.trial = trial
        self.why: str | None = None

    def stop(self) -> str | None:
        """Reason to stop, None without one."""
        return self.why

    def epoch(self, row: Row) -> None:
        if row.held_out is not None and math.isfinite(row.held_out):
            self.trial.report(row.held_out, row.epoch)
            self.why = PRUNED if self.trial.should_prune() else None


def best(trials: Sequence[Trial]) -> Trial | None:
    """Complete trial of the least held-out loss, None without any."""
    complete = [t for t in trials if t.state == "complete" and t.held_out is not None]
    return min(complete, key=lambda t: t.held_out or math.inf, default=None)


def trials_of(study: Any) -> list[Trial]:
    """Computed trials of an Optuna study."""
    return [
        Trial(
            one.number,
            dict(one.params),
            one.value,
            one.user_attrs.get("epochs", 0),
            one.state.name.lower(),
        )
        for one in _finished(study)
    ]


def _least(outcome: Outcome) -> float:
    return min(row.held_out for row in outcome.history if row.held_out is not None)


def _finished(study: Any) -> list[Any]:
    """Trials that were computed to an end, by all workers."""
    trials = study.get_trials(deepcopy=False)
    return [one for one in trials if one.state.is_finished() and one.user_attrs.get("computed")]


def _study(folder: Path, seed: int) -> Any:
    """The study in a folder, a new one in a new folder."""
    optuna = _optuna()
    fresh = not (folder / STUDY).exists()
    if fresh and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"the folder {folder} holds no study; choose another one with --out")
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / STUDY))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="tune",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_UP, n_warmup_steps=WARM_UP),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(study.get_trials(deepcopy=False)), constant_liar=True
        )
    return study


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError(
            "tuning requires Optuna, which is not installed: pip install 'jaxptycho[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _state(name: str) -> Any:
    return _optuna().trial.TrialState[name]


def _columns(ranges: Sequence[Range]) -> list[str]:
    return ["trial", *(one.key for one in ranges), "held_out", "epochs", "state"]


def _line(trial: Trial) -> list[Any]:
    return [trial.number, *trial.values.values(), trial.held_out, trial.epochs, trial.state]


def _text(value: Any) -> str:
    """Value as a setting has it."""
    return repr(value) if isinstance(value, float) else str(value)
