"""Tilt axes of any direction in the patterns, and positions counted from elsewhere: against analytic atoms."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from stepping import aligned, context_of

from jaxptycho import AberratedProbe, Dataset, Grid, predict, read
from jaxptycho.io.axis import rotate_patterns
from jaxptycho.io.native import write_native
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import Runner
from jaxptycho.jobs.series import nominal_geometry
from jaxptycho.jobs.steps.linear import geometry_of
from jaxptycho.model import Model
from jaxptycho.parts.indexed import PerShot
from jaxptycho.parts.scan import FreeScan
from jaxptycho.parts.stacks import PotentialSlices
from jaxptycho.tomography.projections import Geometry, rotate_about_beam
from jaxptycho.tomography.series import first_series, off_axis

pytestmark = pytest.mark.usefixtures("quick_to_compile")

VOXEL, WIDTH = 0.5, 1.2  # Å
TILTS = np.deg2rad([-40.0, -10.0, 25.0])
of_view = eqx.filter_jit(predict)
PROBE = AberratedProbe(0.025, {"defocus": 20.0}, 1e4)
ATOMS = np.random.default_rng(5).uniform(-2.5, 2.5, (6, 3)) * [1.6, 1.0, 1.0]  # (x, y, z)


def gaussian(distance):
    return np.exp(-(distance**2) / WIDTH)


def projected(tilt, axis_deg, y, x):
    """∫V dz [V·Å] of atoms that are turned right-handed about an axis in the plane of the image."""
    axis = np.deg2rad(axis_deg)
    turned = Rotation.from_rotvec(tilt * np.array([np.sin(axis), np.cos(axis), 0])).apply(ATOMS)
    return (
        60
        * np.sqrt(np.pi * WIDTH)
        * sum(np.outer(gaussian(y - b), gaussian(x - a)) for a, b, _ in turned)
    )


def potential(axis_deg, n=26):
    """The atoms [V] in a frame whose y is the tilt axis."""
    axis, place = np.deg2rad(axis_deg), (np.arange(n) - n // 2) * VOXEL
    along, across = (
        np.array([np.sin(axis), np.cos(axis), 0]),
        np.array([np.cos(axis), -np.sin(axis), 0]),
    )
    atoms = zip(ATOMS[:, 2], ATOMS @ along, ATOMS @ across, strict=True)
    return jnp.asarray(
        sum(60 * np.einsum("z,y,x->zyx", *(gaussian(place - p) for p in atom)) for atom in atoms)
    )


def measured(axis_deg, shape=(20, 24)):
    """A series of thin specimens whose tilt axis has that direction."""
    grid = Grid(shape, VOXEL, voltage_kv=200.0)
    places = np.stack(
        np.meshgrid([-2.0, 0.3, 1.5], [-3.0, -1.0, 1.2, 2.5], indexing="ij"), -1
    ).reshape(-1, 2)
    y, x = ((np.arange(n) - n // 2) * VOXEL for n in (56, 60))
    scan, origin = FreeScan(PerShot(jnp.asarray(places))), jnp.array([y[0], x[0]])
    counts = []
    for tilt in TILTS:
        slices = jnp.asarray(projected(tilt, axis_deg, y, x))[None]
        model = Model(PROBE, PotentialSlices(slices, None, jnp.array(1.0), origin), scan, grid)
        counts.append(np.fft.fftshift(of_view(model, np.arange(len(places))), axes=(1, 2)))
    return Dataset(np.stack(counts), np.stack([places] * len(TILTS)), grid, tilts=TILTS)


def modelled(data, axis_deg):
    model = first_series(
        data, potential(axis_deg), VOXEL, nominal_geometry(data), PROBE, slices=1, taper=0.0
    )
    return [
        np.fft.fftshift(of_view(model, np.arange(12), view), axes=(1, 2))
        for view in range(len(TILTS))
    ]


def error(data, patterns):
    seen = [
        np.fft.fftshift(data.patterns(view, np.arange(12)), axes=(1, 2))
        for view in range(len(TILTS))
    ]
    return np.abs(np.stack(patterns) - seen).sum() / np.sum(seen)


@pytest.mark.parametrize(
    "axis_deg",
    [90.0, -65.0, *(pytest.param(angle, marks=pytest.mark.slow) for angle in (-90.0, 30.0))],
)
def test_a_series_is_explained_about_its_axis(tmp_path, axis_deg):
    """From the job's key and from the attribute of the file; patterns that are not square; no other axis does."""
    series = measured(
        axis_deg, (21, 25)
    )  # an even number has a row of both signs, which a quarter turn moves
    write_native(tmp_path / "plain.h5", series)
    series.about["tilt_axis_deg"] = axis_deg
    write_native(tmp_path / "named.h5", series)
    for data in (read(tmp_path / "plain.h5", tilt_axis_deg=axis_deg), read(tmp_path / "named.h5")):
        assert abs(data.about.get("tilt_axis_deg", 0.0)) <= 45
        assert error(data, modelled(data, axis_deg)) < 0.002
    wrong = read(
        tmp_path / "named.h5", tilt_axis_deg=axis_deg + 180 if axis_deg < 180 else axis_deg - 180
    )
    assert error(wrong, modelled(wrong, axis_deg)) > 0.01


