"""A tilt series from its patterns: views by themselves, one model of all, and how each view stands."""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.transform import Rotation

from jaxptycho import (
    AberratedProbe,
    Dataset,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PerView,
    PixelProbe,
    PotentialSlices,
    amplitude,
    batches,
    init_state,
    make_batch,
    make_step,
    minimise,
    misfit,
    per_part,
    predict,
    select,
)
from jaxptycho.analysis.volumes import euler_angles, rotation_matrices
from jaxptycho.inverse.solvers.layerwise_adam import layerwise_adam
from jaxptycho.inverse.step import copy_for_donation
from jaxptycho.start.guess import first_model
from jaxptycho.start.probes import of_every_view, radius_of
from jaxptycho.tomography.gauge import common_move
from jaxptycho.tomography.poses import pose_step, without_drift
from jaxptycho.tomography.projections import Geometry
from jaxptycho.tomography.series import first_series, require_field
from jaxptycho.tomography.views import projected_views, reconstruct_views

pytestmark = pytest.mark.usefixtures("quick_to_compile")

GRID, VOXEL = Grid((16, 16), 0.5, voltage_kv=80.0), 0.5
SHOTS = (9, 6)  # ragged
PROBE = AberratedProbe(0.025, {"defocus": 20.0}, 1e4)
TRUE = Geometry([-0.4, 0.5], [[0.01, -0.01], [0.0, 0.02]], [[0.3, -0.4], [-0.2, 0.1]])
ALONG = 4.0  # Å


def potential(n=12):
    """Some atoms of 1 Å."""
    z, y, x = (np.indices((n, n, n)) - n // 2) * VOXEL
    places = np.random.default_rng(0).uniform(-1.5, 1.5, (5, 3))
    return jnp.asarray(
        sum(60 * np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2)) for a, b, c in places)
    )


def places():
    """A grid of positions for the first view, fewer for the second."""
    whole = np.stack(np.meshgrid([-1.5, 0, 1.5], [-1.5, 0, 1.5], indexing="ij"), -1).reshape(-1, 2)
    return [whole + 0.9, whole[[0, 2, 3, 5, 6, 8]] + 0.6]


@pytest.fixture(scope="module")
def series():
    """Expected counts of two views with different numbers of shots, and the model that made them."""
    blank = [np.ones((n, *GRID.shape)) for n in SHOTS]
    data = Dataset(blank, places(), GRID, tilts=np.asarray(TRUE.tilts))
    model = first_series(data, potential(), VOXEL, TRUE, PROBE, slices=2)
    of_view = eqx.filter_jit(predict)
    counts = [
        np.fft.fftshift(of_view(model, np.arange(9), view), axes=(1, 2))[:n]
        for view, n in enumerate(SHOTS)
    ]
    return Dataset(counts, places(), GRID, tilts=np.asarray(TRUE.tilts)), model


def test_the_probe_comes_to_the_first_slice(series):
    """At the height of the axis it is what was given, and its power stays."""
    _, model = series
    back = model.probe.propagate(GRID, model.specimen.above)
    np.testing.assert_allclose(back.spectrum(GRID), PROBE.spectrum(GRID), atol=1e-9)
    focused = AberratedProbe(
        0.025, {"defocus": 20.0 - ALONG}, 1e4
    )  # underfocus is used up along the beam
    for probe in (PROBE, PixelProbe(pixels_of(PROBE))):
        np.testing.assert_allclose(
            probe.propagate(GRID, ALONG).spectrum(GRID), focused.spectrum(GRID), atol=1e-9
        )


def test_the_middle_of_the_first_slice_is_lit(series):
    """Slices of 3 and 2 samples are wrong by their square, (9 − 1)/(4 − 1), beside those of one.

    Lit in their first sample, before the middle by (3 − 1)/2 or (2 − 1)/2 of them, they would be wrong by far more.
    """
    data, _ = series
    upright, of_view = Geometry(TRUE.tilts, None, TRUE.shifts), eqx.filter_jit(predict)

    def patterns(slices, early=0.0):
        model = first_series(
            data, potential(), VOXEL, upright, PROBE, slices=slices, kernel="linear"
        )
        model = replace(model, probe=model.probe.propagate(GRID, -early * VOXEL))
        assert model.specimen.frame.depth.count == 24
        return np.concatenate([of_view(model, np.arange(n), view) for view, n in enumerate(SHOTS)])

    fine = patterns(24)
    thick, thin, early = (
        np.linalg.norm(patterns(*case) - fine) for case in ((8,), (12,), (8, 1.0))
    )
    assert thick / thin == pytest.approx(8 / 3, rel=0.1)
    assert early > 10 * thick


def test_the_radius_of_a_gaussian_probe():
    """Within r of a Gaussian of intensity e^(−r²/2s²) lies 1 − e^(−r²/2s²) of its power."""
    y, x = (0.5 * (np.arange(64) - 32) for _ in range(2))
    probe = PixelProbe(jnp.exp(-(y[:, None] ** 2 + x**2) / (4 * 3.0**2)).astype(complex)[None])
    assert radius_of(probe, Grid((64, 64), 0.5, 80.0)) == pytest.approx(
        3.0 * np.sqrt(-2 * np.log(0.05)), abs=0.3
    )


