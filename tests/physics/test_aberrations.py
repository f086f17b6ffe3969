import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import AberratedProbe, Grid
from jaxptycho.physics import aberrations, waves

GRID = Grid((24, 32), (0.25, 0.2), voltage_kv=200.0)
TWELVE = [(n, m) for n in range(1, 6) for m in range(n + 2) if (n + m) % 2]


def polar():
    ky, kx = np.fft.fftfreq(24, 0.25)[:, None], np.fft.fftfreq(32, 0.2)[None, :]
    return GRID.wavelength * np.hypot(ky, kx), np.arctan2(ky, kx)


def surface(**coefficients):
    named = {k: jnp.asarray(v) for k, v in aberrations.cartesian(coefficients).items()}
    return aberrations.phase_surface(named, GRID)


def test_all_aberrations_to_fifth_order_are_there():
    assert list(aberrations.ORDERS) == sorted(TWELVE)
    assert len(aberrations.NAMES) == sum(2 if m else 1 for _, m in TWELVE)


@pytest.mark.parametrize(("n", "m"), TWELVE)
def test_each_coefficient_against_its_closed_form(n, m):
    alpha, phi = polar()
    size, angle = 10.0 ** (2 * n), 0.7
    expected = (
        2
        * np.pi
        / GRID.wavelength
        * alpha ** (n + 1)
        / (n + 1)
        * size
        * np.cos(m * (phi - angle * (m > 0)))
    )
    polar_pair = {f"C{n}{m}": size, f"phi{n}{m}": angle} if m else {f"C{n}{m}": size}
    np.testing.assert_allclose(
        surface(**polar_pair), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
    )
    if m:
        components = {
            f"C{n}{m}a": size * math.cos(m * angle),
            f"C{n}{m}b": size * math.sin(m * angle),
        }
        np.testing.assert_allclose(
            surface(**components), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
        )


def test_coefficients_add():
    both = surface(C10=100.0, C23=2e3, phi23=0.3)
    np.testing.assert_allclose(both, surface(C10=100.0) + surface(C23=2e3, phi23=0.3), atol=1e-9)
    np.testing.assert_array_equal(surface(), jnp.zeros(GRID.shape))


def test_underfocus_crosses_over_behind_the_specimen():
    """A weaker lens focuses further down: `defocus` behind the specimen the probe is sharp."""
    assert aberrations.cartesian({"defocus": 80.0}) == {"C10": -80.0}
    blurred = AberratedProbe(0.02, {"defocus": 80.0}).spectrum(GRID)
    focused = AberratedProbe(0.02).spectrum(GRID)
    np.testing.assert_allclose(blurred * waves.fresnel(GRID, 80.0), focused, atol=1e-12)


@pytest.mark.parametrize("name", ["C11", "C12c", "phi12", "C60", "focus", "phi10"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="unknown aberration"):
        aberrations.cartesian({name: 1.0})


def test_aperture_is_round_and_where_it_should_be():
    centre = (3 * GRID.dk[0] * GRID.wavelength, -2 * GRID.dk[1] * GRID.wavelength)
    disc = np.asarray(aberrations.aperture(GRID, 0.02, centre))
    ky, kx = np.fft.fftfreq(24, 0.25)[:, None], np.fft.fftfreq(32, 0.2)[None, :]
    radius = np.hypot(ky - 3 * GRID.dk[0], kx + 2 * GRID.dk[1])
    edge, soft = 0.02 / GRID.wavelength, max(GRID.dk) / 2
    np.testing.assert_array_equal(disc[radius < edge - soft], 1.0)
    np.testing.assert_array_equal(disc[radius > edge + soft], 0.0)
    assert disc.sum() * GRID.dk[0] * GRID.dk[1] == pytest.approx(np.pi * edge**2, rel=0.03)


@pytest.mark.parametrize(
    "coefficients",
    [
        {"C10": -200.0},
        {"C12": 50.0, "phi12": 0.3},
        {"C21": 1e3, "phi21": 1.1},
        {"C23": 1e3, "phi23": -0.4},
        {"C30": 1e5},
        {"C45": 1e5, "phi45": 0.2},
        {"C56": 1e6, "phi56": 0.5},
    ],
    ids=lambda c: next(iter(c)),
)
def test_phase_is_that_of_abtem(coefficients):
    abtem = pytest.importorskip("abtem")
    alpha, phi = polar()
    with abtem.config.set({"precision": "float64"}):
        lens = abtem.transfer.Aberrations(energy=200e3, aberration_coefficients=coefficients)
        theirs = np.asarray(lens._evaluate_from_angular_grid(alpha, phi))
    ours = np.exp(-1j * np.asarray(surface(**coefficients)))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # their wavelength has other digits
