"""Direct phase of simulated and measured data of others."""

import h5py
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

import jaxptycho as jp
from jaxptycho import direct


def low_passed(image, pixel, limit=1.0):
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n, pixel) for n in image.shape], indexing="ij"))
    return np.fft.ifft2(np.fft.fft2(image) * (k < limit)).real


@pytest.mark.slow
def test_a_bilayer_by_single_sideband_and_matched_filter(data_dir):
    path = data_dir("wse2_mos2_bilayer_80kV_1e5.h5")
    data = jp.read(path)
    with h5py.File(path) as file:
        volts = file["truth/projected_potential"][:]
    pixel = data.about["truth_pixel_angstrom"]
    truth = low_passed(volts * data.grid.sigma, pixel)
    (stack,) = direct.over(data, direct.bright_field_of(data, 24.9e-3))
    placement = direct.place(stack.positions, taper=4, pad=8)
    # 150 Å at the entrance surface, 8 Å above the middle of the specimen
    lens = direct.Optics.of(24.9, data.grid.wavelength, data.grid.dk[0], defocus=142.0)
    found = []
    for picture in (
        direct.single_sideband(stack, placement, lens).corrected(),
        direct.matched_filter(stack, placement, lens),
    ):
        places = picture.grid.places()
        scan = stack.positions
        middle = np.abs(places - scan.mean(0)) < np.ptp(scan, axis=0) / 4
        inside = middle.all(-1)
        image = low_passed(picture.image, picture.pixel[0])[inside]
        there = map_coordinates(truth, np.moveaxis(places / pixel, -1, 0), order=3, mode="wrap")
        a, b = image - image.mean(), there[inside] - there[inside].mean()
        found.append((a @ b / np.sqrt(a @ a * (b @ b)), a @ b / (b @ b)))
        assert picture.caution is None
    assert found[0][0] > 0.985
    assert found[1][0] > 0.985
    assert 0.65 < found[1][1] < 1.0
