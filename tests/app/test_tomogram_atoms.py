"""Atoms in a job of a tilt series: traced in a volume, refined from the patterns, named anew, whenever it is stopped."""

import re

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from ase.io import read as read_atoms
from tilts import JOB, job_of
from typer.testing import CliRunner

from jaxptycho import Atoms, load, read
from jaxptycho.analysis.tracing import lone_integrals, named_anew
from jaxptycho.cli.files import template_text
from jaxptycho.cli.main import app
from jaxptycho.jobs.runner import loop_of, resume, start
from jaxptycho.jobs.tomogram import series_of
from jaxptycho.jobs.tomogram_atoms import file_of
from jaxptycho.physics.mean_potential import atoms_potential
from jaxptycho.reports.evaluate import judge_results
from jaxptycho.runs.progress import Watch

RATES = {"specimen.positions": 2e-2, "specimen.occupancy": 2e-2}
TRACED = {"name": "traced", "epochs": 1, "batch": 16, "optimiser": "adam", "rates": RATES, "elements": ["O", "Pt"]}
PLACES = np.array([[0.0, 0.5, -1.0], [1.5, -2.0, 0.5], [-1.5, 1.5, 2.0]])
STAGES = [JOB["stage"][1] | {"epochs": 1}, TRACED, TRACED | {"name": "named"}]


def with_volume(model):
    """The model with three atoms in its volume: Pt, O and Pt."""
    seen = model.specimen
    volts = atoms_potential(np.array([78, 8, 78]), PLACES, np.full(3, 8.0), seen.potential.shape, seen.voxel)
    return eqx.tree_at(lambda m: m.specimen.potential, model, jnp.asarray(volts, seen.potential.dtype))


def test_a_stage_makes_atoms_of_what_it_is_handed_and_so_does_a_resumed_one(series, tmp_path):
    job = job_of(series, stage=STAGES, views={"epochs": 0})
    loop, again = (loop_of(job, tmp_path) for _ in range(2))
    model = with_volume(series_of(job, read(series)))
    loop.hand_over(model, 1)
    found = loop.entered(model, 1).specimen
    assert isinstance(found, Atoms)
    assert sorted(found.numbers) == [8, 78, 78]
    places = np.asarray(found.positions) - [float(found.axis), 0, 0]
    np.testing.assert_allclose(places[np.argmin(found.numbers)], PLACES[1], atol=0.1)
    resumed = again.first_model(1).specimen  # from the file alone
    assert resumed.numbers == found.numbers
    np.testing.assert_array_equal(resumed.positions, found.positions)
    assert isinstance(load(file_of(tmp_path, 1)).specimen, type(model.specimen))  # the volume is kept
    faint = eqx.tree_at(lambda s: s.occupancy, found, jnp.where(np.array(found.numbers) == 8, 4.5, 0.05))
    handed = eqx.tree_at(lambda m: m.specimen, model, faint)
    loop.hand_over(handed, 2)
    assert loop.entered(handed, 2).specimen.numbers == (78,)  # the strong one is Pt, the others are none


def test_jobs_with_atoms_are_checked_before_there_is_a_volume(series):
    job = job_of(series, stage=STAGES)
    loop_of(job).check()
    assert isinstance(loop_of(job).first_model(2).specimen, Atoms)
    with pytest.raises(ValueError, match=r"stage.0 has elements and no volume"):
        job_of(series, stage=STAGES[1:])
    with pytest.raises(ValueError, match=r"stage.3 begins a volume anew that is atoms since stage.1"):
        job_of(series, stage=[*STAGES, JOB["stage"][0]])
    with pytest.raises(ValueError, match="cannot be split into slabs"):
        loop_of(job_of(series, stage=STAGES, run={"devices": 2, "slabs": 2})).check()


