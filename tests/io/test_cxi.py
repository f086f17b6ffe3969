"""CXI: geometry from the detector's basis vectors, near and far field, and the way back."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, MODELS, N_SHOTS, ORIGIN
from scipy.constants import c, e, h

from jaxptycho import Dataset, FreeScan, Grid, Model, PerShot, PixelProbe, SliceStack, read
from jaxptycho.io.cxi import export_cxi, positions_in_plane, sample_translation, usual_vectors

SHAPE, SHOTS = (6, 5), 8
DETECTOR, SOURCE = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"


@pytest.fixture
def make(tmp_path):
    """`make(name=values…)` is a CXI file with these in the place of the usual ones; None leaves one out."""

    def file(**changes):
        rng = np.random.default_rng(1)
        entries = {
            "entry_1/data_1/data": rng.poisson(9, (SHOTS, *SHAPE)).astype(np.int32) + 1,
            "entry_1/sample_1/geometry_1/translation": rng.normal(size=(SHOTS, 3)) * 1e-6,
            f"{DETECTOR}/basis_vectors": usual_vectors(50e-6, 75e-6),
            f"{DETECTOR}/distance": 2.0,
            f"{SOURCE}/wavelength": 1e-10,
        }
        path = tmp_path / "scan.cxi"
        with h5py.File(path, "w") as file:
            file["cxi_version"] = 160
            for name, values in (entries | changes).items():
                if values is not None:
                    file[name] = values
        return path

    return file


def translations(path):
    with h5py.File(path) as file:
        return file["entry_1/sample_1/geometry_1/translation"][()]


def test_far_field_pixel_is_wavelength_times_distance_over_the_width_of_the_detector(make):
    data = read(make())
    np.testing.assert_allclose(data.grid.pixel, (1.0 * 2e10 / (6 * 50e4), 1.0 * 2e10 / (5 * 75e4)))
    assert (data.grid.wavelength, data.grid.voltage_kv) == (1.0, None)


def test_near_field_behind_a_focus_is_magnified(make):
    distance, focus = 2.0e10, 4.0e8  # Å
    data = read(make(), near_field=True, focus_to_sample_angstrom=focus)
    whole = distance + focus
    magnification = whole / focus
    np.testing.assert_allclose(data.grid.pixel, np.array([50e4, 75e4]) / magnification)
    effective = whole * (magnification - 1) / magnification**2  # PHYSICS: z·(M−1)/M²
    np.testing.assert_allclose(data.about["effective_distance_angstrom"], effective)
    np.testing.assert_allclose(data.about["magnification"], magnification)


def test_near_field_in_a_parallel_beam_is_not_magnified(make):
    data = read(make(), near_field=True)
    np.testing.assert_allclose(data.grid.pixel, (50e4, 75e4))
    assert data.about["effective_distance_angstrom"] == 2e10


def test_the_probe_moves_against_the_sample_along_the_axes_of_the_detector(make):
    data = read(make())
    np.testing.assert_allclose(data.positions[0], translations(make())[:, [1, 0]] * 1e10)
    # a detector with columns along +x and rows along +y sees both axes turned round
    turned = read(make(**{f"{DETECTOR}/basis_vectors": -usual_vectors(50e-6, 75e-6)}))
    np.testing.assert_allclose(turned.positions[0], -data.positions[0])
    # with rows along x and columns along y, they change places
    swapped = read(make(**{f"{DETECTOR}/basis_vectors": usual_vectors(50e-6, 75e-6)[[1, 0, 2]]}))
    np.testing.assert_allclose(swapped.positions[0], data.positions[0][:, ::-1])
    assert swapped.grid == data.grid


def test_a_pattern_of_the_probe_moves_as_the_probe_does():
    """A wave that leaves the sample towards the next column is a frequency towards the next column."""
    vectors = usual_vectors(50e-6, 50e-6)
    towards_next_column = vectors[:, 1] / np.linalg.norm(vectors[:, 1])
    moved = positions_in_plane(np.array([-towards_next_column * 3e-10]), vectors)
    np.testing.assert_allclose(moved, [[0.0, 3.0]], atol=1e-9)


@pytest.mark.parametrize("skew", [0.0, 0.2])
def test_translations_and_positions_are_inverses(skew):
    vectors = np.array([[0.1, -2.0], [-3.0, skew], [0.0, 0.0]]) * 1e-5
    positions = np.random.default_rng(0).normal(size=(9, 2)) * 100 + 1e4
    back = positions_in_plane(sample_translation(positions, vectors), vectors)
    np.testing.assert_allclose(back, positions)


def test_basis_vectors_in_rows_or_for_every_shot_or_from_pixel_sizes(make):
    wanted = read(make())
    vectors = usual_vectors(50e-6, 75e-6)
    ways = [
        {f"{DETECTOR}/basis_vectors": vectors.T},
        {f"{DETECTOR}/basis_vectors": np.stack([vectors.T] * SHOTS)},
        {
            f"{DETECTOR}/basis_vectors": None,
            f"{DETECTOR}/y_pixel_size": 50e-6,
            f"{DETECTOR}/x_pixel_size": 75e-6,
        },
    ]
    for way in ways:
        data = read(make(**way))
        assert data.grid == wanted.grid
        np.testing.assert_allclose(data.positions, wanted.positions)


def test_energy_of_photons_and_of_electrons(make):
    photons = read(make(**{f"{SOURCE}/wavelength": None, f"{SOURCE}/energy": h * c / 1.5e-10}))
    np.testing.assert_allclose(photons.grid.wavelength, 1.5)
    electrons = read(
        make(
            **{
                f"{SOURCE}/wavelength": None,
                f"{SOURCE}/energy": 3e5 * e,
                f"{SOURCE}/probe": "electron",
            }
        )
    )
    np.testing.assert_allclose(electrons.grid.voltage_kv, 300.0)


def test_a_raster_of_nexus_is_read_line_by_line(make):
    plain = read(make())
    names = ("entry_1/data_1/data", "entry_1/sample_1/geometry_1/translation")
    with h5py.File(make()) as file:
        raster = {name: file[name][()].reshape(2, 4, *file[name].shape[1:]) for name in names}
    data = read(make(**raster))
    both = [one.patterns(0, np.arange(8)) for one in (data, plain)]  # kept since it was read
    np.testing.assert_array_equal(*both)
    np.testing.assert_array_equal(data.positions[0], plain.positions[0])


def test_mask_bits(make):
    bits = np.zeros(SHAPE, np.uint32)
    bits[0, 0], bits[1, 1], bits[2, 2] = (
        1,
        0x1000,
        0x1000 + 4,
    )  # bad; has signal; has signal and is hot
    mask = read(make(**{f"{DETECTOR}/mask": bits})).mask
    assert [tuple(i) for i in np.argwhere(~mask)] == [(0, 0), (2, 2)]
    several = np.stack([bits, np.roll(bits, 1, 1)] * (SHOTS // 2))
    assert (~read(make(**{f"{DETECTOR}/mask": several})).mask).sum() == 4


def test_known_properties_replace_those_of_a_cxi_file(make):
    data = read(
        make(**{f"{DETECTOR}/distance": None}),
        pixel_angstrom=3.0,
        wavelength_angstrom=2.0,
        scan_transform="flip_x",
    )
    assert data.grid == Grid(SHAPE, 3.0, wavelength=2.0)
    plain = read(make()).positions[0]
    np.testing.assert_allclose(data.positions[0] - plain.mean(0), (plain - plain.mean(0)) * (1, -1))
    # a known wavelength also changes the pixel that follows from it
    np.testing.assert_allclose(
        read(make(), wavelength_angstrom=2.0).grid.pixel[0], 2 * 2e10 / (6 * 50e4)
    )


BAD = {
    "positions": (
        {"entry_1/sample_1/geometry_1/translation": None},
        "holds no positions; a CXI file has them at",
    ),
    "patterns": ({"entry_1/data_1/data": None}, "holds no patterns"),
    "modules": ({"entry_1/data_1/data": np.ones((SHOTS, 1, *SHAPE))}, r"expected \[shot, y, x\]"),
    "distance": (
        {f"{DETECTOR}/distance": None},
        "no distance of its detector; add it, or give pixel_angstrom",
    ),
    "distance nan": ({f"{DETECTOR}/distance": np.nan}, "expected a positive number"),
    "vectors": ({f"{DETECTOR}/basis_vectors": np.eye(2)}, "expected two vectors of three numbers"),
    "pixel size": ({f"{DETECTOR}/basis_vectors": None}, "neither basis_vectors nor x_pixel_size"),
    "beam": ({f"{SOURCE}/wavelength": None}, "neither voltage_kv nor wavelength_angstrom"),
    "energy in eV": (
        {f"{SOURCE}/wavelength": None, f"{SOURCE}/energy": 12658.0},
        "expected joules and metres",
    ),
    "energy and wavelength": ({f"{SOURCE}/energy": h * c / 2e-10}, "expected joules and metres"),
    "too few positions": (
        {"entry_1/sample_1/geometry_1/translation": np.zeros((3, 3))},
        "8 patterns require positions",
    ),
    "flat positions": (
        {"entry_1/sample_1/geometry_1/translation": np.zeros(SHOTS)},
        r"translations .* have shape \(8,\); expected",
    ),
    "mask": ({f"{DETECTOR}/mask": np.ones(SHAPE, np.uint32)}, "hides every pixel"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_in_one_sentence(make, name):
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        read(make(**changes))
    assert "\n" not in str(caught.value)


def test_refuses_contradictory_geometry(make):
    with pytest.raises(ValueError, match="belongs to a near field"):
        read(make(), near_field=False, focus_to_sample_angstrom=1e7)
    with pytest.raises(ValueError, match="focus_to_sample_angstrom = -1; expected more than 0"):
        read(make(), focus_to_sample_angstrom=-1)
    with pytest.raises(ValueError, match="did you mean near_field"):
        read(make(), nearfield=True)


def reconstruction(grid: Grid, shots=SHOTS, **more) -> tuple[Model, Dataset]:
    rng = np.random.default_rng(3)
    positions = rng.uniform(40, 60, (shots, 2)) * grid.pixel + 1e4
    data = Dataset(
        rng.poisson(9, (shots, *grid.shape)).astype(np.uint16) + np.uint16(1),
        positions,
        grid,
        **more,
    )
    specimen = SliceStack(
        jnp.asarray(rng.normal(size=(2, 90, 80))), None, 10.0, jnp.array([9e3, 9.5e3])
    )
    probe = PixelProbe(jnp.asarray(rng.normal(size=(3, *grid.shape)) * (1 + 2j)))
    return Model(probe, specimen, FreeScan(PerShot(jnp.asarray(positions + 0.25))), grid), data


@pytest.mark.parametrize(
    ("grid", "about", "known"),
    [
        (Grid((6, 5), (0.4, 0.7), 300.0), {}, {}),
        (Grid((7, 8), 50.0, wavelength=1.5), {"detector_distance_angstrom": 3e10}, {}),
        (
            Grid((7, 6), (900.0, 800.0), wavelength=0.98),
            {"effective_distance_angstrom": 3.6e7, "magnification": 300.0},
            {"near_field": True, "focus_to_sample_angstrom": 3.6e7 * 300 / 299},
        ),
        (
            Grid((5, 5), 900.0, wavelength=0.98),
            {"effective_distance_angstrom": 3.6e7},
            {"near_field": True},
        ),
    ],
)
def test_an_export_reads_back(tmp_path, grid, about, known):
    mask = np.arange(np.prod(grid.shape)).reshape(grid.shape) % 5 > 0
    model, data = reconstruction(grid, mask=mask, about=about)
    export_cxi(tmp_path / "out.cxi", model, data)
    back = read(tmp_path / "out.cxi", **known)
    np.testing.assert_allclose(back.grid.pixel, grid.pixel)
    np.testing.assert_allclose(back.grid.wavelength, grid.wavelength)
    assert (back.grid.voltage_kv is None) == (grid.voltage_kv is None)
    np.testing.assert_allclose(back.positions[0], data.positions[0] + 0.25, rtol=1e-9)
    np.testing.assert_array_equal(back.mask, mask)
    np.testing.assert_array_equal(
        back.patterns(0, np.arange(SHOTS)), data.patterns(0, np.arange(SHOTS))
    )
    for name in about:
        np.testing.assert_allclose(back.about[name], about[name])
    with h5py.File(tmp_path / "out.cxi") as file:
        np.testing.assert_allclose(
            file["entry_1/image_1/data"][()], np.exp(1j * model.specimen.phase)
        )
        np.testing.assert_allclose(file["entry_1/image_1/origin"][()], [9e-7, 9.5e-7])
        np.testing.assert_allclose(file["entry_1/image_2/data"][()], model.probe.waves)


@pytest.mark.parametrize(
    "name", ["affine_scan", "aberrated_probe", "relaxed_probe", "periodic", "super_sampled"]
)
def test_exports_any_model(tmp_path, name):
    model = MODELS[name]()
    shape = (8, 6) if name == "super_sampled" else GRID.shape
    data = Dataset(np.ones((N_SHOTS, *shape)), np.zeros((N_SHOTS, 2)), Grid(shape, 0.4, 80.0))
    export_cxi(tmp_path / "out.cxi", model, data, counts=False)
    with h5py.File(tmp_path / "out.cxi") as file:
        np.testing.assert_allclose(file["entry_1/image_1/origin"][()], np.array(ORIGIN) * 1e-10)
        assert file["entry_1/image_1/data"].shape[1:] == (32, 30)
        assert file["entry_1/image_2/data"].shape[1:] == GRID.shape
    with pytest.raises(ValueError, match="holds no patterns"):
        read(tmp_path / "out.cxi")
    with pytest.raises(FileExistsError):
        export_cxi(tmp_path / "out.cxi", model, data)


def test_export_refuses_several_views(tmp_path):
    data = Dataset([np.ones((N_SHOTS, *GRID.shape))] * 2, [np.zeros((N_SHOTS, 2))] * 2, GRID)
    with pytest.raises(ValueError, match="holds one view; this dataset has 2"):
        export_cxi(tmp_path / "out.cxi", MODELS["two_views"](), data)


def test_the_hologram_of_petra_has_the_published_geometry(data_dir):
    """Sample 3.65 mm behind the focus: effective distance 3.638 mm, pixel 178.66 nm (the data's README)."""
    data = read(
        data_dir("petra3_near_field_xray.cxi"), near_field=True, focus_to_sample_angstrom=3.65e7
    )
    np.testing.assert_allclose(data.about["effective_distance_angstrom"], 3.638e7, rtol=1e-4)
    np.testing.assert_allclose(data.grid.pixel, 1786.6, rtol=1e-4)
    np.testing.assert_allclose(data.grid.wavelength, 0.97949, rtol=1e-5)
    assert (data.n_shots, (~data.mask).sum()) == ([200], 5)
