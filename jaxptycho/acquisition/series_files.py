"""Files of a series beside its journal: its progress, and an mdoc of each target."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ..io.atomic_write import atomic_path
from .journal import Event
from .mdoc import Mdoc, date_time, write_mdoc
from .series_state import SeriesState
from .units import ANGSTROM_PER_NM, ANGSTROM_PER_UM

PROGRESS = "progress.json"


def progress(state: SeriesState, names: Sequence[str], seconds: float) -> dict[str, Any]:
    """Place of a series in its plan: minutes, tilts, and every target.

    Predictions (µm) and their standard deviations (nm) are those of the present tilt.
    """
    tilt = max(state.tilt, 0)
    branch = bool(state.plan.branch[tilt])
    targets = []
    for i, name in enumerate(names):
        aim = state.belief.predict(state.exposures, i, tilt)
        targets.append(
            {
                "name": name,
                "exposed": sum(target == i for target, _ in state.scans),
                "ended": state.ended.get((i, branch), ""),
                "shift_um": _rounded(aim.shift, ANGSTROM_PER_UM),
                "underfocus_um": _rounded(aim.focus, ANGSTROM_PER_UM),
                "sigma_nm": _rounded(aim.sigma, ANGSTROM_PER_NM),
            }
        )
    return {
        "minutes": round(seconds / 60, 2),
        "minutes_left": round(state.seconds_left() / 60, 2),
        "tilt": tilt,
        "tilts": len(state.plan.angles),
        "angle_deg": round(float(np.rad2deg(state.plan.angles[tilt])), 3),
        "exposures": len(state.scans),
        "exposures_left": state.remaining()[1],
        "finished": state.finished,
        "targets": targets,
    }


def write_progress(path: Path, values: dict[str, Any]) -> None:
    """Replace the file as a whole."""
    with atomic_path(path, overwrite=True) as draft:
        draft.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


def mdoc_of(events: Sequence[Event], state: SeriesState, target: int, dose: float) -> Mdoc:
    """Metadata of one target: a section for each of its scans, in the order of exposure.

    Shifts are those of the specimen [µm, x along the tilt axis], defocus is negative under focus,
    `EucentricOffset` the believed height z₀ (upstream); `dose` [e/Å²] is that of every scan.
    """
    start = events[0]
    began = datetime.fromisoformat(start["date"])
    readings = {e["tilt"]: e["reading"] for e in events if e["event"] == "tilt"}
    height = -float(np.asarray(state.belief.mean.targets)[target, 2]) / ANGSTROM_PER_UM
    images = []
    pixel = 0.0
    for event in events:
        if event["event"] != "exposed" or event["target"] != target:
            continue
        x, y = np.array(event["shift"]) / ANGSTROM_PER_UM
        pixel = event["pixel"]
        images.append(
            {
                "ZValue": str(len(images)),
                "TiltAngle": f"{np.rad2deg(readings[event['tilt']]):.5f}",
                "Defocus": f"{-event['focus'] / ANGSTROM_PER_UM:.5f}",
                "ExposureDose": f"{dose:g}",
                "PriorRecordDose": f"{dose * len(images):g}",
                "PixelSpacing": f"{pixel:g}",
                "SubFramePath": f"{event['name']}.npz",
                "DateTime": date_time(began + timedelta(seconds=event["time"] - start["time"])),
                "SpecimenShift": f"{x:.6f} {y:.6f}",
                "EucentricOffset": f"{height:.6f}",
            }
        )
    titles = (
        "T = jaxptycho: tilt series of several targets",
        "T =     Tilt axis angle = 0.0, binning = 1  spot = 1  camera = 0",
    )
    return Mdoc({"PixelSpacing": f"{pixel:g}", "DataMode": "2"}, titles, tuple(images))


def write_mdocs(
    folder: Path,
    events: Sequence[Event],
    state: SeriesState,
    names: Sequence[str],
    dose: float = 0.0,
) -> None:
    """Write an mdoc of every target that was exposed."""
    for target, name in enumerate(names):
        mdoc = mdoc_of(events, state, target, dose)
        if mdoc.images:
            write_mdoc(folder / f"{name}.mdoc", mdoc)


def _rounded(values: Any, unit: float) -> Any:
    return np.round(np.asarray(values, float) / unit, 4).tolist()
