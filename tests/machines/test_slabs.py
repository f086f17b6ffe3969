import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import FIELD, GRID, ORIGIN, any_batch, phases, positions, relaxed_probe, rng, stack, thin

from jaxptycho import (
    FreeScan,
    PerShot,
    PerView,
    PotentialSlices,
    Volume,
    distribute,
    init_state,
    make_step,
    mesh,
    misfit,
    per_part,
    poisson,
)
from jaxptycho.inverse.penalties import total_variation
from jaxptycho.inverse.solve import owned
from jaxptycho.machines import slabs
from jaxptycho.machines.dealing import arrange
from jaxptycho.machines.placement import even, place

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def volume(**kwargs):
    """A turned volume with all its voxels full, to see that only the whole one tapers; positions for two views."""
    values = jnp.asarray(rng(5).uniform(0, 20, (6, *FIELD)))
    middle = jnp.array([n // 2 * p for n, p in zip(FIELD, GRID.pixel, strict=True)])
    places = positions() - jnp.array(ORIGIN) - middle
    tilts, shifts = PerView(jnp.array([0.3, -0.7])), PerView(jnp.array([[0.1, -0.2], [0.3, 0.2]]))
    volume = Volume(values, (0.5, *GRID.pixel), tilts, 3, 0.1 * values, shift=shifts, **kwargs)
    return thin(specimen=volume, scan=FreeScan(PerView(PerShot(jnp.stack([places, places + 0.3])))))


MODELS = {
    "single": thin,
    "multislice": lambda: thin(
        specimen=PotentialSlices(30 * phases(2), None, jnp.array([8.0, 9.0]), jnp.array(ORIGIN))
    ),
    "relaxed": lambda: thin(probe=relaxed_probe(), specimen=stack(2)),
    "volume": volume,
}
RATES = per_part(dict.fromkeys(["specimen", "probe", "scan"], optax.sgd(1e-4, momentum=0.9)))


def batch_on(devices, model, batch):
    if slabs.SLABS not in devices.shape:
        return even(batch, devices)
    return arrange(batch, slabs.homes(model, int(batch.view), devices.shape[slabs.SLABS]), devices)


def two_steps(model, batch, devices=None):
    """Losses and model after two steps with a penalty on the whole specimen."""
    loss, penalty = misfit(poisson), total_variation(0.1)
    state = init_state(RATES, model)
    model = owned(model)
    if devices is not None:
        batch, loss = batch_on(devices, model, batch), distribute(loss, devices)
        model, state = place(model, devices), place(state, devices, model)
    step, losses = make_step(loss, RATES, penalty=penalty), []
    for _ in range(2):
        model, state, info = step(model, state, batch)
        losses.append(float(info["loss"]))
    return losses, model, state


def assert_same(found, expected, tolerance):
    for a, b in zip(*(jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))


MESHES = ((4, 1), (8, 8), (8, 4))  # devices and slabs: shots alone, slabs alone, both
QUICK = {("multislice", 8, 8), ("volume", 8, 4)}
EVERY = [
    pytest.param(name, *on, marks=[] if (name, *on) in QUICK else pytest.mark.slow) for name in MODELS for on in MESHES
]


@pytest.mark.parametrize(("name", "devices", "count"), EVERY)
def test_many_devices_step_as_one(name, devices, count):
    model = MODELS[name]()
    batch = any_batch(model, view=1 if name == "volume" else 0, weight=[1, 1, 0.5, 1, 0, 1, 1])
    losses, expected, _ = two_steps(model, batch)
    found_losses, found, state = two_steps(model, batch, mesh(devices, count))
    np.testing.assert_allclose(found_losses, losses, rtol=1e-10)
    assert_same(found, expected, 1e-10)
    rows = slabs.stacks(found)[0].shape[1]
    big = [leaf for leaf in jax.tree.leaves((found, state)) if jnp.shape(leaf) == slabs.stacks(found)[0].shape]
    assert len(big) == 2 * len(slabs.stacks(found))  # the stacks and their momentum
    assert {shard.data.shape[1] for leaf in big for shard in leaf.addressable_shards} == {rows // count}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_single_precision_agrees(name):
    with jax.enable_x64(False):
        model = MODELS[name]()
        batch = any_batch(model)
        (losses, expected, _), (found_losses, found, _) = two_steps(model, batch), two_steps(model, batch, mesh(8, 4))
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    assert_same(found, expected, 1e-5)
    assert slabs.stacks(found)[0].dtype == "float32"
