"""One contract for all parts, losses, penalties, constraints and solvers.

Each has the shape it promises, works compiled and mapped, is traced once, and its gradient is
that of central differences. Whatever is added to the package has to appear here.
"""

import contextlib
import importlib
import inspect
import pkgutil
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from constraint_keys import CONSTRAINT_KEYS
from listeners import Said
from models import (
    DETECTORS,
    FIELD,
    GRID,
    N_SHOTS,
    ORIGIN,
    aberrated_probe,
    absorptions,
    any_batch,
    assert_gradient,
    atoms,
    batch_for,
    mask,
    other,
    phases,
    pixel_probe,
    positions,
    relaxed_probe,
    rng,
    stack,
    thin,
    tilts,
    transmission_stack,
)

import jaxptycho
from jaxptycho import (
    AffineScan,
    AngularSpectrum,
    BandLimited,
    Dataset,
    Descanned,
    FreeScan,
    Fresnel,
    Gain,
    Ideal,
    MixedStates,
    PerShot,
    PotentialSlices,
    Tilted,
    Volume,
    WeakPhaseStack,
    init_state,
    make_step,
    mesh,
    misfit,
    per_part,
    select,
)
from jaxptycho.inverse import losses
from jaxptycho.inverse.constraints import probe as probe_constraints
from jaxptycho.inverse.constraints.registry import CONSTRAINTS, build
from jaxptycho.inverse.penalties import PENALTIES
from jaxptycho.inverse.solvers import awf, difference_map, lsqml, mpie, pie, raar, three_pie
from jaxptycho.inverse.solvers.preconditioning import PRECONDITIONERS, measured, shell_growth
from jaxptycho.inverse.solvers.registry import ENGINES
from jaxptycho.inverse.step import copy_for_donation
from jaxptycho.physics.waves import Exit
from jaxptycho.runs.batch_source import BatchSource
from jaxptycho.runs.loop import Loop, Refinement
from jaxptycho.runs.state import Diverged, Progress

pytestmark = pytest.mark.usefixtures("quick_to_compile")

WAVE = jnp.asarray(
    rng(50).normal(size=(2, *GRID.shape)) + 1j * rng(51).normal(size=(2, *GRID.shape))
)
SHARED_SCAN = AffineScan(
    positions()[0], jnp.eye(2) * 1.02, jnp.array([0.1, 0.2]), jnp.zeros(2), jnp.ones(2)
)
WINDOW = GRID.shape

PARTS = {  # an example of each part, and the shape of its answer
    "PixelProbe": (pixel_probe(), (2, *WINDOW)),
    "RelaxedProbe": (select(relaxed_probe(), PerShot, 1), (2, *WINDOW)),
    "AberratedProbe": (aberrated_probe(), (1, *WINDOW)),
    "SliceStack": (stack(3), (3, *FIELD)),
    "TransmissionStack": (transmission_stack(3), (3, *FIELD)),
    "WeakPhaseStack": (
        stack(2, kind=WeakPhaseStack, periodic=True),
        (2, FIELD[0] + 15, FIELD[1] + 11),
    ),
    "PotentialSlices": (
        PotentialSlices(20 * phases(2), 20 * absorptions(2), jnp.array(9.0), jnp.array(ORIGIN)),
        (2, *FIELD),
    ),
    "Atoms": (atoms(), (2, *FIELD)),
    "MixedStates": (MixedStates((stack(2), stack(2)), jnp.array([0.3, -0.2])), (4, *FIELD)),
    "Volume": (
        Volume(
            20 * phases(6),
            (0.6, 0.4, 0.5),
            0.3,
            2,
            None,
            (0.02, -0.03),
            (0.2, 0.1),
            depth=8,
            kernel="linear",
        ),
        (2, *FIELD),
    ),
    "FreeScan": (FreeScan(positions()[0]), (2,)),
    "AffineScan": (SHARED_SCAN, (2,)),
    "Fresnel": (Fresnel(), WINDOW),
    "AngularSpectrum": (AngularSpectrum(), WINDOW),
    "BandLimited": (BandLimited(Fresnel()), WINDOW),
    "Tilted": (Tilted(tilts()[0]), WINDOW),
    "Ideal": (Ideal(), WINDOW),
    "Descanned": (Descanned(jnp.array([0.1, -0.05])), WINDOW),
    "Gain": (Gain(jnp.array(1.2)), WINDOW),
    "NearField": (DETECTORS["near_field"](), WINDOW),
    "Background": (DETECTORS["background"](), WINDOW),
    "Blurred": (DETECTORS["blurred"](), WINDOW),
    "ModulationTransfer": (DETECTORS["modulation_transfer"](), WINDOW),
    "SuperSampled": (DETECTORS["super_sampled"](), (8, 6)),
    "Cropped": (DETECTORS["cropped"](), (10, 8)),
    "Masked": (DETECTORS["masked"](), WINDOW),
}
ANSWERS = {
    "AbstractProbe": lambda part, scale: scale * part.spectrum(GRID),
    "AbstractSpecimen": lambda part, scale: scale * part.slices(GRID).transmission,
    "AbstractScan": lambda part, scale: scale * part.position(),
    "AbstractPropagator": lambda part, scale: part.kernel(GRID, 7.0 * scale),
    "AbstractDetector": lambda part, scale: part.detect(
        Exit(scale * WAVE, jnp.ones(GRID.shape, complex)), GRID
    ),
}


