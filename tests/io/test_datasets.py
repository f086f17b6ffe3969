"""Native files and what tells files apart; every mistake is one sentence."""

import h5py
import numpy as np
import pytest

import jaxptycho.data.dataset
from jaxptycho import Dataset, Grid, read
from jaxptycho.data.orientation import SCAN_TRANSFORMS
from jaxptycho.io.native import chunk_layout, write_native

GRID = Grid((6, 4), 0.5, 80.0)


def measured(shots=20, grid=GRID, views=None, **more):
    rng = np.random.default_rng(0)
    shape = (shots,) if views is None else (views, shots)
    counts = rng.poisson(9, (*shape, *grid.shape)).astype(np.uint16) + np.uint16(1)
    return Dataset(counts, rng.uniform(-30, 70, (*shape, 2)), grid, **more)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A small file that tests copy and spoil."""
    path = tmp_path_factory.mktemp("native") / "scan.h5"
    write_native(path, measured(about={"semiangle_mrad": 20.0, "defocus_angstrom": -150.0}))
    return path


@pytest.fixture
def spoilt(template, tmp_path):
    """`spoilt(change)` is a copy of the file after `change(file)`."""

    def make(change):
        path = tmp_path / "spoilt.h5"
        path.write_bytes(template.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def same(one: Dataset, other: Dataset):
    assert (one.grid, one.n_shots) == (other.grid, other.n_shots)
    for view, shots in enumerate(one.n_shots):
        np.testing.assert_array_equal(one.positions[view], other.positions[view])
        np.testing.assert_array_equal(
            one.patterns(view, np.arange(shots)), other.patterns(view, np.arange(shots))
        )
    for name in ("mask", "tilts", "probe_guess"):
        np.testing.assert_equal(getattr(one, name), getattr(other, name))
    assert one.about == other.about


@pytest.mark.parametrize("pixel", [0.5, (0.5, 0.75)])
@pytest.mark.parametrize("beam", [{"voltage_kv": 80.0}, {"wavelength": 1.4}])
def test_a_native_file_comes_back(tmp_path, pixel, beam):
    grid = Grid((6, 5), pixel, **beam)
    mask = np.arange(30).reshape(6, 5) % 7 > 0
    probe = np.ones((2, 6, 5)) * (1 + 2j)
    data = measured(
        grid=grid, mask=mask, probe_guess=probe, about={"thickness_angstrom": 12.0, "note": "ß"}
    )
    write_native(tmp_path / "a.h5", data)
    same(read(tmp_path / "a.h5"), data)


def test_a_tilt_series_comes_back(tmp_path):
    data = measured(views=3, tilts=np.array([-0.2, 0.0, 0.2]))
    write_native(tmp_path / "a.h5", data, truth={"volume": np.zeros((2, 3))})
    back = read(tmp_path / "a.h5")
    np.testing.assert_allclose(back.tilts, data.tilts)
    back.tilts = data.tilts
    same(back, data)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["truth/volume"].shape == (2, 3)


def test_native_files_are_never_overwritten(template):
    before = template.read_bytes()
    with pytest.raises(FileExistsError, match=r"scan.h5 exists; choose another name"):
        write_native(template, measured())
    assert template.read_bytes() == before


@pytest.mark.parametrize("views", [None, 2])
def test_a_file_beyond_memory_stays_on_disk_and_is_open_only_while_read(
    tmp_path, monkeypatch, views
):
    data = measured(views=views)
    write_native(tmp_path / "a.h5", data)
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    lazy = read("a.h5")
    monkeypatch.chdir("/")
    same(lazy, data)
    with h5py.File(tmp_path / "a.h5", "r+") as file:  # nobody else has it open
        file["counts"][...] = 3
    assert (lazy.patterns(0, [4]) == 3).all()


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("shots", [[5], [17, 3, 4, 5, 3, 0], [19, 18, 1]])
def test_shots_are_read_from_disk_in_any_order(tmp_path, monkeypatch, views, shots):
    data = measured(views=views)
    write_native(tmp_path / "a.h5", data)
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", 0)
    lazy = read(tmp_path / "a.h5")
    for view in range(data.n_views):
        np.testing.assert_array_equal(lazy.patterns(view, shots), data.patterns(view, shots))


@pytest.mark.parametrize(
    ("pixels", "kind", "together"), [(16, np.uint16, 16), (32, np.float32, 2), (128, np.uint16, 1)]
)
def test_one_pattern_is_read_without_many_others(pixels, kind, together):
    grid = Grid((pixels, pixels), 0.5, 80.0)
    assert chunk_layout(grid, 100, kind)["chunks"] == (together, pixels, pixels)
    assert chunk_layout(grid, 100, kind, views=(3,))["chunks"] == (1, together, pixels, pixels)


def test_known_properties_replace_those_of_the_file(template):
    data = read(
        template,
        wavelength_angstrom=0.05,
        dk_inverse_angstrom=0.01,
        semiangle_mrad=30.0,
        thickness_angstrom=None,
    )
    assert (data.grid.wavelength, data.grid.voltage_kv) == (0.05, None)
    np.testing.assert_allclose(data.grid.dk, 0.01)
    assert data.about == {"semiangle_mrad": 30.0, "defocus_angstrom": -150.0}


def test_known_properties_fill_what_is_missing(spoilt):
    path = spoilt(lambda f: [f.attrs.pop("voltage_kv"), f.attrs.pop("pixel_angstrom")])
    assert read(path, voltage_kv=200.0, pixel_angstrom=0.25).grid == Grid((6, 4), 0.25, 200.0)


def test_dk_of_a_rectangular_pattern_gives_two_pixels(spoilt):
    path = spoilt(
        lambda f: f.attrs.update({"dk_inverse_angstrom": 1 / 3.0})
    )  # 1/(6 · 0.5 Å) as the file's pixel says
    np.testing.assert_allclose(read(path).grid.pixel, (0.5, 0.75))


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            {"semiangle_rad": 0.02},
            "no property of a dataset is called semiangle_rad; did you mean semiangle_mrad",
        ),
        ({"voltage": 80.0}, "did you mean voltage_kv"),
        ({"colour": 1}, "known are voltage_kv, wavelength_angstrom"),
        (
            {"focus_to_sample_angstrom": 10.0},
            "no property of a dataset is called focus_to_sample_angstrom",
        ),
        ({"voltage_kv": -80.0}, "voltage_kv = -80.0; expected more than 0"),
        ({"voltage_kv": "80 kV"}, "voltage_kv = '80 kV'; expected one number"),
        ({"defocus_angstrom": np.nan}, "defocus_angstrom = nan; expected one number"),
        ({"semiangle_mrad": (1.0, 2.0)}, "expected one number"),
        (
            {"voltage_kv": 80.0, "wavelength_angstrom": 0.0197},
            "electrons of voltage_kv = 80.0 have 0.0417",
        ),
        ({"pixel_angstrom": 0.5, "dk_inverse_angstrom": 0.7}, "disagree for"),
        ({"scan_transform": "mirror"}, "known are none, flip_y"),
    ],
)
def test_refuses_what_cannot_be_known(template, known, message):
    with pytest.raises(ValueError, match=message):
        read(template, **known)


def delete(name):
    return lambda file: file.__delitem__(name)


def attribute(**values):
    return lambda file: file.attrs.update(values)


def put(name, values):
    def change(file):
        file.pop(name, None)
        file[name] = values

    return change


SPOILT = {
    "no counts": (delete("counts"), "has no dataset /counts; a jaxptycho-dataset file requires"),
    "no positions": (delete("positions"), "has no dataset /positions"),
    "counts are a group": (
        lambda f: [f.pop("counts"), f.create_group("counts")],
        "has no dataset /counts",
    ),
    "flat counts": (put("counts", np.ones((20, 24))), r"/counts .* has shape \(20, 24\)"),
    "pixel and dk": (
        attribute(dk_inverse_angstrom=0.1),
        "pixel_angstrom = 0.5 and dk_inverse_angstrom = 0.1 disagree",
    ),
    "voltage and wavelength": (attribute(wavelength_angstrom=1.0), "correct or remove one"),
    "unknown unit": (
        attribute(pixel_nm=0.05),
        "pixel_nm is in no unit known here; .* call it pixel_angstrom",
    ),
    "no unit": (attribute(semiangle=0.02), "semiangle is in no unit known here; .* semiangle_mrad"),
    "a word": (attribute(voltage_kv="eighty"), "voltage_kv = 'eighty'; expected one number"),
    "nan": (attribute(defocus_angstrom=np.nan), "defocus_angstrom = nan"),
    "no beam": (lambda f: f.attrs.pop("voltage_kv"), "neither voltage_kv nor wavelength_angstrom"),
    "no pixel": (
        lambda f: f.attrs.pop("pixel_angstrom"),
        "neither pixel_angstrom nor dk_inverse_angstrom",
    ),
    "newer": (attribute(version=99), "version 99; expected 'jaxptycho-dataset' up to version 2"),
    "a lost position": (
        put("positions", np.full((20, 2), np.nan)),
        r"position of shot 0 is \[nan nan\]",
    ),
    "a result": (
        lambda f: [f.clear(), f.attrs.update(format="jaxptycho-result")],
        "neither .* but jaxptycho-result",
    ),
    "something else": (
        lambda f: [f.clear(), f.attrs.clear(), put("image", 1)(f)],
        "neither .* file with image",
    ),
    "nothing": (lambda f: [f.clear(), f.attrs.clear()], "neither .* nothing in it"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_refuses_a_spoilt_file_in_one_sentence(spoilt, name):
    change, message = SPOILT[name]
    with pytest.raises(ValueError, match=message) as caught:
        read(spoilt(change))
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.h5 is not there"):
        read(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read(tmp_path)


def ragged() -> Dataset:
    """Three views of a tilt series with different numbers of shots."""
    random, shots = np.random.default_rng(4), (5, 3, 7)
    counts = [random.poisson(3.0, (n, *GRID.shape)).astype(np.uint16) for n in shots]
    places = [random.uniform(-5, 5, (n, 2)) for n in shots]
    return Dataset(
        counts, places, GRID, tilts=np.array([-0.5, 0.0, 0.4]), about={"semiangle_mrad": 20.0}
    )


def test_views_of_different_lengths_come_back(tmp_path):
    data = ragged()
    write_native(tmp_path / "ragged.h5", data)
    back = read(tmp_path / "ragged.h5")
    assert back.n_shots == [5, 3, 7]
    assert back.about["semiangle_mrad"] == 20.0
    np.testing.assert_allclose(back.tilts, data.tilts)
    for view in range(3):
        np.testing.assert_array_equal(back.patterns(view, [2, 0]), data.patterns(view, [2, 0]))
        np.testing.assert_allclose(back.positions[view], data.positions[view])
    with h5py.File(tmp_path / "ragged.h5") as file:
        assert file.attrs["version"] == 2
        assert set(file["views"]) == {"0", "1", "2"}


def test_views_of_one_length_are_written_as_before(tmp_path):
    data = ragged().subset([[0, 1, 2]] * 3)
    write_native(tmp_path / "even.h5", data)
    with h5py.File(tmp_path / "even.h5") as file:
        assert file.attrs["version"] == 1
        assert file["counts"].shape == (3, 3, *GRID.shape)


def test_a_spoilt_view_is_named(tmp_path):
    write_native(tmp_path / "ragged.h5", ragged())
    with h5py.File(tmp_path / "ragged.h5", "a") as file:
        del file["views/1/positions"]
    with pytest.raises(ValueError, match="has no dataset /views/1/positions"):
        read(tmp_path / "ragged.h5")


def test_views_of_different_grids_are_refused(tmp_path):
    write_native(tmp_path / "ragged.h5", ragged())
    with h5py.File(tmp_path / "ragged.h5", "a") as file:
        del file["views/2/counts"]
        file["views/2/counts"] = np.ones((7, 6, 5), np.uint16)
    with pytest.raises(
        ValueError, match=r"patterns of view 2 are \(6, 5\) pixels, the grid is \(6, 4\)"
    ):
        read(tmp_path / "ragged.h5")


def test_refuses_what_is_not_hdf5(tmp_path):
    for name, content in {"empty.h5": b"", "notes.h5": b"these are my notes"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not an HDF5 file"):
            read(tmp_path / name)


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_refuses_a_truncated_file(template, tmp_path, left):
    content = template.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: int(left * len(content))])
    with pytest.raises(
        ValueError, match=r"cut.h5 cannot be read \(.*truncated file.*copy or write it again"
    ):
        read(tmp_path / "cut.h5")


def test_refuses_a_damaged_chunk(spoilt):
    path = spoilt(lambda f: f["counts"].id.write_direct_chunk((0, 0, 0), b"not deflated"))
    with pytest.raises(ValueError, match=r"spoilt.h5 cannot be read .* copy or write it again"):
        read(path)


def test_scan_transforms_are_the_eight_of_the_square(template):
    plain = read(template).positions[0]
    found = {name: read(template, scan_transform=name).positions[0] for name in SCAN_TRANSFORMS}
    middle = plain.mean(0)
    for positions in found.values():
        np.testing.assert_allclose(positions.mean(0), middle)
    (y, x), of = (plain - middle).T, {n: (p - middle).T for n, p in found.items()}
    np.testing.assert_allclose(of["none"], (y, x))
    np.testing.assert_allclose(of["flip_y"], (-y, x))
    np.testing.assert_allclose(of["transpose"], (x, y))
    image = np.zeros((3, 3))  # a mark right of the middle, turned as numpy turns an image
    image[1, 2] = 1
    mark = np.argwhere(np.rot90(image))[0] - 1
    np.testing.assert_allclose(np.array(SCAN_TRANSFORMS["rotate_90"]) @ (0, 1), mark)
    matrices = [np.array(m) for m in SCAN_TRANSFORMS.values()]
    products = {(a @ b).tobytes() for a in matrices for b in matrices}
    assert products == {m.tobytes() for m in matrices}
    assert len(products) == 8


def test_a_tilt_series_is_turned_about_its_axis(tmp_path):
    """One place of the specimen stays one, wherever the views were scanned; about their middles it would not."""
    data = measured(views=2, tilts=np.array([-0.2, 0.2]))
    data.positions[1] = data.positions[1] + 30.0
    data.positions[0][0] = data.positions[1][0] = (10.0, -4.0)
    write_native(tmp_path / "tilts.h5", data)
    for name, matrix in SCAN_TRANSFORMS.items():
        found = read(tmp_path / "tilts.h5", scan_transform=name).positions
        for view in range(2):
            np.testing.assert_allclose(found[view], data.positions[view] @ np.transpose(matrix))
        np.testing.assert_allclose(found[0][0], found[1][0])
