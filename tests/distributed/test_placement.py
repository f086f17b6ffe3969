import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import N_SHOTS, RICH, any_batch, thin
from pairs import pair

from jaxptycho import Batch, distribute, init_state, make_step, mesh, misfit, per_part, poisson
from jaxptycho.distributed.sharding import (
    even,
    on_the_host,
    place_on_mesh,
    replicate,
    require_in_turn,
    restore,
    snapshot,
)

SHOTS = np.arange(16) % N_SHOTS
WEIGHT = np.array([1.0] * 11 + [0.5] + [0.0] * 4)  # the last devices have nothing to do


@pytest.fixture(scope="module")
def row():
    assert jax.device_count() == 8
    return mesh()


@pytest.mark.parametrize("name", ["thick", pytest.param("two_views", marks=pytest.mark.slow)])
def test_many_devices_give_the_same_loss_and_gradient(name, row):
    model = RICH[name]()
    batch = any_batch(model, SHOTS, weight=WEIGHT)
    params, rest = eqx.partition(model, eqx.is_inexact_array)

    def derived(loss):
        return jax.jit(jax.value_and_grad(lambda p, b: loss(eqx.combine(p, rest), b)))

    value, gradient = derived(misfit(poisson))(params, batch)
    compiled = derived(distribute(misfit(poisson), row)).lower(params, batch).compile()
    other_value, other = compiled(params, batch)
    assert float(other_value) == pytest.approx(float(value), rel=1e-10)
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * float(jnp.abs(b).max()))
    text = compiled.as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text


def test_compiled_step_gathers_nothing(row):
    """The step of several devices equals that of one and is traced once."""
    model = RICH["two_views"]()
    batch = any_batch(model, SHOTS, weight=WEIGHT)
    optimiser, traces = per_part(specimen=optax.adam(1e-2), scan=optax.adam(1e-2)), []

    def counting(model, batch):
        traces.append(1)
        return distribute(misfit(poisson), row)(model, batch)

    def two_steps(loss, place):
        step, state = make_step(loss, optimiser), place(init_state(optimiser, model))
        moved = place(jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, model))
        for _ in range(2):
            moved, state, _ = step(moved, state, batch)
        return moved

    one = two_steps(misfit(poisson), lambda tree: tree)
    many = two_steps(counting, lambda tree: replicate(tree, row))
    np.testing.assert_allclose(many.specimen.phase, one.specimen.phase, atol=1e-10)
    assert len(traces) == 1
    assert many.specimen.phase.sharding.is_fully_replicated


def test_uneven_batches_are_refused_or_padded(row):
    model = RICH["two_views"]()
    batch = any_batch(model)
    with pytest.raises(ValueError, match=f"{N_SHOTS} shots cannot be split over 8 devices"):
        distribute(misfit(poisson), row)(model, batch)
    padded = even(batch, row)
    assert isinstance(padded, Batch)
    assert len(padded.shots) == 8
    assert padded.weight[N_SHOTS:].sum() == 0
    assert even(padded, row) is padded
    losses = [eqx.filter_jit(misfit(poisson))(model, b) for b in (batch, padded)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-12)


def test_one_device_needs_no_wrapper():
    loss = misfit(poisson)
    assert distribute(loss, mesh(1)) is loss


def test_devices_of_many_processes_are_taken_in_turn():
    require_in_turn([0, 0, 1, 1], 2)
    for owners in (
        [0, 0],
        [0, 1, 0, 1],
        [0, 0, 0, 1],
        [1, 1, 0, 0],
    ):  # one idle, mixed, unequal, in another order
        with pytest.raises(ValueError, match="expected the same number of each of 2, "):
            require_in_turn(owners, 2)


@pytest.mark.parametrize("slabs", [1, 4])
def test_a_copy_outlives_its_arrays_and_comes_back_where_they_lay(slabs):
    devices = mesh(8, slabs)
    model = place_on_mesh(thin(), devices)
    kept = snapshot(model)
    phase = kept.specimen.phase
    assert (
        sum(part.nbytes for part in phase.parts.values()) == model.specimen.phase.nbytes
    )  # each row once
    known = np.array(model.specimen.phase)
    for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)):
        if isinstance(leaf, jax.Array):
            leaf.delete()  # as donation does
    again = restore(kept)
    assert again.specimen.phase.sharding == phase.sharding
    np.testing.assert_array_equal(again.specimen.phase, known)


ACROSS = """
import numpy as np
from jaxptycho.distributed.sharding import snapshot, mesh, restore
from jax.sharding import NamedSharding, PartitionSpec as P
where = NamedSharding(mesh(4, 4), P(None, "slabs"))
known = np.arange(240.0).reshape(2, 8, 15)
array = jax.make_array_from_callback(known.shape, where, lambda index: known[index])
kept = snapshot({"a": array, "b": 3})
array.delete()
found = restore(kept)["a"]
assert all((np.asarray(s.data) == known[s.index]).all() for s in found.addressable_shards)
print(sum(part.nbytes for part in kept["a"].parts.values()))
try:
    mesh(2)
except ValueError as error:
    print(error)
"""


def test_two_processes_copy_their_own_parts_and_refuse_to_leave_one_idle():
    for told in pair(ACROSS, devices=2):
        half, error = told.splitlines()[-2:]
        assert int(half) == 120 * 4, told
        assert "belong to the processes [0, 0]" in error, told


ALONE_EACH = """
import numpy as np, jax.numpy as jnp, optax
from jaxptycho.distributed.sharding import snapshot, mesh, replicate, restore
from jaxptycho.inverse.adjustable import adjust, adjustable
found = restore(snapshot(replicate({"a": jnp.arange(5.0), "b": replicate(jnp.ones(2), mesh())}, mesh())))
assert found["a"].is_fully_replicated and (np.asarray(found["a"]) == np.arange(5.0)).all()
state = replicate(adjustable(optax.sgd(1.0), ("probe",)).init(jnp.ones(2)), mesh())
slower = snapshot(adjust(state, {"probe": 0.5}, level=0.25))
assert (restore(slower).rates["probe"], restore(slower).level) == (0.5, 0.25)
print(len(found["b"].sharding.device_set))
"""


def test_processes_of_one_device_each_hold_the_same():
    """One GPU for each process: `device_put` of jax 0.10.2 makes arrays there that no copy can be taken of."""
    assert [told.splitlines()[-1] for told in pair(ALONE_EACH)] == ["2", "2"]


def test_an_optimiser_begins_where_the_slabs_lie():
    """Neither the model nor what an optimiser remembers of it is whole on one device at any time."""
    devices = mesh(8, 8)
    with on_the_host():
        model = thin()
    assert {d.platform for d in model.specimen.phase.devices()} == {"cpu"}
    state = init_state(per_part(specimen=optax.adam(1e-3)), place_on_mesh(model, devices))
    big = [leaf for leaf in jax.tree.leaves(state) if jnp.shape(leaf) == model.specimen.phase.shape]
    assert len(big) == 4  # two moments of phase and absorption
    assert {shard.data.shape[1] for leaf in big for shard in leaf.addressable_shards} == {32 // 8}
