"""The lens and its incoherence."""

import numpy as np
import pytest

from jaxptycho import Grid
from jaxptycho.simulate.microscope import Microscope

LENS = Microscope(0.02, 100.0, {"C30": 1e4}, source_fwhm=0.8, chromatic=1.2e7, energy_fwhm=0.8)


def test_focal_spread_by_hand():
    """Cc ΔE/E (1 + E/E₀)/(1 + E/2E₀) at 300 kV: 1.2 mm · 0.8 eV/300 keV = 32 Å, times 1.2271, over 2.3548."""
    np.testing.assert_allclose(
        LENS.focal_spread(300.0), 32 * 1.58709 / 1.29354 / 2.35482, rtol=1e-4
    )
    assert Microscope(0.02).focal_spread(300.0) == 0


def test_one_ensemble_samples_source_and_defocus():
    defoci, shifts = LENS.incoherent(64, 200, 300.0, np.random.default_rng(0))
    assert (defoci.shape, shifts.shape) == ((64,), (64, 200, 2))
    np.testing.assert_allclose(defoci.mean(), 0, atol=1e-9)
    np.testing.assert_allclose(defoci.std(), LENS.focal_spread(300.0), rtol=0.03)
    sigma = 0.8 / 2.35482
    np.testing.assert_allclose(shifts.std((0, 1)), sigma, rtol=0.02)
    np.testing.assert_allclose(np.corrcoef(shifts.reshape(-1, 2).T)[0, 1], 0, atol=0.03)
    np.testing.assert_allclose(
        shifts.mean(0), 0, atol=0.15 * sigma
    )  # evenly spread for every shot: at random 1/8


@pytest.mark.parametrize("n", [1, 3, 7])
def test_any_number_of_configurations(n):
    defoci, shifts = LENS.incoherent(n, 4, 80.0, np.random.default_rng(0))
    assert (defoci.shape, shifts.shape) == ((n,), (n, 4, 2))
    assert np.isfinite(shifts).all()
    assert abs(defoci.mean()) < 1e-9


def test_a_coherent_lens_is_one_wave():
    defoci, shifts = Microscope(0.02).incoherent(2, 3, 80.0, np.random.default_rng(0))
    assert not defoci.any()
    assert not shifts.any()


def test_the_probe_has_dose_and_defocus():
    probe = LENS.probe(50.0, 7.0)
    assert float(probe.dose) == 50.0
    assert float(probe.aberrations["C10"]) == -107.0
    assert float(probe.aberrations["C30"]) == 1e4


def test_the_width_of_a_probe_is_that_of_its_rays():
    """Rays meet at −C10·α − C30·α³ …, C12 adds C12·α along its axis; the farthest counts, at the edge or before it."""
    grid, alpha = Grid((32, 32), 0.3, 80.0), 0.02
    airy = 1.22 * grid.wavelength / alpha
    for lens, defocus, reach in (
        (Microscope(alpha), 300.0, 300 * alpha),
        (Microscope(alpha, 0.0, {"C30": 1e7}), 0.0, 1e7 * alpha**3),
        (Microscope(alpha, 0.0, {"C12": 50.0, "phi12": 0.4}), 300.0, 350 * alpha),
        (
            Microscope(alpha, 0.0, {"C30": 1e6}),
            400.0,
            2 / 3 * 400 * np.sqrt(400 / 3e6),
        ),  # where −dα + C α³ is extreme
    ):
        edge = abs(lens.aberrations.get("C30", 0.0) * alpha**3 - defocus * alpha)
        assert lens.width(grid, defocus) == pytest.approx(2 * max(reach, edge) + airy, rel=0.03)


def test_the_modes_of_a_partly_coherent_beam():
    """ψ(k) ψ*(k′) exp(−2π²σ²|k − k′|²) exp(−½(πλδ(k² − k′²))²): source and focal spread, and the dose."""
    grid, lens = Grid((48, 48), 0.3, 80.0), Microscope(0.02, 40.0, {}, 0.5, 1e7, 0.5)
    modes = lens.modes(grid, 100.0, 10.0)
    assert 2 < len(modes) <= 12
    np.testing.assert_allclose(np.sum(np.abs(modes) ** 2), 100, rtol=2e-3)
    psi = np.asarray(lens.probe(100.0, 10.0).spectrum(grid))[0]
    ky, kx = (np.broadcast_to(np.asarray(k), psi.shape) for k in grid.frequencies())
    inside = np.abs(psi) > 0
    psi, ky, kx, modes = psi[inside], ky[inside], kx[inside], modes[:, inside]
    apart = np.subtract.outer(ky, ky) ** 2 + np.subtract.outer(kx, kx) ** 2
    phase = (
        np.pi
        * grid.wavelength
        * lens.focal_spread(80.0)
        * np.subtract.outer(ky**2 + kx**2, ky**2 + kx**2)
    )
    sigma = 0.5 / 2.35482
    rho = np.outer(psi, psi.conj()) * np.exp(-2 * np.pi**2 * sigma**2 * apart - phase**2 / 2)
    found = modes.T @ modes.conj()
    assert np.linalg.norm(found - rho) < 5e-3 * np.linalg.norm(rho)


def test_a_coherent_lens_has_one_mode():
    grid, lens = Grid((32, 32), 0.3, 80.0), Microscope(0.02, 40.0)
    np.testing.assert_allclose(
        lens.modes(grid, 5.0), np.asarray(lens.probe(5.0).spectrum(grid)), atol=1e-6
    )
