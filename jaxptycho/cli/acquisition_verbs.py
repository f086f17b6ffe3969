"""Verbs of acquisition: `acquire` and `tracking`; what they do is loaded when they run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .errors import tidy
from .options import AsJson, Debug, Out
from .output import print_table


@tidy
def acquire(
    job: Annotated[
        Path, typer.Argument(metavar="JOB.toml", help="Microscope, tilts, targets and limits.")
    ],
    out: Out = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="A simulated microscope in place of SerialEM.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the series in the folder, if it has begun.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Acquire a tilt series of several targets through SerialEM, or in simulation."""
    from .acquire import run_acquire

    run_acquire(job, out or Path(f"{job.stem}-series"), simulate, resume)


@tidy
def tracking(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG.mdoc", help="Log of a tilt series of SerialEM or Tomography 5."
        ),
    ],
    out: Out = None,
    across_um: Annotated[
        float | None,
        typer.Option(
            help="Place of the target across the tilt axis [µm]; by default that of the first "
            "recorded shift of the specimen, or 0."
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Report how well the target of a recorded tilt series was predictable, and where it was lost;
    a figure and a table of tilts in a new folder.
    """
    from ..acquisition.log_report import FIGURE, LogReport
    from ..acquisition.tilt_log import read_tilt_log
    from ..acquisition.units import ANGSTROM_PER_UM
    from ..runs.folder import refuse_existing

    folder = out or Path(f"{log.stem}-tracking")
    writes = out is not None or not as_json
    if writes:
        refuse_existing(folder)
    across = None if across_um is None else across_um * ANGSTROM_PER_UM
    report = LogReport(read_tilt_log(log), across)
    if writes:
        report.write(folder)
    if as_json:
        print(json.dumps(report.rows(), indent=1, ensure_ascii=False))
        return
    print_table(report.rows(), str(log))
    print(f"wrote {folder}; look at {folder / FIGURE}")
