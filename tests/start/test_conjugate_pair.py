"""The dark field settles what a weak phase leaves open."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxptycho import Dataset, Grid, direct
from jaxptycho.direct.image import DirectImage
from jaxptycho.direct.scan_grid import ScanGrid
from jaxptycho.physics.aberrations import phase_at
from jaxptycho.simulate.scan import raster
from jaxptycho.start.conjugate_pair import settled
from jaxptycho.start.mass_contrast import mass_contrast
from jaxptycho.start.measured import Measured
from jaxptycho.start.optics_table import DefocusCurve, MeasuredOptics
from jaxptycho.start.pictures import direct_pictures

GRID = Grid((32, 32), 0.6, 80.0)
STEP = 1.5  # Å


def pictures(sign, noise, seed=0):
    """A phase of random blobs, and the dark field that its mass makes, with noise."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.poisson(0.05, (40, 40)).astype(float), 0.7, mode="wrap")
    blobs = blobs / blobs.std()
    grid = ScanGrid(np.zeros(2), STEP * np.eye(2), blobs.shape)
    half = np.ones((40, 21))
    dark = blobs + noise * rng.normal(size=blobs.shape)
    phase = DirectImage(sign * blobs, grid, half, half, "phase")
    return phase, DirectImage(dark, grid, half, half, "dark field", "counts")


@pytest.mark.parametrize("sign", [1, -1])
def test_the_phase_rises_with_the_dark_field(sign):
    optics = direct.Optics.of(20.0, GRID.wavelength, GRID.dk[0], defocus=120.0)
    found = mass_contrast(*pictures(sign, noise=1.0), optics)
    assert sign * found.value > 5 * found.error


@pytest.mark.parametrize("sign", [1, -1])
def test_an_amplitude_does_not_decide(sign):
    """Where sin χ is small the picture shows what the mass absorbs, and that says nothing."""
    optics = direct.Optics.of(20.0, GRID.wavelength, GRID.dk[0], defocus=120.0)
    phase, dark = pictures(sign, noise=0.1)
    q = phase.grid.frequencies()
    chi = np.asarray(phase_at(optics.aberrations, q[..., 0], q[..., 1], optics.wavelength))
    spectrum = np.fft.rfft2(phase.image) * (np.abs(np.tan(chi)) < 0.3)
    absorbed = replace(phase, image=np.fft.irfft2(spectrum, phase.image.shape))
    found = mass_contrast(absorbed, dark, optics)
    assert abs(found.value) < 4 * found.error


def test_pictures_without_anything_in_common_do_not_decide():
    optics = direct.Optics.of(20.0, GRID.wavelength, GRID.dk[0], defocus=120.0)
    scores = []
    for seed in range(12):
        phase, _ = pictures(1, noise=1.0, seed=seed)
        _, dark = pictures(1, noise=1.0, seed=seed + 50)
        found = mass_contrast(phase, dark, optics)
        scores.append(found.value / found.error)
    assert 0.4 < np.sqrt(np.mean(np.square(scores))) < 1.8


@pytest.mark.parametrize(
    ("voltage_kv", "pixel", "in_view"), [(300.0, 4.0, False), (80.0, 1.0, True)]
)
def test_interference_of_neighbouring_atoms_is_no_evidence_of_mass(voltage_kv, pixel, in_view):
    """A camera that ends within 0.25/Å sees no dark field of single atoms."""
    grid = Grid((32, 32), pixel, voltage_kv)
    patterns = np.random.default_rng(0).poisson(5.0, (36, 32, 32)).astype(np.uint16)
    data = Dataset(patterns, raster((6, 6), 2.0), grid)
    semiangle = 6 * grid.dk[0] * grid.wavelength
    found = direct_pictures(data, direct.Optics.of(1e3 * semiangle, grid.wavelength, grid.dk[0]))
    assert (found.atomic_field is not None) == in_view
    if in_view:
        assert found.atomic_field.image.mean() < found.dark_field.image.mean()


def optics(ambiguous):
    """A fit whose conjugate may be meant."""
    rows = {
        "defocus_angstrom": Measured(-200.0, 2.0, "Å", "fit"),
        "astigmatism_angle_deg": Measured(20.0, 1.0, "°", "fit"),
        "rotation_deg": Measured(-30.0, 0.5, "°", "fit; after rotate_90"),
    }
    curve = DefocusCurve(np.linspace(-300.0, 300.0, 4), {"rotate_90": np.arange(4.0)})
    warnings = ("a rotation by 180° fits as well", "another one") if ambiguous else ()
    skewness = Measured(0.1, 0.1 if ambiguous else 0.01, "", "phase")
    aberrations = {"C10": 200.0, "C12a": 5.0, "C12b": -3.0}
    others = ("rotate_270",) if ambiguous else ()
    angle = np.deg2rad(-30.0)
    evidence = {"rotate_90": 0.3, "rotate_270": 0.3}
    return MeasuredOptics(
        "rotate_90",
        angle,
        aberrations,
        1e-3,
        2e4,
        evidence,
        ambiguous,
        others,
        0,
        skewness,
        curve,
        warnings,
        rows,
    )


def test_the_dark_field_settles_the_pair():
    """The conjugate is the scan rotated by 180°, and every aberration of the opposite sign."""
    found = settled(optics(ambiguous=True), Measured(-0.4, 0.05, "", "dark field"))
    assert not found.ambiguous
    assert found.warnings == ("another one",)
    assert found.aberrations == {"C10": -200.0, "C12a": -5.0, "C12b": 3.0}
    np.testing.assert_allclose(found.matrix, -optics(True).matrix, atol=1e-12)
    assert found.rows()["defocus_angstrom"].value == 200.0
    assert found.rows()["astigmatism_angle_deg"].value == -70.0
    assert found.transform == "rotate_270"
    assert list(found.curve.explained) == ["rotate_270"]
    np.testing.assert_array_equal(found.curve.explained["rotate_270"], [3.0, 2.0, 1.0, 0.0])
    same = settled(optics(ambiguous=True), Measured(0.4, 0.05, "", "dark field"))
    assert same.aberrations == optics(True).aberrations
    assert not same.ambiguous


def test_what_contradicts_is_ambiguous_and_what_is_weak_decides_nothing():
    against = settled(optics(ambiguous=False), Measured(-0.4, 0.05, "", "dark field"))
    assert against.ambiguous
    assert "contradict" in against.warnings[-1]
    weak = optics(ambiguous=True)
    assert settled(weak, Measured(-0.1, 0.05, "", "dark field")) is weak


def test_errors_that_leave_nothing_to_rely_on():
    known = optics(ambiguous=False)
    assert known.determined
    for name, error in (("defocus_angstrom", 3e4), ("rotation_deg", 30.0)):
        vague = {name: replace(known.rows()[name], error=error)}
        assert not replace(known, _rows=known.rows() | vague).determined