def test_lone_atoms_are_expected_as_the_fit_sees_them():
    """Of Al and O by far less than their scattering factors at k = 0 say, which is 2.9."""
    seen = lone_integrals(["O", "Al", "Pt"], (0.35,) * 3, 1.5)
    assert 1.2 < seen["Al"] / seen["O"] < 1.5
    assert 4 < seen["Pt"] / seen["O"] < 5
    with pytest.raises(ValueError, match="none of 1 atoms scatters half as much as the lightest of Pt"):
        named_anew(Atoms([8], jnp.zeros((1, 3)), (8, 8), 1.0), ["Pt"], (0.35,) * 3)


class AfterEpochs(Watch):
    """Asks to stop once so many epochs are done."""

    def __init__(self, epochs):
        self.left = epochs

    def epoch(self, row):
        self.left -= 1

    def stop(self):
        return "enough" if self.left <= 0 else None


@pytest.mark.slow
def test_a_run_with_atoms_goes_on_where_it_was_stopped(series, tmp_path):
    """In the middle of the stage of traced atoms, whose number is known to the folder alone."""
    stages = [STAGES[0], TRACED | {"epochs": 2}, STAGES[2]]
    job = job_of(series, stage=stages, views={"epochs": 0}, linear={"iterations": 0})
    whole = start(job, tmp_path / "whole")
    watch = AfterEpochs(2)
    assert start(job, tmp_path / "run", watch, watch.stop).why == "enough"
    outcome = resume(tmp_path / "run")
    assert outcome.finished
    assert [row.stage for row in outcome.history] == ["fine", "traced", "traced", "named"]
    np.testing.assert_allclose([r.loss for r in outcome.history], [r.loss for r in whole.history], rtol=1e-6)
    ends = [load(tmp_path / name / "result.h5").specimen for name in ("whole", "run")]
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-5)
    written = read_atoms(tmp_path / "run" / "atoms.xyz")
    assert tuple(written.numbers) == ends[1].numbers
    assert (tmp_path / "run" / "figures" / "sections.png").stat().st_size > 5000


@pytest.mark.slow
def test_refined_atoms_are_better_than_those_of_the_volume(tmp_path, monkeypatch):
    """The templates of a particle and its tilt series, then its atoms: no fewer, no further astray, and a fuller wedge."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    def number(rows, name, pattern):
        return float(re.search(pattern, rows[name][0])[1])

    def rmsd(rows, name):
        return np.array([float(v) for v in re.search(r"RMSD (.*) Å", rows[name][0])[1].split(", ")])

    command("new", "platinum_in_alumina", "--template", "particle", "--out", "particle.toml")
    command("simulate", "particle.toml")
    text = template_text("tilt_series")
    before, _, atoms = text.partition("# [[stage]]")
    with_atoms = before + "[[stage]]" + "\n".join(line.removeprefix("#").strip() for line in atoms.split("\n"))
    (tmp_path / "tilts.toml").write_text(with_atoms)
    command("tomogram", "tilts.toml")
    traced, refined = (
        judge_results([path], tmp_path / "particle.h5") for path in (file_of(tmp_path / "tilts", 2), tmp_path / "tilts")
    )
    for kind in ("atoms", "heavy atoms", "light atoms"):
        own = f"{kind} of the result"
        assert number(refined, own, r"F1 ([\d.]+)") >= number(traced, kind, r"F1 ([\d.]+)")
        assert (rmsd(refined, own) < rmsd(traced, kind) + 0.01).all()  # Å
    assert number(refined, "in the missing wedge", r"correlation ([\d.]+)") > 0.95
    assert number(refined, "in the missing wedge", r"correlation ([\d.]+)") > number(
        traced, "in the missing wedge", r"correlation ([\d.]+)"
    )
    for symbol in ("O", "Al"):
        assert number(refined, f"atoms of {symbol} of the result", r"F1 ([\d.]+)") > 0.85
    assert number(refined, "shift error", r"mean ([\d.]+)") < 0.04
