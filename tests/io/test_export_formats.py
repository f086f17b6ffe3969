"""Every format as its own readers open it: values, pixels, places and units."""

import json

import mrcfile
import numpy as np
import pytest
import tifffile
from matplotlib.image import imread
from models import GRID, MODELS, ORIGIN, stack, thin

from jaxptycho.analysis.scanned import scanned
from jaxptycho.io.exports import export, quantity

STEP = (8.0, *GRID.pixel)  # z, y, x


@pytest.fixture(scope="module")
def model():
    return thin(specimen=stack(3), frame=(100.0, -200.0))


@pytest.fixture(scope="module")
def phase(model):
    """Phase of the slices on the scanned area, and the place of its first voxel."""
    area = scanned(model)
    start = np.add(ORIGIN, model.frame) + np.multiply(GRID.pixel, [part.start for part in area])
    return np.asarray(model.specimen.phase, np.float32)[:, *area], (4.0, *start)


def test_mrc_holds_the_scanned_area(tmp_path, model, phase):
    export(model, tmp_path / "a.mrc")
    values, start = phase
    with mrcfile.open(tmp_path / "a.mrc") as file:
        np.testing.assert_array_equal(file.data, values)
        np.testing.assert_allclose(file.voxel_size.tolist(), STEP[::-1], rtol=1e-6)
        np.testing.assert_allclose(file.header.origin.tolist(), start[::-1], rtol=1e-6)
    assert values.shape[1:] < model.specimen.phase.shape[1:]


def test_mrc_holds_complex_modes(tmp_path, model):
    export(model, tmp_path / "a.mrc", what="probe")
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert file.data.shape == (2, *GRID.shape)
        np.testing.assert_array_equal(file.data, quantity(model, "probe").values)
        assert not file.is_volume()
        np.testing.assert_allclose([file.voxel_size.y, file.voxel_size.x], GRID.pixel, rtol=1e-6)


def test_ome_tiff_has_places_too(tmp_path, model, phase):
    ome = pytest.importorskip("ome_types")
    export(model, tmp_path / "a.ome.tif")
    values, start = phase
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.ome.tif"), values)
    image = ome.from_tiff(tmp_path / "a.ome.tif").images[0]
    pixels = image.pixels
    assert image.name == "phase (rad)"
    found = (pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x)
    np.testing.assert_allclose(found, STEP, rtol=1e-6)
    assert pixels.physical_size_x_unit.value == "Å"
    plane = pixels.planes[1]
    place = (plane.position_z, plane.position_y, plane.position_x)
    np.testing.assert_allclose(place, (start[0] + STEP[0], *start[1:]))
    assert plane.position_y_unit.value == "Å"


@pytest.mark.parametrize("what", ["phase", "patterns"])
def test_imagej_opens_calibrated_stacks(tmp_path, model, what):
    """As ImageJ reads them: resolution in pixels per unit, origin in pixels."""
    export(model, tmp_path / "a.tif", what=what)
    held = quantity(model, what)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.asarray(), held.values)
        about = file.imagej_metadata
        tags = file.pages[0].tags
        for axis, name in zip(held.axes[1:], ("YResolution", "XResolution"), strict=True):
            above, below = tags[name].value
            assert below / above == pytest.approx(axis.step, rel=1e-5)
            assert -about[f"{axis.name}origin"] * axis.step == pytest.approx(axis.start)
    assert about["unit"] == ("angstrom" if what == "phase" else "1/angstrom")
    if what == "phase":
        assert about["spacing"] == STEP[0]
        assert -about["zorigin"] * about["spacing"] == pytest.approx(4.0)


@pytest.mark.parametrize("ending", [".hspy", ".emd"])
@pytest.mark.parametrize("what", ["phase", "probe", "patterns"])
def test_hyperspy_reads_signals(tmp_path, model, ending, what):
    rsciio = pytest.importorskip("rsciio")
    from rsciio import emd, hspy

    assert rsciio
    export(model, tmp_path / f"a{ending}", what=what)
    held = quantity(model, what)
    reader = emd if ending == ".emd" else hspy
    (signal,) = reader.file_reader(str(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(signal["data"], held.values)
    assert signal["metadata"]["General"]["title"] == what
    for found, axis in zip(signal["axes"], held.axes, strict=True):
        assert found["name"] == axis.name
        assert found["scale"] == pytest.approx(axis.step)
        assert found["offset"] == pytest.approx(axis.start)
        assert (found["units"] or "").strip("[]").replace(" ", "") == axis.unit


@pytest.mark.parametrize("what", ["phase", "probe"])
def test_ome_ngff_is_read_by_zarr(tmp_path, model, what):
    zarr = pytest.importorskip("zarr")
    export(model, tmp_path / "a.zarr", what=what)
    held = quantity(model, what)
    store = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (image,) = store.attrs["ome"]["multiscales"]
    (level,) = image["datasets"]
    np.testing.assert_array_equal(store[level["path"]][:], held.values)
    scale, place = level["coordinateTransformations"]
    np.testing.assert_allclose(scale["scale"], [axis.step for axis in held.axes])
    np.testing.assert_allclose(place["translation"], [axis.start for axis in held.axes])
    assert [axis["name"] for axis in image["axes"]] == [axis.name for axis in held.axes]
    assert [axis.get("unit") for axis in image["axes"]][1:] == ["angstrom", "angstrom"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr"}
    assert json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["zarr_format"] == 3
    with pytest.raises(FileExistsError, match="exists"):
        export(model, tmp_path / "a.zarr")


def test_npy_and_png(tmp_path, model):
    export(model, tmp_path / "a.npy", what="amplitude")
    absorbed = quantity(model, "absorption").values
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.exp(-absorbed))
    export(model, tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[:2] == absorbed.shape[1:]


def test_predicted_patterns_are_those_of_the_model(model):
    """All shots, though blocks are longer; the sum of the counts is the dose."""
    held = quantity(MODELS["phase_only"](), "patterns")
    assert held.values.shape == (7, *GRID.shape)
    np.testing.assert_allclose(held.values.sum((1, 2)), 400.0, rtol=1e-4)
    assert [axis.step for axis in held.axes[1:]] == list(GRID.dk)
    near = quantity(MODELS["near_field"](), "patterns")
    assert (near.axes[1].step, near.axes[1].unit) == (GRID.pixel[0], "Å")
    fine = quantity(MODELS["super_sampled"](), "patterns")
    assert fine.axes[2].step == 2 * GRID.dk[1]


REFUSED = {
    "a.png": ("probe", "can hold no complex numbers"),
    "a.mrc": ("patterns", "can hold lengths only"),
    "a.npy": ("colour", "is no quantity of a result; known are phase, amplitude"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_format_cannot_hold_is_one_sentence(tmp_path, model, name):
    what, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        export(model, tmp_path / name, what=what)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ValueError, match=r"zarr, which is not installed: pip install 'jaxptycho"):
        export(model, tmp_path / "a.zarr")
