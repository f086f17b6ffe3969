"""The documentation names every public thing and every key of a job, and its links lead somewhere."""

import re
import sys
from pathlib import Path
from types import ModuleType

import jaxptycho as jp

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

from job_keys import job_keys  # noqa: E402

OF_MODULES = {"amplitude", "anscombe", "gaussian", "poisson"}  # with the module of the losses
TYPES = {"Sliced", "Varying"}


def test_every_public_name_is_in_the_reference():
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"auto(?:class|function):: (\w+)", text))
    public = {name for name in jp.__all__ if not isinstance(getattr(jp, name), ModuleType)}
    assert public - OF_MODULES - TYPES == named


def test_the_reference_of_keys_tells_type_default_and_meaning():
    page = job_keys()
    assert "| `semiangle_mrad` | number | none" in page
    assert '| `transform` | text | `"none"` | orientation of the scan' in page
    assert "| `hold_out` | number ≥ 0, ≤ 0.5 | `0.02` |" in page
    assert '| `order` | text | none, such as `"serpentine"` |' in page
    for heading in ("## `[data]`", '### `kind = "refine"`', "### `positivity`", "### `poisson`"):
        assert heading in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}  # no cell breaks a row


def test_links_of_pages_lead_somewhere():
    made = {"reference/job_keys.md"}
    for page in DOCS.glob("*.md"):
        targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
        local = [target for target in targets if "://" not in target and target not in made]
        assert [target for target in local if not (page.parent / target).exists()] == []
