"""What README and docs say works: their Python runs, their commands parse, links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import typer.main
from scans import blobs

from jaxptycho.cli.main import app
from jaxptycho.jobs.template_files import templates

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXT = "\n".join([README, *(page.read_text(encoding="utf-8") for page in PAGES)])
FENCED = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.M | re.S)
PYTHON = [block for language, block in FENCED if language == "python"]
SHELL = [
    line.partition("#")[0]
    for language, block in FENCED
    if language == "sh"
    for line in block.splitlines()
]
COMMANDS = [shlex.split(line)[1:] for line in SHELL if line.startswith("jaxptycho ")]


def test_its_python_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = dict(zip(("counts", "positions"), blobs(side=8), strict=True))
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), names)
    losses = names["result"].losses
    assert losses[-1] < losses[0]
    assert np.isfinite(names["info"]["loss"])
    assert Path("result.h5").exists()
    assert plt.imread("phase.png").shape[0] > 100


def test_it_reconstructs_a_file_in_fifteen_lines():
    (block,) = (block for block in PYTHON if "jp.reconstruct(" in block)
    assert len([line for line in block.splitlines() if line]) <= 15


def test_the_commands_are_all_shown():
    group = typer.main.get_command(app)
    assert {words[0] for words in COMMANDS} | {"demo"} == set(group.commands)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_parses(words):
    command = typer.main.get_command(app).commands[words[0]]
    given = command.make_context(words[0], words[1:]).params
    assert given.get("template") in (None, *templates())


def test_the_templates_are_all_named():
    assert all(f"`{name}`" in TEXT for name in templates())


def test_its_links_lead_somewhere():
    targets = re.findall(r'\]\(([^)]+)\)|src="([^"]+)"', README)
    local = [one or other for one, other in targets if "://" not in one + other]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_pictures_are_small():
    assert all(path.stat().st_size < 200_000 for path in (ROOT / "notebooks" / "figures").iterdir())


def test_the_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"\.\[(\w+)\]", TEXT)) <= set(extras)


def test_the_command_that_ci_takes_from_it_is_there():
    """`.ci/run` runs the one line that ends so, its set-up apart from its tests."""
    (line,) = (line for line in README.splitlines() if line.endswith("-m pytest"))
    assert line in SHELL
    assert line.split(" && ")[-1] == ".venv/bin/python -m pytest"
    assert "'-m pytest$' README.md" in (ROOT / ".ci" / "run").read_text()
