"""Whatever a job can name may be a function of its user: one module beside the job, no edit of the package."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scans import ABOUT, GRID, blobs

import jaxptycho as jp
from jaxptycho.io.results import load_history
from jaxptycho.jobs.build import build_model
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.runner import Runner, resume, start

pytestmark = pytest.mark.usefixtures("quick_to_compile")

MODULE = '''
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import jaxptycho as jp
from jaxptycho.jobs.context import Step


def read_npz(path, scale=1.0, **known):
    """A format of one's own."""
    file = np.load(path)
    grid = jp.Grid(file["counts"].shape[1:], known["pixel_angstrom"], known["voltage_kv"])
    about = {"semiangle_mrad": 25.0, "defocus_angstrom": 120.0}
    return jp.Dataset(file["counts"], scale * file["positions"], grid, about=about)


def cube_root(predicted, counts, offset: float = 0.5):
    """A noise model of one's own."""
    return (jnp.cbrt(predicted + offset) - jnp.cbrt(counts + offset)) ** 2


def whole_loss(model, batch, factor: float = 2.0):
    """A loss of one's own."""
    return factor * jp.misfit(jp.amplitude)(model, batch)


def flatness(weight: float, power: int = 2):
    """A penalty of one's own."""
    return lambda model: weight * jnp.mean(jnp.abs(model.specimen.phase) ** power)


def ceiling(highest: float = 0.1):
    """A constraint of one's own."""
    return lambda model: eqx.tree_at(lambda m: m.specimen.phase, model, jnp.minimum(model.specimen.phase, highest))


def signs(learning_rate, decay: float = 0.0):
    """A solver of one's own."""
    return optax.chain(optax.scale_by_sign(), optax.add_decayed_weights(decay), optax.scale_by_learning_rate(learning_rate))


def rough_phase(empty, grid, height=0.05):
    """A specimen of one's own."""
    rng = np.random.default_rng(0)
    return eqx.tree_at(lambda s: s.phase, empty, jnp.asarray(rng.uniform(0, height, empty.phase.shape)))


def faint(probe, grid, factor=0.5):
    """A probe of one's own."""
    return probe.scale_dose(factor)


def leaky(detector, grid, counts=0.25):
    """A detector of one's own."""
    return jp.Background(jnp.asarray(counts), detector)


def phase_histogram(model, data, history):
    """A figure of one's own."""
    figure = Figure()
    figure.subplots().hist(np.ravel(model.specimen.phase))
    return figure


class Sharpen(Step):
    """A step of one's own: the phase times a factor."""

    kind: str
    factor: float = 2.0

    def preview(self, model, context):
        return model

    def run(self, state, context):
        from dataclasses import replace

        model = eqx.tree_at(lambda m: m.specimen.phase, state.model, self.factor * state.model.specimen.phase)
        return replace(state, model=model)
'''

JOB = """
[data]
file = "scan.npz"
reader = "mine:read_npz"
options = {scale = 2.1}
pixel_angstrom = 0.3
voltage_kv = 80.0
hold_out = 0.1

[specimen]
kind = "mine:rough_phase"
options = {height = 0.02}

[probe]
kind = "mine:faint"

[detector]
kind = "mine:leaky"
options = {counts = 0.125}

[figures]
further = ["mine:phase_histogram"]

[run]
devices = 1
checkpoint_every = 1

[[step]]
kind = "refine"
epochs = 2
batch = 32
optimiser = "mine:signs"
options = {decay = 1e-3}

[step.loss]
kind = "mine:cube_root"
offset = 0.25

[step.rates]
specimen = 1e-3

[[step.constraint]]
kind = "mine:ceiling"
highest = 0.01
each_step = true

[[step.penalty]]
kind = "mine:flatness"
weight = 1e-3
power = 4

[[step]]
kind = "mine:Sharpen"
factor = 3.0

[[step]]
kind = "refine"
name = "again"
epochs = 1
batch = 32
loss = "mine:whole_loss"
rates = {probe = 1e-3}
"""


@pytest.fixture
def job(tmp_path):
    counts, positions = blobs(side=6)
    np.savez(tmp_path / "scan.npz", counts=counts, positions=positions / 2.1)
    (tmp_path / "mine.py").write_text(MODULE)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    yield path
    sys.modules.pop("mine", None)


def test_a_module_beside_the_job_opens_every_door(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    made = read_job(job)
    outcome = start(made, tmp_path / "run")
    assert outcome.finished
    assert [row.step for row in outcome.history] == ["refine", "refine", "again"]
    assert (tmp_path / "run" / "figures" / "phase_histogram.png").stat().st_size > 1000
    phase = np.asarray(outcome.model.specimen.phase)
    np.testing.assert_allclose(phase.max(), 0.03, rtol=1e-6)  # the ceiling, sharpened
    assert isinstance(outcome.model.detector, jp.Background)
    assert float(outcome.model.detector.counts) == 0.125
    monkeypatch.setattr(Runner, "draw", lambda *given: None)  # once is enough
    again = start(made, tmp_path / "twice", stop=_after(4))
    assert not again.finished
    assert "../mine.py:cube_root" in (tmp_path / "twice" / "run.toml").read_text()
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)  # with its module and the run
    sys.modules.pop("mine")
    np.testing.assert_array_equal(resume(moved / "twice").model.specimen.phase, phase)
    assert len(load_history(moved / "twice" / "result.h5")["loss"]) == 3
    moved.rename(tmp_path)


def _after(calls: int):
    left = iter(range(calls))
    return lambda: None if next(left, None) is not None else "a test"


def test_the_first_model_is_made_by_them(job):
    made = read_job(job)
    data = read_data(made)
    assert data.grid.shape == GRID.shape
    assert data.about == ABOUT
    np.testing.assert_allclose(np.ptp(data.positions[0]), 5 * 2.1)
    model = build_model(made, data)
    np.testing.assert_allclose(
        np.sum(np.abs(model.probe.waves) ** 2), 0.5 * data.dose().mean(), rtol=1e-5
    )
    assert 0 < float(model.specimen.phase.max()) <= 0.02


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("step.0.loss.offse", "1.0", "offset"),
        ("step.0.constraint.0.higest", "1.0", "highest"),
        ("step.0.penalty.0.power", "many", "power"),
        ("step.1.facto", "1.0", "there is no key step.1.facto; its class"),
        ("step.1.kind", "mine:ceiling", "is no step"),
        ("step.0.optimiser", "mine:absent", "holds no absent"),
        ("data.reader", "npz", "no such reader"),
        ("data.reader", "mine:cube_root", "cube_root"),
        ("detector.kind", "mine:rough_phase", "detector.kind"),
        ("specimen.options.heigth", "1.0", "heigth"),
    ],
)
def test_their_mistakes_are_named(job, key, value, said, tmp_path):
    with pytest.raises((ValueError, TypeError), match=said):
        start(read_job(job, [f"{key}={value}"]), tmp_path / "run")
    assert not Path(tmp_path / "run").exists()


def test_a_door_of_the_package_costs_one_registry_line(monkeypatch):
    """A function with an annotated signature beside the others, and its line in the registry."""
    from jaxptycho.inverse import losses

    assert losses.LOSSES["gaussian"] is losses.gaussian
    step = make_job(
        {
            "data": {"file": "x.h5"},
            "step": [{"kind": "refine", "loss": {"kind": "gaussian", "variance": 2.0}}],
        }
    )
    assert step.step[0].loss.variance == 2.0