def pixels_of(probe):
    return jnp.fft.fftshift(jnp.fft.ifft2(probe.spectrum(GRID), norm="ortho"), axes=(-2, -1))


def test_ragged_views_are_batched_and_learnt(series):
    """Every shot of both views once an epoch, shapes alike, and the true model stays where it is."""
    data, model = series
    drawn = list(batches(data, 4, 1))
    assert {b.counts.shape for b in drawn} == {(3, *GRID.shape)}
    seen = sorted(
        (int(b.view), int(s)) for b in drawn for s, w in zip(b.shots, b.weight, strict=True) if w
    )
    assert seen == [(view, shot) for view, n in enumerate(SHOTS) for shot in range(n)]
    loss = eqx.filter_jit(misfit(amplitude))
    assert max(float(loss(model, b)) for b in drawn) < 1e-3


def test_every_view_has_its_own_probe_defocus_dose_and_pose(series):
    """What is PerView moves with its view's batches alone."""
    data, model = series
    lens = AberratedProbe(
        0.025, {"C10": PerView(jnp.array([-15.0, -25.0]))}, PerView(jnp.array([9e3, 1.1e4]))
    )
    own = replace(model, probe=lens)
    optimiser = per_part(
        {
            "specimen.shift": optax.adam(0.1),
            "specimen.tilt": optax.adam(0.1),
            "probe": optax.adam(0.1),
        }
    )
    step = make_step(misfit(amplitude), optimiser)
    batch = make_batch(data, 1, range(6))
    before = jax.tree.map(
        np.asarray, (own.specimen.shift, own.specimen.tilt, lens.aberrations, lens.dose)
    )
    new, _, _ = step(copy_for_donation(own), init_state(optimiser, own), batch)
    after = new.specimen.shift, new.specimen.tilt, new.probe.aberrations, new.probe.dose
    for old, now in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.all(old[0] == np.asarray(now)[0])
        assert np.all(old[1] != np.asarray(now)[1])
    waves = pixels_of(PROBE)
    probes = of_every_view([PixelProbe(waves), PixelProbe(2 * waves)]).propagate(GRID, ALONG)
    np.testing.assert_allclose(probes.waves.values[1], 2 * probes.waves.values[0], rtol=1e-9)
    lenses = of_every_view([PROBE, AberratedProbe(0.02, {"defocus": 30.0}, 5e3)]).propagate(
        GRID, ALONG
    )
    seen = [select(lenses, PerView, view).spectrum(GRID) for view in (0, 1)]
    np.testing.assert_allclose(
        seen[0], PixelProbe(waves).propagate(GRID, ALONG).spectrum(GRID), atol=1e-9
    )
    np.testing.assert_allclose(jnp.sum(jnp.abs(seen[1]) ** 2), 5e3, rtol=1e-9)
    np.testing.assert_allclose(lenses.aberrations["C10"].values, [ALONG - 20.0, ALONG - 30.0])


def test_pose_steps_find_how_a_view_stands(series):
    """Newton's steps converge to the true tilt, angles and shift, of the view in the batch alone."""
    data, model = series
    away = eqx.tree_at(
        lambda m: (m.specimen.tilt.values, m.specimen.angles.values, m.specimen.shift.values),
        model,
        (TRUE.tilts + 0.02, TRUE.angles - 0.015, TRUE.shifts + 0.25),
    )
    batch, step = make_batch(data, 0, range(9)), eqx.filter_jit(pose_step)
    for _ in range(5):
        away = step(away, batch, damping=1e-3)
    found = away.specimen
    np.testing.assert_allclose(found.shift.values[0], TRUE.shifts[0], atol=2e-3)
    np.testing.assert_allclose(found.tilt.values[0], TRUE.tilts[0], atol=2e-3)
    np.testing.assert_allclose(found.angles.values[0], TRUE.angles[0], atol=2e-3)
    np.testing.assert_array_equal(found.shift.values[1], TRUE.shifts[1] + 0.25)
    still = replace(
        model, specimen=replace(model.specimen, tilt=jnp.zeros(()), angles=None, shift=jnp.zeros(2))
    )
    with pytest.raises(ValueError, match="give them PerView"):
        pose_step(still, batch)


def test_a_pose_step_keeps_within_its_budget(series):
    """The same step a shot at a time; then four times as many shots take next to no more memory."""
    data, model = series
    away = replace(
        model, specimen=replace(model.specimen, angles=None, shift=PerView(TRUE.shifts + 0.1))
    )
    few, many = make_batch(data, 0, range(9)), make_batch(data, 0, np.tile(np.arange(9), 4))
    steps = [jax.jit(partial(pose_step, fields=("shift",), budget=budget)) for budget in (1.0, 1e9)]
    compiled = [[step.lower(away, batch).compile() for batch in (few, many)] for step in steps]
    bytes_of = [[one.memory_analysis().temp_size_in_bytes for one in row] for row in compiled]
    grown = [more - less for less, more in bytes_of]
    assert grown[0] < 0.05 * grown[1]
    single, together = (row[0](away, few).specimen.shift.values for row in compiled)
    np.testing.assert_allclose(single, together, rtol=1e-9)
    assert abs(single[0] - away.specimen.shift.values[0]).max() > 1e-3


