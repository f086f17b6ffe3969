"""A volume among the specimens: untilted it is a stack of slices, tilted it is seen from the side."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import (
    FIELD,
    GRID,
    N_SHOTS,
    aberrated_probe,
    absorptions,
    any_batch,
    assert_gradient,
    phases,
    positions,
    thin,
)

from jaxptycho import (
    FreeScan,
    PerShot,
    PerView,
    PotentialSlices,
    Volume,
    init_state,
    make_step,
    misfit,
    per_part,
    poisson,
    predict,
    select,
)
from jaxptycho.analysis.tracing import in_place
from jaxptycho.inverse import penalties
from jaxptycho.inverse.constraints import registry as constraints
from jaxptycho.start.reslice import with_slices

pytestmark = pytest.mark.usefixtures("quick_to_compile")

VOXEL, SHOTS = (0.6, *GRID.pixel), jnp.arange(3)
predicted = eqx.filter_jit(lambda model, view=0: predict(model, SHOTS, view))


def series(**more) -> Volume:
    """Two views; every further field differs from view to view."""
    return Volume(
        20 * phases(6),
        VOXEL,
        PerView(jnp.array([0.3, -0.5])),
        n_slices=2,
        absorptive=20 * absorptions(6),
        shift=PerView(jnp.array([[0.2, -0.1], [0.0, 0.3]])),
        **more,
    )


def centred(places=None):
    """Positions about the middle of the volume."""
    found = positions() if places is None else places
    return FreeScan(PerShot(found - jnp.mean(found, 0)))


def model_of(specimen):
    return thin(specimen=specimen, scan=centred())


@pytest.mark.slow
def test_cut_into_other_slices_it_projects_the_same():
    volume = series(depth=24)  # holds it at every tilt
    cut = with_slices(model_of(volume), 5).specimen
    assert (cut.n_slices, cut.frame.depth.count % 5) == (5, 0)
    for view in range(2):
        few, many = (select(v, PerView, view).slices(GRID).transmission for v in (volume, cut))
        np.testing.assert_allclose(jnp.prod(many, 0), jnp.prod(few, 0), rtol=1e-9)


def test_cut_into_other_slices_it_is_lit_by_the_same_probe():
    """At the height of the tilt axis, wherever the first slice is."""
    model = thin(specimen=series(depth=24), scan=centred(), probe=aberrated_probe())
    before, after = (
        m.probe.propagate(GRID, m.specimen.above) for m in (model, with_slices(model, 5))
    )
    assert with_slices(model, 5).specimen.above != model.specimen.above
    np.testing.assert_allclose(after.spectrum(GRID), before.spectrum(GRID), atol=1e-9)


def test_atoms_in_its_place_are_cut_between_the_same_faces_under_the_same_probe():
    volume = series(depth=24)
    atoms = in_place(volume, [78, 8], np.array([[0.3, 0.2, -0.4], [-1.0, 0.5, 1.0]]))
    model = thin(specimen=atoms, scan=centred(), probe=aberrated_probe())
    cut = with_slices(model, 5)
    assert cut.specimen.n_slices == 5
    middles = [
        float(m.specimen.axis - m.specimen.thickness / 2) for m in (model, cut)
    ]  # of the first slice, above the axis
    np.testing.assert_allclose(cut.specimen.thickness * 5, atoms.thickness * atoms.n_slices)
    np.testing.assert_allclose(middles[0], volume.above)
    before, after = (m.probe.propagate(GRID, d) for m, d in zip((model, cut), middles, strict=True))
    np.testing.assert_allclose(after.spectrum(GRID), before.spectrum(GRID), atol=1e-9)


def test_untilted_it_is_a_stack_of_potentials():
    """Layers of two voxels, at a shift that no resampling touches."""
    volts, lost = 20 * phases(6), 20 * absorptions(6)
    volume = Volume(volts, VOXEL, 0.0, 3, lost, shift=(0.13, -0.27), taper=0.0)
    sliced = volume.slices(GRID)
    corner = jnp.array([0.13, -0.27]) - jnp.array(
        [n // 2 * p for n, p in zip(FIELD, GRID.pixel, strict=True)]
    )
    means = [values.reshape(3, 2, *FIELD).mean(1) for values in (volts, lost)]
    flat = PotentialSlices(*means, jnp.array(1.2), corner)
    np.testing.assert_allclose(sliced.transmission, flat.slices(GRID).transmission, atol=1e-12)
    np.testing.assert_allclose(
        predicted(model_of(volume)), predicted(model_of(flat)), rtol=1e-9, atol=1e-9
    )


def test_without_absorption_every_view_counts_the_same():
    volume = eqx.tree_at(lambda v: v.absorptive, series(), None)
    sums = [jnp.sum(predicted(model_of(volume), view), (1, 2)) for view in (0, 1)]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-10)


def test_the_other_side_counts_the_mirrored_pattern():
    """One slice at θ + 180° is the slice at θ with x turned about: so are patterns of a beam that is its own mirror."""
    volts = jnp.zeros((7, 32, 31)).at[1:-1, :, 1:-1].set(30 * phases(5, (32, 29)))
    probe = thin().probe
    waves = probe.waves[:1].at[..., 0].set(0)  # the column without a mirror image
    even = eqx.tree_at(lambda p: p.waves, probe, waves + jnp.roll(waves[..., ::-1], 1, -1))
    pixel = jnp.asarray(
        GRID.pixel
    )  # on whole pixels: a shift by parts of one is not even at Nyquist
    places = jnp.round((positions() - jnp.mean(positions(), 0)) / pixel) * pixel
    mirror = places * jnp.array([1.0, -1.0])
    seen = [
        predicted(
            thin(probe=even, specimen=Volume(volts, VOXEL, tilt), scan=FreeScan(PerShot(where)))
        )
        for tilt, where in ((0.4, places), (0.4 + np.pi, mirror))
    ]
    np.testing.assert_allclose(seen[0], jnp.roll(seen[1][..., ::-1], 1, -1), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("angles", "lossy"),
    [(None, False), (PerView(jnp.array([[0.02, -0.03], [0.01, 0.04]])), False), (None, True)],
    ids=["tilt", "all", "absorption"],
)
def test_gradients_of_the_loss(angles, lossy):
    """By potential, absorptive part, tilt, angles and shift, of a view that is not the first."""
    volume = series(angles=angles)
    model = model_of(volume if lossy else eqx.tree_at(lambda v: v.absorptive, volume, None))
    batch = any_batch(model, view=1)
    assert_gradient(lambda specimen_of: misfit(poisson)(specimen_of, batch), model)


def test_steps_over_views_are_traced_once():
    """The alignment of the view in the batch moves, that of the other stays."""
    model, traces = model_of(series()), []

    def loss(model, batch):
        traces.append(1)
        return misfit(poisson)(model, batch)

    optimiser = per_part({"specimen": optax.adam(1e-2), "specimen.tilt": optax.adam(1e-2)})
    step, state = make_step(loss, optimiser), init_state(optimiser, model)
    batches = [any_batch(model, range(n, n + 3), view) for n, view in ((0, 0), (3, 1), (1, 1))]
    before = np.asarray(model.specimen.tilt.values)
    new, state, _ = step(model, state, batches[0])
    after = np.asarray(new.specimen.tilt.values)
    assert after[0] != before[0]
    assert after[1] == before[1]
    once = len(traces)
    for batch in batches[1:]:
        new, state, info = step(new, state, batch)
    assert len(traces) == once
    assert np.isfinite(info["loss"])
    assert np.all(np.asarray(new.specimen.tilt.values) != before)


def test_penalties_and_constraints_act_on_the_voxels():
    model = model_of(series())
    positive = constraints.build("positivity", model)(model).specimen.potential
    assert float(jnp.min(positive)) == 0.0
    blurred = constraints.build("gaussian_along_z", model, sigma_angstrom=0.6)(
        model
    ).specimen.potential
    np.testing.assert_allclose(jnp.sum(blurred, 0), jnp.sum(model.specimen.potential, 0), atol=1e-9)
    radians = model.specimen.phase_per_slice(model.grid)
    np.testing.assert_allclose(radians, GRID.sigma * 0.6 * model.specimen.potential, rtol=1e-12)


@pytest.mark.parametrize("per_view", [False, True])
def test_recentred_positions_take_the_volume_along(per_view):
    """Patterns stay; with positions of their own, every view's mean comes back."""
    model = model_of(series())
    places = model.scan.positions.values
    both = FreeScan(PerView(PerShot(jnp.stack([places, places + 0.1])))) if per_view else model.scan
    model = eqx.tree_at(lambda m: m.scan, model, both)
    away = eqx.tree_at(
        lambda m: jax.tree.leaves(m.scan)[0],
        model,
        jax.tree.leaves(model.scan)[0]
        + jnp.array([[[0.3, -0.2]], [[-0.1, 0.25]]] if per_view else [0.3, -0.2]),
    )
    back = constraints.build("position_recentring", model)(away)
    np.testing.assert_allclose(
        jax.tree.leaves(back.scan)[0], jax.tree.leaves(model.scan)[0], atol=1e-12
    )
    for view in range(2):
        np.testing.assert_allclose(
            predicted(back, view), predicted(away, view), rtol=1e-9, atol=1e-9
        )


def test_a_cone_of_one_view_is_refused_for_all():
    model = model_of(series())
    for wrong in (
        penalties.missing_cone(1.0, 20.0),
        constraints.build("missing_cone_filter", model, semiangle_mrad=20.0),
    ):
        with pytest.raises(ValueError, match="the precondition `measured`"):
            wrong(model)


def test_refusals():
    volts = phases(6)
    with pytest.raises(ValueError, match="6 samples along the beam cannot be cut into 4"):
        Volume(volts, VOXEL, n_slices=4)
    with pytest.raises(ValueError, match="resample the volume to the pixels of the grid"):
        Volume(volts, 0.4).slices(GRID)
    with pytest.raises(ValueError, match="once for all shots"):
        Volume(volts, VOXEL, tilt=PerShot(jnp.zeros(N_SHOTS)))
    with pytest.raises(ValueError, match="known are linear, cubic"):
        Volume(volts, VOXEL, kernel="nearest")