def thick():
    return thin(specimen=stack(3, jnp.array(8.0)))


NOISES = {
    "amplitude": losses.amplitude,
    "anscombe": losses.anscombe,
    "gaussian": partial(losses.gaussian, variance=3.0),
    "poisson": losses.poisson,
}
PRICES = {
    "l1": {"weight": 2.0},
    "l2": {"weight": 2.0},
    "total_variation": {"weight": 2.0, "along": "volume"},
    "tikhonov": {"weight": 2.0, "along": "z"},
    "missing_cone": {"weight": 2.0, "semiangle_mrad": 20.0},
    "probe_smoothness": {"weight": 2.0},
    "probe_spectrum_smoothness": {"weight": 2.0},
}
PROJECTS = CONSTRAINT_KEYS | {
    "amplitude_clamp": {"lowest": 0.95},
    "positivity": {},
    "identical_slices": {},
    "vacuum_surfaces": {},
    "phase_limits": {"lowest_rad": -0.2, "highest_rad": 0.3},
    "field_of_view": {"threshold": 0.3},
    "vacuum_baseline": {"threshold": 0.3},
    "support": {"blur_angstrom": 1.0, "threshold": 0.5},
    "low_pass_volume": {"cutoff_inverse_angstrom": 0.6, "edge_inverse_angstrom": 0.1},
    "probe_power": {"dose": 123.0},
    "orthogonal_modes": {},
    "probe_centring": {},
    "phase_offset_removal": {},
    "phase_ramp_removal": {},
    "position_recentring": {},
}
MASKS = {
    "probe_mask": probe_constraints.probe_mask,
    "probe_spectrum_mask": probe_constraints.probe_spectrum_mask,
}
SOLVERS = {
    "adam": lambda: per_part(
        specimen=optax.adam(5e-3), probe=optax.adam(5e-3), scan=optax.adam(1e-2)
    ),
    "momentum": lambda: per_part(specimen=optax.sgd(1e-3, momentum=0.9)),
    "measured": lambda: per_part(specimen=optax.chain(measured(20.0), optax.adam(5e-3))),
    "shell_growth": lambda: per_part(
        specimen=optax.chain(shell_growth(0.3, 1.0, 3), optax.adam(5e-3))
    ),
    "lbfgs": lambda: per_part(specimen=optax.lbfgs(memory_size=3)),
    "awf": lambda: per_part(specimen=awf(), probe=awf()),
    "epie": lambda: per_part(specimen=pie.epie(0.2), probe=pie.epie(0.2)),
    "rpie": lambda: per_part(specimen=pie.rpie(0.5, rate=0.2)),
    "mpie": lambda: per_part(specimen=mpie(0.5, period=2), probe=mpie(0.5, period=2)),
    "three_pie": lambda: per_part(specimen=three_pie(), probe=three_pie()),
    "difference_map": lambda: per_part({("specimen", "probe"): difference_map(N_SHOTS)}),
    "raar": lambda: per_part({("specimen", "probe"): raar(N_SHOTS)}),
    "lsqml": lambda: per_part({("specimen", "probe", "scan"): lsqml()}),
}


