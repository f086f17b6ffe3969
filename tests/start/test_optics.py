"""Optics and orientation from shifts and likelihood, against closed forms and simulated scans."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import jaxptycho as jp
from jaxptycho import direct
from jaxptycho.data.orientation import SCAN_TRANSFORMS, nearest_transform, orientation_matrix
from jaxptycho.direct.placement import place
from jaxptycho.simulate.scan import raster
from jaxptycho.start import image_shifts, optics_fit, sidebands
from jaxptycho.start import weak_object_likelihood as likelihood
from jaxptycho.start.optics import measure_optics, strength_cautions
from jaxptycho.start.optics_search import Knowledge, Problem
from jaxptycho.start.sidebands import RINGS, Sidebands, image_spectra
from jaxptycho.start.superpixels import SuperpixelImages, superpixels_of

WAVELENGTH = 0.0418
SEMIANGLE = 20e-3
NAMES = ("defocus_angstrom", "astigmatism_angstrom", "astigmatism_angle_deg", "rotation_deg")


def random_bands(seed=0, cells=32, frequencies=40):
    """Sidebands of random values in double precision."""
    rng = np.random.default_rng(seed)
    radius = SEMIANGLE / WAVELENGTH
    g = rng.normal(size=(2, cells, frequencies))
    q = rng.uniform(-radius, radius, (frequencies, 2))
    return Sidebands(
        jnp.asarray(g[0] + 1j * g[1]),
        jnp.asarray(rng.uniform(-0.6, 0.6, (cells, 2)) * radius),
        jnp.asarray(rng.uniform(1, 2, cells)),
        jnp.asarray(q),
        jnp.ones(frequencies),
        jnp.asarray(np.sum(g**2, (0, 1))),
        jnp.asarray(np.arange(frequencies) % RINGS),
        jnp.asarray(WAVELENGTH),
        jnp.asarray(radius),
        jnp.asarray(0.05 * radius),
    )


THETA = np.array([-150.0, 20.0, -10.0, 400.0, 100.0, -200.0, 300.0, 3e4, 0.3])


@pytest.mark.parametrize("mirror", [np.eye(2), np.diag([1.0, -1.0])])
def test_projections_are_those_of_the_transfer(mirror):
    bands = random_bands()
    named = dict(zip(likelihood.NAMES, THETA[:-1], strict=True))
    lens = direct.Optics(named, SEMIANGLE, float(bands.edge), WAVELENGTH)
    q = np.asarray(bands.q) @ (orientation_matrix("none", THETA[-1]) @ mirror).T
    k = jnp.asarray(bands.k)
    # cells are inside of the aperture
    gamma = np.asarray(bands.root)[:, None] * np.asarray(direct.transfer(lens, k, jnp.asarray(q)))
    sums = likelihood.projections(jnp.asarray(THETA), jnp.asarray(mirror), bands)
    g = np.asarray(bands.g)
    np.testing.assert_allclose(sums.phase, np.sum(-1j * gamma.conj() * g, 0), atol=1e-9)
    root = np.asarray(bands.root)[:, None]
    gamma -= root * np.sum(root * gamma, 0) / np.sum(root**2)
    np.testing.assert_allclose(sums.phase_power, np.sum(np.abs(gamma) ** 2, 0), atol=1e-9)


VARIANCE = jnp.full(RINGS, 0.8)


@jax.jit
def evidence(theta, bands):
    return jnp.sum(likelihood.log_evidence(theta, jnp.eye(2), bands, VARIANCE))


slope_of = jax.jit(jax.grad(evidence))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_slopes_are_those_of_finite_differences(seed):
    bands = random_bands(seed)
    slope = np.asarray(slope_of(jnp.asarray(THETA), bands))
    for i, unit in enumerate(optics_fit.parameter_units(SEMIANGLE, WAVELENGTH)):
        step = 1e-5 * unit * (np.arange(len(THETA)) == i)
        values = [float(evidence(jnp.asarray(THETA + s), bands)) for s in (step, -step)]
        found = (values[0] - values[1]) / 2e-5
        assert slope[i] * unit == pytest.approx(found, rel=1e-4, abs=1e-4)


@pytest.mark.usefixtures("quick_to_compile")
def test_the_conjugate_optics_are_as_likely():
    bands = random_bands()
    other = np.append(-THETA[:-1], THETA[-1] + np.pi)
    turned = THETA + np.append(np.zeros(8), np.pi)
    values = [float(evidence(jnp.asarray(theta), bands)) for theta in (THETA, other, turned)]
    assert values[0] == pytest.approx(values[1], abs=1e-8)
    assert abs(values[0] - values[2]) > 0.1


@pytest.mark.parametrize("degrees", [-44.0, 0.0, 30.0])
@pytest.mark.parametrize("name", SCAN_TRANSFORMS)
def test_orientations_are_a_transform_and_a_rotation(name, degrees):
    found, rotation = nearest_transform(orientation_matrix(name, np.deg2rad(degrees)))
    assert found == name
    assert np.rad2deg(rotation) == pytest.approx(degrees)


@pytest.mark.parametrize("mirror", [1, -1])
def test_shifts_are_found_at_one_count_per_pixel(mirror):
    """Images of a random field, shifted linearly, with noise far above the field in each."""
    rng = np.random.default_rng(5)
    matrix = np.array([[0.9, -0.5 * mirror], [0.5, 0.9 * mirror]])
    cells = np.argwhere(np.hypot(*np.mgrid[-5:6, -5:6]) < 5.2)
    spectrum = np.fft.rfft2(rng.normal(size=(24, 24)))
    q = np.stack(np.meshgrid(np.fft.fftfreq(24), np.fft.rfftfreq(24), indexing="ij"), -1)
    shifts = (cells - 5) @ matrix.T
    waves = np.exp(-2j * np.pi * np.einsum("yxi,ki->kyx", q, shifts))
    fields = np.fft.irfft2(spectrum * waves, (24, 24))
    counts = rng.poisson(np.maximum(1 + 0.5 * fields, 0)).reshape(len(cells), -1).T
    places = raster((24, 24), 1.0)
    ones = np.ones(len(cells), int)
    images = SuperpixelImages(counts.astype(float), places, cells, 0.1 * (cells - 5), ones, 0.1)
    best = image_shifts.linear_shifts(images)[0]
    np.testing.assert_allclose(best.matrix, matrix, atol=0.1)


def test_windows_that_move_see_one_part_of_the_specimen():
    """Spectra of a shifted random field are those of the field at rest, but for a phase ramp."""
    rng = np.random.default_rng(3)
    field = gaussian_filter(rng.normal(size=(64, 64)), 2.0)
    cells = np.argwhere(np.ones((5, 5)))
    shifts = 2 * (cells - 2)
    views = [field[16 - y : 48 - y, 16 - x : 48 - x] for y, x in shifts]
    counts = 1 + np.stack(views, -1).reshape(-1, len(cells))
    ones = np.ones(len(cells), int)
    places = raster((32, 32), 1.0)
    images = SuperpixelImages(counts, places, cells, 0.1 * (cells - 2), ones, 0.1)
    placement = place(places)

    def mismatch(windows):
        g = image_spectra(images, placement, windows)
        turned = g * np.exp(2j * np.pi * placement.grid.frequencies() @ shifts.T).transpose(2, 0, 1)
        rest = turned - turned.mean(0)
        return np.sum(np.abs(rest) ** 2) / np.sum(np.abs(turned) ** 2)

    assert mismatch(shifts.astype(float)) < 0.7 * mismatch(None)


def test_images_are_transformed_some_at_a_time(monkeypatch):
    rng = np.random.default_rng(4)
    cells = np.argwhere(np.ones((5, 5)))
    counts = rng.poisson(50.0, (12 * 12, len(cells))).astype(np.float32)
    places = raster((12, 12), 1.0)
    ones = np.ones(len(cells), int)
    images = SuperpixelImages(counts, places, cells, 0.1 * (cells - 2), ones, 0.1)
    placement = place(places)
    shifts = 0.4 * (cells - 2.0)
    together = image_spectra(images, placement, shifts)
    monkeypatch.setattr(sidebands, "SPECTRA_BYTES", 4 * together.nbytes // 3)
    some = image_spectra(images, placement, shifts, lambda g: g[:, :, 1:3])
    np.testing.assert_allclose(some, together[:, :, 1:3], rtol=1e-5, atol=1e-4)


def test_superpixels_follow_the_disc_between_pixels():
    """A pattern that is linear in k, moving with the disc: every image is constant."""
    grid = jp.Grid((24, 24), 0.3, 80.0)
    y, x = np.mgrid[-12:12, -12:12].astype(float)
    rng = np.random.default_rng(2)
    centres = np.array([0.3, -0.2]) + rng.uniform(-1.4, 1.4, (16, 2))
    patterns = np.stack([50 + 2 * (y - dy) + 1.5 * (x - dx) for dy, dx in centres])
    mask = np.ones((24, 24), bool)
    mask[13, 11] = False
    mask[3, 3] = False
    patterns[:, ~mask] = 1e4
    processor = superpixels_of(grid, mask, 7.0, centres)
    data = jp.Dataset(patterns, raster((4, 4), 1.0), grid, mask=mask, bad_data="keep")
    (images,) = direct.over(data, processor)
    far = np.hypot(*(images.k / np.asarray(grid.dk) - (0.7, -0.8)).T) > 4  # from a hidden pixel
    steady = images.counts[:1, far].repeat(16, 0)
    np.testing.assert_allclose(images.counts[:, far], steady, rtol=1e-5)
    spread = images.counts.std(0) / images.mean
    assert spread.max() < 0.02


@pytest.mark.parametrize("strength", [0.03, 0.6])
def test_strong_objects_are_warned_of(strength):
    """The picture of a weak object is qualitative where images vary by a large part of their mean."""
    rng = np.random.default_rng(6)
    field = gaussian_filter(rng.normal(size=(24, 24)), 2.0).reshape(-1, 1)
    cells = np.argwhere(np.ones((6, 6)))
    sign = (-1.0) ** cells.sum(1)  # counts move within a pattern
    counts = rng.poisson(1000 * np.maximum(1 + strength * sign * field / field.std(), 0))
    ones = np.ones(len(cells), int)
    places = raster((24, 24), 1.0)
    images = SuperpixelImages(counts.astype(float), places, cells, 0.1 * cells, ones, 0.1)
    found = strength_cautions(Problem(images, SEMIANGLE, WAVELENGTH, Knowledge(None, None, None)))
    assert len(found) == (strength > 0.3)
    assert all("qualitative" in text for text in found)


def test_bad_knowledge_is_refused():
    data = jp.Dataset(
        np.ones((16, 16, 16), np.uint16), raster((4, 4), 1.0), jp.Grid((16, 16), 0.3, 80.0)
    )
    with pytest.raises(ValueError, match="defocus_sign = 2"):
        measure_optics(data, defocus_sign=2)
    with pytest.raises(ValueError, match="rotation came without the transform"):
        measure_optics(data, rotation=0.1)


@pytest.mark.slow
def test_a_bilayer(data_dir):
    data = jp.read(data_dir("wse2_mos2_bilayer_80kV_1e5.h5"))
    found = measure_optics(data)
    rows = found.rows()
    assert set(NAMES) <= set(rows)
    assert rows["defocus_angstrom"].value == pytest.approx(142, abs=8)  # at its middle
    assert rows["rotation_deg"].value == pytest.approx(0, abs=0.5)
    assert found.transform == "none"
    assert not found.ambiguous  # atoms are bright
    assert found.evidence["rotate_180"] == pytest.approx(found.evidence["none"])
    assert max(found.evidence, key=found.evidence.get) in ("none", "rotate_180")
    best = found.curve.explained["none"].argmax()
    assert found.curve.defocus[best] == pytest.approx(140, abs=15)
    negative = measure_optics(data, defocus_sign=-1).rows()
    assert negative["defocus_angstrom"].value < 0


@pytest.mark.slow
def test_holograms_have_no_disc(data_dir):
    data = jp.read(data_dir("petra3_near_field_xray.cxi"), near_field=True)
    with pytest.raises(ValueError, match="no bright-field disc"):
        measure_optics(data)
