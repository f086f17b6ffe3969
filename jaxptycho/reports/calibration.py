"""Report of a calibration: sheet of pictures, page for a browser, values for scripts."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from ..figures.calibration import draw_calibration
from ..figures.plots import save
from ..start.calibrate import Calibration
from ..start.measured import Measured
from .page import html_rows, page, paragraphs, picture_of

SHEET = "calibration.png"
PAGE = "report.html"
VALUES = "calibration.json"


def calibration_values(look: Calibration) -> dict[str, Any]:
    """Measured quantities, orientation and warnings as plain values; unknown errors are None."""
    found: dict[str, Any] = {name: _plain(value) for name, value in look.rows().items()}
    about: dict[str, Any] = {"near_field": look.hologram is not None, "quantities": found}
    if look.orientation is not None:
        evidence = {name: float(value) for name, value in look.orientation.evidence.items()}
        about |= {"scan_transform": look.orientation.transform, "evidence": evidence}
    if look.optics is not None:
        about["ambiguous"] = bool(look.optics.ambiguous)
    return about | {"warnings": list(look.warnings)}


def _plain(measured: Measured) -> dict[str, Any]:
    known = math.isfinite(measured.error)
    return {
        "value": float(measured.value),
        "error": float(measured.error) if known else None,
        "unit": measured.unit,
        "source": measured.source,
    }


def calibration_json(look: Calibration, **about: str) -> str:
    """`calibration_values`, and `about`, as text."""
    return json.dumps(about | calibration_values(look), indent=1, ensure_ascii=False) + "\n"


def calibration_table(look: Calibration) -> dict[str, tuple[str, str]]:
    """Rows of name, value ± error and source."""
    return {name: (value.amount, value.source) for name, value in look.rows().items()}


def write_calibration(look: Calibration, folder: Path, title: str) -> None:
    """Write sheet, page and values as the new `folder`, completely or not at all."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        save(draw_calibration(look), draft / SHEET)
        image = picture_of(draft / SHEET)
        (draft / PAGE).write_text(page_of(look, image, title), encoding="utf-8")
        (draft / VALUES).write_text(calibration_json(look), encoding="utf-8")
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def page_of(look: Calibration, image: str, title: str) -> str:
    """HTML page with all in it."""
    return page(title, paragraphs(look.warnings, True), image, html_rows(calibration_table(look)))
