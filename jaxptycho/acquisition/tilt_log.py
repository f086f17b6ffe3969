"""Logs of tilt series as microscopes write them: mdoc of SerialEM, tables of Tomography 5."""

import csv
import re
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .mdoc import Mdoc, parse_mdoc
from .units import ANGSTROM_PER_UM

RESIDUAL_PIXEL = re.compile(r"1 px = ([\d.]+) A")
SECONDS_PER_DAY = 86_400
COLUMNS = (
    "order, tilt [deg], stage x, y [um], image shift x, y [um], defocus [um], time, residual x, y "
    "[px]"
)


@dataclass(frozen=True)
class TiltLog:
    """Tilts of a series in the order of exposure, in Å and rad; NaN where nothing was recorded.

    `shift` is the image shift in (x along the tilt axis, y); where only units of the microscope
    were logged, along its own axes. `defocus` > 0 is underfocus. `height` is the fitted z₀ of the
    community rule (upstream), `residual` the shift that an alignment of the images found
    afterwards, `time` that after the first tilt [s].
    """

    angle: Float[np.ndarray, " tilt"]
    shift: Float[np.ndarray, "tilt 2"]
    shift_is_of_specimen: bool
    defocus: Float[np.ndarray, " tilt"]
    height: Float[np.ndarray, " tilt"]
    residual: Float[np.ndarray, "tilt 2"]
    time: Float[np.ndarray, " tilt"]

    @property
    def branch(self) -> Float[np.ndarray, " tilt"]:
        """Side of each tilt of the first one: +1, −1, and 0 for the first."""
        apart = self.angle - self.angle[0]
        return np.where(np.abs(apart) < 1e-3, 0.0, np.sign(apart))

    @property
    def increment(self) -> float:
        """Nominal step from tilt to tilt [rad], a multiple of a tenth of a degree."""
        steps = np.diff(np.sort(np.rad2deg(self.angle)))
        return float(np.deg2rad(np.round(np.median(steps), 1)))


def read_tilt_log(path: str | Path) -> TiltLog:
    """Read a SerialEM `.mdoc`, or a `.csv` of Tomography 5 tilts with later alignment.

    ValueError if the file has no tilts.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    log = _table(text, path) if path.suffix == ".csv" else log_of(parse_mdoc(text))
    if len(log.angle) < 2:
        raise ValueError(
            f"{path} has {len(log.angle)} tilts; an .mdoc with sections [ZValue = n] and a key "
            "TiltAngle in each is required, or a .csv of Tomography 5"
        )
    numbers = np.column_stack([log.angle, log.shift])
    if (bad := np.flatnonzero(~np.isfinite(numbers).all(1))).size:
        raise ValueError(
            f"{path} has no angle or image shift of {bad.size} of {len(numbers)} tilts (first: the "
            f"tilt {bad[0]}); numbers TiltAngle, and ImageShift or SpecimenShift, are required in "
            "each section"
        )
    return log


def along_the_axis(log: TiltLog) -> TiltLog:
    """Log with shifts along the tilt axis and across it, the direction of the largest steps.

    Where shifts of the specimen were logged they already are.
    """
    if log.shift_is_of_specimen:
        return log
    sides = [log.shift[(log.branch == side) | (log.branch == 0)] for side in (1, -1)]
    steps = np.concatenate([np.diff(side, axis=0) for side in sides])
    return replace(log, shift=log.shift @ np.linalg.svd(steps)[2][::-1].T)


def log_of(mdoc: Mdoc) -> TiltLog:
    """Tilts of an `.mdoc`, by their times where all have one."""
    tilted = tuple(image for image in mdoc.images if "TiltAngle" in image)
    mdoc = replace(mdoc, images=tilted)
    time = mdoc.seconds()
    if np.all(np.isfinite(time)):
        order = np.argsort(time, kind="stable")
        mdoc = replace(mdoc, images=tuple(tilted[k] for k in order))
        time = time[order]
    of_specimen = bool(tilted) and all("SpecimenShift" in image for image in tilted)
    shift = mdoc.numbers("SpecimenShift" if of_specimen else "ImageShift", 2)
    return TiltLog(
        np.deg2rad(mdoc.numbers("TiltAngle")[:, 0]),
        shift * ANGSTROM_PER_UM,
        of_specimen,
        -mdoc.numbers("Defocus")[:, 0] * ANGSTROM_PER_UM,
        mdoc.numbers("EucentricOffset")[:, 0] * ANGSTROM_PER_UM,
        np.full((len(tilted), 2), np.nan),
        time,
    )


def _table(text: str, path: Path) -> TiltLog:
    comments = "".join(line for line in text.splitlines() if line.startswith("#"))
    rows = [line for line in csv.reader(text.splitlines()) if line and line[0][0] != "#"]
    try:
        numbers = np.array([[float(v) for v in row[:7] + row[8:10]] for row in rows])
        columns = numbers.reshape(-1, 9).T
        times = [datetime.strptime(row[7], "%H:%M:%S") for row in rows]
    except (ValueError, IndexError):
        raise ValueError(
            f"{path} is no table of Tomography 5; ten columns are required: {COLUMNS}"
        ) from None
    seconds = np.array([(time - times[0]).total_seconds() for time in times])
    pixel = RESIDUAL_PIXEL.search(comments)
    scale = float(pixel.group(1)) if pixel else np.nan
    return TiltLog(
        np.deg2rad(columns[1]),
        columns[4:6].T * ANGSTROM_PER_UM,
        False,
        -columns[6] * ANGSTROM_PER_UM,
        np.full(len(rows), np.nan),
        columns[7:9].T * scale,
        seconds % SECONDS_PER_DAY,
    )
