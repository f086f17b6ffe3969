"""Phantoms built of atoms: finite, in ASE's axes (x, y, z) [Å], z along the beam.

The entrance face is at the smallest z.

`PHANTOMS` is the registry that jobs read: a name, and a function whose keywords all have a default.
Functions that cut, join and rotate atoms are in `cutting` and `arrange`.
"""

from collections.abc import Callable

from ase import Atoms

from .amorphous import amorphous_carbon
from .crystals import cobalt_oxide_cube, strontium_titanate, twisted_bilayer
from .molecules import copper_phthalocyanine
from .particles import (
    gadolinium_oxide_helix,
    platinum_in_alumina,
    tellurium_on_nanotube,
    zirconium_telluride_in_nanotube,
)

PHANTOMS: dict[str, Callable[..., Atoms]] = {
    phantom.__name__: phantom
    for phantom in (
        strontium_titanate,
        twisted_bilayer,
        platinum_in_alumina,
        tellurium_on_nanotube,
        cobalt_oxide_cube,
        zirconium_telluride_in_nanotube,
        gadolinium_oxide_helix,
        amorphous_carbon,
        copper_phthalocyanine,
    )
}
