"""A file without a job: a scan is calibrated and reconstructed by the job that the calibration
gives, a tilt series by the course of such series.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..reports.calibration import write_calibration
from ..reports.run import CALIBRATION
from ..runs.progress import ProgressListener
from ..start.calibrate import Calibration, calibrate
from .calibrated import job_values, sign_of
from .job import Job
from .measurement import read_data
from .new import series_values
from .reading import change, make_job, with_defaults
from .runner import Outcome, start

MEASURED = ("data.", "scan.")  # settings that say how a file is read


def look_at(file: Path, settings: Sequence[str] = ()) -> Calibration:
    """Calibration of a file; `settings` as of a job for it, such as `data.voltage_kv=300`.

    Raises ValueError in one sentence that names the file.
    """
    return _calibrated(file, _measured(file, settings), settings)


def _measured(file: Path, settings: Sequence[str]) -> Dataset:
    """Measurement of a file by the settings of its sections."""
    of_data = [setting for setting in settings if setting.startswith(MEASURED)]
    with _named(file):
        return read_data(_job_as_it_is(file, of_data))


def _calibrated(file: Path, data: Dataset, settings: Sequence[str]) -> Calibration:
    job = _job_as_it_is(file, settings)
    with _named(file):
        return calibrate(data, sign_of(job.probe.defocus_angstrom), job.probe.semiangle_mrad)


def _job_as_it_is(file: Path, settings: Sequence[str]) -> Job:
    return make_job(_changed({"data": {"file": str(file.resolve())}}, settings), file)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
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


def run_file(
    file: Path,
    folder: Path,
    listener: ProgressListener | None = None,
    settings: Sequence[str] = (),
    show: Callable[[Calibration], None] = lambda look: None,
) -> Outcome:
    """Reconstruct a file in `folder`: a scan by the job of its calibration, whose report is in it,
    and which `show` is given; a tilt series by the course of such series.
    """
    data = _measured(file, settings)
    if data.n_views > 1:
        values = _changed(series_values(data, str(file.resolve())), settings)
        return start(make_job(values, file), folder, listener)
    look = _calibrated(file, data, settings)
    show(look)
    report = partial(write_calibration, look, title=file.name)
    job = calibrated_job(look, file, settings)
    return start(job, folder, listener, attach=lambda run: report(run / CALIBRATION))
