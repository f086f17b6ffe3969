import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import (
    DOSE,
    GRID,
    ORIGIN,
    aberrated_probe,
    affine_scan,
    batch_for,
    other,
    pixel_probe,
    positions,
    stack,
    thin,
    two_views,
)

from jaxptycho import (
    Batch,
    FreeScan,
    Grid,
    PerShot,
    PixelProbe,
    SliceStack,
    amplitude,
    init_state,
    make_step,
    minimise,
    misfit,
    per_part,
    poisson,
    stacked,
)
from jaxptycho.inverse.solvers.parameter_scaling import natural_units, scale_parameters

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def part_of(batch, shots):
    """Those shots of a batch, padded to four with weight 0."""
    shots = np.asarray(shots)
    padded = np.concatenate([shots, np.repeat(shots[:1], 4 - len(shots))])
    weight = np.r_[np.ones(len(shots)), np.zeros(4 - len(shots))].astype(np.float32)
    return Batch(
        batch.view, np.asarray(batch.shots)[padded], np.asarray(batch.counts)[padded], weight
    )


ADAM = per_part(specimen=optax.adam(5e-3), probe=optax.adam(5e-3), scan=optax.adam(1e-2))


def copy(model):
    return jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, model)


def run(loss, model, steps, optimiser, batch, **kwargs):
    step, state, losses = make_step(loss, optimiser, **kwargs), init_state(optimiser, model), []
    model = copy(model)
    for _ in range(steps):
        model, state, info = step(model, state, batch)
        losses.append(float(info["loss"]))
    return model, losses


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_step_traces_once_and_gives_its_memory_back(optimiser):
    model, traces = two_views(), []
    optimiser = {
        "adam": lambda: per_part(
            specimen=optax.adam(5e-3), probe=optax.adam(5e-3), scan=optax.adam(1e-2)
        ),
        "lbfgs": lambda: per_part(
            specimen=optax.lbfgs(memory_size=2),
            scan=optax.adam(optax.cosine_decay_schedule(1e-2, 5)),
        ),
    }[optimiser]()
    loss = misfit(poisson, micro=2)

    def counting(model, batch):
        traces.append(1)
        return loss(model, batch)

    full = [batch_for(model, view=view) for view in (0, 1)]
    step, state = make_step(counting, optimiser), init_state(optimiser, model)
    model, first = copy(model), model
    for n, (view, shots) in enumerate([(0, [0, 1, 2, 3]), (1, [4, 5]), (0, [6, 2, 1])]):
        given = model
        model, state, info = step(model, state, part_of(full[view], shots))
        assert bool(info["finite"])
        assert given.specimen.phase.is_deleted()
        if n == 0:
            traced = len(traces)
    assert len(traces) == traced
    assert not first.specimen.phase.is_deleted()
    assert jax.tree.structure(model) == jax.tree.structure(first)


def test_steps_repeat_to_the_last_bit():
    model = thin()
    batch = batch_for(model)
    one, two = (
        minimise(misfit(poisson), model, [batch] * 3, per_part(specimen=optax.adam(1e-2)))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one[0].specimen.phase, two[0].specimen.phase)
    np.testing.assert_array_equal(one[1], two[1])
    assert one[1].shape == (3,)
    assert not model.specimen.phase.is_deleted()


