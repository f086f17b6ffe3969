"""What callers ask of probes, scans and specimens, for kinds that answer the least and the most."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, aberrated_probe, atoms, pixel_probe, relaxed_probe, stack, thin

from jaxptycho import (
    AbstractProbe,
    AbstractScan,
    PerShot,
    PerView,
    PixelProbe,
    PotentialSlices,
    Volume,
    predict,
    select,
)
from jaxptycho.inverse.constraints.registry import build
from jaxptycho.io.pytree_hdf5 import find_class
from jaxptycho.parts.indexed import axis_size, first_shot
from jaxptycho.parts.stacks import WeakPhaseStack
from jaxptycho.physics.waves import fresnel


class Bare(AbstractProbe):
    """The least that a probe needs: its spectrum."""

    probe: AbstractProbe

    def spectrum(self, grid):
        return self.probe.spectrum(grid)


class Fixed(AbstractScan):
    """The least that a scan needs: its position."""

    def position(self):
        return jnp.array([3.0, 4.0])


def first_of(basis, moments):
    return basis


def in_views():
    return PixelProbe(
        PerView(jnp.stack([pixel_probe(seed=0).waves, 2 * pixel_probe(seed=1).waves]))
    )


@pytest.mark.parametrize(
    "made", [pixel_probe, aberrated_probe, in_views], ids=["pixel", "aberrated", "views"]
)
def test_spectra_alone_give_dose_and_propagation(made):
    known, bare = made(), Bare(made())
    np.testing.assert_allclose(bare.mean_dose(GRID), known.mean_dose(GRID), rtol=1e-9)
    there, expected = (first_shot(p.propagate(GRID, 30.0)).spectrum(GRID) for p in (bare, known))
    (cy, cx), (ky, kx) = getattr(known, "centre", (0.0, 0.0)), GRID.frequencies()
    there = there * np.exp(60j * np.pi * (ky * cy + kx * cx))  # a tilted lens stays in its place
    phase = np.vdot(there, expected) / abs(np.vdot(there, expected))  # of aberrations: a constant
    np.testing.assert_allclose(phase * there, expected, atol=1e-9 * np.abs(expected).max())


def test_a_relaxed_probe_keeps_its_coefficients_along_the_beam():
    probe = relaxed_probe()
    moved = probe.propagate(GRID, 25.0)
    assert moved.coefficients.values is probe.coefficients.values
    for shot in (0, 3):
        before, after = (select(p, PerShot, shot).spectrum(GRID) for p in (probe, moved))
        np.testing.assert_allclose(after, fresnel(GRID, 25.0) * before, atol=1e-9)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: Bare(pixel_probe()).map_waves(first_of), "Bare has no free waves"),
        (lambda: Bare(pixel_probe()).reduce_waves(first_of), "Bare has no free waves"),
        (lambda: Bare(pixel_probe()).scale_dose(2.0), "dose of a Bare cannot be scaled"),
        (lambda: Bare(pixel_probe()).with_modes(3), "only a PixelProbe can change its modes"),
        (
            lambda: Bare(relaxed_probe()).propagate(GRID, 3.0),
            "differs from shot to shot cannot be propagated",
        ),
        (lambda: Fixed().move(jnp.zeros(2)), "Fixed cannot be moved"),
        (lambda: stack().in_voxels(GRID), "a SliceStack of one view has no voxels"),
        (lambda: atoms().stack(), "Atoms has no phase in slices"),
        (lambda: atoms().slab_stacks(), "type Atoms cannot be split into slabs"),
        (lambda: stack(2).spacing(GRID) and stack(1).spacing(GRID), "one slice"),
    ],
)
def test_what_a_kind_cannot_answer_is_one_sentence(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()


def test_recentred_positions_take_atoms_and_volumes_along():
    by = jnp.array([0.3, -0.2])
    tilted = Volume(
        jnp.asarray(np.random.default_rng(5).uniform(0, 9, (6, 32, 30))), (0.5, *GRID.pixel), 0.2, 2
    )
    for specimen in (stack(), atoms()):
        model = thin(specimen=specimen)
        away = replace(model, scan=model.scan.move(by), specimen=specimen.move(by))
        back = build("position_recentring", model)(away)
        np.testing.assert_allclose(back.specimen.position, specimen.position, atol=1e-9)
        np.testing.assert_allclose(
            predict(back, np.arange(7)), predict(model, np.arange(7)), rtol=1e-6
        )
    np.testing.assert_allclose(tilted.move(by).position, tilted.shift + by)


def test_what_rotates_and_what_is_listed():
    volume = Volume(jnp.ones((4, 6, 8)), (0.5, *GRID.pixel), PerView(jnp.array([-0.5, 0.5])))
    turning = replace(atoms(), tilt=PerView(jnp.array([0.1, 0.2, 0.3])))
    assert [s.rotates for s in (stack(), atoms(), volume, turning)] == [False, False, True, True]
    assert axis_size(turning, PerView) == 3
    assert stack().listed_atoms() is None
    assert atoms().listed_atoms().numbers == (42, 16, 16, 42, 8, 16)
    assert volume.in_voxels(GRID) is volume
    assert (held := stack()).in_slices(GRID) is held
    assert isinstance(atoms().in_slices(GRID), PotentialSlices)
    with pytest.raises(ValueError, match="differ from view to view"):
        turning.phase_per_slice(GRID)


@pytest.mark.parametrize("kind", [PotentialSlices, WeakPhaseStack])
def test_files_that_name_the_former_module_of_a_kind_are_read(kind):
    assert find_class(f"jaxptycho.parts.specimen:{kind.__name__}") is kind
