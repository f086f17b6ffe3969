"""Assembly, rotation, displacement and checks of atoms.

ASE's axes (x, y, z) in Å with z along the beam, the entrance face at the smallest z, and the tilt
axis y.
"""

from collections.abc import Mapping
from functools import reduce

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation


def rotation(
    tilt_deg: float, about_x_deg: float = 0.0, about_z_deg: float = 0.0
) -> Float[np.ndarray, "3 3"]:
    """Matrix R of a view, r′ = R r: the tilt about y, then about x, then about z (the beam).

    Each angle is right-handed about its fixed axis, so that the tilt θ alone gives
    x′ = x cos θ + z sin θ, z′ = −x sin θ + z cos θ.
    """
    return Rotation.from_euler(
        "yxz", [tilt_deg, about_x_deg, about_z_deg], degrees=True
    ).as_matrix()


def rotate_atoms(
    atoms: Atoms, tilt_deg: float, about_x_deg: float = 0.0, about_z_deg: float = 0.0
) -> Atoms:
    """Atoms [Å] in the frame of a view, rotated about the origin by `rotation`."""
    return at(atoms, atoms.positions @ rotation(tilt_deg, about_x_deg, about_z_deg).T)


def displaced(
    atoms: Atoms, rms_angstrom: float | Mapping[str, float], rng: np.random.Generator
) -> Atoms:
    """Frozen phonon configuration [Å]: every coordinate shifted by a Gaussian of this width.

    `rms_angstrom` is √⟨u_x²⟩ along one axis, so that B = 8π² rms² (Einstein model; Kirkland,
    *Advanced Computing in Electron Microscopy*, ch. 6); one number, or one for each element.
    """
    rms = rms_of_atoms(atoms, rms_angstrom)[:, None]
    return at(atoms, atoms.positions + rms * rng.standard_normal(atoms.positions.shape))


def rms_of_atoms(
    atoms: Atoms, rms_angstrom: float | Mapping[str, float]
) -> Float[np.ndarray, " _"]:
    """√⟨u_x²⟩ [Å] of every atom, from one number or one for each element."""
    if not isinstance(rms_angstrom, Mapping):
        return np.full(len(atoms), float(rms_angstrom))
    missing = sorted(set(atoms.symbols) - set(rms_angstrom))
    if missing:
        raise ValueError(
            f"no displacement is given for {', '.join(missing)}; name every element of the specimen"
        )
    return np.array([rms_angstrom[symbol] for symbol in atoms.symbols])


def merge(*parts: Atoms, apart: float = 0.0) -> Atoms:
    """The parts [Å] as one finite object; an atom closer than `apart` to one of an earlier part is
    left out.
    """

    def join(first: Atoms, second: Atoms) -> Atoms:
        kept = second[nearest(second, first) >= apart]
        return Atoms(
            numbers=np.concatenate([first.numbers, kept.numbers]),
            positions=np.concatenate([first.positions, kept.positions]),
        )

    return reduce(join, parts, Atoms())


def on_support(particle: Atoms, support: Atoms, gap: float = 3.0) -> Atoms:
    """Particle at its position, and the support `gap` [Å] behind it along the beam.

    The origin of the particle stays on the tilt axis; the support is centred on the particle.
    """
    low, high = particle.positions.min(0), particle.positions.max(0)
    film = centre_atoms(support)
    height = high[2] + gap - film.positions[:, 2].min()
    middle = (low + high) / 2
    return merge(particle, at(film, film.positions + np.array([middle[0], middle[1], height])))


def remove_atoms(
    atoms: Atoms,
    symbol: str,
    count: int,
    rng: np.random.Generator,
    where: Bool[np.ndarray, " _"] | None = None,
) -> Atoms:
    """The atoms [Å] with `count` random vacancies on sites of `symbol`, among those that `where`
    allows.
    """
    sites = np.flatnonzero((atoms.symbols == symbol) & (True if where is None else where))
    if not 0 <= count <= len(sites):
        raise ValueError(
            f"{count} vacancies were asked for where {len(sites)} sites of {symbol} can be empty"
        )
    return atoms[np.delete(np.arange(len(atoms)), rng.choice(sites, count, replace=False))]


def cut_box(
    atoms: Atoms,
    size: tuple[float, float, float],
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Atoms:
    """Atoms inside a box of `size` (x, y, z) [Å].

    Its far faces are open, so that adjacent boxes share no atoms.
    """
    offset = atoms.positions - centre + np.divide(size, 2)
    return atoms[np.all((offset >= 0) & (offset < size), axis=1)]


def centre_atoms(atoms: Atoms) -> Atoms:
    """The atoms [Å] with the middle of their bounding box at the origin."""
    return at(atoms, atoms.positions - (atoms.positions.min(0) + atoms.positions.max(0)) / 2)


def at(atoms: Atoms, positions: Float[np.ndarray, "atoms 3"]) -> Atoms:
    """The same atoms elsewhere [Å]: a finite object without a cell."""
    return Atoms(numbers=atoms.numbers, positions=positions)


def nearest(atoms: Atoms, others: Atoms) -> Float[np.ndarray, " _"]:
    """Distance [Å] of each atom from the nearest of `others`; infinite without others."""
    if not len(atoms) or not len(others):
        return np.full(len(atoms), np.inf)
    return KDTree(others.positions).query(atoms.positions)[0]


def require_apart(atoms: Atoms, least: float = 0.5) -> None:
    """Raise a ValueError that names the atoms closer together than `least` [Å], if any."""
    if len(atoms) < 2:
        return
    pairs = KDTree(atoms.positions).query_pairs(least, output_type="ndarray")
    if len(pairs):
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        i, j = pairs[0]
        raise ValueError(
            f"{len(pairs)} pairs of atoms are not {least:g} Å apart (first: {atoms.symbols[i]} "
            f"{i} and {atoms.symbols[j]} {j}, "
            f"{np.linalg.norm(atoms.positions[i] - atoms.positions[j]):.3f} Å); remove one atom "
            "of each pair"
        )


def require_positive(**sizes: float | int) -> None:
    """Raise a ValueError that names the first size [Å] not above zero, if any."""
    for name, size in sizes.items():
        if not size > 0:
            raise ValueError(f"{name} is {size:g}; it must be above zero")