def test_a_move_of_the_whole_specimen_is_taken_out_of_the_steps(series):
    """A rotation and a shift of it, applied to all views, come out again; what is left holds none."""
    _, model = series
    tilts = np.linspace(-1, 1, 7)
    poses = np.concatenate([tilts[:, None], 0.02 * np.random.default_rng(0).normal(size=(7, 4))], 1)
    turn = Rotation.from_rotvec([1e-4, -2e-4, 1.5e-4]).as_matrix()[::-1, ::-1]
    before = rotation_matrices(poses[:, :3])
    moved = np.concatenate(
        [euler_angles(before @ turn), poses[:, 3:] + (before @ [0.1, -0.2, 0.3])[:, 1:]], 1
    )
    np.testing.assert_allclose(common_move(moved - poses, poses), moved - poses, atol=1e-7)
    own = 1e-3 * np.random.default_rng(1).normal(size=(7, 5))
    left = own - common_move(own, poses)
    assert 0.3 * np.linalg.norm(own) < np.linalg.norm(left) < np.linalg.norm(own)
    np.testing.assert_allclose(common_move(left, poses), 0, atol=1e-9)
    shifted = eqx.tree_at(
        lambda m: m.specimen.shift.values, model, TRUE.shifts + jnp.array([0.1, 0.0])
    )
    np.testing.assert_allclose(
        without_drift(shifted, model).specimen.shift.values, TRUE.shifts, atol=1e-4
    )


@pytest.mark.slow
def test_views_by_themselves_are_projections(series):
    """The least tilted view first; what it shows stands where the volume's projection stands."""
    data, _ = series
    optimiser = per_part({"specimen": layerwise_adam(2e-2)})
    first = partial(first_model, specimen="phase", semiangle=0.025)
    found = dict(reconstruct_views(misfit(amplitude), data, optimiser, 3, 1, first=first))
    assert list(found) == [0, 1]
    views = projected_views([found[0], found[1]], (20, 22))
    assert views.projections.shape == views.weights.shape == (2, 20, 22)
    assert views.weights.max() == 1.0


def test_projections_stand_about_the_axis():
    """A point of known volume, wherever its object begins."""
    volts = jnp.zeros((2, 40, 44)).at[:, 20, 24].set(3.0)
    origin = jnp.array([-20 * 0.5 + 1.5, -24 * 0.5 - 1.0])  # the point is at (1.5, −1) Å
    model = model_of(PotentialSlices(volts, None, jnp.array(7.0), origin))
    shown = projected_views([model], (30, 31))
    assert np.unravel_index(np.argmax(shown.projections[0]), (30, 31)) == (15 + 3, 15 - 2)
    np.testing.assert_allclose(shown.projections.sum(), 2 * 3 * 7.0, rtol=1e-6)


def model_of(specimen, grid=GRID):
    scan = FreeScan(PerShot(jnp.asarray([[0.0, 0.0], [1.0, 1.0]])))
    return Model(PROBE, specimen, scan, grid)


def test_views_of_different_grids_are_no_projections():
    flat = PotentialSlices(jnp.zeros((1, 40, 44)), None, jnp.array(7.0), jnp.array([-10.0, -11.0]))
    models = [model_of(flat), model_of(flat, Grid((16, 16), 0.4, voltage_kv=80.0))]
    with pytest.raises(
        ValueError,
        match=r"view 1 has pixels of \(0.4, 0.4\) Å, view 0 of \(0.5, 0.5\) Å; give one grid",
    ):
        projected_views(models, (30, 31))


def test_refusals(series):
    data, model = series
    away = eqx.tree_at(lambda m: m.specimen.shift.values, model, TRUE.shifts.at[1].add(9.0))
    with pytest.raises(ValueError, match="shots of view 1 reach outside the object"):
        minimise(misfit(amplitude), away, [], per_part(probe=optax.adam(1e-3)))
    with pytest.raises(ValueError, match="3 tilts came with 2 views"):
        first_series(data, potential(), VOXEL, Geometry([0.0, 0.1, 0.2]), PROBE, slices=2)
    with pytest.raises(ValueError, match="tells nothing of the depth"):
        first_series(data, potential(), VOXEL, Geometry([0.1, 0.1]), PROBE, slices=2)
    require_field(data, (12, 16, 16), VOXEL, TRUE)
    with pytest.raises(
        ValueError,
        match=r"view 0, .* is scanned to 2.1\d* Å from the tilt axis in y, and illuminated 3 Å further",
    ):
        require_field(data, (12, 16, 16), VOXEL, TRUE, 3.0)
    with pytest.raises(
        ValueError, match=r"view 0, at -22.92°, is scanned to .* from the tilt axis in x"
    ):
        require_field(data, (2, 16, 8), VOXEL, TRUE)
