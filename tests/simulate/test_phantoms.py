"""Phantoms are the matter they claim to be: composition, density, size, bonds and hand."""

import inspect

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.spacegroup import crystal
from scipy.spatial import KDTree

from jaxptycho.simulate.phantoms import PHANTOMS
from jaxptycho.simulate.phantoms.amorphous import amorphous_carbon
from jaxptycho.simulate.phantoms.arrange import (
    centre_atoms,
    cut_box,
    displaced,
    merge,
    nearest,
    on_support,
    remove_atoms,
    require_apart,
    rotate_atoms,
    rotation,
)
from jaxptycho.simulate.phantoms.crystals import (
    cobalt_oxide_cube,
    strontium_titanate,
    twisted_bilayer,
)
from jaxptycho.simulate.phantoms.cutting import facetted, tile
from jaxptycho.simulate.phantoms.molecules import (
    copper_phthalocyanine,
    copper_phthalocyanine_molecule,
)
from jaxptycho.simulate.phantoms.particles import (
    gadolinium_oxide_helix,
    platinum_in_alumina,
    tellurium_on_nanotube,
    zirconium_telluride_in_nanotube,
)

# by name: least distance of two atoms [Å], extent (x, y, z) [Å], atoms of the elements per formula
CLAIMS = {
    "strontium_titanate": (1.95, (39, 39, 195), {"Sr": 1, "Ti": 1, "O": 3}),
    "twisted_bilayer": (2.40, (40, 40, 9.9), {"W": 13.6, "Se": 27.2, "Mo": 14.7, "S": 29.4}),
    "platinum_in_alumina": (1.70, (32, 32, 32), {"Pt": 641, "Al": 780, "O": 1170}),
    "tellurium_on_nanotube": (1.40, (104, 116, 67), {"C": 3, "Te": 1}),
    "cobalt_oxide_cube": (1.90, (129.3, 129.3, 129.3), {"Co": 3, "O": 4}),
    "zirconium_telluride_in_nanotube": (1.40, (25.8, 88, 25.8), {"C": 4752, "Zr": 57, "Te": 180}),
    "gadolinium_oxide_helix": (2.25, (56, 114, 56), {"Gd": 2, "O": 3}),
    "amorphous_carbon": (1.35, (60, 60, 30), {"C": 1}),
    "copper_phthalocyanine": (1.07, (64, 71, 41), {"Cu": 1, "C": 32, "H": 16, "N": 8}),
}


def density(atoms, size, centre=(0.0, 0.0, 0.0)):
    """Mass [g/cm³] of what is in a box [Å]."""
    mass = cut_box(
        atoms, tuple(map(float, size)), tuple(map(float, centre))
    ).get_masses().sum() / np.prod(size)
    return mass / (1e-3 * units.kg / (1e-2 * units.m) ** 3)


def bonds(atoms, kind, other, reach):
    """Numbers of `other` within `reach` [Å] of each `kind`, and their distances."""
    near = KDTree(atoms[atoms.symbols == other].positions)
    ends = atoms[atoms.symbols == kind].positions
    found = near.query_ball_point(ends, reach)
    lengths = [np.linalg.norm(near.data[f] - e, axis=1) for f, e in zip(found, ends, strict=True)]
    lengths = [d[d > 0] for d in lengths]
    return np.array([len(d) for d in lengths]), np.concatenate(lengths)


def middle_bonds(atoms, kind, other, reach, size=20.0):
    """Numbers of `other` within `reach` of each `kind` well inside [Å]."""
    ends = cut_box(centre_atoms(atoms), (size, size, size))
    near = KDTree(centre_atoms(atoms)[atoms.symbols == other].positions)
    return near.query_ball_point(
        ends[ends.symbols == kind].positions, reach, return_length=True
    ) - (kind == other)


def turn_per_length(points):
    """Angle about y, counted from z to x (right-handed), that goes with each Å along y."""
    order = np.argsort(points[:, 1])
    angle = np.unwrap(np.arctan2(points[order, 0], points[order, 2]))
    return np.polyfit(points[order, 1], angle, 1)[0]


