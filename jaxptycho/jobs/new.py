"""New job files: for a measurement, for a phantom, from a template."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from ..data import Dataset
from ..io.datasets import read, reading_of
from ..io.readers.completion import completed, missing_sentence
from ..io.readers.detector import with_detector
from ..simulate.phantoms import PHANTOMS
from ..start.calibrate import Calibration, calibrate
from ..start.cautions import cautions
from .calibrated import fitting_template, job_values
from .reading import make_job, with_defaults
from .schema import suggest
from .template_files import template_text
from .writing import write_job

NARROW_DEG = 50.0  # largest tilt of a series that needs more rounds of its poses
NARROW_EPOCHS = 8
# what a file may know, and the section of a job that gives it
PLACES = {
    "semiangle_mrad": "probe",
    "defocus_angstrom": "probe",
    "thickness_angstrom": "specimen",
}


def new_job(file: Path, target: Path, template: str | None = None) -> str:
    """TOML text of a commented job for `file`, to be written to `target`."""
    _refuse_existing(target)
    relative = os.path.relpath(file.resolve(), target.resolve().parent)
    if template is not None:
        return _from_template(template, file, relative)
    if (absent := _missing_in(file)) is not None:
        warnings.warn(absent, stacklevel=2)
        return write_job(make_job({"data": {"file": relative}}), blanks=True)
    data = read(file)
    doubts = [str(caution) for caution in cautions(data)]
    for text in doubts:
        warnings.warn(text, stacklevel=2)
    if data.n_views > 1:
        return write_job(make_job(series_values(data, relative)), blanks=True)
    look = _calibrated(data)
    if look is not None:
        values, sources = job_values(look, relative)
        return write_job(
            make_job(values), blanks=True, sources=sources, head=_remarks(look, doubts)
        )
    values = known_values(data, relative)
    if "effective_distance_angstrom" in data.about:
        values["data"]["near_field"] = True
    return write_job(make_job(values), blanks=True)


def known_values(data: Dataset, file: str) -> dict[str, Any]:
    """Values of a job for a measurement: its `file`, and what that knows of probe and specimen."""
    values: dict[str, Any] = {"data": {"file": file}}
    for name, section in PLACES.items():
        if name in data.about:
            values.setdefault(section, {})[name] = float(data.about[name])
    return values


def series_values(data: Dataset, file: str) -> dict[str, Any]:
    """Values of the job of a tilt series: the default course, with more rounds of the poses where
    the range of tilts is small.
    """
    values = known_values(data, file)
    values["specimen"] = {"kind": "volume"}
    if data.tilts is None or np.rad2deg(np.abs(data.tilts).max()) > NARROW_DEG:
        return values
    values = with_defaults(values)
    for step in values["step"]:
        if step.get("name") == "coarse":
            step["epochs"] = NARROW_EPOCHS
    return values


def _calibrated(data: Dataset) -> Calibration | None:
    """Calibration of a measurement, None with a warning where it cannot be calibrated."""
    try:
        return calibrate(data)
    except ValueError as error:
        warnings.warn(f"not calibrated: {error}", stacklevel=3)
        return None


def _remarks(look: Calibration, doubts: Sequence[str]) -> list[str]:
    """Lines before a job of a calibrated measurement."""
    lines = [
        "Calibrated from the patterns: value ± error ← source beside the keys.",
        f"Template for such data: {fitting_template(look)}",
    ]
    return lines + [f"warning: {text}" for text in (*doubts, *look.warnings)]


def _missing_in(file: Path) -> str | None:
    """Sentence that names what the file of a camera does not give; None if it gives all."""
    reading = reading_of(file)
    return None if reading is None else missing_sentence(with_detector(completed(reading, {})))


def new_simulation(phantom: str, target: Path) -> str:
    """TOML text of a commented job that simulates a phantom, to be written to `target`."""
    _refuse_existing(target)
    simulate = {
        "kind": "simulate",
        "file": f"{target.stem}.h5",
        "specimen": {"phantom": phantom},
        "microscope": {"voltage_kv": 300.0, "semiangle_mrad": 21.4, "defocus_angstrom": 100.0},
        "scan": {"step_angstrom": 0.5, "dose_per_square_angstrom": 1e6},
        "detector": {"pixel_angstrom": 0.25},
    }
    return write_job(make_job({"step": [simulate]}), blanks=True, only=("step",))


def _from_template(template: str, file: Path, relative: str) -> str:
    """The job of a template for a measurement, or for a phantom if it simulates."""
    job: Any = tomlkit.parse(template_text(template))
    simulates = job["step"][0]["kind"] == "simulate"
    if not simulates:
        job["data"]["file"] = relative
        return tomlkit.dumps(job)
    if str(file) not in PHANTOMS:
        raise ValueError(
            f"the template {template} simulates, and {file} is no phantom; "
            f"{suggest(str(file), PHANTOMS)}"
        )
    specimen = job["step"][0]["specimen"]
    if str(file) != specimen["phantom"]:
        specimen["phantom"] = str(file)
        specimen.pop("options", None)
    return tomlkit.dumps(job)


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise ValueError(f"{target} exists and is not overwritten; choose another name with --out")
