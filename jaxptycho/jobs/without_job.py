"""A file without a job: calibrated, then reconstructed by the job that the calibration gives."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..reports.calibration import write_calibration
from ..reports.run import CALIBRATION
from ..runs.progress import ProgressListener
from ..start.calibrate import Calibration, calibrate
from .calibrated import job_values, sign_of
from .job import Job
from .measurement import read_data
from .reading import change, make_job, with_defaults
from .runner import Outcome, start


def look_at(file: Path, settings: Sequence[str] = ()) -> Calibration:
    """Calibration of a file; `settings` as of a job for it, such as `data.voltage_kv=300`.

    Raises ValueError in one sentence that names the file.
    """
    job = make_job(_changed({"data": {"file": str(file.resolve())}}, settings), file)
    try:
        sign = sign_of(job.probe.defocus_angstrom)
        return calibrate(read_data(job), sign, job.probe.semiangle_mrad)
    except ValueError as error:
        named = str(error) if file.name in str(error) else f"{file}: {error}"
        raise ValueError(named) from error


def _changed(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Values of a job after settings KEY=VALUE."""
    values = with_defaults(values) if settings else values
    for setting in settings:
        change(values, setting)
    return values


def calibrated_job(look: Calibration, file: Path, settings: Sequence[str] = ()) -> Job:
    """Job that reconstructs a calibrated file; `settings` replace what was found."""
    values = job_values(look, str(file.resolve()))[0]
    return make_job(_changed(values, settings), file)


def run_calibrated(
    look: Calibration,
    file: Path,
    folder: Path,
    listener: ProgressListener | None = None,
    settings: Sequence[str] = (),
) -> Outcome:
    """Run the job of a calibrated file in `folder`, with the report of the calibration in it."""
    report = partial(write_calibration, look, title=file.name)
    job = calibrated_job(look, file, settings)
    return start(job, folder, listener, attach=lambda run: report(run / CALIBRATION))
