"""Constraints: what each enforces, that gauges leave predictions alone, what is refused."""

import inspect
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
from constraint_keys import CONSTRAINT_KEYS

from jaxptycho import (
    AberratedProbe,
    FreeScan,
    Grid,
    Model,
    NearField,
    PerShot,
    PerView,
    PixelProbe,
    PotentialSlices,
    SliceStack,
    Tilted,
    WeakPhaseStack,
    predict,
)
from jaxptycho.inverse.constraints.gauge import centre_of_mass, fitted_tilt
from jaxptycho.inverse.constraints.probe import probe_mask, probe_spectrum_mask
from jaxptycho.inverse.constraints.registry import CONSTRAINTS, all_of, build
from jaxptycho.inverse.illumination import illumination

pytestmark = pytest.mark.usefixtures("quick_to_compile")
OVER_SCAN = {  # parts that differ from shot to shot
    "smooth_tilts": {"propagator": Tilted(PerShot(models.tilts()))},
    "smooth_weights": {"probe": models.relaxed_probe()},
}
GRID = Grid(shape=(32, 28), pixel=(0.4, 0.5), voltage_kv=80.0)
PREDICT = eqx.filter_jit(predict)
GAUGES = (
    "probe_centring",
    "position_recentring",
    "phase_offset_removal",
    "phase_ramp_removal",
    "orthogonal_modes",
)


def made(name, model, **keys):
    return build(name, model, **(CONSTRAINT_KEYS.get(name, {}) | keys))


def applied(name, model, **keys):
    return eqx.filter_jit(made(name, model, **keys))(model)


def smooth(shape, seed, width=5.0):
    """A smooth random field that fades at its edges."""
    k2 = sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in shape[-2:]), indexing="ij"))
    values = np.fft.ifft2(
        np.fft.fft2(models.rng(seed).normal(size=shape)) * np.exp(-2 * (np.pi * width) ** 2 * k2)
    ).real
    y, x = (np.linspace(-1, 1, n) for n in shape[-2:])
    return values / np.abs(values).max() * np.exp(-6 * (y[:, None] ** 2 + x**2))


