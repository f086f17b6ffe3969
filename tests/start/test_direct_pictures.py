"""Direct pictures of a scan whose disc moves."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from jaxptycho import Dataset, Grid, direct
from jaxptycho.direct.bright_field import frequencies_from
from jaxptycho.direct.image import DirectImage
from jaxptycho.direct.scan_grid import ScanGrid
from jaxptycho.direct.transfer import displacement
from jaxptycho.simulate.scan import raster
from jaxptycho.start.pictures import direct_pictures

GRID = Grid((32, 32), 2.0, 300.0)
STEP = 4.0  # Å
SLOPES = np.array([[0.4, -1.5], [1.8, -0.3]])  # pixels of the disc over the scan


@pytest.mark.parametrize("defocus", [20000.0, -20000.0])
def test_pictures_follow_the_disc(defocus):
    """Every pixel sees one field, displaced by ∇χ/2π at its distance from the moving centre."""
    field = gaussian_filter(np.random.default_rng(1).normal(size=(128, 128)), 1.5)
    positions = raster((24, 24), STEP)
    places = (positions - positions.mean(0)) / np.ptp(positions, axis=0)
    shifts = places @ SLOPES.T * GRID.dk
    semiangle = 8 * GRID.dk[0] * GRID.wavelength
    optics = direct.Optics.of(1e3 * semiangle, GRID.wavelength, GRID.dk[0], defocus=defocus)
    k = frequencies_from(GRID).reshape(-1, 2) - shifts[:, None]
    seen = positions[:, None] + np.asarray(displacement(optics, k))
    entries = np.moveaxis(seen / STEP * 2 + 40, -1, 0)
    contrast = map_coordinates(field, entries, order=1, mode="wrap")
    inside = np.hypot(*np.moveaxis(k, -1, 0)) < 8 * GRID.dk[0]
    patterns = (inside * (100 + 30 * contrast / field.std())).reshape(-1, 32, 32)
    patterns = np.fft.fftshift(patterns, axes=(1, 2)).astype(np.float32)
    data = Dataset(patterns, positions, GRID)

    def brightness(moves):
        found = direct_pictures(data, optics, shifts=moves)
        assert np.isfinite(found.centre_of_mass).all()
        return found.parallax.image.std()

    assert brightness(shifts) > 1.1 * brightness(None)


def test_strong_phases_are_qualitative():
    grid = ScanGrid(np.zeros(2), np.eye(2), (16, 16))
    strong = 3 * np.random.default_rng(0).normal(size=(16, 16))
    picture = DirectImage(strong, grid, np.ones((16, 9)), np.full((16, 9), 1e-9), "phase")
    assert "qualitative" in picture.corrected().caution
