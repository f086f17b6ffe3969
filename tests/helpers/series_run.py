"""A series simulated from atoms, and what a job makes of it."""

from pathlib import Path
from typing import Any

from jaxptycho import load, read
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.new import template_text
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.simulation import run_simulation
from jaxptycho.jobs.steps.simulate import SimulateStep


def simulation_of(folder: Path, changes: list[str]) -> SimulateStep:
    """The step of the template `particle` with keys of it changed, such as `scan.shape=[8, 11]`."""
    (folder / "particle.toml").write_text(template_text("particle"))
    step: Any = read_job(folder / "particle.toml", [f"step.0.{change}" for change in changes]).step[
        0
    ]
    return step


def reconstructed(folder: Path, changes: list[str], job_of):
    """Data and truth of the template `particle` with `changes`, and the model that `job_of(file)` ends with."""
    file = folder / "series.h5"
    run_simulation(simulation_of(folder, changes), file)
    start(job_of(file), folder / "run")
    return read(file), read_truth(file), load(folder / "run" / "result.h5")