@pytest.fixture(scope="module")
def phantoms():
    return {name: phantom() for name, phantom in PHANTOMS.items()}


def test_every_phantom_is_claimed_here():
    assert set(CLAIMS) == set(PHANTOMS)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_phantom_is_what_it_claims(name, phantoms):
    atoms, (least, extent, formula) = phantoms[name], CLAIMS[name]
    low, high = atoms.positions.min(0), atoms.positions.max(0)
    assert not atoms.pbc.any()
    assert set(atoms.symbols) == set(formula)
    np.testing.assert_allclose((low + high) / 2, 0, atol=0.3)
    np.testing.assert_allclose(high - low, extent, atol=2.5)
    require_apart(atoms, least)
    count, total = sum(formula.values()), len(atoms)
    for symbol, n in formula.items():
        np.testing.assert_allclose(
            np.mean(atoms.symbols == symbol), n / count, rtol=0.03, atol=1 / total
        )


@pytest.mark.parametrize("name", CLAIMS)
def test_a_seed_makes_a_phantom(name, phantoms):
    again = PHANTOMS[name]()
    np.testing.assert_array_equal(again.positions, phantoms[name].positions)
    random = "seed" in inspect.signature(PHANTOMS[name]).parameters
    assert random == (name in {"twisted_bilayer", "platinum_in_alumina", "amorphous_carbon"})
    if random:
        other = PHANTOMS[name](seed=1)
        assert other.positions.shape != again.positions.shape or not np.allclose(
            other.positions, again.positions
        )


def test_densities_are_those_of_the_matter(phantoms):
    """X-ray densities: Sr TiO₃ 5.12, Co₃O₄ 6.05, Pt 21.4, CuPc 1.64 g/cm³."""
    a = 3.905
    assert density(phantoms["strontium_titanate"], (4 * a, 4 * a, 4 * a)) == pytest.approx(
        5.12, rel=0.01
    )
    assert density(phantoms["cobalt_oxide_cube"], (8.0835 * 4,) * 3) == pytest.approx(
        6.05, rel=0.01
    )
    assert density(phantoms["platinum_in_alumina"], (3.9242 * 4,) * 3) == pytest.approx(
        21.4, rel=0.01
    )
    assert density(phantoms["copper_phthalocyanine"], (40, 40, 30)) == pytest.approx(1.64, rel=0.04)


def test_slab_begins_with_strontium_and_has_whole_cells():
    slab = strontium_titanate(width=3 * 3.905, thickness=5 * 3.905)
    assert slab.symbols.formula.count() == {"Sr": 45, "Ti": 45, "O": 135}
    first = slab[slab.positions[:, 2] < slab.positions[:, 2].min() + 0.1]
    assert set(first.symbols) == {"Sr", "O"}
    tilted = strontium_titanate(width=40.0, thickness=80.0, zone_axis=(1, 1, 0))
    assert set(middle_bonds(tilted, "Ti", "O", 2.0)) == {6}
    assert set(middle_bonds(tilted, "Sr", "O", 2.8)) == {12}
    strontium = tilted[tilted.symbols == "Sr"].positions
    columns = np.unique(strontium[:, :2].round(3), axis=0)
    assert len(strontium) / len(columns) == pytest.approx(80 / (3.905 * np.sqrt(2)), abs=1)