def test_only_an_axis_between_costs_angles(tmp_path):
    write_native(tmp_path / "series.h5", measured(90.0))
    assert nominal_geometry(read(tmp_path / "series.h5", tilt_axis_deg=90.0)).angles is None
    np.testing.assert_allclose(
        np.rad2deg(nominal_geometry(read(tmp_path / "series.h5", tilt_axis_deg=75.0)).angles),
        [[0, 15.0]] * 3,
        atol=1e-4,
    )


def test_quarter_turns_of_images_are_exact():
    """About the pixel n//2: four are none, two are a point reflection."""
    rng = np.random.default_rng(0)
    for shape in ((2, 7, 9), (2, 8, 6), (2, 7, 8)):
        images = rng.normal(size=shape)
        np.testing.assert_array_equal(rotate_patterns(images, 4), images)
        assert rotate_patterns(images, 1).shape == (2, shape[2], shape[1])
        spectrum = np.fft.ifftshift(rotate_patterns(images, 2), axes=(1, 2))
        index = [(-np.arange(n)) % n for n in shape[1:]]
        np.testing.assert_array_equal(
            spectrum, np.fft.ifftshift(images, axes=(1, 2))[:, index[0]][:, :, index[1]]
        )


def test_mask_guess_and_pixels_turn_with_the_patterns(tmp_path):
    series = measured(90.0)
    mask = np.ones((20, 24), bool)
    mask[10 + 4, 12] = False
    wave = np.zeros((20, 24), complex)
    wave[10, 12 + 3] = 1.0
    grid = Grid((20, 24), (0.5, 0.4), voltage_kv=200.0)
    whole = Dataset(
        series.counts, series.positions, grid, mask, TILTS, wave, {"tilt_axis_deg": 90.0}
    )
    write_native(tmp_path / "series.h5", whole)
    data = read(tmp_path / "series.h5")
    assert data.grid.shape == (24, 20)
    np.testing.assert_allclose(data.grid.pixel, (0.4, 0.5))
    assert not data.mask[12, 10 - 4]
    assert data.mask.sum() == 479
    assert data.probe_guess[12 + 3, 10] == 1
    np.testing.assert_allclose(
        data.positions[0], np.stack([series.positions[0][:, 1], -series.positions[0][:, 0]], 1)
    )


def test_a_scan_transform_acts_before_the_axis(tmp_path):
    series = measured(90.0)
    series.positions = [own[:, ::-1] for own in series.positions]
    write_native(tmp_path / "series.h5", series)
    data = read(tmp_path / "series.h5", tilt_axis_deg=90.0, scan_transform="transpose")
    assert error(data, modelled(data, 90.0)) < 0.002


def job_of(file, **data):
    volume = {"kind": "volume", "size_angstrom": [13.0, 13.0, 13.0], "isolated": True, "slices": 1}
    return make_job({"data": {"file": str(file)} | data, "specimen": volume})


