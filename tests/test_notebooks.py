"""Every notebook runs from top to bottom in its small size, asserts included."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_all_are_here():
    names = [
        "01_lecture",
        "02_your_own_loss",
        "03_a_new_effect",
        "04_when_is_a_specimen_thick",
        "05_tilt_series",
    ]
    assert [path.stem for path in NOTEBOOKS] == names


LONG = ("04_when_is_a_specimen_thick", "05_tilt_series")  # half a minute and more


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in LONG)) for p in NOTEBOOKS],
)
def test_runs(path, monkeypatch):
    monkeypatch.setenv("JAXPTYCHO_SMALL", "1")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize(
    ("name", "first", "lines"),
    [("02_your_own_loss", "def heavy_tails", 15), ("03_a_new_effect", "class Refocused", 10)],
)
def test_what_is_ones_own_is_short(name, first, lines):
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    (cell,) = (c for c in nbformat.read(path, as_version=4).cells if c.source.startswith(first))
    assert len([line for line in cell.source.splitlines() if line.strip()]) <= lines
