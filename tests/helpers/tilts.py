"""A small tilt series: how it is simulated, and a job that is soon done with it."""

from pathlib import Path
from typing import Any

from jaxptycho.jobs.job import Job
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.simulation import run_simulation

SIMULATION = {
    "specimen": {"phantom": "platinum_in_alumina", "options": {"edge": 6.0, "core": 3.0}},
    "microscope": {"voltage_kv": 200.0, "semiangle_mrad": 25.0, "defocus_angstrom": 30.0},
    "scan": {"shape": [4, 4], "step_angstrom": 1.5, "dose_per_square_angstrom": 1e5},
    "detector": {"pixels": 24, "pixel_angstrom": 0.5},
    "tilt_series": {"tilts_deg": [-30.0, 0.0, 40.0], "shift_angstrom": 0.3},
    "sampling": {"slice_angstrom": 3.0, "pixel_angstrom": 0.25},
}
VOLUME = {
    "kind": "volume",
    "size_angstrom": [8.0, 8.0, 8.0],
    "slices": 2,
    "kernel": "linear",
    "isolated": True,
}
VIEWS = {"kind": "views", "epochs": 2, "batch": 8}
ALIGN = {"kind": "align", "rounds": 1, "iterations": 2, "bins": [2]}
LINEAR = {"kind": "linear", "iterations": 2}
SERIES = {"kind": "refine", "optimiser": "layerwise_adam", "poses": "all", "batch": 16}
COARSE = SERIES | {"name": "coarse", "epochs": 1, "poses": "shifts", "reset_volume": True}
FINE = SERIES | {"name": "fine", "epochs": 2, "rates": {"specimen": 1e-2}}
STEPS = [VIEWS, ALIGN, LINEAR, COARSE, FINE]
JOB = {"specimen": VOLUME, "step": STEPS, "run": {"devices": 1}}


def job_of(series: Path, **changes: Any) -> Job:
    """The job of a series with other sections."""
    return make_job(JOB | {"data": {"file": str(series), "hold_out": 0.1}} | changes)


def simulate_file(simulation: dict[str, Any], path: Path) -> dict[str, str]:
    """Write what a simulation makes to a path."""
    step: Any = make_job({"step": [{"kind": "simulate"} | simulation]}).step[0]
    return run_simulation(step, path)
