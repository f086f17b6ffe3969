"""Exports as other programs read them: values, axes, voxel sizes, places; one sentence for what cannot be exported."""

import ase.io
import equinox as eqx
import jax.numpy as jnp
import mrcfile
import numpy as np
import pytest
import tifffile
from models import GRID, ORIGIN, atoms, stack, thin
from typer.testing import CliRunner

from jaxptycho import PerShot, PerView, Volume, write
from jaxptycho.cli.main import app
from jaxptycho.io.exports import export
from jaxptycho.physics.scattering import VOLT_ANGSTROM2, scattering_factor

VOXEL = (0.6, 0.4, 0.5)


def volume() -> Volume:
    volts = jnp.arange(4 * 6 * 8, dtype=jnp.float32).reshape(4, 6, 8)
    return Volume(volts, VOXEL, PerView(jnp.array([-0.5, 0.5])), taper=0.0)


def test_what_is_exported_is_what_views_meet(tmp_path):
    """Without the faces, over which a volume falls to vacuum."""
    tapering = Volume(jnp.ones((20, 24, 22)), VOXEL, PerView(jnp.array([-0.5, 0.5])), taper=2.0)
    export(thin(specimen=tapering), tmp_path / "volume.mrc")
    with mrcfile.open(tmp_path / "volume.mrc") as file:
        wanted = np.sin(np.pi / 4 * np.array([0.25, 0.75, 1.25, 1.75])) ** 2
        np.testing.assert_allclose(file.data[10, 12, :4], wanted, rtol=1e-5)
        assert file.data[10, 12, 11] == 1


def test_a_volume_in_mrc_has_its_voxels_and_place(tmp_path):
    model = thin(specimen=volume())
    assert "potential (V), 4 × 6 × 8 (z, y, x)" in export(model, tmp_path / "volume.mrc")
    with mrcfile.open(tmp_path / "volume.mrc") as file:
        np.testing.assert_array_equal(
            file.data, model.specimen.potential
        )  # sections are z, columns are x
        assert file.is_volume()
        size, origin = file.voxel_size, file.header.origin
        np.testing.assert_allclose([size.z, size.y, size.x], VOXEL, rtol=1e-6)
        middle = np.array([origin.z, origin.y, origin.x]) + np.array([2, 3, 4]) * VOXEL
        np.testing.assert_allclose(middle, 0, atol=1e-6)  # on the tilt axis
    assert mrcfile.validate(tmp_path / "volume.mrc")


def test_what_absorbs_is_exported_in_its_place(tmp_path):
    loss = jnp.arange(4 * 6 * 8, dtype=jnp.float32).reshape(4, 6, 8) ** 2
    tilts = PerView(jnp.array([-0.5, 0.5]))
    model = thin(specimen=Volume(jnp.ones((4, 6, 8)), VOXEL, tilts, absorptive=loss, taper=0.0))
    assert "absorptive potential (V), 4 × 6 × 8" in export(
        model, tmp_path / "loss.mrc", what="absorption"
    )
    with mrcfile.open(tmp_path / "loss.mrc") as file:
        np.testing.assert_array_equal(file.data, loss)
    with pytest.raises(ValueError, match="the specimen has no absorption"):
        export(thin(specimen=volume()), tmp_path / "none.mrc", what="absorption")


@pytest.mark.parametrize("slices", [1, 3])
def test_slices_keep_their_thickness_in_mrc(tmp_path, slices):
    model = thin(specimen=stack(slices, 7.0))
    assert "phase (rad)" in export(model, tmp_path / "slices.mrc", cropped=False)
    with mrcfile.open(tmp_path / "slices.mrc") as file:
        np.testing.assert_array_equal(file.data, np.asarray(model.specimen.phase, np.float32))
        assert file.data.shape[0] == slices
        np.testing.assert_allclose(file.voxel_size.tolist(), (*GRID.pixel[::-1], 7.0), rtol=1e-6)
        np.testing.assert_allclose(file.header.origin.tolist(), (*ORIGIN[::-1], 3.5), rtol=1e-6)


def test_ome_tiff_has_physical_sizes(tmp_path):
    model = thin(specimen=volume())
    export(model, tmp_path / "volume.ome.tif")
    with tifffile.TiffFile(tmp_path / "volume.ome.tif") as file:
        assert file.series[0].axes == "ZYX"
        np.testing.assert_array_equal(file.asarray(), model.specimen.potential)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == list(VOXEL)
    assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "ZYX"} == {"Å"}


def test_atoms_in_xyz_have_their_numbers(tmp_path):
    model = thin(specimen=atoms())
    assert export(model, tmp_path / "atoms.xyz") == "atoms"
    found = ase.io.read(tmp_path / "atoms.xyz")
    assert tuple(found.numbers) == model.specimen.numbers
    np.testing.assert_allclose(found.positions[:, ::-1], model.specimen.positions, atol=1e-6)
    np.testing.assert_allclose(found.arrays["occupancy"], model.specimen.occupancy, atol=1e-6)


