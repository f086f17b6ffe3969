import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from models import (
    FIELD,
    GRID,
    ORIGIN,
    TRANSFORM,
    any_batch,
    atoms,
    phases,
    positions,
    relaxed_probe,
    rng,
    stack,
    thin,
)

from jaxptycho import (
    Batch,
    Dataset,
    FreeScan,
    Grid,
    PerShot,
    PerView,
    PotentialSlices,
    SliceStack,
    Volume,
    distribute,
    init_state,
    make_step,
    mesh,
    misfit,
    per_part,
    poisson,
)
from jaxptycho.distributed.memory_plan import plan
from jaxptycho.distributed.sharding import even, place_on_mesh
from jaxptycho.distributed.slabs import layout as slabs
from jaxptycho.distributed.slabs.batching import arrange, slab_batches, slabs_of_shots
from jaxptycho.inverse.penalties import total_variation
from jaxptycho.inverse.step import copy_for_donation
from jaxptycho.physics.slab_rotation import largest_angles

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def volume(field=FIELD, angles=None):
    """A turned volume with all its voxels full, to see that only the whole one tapers; positions for two views."""
    values = jnp.asarray(rng(5).uniform(0, 20, (6, *field)))
    middle = jnp.array([n // 2 * p for n, p in zip(field, GRID.pixel, strict=True)])
    places = positions(field=field) - jnp.array(ORIGIN) - middle
    tilts, shifts = PerView(jnp.array([0.3, -0.7])), PerView(jnp.array([[0.1, -0.2], [0.3, 0.2]]))
    volume = Volume(values, (0.5, *GRID.pixel), tilts, 3, 0.1 * values, angles, shifts)
    return thin(specimen=volume, scan=FreeScan(PerView(PerShot(jnp.stack([places, places + 0.1])))))


def turned():
    """A volume turned about all axes, as far as halos are made for, of slabs that are wider than their halo."""
    return volume((192, 30), PerView(jnp.array([[0.02, -0.104], [-0.104, 0.1]])))


MODELS = {
    "single": thin,
    "multislice": lambda: thin(
        specimen=PotentialSlices(30 * phases(2), None, jnp.array([8.0, 9.0]), jnp.array(ORIGIN))
    ),
    "relaxed": lambda: thin(probe=relaxed_probe(), specimen=stack(2)),
    "volume": volume,
    "turned": turned,
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
    model = copy_for_donation(model)
    if devices is not None:
        batch, loss = batch_on(devices, model, batch), distribute(loss, devices)
        model, state = place_on_mesh(model, devices), place_on_mesh(state, devices, model)
    step, losses = make_step(loss, RATES, penalty=penalty), []
    for _ in range(2):
        model, state, info = step(model, state, batch)
        losses.append(float(info["loss"]))
    return losses, model, state


def assert_same(found, expected, tolerance):
    for a, b in zip(
        *(jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (found, expected)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))


MESHES = ((8, 1), (8, 8), (8, 4))  # devices and slabs: shots alone, slabs alone, both
QUICK = {("multislice", 8, 8)}
EVERY = [
    pytest.param(name, *on, marks=[] if (name, *on) in QUICK else pytest.mark.slow)
    for name in MODELS
    for on in MESHES
]


@pytest.mark.parametrize(("name", "devices", "count"), EVERY)
def test_many_devices_step_as_one(name, devices, count):
    model = MODELS[name]()
    batch = any_batch(
        model, view=1 if name in ("volume", "turned") else 0, weight=[1, 1, 0.5, 1, 0, 1, 1]
    )
    losses, expected, _ = two_steps(model, batch)
    found_losses, found, state = two_steps(model, batch, mesh(devices, count))
    np.testing.assert_allclose(found_losses, losses, rtol=1e-10)
    assert_same(found, expected, 1e-10)
    rows = slabs.stacks(found)[0].shape[1]
    big = [
        leaf
        for leaf in jax.tree.leaves((found, state))
        if jnp.shape(leaf) == slabs.stacks(found)[0].shape
    ]
    assert len(big) == 2 * len(slabs.stacks(found))  # the stacks and their momentum
    assert {shard.data.shape[1] for leaf in big for shard in leaf.addressable_shards} == {
        rows // count
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_single_precision_agrees(name):
    with jax.enable_x64(False):
        model = MODELS[name]()
        batch = any_batch(model)
        (losses, expected, _), (found_losses, found, _) = (
            two_steps(model, batch),
            two_steps(model, batch, mesh(8, 4)),
        )
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    assert_same(found, expected, 1e-5)
    assert slabs.stacks(found)[0].dtype == "float32"


def compiled(model, devices, per_slab=2):
    """The gradient of a loss on `devices`, each with `per_slab` shots, compiled from shapes alone."""
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    loss, size = distribute(misfit(poisson), devices), devices.size * per_slab
    where = jax.tree.map(lambda spec: NamedSharding(devices, spec), slabs.layout(params, model))
    shapes = jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), params, where
    )
    batch = Batch(
        np.int32(0),
        np.zeros(size, np.int32),
        np.zeros((size, *GRID.shape), np.uint16),
        np.ones(size, "f4"),
    )
    return (
        jax.jit(jax.grad(lambda p, b: loss(eqx.combine(p, rest), b))).lower(shapes, batch).compile()
    )


def test_memory_falls_with_the_number_of_slabs():
    """The step gathers nothing, transforms no more than a device's own shots, and takes 1/N up to the halo."""
    rows, stack = 768, 2 * 30 * 8  # bytes of one row of two slices
    model = thin(specimen=SliceStack(phases(2, (rows, 30)), None, 8.0, jnp.array(ORIGIN)))
    programs = {n: compiled(model, mesh(n, n)) for n in (2, 8)}
    size = {n: program.memory_analysis() for n, program in programs.items()}
    fixed = size[8].argument_size_in_bytes - rows * stack / 8
    assert size[2].argument_size_in_bytes == pytest.approx(fixed + rows * stack / 2, rel=0.02)
    assert size[8].output_size_in_bytes < 0.3 * size[2].output_size_in_bytes
    held = {n: rows / n + 2 * slabs.halo(GRID) for n in size}
    fewer = size[2].temp_size_in_bytes - size[8].temp_size_in_bytes
    assert fewer >= 4 * stack * (
        held[2] - held[8]
    )  # transmissions and their gradient, complex both
    text = programs[8].as_text()
    assert "collective-permute" in text
    assert not re.search("all-gather|all-to-all", text)
    transformed = [math.prod(map(int, dims.split(","))) for dims in TRANSFORM.findall(text)]
    assert transformed
    assert max(transformed) <= 2 * 2 * math.prod(GRID.shape)  # shots × modes of one device


def test_a_window_that_left_its_slab_is_seen():
    model = thin()
    devices, batch = mesh(4, 4), any_batch(model)
    home = slabs.homes(model, 0, 4)
    away = arrange(
        batch, np.where(home == home.max(), 0, home), devices
    )  # as if these had moved far since
    loss = jax.jit(distribute(misfit(poisson), devices))
    assert np.isnan(loss(model, away))
    assert np.isfinite(loss(model, arrange(batch, home, devices)))


@pytest.mark.slow
def test_a_turn_beyond_the_halo_is_seen():
    limit = largest_angles(volume(angles=jnp.zeros(2)).specimen.frame)
    assert limit == (
        math.radians(6),
        math.radians(6),
    )  # 4 rows at a rim 9 and 19 rows away would be more
    model = volume(angles=jnp.array([0.0, 1.01 * limit[1]]))
    loss, batch = jax.jit(distribute(misfit(poisson), mesh(2, 2))), any_batch(model)
    assert np.isnan(loss(model, arrange(batch, slabs.homes(model, 0, 2), mesh(2, 2))))


def test_halos_are_made_for_angles_and_a_view_beyond_them_is_named():
    """2° of a large volume, as many rows of a small one as Newton steps may take its rim."""
    large = Volume(
        jnp.zeros((600, 2, 600)),
        (0.5, 0.5, 0.5),
        PerView(jnp.zeros(2)),
        2,
        None,
        PerView(jnp.zeros((2, 2))),
    )
    model = thin(specimen=large)
    about_x, about_z = largest_angles(large.frame)
    assert about_x == about_z == math.radians(2)
    assert slabs.lent(model) == 2 * (math.ceil(300 * about_x) + 20) + 2 * 0
    angles = np.zeros((2, 2))
    angles[1, 1] = -0.99 * about_z
    turn = lambda a: eqx.tree_at(lambda m: m.specimen.angles.values, model, jnp.asarray(a))  # noqa: E731
    slabs.require_lent(turn(angles))
    angles[1, 1] = -math.radians(2.5)
    with pytest.raises(
        ValueError,
        match=r"view 1 is rotated about z by 2.5°, halos of slabs allow at most 2°; use one",
    ):
        slabs.require_lent(turn(angles))
    angles[1, 1] = np.nan
    with pytest.raises(ValueError, match="view 1 is rotated about z by nan"):
        slabs.require_lent(turn(angles))
    assert slabs.lent(thin()) == 0
    slabs.require_lent(thin())


def test_every_shot_is_dealt_once_to_its_slab():
    places = rng(3).uniform(2.0, 98.0, (150, 2)) * [0.4, 0.2]
    grid = Grid((16, 16), (0.4, 0.5), 80.0)
    specimen = SliceStack(jnp.zeros((1, 120, 60)), None, 8.0, jnp.array([-4.0, -5.0]))
    model = thin(
        specimen=specimen,
        scan=FreeScan(PerView(PerShot(jnp.asarray([places, places[::-1]])))),
        grid=grid,
    )
    data = Dataset([np.ones((150, 16, 16), np.uint8)] * 2, [places, places[::-1]], grid)
    learn, devices = [np.arange(150), np.arange(0, 150, 2)], mesh(8, 4)
    home = slabs_of_shots(model, data.n_shots, devices)
    dealt = list(slab_batches(data, 32, 2, home=home, mesh=devices, shots=learn))
    assert len(dealt) == 2 * (5 + 3)
    assert len({batch.shots.shape for batch in dealt}) == 1
    assert dealt[0].shots.shape[0] <= 1.5 * 32
    for view, mine in enumerate(learn):
        at_home = slabs.homes(model, view, 4)
        own = [batch for batch in dealt if batch.view == view]
        seen = np.concatenate([batch.shots[batch.weight > 0] for batch in own])
        np.testing.assert_array_equal(np.sort(seen), np.repeat(mine, 2))
        for batch in own:
            at = np.broadcast_to(np.arange(4)[:, None], (2, 4, len(batch.shots) // 8)).ravel()
            np.testing.assert_array_equal(
                at_home[batch.shots][batch.weight > 0], at[batch.weight > 0]
            )
    few = list(slab_batches(data, 32, 1, home=home, mesh=devices, shots=[learn[0], learn[1][:0]]))
    assert {int(batch.view) for batch in few} == {0}  # a view may be left out
    assert len(few) == 5
    padded = list(slab_batches(data, 32, home=home, mesh=devices, shots=learn, at_least=100))
    assert {len(batch.shots) for batch in padded} == {104}  # a multiple of the devices
    assert sum(int((batch.weight > 0).sum()) for batch in padded) == 150 + 75


@pytest.mark.parametrize("order", ["random", "compact", "sparse"])
@pytest.mark.parametrize(
    ("shots", "slabs", "size"),
    [((52,), 2, 5), ((3000,), 8, 60), ((52, 0, 3), 4, 1), ((7,), 4, 2), ((40, 9), 4, 64)],
)
def test_no_batch_is_empty_however_shots_and_slabs_divide(shots, slabs, size, order):
    grid = Grid((4, 4), 0.4, 80.0)
    places = [
        np.stack([np.linspace(0, 60, n), rng(n).uniform(0, 8, n)], 1)
        for n in (max(s, 1) for s in shots)
    ]
    data = Dataset([np.ones((len(p), 4, 4), np.uint8) for p in places], places, grid)
    home = [np.minimum(np.arange(len(p)) * slabs // len(p), slabs - 1) for p in places]
    learn = [np.arange(n) for n in shots]
    dealt = list(
        slab_batches(data, size, home=home, mesh=mesh(slabs, slabs), shots=learn, order=order)
    )
    assert len(dealt) == sum(math.ceil(n / size) for n in shots)  # as many as without slabs
    assert len({batch.shots.shape for batch in dealt}) == 1
    for view, n in enumerate(shots):
        seen = [batch.shots[batch.weight > 0] for batch in dealt if batch.view == view]
        assert min(map(len, seen), default=1) > 0
        np.testing.assert_array_equal(
            np.sort(np.concatenate([np.zeros(0, int), *seen])), np.arange(n)
        )


def test_what_cannot_be_split_is_refused_or_fitted():
    devices = mesh(4, 4)
    odd = thin(specimen=SliceStack(jnp.ones((1, 30, 30)), None, 8.0, jnp.array(ORIGIN)))
    with pytest.raises(
        ValueError, match="30 rows of the specimen cannot be split into 4 equal slabs"
    ):
        place_on_mesh(odd, devices)
    fitted = slabs.fitted(odd, 4)
    np.testing.assert_array_equal(fitted.specimen.phase.sum((0, 2)), [30] * 30 + [0] * 2)
    assert slabs.fitted(fitted, 4) is fitted
    tilted = volume()
    for before, after in ((30, 32), (31, 32), (29, 32)):  # the middle row stays on the axis
        cut = eqx.tree_at(
            lambda m: (m.specimen.potential, m.specimen.absorptive),
            tilted,
            (jnp.ones((6, before, 30)),) * 2,
        )
        rows = slabs.fitted(cut, 4).specimen.potential.sum((0, 2))
        assert rows.shape == (after,)
        np.testing.assert_array_equal(
            np.flatnonzero(rows) - after // 2, np.arange(before) - before // 2
        )
    with pytest.raises(ValueError, match="of type Atoms cannot be split into slabs"):
        slabs.stacks(thin(specimen=atoms()))
    with pytest.raises(ValueError, match="periodic specimen cannot be split"):
        slabs.stacks(thin(specimen=stack(periodic=True)))
    with pytest.raises(ValueError, match="8 devices do not fall into groups of 3"):
        mesh(8, 3)


def test_a_plan_is_made_from_shapes_alone():
    model, devices = turned(), mesh(8, 4)
    state = init_state(per_part(specimen=optax.adam(1e-2)), model)
    shapes = eqx.filter_eval_shape(lambda *trees: trees, model, state)
    found = plan(misfit(poisson), *shapes, any_batch(model, range(8)), devices)
    assert found == plan(misfit(poisson), model, state, any_batch(model, range(8)), devices)
    assert found.turned > 0