def final_parts():
    for found in pkgutil.iter_modules(jaxptycho.parts.__path__):
        module = importlib.import_module(f"jaxptycho.parts.{found.name}")
        for name, kind in vars(module).items():
            own = inspect.isclass(kind) and kind.__module__ == module.__name__
            if (
                own
                and not inspect.isabstract(kind)
                and any(b.__name__ in ANSWERS for b in kind.__mro__)
            ):
                yield name


def public_functions(module):
    return {
        n
        for n, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and n[0] != "_"
    }


def test_nothing_is_left_out():
    assert set(final_parts()) == set(PARTS)
    assert public_functions(losses) - {"misfit", "from_noise_or_loss"} == set(NOISES)
    assert set(PENALTIES) == set(PRICES)
    assert set(CONSTRAINTS) == set(PROJECTS)
    assert set(PRECONDITIONERS) | set(ENGINES) <= set(SOLVERS)


def assert_compiles_once(function, *scales):
    """Compiled and eager answers agree, and the second call does not trace again."""
    traces = []

    @jax.jit
    def compiled(scale):
        traces.append(1)
        return function(scale)

    answers = [compiled(scale) for scale in scales]
    assert len(traces) == 1
    return answers


@pytest.mark.parametrize("name", PARTS)
def test_parts(name):
    part, shape = PARTS[name]
    answer = next(ANSWERS[b.__name__] for b in type(part).__mro__ if b.__name__ in ANSWERS)
    params, rest = eqx.partition(part, eqx.is_inexact_array)

    def of_scale(scale):
        """The part with all its parameters scaled, so that all of them are traced."""
        return answer(eqx.combine(jax.tree.map(lambda a: scale * a, params), rest), scale)

    one, two = assert_compiles_once(of_scale, jnp.array(1.0), jnp.array(1.1))
    assert one.shape == shape
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, answer(part, jnp.array(1.0)), rtol=1e-9, atol=1e-9)
    mapped = jax.jit(jax.vmap(of_scale))(jnp.array([1.0, 1.1]))
    np.testing.assert_allclose(mapped, jnp.stack([one, two]), rtol=1e-9, atol=1e-9)
    if jax.tree.leaves(params):
        weights = jnp.asarray(rng(52).normal(size=shape))

        def scalar(model):
            values = answer(model.part, jnp.array(1.0))
            return jnp.sum(weights * values.real) + jnp.sum(weights[::-1] * values.imag)

        assert_gradient(scalar, Holder(part, GRID), step=1e-6)


class Holder(eqx.Module):
    """A part in the place of a model: what asks for natural units asks the model for its grid."""

    part: eqx.Module
    grid: eqx.Module


def scaled(model, scale):
    return jax.tree.map(
        lambda a: scale * a if eqx.is_inexact_array(a) and a.ndim == 3 else a, model
    )


def assert_scalar_contract(function, model):
    one, two = assert_compiles_once(
        lambda s: function(scaled(model, s)), jnp.array(1.0), jnp.array(1.1)
    )
    assert one.shape == ()
    assert np.isfinite(one)
    assert one >= 0
    mapped = jax.jit(jax.vmap(lambda s: function(scaled(model, s))))(jnp.array([1.0, 1.1]))
    np.testing.assert_allclose(mapped, [one, two], rtol=1e-10)
    assert_gradient(function, model)


@pytest.mark.parametrize("name", NOISES)
def test_losses(name):
    model = thin()
    batch, loss = any_batch(model), misfit(NOISES[name])
    assert_scalar_contract(lambda m: loss(m, batch), model)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties(name):
    assert_scalar_contract(PENALTIES[name](**PRICES[name]), thick())


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_of_a_transmission_are_those_of_its_phase(name):
    penalty = PENALTIES[name](**PRICES[name])
    same = thin(specimen=transmission_stack(3))
    np.testing.assert_allclose(penalty(same), penalty(thick()), rtol=1e-10)
    assert_gradient(penalty, same)


