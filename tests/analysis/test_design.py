"""An experiment in numbers, against hand calculation."""

import numpy as np
import pytest

from jaxptycho import AberratedProbe, Grid
from jaxptycho.analysis.design import design
from jaxptycho.physics import waves

GRID = Grid((128, 160), 0.2, 80.0)  # λ = 0.04176 Å; the window is 25.6 by 32 Å


def test_numbers_by_hand():
    found = design(GRID, 0.025, -200.0, (1.0, 2.0), quanta=500.0, resolution=0.5)
    radius = np.hypot(200 * np.tan(0.025), 0.61 * 0.041757 / 0.025)
    assert found.information_limit == pytest.approx(1.19740, rel=1e-4)
    assert found.detector_limit == pytest.approx(2.5)
    assert found.depth_of_field == pytest.approx(66.81, rel=1e-3)
    assert found.probe_radius == pytest.approx(radius, rel=1e-4)
    assert found.sampling == pytest.approx(25.6 / (2 * radius), rel=1e-4)
    assert found.overlap == pytest.approx(1 - 2 / (2 * radius), rel=1e-4)
    assert found.oversampling == pytest.approx(np.pi * radius**2 / 2, rel=1e-4)
    assert found.magnification == pytest.approx(25.6 / (200 * 0.041757), rel=1e-4)
    assert found.tilt_step == pytest.approx(2 * (0.025 + 0.041757), rel=1e-4)
    assert found.dose == pytest.approx(250.0)
    assert found.warnings == ()


def test_the_probe_is_as_large_as_it_says():
    """90 % of a strongly defocused probe lie within √0.9 of its radius: a disc evenly lit."""
    grid = Grid((256, 256), 0.2, 80.0)
    wave = np.fft.fftshift(
        np.asarray(
            waves.inverse_fourier(AberratedProbe(0.03, {"defocus": 500.0}).spectrum(grid)[0])
        )
    )
    y, x = (np.indices(grid.shape) - 128) * 0.2
    order = np.argsort(np.hypot(y, x).ravel())
    inside = np.cumsum(np.abs(wave.ravel()[order]) ** 2)
    radius = np.hypot(y, x).ravel()[order][np.searchsorted(inside, 0.9 * inside[-1])]
    assert design(grid, 0.03, 500.0, 1.0).probe_radius * np.sqrt(0.9) == pytest.approx(
        radius, rel=0.03
    )


def test_in_focus_only_diffraction_widens_the_probe():
    found = design(GRID, 0.025, 0.0, 0.3)
    assert found.probe_radius == pytest.approx(0.61 * GRID.wavelength / 0.025)
    assert found.magnification == np.inf
    assert found.dose is None
    words = found.summary()
    assert words["information limit 2α/λ"] == "0.835 Å"
    assert words["largest tilt step 2(α + λk/2)"] == "5.73°"
    assert "dose" not in words
    assert design(GRID, 0.025, 0.0, 0.3, quanta=9.0).summary()["dose"] == "100 quanta/Å²"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"defocus": 600.0}, "its window 25.6 Å"),
        ({"step": 8.0}, "overlap by"),
        ({"semiangle": 0.12, "defocus": 20.0}, "the detector ends at 2.5 1/Å"),
        ({"thickness": 300.0}, "thicker than the depth of field of 66.8 Å"),
    ],
)
def test_what_cannot_work_is_said(change, words):
    good = {"semiangle": 0.025, "defocus": 200.0, "step": 1.0, "thickness": 40.0}
    assert design(GRID, **good).warnings == ()
    assert any(words in warning for warning in design(GRID, **(good | change)).warnings)


@pytest.mark.parametrize(
    "bad", [{"semiangle": 0.0}, {"step": (1.0, -1.0)}, {"quanta": np.nan}, {"semiangle": 25.0}]
)
def test_impossible_optics_get_one_sentence(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        design(GRID, **({"semiangle": 0.025, "defocus": 200.0, "step": 1.0} | bad))
