"""A small tilt series: how it is simulated, and a job that is soon done with it."""

from pathlib import Path

from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.tomogram_schema import TomogramJob

SIMULATION = {
    "specimen": {"phantom": "platinum_in_alumina", "options": {"edge": 6.0, "core": 3.0}},
    "microscope": {"voltage_kv": 200.0, "semiangle_mrad": 25.0, "defocus_angstrom": 30.0},
    "scan": {"shape": [4, 4], "step_angstrom": 1.5, "dose_per_square_angstrom": 1e5},
    "detector": {"pixels": 24, "pixel_angstrom": 0.5},
    "tilt_series": {"tilts_deg": [-30.0, 0.0, 40.0], "shift_angstrom": 0.3},
    "sampling": {"slice_angstrom": 3.0, "pixel_angstrom": 0.25},
}
JOB = {
    "volume": {"size_angstrom": [8.0, 8.0, 8.0], "slices": 2, "kernel": "linear", "isolated": True},
    "views": {"epochs": 2, "batch": 8},
    "alignment": {"turns": 1, "iterations": 2, "bins": [2]},
    "linear": {"iterations": 2},
    "stage": [
        {"name": "coarse", "epochs": 1, "batch": 16, "poses": "shifts", "anew": True},
        {"name": "fine", "epochs": 2, "batch": 16, "rates": {"specimen": 1e-2}},
    ],
    "run": {"devices": 1},
}


def job_of(series: Path, **changes) -> TomogramJob:
    return make_job(JOB | {"data": {"file": str(series), "hold_out": 0.1}} | changes, kind=TomogramJob)
