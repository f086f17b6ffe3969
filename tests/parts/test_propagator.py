import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID

from jaxptycho import AngularSpectrum, BandLimited, Fresnel, Tilted
from jaxptycho.physics import waves


def test_propagators_are_their_kernels():
    np.testing.assert_array_equal(Fresnel().kernel(GRID, 5.0), waves.fresnel(GRID, 5.0))
    np.testing.assert_array_equal(
        AngularSpectrum().kernel(GRID, 5.0), waves.angular_spectrum(GRID, 5.0)
    )


@pytest.mark.parametrize("inner", [Fresnel(), AngularSpectrum()])
def test_wrappers_multiply_the_kernel_they_wrap(inner):
    angles = jnp.array([0.01, -0.02])
    own = inner.kernel(GRID, 5.0)
    np.testing.assert_allclose(
        Tilted(angles, inner).kernel(GRID, 5.0), own * waves.tilt(GRID, 5.0, angles)
    )
    np.testing.assert_array_equal(
        BandLimited(inner, 0.5).kernel(GRID, 5.0), own * waves.band_limit(GRID, 0.5)
    )


def test_no_tilt_is_no_change():
    np.testing.assert_array_equal(
        Tilted(jnp.zeros(2)).kernel(GRID, 9.0), Fresnel().kernel(GRID, 9.0)
    )
