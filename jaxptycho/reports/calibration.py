"""Report of a calibration: sheet of pictures, page for a browser, values for scripts."""

import html
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from ..figures.calibration import draw_calibration
from ..figures.html import image_of
from ..figures.plots import save
from ..start.calibrate import Calibration
from ..start.measured import Measured

SHEET = "calibration.png"
PAGE = "report.html"
VALUES = "calibration.json"
STYLE = """body { font-family: sans-serif; margin: 2em; max-width: 75em }
th { text-align: left; font-weight: normal; padding-right: 2em }
td { padding-right: 2em } img { max-width: 100% } .warning { color: #a00 }"""


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
        figure = draw_calibration(look)
        save(figure, draft / SHEET)
        (draft / PAGE).write_text(page_of(look, image_of(figure), title), encoding="utf-8")
        (draft / VALUES).write_text(calibration_json(look), encoding="utf-8")
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def page_of(look: Calibration, image: str, title: str) -> str:
    """HTML page with all in it."""
    rows = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(amount)}</td>"
        f"<td>{html.escape(source)}</td></tr>"
        for name, (amount, source) in calibration_table(look).items()
    )
    warnings = (f'<p class="warning">{html.escape(text)}</p>' for text in look.warnings)
    return "\n".join(
        (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>'
            f"{html.escape(title)}</title>",
            f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>",
            *warnings,
            image,
            f"<table>{''.join(rows)}</table>",
            "</body></html>",
        )
    )
