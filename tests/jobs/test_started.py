"""Jobs that start from an older result: any of its parts, on the same pixels, in the same frame."""

import jax.numpy as jnp
import numpy as np
import pytest
from models import MODELS, N_SHOTS, pixel_probe, stack, thin
from pydantic import ValidationError

from jaxptycho import FreeScan, Grid, PerShot, write
from jaxptycho.jobs.data_sections import Start
from jaxptycho.jobs.started import from_result


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Result of three slices of 5 Å and one mode, whose positions are counted from elsewhere."""
    path = tmp_path_factory.mktemp("older") / "result.h5"
    write(path, thin(specimen=stack(3, 5.0), probe=pixel_probe(1, seed=5), frame=(10.0, -20.0)))
    return str(path)


@pytest.fixture(scope="module")
def guess():
    """Two slices, two modes."""
    return thin(specimen=stack(2, jnp.array(8.0)))


def test_a_specimen_is_cut_and_moved(result, guess):
    model = from_result(Start(result=result, parts=["specimen", "positions"]), guess)
    older = stack(3, 5.0)
    assert model.specimen.phase.shape[0] == 2
    np.testing.assert_allclose(model.specimen.phase.sum(0), older.phase.sum(0), atol=1e-5)
    np.testing.assert_allclose(model.specimen.thickness, 7.5)
    np.testing.assert_allclose(model.specimen.origin, np.add(older.origin, (10.0, -20.0)))
    moved = np.asarray(model.scan.positions.values) - guess.scan.positions.values
    np.testing.assert_allclose(moved, np.broadcast_to((10.0, -20.0), (N_SHOTS, 2)), atol=1e-5)
    assert model.probe.waves is guess.probe.waves


def test_a_probe_has_the_modes_of_the_job(result, guess):
    model = from_result(Start(result=result, parts=["probe"]), guess)
    assert model.probe.waves.shape[0] == 2
    first = np.asarray(model.probe.waves[0])
    older = np.asarray(pixel_probe(1, seed=5).waves[0])
    assert abs(np.vdot(first, older)) / np.linalg.norm(first) / np.linalg.norm(older) > 0.99
    assert model.specimen.phase is guess.specimen.phase
    assert from_result(Start(), guess) is guess


BAD = {
    "pixels": (lambda: thin(grid=Grid((16, 12), 0.3, voltage_kv=80.0)), "on the same pixels"),
    "kind": (MODELS["weak_phase"], "leave specimen out"),
    "shots": (lambda: thin(scan=FreeScan(PerShot(jnp.zeros((3, 2))))), "leave positions out"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_sentence(result, name):
    make, words = BAD[name]
    parts = {"kind": ["specimen"], "shots": ["positions"]}.get(name, ["specimen"])
    with pytest.raises(ValueError, match=words):
        from_result(Start(result=result, parts=parts), make())
    with pytest.raises(ValidationError):
        Start(result=result, parts=["colour"])
