"""A series simulated from atoms, and what a job makes of it."""

from jaxptycho import load, read
from jaxptycho.app.files import template_text
from jaxptycho.app.jobs import read_job
from jaxptycho.app.run import start
from jaxptycho.app.simulation import build_experiment, write_experiment
from jaxptycho.app.simulation_schema import SimulationJob
from jaxptycho.io.native import read_truth


def reconstructed(folder, changes: list[str], job_of):
    """The data and the truth of the template `particle` with `changes`, and the model that `job_of(file)` ends with."""
    (folder / "particle.toml").write_text(template_text("particle"))
    simulation, file = read_job(folder / "particle.toml", changes, SimulationJob), folder / "series.h5"
    write_experiment(build_experiment(simulation), file, simulation, lambda patterns: None)
    start(job_of(file), folder / "run")
    return read(file), read_truth(file), load(folder / "run" / "result.h5")
