"""ePIE and rPIE against the engines written out by hand, and on a small reconstruction."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import models
import numpy as np
import optax
import pytest

from jaxptycho import (
    AberratedProbe,
    Batch,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PerView,
    PixelProbe,
    SliceStack,
    predict,
)
from jaxptycho.inverse.losses import amplitude, misfit
from jaxptycho.inverse.solvers.curvature import batch_illumination, folded, squared_object
from jaxptycho.inverse.solvers.pie import epie, rpie
from jaxptycho.inverse.step import init_state, make_step, minimise, per_part

pytestmark = pytest.mark.usefixtures("quick_to_compile")
GRID = models.GRID
LOSS = misfit(partial(amplitude, eps=0.0))
CORNERS = np.array([[3, 5], [10, 2], [7, 9]])  # first pixels of the windows


def on_pixels(slices=1, absorbing=True, remainder=(0.0, 0.0)) -> Model:
    """Probes that stand on whole pixels, plus `remainder` pixels."""
    middle = np.array([n // 2 for n in GRID.shape])
    positions = (CORNERS + middle + np.array(remainder)) * GRID.pixel + models.ORIGIN
    specimen = models.stack(slices)
    if not absorbing:
        specimen = eqx.tree_at(lambda s: s.absorption, specimen, None)
    return models.thin(specimen=specimen, scan=FreeScan(PerShot(jnp.asarray(positions))))


def batch_of(model, shots, weight=None):
    return models.batch_for(model, shots, weight=weight)


def take_step(model, batch, optimiser, loss=LOSS):
    copy = jax.tree.map(lambda leaf: leaf.copy() if eqx.is_array(leaf) else leaf, model)
    return make_step(loss, optimiser)(copy, init_state(optimiser, model), batch)[0]


def transmission(model):
    return np.asarray(model.specimen.slices(GRID).transmission)


def shifted(waves, pixels):
    ky, kx = (np.fft.fftfreq(n) for n in waves.shape[-2:])
    ramp = np.exp(-2j * np.pi * (ky[:, None] * pixels[0] + kx * pixels[1]))
    return np.fft.ifft2(ramp * np.fft.fft2(waves))


def by_hand(obj, probe, batch, a, b, rate=1.0, remainder=(0.0, 0.0)):
    """Maiden & Rodenburg (2009) eqs. 2–6 and Maiden et al. (2017) eq. 14 for incoherent modes:
    updates of all shots of a batch added up over common denominators."""
    ny, nx = GRID.shape
    more_obj, power = np.zeros_like(obj), np.zeros(obj.shape)
    more_probe, object_power = np.zeros_like(probe), np.zeros(GRID.shape)
    beam = shifted(probe, remainder)
    for shot, counts in zip(np.asarray(batch.shots), np.asarray(batch.counts, float), strict=True):
        y, x = CORNERS[shot]
        seen = obj[y : y + ny, x : x + nx]
        far = np.fft.fft2(seen * beam, norm="ortho")
        modelled = np.sqrt(np.sum(np.abs(far) ** 2, axis=0))
        difference = np.fft.ifft2(far * (np.sqrt(counts) / modelled), norm="ortho") - seen * beam
        more_obj[y : y + ny, x : x + nx] += np.sum(np.conj(beam) * difference, axis=0)
        power[y : y + ny, x : x + nx] += np.sum(np.abs(beam) ** 2, axis=0)
        more_probe += np.conj(seen) * difference
        object_power += np.abs(seen) ** 2
    obj = obj + rate * more_obj / ((1 - a) * power + a * power.max())
    more_probe = more_probe / ((1 - b) * object_power + b * object_power.max())
    return obj, probe + rate * shifted(more_probe, -np.asarray(remainder))


@pytest.mark.parametrize(
    ("shots", "a", "b", "rate"), [([1], 0.1, 0.3, 1.0), ([0, 1, 2], 0.4, 0.2, 0.5)]
)
def test_a_step_is_the_engine_written_out(shots, a, b, rate):
    model = on_pixels()
    batch = batch_of(model, shots)
    after = take_step(model, batch, per_part(specimen=rpie(a, rate), probe=rpie(b, rate)))
    obj, probe = by_hand(transmission(model)[0], np.asarray(model.probe.waves), batch, a, b, rate)
    np.testing.assert_allclose(transmission(after)[0], obj, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(after.probe.waves, probe, rtol=1e-10, atol=1e-10)
    assert np.abs(obj - transmission(model)[0]).max() > 1e-2


def test_epie_between_pixels():
    model = on_pixels(remainder=(0.3, -0.2))
    batch = batch_of(model, [2])
    after = take_step(model, batch, epie())
    obj, probe = by_hand(
        transmission(model)[0],
        np.asarray(model.probe.waves),
        batch,
        1.0,
        1.0,
        remainder=(0.3, -0.2),
    )
    np.testing.assert_allclose(transmission(after)[0], obj, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(after.probe.waves, probe, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(after.scan.positions.values, model.scan.positions.values)


def test_other_parts_go_with_other_optimisers():
    model = on_pixels(remainder=(0.2, 0.1))
    after = take_step(
        model, batch_of(model, [0, 1]), per_part(specimen=rpie(0.2), scan=optax.sgd(1e-3))
    )
    moved = np.any(after.scan.positions.values != model.scan.positions.values, axis=1)
    np.testing.assert_array_equal(moved, [True, True, False])
    np.testing.assert_array_equal(after.probe.waves, model.probe.waves)
    assert not np.allclose(after.specimen.phase, model.specimen.phase)


def test_padding_shots_count_for_nothing():
    model = on_pixels()
    padded = take_step(model, batch_of(model, [0, 1, 2], weight=[1, 1, 0]), rpie())
    short = take_step(model, batch_of(model, [0, 1]), rpie())
    np.testing.assert_allclose(transmission(padded), transmission(short), rtol=1e-6)
    np.testing.assert_allclose(padded.probe.waves, short.probe.waves, rtol=1e-6)


def test_a_pure_phase_turns_along_its_circle():
    model = on_pixels(absorbing=False)
    batch = batch_of(model, [1])
    after = take_step(model, batch, rpie(0.3))
    old = transmission(model)[0]
    full, _ = by_hand(old, np.asarray(model.probe.waves), batch, 0.3, 0.3)
    turned = 1 + 1j * ((full - old) / old).imag  # the tangential part of the full update
    np.testing.assert_allclose(
        after.specimen.phase[0], model.specimen.phase[0] + np.angle(turned), atol=1e-10
    )
    assert after.specimen.absorption is None


def test_illumination_is_the_sum_of_placed_probes():
    model = models.thin(specimen=models.stack(3, jnp.array([5.0, 12.0, 8.0])))
    model = eqx.tree_at(lambda m: m.specimen.absorption, model, None)
    batch = batch_of(model, range(4))
    seen = eqx.filter_jit(batch_illumination)(model, batch)
    assert seen.shape == model.specimen.phase.shape
    np.testing.assert_allclose(
        jnp.sum(seen, axis=(1, 2)), 4 * models.DOSE, rtol=1e-10
    )  # no slice absorbs
    middle = np.tensordot(np.asarray(seen[0]), np.indices(seen.shape[1:]), ([0, 1], [1, 2])) / (
        4 * models.DOSE
    )
    centre = (
        np.mean(np.asarray(model.scan.positions.values)[:4] - models.ORIGIN, axis=0) / GRID.pixel
    )
    np.testing.assert_allclose(middle, centre, atol=0.4)


def test_a_periodic_specimen_collects_what_ran_over_its_edge():
    model = models.thin(specimen=models.stack(periodic=True))
    far = eqx.tree_at(
        lambda m: m.scan.positions.values,
        model,
        model.scan.positions.values + jnp.array(models.FIELD) * 0.4,
    )
    seen = eqx.filter_jit(batch_illumination)(far, batch_of(model, range(7)))
    assert seen.shape == model.specimen.phase.shape
    np.testing.assert_allclose(jnp.sum(seen), 7 * models.DOSE, rtol=1e-10)
    field = jnp.arange(20.0).reshape(1, 4, 5)
    np.testing.assert_allclose(folded(field, (1, 3, 3))[0, 0, 0], 0 + 3 + 15 + 18)


def test_the_object_under_the_batch():
    model = on_pixels()
    t = transmission(model)[0]
    windows = [np.abs(t[y : y + 16, x : x + 12]) ** 2 for y, x in CORNERS[:2]]
    np.testing.assert_allclose(
        squared_object(model, batch_of(model, [0, 1])), sum(windows), rtol=1e-6
    )


def test_views_have_their_own_probe():
    model = models.thin(
        probe=PixelProbe(PerView(jnp.stack([models.pixel_probe(seed=s).waves for s in (0, 11)]))),
        scan=FreeScan(PerView(PerShot(jnp.stack([models.positions(seed=s) for s in (1, 12)])))),
    )
    after = take_step(model, models.batch_for(model, [0, 1], view=1), rpie())
    old, new = model.probe.waves.values, after.probe.waves.values
    np.testing.assert_array_equal(new[0], old[0])
    assert not np.allclose(new[1], old[1])


@pytest.mark.parametrize("regularisation", [0.0, -0.1, 1.5])
def test_regularisation_outside_its_range_is_refused(regularisation):
    with pytest.raises(ValueError, match="number above 0"):
        rpie(regularisation)


@pytest.mark.parametrize(
    ("name", "optimiser", "said"),
    [
        ("aberrated_probe", rpie(), "an? AberratedProbe has none"),
        ("potential", rpie(), "a PotentialSlices has none"),
        ("weak_phase", per_part(specimen=rpie()), "a WeakPhaseStack has none"),
        ("thin", per_part(scan=rpie()), "given neither"),
        ("thin", per_part({"specimen.phase": rpie()}), "together"),
    ],
)
def test_what_pie_cannot_update_is_refused(name, optimiser, said):
    with pytest.raises(ValueError, match=said):
        init_state(optimiser, models.MODELS[name]())


def test_waves_of_every_shot_are_refused():
    waves = jnp.broadcast_to(models.pixel_probe().waves, (models.N_SHOTS, 2, *GRID.shape))
    with pytest.raises(ValueError, match="PerShot"):
        init_state(rpie(), models.thin(probe=PixelProbe(PerShot(waves))))


def test_an_aberrated_probe_still_lights_the_object():
    model = models.MODELS["aberrated_probe"]()
    batch = batch_of(model, range(7))
    after = take_step(model, batch, per_part(specimen=rpie(0.5)))
    loss = eqx.filter_jit(LOSS)
    assert loss(after, batch) < 0.9 * loss(model, batch)


def small_scan(slices=1) -> tuple[Model, Model]:
    """The truth, and a start with an empty specimen and a probe of the wrong defocus."""
    grid = Grid(shape=(32, 32), pixel=0.4, voltage_kv=80.0)

    def probe(defocus):
        spectrum = AberratedProbe(0.022, {"defocus": defocus}, 1e4).spectrum(grid)
        return PixelProbe(jnp.fft.fftshift(jnp.fft.ifft2(spectrum, norm="ortho"), axes=(-2, -1)))

    steps = (
        np.stack(np.meshgrid(np.arange(7), np.arange(7), indexing="ij"), -1).reshape(-1, 2) * 4.0
    )
    positions = (steps + models.rng(30).uniform(-1, 1, steps.shape) + 18) * 0.4
    noise = np.fft.fft2(models.rng(31).normal(size=(slices, 64, 64)))
    k2 = np.fft.fftfreq(64)[:, None] ** 2 + np.fft.fftfreq(64) ** 2
    phase = np.fft.ifft2(noise * np.exp(-60 * k2)).real
    phase = jnp.asarray(0.5 * (phase - phase.min()) / np.ptp(phase))
    truth = Model(
        probe(120.0),
        SliceStack(phase, 0.05 * phase, 20.0, jnp.zeros(2)),
        FreeScan(PerShot(jnp.asarray(positions))),
        grid,
    )
    empty = SliceStack(0 * phase, 0 * phase, 20.0, jnp.zeros(2))
    return truth, eqx.tree_at(lambda m: (m.specimen, m.probe), truth, (empty, probe(110.0)))


def epochs_of(model, count, size):
    shots = np.arange(49)
    counts = eqx.filter_jit(predict)(model, shots)
    for epoch in range(count):
        order = models.rng(epoch).permutation(49)[: 49 // size * size].reshape(-1, size)
        for chosen in order:
            yield Batch(0, chosen, counts[chosen], jnp.ones(size))


@pytest.mark.parametrize(("slices", "size", "optimiser"), [(1, 1, rpie(0.1)), (3, 7, rpie(0.3))])
def test_the_loss_falls_tenfold_in_a_few_epochs(slices, size, optimiser):
    truth, start = small_scan(slices)
    loss = misfit(amplitude)
    model, history = minimise(loss, start, epochs_of(truth, 8, size), optimiser)
    per_epoch = np.asarray(history).reshape(8, -1).mean(1)
    assert per_epoch[-1] < per_epoch[0] / 10
    assert np.all(np.isfinite(model.specimen.phase))


def thick(slices: int, peak: float) -> tuple[Model, Model]:
    """Truth of columns of atoms along the beam, `peak` rad together, and a start with an empty specimen."""
    truth, start = small_scan(slices)
    y, x = np.mgrid[:64, :64] * 0.4
    columns = np.exp(6 * (np.cos(2 * np.pi * y / 3.9) + np.cos(2 * np.pi * x / 3.9) - 2))
    phase = jnp.asarray(np.broadcast_to(peak / slices * columns, (slices, 64, 64)))
    return eqx.tree_at(
        lambda m: (m.specimen.phase, m.specimen.absorption), truth, (phase, 0 * phase)
    ), start


CRYSTALS = [(10, 2.0, epie()), (10, 2.0, rpie(0.1)), (5, 1.0, rpie(0.5))]
SIZES = [1, 7, 49]  # shots of a batch


def crystals_and_sizes():
    """Every pair; each crystal and each size is among the quick ones once."""
    return [
        pytest.param(*crystal, size, marks=[] if i == j else [pytest.mark.slow])
        for i, crystal in enumerate(CRYSTALS)
        for j, size in enumerate(SIZES)
    ]


@pytest.mark.parametrize(("slices", "peak", "optimiser", "size"), crystals_and_sizes())
def test_the_loss_of_a_thick_crystal_falls_in_every_epoch(slices, peak, optimiser, size):
    truth, start = thick(slices, peak)
    model, history = minimise(misfit(amplitude), start, epochs_of(truth, 4, size), optimiser)
    per_epoch = np.asarray(history).reshape(4, -1).mean(1)
    assert np.all(np.diff(per_epoch) < 0)
    assert np.all(np.isfinite(model.specimen.phase))


def test_slices_without_distance_move_as_one():
    """Slices without distance between them share the step of one slice of their projection."""
    truth, start = small_scan()
    batch = next(epochs_of(truth, 1, 7))
    optimiser, loss = per_part(specimen=rpie(0.3)), misfit(amplitude)  # patterns have dark pixels
    one = take_step(start, batch, optimiser, loss)
    empty = jnp.zeros((4, *start.specimen.phase.shape[1:]))
    several = eqx.tree_at(lambda m: m.specimen, start, SliceStack(empty, empty, 0.0, jnp.zeros(2)))
    moved = take_step(several, batch, optimiser, loss)
    product, expected = np.prod(transmission_of(moved), axis=0), transmission_of(one)[0]
    change = np.abs(expected - 1).max()
    assert change > 0.05
    np.testing.assert_allclose(product, expected, atol=0.05 * change)  # (1 + δ/4)⁴ is not 1 + δ


def transmission_of(model):
    return np.asarray(model.specimen.slices(model.grid).transmission)