def test_a_stack_of_batches_is_one_step_after_another():
    batch = batch_for(other(thin()))
    small = [part_of(batch, shots) for shots in ([0, 3, 5], [1, 2, 4, 6], [6, 0])]
    step = make_step(misfit(amplitude), ADAM)
    model, state, losses = copy(thin()), init_state(ADAM, thin()), []
    for one in small:
        model, state, info = step(model, state, one)
        losses.append(info["loss"])
    (stack,) = stacked(small, shots=12)
    together, _, infos = step(copy(thin()), init_state(ADAM, thin()), stack)
    np.testing.assert_allclose(infos["loss"], losses, rtol=1e-10)
    assert infos["finite"].shape == (3,)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_calls_return_before_the_device_is_done():
    """Else it would be idle until the next batch is there."""

    def long(model, batch):
        busy = jax.lax.fori_loop(
            0, 3000, lambda _, m: jnp.sin(m @ m), jnp.full((128, 128), batch.weight[0])
        )
        return misfit(poisson)(model, batch) + 1e-9 * jax.lax.stop_gradient(jnp.sum(busy))

    model, batch = thin(), batch_for(thin())
    step, state = make_step(long, ADAM), init_state(ADAM, thin())
    model, state, _ = step(copy(model), state, batch)  # compiles
    jax.block_until_ready(state)
    model, state, info = step(model, state, batch)
    assert not info["loss"].is_ready()
    assert np.isfinite(info["loss"])


def test_named_parts_move_and_others_stay():
    model = thin(probe=aberrated_probe())
    batch = batch_for(model)
    optimiser = per_part(
        {"specimen.phase": optax.adam(1e-2), "probe.aberrations.C10": optax.adam(1e-2)}
    )
    moved, _ = run(misfit(amplitude), model, 1, optimiser, batch)
    assert not np.allclose(moved.specimen.phase, model.specimen.phase)
    assert float(moved.probe.aberrations["C10"]) != float(model.probe.aberrations["C10"])
    frozen = eqx.tree_at(
        lambda m: (m.specimen.phase, m.probe.aberrations["C10"]),
        moved,
        (model.specimen.phase, model.probe.aberrations["C10"]),
    )
    assert eqx.tree_equal(frozen, model)


def test_longest_path_wins():
    model = thin(probe=aberrated_probe())
    batch = batch_for(model)
    optimiser = per_part(
        {
            "probe": optax.sgd(0.0),
            "probe.semiangle": optax.adam(1e-2),
            "probe.centre": optax.adam(0.1),
        }
    )
    moved, _ = run(misfit(amplitude), model, 1, optimiser, batch)
    step = GRID.wavelength * max(GRID.dk)  # natural unit of an angle: Adam's first step is its rate
    assert abs(float(moved.probe.semiangle - model.probe.semiangle)) == pytest.approx(
        1e-2 * step, rel=1e-4
    )
    np.testing.assert_allclose(
        jnp.abs(moved.probe.centre - model.probe.centre), 0.1 * step, rtol=1e-4
    )
    assert float(moved.probe.dose) == float(model.probe.dose)


def test_what_is_given_moves_only_when_named():
    model = thin(scan=affine_scan(), specimen=stack(2, jnp.array(8.0)))
    batch = batch_for(model)
    moved, _ = run(
        misfit(amplitude),
        model,
        1,
        per_part({"scan": optax.sgd(1.0), "specimen.thickness": optax.sgd(1.0)}),
        batch,
    )
    assert float(moved.specimen.thickness) != 8.0
    np.testing.assert_array_equal(moved.specimen.origin, model.specimen.origin)
    np.testing.assert_array_equal(moved.specimen.phase, model.specimen.phase)
    np.testing.assert_array_equal(moved.scan.nominal.values, model.scan.nominal.values)
    np.testing.assert_array_equal(moved.scan.pivot, model.scan.pivot)
    assert not np.allclose(moved.scan.shift, model.scan.shift)
    moved, _ = run(misfit(amplitude), model, 1, per_part(specimen=optax.sgd(1.0)), batch)
    assert float(moved.specimen.thickness) == 8.0
    np.testing.assert_array_equal(moved.specimen.origin, model.specimen.origin)


@pytest.mark.parametrize("name", ["lens", "scan.shear", "spec"])
def test_unknown_parts_are_refused(name):
    known = (
        "scan has scan.positions" if name == "scan.shear" else "its parts are probe, specimen, scan"
    )
    with pytest.raises(ValueError, match=rf"no parameter '{name}' to optimise; .*{known}"):
        init_state(per_part({name: optax.adam(1e-3)}), thin())


