"""Atoms in a job of a tilt series: traced in a volume, refined from the patterns, named again, whenever it is stopped."""

import re

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from ase.io import read as read_atoms
from listeners import AfterEpochs
from stepping import context_of
from tilts import ALIGN, COARSE, FINE, LINEAR, SERIES, VIEWS, job_of
from typer.testing import CliRunner

from jaxptycho import Atoms, load
from jaxptycho.analysis.tracing import lone_integrals, named_anew
from jaxptycho.cli.main import app
from jaxptycho.jobs.runner import Runner, resume, start
from jaxptycho.jobs.template_files import template_text
from jaxptycho.physics.mean_potential import atoms_potential
from jaxptycho.reports.evaluate import evaluate_results
from jaxptycho.runs.state import State

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RATES = {"specimen.positions": 2e-2, "specimen.occupancy": 2e-2}
TRACE = {"kind": "atoms", "elements": ["O", "Pt"]}
TRACED = SERIES | {"name": "traced", "epochs": 1, "optimiser": "adam", "rates": RATES}
PLACES = np.array([[0.0, 0.5, -1.0], [1.5, -2.0, 0.5], [-1.5, 1.5, 2.0]])
STEPS = [FINE | {"epochs": 1}, TRACE, TRACED, TRACE, TRACED | {"name": "named"}]


def with_volume(model):
    """The model with three atoms in its volume: Pt, O and Pt."""
    seen = model.specimen
    volts = atoms_potential(
        np.array([78, 8, 78]), PLACES, np.full(3, 8.0), seen.potential.shape, seen.voxel
    )
    return eqx.tree_at(
        lambda m: m.specimen.potential, model, jnp.asarray(volts, seen.potential.dtype)
    )


def test_a_step_makes_atoms_of_what_it_is_handed_and_names_them_again(series, tmp_path):
    job = job_of(series, step=STEPS)
    context = context_of(job, tmp_path, 1)
    model = with_volume(context.first_model())
    found = job.step[1].run(State(model), context).model.specimen
    assert isinstance(found, Atoms)
    assert sorted(found.numbers) == [8, 78, 78]
    places = np.asarray(found.positions) - [float(found.axis), 0, 0]
    np.testing.assert_allclose(places[np.argmin(found.numbers)], PLACES[1], atol=0.1)
    faint = eqx.tree_at(
        lambda s: s.occupancy, found, jnp.where(np.array(found.numbers) == 8, 4.5, 0.05)
    )
    handed = eqx.tree_at(lambda m: m.specimen, model, faint)
    named = job.step[3].run(State(handed), context_of(job, tmp_path, 3)).model.specimen
    assert named.numbers == (78,)  # the strong one is Pt, the others are none
    with pytest.raises(ValueError, match="the volume is empty"):
        job.step[1].run(State(context.first_model()), context)


def test_jobs_with_atoms_are_checked_before_there_is_a_volume(series, tmp_path):
    for steps in (STEPS, [VIEWS, ALIGN, LINEAR, TRACE, TRACED]):
        assert isinstance(Runner(job_of(series, step=steps), tmp_path).check().specimen, Atoms)
    with pytest.raises(
        ValueError, match=r"step.0 \(atoms\) requires a step linear or refine before it"
    ):
        job_of(series, step=STEPS[1:])
    with pytest.raises(
        ValueError, match=r"step.5 begins with an empty volume, which is atoms since step.1"
    ):
        job_of(series, step=[*STEPS, COARSE])
    with pytest.raises(ValueError, match="cannot be split into slabs"):
        Runner(job_of(series, step=STEPS, run={"devices": 2, "slabs": 2}), tmp_path).check()
    with pytest.raises(
        ValueError, match=r"step.5 reconstructs a volume, and the specimen is atoms"
    ):
        Runner(job_of(series, step=[VIEWS, ALIGN, LINEAR, TRACE, TRACED, LINEAR]), tmp_path).check()


def test_lone_atoms_are_expected_as_the_fit_sees_them():
    """Of Al and O by far less than their scattering factors at k = 0 say, which is 2.9."""
    seen = lone_integrals(["O", "Al", "Pt"], (0.35,) * 3, 1.5)
    assert 1.2 < seen["Al"] / seen["O"] < 1.5
    assert 4 < seen["Pt"] / seen["O"] < 5
    with pytest.raises(
        ValueError, match="none of 1 atoms scatters half as much as the lightest of Pt"
    ):
        named_anew(Atoms([8], jnp.zeros((1, 3)), (8, 8), 1.0), ["Pt"], (0.35,) * 3)


@pytest.mark.slow
def test_a_run_with_atoms_continues_where_it_was_stopped(series, tmp_path):
    """In the middle of the refinement of traced atoms, whose number only the folder knows."""
    job = job_of(series, step=[*STEPS[:2], TRACED | {"epochs": 2}, *STEPS[3:]])
    whole = start(job, tmp_path / "whole")
    listener = AfterEpochs(2)
    assert start(job, tmp_path / "run", listener, listener.stop).why == "enough"
    outcome = resume(tmp_path / "run")
    assert outcome.finished
    assert [row.step for row in outcome.history] == ["fine", "traced", "traced", "named"]
    np.testing.assert_allclose(
        [r.loss for r in outcome.history], [r.loss for r in whole.history], rtol=1e-6
    )
    kept = load(tmp_path / "run" / "steps" / "00-refine" / "model.h5").specimen
    assert kept.listed_atoms() is None  # the volume in which they were traced
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
    command("run", "particle.toml")
    text = template_text("tilt_series")
    before, _, atoms = text.partition("# [[step]]")
    with_atoms = (
        before
        + "[[step]]"
        + "\n".join(line.removeprefix("#").strip() for line in atoms.split("\n"))
    )
    (tmp_path / "tilts.toml").write_text(with_atoms)
    command("run", "tilts.toml")
    volume = tmp_path / "tilts" / "steps" / "03-refine" / "model.h5"
    paths = volume, tmp_path / "tilts"
    traced, refined = (evaluate_results([path], tmp_path / "particle.h5") for path in paths)
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