def test_bilayer_is_twisted_and_misses_three_selenium():
    whole, atoms = twisted_bilayer(vacancies=0), twisted_bilayer()
    missing = whole[nearest(whole, atoms) > 0.1]
    assert list(missing.symbols) == ["Se"] * 3
    np.testing.assert_allclose(missing.positions[:, 2], whole.positions[:, 2].min(), atol=1e-9)
    assert np.all(np.abs(missing.positions[:, :2]) < 40 / 6)
    tungsten, molybdenum = (whole[whole.symbols == s].positions for s in ("W", "Mo"))
    assert molybdenum[0, 2] - tungsten[0, 2] == pytest.approx(6.6)
    for metal, a, twist in ((tungsten, 3.282, 0.0), (molybdenum, 3.160, 8.0)):
        middle = metal[np.linalg.norm(metal[:, :2], axis=1).argmin()]
        offset = (metal - middle)[:, :2]
        ring = offset[np.abs(np.linalg.norm(offset, axis=1) - a) < 0.01]
        assert len(ring) == 6
        angle = np.degrees(np.arctan2(ring[:, 1], ring[:, 0])) % 60
        np.testing.assert_allclose((angle - twist + 30) % 60, 30, atol=1e-6)


def test_platinum_is_fcc_inside_alumina():
    atoms = platinum_in_alumina()
    count, length = bonds(atoms, "Pt", "Pt", 3.0)
    assert count.max() == 12
    np.testing.assert_allclose(length, 3.9242 / np.sqrt(2), rtol=1e-6)
    metal = atoms[atoms.symbols == "Pt"]
    np.testing.assert_array_less(np.abs(metal.positions), 10.01)
    shell = atoms[~(atoms.symbols == "Pt")]
    assert nearest(shell, metal).min() >= 2.1
    assert density(shell, (32, 32, 5), (0, 0, -13.5)) == pytest.approx(3.175, rel=0.06)


def test_tellurium_is_made_of_chains_beside_the_tube():
    atoms = tellurium_on_nanotube()
    tellurium, carbon = (atoms[atoms.symbols == s] for s in ("Te", "C"))
    assert set(middle_bonds(tellurium, "Te", "Te", 3.0, 30.0)) == {2}
    _, length = bonds(tellurium, "Te", "Te", 3.0)
    np.testing.assert_allclose(length, 2.835, atol=0.002)  # Cherin & Unger 1967
    assert 3.0 <= nearest(tellurium, carbon).min() < 4.0
    assert density(centre_atoms(tellurium), (36.0, 36.0, 36.0)) == pytest.approx(6.24, rel=0.06)
    axis = carbon.positions[:, 0].min() + 20.34
    radii = np.hypot(carbon.positions[:, 0] - axis, carbon.positions[:, 2])
    walls = 3 * 1.42 * np.array([20, 25, 30]) / (2 * np.pi)
    assert np.abs(radii[:, None] - walls).min(1).max() < 0.05
    np.testing.assert_allclose(
        np.bincount(np.abs(radii[:, None] - walls).argmin(1)), len(carbon) * walls / walls.sum()
    )
    assert np.mean(bonds(carbon, "C", "C", 1.6)[0] == 3) > 0.97


def test_spinel_has_its_two_kinds_of_cobalt():
    atoms = cobalt_oxide_cube(edge=50.0)
    count, length = bonds(cut_box(atoms, (50.0, 50.0, 50.0)), "Co", "O", 2.1)
    assert set(count) >= {4, 6}
    np.testing.assert_allclose(np.unique(length.round(3)), [1.921, 1.934], atol=0.002)
    corner = np.abs(atoms.positions).sum(1).max() / np.sqrt(3)
    assert corner == pytest.approx(0.78 * 50, abs=1.5)


@pytest.mark.parametrize("chains", [1, 2, 3, 4])
def test_zirconium_stands_in_prisms_of_tellurium(chains):
    atoms = zirconium_telluride_in_nanotube(chains=chains)
    count, length = bonds(atoms, "Zr", "Te", 3.2)
    assert set(count) == {6}
    np.testing.assert_allclose(length, 2.95, atol=0.12)
    assert bonds(atoms, "Te", "Te", 2.7)[0].max() == 0
    assert nearest(atoms[atoms.symbols == "C"], atoms[~(atoms.symbols == "C")]).min() > 3.3


