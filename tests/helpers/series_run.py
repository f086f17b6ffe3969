"""A series simulated from atoms, and what a job makes of it."""

from pathlib import Path
from typing import Any

from jaxptycho import load, read
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.job import Job
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.simulation import run_simulation
from jaxptycho.jobs.steps.simulate import SimulateStep
from jaxptycho.jobs.template_files import template_text


def simulation_of(folder: Path, changes: list[str]) -> SimulateStep:
    """The step of the template `particle` with keys of it changed, such as `scan.shape=[8, 11]`."""
    (folder / "particle.toml").write_text(template_text("particle"))
    step: Any = read_job(folder / "particle.toml", [f"step.0.{change}" for change in changes]).step[
        0
    ]
    return step


def atoms_job(file: Path, views: dict, coarse: dict, fine: dict, **sections: dict) -> Job:
    """Views, their alignment, and two refinements of all patterns of `series.h5`, for `reconstructed`."""
    common = {
        "kind": "refine",
        "batch": 90,
        "optimiser": "layerwise_adam",
        "constraint": [{"kind": "positivity", "each_step": True}],
        "poses": "shifts",
    }
    volume = {"kind": "volume", "size_angstrom": [16.0] * 3, "isolated": True}
    first = {"name": "coarse", "epochs": 3, "reset_volume": True}
    steps = [
        {"kind": "views"} | views,
        {"kind": "align"},
        common | first | coarse,
        common | {"name": "fine"} | fine,
    ]
    data = {"file": str(file)} | sections.pop("data", {})
    specimen = volume | {"slices": 6, "angles": False}
    run = {"devices": 1}
    return make_job({"data": data, "specimen": specimen, "step": steps, "run": run} | sections)


def reconstructed(folder: Path, changes: list[str], job_of):
    """Data and truth of the template `particle` with `changes`, and the model that `job_of(file)` ends with."""
    file = folder / "series.h5"
    run_simulation(simulation_of(folder, changes), file)
    start(job_of(file), folder / "run")
    return read(file), read_truth(file), load(folder / "run" / "result.h5")