def test_atoms_of_a_volume_are_traced(tmp_path):
    """Gaussians whose integrals are those of the elements come out in their places, without any threshold."""
    places = np.array(
        [[-2.0, 2.0, 1.5], [2.5, -2.5, -2.0], [0.5, 1.0, -3.0], [-1.5, -3.0, 3.0], [3.0, 3.0, 3.0]]
    )
    numbers, voxel, n = [78, 8, 8, 78, 8], 0.4, 32
    axis = (np.arange(n) - n // 2) * voxel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    heights = [
        VOLT_ANGSTROM2
        * float(scattering_factor(number, np.zeros(())))
        / (0.6**2 * 2 * np.pi) ** 1.5
        for number in numbers
    ]
    volts = sum(
        h * np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 0.72)
        for h, (a, b, c) in zip(heights, places, strict=True)
    )
    result = tmp_path / "result.h5"
    write(result, thin(specimen=Volume(jnp.asarray(volts), voxel, PerView(jnp.array([-0.5, 0.5])))))
    out = tmp_path / "atoms.xyz"
    done = CliRunner().invoke(app, ["export", str(result), str(out), "--elements", "O,Pt"])
    assert done.exit_code == 0, done.output
    found = ase.io.read(out)
    order = [
        int(np.argmin(np.linalg.norm(found.positions[:, ::-1] - place, axis=1))) for place in places
    ]
    assert len(set(order)) == len(found) == 5
    np.testing.assert_allclose(found.positions[order][:, ::-1], places, atol=0.02)
    assert list(found.numbers[order]) == numbers
    lacking = CliRunner().invoke(app, ["export", str(result), str(tmp_path / "other.xyz")])
    assert lacking.exit_code == 2
    assert "--elements Pt,Al,O" in " ".join(lacking.output.split())


BAD = {
    "scan.jpg": (stack(), "ends in none of"),
    "scan.xyz": (stack(), "holds no atoms"),
    "atoms.mrc": (atoms(), "made of atoms"),
    "unequal.mrc": (stack(2, jnp.array([3.0, 4.0])), "3 to 4 Å thick"),
    "views.ome.tif": (
        eqx.tree_at(lambda s: s.origin, stack(), PerView(jnp.zeros((2, 2)))),
        "one view at a time",
    ),
    "diverged.mrc": (
        eqx.tree_at(lambda s: s.phase, stack(), stack().phase * jnp.nan),
        "not finite",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_exported_gets_one_sentence(tmp_path, name):
    specimen, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        export(thin(specimen=specimen), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_command_never_overwrites(tmp_path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "result.h5", thin())
    out = tmp_path / "object.mrc"
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), str(out)])
    assert done.exit_code == 0, done.output
    before = out.read_bytes()
    again = CliRunner().invoke(app, ["export", str(tmp_path / "run" / "result.h5"), str(out)])
    assert again.exit_code == 2
    assert "exists" in again.output
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "object.mrc"}


THIN = {
    "one slice without a thickness": (1, 0.0, 0.4),
    "one slice with one": (1, 7.0, 7.0),
    "several without": (3, 0.0, 0.4),
    "several equal": (3, jnp.array([2.5, 2.5, 2.5]), 2.5),
}


@pytest.mark.parametrize("name", THIN)
def test_voxels_have_a_depth_in_every_format(tmp_path, name):
    """That of the slice, else the smaller side of the pixel, which is 0.4 × 0.5 Å."""
    slices, thickness, depth = THIN[name]
    model = thin(specimen=stack(slices, thickness))
    for ending in (".mrc", ".ome.tif"):
        export(model, tmp_path / f"slices{ending}", cropped=False)
    assert mrcfile.validate(tmp_path / "slices.mrc")
    with mrcfile.open(tmp_path / "slices.mrc") as file:
        np.testing.assert_allclose(file.voxel_size.tolist(), (*GRID.pixel[::-1], depth), rtol=1e-6)
        np.testing.assert_allclose(file.header.cella.z, slices * depth, rtol=1e-6)
        np.testing.assert_allclose(file.header.origin.z, np.mean(thickness) / 2, rtol=1e-6)
    with tifffile.TiffFile(tmp_path / "slices.ome.tif") as file:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert file.asarray().reshape(-1, *model.specimen.phase.shape[1:]).shape[0] == slices
    found = [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"]
    np.testing.assert_allclose(found, (depth, *GRID.pixel), rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("thickness", PerShot(jnp.full(7, 3.0))),
        ("thickness", PerView(jnp.full(2, 3.0))),
    ],
)
def test_what_differs_between_shots_is_not_exported_as_one(tmp_path, field, values):
    specimen = eqx.tree_at(lambda s: getattr(s, field), stack(2, 3.0), values)
    with pytest.raises(ValueError, match="export one"):
        export(thin(specimen=specimen), tmp_path / "slices.mrc")
    assert list(tmp_path.iterdir()) == []