@pytest.mark.parametrize(
    "name", sorted(set(CONSTRAINTS) - {"atomicity", "smooth_tilts", "smooth_weights"})
)
def test_constraints_of_a_transmission_are_those_of_its_phase(name):
    same = thin(specimen=transmission_stack(3))
    expected = constraint(name, thick())(thick())
    found = constraint(name, same)(same)
    shots = np.arange(len(positions()))
    np.testing.assert_allclose(
        jaxptycho.predict(found, shots), jaxptycho.predict(expected, shots), rtol=1e-8, atol=1e-10
    )


def test_positivity_of_atoms():
    """Occupancies and Debye–Waller factors that a step has made negative."""
    model = thin(specimen=atoms())
    below = eqx.tree_at(lambda m: m.specimen.occupancy, model, model.specimen.occupancy - 0.7)
    found = build("positivity", model)(below).specimen
    np.testing.assert_array_equal(found.occupancy, np.maximum(below.specimen.occupancy, 0))
    np.testing.assert_array_equal(found.debye_waller, model.specimen.debye_waller)


def constrained():
    """Three slices, a relaxed probe and a tilt of every shot."""
    return thin(
        probe=relaxed_probe(),
        specimen=stack(3, jnp.array(8.0)),
        propagator=Tilted(PerShot(tilts())),
    )


def constraint(name, model):
    if name in MASKS:
        return MASKS[name](jnp.asarray(mask()))
    return build(name, model, **PROJECTS.get(name, {}))


@pytest.mark.parametrize("name", [*CONSTRAINTS, *MASKS])
def test_constraints(name):
    model = constrained() if name.startswith("smooth") else thick()
    moved = eqx.tree_at(lambda m: m.scan.positions.values, model, model.scan.positions.values + 0.3)
    project = constraint(name, moved)  # some lead back to the model that they were built from
    one, _ = assert_compiles_once(
        lambda s: eqx.filter(project(scaled(model, s)), eqx.is_array),
        jnp.array(1.0),
        jnp.array(1.1),
    )
    arrays = eqx.filter(model, eqx.is_array)
    assert jax.tree.structure(one) == jax.tree.structure(arrays)
    for new, old in zip(jax.tree.leaves(one), jax.tree.leaves(arrays), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
        assert np.isfinite(new).all()
    changed = any(
        not np.allclose(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(arrays), strict=True)
    )
    assert changed


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", [stack, transmission_stack])
def test_solvers(name, kind):
    model, traces = thin(specimen=kind(3 if name in PRECONDITIONERS else 1)), []
    batch, optimiser = batch_for(other(model)), SOLVERS[name]()
    loss = misfit(losses.amplitude)

    def counting(model, batch):
        traces.append(1)
        return loss(model, batch)

    step, state = make_step(counting, optimiser), init_state(optimiser, model)
    moved, values = jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, model), []
    for n in range(4):
        moved, state, info = step(moved, state, batch)
        values.append(float(info["loss"]))
        if n == 0:
            traced = len(traces)
    assert len(traces) == traced
    assert values[-1] < values[0]
    for new, old in zip(jax.tree.leaves(moved), jax.tree.leaves(model), strict=True):
        if eqx.is_array(old):
            assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, False)


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_return_no_worse_a_model_without_saying_so(name):
    """From the model that the patterns are of, with steps far too long."""
    truth = thin(specimen=transmission_stack(3 if name in PRECONDITIONERS else 1))
    shots = np.arange(len(positions()))
    counts = np.fft.fftshift(np.asarray(jaxptycho.predict(truth, shots), np.float32), (1, 2))
    data = Dataset(counts, np.asarray(positions()), GRID, frame=(0.0, 0.0))
    listener, source = Said(), BatchSource.of(data, mesh(1), 0.6)
    plan = Refinement(misfit(losses.amplitude), optax.chain(SOLVERS[name](), optax.scale(30.0)), 1)
    loop, progress = Loop(plan, source, listener), Progress(copy_for_donation(truth))
    given = source.held_out_loss(plan.loss, truth)
    with contextlib.suppress(Diverged):  # which says that the last good model is kept
        loop.run(progress)
        assert any("the one it began with" in line for line in listener.lines)
    assert source.held_out_loss(plan.loss, loop.result(progress)) <= given