def test_positions_from_the_corner_are_noticed_and_mended(tmp_path):
    series = measured(0.0)
    assert off_axis(series) is None
    corner = series.positions[0].min(0)
    series.positions = [own - corner for own in series.positions]
    write_native(tmp_path / "corner.h5", series)
    with pytest.warns(UserWarning, match=r'set data\.origin = "middle"'):
        Runner(job_of(tmp_path / "corner.h5"), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = context_of(job_of(tmp_path / "corner.h5", origin="middle")).data
    np.testing.assert_allclose(data.positions[0].min(0), -data.positions[0].max(0))
    with pytest.raises(ValueError, match="no such origin"):
        job_of(tmp_path / "corner.h5", origin="corner")


def test_positions_from_the_corner_of_a_series_along_x(tmp_path):
    """Noticed across the axis, wherever it points."""
    series = measured(90.0)
    series.positions = [own - [3.0, 0.0] for own in series.positions]
    write_native(tmp_path / "corner.h5", series)
    with pytest.warns(UserWarning, match=r'set data\.origin = "middle"'):
        Runner(job_of(tmp_path / "corner.h5", tilt_axis_deg=90.0), tmp_path)
    data = context_of(job_of(tmp_path / "corner.h5", tilt_axis_deg=90.0, origin="middle")).data
    middles = [(own.min(0) + own.max(0)) / 2 for own in data.positions]
    np.testing.assert_allclose(middles, 0, atol=1e-6)


def test_positions_are_free_along_the_axis():
    series = measured(0.0)
    series.positions = [np.add(own, [1.0, 0.0]) for own in series.positions]
    assert off_axis(series) is None


def test_the_key_of_a_job_replaces_the_axis_of_the_file(tmp_path):
    series = measured(-65.0)
    series.about["tilt_axis_deg"] = 20.0
    write_native(tmp_path / "series.h5", series)
    data = context_of(job_of(tmp_path / "series.h5", tilt_axis_deg=-65.0)).data
    assert error(data, modelled(data, -65.0)) < 0.002


def test_what_the_key_is_refused_for(tmp_path):
    flat = measured(0.0).view(0)
    flat.tilts = None
    write_native(tmp_path / "flat.h5", flat)
    with pytest.raises(ValueError, match=r"tilt_axis_deg came for .* no tilts"):
        read(tmp_path / "flat.h5", tilt_axis_deg=90.0)
    with pytest.raises(ValueError, match=r"data\.tilt_axis_deg"):
        job_of(tmp_path / "flat.h5", tilt_axis_deg=500.0)


@pytest.mark.slow
@pytest.mark.parametrize("axis_deg", [30.0, -65.0])
def test_shifts_are_found_in_the_frame_of_the_patterns(tmp_path, axis_deg):
    """Views whose specimens are the true projections, each moved by its own shift."""
    tilts = np.deg2rad(np.linspace(-60, 60, 9))
    y, x = ((np.arange(n) - n // 2) * VOXEL for n in (48, 48))
    grid = Grid((16, 16), VOXEL, voltage_kv=200.0)
    place = np.linspace(-7, 7, 15)
    places = np.stack(np.meshgrid(place, place, indexing="ij"), -1).reshape(-1, 2)
    counts = np.random.default_rng(0).poisson(50, (9, 225, 16, 16))
    data = Dataset(counts, np.stack([places] * 9), grid, tilts=tilts)
    write_native(tmp_path / "series.h5", data)
    job = job_of(tmp_path / "series.h5", tilt_axis_deg=axis_deg)
    data = context_of(job).data
    left = np.deg2rad(data.about["tilt_axis_deg"])
    shifts = np.random.default_rng(1).uniform(-1.0, 1.0, (9, 2))
    scan = FreeScan(PerShot(jnp.asarray(data.positions[0])))
    models = []
    for tilt, (dy, dx) in zip(tilts, shifts, strict=True):
        image = jnp.asarray(projected_in(tilt, left, y - dy, x - dx))[None]
        specimen = PotentialSlices(image, None, jnp.array(1.0), jnp.array([y[0], x[0]]))
        models.append(Model(PROBE, specimen, scan, grid))
    found = geometry_of(aligned(job, dict(enumerate(models)), tmp_path).model)
    upright = [
        np.asarray(rotate_about_beam(g, left).shifts)
        for g in (found, Geometry(tilts, None, shifts))
    ]
    away = upright[0] - upright[1]
    seen = np.zeros((9, 2, 3))
    seen[:, 0, 1], seen[:, 1, 0], seen[:, 1, 2] = 1, np.sin(tilts), np.cos(tilts)
    gauge = np.linalg.lstsq(seen.reshape(-1, 3), away.ravel(), rcond=None)[0]
    assert np.abs(away - seen @ gauge).max() < 0.2
    np.testing.assert_allclose(found.angles[:, 1], -left, atol=1e-6)


def projected_in(tilt, axis, y, x):
    return projected(tilt, np.rad2deg(axis), y, x)
