"""A series simulated from atoms, and what a job makes of it."""

from jaxptycho import load, read
from jaxptycho.cli.files import template_text
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.simulation import build_experiment, write_experiment
from jaxptycho.jobs.simulation_schema import SimulationJob


def reconstructed(folder, changes: list[str], job_of):
    """The data and the truth of the template `particle` with `changes`, and the model that `job_of(file)` ends with."""
    (folder / "particle.toml").write_text(template_text("particle"))
    simulation, file = read_job(folder / "particle.toml", changes, SimulationJob), folder / "series.h5"
    write_experiment(build_experiment(simulation), file, simulation, lambda patterns: None)
    start(job_of(file), folder / "run")
    return read(file), read_truth(file), load(folder / "run" / "result.h5")
