"""Penalties against sums written out, and what they promise about weights."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from jaxptycho import PotentialSlices, SliceStack
from jaxptycho.inverse.constraints.filters import depth_frequencies, measurable
from jaxptycho.inverse.penalties import (
    PENALTIES,
    l1,
    l2,
    missing_cone,
    sum_of,
    tikhonov,
    total_variation,
)
from jaxptycho.physics.grids import plane_frequencies

pytestmark = pytest.mark.usefixtures("quick_to_compile")

ORIGIN = jnp.array(models.ORIGIN)
WEIGHT = 3.0
OF_A_SPECIMEN = [n for n, f in PENALTIES.items() if "of" in inspect.signature(f).parameters]
KEYS = {"missing_cone": {"semiangle_mrad": 25.0}}


def made(name, **keys):
    return PENALTIES[name](weight=WEIGHT, **KEYS.get(name, {}), **keys)


def of(phase, thickness=8.0, periodic=False):
    return models.thin(specimen=SliceStack(jnp.asarray(phase), None, thickness, ORIGIN, periodic))


def steps(stack, axis):
    return np.concatenate(
        [np.diff(stack, axis=axis), np.zeros_like(np.take(stack, [0], axis))], axis
    )


def test_penalties_written_out():
    model = models.thin(specimen=models.stack(3))
    phase, absorption = np.asarray(model.specimen.phase), np.asarray(model.specimen.absorption)
    pixels = phase[0].size
    plane, depth = steps(phase, 1) ** 2 + steps(phase, 2) ** 2, steps(phase, 0) ** 2
    space = (
        steps(phase, 0) ** 2 / 20**2 + steps(phase, 1) ** 2 + steps(phase, 2) ** 2 / 1.25**2
    )  # 8, 0.4 and 0.5 Å
    expected = {
        l1(WEIGHT): np.abs(phase),
        l1(WEIGHT, of="absorption"): absorption,
        l2(WEIGHT): phase**2,
        tikhonov(WEIGHT): plane,
        tikhonov(WEIGHT, along="z"): depth,
        total_variation(WEIGHT, smooth=0.2): np.sqrt(plane + 0.04) - 0.2,
        total_variation(WEIGHT, along="z", smooth=0.2): np.sqrt(depth + 0.04) - 0.2,
        total_variation(WEIGHT, along="volume", smooth=0.2): np.sqrt(space + 0.04) - 0.2,
        tikhonov(WEIGHT, along="volume"): space,
    }
    for penalty, price in expected.items():
        np.testing.assert_allclose(penalty(model), WEIGHT * price.sum() / pixels, rtol=1e-12)


def test_total_variation_of_an_edge_is_its_length_times_its_height():
    phase = np.zeros((1, 20, 20))
    phase[:, 5:15, 4:16] = 0.7
    by_hand = 0.7 * (10 * 2 + 12 * 2 - 1) + 0.7 * (
        np.sqrt(2) - 1
    )  # one corner's steps fall on one pixel
    found = total_variation(1.0, smooth=1e-9)(of(phase)) * 400
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_total_variation_in_a_volume_knows_no_direction():
    """A ball with a smooth edge costs its height times its surface, 4π⟨r²⟩ over the edge."""
    voxel, radius = (0.3, *models.GRID.pixel), 3.5
    z, y, x = (step * (np.arange(n) - n // 2) for n, step in zip((36, 32, 30), voxel, strict=True))
    distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2) - radius
    ball = 0.7 * (0.5 - 0.5 * np.tanh(distance / 0.7))
    cost = float(total_variation(1.0, along="volume", smooth=1e-6)(of(ball, 0.3)))
    integral = cost * 32 * 30 * np.prod(voxel) / min(voxel[1:])
    np.testing.assert_allclose(
        integral, 0.7 * 4 * np.pi * (radius**2 + np.pi**2 / 12 * 0.7**2), rtol=0.02
    )


@pytest.mark.parametrize("name", PENALTIES)
def test_weights_mean_the_same_in_a_larger_field_of_view(name):
    small = models.phases(3)
    faded = (
        small * np.hanning(32)[:, None] * np.hanning(30)
    )  # nothing at the edges, where tiles meet
    tiled = jnp.tile(faded, (1, 2, 3))
    one, many = (eqx.filter_jit(made(name))(of(phase)) for phase in (faded, tiled))
    np.testing.assert_allclose(many, one, rtol=2e-2)


@pytest.mark.parametrize("key", ["phase", "absorption"])
def test_a_potential_costs_what_its_phase_costs(key):
    penalty = eqx.filter_jit(sum_of(*(made(name, of=key) for name in OF_A_SPECIMEN)))
    model = models.thin(specimen=models.stack(3))
    s = model.specimen
    per_volt = models.GRID.sigma * 8.0
    potential = PotentialSlices(s.phase / per_volt, s.absorption / per_volt, jnp.array(8.0), ORIGIN)
    other = models.thin(specimen=potential)
    np.testing.assert_allclose(penalty(other), penalty(model), rtol=1e-12)


def test_gradients_are_those_of_finite_differences():
    model = models.MODELS["potential"]()
    all_of_them = [made(n, of=o) for n in OF_A_SPECIMEN for o in ("phase", "absorption")]
    all_of_them += [made(n, along="z") for n in ("total_variation", "tikhonov")]
    penalty = sum_of(*all_of_them)
    direction = jax.tree.map(
        lambda a: (
            jnp.asarray(models.rng(40).normal(size=a.shape))
            if eqx.is_inexact_array(a) and a.ndim == 3
            else None
        ),
        model.specimen,
    )

    @jax.jit
    def along(t):
        moved = jax.tree.map(lambda a, d: a if d is None else a + t * d, model.specimen, direction)
        return penalty(eqx.tree_at(lambda m: m.specimen, model, moved))

    h = 1e-6
    np.testing.assert_allclose(jax.grad(along)(0.0), (along(h) - along(-h)) / (2 * h), rtol=1e-6)


def test_missing_cone_is_a_weighted_sum_over_frequencies():
    model = models.thin(specimen=models.stack(4))
    phase = np.asarray(model.specimen.phase)
    mirrored = np.concatenate([phase, phase[::-1]])  # what the cosine transform sees
    spectrum = np.abs(np.fft.fftn(mirrored)) ** 2 / mirrored.size
    py, px = models.GRID.pixel
    kz, ky, kx = (np.fft.fftfreq(n, d) for n, d in zip(mirrored.shape, (8.0, py, px), strict=True))
    guard = 0.5 / max(32 * py, 30 * px)
    kr2 = ky[:, None] ** 2 + kx**2 + guard**2
    w = 1 - 2 / np.pi * np.arctan(kz[:, None, None] ** 2 / (0.025**2 * kr2))
    expected = np.sum((1 - w) * spectrum) / 2 / phase[0].size
    np.testing.assert_allclose(missing_cone(2.0, 25.0)(model), 2.0 * expected, rtol=1e-10)


def test_half_of_what_lies_on_the_edge_of_the_missing_cone_is_kept():
    ky, kx = plane_frequencies((64, 64), (0.4, 0.4))
    kz = depth_frequencies(16, 20.0)
    kr = np.asarray(jnp.sqrt(ky**2 + kx**2))
    w = np.asarray(measurable((16, 64, 64), (0.4, 0.4), 20.0, float(kz[5] / kr[20, 20])))
    np.testing.assert_allclose(w[5, 20, 20], 0.5, atol=1e-3)
    np.testing.assert_allclose(w[0], 1.0)
    assert w[1:, 0, 0].max() < 0.2  # uniform layers, which no view tells apart
    assert np.all(np.diff(w, axis=0) < 0)


def test_the_projected_phase_costs_nothing_in_the_missing_cone():
    layer = np.asarray(models.phases(1))
    np.testing.assert_allclose(
        missing_cone(WEIGHT, 20.0)(of(np.repeat(layer, 5, 0))), 0.0, atol=1e-12
    )


def test_a_sum_adds_up():
    model = models.thin()
    np.testing.assert_allclose(sum_of(l1(1.0), l2(2.0))(model), l1(1.0)(model) + 2 * l2(1.0)(model))
    assert sum_of()(model) == 0


@pytest.mark.parametrize("name", PENALTIES)
def test_single_precision_stays(name):
    specimen = jax.tree.map(
        lambda a: a.astype(jnp.float32) if eqx.is_array(a) else a, models.stack(3)
    )
    model = models.thin(specimen=specimen)
    double = models.thin(specimen=models.stack(3))
    np.testing.assert_allclose(made(name)(model), made(name)(double), rtol=1e-5)
    assert (
        jax.eval_shape(
            jax.grad(lambda s: made(name)(models.thin(specimen=s)), allow_int=True), specimen
        ).phase.dtype
        == jnp.float32
    )


@pytest.mark.parametrize("name", PENALTIES)
def test_job_files_can_read_the_signatures(name):
    for key in inspect.signature(PENALTIES[name]).parameters.values():
        assert key.annotation is not inspect.Parameter.empty
    assert (
        inspect.signature(PENALTIES[name]).parameters["weight"].default is inspect.Parameter.empty
    )


@pytest.mark.parametrize(
    ("penalty", "name", "said"),
    [
        (tikhonov(1.0, along="z"), "thin", "one slice"),
        (missing_cone(1.0, 20.0), "thin", "one slice"),
        (missing_cone(1.0, 20.0), "multislice", "3 thicknesses"),
        (l1(1.0, of="absorption"), "phase_only", "no absorption"),
    ],
)
def test_what_has_no_meaning_is_refused(penalty, name, said):
    with pytest.raises(ValueError, match=said):
        penalty(models.MODELS[name]())


def test_a_sharp_total_variation_is_refused():
    with pytest.raises(ValueError, match="positive step"):
        total_variation(1.0, smooth=0.0)
