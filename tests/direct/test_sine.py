"""Every method against the exact two-beam interference of a sine object."""

import numpy as np
import pytest
import sines

from jaxptycho import direct
from jaxptycho.physics import aberrations

pytestmark = pytest.mark.usefixtures("quick_to_compile")
METHODS = [
    direct.single_sideband,
    direct.optimum_bright_field,
    direct.matched_filter,
    direct.parallax,
    direct.wigner_deconvolution,
]
by_lens = pytest.mark.parametrize("name", sines.LENSES)


@pytest.mark.parametrize("q", [(1, 2), (-3, 1)])
@by_lens
def test_scan_transform_is_the_transfer_of_a_weak_phase(name, q):
    lens, places = sines.optics(**sines.LENSES[name]), sines.positions()
    stack = sines.stack(sines.patterns(lens, q, places), places)
    placement = direct.place(places)
    found = np.asarray(direct.scan_transform(stack, placement, slice(None))) * stack.intensity
    gamma = np.asarray(direct.transfer(lens, stack.k, placement.grid.frequencies()))
    expected = 1j * np.fft.rfft2(sines.phase(q, placement.grid.places())) * gamma
    there = np.unravel_index(np.argmax(np.abs(expected).sum(0)), expected.shape[1:])
    error = np.abs(found - expected)[:, *there].max()
    assert error < 1e-5 * np.abs(expected[:, *there]).max()


@by_lens
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_a_sine_comes_back_with_the_stated_transfer(name, method):
    lens, places, q = sines.optics(**sines.LENSES[name]), sines.positions(), (1, 2)
    stack = sines.stack(sines.patterns(lens, q, places), places)
    found, stated = sines.measured(method(stack, direct.place(places), lens), q)
    assert abs(found - stated) < 1e-5 * abs(stated)
    assert found.real > 0


def test_the_wrong_sign_of_defocus_shows():
    places, q = sines.positions(), (1, 2)
    stack = sines.stack(sines.patterns(sines.optics(defocus=150.0), q, places), places)
    right, wrong = (
        sines.measured(
            direct.matched_filter(stack, direct.place(places), sines.optics(defocus=d)), q
        )[0]
        for d in (150.0, -150.0)
    )
    assert abs(wrong) < 0.8 * abs(right)


@pytest.mark.parametrize("flips", [(a, b, t) for a in (1, -1) for b in (1, -1) for t in (0, 1)])
def test_all_orientations_of_the_scan(flips):
    """Positions transformed as the camera's axes are give the same picture in another frame."""
    lens, places, q = sines.optics(defocus=150.0), sines.positions(), (1, 2)
    intensities = sines.patterns(lens, q, places)
    a, b, transposed = flips
    turned = intensities.swapaxes(1, 2) if transposed else intensities
    if a < 0:
        turned = np.roll(turned[:, ::-1], 1, axis=1)
    if b < 0:
        turned = np.roll(turned[:, :, ::-1], 1, axis=2)
    moved = (places[:, ::-1] if transposed else places) * [a, b]
    here, there = (
        direct.matched_filter(sines.stack(i, p), direct.place(p), lens)
        for i, p in ((intensities, places), (turned, moved))
    )
    back = there.image.T if transposed else there.image
    rows = here.grid.places() @ (np.eye(2)[::-1] if transposed else np.eye(2)) * [a, b]
    index = np.rint((rows - there.grid.origin) @ np.linalg.inv(there.grid.steps)).astype(int)
    assert back.shape == here.image.shape
    np.testing.assert_allclose(there.image[index[..., 0], index[..., 1]], here.image, atol=1e-10)


@pytest.mark.parametrize("defocus", [0.0, -80.0])
def test_integrated_centre_of_mass_transfers_the_probe(defocus):
    lens, places, q = sines.optics(defocus=defocus), sines.positions(), (1, 2)
    intensities = sines.patterns(lens, q, places)
    k = direct.bright_field.frequencies_from(sines.GRID)
    total = intensities.sum((1, 2))
    centres = np.einsum("pyx,yxc->pc", intensities, k) / total[:, None]
    found = direct.CentreOfMass(sines.GRID, len(places))
    (result,) = direct.over([sines.block(intensities, places)], found)
    np.testing.assert_allclose(result.centres, centres, atol=1e-7)
    exact = result._replace(centres=centres)
    picture = direct.integrated_centre_of_mass(exact, direct.place(places), lens)
    measured, stated = sines.measured(picture, q)
    # a defocused probe reaches beyond its window, which the transfer does not wrap around
    assert abs(measured - stated) < (1e-5 if defocus == 0 else 3e-3)


