"""`jaxptycho acquire`: the microscope of a job, its schedule, and what is printed of it."""

from pathlib import Path

import numpy as np

from ..acquisition.journal import JOURNAL
from ..acquisition.microscopes.kept_simulation import KeptSimulation
from ..acquisition.microscopes.serialem import connect
from ..acquisition.microscopes.simulated import (
    GENTLE,
    GENTLE_CAMERA,
    HARSH,
    HARSH_CAMERA,
    SimulatedMicroscope,
)
from ..acquisition.schedule import Acquisition
from ..acquisition.series_files import PROGRESS, progress, write_mdocs, write_progress
from ..acquisition.station import SpecimenFrame, Station
from ..io.atomic_write import atomic_path
from ..jobs.acquire_job import AcquireJob, MicroscopeSection, read_acquire_job
from ..jobs.writing import write_job
from ..runs.folder import refuse_existing

JOB = "acquire.toml"
SCANS = "scans"
SIMULATION = "simulation.pickle"
WORLDS = {"gentle": (GENTLE, GENTLE_CAMERA), "harsh": (HARSH, HARSH_CAMERA)}


def run_acquire(path: Path, folder: Path, simulate: bool, resume: bool) -> None:
    """Acquire the series of a job into a new folder, or go on with the one in it."""
    job = read_acquire_job(path)
    begun = (folder / JOURNAL).exists()
    if not (resume and begun):
        refuse_existing(folder)
    simulated = (folder / SIMULATION).exists()
    if begun and simulated != simulate:
        raise ValueError(
            f"the series in {folder} is {'' if simulated else 'not '}simulated; "
            f"{'give' if simulated else 'leave out'} --simulate, or choose another folder"
        )
    microscope = _simulated(job.microscope, folder) if simulate else _serialem(job.microscope)
    try:
        frames = SpecimenFrame(focus_sign=job.plan().focus_sign)
        station = Station(microscope, frames, folder / SCANS, microscope.displacement)
        _acquire(job, station, folder)
    finally:
        microscope.blank()


def _acquire(job: AcquireJob, station: Station, folder: Path) -> None:
    names = [target.name for target in job.target]
    dose = job.microscope.dose_per_a2

    def show(series: Acquisition, event: str) -> None:
        if event in ("exposed", "tracked", "finish"):
            write_progress(folder / PROGRESS, progress(series.state, names, series.seconds()))
        if event == "tracked":
            _print_tilt(series)
            write_mdocs(folder, series.journal.events, series.state, names, dose)
        elif event in ("end", "skip", "lost", "waiting"):
            print(_failure(series.journal.events[-1], names), flush=True)

    with atomic_path(folder / JOB, overwrite=True) as draft:
        draft.write_text(write_job(job), encoding="utf-8")
    series = Acquisition(
        job.plan(), station, folder, job.geometry_prior(), job.limits(), listener=show
    )
    state = series.run()
    write_mdocs(folder, series.journal.events, state, names, dose)
    print(
        f"{len(state.scans)} scans of {len(names)} targets at {len(series.plan.angles)} tilts in "
        f"{series.seconds() / 60:.1f} min, in {folder}"
    )


def _print_tilt(series: Acquisition) -> None:
    state = series.state
    angle = np.rad2deg(np.asarray(state.exposures.angle)[state.tilt])
    print(
        f"tilt {state.tilt + 1} of {len(series.plan.angles)}, {angle:+.1f}°, "
        f"{len(state.pending(state.tilt))} targets; {series.seconds() / 60:.1f} min, "
        f"{state.seconds_left() / 60:.1f} min left",
        flush=True,
    )


def _failure(event, names) -> str:
    """Line for an event that the plan does not have."""
    if event["event"] == "waiting":
        return f"waiting: {event['why']}"
    name = names[event["target"]]
    tilt = f"tilt {event['tilt'] + 1}"
    if event["event"] == "end":
        branch = "negative" if event["branch"] else "positive"
        return f"{name} ends on the {branch} branch at {tilt}: {event['why']}"
    why = event.get("why", "not found, the prediction is kept")
    return f"{name} at {tilt}: {why}"


def _simulated(section: MicroscopeSection, folder: Path) -> KeptSimulation:
    world, camera = WORLDS[section.world]
    folder.mkdir(parents=True, exist_ok=True)
    return KeptSimulation(
        folder / SIMULATION, lambda: SimulatedMicroscope(world, section.seed, camera)
    )


def _serialem(section: MicroscopeSection):
    return connect(section.address, section.port, underfocus_um=section.underfocus_um)
