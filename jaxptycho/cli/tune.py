"""The verb `tune`: keys of a job by their held-out loss, with a table and a figure."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .errors import tidy
from .options import Debug, JobFile, Out, Settings
from .output import EXIT_CODES, print_table, run_listener


@tidy
def tune_job(
    job: JobFile,
    over: Annotated[
        list[str],
        typer.Option(metavar="KEY=LOW..HIGH", help="A key and its range, or KEY=A|B|C; repeated."),
    ],
    trials: Annotated[int, typer.Option(min=1, help="Number of trials of the study.")] = 20,
    out: Out = None,
    settings: Settings = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Find keys of a job with the least held-out loss; a study in a folder continues,
    also by several at once.
    """
    from ..figures.plots import save
    from ..figures.tuning import draw_tuning
    from ..jobs.tune import best, tune
    from ..runs.state import Stopped

    folder = out or Path(f"{job.stem}-tune")
    try:
        found = tune(job, over, folder, trials, settings, run_listener, print)
    except Stopped as stopped:
        print(f"stopped by {stopped.reason}; go on with the same command")
        raise typer.Exit(EXIT_CODES.get(stopped.reason, 0)) from None
    chosen = best(found)
    assert chosen is not None  # else `tune` raises
    rows = {
        f"trial {trial.number}": (
            " ".join(trial.settings),
            "–" if trial.held_out is None else f"{trial.held_out:.5g}",
            f"{trial.epochs} epochs",
            "best" if trial is chosen else trial.state,
        )
        for trial in sorted(found, key=lambda t: t.held_out or float("inf"))
    }
    print_table(rows, f"{folder}, by held-out loss")
    states = [trial.state == "complete" for trial in found]
    losses = [trial.held_out for trial in found]
    save(draw_tuning([trial.values for trial in found], losses, states), folder / "tune.png")
    keys = " ".join(f"--set {shlex.quote(text)}" for text in chosen.settings)
    print(f"best: jaxptycho run {job} {keys}")
