"""Atoms in files: what is written comes back, and whatever is wrong is one sentence."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from models import rng

from jaxptycho.io.structures import from_ase, read_structure, to_ase, write_structure

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning:ase")

POSITIONS = np.array(
    [[1.0, 2.0, 3.0], [4.5, 5.25, 6.125], [7.0, -0.5, 9.0]]
)  # the last lies outside the box
SYMBOLS = np.array(["Sr", "Ti", "O"])
BOX = (12.0, 10.0, 11.0)


def atoms():
    return to_ase(
        POSITIONS, SYMBOLS, BOX, {"integral": np.array([3.0, 2.0, 1.0]), "sigma": 0.1 * POSITIONS}
    )


@pytest.mark.parametrize("ending", ["xyz", "cif", "XYZ"])
def test_what_is_written_comes_back(tmp_path, ending):
    path = tmp_path / f"found.{ending}"
    write_structure(path, atoms())
    positions, symbols = from_ase(read_structure(path))
    inside = np.mod(POSITIONS, BOX)  # a crystal comes back inside its cell
    np.testing.assert_allclose(positions, inside if ending == "cif" else POSITIONS, atol=1e-8)
    np.testing.assert_array_equal(symbols, SYMBOLS)
    np.testing.assert_allclose(read_structure(path).cell.lengths(), BOX[::-1])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_ase_has_x_first():
    np.testing.assert_array_equal(atoms().positions, POSITIONS[:, ::-1])
    np.testing.assert_allclose(atoms().arrays["sigma"], 0.1 * POSITIONS[:, ::-1])


def test_columns_are_kept_by_xyz(tmp_path):
    write_structure(tmp_path / "found.xyz", atoms())
    np.testing.assert_allclose(read_structure(tmp_path / "found.xyz").arrays["integral"], [3, 2, 1])


@pytest.mark.parametrize(
    ("name", "kind"), [("crystal.cif", "cif"), ("POSCAR", "vasp"), ("crystal.xyz", "xyz")]
)
def test_crystals_of_others_are_read(tmp_path, name, kind):
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    ase.io.write(tmp_path / name, crystal, format=kind)
    read = read_structure(tmp_path / name)
    assert sorted(read.symbols) == sorted(crystal.symbols)
    if kind != "xyz":
        np.testing.assert_allclose(read.cell.lengths(), 5.64)


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "found.xyz"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="choose another name"):
        write_structure(path, atoms())
    assert path.read_text() == "mine"
    with pytest.raises(OSError, match="could not be written"):
        write_structure(tmp_path / "nowhere" / "found.xyz", atoms())
    with pytest.raises(ValueError, match=r"written as \.xyz or \.cif"):
        write_structure(tmp_path / "found.pdb", atoms())
    assert [p.name for p in tmp_path.iterdir()] == ["found.xyz"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("short.xyz", "3\n\nH 0 0 0\n", "cannot be read as atoms"),
        ("unknown.xyz", "2\n\nQq 0 0 0\nH 1 1 1\n", "cannot be read as atoms"),
        ("nan.xyz", "1\n\nH nan 0 0\n", "atom 0"),
        ("none.xyz", "1\n\nX 0 0 0\n", "of no element"),
        ("many.xyz", "1\n\nH 0 0 0\n1\n\nH 0 0 1\n", "2 structures"),
        ("empty.xyz", "", "cannot be read as atoms"),
        ("junk.cif", "nothing of the kind\n", "cannot be read as atoms"),
        ("POSCAR", "title only\n", "cannot be read as atoms"),
        ("atoms.json", "{}\n", "expected xyz, cif or POSCAR"),
        ("noise.bin", "".join(map(chr, rng(0).integers(33, 127, 400))), "expected"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_structure(tmp_path / name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="not there"):
        read_structure(tmp_path / "nothing.cif")
    with pytest.raises(FileNotFoundError, match="a folder"):
        read_structure(tmp_path)


def test_unknown_elements_are_refused():
    with pytest.raises(ValueError, match="no element is called Qq"):
        to_ase(POSITIONS, ["Qq", "O", "O"])
    with pytest.raises(ValueError, match="expected one each"):
        to_ase(POSITIONS, ["O"])