def square(predicted, counts):
    """A misfit that only changes its size with the dose."""
    return (predicted - counts) ** 2


def test_dose_does_not_change_the_way():
    model = thin()
    batch = batch_for(model)
    brighter = eqx.tree_at(lambda m: m.probe.waves, model, 10 * model.probe.waves)
    more = Batch(batch.view, batch.shots, 100 * batch.counts, batch.weight)
    a, _ = run(misfit(square), model, 3, ADAM, batch)
    b, _ = run(misfit(square), brighter, 3, ADAM, more)
    np.testing.assert_allclose(a.specimen.phase, b.specimen.phase, atol=1e-6)
    np.testing.assert_allclose(a.scan.positions.values, b.scan.positions.values, atol=1e-6)
    np.testing.assert_allclose(10 * a.probe.waves, b.probe.waves, atol=1e-5)
    assert float(jnp.abs(a.specimen.phase - model.specimen.phase).max()) > 1e-2


def test_pixel_does_not_change_the_way():
    model = thin()
    batch = batch_for(model)
    larger = thin(
        grid=Grid(GRID.shape, tuple(20 * p for p in GRID.pixel), voltage_kv=80.0),
        specimen=eqx.tree_at(lambda s: s.origin, model.specimen, 20 * model.specimen.origin),
        scan=FreeScan(PerShot(20 * positions())),
    )
    a, _ = run(misfit(square), model, 3, ADAM, batch)
    b, _ = run(misfit(square), larger, 3, ADAM, batch)
    np.testing.assert_allclose(a.specimen.phase, b.specimen.phase, atol=1e-6)
    np.testing.assert_allclose(20 * a.scan.positions.values, b.scan.positions.values, atol=1e-5)


def test_units_follow_the_tree():
    units = natural_units(eqx.filter(thin(probe=aberrated_probe()), eqx.is_inexact_array))
    assert float(units.specimen.phase) == 1.0
    assert float(units.scan.positions.values) == max(GRID.pixel)
    assert float(units.probe.dose) == DOSE
    assert float(units.probe.aberrations["C30"]) > float(units.probe.aberrations["C10"]) > 1.0


def test_parameters_come_into_natural_units_by_one_program(caplog):
    params = eqx.filter(thin(grid=Grid((18, 22), 0.3, voltage_kv=80.0)), eqx.is_inexact_array)
    with jax.log_compiles():
        scale_parameters(optax.identity()).init(params)
    compiled = [record for record in caplog.records if record.msg.startswith("Compiling")]
    assert len(compiled) == 1, [record.getMessage() for record in compiled]


def test_positions_of_unseen_shots_stay():
    model = thin()
    batch = batch_for(model)
    step, state = make_step(misfit(amplitude), ADAM), init_state(ADAM, model)
    first, state, _ = step(copy(model), state, part_of(batch, [0, 1, 2, 3]))
    before = copy(first)
    second, state, _ = step(first, state, part_of(batch, [4, 5]))
    moved = np.abs(second.scan.positions.values - before.scan.positions.values).max(axis=1) > 0
    np.testing.assert_array_equal(moved, [False] * 4 + [True] * 2 + [False])
    assert not np.allclose(
        before.scan.positions.values[:4], model.scan.positions.values[:4], atol=1e-4
    )


def test_penalty_pulls_and_projection_holds():
    model = thin()
    batch = batch_for(model)

    def penalty(model):
        return 1e6 * jnp.sum(model.specimen.absorption)

    def project(model):
        return eqx.tree_at(
            lambda m: m.specimen.phase, model, jnp.clip(model.specimen.phase, -0.1, 0.1)
        )

    optimiser = per_part(specimen=optax.adam(1e-3))
    loss = misfit(amplitude)
    moved, losses = run(loss, model, 1, optimiser, batch, penalty=penalty, project=project)
    assert losses[0] == pytest.approx(
        float(eqx.filter_jit(loss)(model, batch))
    )  # without the penalty
    np.testing.assert_allclose(
        moved.specimen.absorption, model.specimen.absorption - 1e-3, rtol=1e-6, atol=1e-9
    )
    assert float(jnp.abs(moved.specimen.phase).max()) <= 0.1