def test_virtual_detectors_transfer_a_weak_phase():
    lens, places, q = sines.optics(defocus=150.0), sines.positions(), (1, 2)
    intensities = sines.patterns(lens, q, places)
    masks = direct.ring_segments(sines.GRID, 0.0, 12e-3, 3)
    processor = direct.VirtualDetector(masks, sines.GRID, len(places))
    (found,) = direct.over([sines.block(intensities, places)], processor)
    exact = np.einsum("pyx,myx->pm", intensities, masks)
    np.testing.assert_allclose(found.signals, exact, rtol=1e-5)
    found = found._replace(signals=exact, total=intensities.sum((1, 2)))
    for detector in range(3):
        picture = direct.virtual_image(found, direct.place(places), lens, detector)
        measured, stated = sines.measured(picture, q)
        assert abs(measured - stated) < 1e-5 * abs(stated)


def test_a_weak_phase_does_not_reach_the_dark_field():
    lens, places = sines.optics(defocus=150.0), sines.positions()
    masks = direct.ring_segments(sines.GRID, 25e-3, 40e-3)
    processor = direct.VirtualDetector(masks, sines.GRID, len(places))
    (found,) = direct.over([sines.block(sines.patterns(lens, (1, 2), places), places)], processor)
    assert not direct.virtual_image(found, direct.place(places), lens).transfer.any()


@by_lens
def test_displacement_is_the_gradient_of_the_phase(name):
    lens, h = sines.optics(**sines.LENSES[name]), 1e-5
    k = np.random.default_rng(3).uniform(-0.4, 0.4, (7, 2))
    phase = lambda k: aberrations.phase_at(  # noqa: E731
        lens.aberrations, k[:, 0], k[:, 1], lens.wavelength
    )
    steps = h * np.eye(2)
    finite = np.stack([(phase(k + s) - phase(k - s)) / (4 * np.pi * h) for s in steps], -1)
    np.testing.assert_allclose(direct.displacement(lens, k), finite, rtol=1e-6, atol=1e-7)
    if name == "underfocus":
        np.testing.assert_allclose(
            direct.displacement(lens, k), -lens.wavelength * 150 * k, rtol=1e-12
        )


def test_parallax_has_the_contrast_of_theory():
    """2 sin χ(Q) times the overlap of two discs, on a fine detector."""
    lens = direct.Optics.of(20.0, 0.04, 1e-3, defocus=200.0)
    axis = np.arange(-0.51, 0.51, 0.02)
    k = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    q = np.stack([np.zeros(5), np.linspace(0.05, 0.8, 5)], -1)
    x = q[:, 1] / (2 * 0.5)
    overlap = 2 / np.pi * (np.arccos(x) - x * np.sqrt(1 - x**2))
    sine = np.sin(-np.pi * 0.04 * 200 * q[:, 1] ** 2)
    np.testing.assert_allclose(direct.aligned_transfer(lens, k, q), 2 * overlap * sine, atol=0.03)


def test_sideband_transfer_is_half_the_overlap_of_two_minus_three_discs():
    """In focus Γ is ±1 where exactly two discs overlap and zero where three do (PCTF)."""
    lens = direct.Optics.of(20.0, 0.04, 1e-4)
    axis = np.arange(-0.51, 0.51, 0.01)
    k = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    q = np.stack([np.zeros(4), np.array([0.1, 0.3, 0.6, 0.9])], -1)
    gamma = np.abs(np.asarray(direct.transfer(lens, k, q)))
    inside = np.hypot(*k.T) < 0.5
    # minus that of the region where both sidebands interfere: discs at −Q and Q, distance 2Q
    double = lambda d: (  # noqa: E731
        2 / np.pi * (np.arccos(np.minimum(d, 1)) - d * np.sqrt(np.maximum(1 - d**2, 0)))
    )
    area = double(q[:, 1]) - double(np.minimum(2 * q[:, 1], 1))
    np.testing.assert_allclose(gamma.sum(0) / (2 * inside.sum()), area, atol=0.01)
