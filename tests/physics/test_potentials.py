"""Atoms to projected potentials, against transforms and integrals that are computed otherwise."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import rng
from scipy.integrate import quad

from jaxptycho.physics import potentials, scattering
from jaxptycho.physics.potentials import VOLT_ANGSTROM2, finite, infinite

SHAPE, PIXEL = (20, 17), (0.22, 0.25)  # an even and an odd number of pixels
NUMBERS = np.array([8, 38, 74, 8])
slabs = jax.jit(potentials.slabs, static_argnums=(4, 5, 6))
ATOMS = scattering.gaussians(NUMBERS, k_max=5.0)
PLACES = jnp.asarray(rng(1).uniform(0, 4, (4, 3)))
EVERYWHERE = jnp.array([[-1e4, 1e4]])
FACES = jnp.array([[-1e4, 1.1], [1.1, 2.3], [2.3, 1e4]])
STILL = jnp.zeros(4)


def one(number=38, z=0.0, y=0.0, x=0.0, faces=EVERYWHERE, share=finite, b=0.0, name="lobato"):
    atoms = scattering.gaussians(np.array([number]), name)
    return slabs(jnp.array([[z, y, x]]), jnp.array([b]), atoms, faces, SHAPE, PIXEL, share)


def spectrum(projected):
    """V(k) [V·Å³] and k [1/Å] where both signs of every frequency exist."""
    values = np.fft.fft2(np.asarray(projected)) * PIXEL[0] * PIXEL[1]
    ky, kx = (np.fft.fftfreq(n, p) for n, p in zip(SHAPE, PIXEL, strict=True))
    kept = np.abs(ky) < 0.5 / PIXEL[0] - 1e-9
    return values[..., kept, :], ky[kept, None], kx[None, :]


def direction(shape, seed=5):
    return jnp.asarray(rng(seed).normal(size=shape))


@pytest.mark.parametrize("name", scattering.TABLES)
def test_the_whole_projection_of_an_atom_is_its_scattering_factor(name):
    place = (0.731, 1.94)
    values, ky, kx = spectrum(one(74, 0.3, *place, share=infinite, name=name)[0])
    factor = VOLT_ANGSTROM2 * scattering.scattering_factor(74, ky**2 + kx**2, name)
    np.testing.assert_allclose(
        values, factor * np.exp(-2j * np.pi * (ky * place[0] + kx * place[1])), rtol=3e-4
    )


def test_a_slab_holds_what_an_integral_over_k_z_says():
    """∫ f(√(k² + k_z²)) e^{2πi k_z(c − z)} T sinc(k_z T) dk_z, numerically (Kirkland 2010, §5.3)."""
    top, bottom, z, number = 0.4, 1.2, 1.3, 22
    values, ky, kx = spectrum(one(number, z, faces=jnp.array([[top, bottom]]))[0])
    thickness, off = bottom - top, (top + bottom) / 2 - z

    def integral(k2):
        def integrand(kz):
            factor = float(scattering.scattering_factor(number, np.array(k2 + kz**2)))
            return 2 * factor * np.cos(2 * np.pi * kz * off) * thickness * np.sinc(kz * thickness)

        pieces = np.concatenate([np.linspace(0, 10, 21), np.geomspace(20, 400, 12)])
        return sum(quad(integrand, a, b, limit=400, epsabs=1e-7)[0] for a, b in pairwise(pieces))

    for j, i in ((0, 0), (0, 3), (2, 1), (5, -4), (9, 8)):
        wanted = VOLT_ANGSTROM2 * integral(float(ky[j, 0] ** 2 + kx[0, i] ** 2))
        np.testing.assert_allclose(
            values[j, i].real, wanted, rtol=1e-3, atol=2e-4 * abs(values[0, 0])
        )
        assert abs(values[j, i].imag) < 1e-9 * abs(values[0, 0])


def test_slabs_add_up_to_the_whole():
    whole = slabs(PLACES, STILL, ATOMS, EVERYWHERE, SHAPE, PIXEL, infinite)[0]
    for share in (finite, infinite):
        parts = slabs(PLACES, STILL, ATOMS, FACES, SHAPE, PIXEL, share)
        np.testing.assert_allclose(parts.sum(0), whole, atol=1e-9 * float(whole.max()))
        assert float(jnp.abs(parts).max()) < 0.999 * float(whole.max()) or share is infinite
    total = float(whole.sum()) * PIXEL[0] * PIXEL[1]
    wanted = sum(
        VOLT_ANGSTROM2 * scattering.scattering_factor(int(z), np.array(0.0)) for z in NUMBERS
    )
    np.testing.assert_allclose(total, wanted, rtol=1e-4)


def test_vibration_is_the_mean_over_displaced_atoms():
    """Gauss–Hermite quadrature over the three coordinates, ⟨u²⟩ = B/8π²."""
    b = 1.5
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    mesh = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    weight = np.prod(
        np.stack(np.meshgrid(weights, weights, weights, indexing="ij"), -1).reshape(-1, 3), axis=1
    )
    places = np.array([1.0, 2.1, 1.7]) + np.sqrt(b / (8 * np.pi**2)) * mesh
    atoms = scattering.gaussians(np.full(len(places), 8), k_max=2.0)
    soft = jnp.full(len(places), 2.0)  # smooth enough for the quadrature
    weighted = atoms._replace(amplitude=atoms.amplitude * (weight / weight.sum())[:, None])
    faces = FACES[:2]
    moved = slabs(jnp.asarray(places), soft, weighted, faces, SHAPE, PIXEL, finite)
    still = scattering.gaussians(np.array([8]), k_max=2.0)
    mean = slabs(
        jnp.array([[1.0, 2.1, 1.7]]), jnp.array([2.0 + b]), still, faces, SHAPE, PIXEL, finite
    )
    np.testing.assert_allclose(moved, mean, atol=1e-4 * float(mean.max()))


def test_any_shift_is_a_phase_ramp_and_the_array_is_periodic():
    shift = np.array([0.137, -0.061])
    first, ky, kx = spectrum(slabs(PLACES, STILL, ATOMS, FACES, SHAPE, PIXEL, finite))
    moved = PLACES + jnp.array([0.0, *shift])
    second, _, _ = spectrum(slabs(moved, STILL, ATOMS, FACES, SHAPE, PIXEL, finite))
    ramp = np.exp(-2j * np.pi * (ky * shift[0] + kx * shift[1]))
    np.testing.assert_allclose(second, first * ramp, atol=1e-9 * np.abs(first).max())
    around = moved + jnp.array([0.0, SHAPE[0] * PIXEL[0], -2 * SHAPE[1] * PIXEL[1]])
    np.testing.assert_allclose(
        slabs(around, STILL, ATOMS, FACES, SHAPE, PIXEL, finite),
        slabs(moved, STILL, ATOMS, FACES, SHAPE, PIXEL, finite),
        atol=1e-7,
    )


@pytest.mark.usefixtures("quick_to_compile")
def test_derivatives_are_those_of_central_differences(monkeypatch):
    """By positions (z too), vibrations and occupancies, also where blobs come in chunks."""
    wanted = direction((3, *SHAPE), 6)

    def value(positions, debye_waller, occupancy):
        atoms = ATOMS._replace(amplitude=jnp.asarray(ATOMS.amplitude) * occupancy[:, None])
        return jnp.sum(
            wanted * potentials.slabs(positions, debye_waller, atoms, FACES, SHAPE, PIXEL, finite)
        )

    point = (PLACES, STILL + 0.7, STILL + 0.9)
    whole = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))
    result, slopes = whole(*point)
    step = 1e-5
    for n, slope in enumerate(slopes):
        along = direction(slope.shape, n)
        ends = [whole(*point[:n], point[n] + s * step * along, *point[n + 1 :])[0] for s in (1, -1)]
        np.testing.assert_allclose(
            jnp.sum(slope * along), (ends[0] - ends[1]) / (2 * step), rtol=1e-6
        )
    monkeypatch.setattr(potentials, "CHUNK", 70)
    in_chunks, slopes_in_chunks = jax.jit(
        jax.value_and_grad(lambda *p: value(*p), argnums=(0, 1, 2))
    )(*point)
    np.testing.assert_allclose(in_chunks, result, rtol=1e-10)
    for one_slope, other in zip(slopes, slopes_in_chunks, strict=True):
        np.testing.assert_allclose(one_slope, other, rtol=1e-8, atol=1e-8)


def test_single_precision_is_close_far_from_the_origin():
    far = PLACES + jnp.array([0.0, 1000 * SHAPE[0] * PIXEL[0], 0.0])  # whole periods
    double = slabs(PLACES, STILL, ATOMS, FACES, SHAPE, PIXEL, finite)
    single = slabs(
        *(v.astype(jnp.float32) for v in (PLACES, STILL)),
        ATOMS,
        FACES.astype(jnp.float32),
        SHAPE,
        PIXEL,
        finite,
    )
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, double, atol=3e-5 * float(double.max()))
    distant = slabs(
        far.astype(jnp.float32),
        STILL.astype(jnp.float32),
        ATOMS,
        FACES.astype(jnp.float32),
        SHAPE,
        PIXEL,
        finite,
    )
    np.testing.assert_allclose(
        distant, double, atol=2e-2 * float(double.max())
    )  # 1000 periods cost what floats lack