def test_broken_counts_are_noticed():
    model = thin()
    batch = batch_for(model)
    broken = Batch(batch.view, batch.shots, batch.counts.at[2, 3, 3].set(jnp.nan), batch.weight)
    optimiser = per_part(specimen=optax.adam(1e-3))
    step, state = make_step(misfit(amplitude), optimiser), init_state(optimiser, model)
    assert not bool(step(copy(model), state, broken)[2]["finite"])


def start():
    """A flat specimen and a somewhat wrong probe."""
    model = thin()
    flat = SliceStack(
        jnp.zeros_like(model.specimen.phase),
        jnp.zeros_like(model.specimen.phase),
        8.0,
        jnp.array(ORIGIN),
    )
    wrong = PixelProbe(0.8 * pixel_probe().waves + 0.2 * pixel_probe(seed=40).waves)
    return thin(specimen=flat, probe=wrong)


SOLVERS = {
    "lbfgs": (lambda: per_part({("probe", "specimen"): optax.lbfgs(memory_size=5)}), 0.6),
    "lbfgs_per_part": (
        lambda: per_part(probe=optax.lbfgs(memory_size=5), specimen=optax.lbfgs(memory_size=5)),
        0.6,
    ),
    "momentum": (
        lambda: per_part(
            probe=optax.sgd(1e-3, momentum=0.8), specimen=optax.sgd(1e-2, momentum=0.8)
        ),
        0.8,
    ),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_full_batches_descend(name):
    make, part_left = SOLVERS[name]
    batch = batch_for(other(thin()))
    _, losses = run(misfit(amplitude), start(), 12, make(), batch)
    assert losses[-1] < part_left * losses[0]
    assert sum(b > a * (1 + 1e-9) for a, b in itertools.pairwise(losses)) <= 1


@pytest.mark.parametrize(
    "optimiser", [optax.lbfgs(), per_part(probe=optax.lbfgs())], ids=["plain", "per_part"]
)
def test_lbfgs_solves_a_complex_least_squares_problem(optimiser):
    """Line search and curvature use the right slope along complex parameters."""
    model = thin()
    rng = np.random.default_rng(3)
    shape = model.probe.waves.shape
    target = jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)) * 3
    matrix = (
        jnp.asarray(rng.normal(size=(shape[1],) * 2) + 1j * rng.normal(size=(shape[1],) * 2)) / 4
    )
    matrix = matrix + 2 * jnp.eye(shape[1])

    def loss(model, batch):
        return jnp.sum(jnp.abs(matrix @ (model.probe.waves - target)) ** 2)

    solved, losses = run(loss, model, 40, optimiser, batch_for(model))
    assert losses[-1] < 1e-6 * losses[0]
    np.testing.assert_allclose(solved.probe.waves, target, atol=1e-2)
    assert (np.diff(losses) <= 1e-12).all()


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.contrib.schedule_free_adamw(1e-2),
        optax.adamw(1e-2),
        optax.lion(1e-3),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-2, nesterov=True)),
        optax.inject_hyperparams(optax.adam)(1e-2),
    ],
    ids=["schedule_free", "adamw", "lion", "clipped", "injected"],
)
def test_optax_optimisers_run(optimiser):
    model = thin()
    batch = batch_for(model)
    moved, losses = run(misfit(amplitude), model, 2, per_part(specimen=optimiser), batch)
    assert np.isfinite(losses).all()
    assert not np.allclose(moved.specimen.phase, model.specimen.phase)
