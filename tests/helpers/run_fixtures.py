"""A small measurement in the native format, and runs of it; a small tilt series."""

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from tilts import SIMULATION, simulate_file

from jaxptycho import Dataset, Grid, predict
from jaxptycho.io.native import write_native
from jaxptycho.jobs.runner import Runner
from jaxptycho.start.guess import guess_model

N_SHOTS, ABOUT = 64, {"semiangle_mrad": 25.0, "defocus_angstrom": 60.0}


@pytest.fixture
def undrawn(monkeypatch):
    """Runs draw no figures, which would take longer than a small run itself."""
    monkeypatch.setattr(Runner, "draw", lambda *given: None)


@pytest.fixture(scope="session")
def measurement(tmp_path_factory):
    """Path of Poisson counts of a phase object: 8 × 8 shots of 32² pixels, 2000 quanta each."""
    path = tmp_path_factory.mktemp("data") / "small.h5"
    write_native(path, simulated())
    return path


def simulated() -> Dataset:
    rng, grid = np.random.default_rng(0), Grid((32, 32), 0.3, voltage_kv=80.0)
    nodes = np.stack(
        np.meshgrid(np.arange(8) * 1.2, np.arange(8) * 1.2, indexing="ij"), -1
    ).reshape(-1, 2)
    positions = nodes + rng.uniform(-0.2, 0.2, nodes.shape)
    blank = Dataset(np.full((N_SHOTS, 32, 32), 2), positions, grid, about=ABOUT)
    empty = guess_model(blank, specimen="phase")
    y, x = np.mgrid[: empty.specimen.phase.shape[1], : empty.specimen.phase.shape[2]]
    phase = jnp.asarray(
        0.5 * np.cos(0.9 * y) * np.cos(0.7 * x) + 0.3 * (np.hypot(y - 30, x - 30) < 8)
    )[None]
    truth = eqx.tree_at(lambda m: m.specimen.phase, empty, phase)
    expected = np.fft.fftshift(
        np.asarray(eqx.filter_jit(predict)(truth, np.arange(N_SHOTS))), axes=(1, 2)
    )
    return Dataset(rng.poisson(expected).astype(np.uint16), positions, grid, about=ABOUT)


@pytest.fixture
def values(measurement):
    """A small job as nested dictionaries: two steps, two devices, positions refined."""
    rates = {"specimen": 5e-2, "probe": 5e-3, "scan": 1e-2}
    first = {
        "kind": "refine",
        "epochs": 3,
        "batch": 15,
        "rates": rates,
        "constraint": [{"kind": "phase_ramp_removal", "every": 2}],
    }
    second = {
        "kind": "refine",
        "name": "modes",
        "epochs": 2,
        "batch": 15,
        "modes": 2,
        "loss": "poisson",
        "rates": {"specimen": 2e-2},
    }
    second["penalty"] = [{"kind": "l1", "weight": 0.1}]
    return {
        "data": {"file": str(measurement), "hold_out": 0.1},
        "step": [first, second],
        "run": {"devices": 2, "checkpoint_every": 2},
    }


@pytest.fixture(scope="session")
def series(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("series") / "tilts.h5"
    simulate_file(SIMULATION, file)
    return file
