"""The templates `particle` and `tilt_series`: from atoms to a measurement, and from it to traced atoms."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxptycho import load
from jaxptycho.cli.main import app
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.simulation import build_experiment
from jaxptycho.reports.evaluate import evaluate_results


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def new(file, template, out) -> Path:
    made = run("new", file, "--template", template, "--out", out)
    assert made.exit_code == 0, made.output
    return out


def test_the_scan_holds_the_particle_and_its_shifts(tmp_path):
    """Every atom of every view: where shifts take some out of the scan, views do not align."""
    job = new("platinum_in_alumina", "particle", tmp_path / "particle.toml")
    (step,) = read_job(job).step
    assert step.simulates
    experiment = build_experiment(step)
    half = np.ptp(experiment.scan, axis=0) / 2
    places = [experiment.turned(view).positions[:, 1::-1] for view in experiment.views]
    beyond = np.abs(np.concatenate(places)) - half
    assert beyond.max() < 3.5  # Å; the probe itself is as wide there


def test_a_template_that_simulates_takes_another_phantom_but_no_file(tmp_path):
    (step,) = read_job(new("cobalt_oxide_cube", "particle", tmp_path / "cube.toml")).step
    assert (step.specimen.phantom, step.specimen.options) == ("cobalt_oxide_cube", {})
    refused = run(
        "new", tmp_path / "scan.h5", "--template", "particle", "--out", tmp_path / "no.toml"
    )
    assert refused.exit_code == 2
    assert "the template particle simulates" in refused.stderr
    assert not (tmp_path / "no.toml").exists()


@pytest.mark.slow
def test_a_newcomer_gets_from_atoms_to_traced_atoms(tmp_path):
    """The commands of the README as they stand: 13 tilts of ±60°, shifts within 3 Å and angles that nobody knows."""

    def command(*words):
        done = subprocess.run(
            [sys.executable, "-m", "jaxptycho", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    command("new", "platinum_in_alumina", "--template", "particle", "--out", "particle.toml")
    command("run", "particle.toml")
    command("new", "particle.h5", "--template", "tilt_series", "--out", "tilts.toml")
    command("run", "tilts.toml")
    volume = load(tmp_path / "tilts" / "result.h5").specimen
    size = np.multiply(volume.potential.shape, volume.voxel)
    assert ((size > 14 + 4) & (size < 14 + 12)).all()  # Å: the particle and vacuum around it
    rows = evaluate_results([tmp_path / "tilts"], tmp_path / "particle.h5")
    heavy, light = (
        float(re.search(r"F1 ([\d.]+)", rows[f"{kind} atoms"][0])[1]) for kind in ("heavy", "light")
    )
    mean, _, worst = map(float, re.findall(r"[\d.]+\d", rows["shift error"][0]))
    assert heavy >= 0.97
    assert light >= 0.85
    assert mean < 0.2  # Å
    assert worst < 0.5
