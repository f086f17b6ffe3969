"""Logs of tilt series as microscopes write them: mdoc of SerialEM, tables of Tomography 5."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

ANGSTROM_PER_UM = 1e4
RESIDUAL_PIXEL = re.compile(r"1 px = ([\d.]+) A")


@dataclass(frozen=True)
class TiltLog:
    """Tilts of a series in the order of exposure, in Å and rad; NaN where nothing was recorded.

    `shift` is the image shift in (x along the tilt axis, y); where only units of the microscope
    were logged, along its own axes. `defocus` > 0 is underfocus. `height` is the fitted z₀ of the
    community rule (upstream), `residual` the shift that an alignment of the images found
    afterwards.
    """

    angle: Float[np.ndarray, " tilt"]
    shift: Float[np.ndarray, "tilt 2"]
    shift_is_of_specimen: bool
    defocus: Float[np.ndarray, " tilt"]
    height: Float[np.ndarray, " tilt"]
    residual: Float[np.ndarray, "tilt 2"]

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
    log = _table(text) if path.suffix == ".csv" else _mdoc(text)
    if len(log.angle) < 2:
        raise ValueError(
            f"{path} has {len(log.angle)} tilts; an .mdoc with sections [ZValue = n] and a key "
            "TiltAngle in each is required, or a .csv of Tomography 5"
        )
    return log


def _mdoc(text):
    sections = re.split(r"^\[ZValue = .*\]\s*$", text, flags=re.MULTILINE)[1:]
    images = [dict(re.findall(r"^(\w+) = (.*?)\s*$", s, flags=re.MULTILINE)) for s in sections]
    images = [image for image in images if "TiltAngle" in image]

    def numbers(key: str, count: int = 1) -> np.ndarray:
        rows = [[float(v) for v in image.get(key, "").split()] for image in images]
        full = [row if len(row) == count else [np.nan] * count for row in rows]
        return np.array(full, float).reshape(-1, count)

    of_specimen = bool(images) and all("SpecimenShift" in image for image in images)
    shift = numbers("SpecimenShift" if of_specimen else "ImageShift", 2)
    return TiltLog(
        np.deg2rad(numbers("TiltAngle")[:, 0]),
        shift * ANGSTROM_PER_UM,
        of_specimen,
        -numbers("Defocus")[:, 0] * ANGSTROM_PER_UM,
        numbers("EucentricOffset")[:, 0] * ANGSTROM_PER_UM,
        np.full((len(images), 2), np.nan),
    )


def _table(text):
    comments = "".join(line for line in text.splitlines() if line.startswith("#"))
    rows = [line for line in csv.reader(text.splitlines()) if line and line[0][0] != "#"]
    numbers = np.array([[float(v) if i != 7 else np.nan for i, v in enumerate(r)] for r in rows])
    pixel = RESIDUAL_PIXEL.search(comments)
    scale = float(pixel.group(1)) if pixel else np.nan
    return TiltLog(
        np.deg2rad(numbers[:, 1]),
        numbers[:, [4, 5]] * ANGSTROM_PER_UM,
        False,
        -numbers[:, 6] * ANGSTROM_PER_UM,
        np.full(len(numbers), np.nan),
        numbers[:, [8, 9]] * scale,
    )
