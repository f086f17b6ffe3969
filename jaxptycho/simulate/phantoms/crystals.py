"""Crystals: a slab, a bilayer, a cube."""

import numpy as np
from ase import Atoms
from ase.build import mx2
from ase.spacegroup import crystal

from .arrange import at, centre_atoms, merge, remove_atoms, require_positive, rotate_atoms
from .cutting import Zone, facetted, tile


def strontium_titanate(
    width: float = 39.05, thickness: float = 195.25, zone_axis: Zone = (0, 0, 1)
) -> Atoms:
    """A slab of SrTiO₃, `width`² × `thickness` [Å]; along [001] it begins with SrO and ends with
    TiO₂.

    Pm-3m, a = 3.905 Å (Okazaki & Kawaminami, Mater. Res. Bull. 8, 545 (1973)).
    """
    basis = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    cell = crystal(["Sr", "Ti", "O"], basis, spacegroup=221, cellpar=[3.905] * 3 + [90] * 3)
    return tile(cell, width, thickness, zone_axis)


def twisted_bilayer(
    width: float = 40.0,
    twist_deg: float = 8.0,
    spacing: float = 6.6,
    vacancies: int = 3,
    seed: int = 0,
) -> Atoms:
    """WSe₂ layer on the entrance side and MoS₂ `spacing` behind it, metal to metal, `width`² [Å].

    MoS₂ is rotated by `twist_deg` from x towards y. The vacancies are random sites of the outer Se
    plane in the middle ninth of the area; `vacancies=0` gives the complete layer. WSe₂ a = 3.282,
    Se–Se 3.34 Å (Schutte, De Boer & Jellinek, J. Solid State Chem. 70, 207 (1987)); MoS₂ a = 3.160,
    S–S 3.17 Å (Bronsema, De Boer & Jellinek, Z. anorg. allg. Chem. 540, 15 (1986)).
    """
    require_positive(width=width, spacing=spacing)
    front = _sheet(mx2("WSe2", "2H", a=3.282, thickness=3.34), width, 0.0)
    back = _sheet(mx2("MoS2", "2H", a=3.160, thickness=3.17), width, twist_deg)
    apart = np.array([0, 0, spacing])
    both = merge(front, at(back, back.positions + apart))
    middle = (both.positions[:, 2].min() + both.positions[:, 2].max()) / 2
    both = at(both, both.positions - np.array([0, 0, middle]))
    x, y, z = both.positions.T
    where = (z < z.min() + 0.1) & (np.abs(x) < width / 6) & (np.abs(y) < width / 6)
    return remove_atoms(both, "Se", vacancies, np.random.default_rng(seed), where)


def cobalt_oxide_cube(edge: float = 129.336) -> Atoms:
    """A nanocube of spinel Co₃O₄, `edge` [Å] between its {100} faces, the corners cut by {111};
    [001] along the beam.

    Fd-3m, a = 8.0835 Å, u = 0.2631 (Knop, Reid, Sutarno & Nakagawa, Can. J. Chem. 46, 3463 (1968);
    Smith & Hobson, Acta Cryst. B29, 362 (1973)).
    """
    require_positive(edge=edge)
    basis = [(1 / 8, 1 / 8, 1 / 8), (1 / 2, 1 / 2, 1 / 2), (0.2631, 0.2631, 0.2631)]
    cell = crystal(
        ["Co", "Co", "O"], basis, spacegroup=227, setting=2, cellpar=[8.0835] * 3 + [90] * 3
    )
    return facetted(cell, {(1, 0, 0): edge / 2, (1, 1, 1): 0.78 * edge})


def _sheet(layer: Atoms, width: float, turn_deg: float) -> Atoms:
    """Square of the layer, rotated about the beam."""
    # a third lattice vector, so that one layer falls into one thickness
    layer.center(vacuum=10.0, axis=2)
    height = layer.cell.array[2, 2]
    wide = centre_atoms(tile(layer, 1.5 * width, height))
    turned = rotate_atoms(wide, 0.0, about_z_deg=turn_deg)
    return turned[np.all(np.abs(turned.positions[:, :2]) < width / 2, axis=1)]