@pytest.mark.parametrize("sign", [1, -1])
def test_a_positive_pitch_is_right_handed(sign):
    helix = gadolinium_oxide_helix(pitch=sign * 40.0, wire=5.0)
    assert turn_per_length(helix.positions) == pytest.approx(sign * 2 * np.pi / 40, rel=0.02)
    chain = zirconium_telluride_in_nanotube(chains=1, pitch=sign * 200.0)
    tellurium = chain[chain.symbols == "Te"].positions
    tellurium = tellurium[: len(tellurium) // 3]  # the first of three columns
    assert turn_per_length(tellurium) == pytest.approx(sign * 2 * np.pi / 200, rel=1e-3)
    for theta in (30.0, 90.0):  # turning keeps the hand
        volume = np.linalg.det(rotation(theta, 10.0, 20.0))
        assert volume == pytest.approx(1)


def test_helix_has_its_size_and_matter():
    atoms = gadolinium_oxide_helix(radius=25.0, wire=6.0, pitch=50.0, turns=2.0)
    away = np.hypot(atoms.positions[:, 0], atoms.positions[:, 2])
    assert 18.4 < away.min() < 20
    assert 30 < away.max() < 31.6
    length = 2 * np.hypot(2 * np.pi * 25, 50)
    volume = np.pi * 6**2 * length + 4 / 3 * np.pi * 6**3
    mass = atoms.get_masses().sum() / (1e-3 * units.kg / (1e-2 * units.m) ** 3)
    assert mass / volume == pytest.approx(7.62, rel=0.03)


@pytest.mark.parametrize("grams", [1.8, 2.0, 2.2])
def test_carbon_has_its_density_and_no_short_pair(grams):
    atoms = amorphous_carbon(width=40.0, thickness=20.0, grams_per_cm3=grams)
    assert density(atoms, (40.01, 40.01, 20.01)) == pytest.approx(grams, rel=2e-3)
    for x in (-10, 10):
        assert density(atoms, (20, 40, 20), (x, 0, 0)) == pytest.approx(grams, rel=0.05)
    require_apart(atoms, 1.35)
    nearest_one = KDTree(atoms.positions).query(atoms.positions, k=2)[0][:, 1]
    assert nearest_one.mean() < 1.6


def test_carbon_too_dense_says_so():
    with pytest.raises(ValueError, match="do not fit a box of 6 × 6 × 6 Å; lower the density"):
        amorphous_carbon(width=6.0, thickness=6.0, grams_per_cm3=25.0)


def test_phthalocyanine_is_bonded_as_it_should():
    molecule = copper_phthalocyanine_molecule()
    assert molecule.get_chemical_formula() == "C32H16CuN8"
    distances = molecule.get_all_distances()
    bonded = (distances > 0) & (distances < 1.6) | (distances > 1.9) & (distances < 1.95)
    neighbours = {s: sorted(bonded.sum(1)[molecule.symbols == s]) for s in "HCN"}
    assert neighbours == {"H": [1] * 16, "C": [3] * 32, "N": [2] * 4 + [3] * 4}
    assert bonded[0].sum() == 4
    # Cu–N, N–C, C–N bridge, C–C and C–H of Brown (1968), each to 0.05 Å
    known = {
        "CuN": (1.935,),
        "CN": (1.328, 1.366),
        "CC": (1.388, 1.393, 1.400, 1.453),
        "CH": (1.08,),
    }
    for i, j in np.argwhere(np.triu(bonded)):
        pair = "".join(sorted([molecule.symbols[i], molecule.symbols[j]])).replace("NCu", "CuN")
        assert min(abs(distances[i, j] - d) for d in known[pair]) < 0.05
    for turn in (rotation(0.0, about_z_deg=90.0), np.diag([1, -1, 1])):  # D₄h
        assert nearest(Atoms("C57", positions=molecule.positions @ turn), molecule).max() < 1e-9
    np.testing.assert_array_equal(molecule.positions[:, 2], 0)


def test_phthalocyanine_crystal_holds_whole_molecules_in_columns():
    one = copper_phthalocyanine_molecule()
    for zone_axis in ((0, 1, 0), (0, 0, 1)):
        film = copper_phthalocyanine(width=26.0, thickness=20.0, zone_axis=zone_axis)
        count = np.sum(film.symbols == "Cu")
        assert len(film) == 57 * count
        molecules = film.positions.reshape(count, 57, 3)
        inside = np.linalg.norm(molecules[1][:, None] - molecules[1], axis=-1)
        np.testing.assert_allclose(inside, one.get_all_distances(), atol=1e-6)
        pairs = KDTree(film.positions).query_pairs(2.5, output_type="ndarray")
        pairs = pairs[pairs[:, 0] // 57 != pairs[:, 1] // 57]
        assert np.linalg.norm(
            np.diff(film.positions[pairs], axis=1), axis=-1
        ).min() == pytest.approx(2.05, abs=0.05)
    apart = molecules[:, 0] - molecules[5, 0]
    step = apart[np.argsort(np.linalg.norm(apart, axis=1))[1]]  # to the next one in the column
    assert np.linalg.norm(step) == pytest.approx(3.769)
    normal = np.cross(*(molecules[5, [3, 20]] - molecules[5, 0]))
    assert abs(step @ normal) / np.linalg.norm(normal) == pytest.approx(3.40, abs=1e-6)


def test_tile_repeats_a_cell_along_any_zone():
    iron = bulk("Fe", cubic=True)  # 2.87 Å
    assert len(tile(iron, 4 * 2.87, 6 * 2.87)) == 4 * 4 * 6 * 2
    for zone_axis in ((1, 1, 0), (1, 1, 1), (1, 2, 3)):
        film = tile(iron, 50.0, 50.0, zone_axis)
        assert set(middle_bonds(film, "Fe", "Fe", 2.6)) == {8}
        require_apart(film, 2.87 * np.sqrt(3) / 2 - 1e-6)
        direction = np.array(zone_axis) * 2.87  # the period along the beam
        middle = film[np.linalg.norm(film.positions, axis=1).argmin()].position
        shifted = Atoms("Fe", positions=[middle + np.array([0, 0, np.linalg.norm(direction)])])
        assert nearest(shifted, film)[0] < 1e-6
    quartz = crystal(
        ["Si", "O"],
        [(0.47, 0, 2 / 3), (0.41, 0.27, 0.79)],
        spacegroup=154,
        cellpar=[4.91, 4.91, 5.4, 90, 90, 120],
    )
    assert density(tile(quartz, 60.0, 60.0, (1, 0, 1)), (50, 50, 50)) == pytest.approx(
        2.65, rel=0.02
    )


def test_facets_bound_a_crystal():
    cell = crystal("Au", [(0, 0, 0)], spacegroup=225, cellpar=[4.08] * 3 + [90] * 3)
    octahedron = facetted(cell, {(1, 1, 1): 2 * 4.08 / np.sqrt(3)})
    assert len(octahedron) == 85  # n(2n² + 1)/3 with n = 5
    turned = facetted(cell, {(1, 1, 1): 2 * 4.08 / np.sqrt(3)}, rotation(37.0))
    assert nearest(rotate_atoms(octahedron, 37.0), turned).max() < 1e-9


def test_a_view_sees_what_the_convention_says():
    theta = np.radians(30.0)
    (x, y, z), view = (1.0, 2.0, 3.0), rotate_atoms(Atoms("C", positions=[(1.0, 2.0, 3.0)]), 30.0)
    expected = [x * np.cos(theta) + z * np.sin(theta), y, -x * np.sin(theta) + z * np.cos(theta)]
    np.testing.assert_allclose(view.positions[0], expected, atol=1e-14)
    np.testing.assert_allclose(rotation(0.0, about_x_deg=90.0) @ [0, 1, 0], [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(rotation(0.0, about_z_deg=90.0) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(
        rotation(20.0, 3.0, 4.0), rotation(0.0, 0.0, 4.0) @ rotation(0.0, 3.0) @ rotation(20.0)
    )


def test_displacements_have_their_width():
    atoms = Atoms("Si2000O2000", positions=np.zeros((4000, 3)))
    moved = displaced(atoms, {"Si": 0.1, "O": 0.05}, np.random.default_rng(0)).positions
    np.testing.assert_allclose(moved[:2000].std(0), 0.1, rtol=0.05)
    np.testing.assert_allclose(moved[2000:].std(0), 0.05, rtol=0.05)
    assert np.abs(np.corrcoef(moved.T) - np.eye(3)).max() < 0.06
    same = displaced(atoms, 0.0, np.random.default_rng(0)).positions
    np.testing.assert_array_equal(same, atoms.positions)
    with pytest.raises(ValueError, match="no displacement is given for Si"):
        displaced(atoms, {"O": 0.05}, np.random.default_rng(0))


def test_parts_are_merged_and_clashes_left_out():
    first = Atoms("Au2", positions=[(0, 0, 0), (5, 0, 0)])
    second = Atoms("OHe", positions=[(0, 0, 1), (0, 0, 4)])
    assert merge(first, second, apart=2.0).get_chemical_symbols() == ["Au", "Au", "He"]
    assert merge(first, second).get_chemical_symbols() == ["Au", "Au", "O", "He"]


def test_a_particle_stands_before_its_support():
    particle = Atoms("Au2", positions=[(3, 4, -2), (5, 4, 2)])
    support = Atoms("C4", positions=[(0, 0, 0), (8, 0, 0), (0, 8, 0), (8, 8, 6)])
    both = on_support(particle, support, gap=2.5).positions
    np.testing.assert_array_equal(both[:2], particle.positions)
    np.testing.assert_allclose(both[2:].min(0), [0, 0, 4.5])
    np.testing.assert_allclose(both[2:].max(0), [8, 8, 10.5])


def test_boxes_side_by_side_share_no_atom():
    atoms = centre_atoms(tile(bulk("Fe", cubic=True), 2 * 2.87, 2 * 2.87))
    halves = [cut_box(atoms, (10.0, 10.0, 10.0), (x, 0.0, 0.0)) for x in (-5.0, 5.0)]
    assert sum(map(len, halves)) == len(atoms)
    assert all(map(len, halves))


def test_vacancies_are_counted():
    atoms = Atoms("Se4W", positions=np.arange(15).reshape(5, 3))
    left = remove_atoms(atoms, "Se", 2, np.random.default_rng(0), atoms.positions[:, 0] < 7)
    assert left.get_chemical_formula() == "Se2W"
    assert 9.0 in left.positions[:, 0]
    with pytest.raises(
        ValueError, match="5 vacancies were asked for where 4 sites of Se can be empty"
    ):
        remove_atoms(atoms, "Se", 5, np.random.default_rng(0))


def test_overlapping_atoms_are_named():
    atoms = Atoms("SrOTi", positions=[(0, 0, 0), (3, 0, 0), (3, 0, 0.2)])
    with pytest.raises(
        ValueError, match=r"1 pairs of atoms are not 0.5 Å apart \(first: O 1 and Ti 2, 0.200 Å\)"
    ):
        require_apart(atoms)
    require_apart(atoms, 0.1)
    require_apart(atoms[:1])


def test_senseless_sizes_say_so():
    with pytest.raises(ValueError, match="thickness is -3; it must be above zero"):
        strontium_titanate(thickness=-3.0)
    with pytest.raises(ValueError, match="core of 40 Å does not fit a cube of 32 Å"):
        platinum_in_alumina(core=40.0)
    with pytest.raises(ValueError, match="zone axis"):
        tile(bulk("Fe", cubic=True), 10.0, 10.0, (0, 0, 0))
    with pytest.raises(ValueError, match="the cell has 0 lattice vectors"):
        tile(Atoms("C"), 10.0, 10.0)
