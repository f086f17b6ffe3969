"""In-line holograms: how they move with the scan tells orientation, rotation and pixel."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

import jaxptycho as jp
from jaxptycho.data.orientation import SCAN_TRANSFORMS, orientation_matrix
from jaxptycho.start.hologram import measure_hologram
from jaxptycho.start.positions import with_map

PIXEL = 8.0  # Å, of the holograms at the specimen
PIXELS = 64
DISTANCE = 1e6  # Å, of the detector
MAGNIFICATION = 50.0
WAVELENGTH = 1.0


def holograms(transform="none", rotation_deg=0.0, seed=0, moving=True):
    """Holograms that show a random transmission, shifted by the scan, in an uneven beam."""
    rng = np.random.default_rng(seed)
    scan = np.stack(np.meshgrid(*[np.arange(6.0)] * 2, indexing="ij"), -1).reshape(-1, 2)
    scan = 37.0 * (scan + 0.1 * rng.normal(size=scan.shape))  # Å, on the axes of the scan
    scan -= scan.mean(0)
    matrix = orientation_matrix(transform, np.deg2rad(rotation_deg))
    seen = scan @ matrix.T / PIXEL  # pixels, on the axes of the detector
    specimen = gaussian_filter(rng.normal(size=(160, 160)), 1.5)
    specimen = 1 + 0.4 * specimen / specimen.std()
    y, x = np.mgrid[:PIXELS, :PIXELS] - (PIXELS - 1) / 2
    beam = 2e3 * np.exp(-(((y + 3) / 25) ** 2) - ((x - 5) / 22) ** 2)
    places = (80 + np.stack([y, x]) + moving * np.reshape(r, (2, 1, 1)) for r in seen)
    patterns = np.stack([beam * np.abs(map_coordinates(specimen, p, order=3)) for p in places])
    # read as a far field: dk = pixel of the camera / (λ distance)
    dk = MAGNIFICATION * PIXEL / (WAVELENGTH * DISTANCE)
    grid = jp.Grid((PIXELS, PIXELS), 1 / (PIXELS * dk), None, WAVELENGTH)
    about = {"detector_distance_angstrom": DISTANCE}
    return jp.Dataset(rng.poisson(patterns).astype(np.uint16), scan, grid, about=about)


@pytest.mark.parametrize("number", range(8))
def test_one_orientation_of_eight_is_found(number):
    transform = list(SCAN_TRANSFORMS)[number]
    found = measure_hologram(holograms(transform, rotation_deg=2.0, seed=number))
    assert found is not None
    assert found.transform == transform
    assert found.evidence[transform] > 0.9
    assert max(v for name, v in found.evidence.items() if name != transform) < 0.3
    assert abs(found.rotation.value - 2.0) < max(0.5, 3 * found.rotation.error)
    assert abs(found.pixel.value / PIXEL - 1) < 0.02
    focus = found.focus_to_sample
    assert focus is not None
    assert abs(focus.value / (DISTANCE / (MAGNIFICATION - 1)) - 1) < 0.02
    assert "the file says" in found.warnings[0]


def test_positions_are_brought_to_the_axes_of_the_detector():
    data = holograms("transpose", rotation_deg=3.0)
    found = measure_hologram(data)
    assert found is not None
    again = measure_hologram(with_map(data, found.matrix))
    assert again is not None
    assert again.transform == "none"
    assert abs(again.rotation.value) < 0.1


def test_patterns_that_do_not_move_with_the_scan_are_no_holograms():
    assert measure_hologram(holograms(moving=False)) is None


@pytest.mark.slow
def test_the_near_field_of_petra(data_dir):
    """Read as a far field, without any key: recognised, oriented, and its focus measured."""
    found = measure_hologram(jp.read(data_dir("petra3_near_field_xray.cxi")))
    assert found is not None
    assert found.transform == "none"
    focus = found.focus_to_sample
    assert focus is not None
    assert abs(focus.value - 3.65e7) < 3 * focus.error < 0.1 * 3.65e7
