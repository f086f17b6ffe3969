"""Scattering factors are the published ones, and Gaussians stand for them."""

import numpy as np
import pytest

from jaxptycho.physics import scattering
from jaxptycho.physics.scattering import MAX_ATOMIC_NUMBER, TABLES, gaussians, scattering_factor

EVERY = np.arange(1, MAX_ATOMIC_NUMBER + 1)
K = np.linspace(0, 10, 201)  # 1/Å


def summed(atoms, k):
    return (atoms.amplitude[:, None] * np.exp(-atoms.width[:, None] * k[:, None] ** 2)).sum(-1)


@pytest.mark.parametrize("name", TABLES)
def test_factors_of_all_elements_are_those_of_abtem(name):
    abtem = pytest.importorskip("abtem")
    from ase.data import chemical_symbols

    theirs = {
        "lobato": abtem.parametrizations.LobatoParametrization,
        "kirkland": abtem.parametrizations.KirklandParametrization,
    }
    reference = theirs[name]()
    for number in EVERY:
        wanted = reference.scattering_factor(chemical_symbols[number])(K**2)
        np.testing.assert_allclose(scattering_factor(int(number), K**2, name), wanted, rtol=2e-5)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("k_max", [10.0, 4.0])
def test_gaussians_stand_for_every_element_up_to_k_max(name, k_max):
    atoms, k = gaussians(EVERY, name, k_max), K[k_max >= K]
    factors = np.array([scattering_factor(int(number), k**2, name) for number in EVERY])
    np.testing.assert_allclose(summed(atoms, k), factors, rtol=1e-4)  # 3e-4 is promised


def test_a_lower_k_max_needs_fewer_gaussians():
    counts = [gaussians(EVERY, "lobato", k_max).amplitude.shape[1] for k_max in (10.0, 5.0, 2.0)]
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize("name", TABLES)
def test_far_out_an_atom_is_its_nucleus(name):
    """f → 2Z/(a₀·4π²k²)·½ … the Rutherford limit Z/(2π²a₀k²) (Kirkland 2010, §5.1), to a fifth at 8/Å."""
    k2 = np.array(64.0)
    numbers = EVERY[EVERY > 2][:80]
    ratios = [
        scattering_factor(int(z), k2, name) * k2 * 2 * np.pi**2 * 0.529177 / z for z in numbers
    ]
    np.testing.assert_allclose(ratios, 1, atol=0.2)


def test_atoms_are_padded_to_a_common_number_of_gaussians():
    atoms = gaussians(np.array([1, 79, 1]))
    np.testing.assert_array_equal(atoms.amplitude[0], atoms.amplitude[2])
    assert atoms.amplitude.shape == atoms.width.shape
    assert (atoms.width > 0).all()
    assert gaussians(np.array([], int)).amplitude.shape[0] == 0


def test_unknown_elements_and_tables_are_named():
    with pytest.raises(ValueError, match="atomic number 0, 104;"):
        gaussians(np.array([104, 8, 0, 104]))
    with pytest.raises(
        ValueError, match="unknown parametrisation 'peng'; known are lobato, kirkland"
    ):
        scattering.table("peng")