def compact(slices=1, thickness=15.0, kind=SliceStack) -> Model:
    """A probe of two modes that fades well inside its window, off its centre, over a smooth specimen."""
    ny, nx = GRID.shape
    y, x = np.mgrid[:ny, :nx] - np.array([ny // 2 + 1.3, nx // 2 - 0.8])[:, None, None]
    first = np.exp(-(y**2 + x**2) / (2 * 2.2**2))
    waves = 6 * np.stack([first, (0.2 + 0.3j + 0.1 * x) * first])
    shape = (slices, 70, 66)
    phase = (
        0.5 * smooth(shape, 50)
        + 0.02 * np.arange(70)[:, None] / slices
        - 0.013 * np.arange(66) / slices
    )
    corners = models.rng(51).uniform(3, 34, (6, 2))
    positions = (corners + np.array([16, 14])) * GRID.pixel
    per_volt = GRID.sigma * thickness if kind is PotentialSlices else 1.0
    specimen = kind(
        jnp.asarray(phase / per_volt),
        jnp.asarray(0.1 * smooth(shape, 52) ** 2 / per_volt),
        jnp.asarray(thickness),
        jnp.zeros(2),
    )
    return Model(
        PixelProbe(jnp.asarray(waves)), specimen, FreeScan(PerShot(jnp.asarray(positions))), GRID
    )


def single_precision(model):
    def narrow(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf.astype(jnp.complex64 if jnp.iscomplexobj(leaf) else jnp.float32)

    return jax.tree.map(narrow, model)


def with_stacks(model, change, of):
    return replace(model, specimen=model.specimen.map_stacks(change, of))


def arrays(model):
    return jax.tree.leaves(eqx.filter(model, eqx.is_array))


def patterns(model, view=0):
    return np.asarray(PREDICT(model, jnp.arange(6), view))


# every constraint


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_shapes_and_precision_stay(name, precision):
    parts = {"specimen": models.stack(3, jnp.array(8.0))} | OVER_SCAN.get(name, {})
    model = models.thin(**parts) if name in OVER_SCAN else compact(3)
    model = single_precision(model) if precision == np.float32 else model
    after = eqx.filter_eval_shape(made(name, model), model)
    assert jax.tree.structure(after) == jax.tree.structure(model)
    for old, new in zip(jax.tree.leaves(model), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


@pytest.mark.parametrize(
    "name",
    [
        "gaussian_along_z",
        "missing_cone_filter",
        "orthogonal_modes",
        "probe_centring",
        "phase_ramp_removal",
    ],
)
def test_the_same_in_single_precision_under_jit(name):
    model = compact(3)
    narrow = single_precision(model)
    for one, other in zip(arrays(applied(name, model)), arrays(applied(name, narrow)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * float(np.abs(one).max() + 1))


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_job_files_can_read_the_signatures(name):
    for key in inspect.signature(CONSTRAINTS[name]).parameters.values():
        assert key.annotation is not inspect.Parameter.empty


@pytest.mark.parametrize(
    "name",
    [
        "amplitude_clamp",
        "positivity",
        "identical_slices",
        "vacuum_surfaces",
        "low_pass",
        "low_pass_volume",
        "probe_power",
        "orthogonal_modes",
        "probe_centring",
        "position_recentring",
        "phase_offset_removal",
    ],
)
def test_a_second_time_changes_nothing(name):
    model = compact(3)
    keys = (
        {"dose": 123.0}
        if name == "probe_power"
        else {"highest": 0.99}
        if name == "amplitude_clamp"
        else {}
    )
    project = eqx.filter_jit(made(name, model, **keys))
    if name == "position_recentring":
        model = eqx.tree_at(
            lambda m: m.scan.positions.values, model, model.scan.positions.values + 0.3
        )
    once = project(model)
    assert not all(np.allclose(a, b) for a, b in zip(arrays(model), arrays(once), strict=True))
    for one, other in zip(arrays(once), arrays(project(once)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_unknown_constraints_are_named():
    with pytest.raises(
        ValueError, match="unknown constraint 'positive'; known are amplitude_clamp"
    ):
        build("positive", models.thin())


def test_all_of_runs_in_order():
    model = compact(2)
    both = all_of(made("positivity", model), made("identical_slices", model))(model)
    phase = np.maximum(np.asarray(model.specimen.phase), 0).mean(0)
    np.testing.assert_allclose(both.specimen.phase, np.stack([phase, phase]))
    assert all_of()(model) is model


# gauges


@pytest.mark.parametrize(("slices", "kind"), [(1, SliceStack), (3, PotentialSlices)])
def test_gauges_leave_predictions_alone(slices, kind):
    model = compact(slices, kind=kind)
    start = eqx.tree_at(lambda m: m.scan.positions.values, model, model.scan.positions.values - 0.7)
    before = patterns(model)
    for name in GAUGES:
        after = eqx.filter_jit(made(name, start))(model)
        assert any(
            np.abs(a - b).max() > 1e-3 for a, b in zip(arrays(model), arrays(after), strict=True)
        ), name
        np.testing.assert_allclose(patterns(after), before, atol=1e-6 * before.max(), err_msg=name)


@pytest.mark.parametrize("name", ["relaxed_probe", "affine_scan", "periodic", "two_views"])
def test_gauges_in_models_of_every_kind(name):
    model = models.MODELS[name]()
    start = eqx.tree_at(lambda m: m.scan, model, model.scan.move(jnp.array([0.3, -0.2])))
    view = int(name == "two_views")
    exact = (
        "position_recentring",
        "phase_offset_removal",
        "orthogonal_modes",
    )  # whatever the sampling
    after = eqx.filter_jit(all_of(*(made(g, start) for g in exact)))(model)
    np.testing.assert_allclose(patterns(after, view), patterns(model, view), atol=1e-9)


def test_a_centred_probe():
    model = compact()
    after = applied("probe_centring", model)
    weight = np.sum(np.abs(np.asarray(after.probe.waves)) ** 2, axis=0)
    middle = np.tensordot(np.indices(weight.shape), weight, 2) / weight.sum()
    np.testing.assert_allclose(middle, [16, 14], atol=1e-9)
    moved = np.asarray(after.scan.positions.values - model.scan.positions.values)
    before = centre_of_mass(jnp.sum(jnp.abs(model.probe.waves) ** 2, axis=0), GRID)
    np.testing.assert_allclose(moved, np.broadcast_to(before, moved.shape), rtol=1e-9)


def test_the_probes_of_two_views_are_centred_each():
    one = compact()
    waves = jnp.stack([one.probe.waves, jnp.roll(one.probe.waves, (1, -2), axis=(1, 2))])
    positions = one.scan.positions.values + jnp.array([[[0.0, 0.0]], [[0.3, -0.1]]])
    parts = PixelProbe(PerView(waves)), FreeScan(PerView(PerShot(positions)))
    model = eqx.tree_at(lambda m: (m.probe, m.scan), one, parts)
    after = applied("probe_centring", model)
    for view in (0, 1):
        before = patterns(model, view)
        np.testing.assert_allclose(patterns(after, view), before, atol=1e-6 * before.max())
    moved = np.asarray(after.scan.positions.values.values - positions)[:, 0]
    np.testing.assert_allclose(moved[1] - moved[0], [0.4, -1.0], atol=1e-6)


def test_a_ramp_becomes_the_tilt_of_the_probe():
    model = compact()
    y, x = np.indices((70, 66))
    ramp = 2 * np.pi * (0.03 * 0.4 * y - 0.05 * 0.5 * x)  # (0.03, −0.05) 1/Å
    model = eqx.tree_at(lambda m: m.specimen.phase, model, jnp.asarray(ramp[None] + 0.4))
    after = applied("phase_ramp_removal", model)
    assert np.ptp(after.specimen.phase) < 1e-9
    ry, rx = (np.arange(32) - 16) * 0.4, (np.arange(28) - 14) * 0.5
    tilted = np.asarray(model.probe.waves) * np.exp(2j * np.pi * (0.03 * ry[:, None] - 0.05 * rx))
    np.testing.assert_allclose(after.probe.waves, tilted, atol=1e-9)


def test_the_ramp_is_fitted_where_there_is_light():
    weight = np.zeros((30, 40))
    weight[5:20, 10:30] = 1
    y, x = (np.arange(30) - 12.0)[:, None], (np.arange(40) - 19.5)[None]
    phase = np.where(weight > 0, 2 * np.pi * (0.01 * y + 0.02 * x) + 1.0, 50.0 * np.sin(y * x))
    tilt = fitted_tilt(jnp.asarray(phase), jnp.asarray(weight), (jnp.asarray(y), jnp.asarray(x)))
    np.testing.assert_allclose(tilt, [0.01, 0.02], rtol=1e-10)


def test_phase_offsets_vanish_where_there_is_light():
    model = compact(2)
    after = applied("phase_offset_removal", model)
    seen = illumination(model)
    np.testing.assert_allclose(
        np.sum(seen * after.specimen.phase, axis=(1, 2)), 0, atol=1e-8 * float(jnp.sum(seen))
    )
    np.testing.assert_allclose(
        np.ptp(after.specimen.phase - model.specimen.phase, axis=(1, 2)), 0, atol=1e-12
    )


def test_the_illumination_is_the_sum_of_the_probes():
    model = compact()
    seen = illumination(model)
    np.testing.assert_allclose(jnp.sum(seen), 6 * model.probe.mean_dose(model.grid), rtol=1e-9)
    middle = np.tensordot(np.asarray(seen), np.indices(seen.shape), ([0, 1], [1, 2])) / np.sum(seen)
    places = np.round(np.asarray(model.scan.positions.values) / GRID.pixel).mean(0)
    offset = (
        np.asarray(centre_of_mass(jnp.sum(jnp.abs(model.probe.waves) ** 2, 0), GRID)) / GRID.pixel
    )
    np.testing.assert_allclose(middle, places + offset, atol=1e-6)


def test_recentred_positions_take_the_specimen_along():
    model = models.thin()
    moved = eqx.tree_at(lambda m: m.scan, model, model.scan.move(jnp.array([0.5, -0.25])))
    after = made("position_recentring", model)(moved)
    np.testing.assert_allclose(after.scan.positions.values, model.scan.positions.values, atol=1e-12)
    np.testing.assert_allclose(after.specimen.origin, np.array(models.ORIGIN) - [0.5, -0.25])


# the probe


@pytest.mark.parametrize("name", ["thin", "relaxed_probe", "aberrated_probe", "two_views"])
def test_probe_power(name):
    model = models.MODELS[name]()
    start = float(model.probe.mean_dose(model.grid))
    brighter = made("probe_power", model, dose=1000.0)(model)
    sums = [
        patterns(eqx.tree_at(lambda m: m.specimen, brighter, vacuum()), v).sum((1, 2))
        for v in range(1 + (name == "two_views"))
    ]
    if name != "relaxed_probe":  # whose dose varies from shot to shot
        np.testing.assert_allclose(np.mean(sums), 1000.0, rtol=1e-6)
    np.testing.assert_allclose(brighter.probe.mean_dose(brighter.grid), 1000.0, rtol=1e-12)
    np.testing.assert_allclose(
        made("probe_power", model)(brighter).probe.mean_dose(model.grid), start, rtol=1e-12
    )


def vacuum():
    return SliceStack(jnp.zeros((1, *models.FIELD)), None, 1.0, jnp.array(models.ORIGIN))


def test_the_dose_of_shots_keeps_its_ratio():
    doses = jnp.array([1.0, 2.0, 3.0])
    probe = AberratedProbe(0.025, {}, PerShot(doses))
    after = made("probe_power", models.thin(), dose=20.0)(models.thin(probe=probe))
    np.testing.assert_allclose(after.probe.dose.values, [10, 20, 30])


def test_orthogonal_modes():
    grams = []
    model = compact()
    for probe in (model.probe, applied("orthogonal_modes", model).probe):
        flat = np.asarray(probe.waves).reshape(2, -1)
        grams.append(flat @ flat.conj().T)
    assert abs(grams[0][0, 1]) > 1
    np.testing.assert_allclose(grams[1], np.diag(np.linalg.eigvalsh(grams[0])[::-1]), atol=1e-9)


def test_orthogonal_modes_of_a_relaxed_probe_in_the_mean():
    model = models.MODELS["relaxed_probe"]()
    probe = made("orthogonal_modes", model)(model).probe
    waves = np.einsum("sj,jmyx->smyx", probe.coefficients.values, probe.waves)
    gram = np.einsum("smyx,snyx->mn", waves, waves.conj()) / len(waves)
    np.testing.assert_allclose(gram[0, 1], 0, atol=1e-9)
    assert gram[0, 0].real > gram[1, 1].real


@pytest.mark.parametrize("name", ["thin", "relaxed_probe", "two_views"])
def test_masks(name):
    model = models.MODELS[name]()
    mask = models.mask()
    waves = jax.tree.leaves(probe_mask(mask)(model).probe.waves)[0]
    assert np.all(waves[..., ~np.asarray(mask)] == 0)
    spectrum_of = eqx.filter_jit(lambda w: jnp.fft.fft2(jnp.fft.ifftshift(w, axes=(-2, -1))))
    old = spectrum_of(jax.tree.leaves(model.probe.waves)[0])
    new = spectrum_of(jax.tree.leaves(probe_spectrum_mask(mask)(model).probe.waves)[0])
    np.testing.assert_allclose(new, old * mask, atol=1e-10 * float(jnp.abs(old).max()))


def test_aperture_and_support_are_discs():
    model = compact()
    ones = eqx.tree_at(lambda m: m.probe.waves, model, jnp.ones((1, *GRID.shape), complex))
    disc = np.abs(applied("probe_support", ones, radius_angstrom=4.0).probe.waves[0])
    np.testing.assert_allclose(disc.sum() * 0.4 * 0.5, np.pi * 16, rtol=0.02)
    assert disc[16, 14] == 1
    assert disc[0, 0] == 0
    point = eqx.tree_at(
        lambda m: m.probe.waves, model, jnp.zeros((1, *GRID.shape), complex).at[0, 16, 14].set(1.0)
    )
    far = np.abs(applied("probe_aperture", point, semiangle_mrad=25.0).probe.spectrum(GRID)[0])
    radius = np.sqrt(np.asarray(GRID.k2())) * GRID.wavelength
    step = max(GRID.dk) * GRID.wavelength
    assert np.all(far[radius > 0.025 + step] < 1e-12)
    assert np.ptp(far[radius < 0.025 - step]) < 1e-12


# the specimen


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 1.0), (0.95, 0.99)])
@pytest.mark.parametrize("kind", [SliceStack, PotentialSlices, WeakPhaseStack])
def test_amplitudes_stay_within_their_limits(kind, lowest, highest):
    model = compact(2, kind=kind)
    wild = 0.2 * smooth((2, 70, 66), 60) * (1 / (GRID.sigma * 15) if kind is PotentialSlices else 1)
    model = with_stacks(model, lambda _: jnp.asarray(wild), ("absorption",))
    after = applied("amplitude_clamp", model, lowest=lowest, highest=highest)
    if kind is WeakPhaseStack:
        after = with_stacks(after, jnp.zeros_like, ("phase",))
    amplitude = np.abs(after.specimen.slices(GRID).transmission)
    assert amplitude.min() >= lowest - 1e-12
    np.testing.assert_allclose(amplitude.max(), highest, rtol=1e-12)
    assert np.unique(np.round(amplitude, 9)).size > 10  # what lies between stays


def test_positivity_keeps_what_is_positive():
    model = compact(2)
    after = applied("positivity", model).specimen
    np.testing.assert_array_equal(after.phase, np.maximum(np.asarray(model.specimen.phase), 0))
    np.testing.assert_array_equal(after.absorption, model.specimen.absorption)


def test_slices_alike_and_empty_surfaces():
    model = compact(4)
    alike = applied("identical_slices", model).specimen
    np.testing.assert_allclose(np.ptp(alike.phase, axis=0), 0)
    np.testing.assert_allclose(alike.phase.sum(0), model.specimen.phase.sum(0), rtol=1e-12)
    empty = applied("vacuum_surfaces", model, first=1, last=2).specimen
    np.testing.assert_array_equal(
        np.any(np.asarray(empty.phase) != 0, axis=(1, 2)), [False, True, False, False]
    )
    np.testing.assert_array_equal(empty.absorption[1], model.specimen.absorption[1])


def test_gaussian_of_a_point():
    model = compact()
    point = jnp.zeros((1, 70, 66)).at[0, 30, 20].set(1.0)
    model = eqx.tree_at(lambda m: m.specimen.phase, model, point)
    blurred = np.asarray(applied("gaussian_in_plane", model, sigma_angstrom=1.0).specimen.phase[0])
    y, x = (np.arange(70) - 30) * 0.4, (np.arange(66) - 20) * 0.5
    gaussian = np.exp(-(y[:, None] ** 2 + x**2) / 2) / (2 * np.pi) * 0.4 * 0.5
    np.testing.assert_allclose(blurred, gaussian, atol=1e-8)


def test_gaussian_along_z():
    shape = (12, 70, 66)
    model = compact(12, thickness=2.0)
    layer = jnp.zeros(shape).at[6].set(1.0)
    blurred = applied(
        "gaussian_along_z",
        eqx.tree_at(lambda m: m.specimen.phase, model, layer),
        sigma_angstrom=3.0,
    )
    z = (np.arange(12) - 6) * 2.0
    gaussian = 2.0 * np.exp(-(z**2) / 18) / np.sqrt(18 * np.pi)
    np.testing.assert_allclose(blurred.specimen.phase[:, 3, 4], gaussian, atol=2e-3)


@pytest.mark.parametrize("name", ["gaussian_along_z", "missing_cone_filter"])
def test_filters_along_z_keep_the_projection(name):
    model = compact(5)
    after = applied(name, model).specimen
    np.testing.assert_allclose(after.phase.sum(0), model.specimen.phase.sum(0), atol=1e-12)
    assert np.var(after.phase, axis=0).sum() < 0.9 * np.var(model.specimen.phase, axis=0).sum()
    alike = applied("identical_slices", model)
    np.testing.assert_allclose(
        applied(name, alike).specimen.phase, alike.specimen.phase, atol=1e-12
    )


def test_low_pass_drops_what_is_too_fine():
    model = compact()
    x = 2 * np.pi * np.arange(66) / 66
    coarse, fine = np.cos(5 * x) * np.ones((70, 1)), np.cos(20 * x) * np.ones((70, 1))
    model = eqx.tree_at(lambda m: m.specimen.phase, model, jnp.asarray((coarse + fine)[None]))
    cutoff = 10 / (66 * 0.5)
    after = applied("low_pass", model, cutoff_inverse_angstrom=cutoff).specimen.phase[0]
    np.testing.assert_allclose(after, coarse, atol=1e-12)


# what has no meaning


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("amplitude_clamp", "phase_only", "no absorption"),
        ("vacuum_surfaces", "thin", "cannot empty 1 \\+ 1 of 1 slices"),
        ("gaussian_along_z", "thin", "one slice"),
        ("gaussian_along_z", "multislice", "3 thicknesses"),
        ("missing_cone_filter", "thin", "one slice"),
        ("orthogonal_modes", "aberrated_probe", "AberratedProbe has no free waves"),
        ("probe_aperture", "aberrated_probe", "AberratedProbe has no free waves"),
        ("probe_centring", "near_field", "hologram"),
        ("phase_ramp_removal", "weak_phase", "WeakPhaseStack"),
        ("phase_offset_removal", "weak_phase", "WeakPhaseStack"),
        ("phase_ramp_removal", "periodic", "periodic"),
    ],
)
def test_what_has_no_meaning_is_refused_before_compiling(name, kind, said):
    model = models.MODELS[kind]()
    with pytest.raises(ValueError, match=said):
        eqx.filter_eval_shape(made(name, model), model)


def test_a_probe_of_every_view_wants_positions_of_every_view():
    waves = jnp.stack([models.pixel_probe(seed=s).waves for s in (0, 11)])
    with pytest.raises(ValueError, match="PerView as well"):
        made("probe_centring", models.thin())(models.thin(probe=PixelProbe(PerView(waves))))


def test_fixed_numbers_cannot_be_moved():
    specimen = SliceStack(models.phases(), None, 8.0, models.ORIGIN)
    model = models.thin(specimen=specimen)
    with pytest.raises(ValueError, match="make them an array"):
        made("position_recentring", model)(model)


@pytest.mark.parametrize(
    "keys", [{"lowest": 0.5, "highest": 0.2}, {"lowest": -0.1}, {"highest": 0.0}]
)
def test_limits_out_of_order_are_refused(keys):
    with pytest.raises(ValueError, match="lowest"):
        CONSTRAINTS["amplitude_clamp"](**keys)


def test_a_near_field_model_may_lose_its_offset():
    model = eqx.tree_at(lambda m: m.detector, compact(), NearField(jnp.array(50.0)))
    for name in ("phase_offset_removal", "phase_ramp_removal"):
        after = applied(name, model)
        np.testing.assert_allclose(
            patterns(after), patterns(model), atol=1e-5 * patterns(model).max()
        )
