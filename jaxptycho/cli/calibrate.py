"""`jaxptycho calibrate`, and `jaxptycho run` of a file without a job."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..distributed.multihost import first, run_on_rank0
from ..jobs.runner import Outcome
from ..jobs.without_job import look_at, run_file
from ..reports.calibration import PAGE, calibration_json, calibration_table, write_calibration
from ..runs.folder import refuse_existing
from ..start.calibrate import Calibration
from .output import print_table, print_warnings, run_listener


def run_calibrate(file: Path, out: Path | None, settings: Sequence[str], as_json: bool) -> None:
    """Print the calibration of `file` and write its sheet, page and values to a new folder.

    As JSON the values alone are printed, and a folder is written only if `out` names it.
    """
    folder = out or Path(f"{file.stem}-calibration")
    writes = out is not None or not as_json
    if writes:
        refuse_existing(folder)
    look = look_at(file, settings)
    if writes:
        write_calibration(look, folder, file.name)
    if as_json:
        print(calibration_json(look, file=str(file)), end="")
        return
    _print(look, file)
    print(f"wrote {folder}; look at {folder / PAGE}")


def reconstruct_file(file: Path, folder: Path, settings: Sequence[str]) -> Outcome:
    """Reconstruct a measurement in a new folder, after a calibration of a scan."""
    run_on_rank0(partial(refuse_existing, folder))

    def show(look: Calibration) -> None:
        if first():
            _print(look, file)

    return run_file(file, folder, run_listener(), settings, show)


def _print(look: Calibration, file: Path) -> None:
    print_table(calibration_table(look), str(file))
    print_warnings(look.warnings)
