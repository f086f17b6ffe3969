"""The dark field settles what a weak phase leaves open."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxptycho import Grid, direct
from jaxptycho.direct.image import DirectImage
from jaxptycho.direct.scan_grid import ScanGrid
from jaxptycho.start.mass_contrast import mass_contrast

GRID = Grid((32, 32), 0.6, 80.0)
STEP = 1.5  # Å


def pictures(sign, noise, seed=0):
    """A phase of random blobs, and the dark field that its mass makes, with noise."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.poisson(0.05, (40, 40)).astype(float), 1.2, mode="wrap")
    blobs = blobs / blobs.std()
    grid = ScanGrid(np.zeros(2), STEP * np.eye(2), blobs.shape)
    half = np.ones((40, 21))
    dark = blobs + noise * rng.normal(size=blobs.shape)
    phase = DirectImage(sign * blobs, grid, half, half, "phase")
    return phase, DirectImage(dark, grid, half, half, "dark field", "counts")


@pytest.mark.parametrize("sign", [1, -1])
def test_the_phase_rises_with_the_dark_field(sign):
    optics = direct.Optics.of(20.0, GRID.wavelength, GRID.dk[0], defocus=60.0)
    found = mass_contrast(*pictures(sign, noise=1.0), optics, GRID)
    assert sign * found.value > 5 * found.error


def test_pictures_without_anything_in_common_do_not_decide():
    optics = direct.Optics.of(20.0, GRID.wavelength, GRID.dk[0], defocus=60.0)
    scores = []
    for seed in range(12):
        phase, _ = pictures(1, noise=1.0, seed=seed)
        _, dark = pictures(1, noise=1.0, seed=seed + 50)
        found = mass_contrast(phase, dark, optics, GRID)
        scores.append(found.value / found.error)
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 1.8
