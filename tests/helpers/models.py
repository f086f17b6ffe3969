"""Small seeded models of every kind, and batches of counts for them."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxptycho import (
    AberratedProbe,
    AffineScan,
    AngularSpectrum,
    Atoms,
    Background,
    BandLimited,
    Batch,
    Blurred,
    Cropped,
    Descanned,
    FreeScan,
    Fresnel,
    Gain,
    Grid,
    Ideal,
    Masked,
    Model,
    ModulationTransfer,
    NearField,
    PerShot,
    PerView,
    PixelProbe,
    PotentialSlices,
    RelaxedProbe,
    SliceStack,
    SuperSampled,
    Tilted,
    TransmissionStack,
    WeakPhaseStack,
    predict,
)
from jaxptycho.inverse.solvers.parameter_scaling import natural_units

GRID = Grid(
    shape=(16, 12), pixel=(0.4, 0.5), voltage_kv=80.0
)  # rectangular, so that y and x never pass for each other
N_SHOTS = 7
FIELD = (32, 30)  # pixels of the specimen
DOSE = 400.0
# a transform in the text of a compiled program, by XLA or by own code, and the shape of what it transforms
TRANSFORM = re.compile(r"= \(?c\d+\[([\d,]+)\][^=\n]* (?:fft\(|custom-call\([^\n]*\"jaxptycho_)")


def rng(seed=0):
    return np.random.default_rng(seed)


def pixel_probe(modes=2, grid=GRID, dose=DOSE, seed=0) -> PixelProbe:
    """Smooth modes of falling power, `dose` in all."""
    ny, nx = grid.shape
    y, x = np.mgrid[:ny, :nx] - np.array([ny // 2, nx // 2])[:, None, None]
    envelope = np.exp(-((y / ny) ** 2 + (x / nx) ** 2) * 12)
    noise = rng(seed).normal(size=(2, modes, ny, nx))
    waves = (
        envelope * (1 + 0.3 * noise[0] + 0.3j * noise[1]) / np.arange(1, modes + 1)[:, None, None]
    )
    return PixelProbe(jnp.asarray(waves * np.sqrt(dose / np.sum(np.abs(waves) ** 2))))


def positions(grid=GRID, field=FIELD, n=N_SHOTS, seed=1):
    """Positions [Å] anywhere the window fits, with sub-pixel parts; the origin is (−2, 1) Å."""
    low = np.array([s // 2 for s in grid.shape]) + 0.6
    high = np.array(field) - np.array(grid.shape) + low - 1.2
    return jnp.asarray(rng(seed).uniform(low, high, (n, 2)) * grid.pixel) + jnp.array(ORIGIN)


ORIGIN = (-2.0, 1.0)


def phases(slices=1, field=FIELD, seed=2):
    return jnp.asarray(rng(seed).normal(size=(slices, *field)) * 0.4)


def absorptions(slices=1, field=FIELD, seed=3):
    return jnp.asarray(rng(seed).uniform(0, 0.1, (slices, *field)))


def stack(slices=1, thickness=8.0, periodic=False, kind=SliceStack) -> SliceStack:
    return kind(phases(slices), absorptions(slices), thickness, jnp.array(ORIGIN), periodic)


def transmission_stack(slices=1, thickness=8.0, periodic=False) -> TransmissionStack:
    """The slices of `stack` as transmissions."""
    same = stack(slices, thickness, periodic)
    transmission = jnp.exp(1j * same.phase - same.absorption)
    return TransmissionStack(transmission, thickness, jnp.array(ORIGIN), periodic)


def atoms() -> Atoms:
    """Vibrating atoms of three elements in two slices, some places half empty."""
    places = rng(13).uniform(0, 1, (6, 3)) * [
        8.0,
        FIELD[0] * GRID.pixel[0],
        FIELD[1] * GRID.pixel[1],
    ]
    vibration, occupancy = jnp.linspace(0.3, 1.5, 6), jnp.linspace(0.5, 1.0, 6)
    places = jnp.asarray(places + np.array([0.0, *ORIGIN]))
    return Atoms((42, 16, 16, 42, 8, 16), places, FIELD, 4.0, 2, ORIGIN, vibration, occupancy)


def free_scan(**kwargs) -> FreeScan:
    return FreeScan(PerShot(positions(**kwargs)))


def thin(**parts) -> Model:
    """One slice, two modes, free positions; `parts` are put in the place of these."""
    default = {"probe": pixel_probe(), "specimen": stack(), "scan": free_scan(), "grid": GRID}
    return Model(**(default | parts))


def aberrated_probe() -> AberratedProbe:
    return AberratedProbe(
        0.025,
        {"defocus": 60.0, "C12": 15.0, "phi12": 0.4, "C21": 300.0, "phi21": 1.0, "C30": 2e4},
        DOSE,
        (0.002, -1e-3),
    )


def relaxed_probe() -> RelaxedProbe:
    basis = jnp.stack([pixel_probe(seed=s).waves for s in (4, 5, 6)])
    steps = jnp.asarray(rng(7).normal(size=(N_SHOTS, 3)) * 0.2)
    return RelaxedProbe(basis, PerShot(steps.at[:, 0].add(1.0)))


def affine_scan() -> AffineScan:
    nominal = positions()
    return AffineScan(
        PerShot(nominal),
        jnp.array([[1.01, 0.02], [-0.015, 0.99]]),
        jnp.array([0.1, -0.05]),
        PerShot(jnp.asarray(rng(8).normal(size=nominal.shape) * 0.05)),
        jnp.mean(nominal, axis=0),
    )


def tilts():
    return jnp.asarray(rng(9).normal(size=(N_SHOTS, 2)) * 0.02)


def mask(shape=GRID.shape):
    return jnp.asarray(rng(10).uniform(size=shape) > 0.2)


def two_views() -> Model:
    """Own probe and own positions for each of two views, one tilt for each view."""
    probes = jnp.stack([pixel_probe(seed=s).waves for s in (0, 11)])
    places = jnp.stack([positions(seed=s) for s in (1, 12)])
    return thin(
        probe=PixelProbe(PerView(probes)),
        scan=FreeScan(PerView(PerShot(places))),
        specimen=stack(3),
        propagator=Tilted(PerView(jnp.array([[0.0, 0.01], [0.02, -0.01]]))),
    )


DETECTORS = {
    "ideal": lambda: Ideal(),
    "near_field": lambda: NearField(jnp.array(30.0)),
    "near_field_exact": lambda: NearField(jnp.array(30.0), AngularSpectrum()),
    "descanned": lambda: Descanned(PerShot(jnp.asarray(rng(14).normal(size=(N_SHOTS, 2)) * 0.1))),
    "gain": lambda: Gain(PerShot(jnp.linspace(0.8, 1.2, N_SHOTS))),
    "background": lambda: Background(jnp.array(0.3)),
    "blurred": lambda: Blurred(jnp.array(0.7)),
    "modulation_transfer": lambda: ModulationTransfer(jnp.array([1.0, 0.8, 0.5, 0.3])),
    "super_sampled": lambda: SuperSampled(factor=2),
    "cropped": lambda: Cropped((10, 8)),
    "masked": lambda: Masked(mask(), Ideal()),
    "nested": lambda: Masked(
        mask((8, 6)), Background(jnp.array(0.1), Blurred(jnp.array(0.5), SuperSampled(factor=2)))
    ),
}

MODELS = {
    "thin": thin,
    "multislice": lambda: thin(specimen=stack(3, jnp.array([5.0, 12.0, 8.0]))),
    "equal_slices": lambda: thin(specimen=stack(3)),
    "periodic": lambda: thin(specimen=stack(2, periodic=True)),
    "phase_only": lambda: thin(specimen=SliceStack(phases(), None, 8.0, jnp.array(ORIGIN))),
    "weak_phase": lambda: thin(specimen=stack(2, kind=WeakPhaseStack)),
    "potential": lambda: thin(
        specimen=PotentialSlices(
            30 * phases(2), 30 * absorptions(2), jnp.array(10.0), jnp.array(ORIGIN)
        )
    ),
    "atoms": lambda: thin(specimen=atoms()),
    "relaxed_probe": lambda: thin(probe=relaxed_probe()),
    "aberrated_probe": lambda: thin(probe=aberrated_probe()),
    "affine_scan": lambda: thin(scan=affine_scan()),
    "tilted": lambda: thin(
        specimen=stack(2), propagator=Tilted(PerShot(tilts()), AngularSpectrum())
    ),
    "band_limited": lambda: thin(specimen=stack(2), propagator=BandLimited(Fresnel())),
    "two_views": two_views,
    **{name: (lambda d=d: thin(detector=d())) for name, d in DETECTORS.items() if name != "ideal"},
}


# Few models that hold every part, for tests that compile a gradient.
RICH = {
    "thick": lambda: thin(
        probe=relaxed_probe(),
        specimen=PotentialSlices(
            30 * phases(3), 30 * absorptions(3), jnp.array([8.0, 14.0, 9.0]), jnp.array(ORIGIN)
        ),
        scan=affine_scan(),
        propagator=Tilted(PerShot(tilts()), AngularSpectrum()),
        detector=DETECTORS["nested"](),
    ),
    "periodic": lambda: thin(
        probe=aberrated_probe(),
        specimen=stack(2, jnp.array(8.0), periodic=True),
        propagator=BandLimited(Fresnel()),
        detector=Masked(
            mask(), ModulationTransfer(jnp.array([1.0, 0.8, 0.5, 0.3]), DETECTORS["gain"]())
        ),
    ),
    "near_field": lambda: thin(
        specimen=stack(2, jnp.array([5.0, 7.0]), kind=WeakPhaseStack),
        detector=Cropped((10, 8), DETECTORS["near_field"]()),
    ),
    "two_views": two_views,
}


def batch_for(model: Model, shots=range(N_SHOTS), view=0, weight=None, seed=20) -> Batch:
    """Poisson counts of a model somewhat other than `model`, so that nothing is at its optimum."""
    shots = np.asarray(shots, np.int32)
    expected = np.asarray(eqx.filter_jit(predict)(other(model), shots, view))
    counts = rng(seed).poisson(np.maximum(expected, 0)).astype(np.float32)
    weight = np.ones(len(shots), np.float32) if weight is None else np.asarray(weight, np.float32)
    return Batch(np.int32(view), shots, jnp.asarray(counts), jnp.asarray(weight))


def other(model: Model) -> Model:
    """`model` with a flatter specimen."""

    def flatter(specimen):
        return jax.tree.map(
            lambda a: 0.6 * a if eqx.is_inexact_array(a) and a.ndim == 3 else a, specimen
        )

    return eqx.tree_at(lambda m: m.specimen, model, flatter(model.specimen))


def any_batch(model: Model, shots=range(N_SHOTS), view=0, weight=None, seed=20) -> Batch:
    """Counts of no particular model, for tests of derivatives."""
    shots = np.asarray(shots, np.int32)
    shape = eqx.filter_eval_shape(predict, model, jnp.asarray(shots), jnp.int32(view)).shape
    counts = rng(seed).poisson(DOSE / (GRID.shape[0] * GRID.shape[1]), shape).astype(np.uint16)
    weight = np.ones(len(shots), np.float32) if weight is None else np.asarray(weight, np.float32)
    return Batch(np.int32(view), shots, jnp.asarray(counts), jnp.asarray(weight))


def value_and_gradient(function, model):
    """Compiled `params -> value, gradient` of `function(model)`, and the parameters of `model`."""
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    derived = jax.value_and_grad(lambda p: function(eqx.combine(p, rest)))
    return jax.jit(derived), params


def assert_gradient(function, model, step=1e-5, tolerance=1e-5, seed=30):
    """The gradient of `function(model)` against central differences, parameter by parameter.

    Along a random direction of each parameter in its natural units; JAX's gradient g of a
    complex one gives the change Re Σ g·d.
    """
    derived, params = value_and_gradient(function, model)
    value, gradient = derived(params)
    assert np.isfinite(value)
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    units, slopes, random = (
        jax.tree.leaves(jax.jit(natural_units)(params)),
        jax.tree.leaves(gradient),
        rng(seed),
    )
    assert leaves
    for n, (path, leaf) in enumerate(leaves):
        direction = random.normal(size=leaf.shape)
        if jnp.iscomplexobj(leaf):
            direction = direction + 1j * random.normal(size=leaf.shape)
        direction = direction * np.asarray(units[n])

        def moved(by, n=n, direction=direction):
            values = [v for _, v in leaves]
            values[n] = np.asarray(values[n]) + by * direction  # JAX would compile for each shape
            return float(derived(jax.tree.unflatten(tree, values))[0])

        measured = (moved(step) - moved(-step)) / (2 * step)
        assert slopes[n].dtype == leaf.dtype
        expected = np.sum(np.asarray(slopes[n]) * direction).real
        np.testing.assert_allclose(
            expected,
            measured,
            rtol=tolerance,
            atol=1e-14 * abs(float(value)) / step,
            err_msg=jax.tree_util.keystr(path),
        )
