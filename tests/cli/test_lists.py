"""Names that jobs accept, the version, and one place for it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import jaxptycho
from jaxptycho.cli.lists import LISTS
from jaxptycho.cli.main import app

ROOT = Path(__file__).parents[2]
SOME = {
    "templates": "bilayer",
    "phantoms": "twisted_bilayer",
    "data": "few_tilts",
    "keys": "probe.semiangle_mrad",
    "steps": "refine",
    "losses": "poisson",
    "penalties": "l1",
    "constraints": "positivity",
    "solvers": "lsqml",
}


@pytest.mark.parametrize("what", LISTS)
def test_every_list_has_names_with_meanings(what):
    rows = LISTS[what]()
    assert SOME[what] in rows
    assert all(len(about) > 5 for about in rows.values()), rows


def test_lists_are_printed_and_others_refused():
    printed = CliRunner().invoke(app, ["list", "phantoms"])
    assert printed.exit_code == 0
    assert "twisted_bilayer" in printed.output
    refused = CliRunner().invoke(app, ["list", "colours"])
    assert refused.exit_code == 2
    assert "'colours' is no list; known are templates" in refused.stderr


def test_the_version_is_printed_and_that_of_the_citation():
    assert re.match(r"jaxptycho \d+\.\d+", CliRunner().invoke(app, ["--version"]).output)
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {jaxptycho.__version__}\n" in citation
