"""Report of a run: one page with its verdict, pictures, calibration, job and versions."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..analysis.verdict import Verdict
from ..io.atomic_write import atomic_path
from ..io.provenance import provenance
from ..start.measured import Measured
from .calibration import PAGE, SHEET, VALUES
from .page import fold_away, heading, html_rows, page, paragraphs, picture_of

CALIBRATION = "calibration"  # folder in that of a run
FIRST = ("summary", "sections", "object", "slices", "views")  # pictures, in this order


def write_run_report(
    folder: Path,
    rows: Mapping[str, str],
    verdict: Verdict | None,
    cautions: Iterable[str],
    job: str,
) -> None:
    """Write `report.html` of the run in `folder`, from its pictures and the text of its `job`."""
    parts = [
        *([] if verdict is None else [paragraphs(str(verdict).splitlines(), not verdict.explains)]),
        paragraphs(cautions, True),
        *_pictures(folder)[:1],
        html_rows(rows),
        *_calibration(folder / CALIBRATION),
        heading("Pictures"),
        *_pictures(folder)[1:],
        heading("Job"),
        fold_away("run.toml", job),
        heading("Versions, to cite"),
        html_rows(_provenance()),
    ]
    with atomic_path(folder / PAGE, overwrite=True) as draft:
        draft.write_text(page(folder.resolve().name, *parts), encoding="utf-8")


def _provenance() -> dict[str, str]:
    about = "differentiable electron ptychography in JAX"
    return {"software": f"jaxptycho, {about}"} | {
        name.replace("_", " "): value for name, value in provenance().items()
    }


def _pictures(folder: Path) -> list[str]:
    """Images of the figures of a run, the most telling first."""
    files = sorted((folder / "figures").glob("*.png"))
    first = [file for name in FIRST for file in files if file.stem == name]
    return [picture_of(file) for file in [*first, *(f for f in files if f not in first)]]


def _calibration(folder: Path) -> list[str]:
    """Section of the calibration of a run, empty without one."""
    if not (folder / VALUES).exists():
        return []
    found = json.loads((folder / VALUES).read_text(encoding="utf-8"))["quantities"]
    rows = {name: _measured(**value) for name, value in found.items()}
    cells = {name: (value.amount, value.source) for name, value in rows.items()}
    return [heading("Calibration"), picture_of(folder / SHEET), html_rows(cells)]


def _measured(value: float, error: float | None, unit: str, source: str) -> Measured:
    return Measured(value, math.inf if error is None else error, unit, source)
