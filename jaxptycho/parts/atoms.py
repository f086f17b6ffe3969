"""A specimen made of atoms: positions, vibrations and occupancies refined from patterns."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..physics import potentials, scattering, volumes
from ..physics.grids import Grid
from ..physics.mean_potential import atoms_potential
from ..physics.types import Numbers, Pair, PyTree, Scalar, Stack
from .indexed import PerShot, PerView, Varying, add, as_array, axis_size, first_shot
from .slices import AtomTable, Of, Sliced, Thickness, Voxels, as_sliced, exponential
from .specimen import AbstractSpecimen
from .stacks import PotentialSlices
from .volume import Volume

OUTER_FACE = (
    1e4  # Å, outer limit of the first and the last slice, which include what reaches beyond
)


class Atoms(AbstractSpecimen):
    """Independent atoms, their potential projected into slices of equal thickness.

    Heights count from the entrance face, y and x in the frame of the scan's positions. The array
    has `shape` pixels from `origin` on and is periodic: what reaches over an edge reenters at the
    opposite one. Each view rotates the atoms by `tilt` about y, then by `angles` about x and z,
    around the point x = y = 0 at the height `axis`, by default in the middle of the slices; then
    it moves them by `shift`. The first and the last slice include what is rotated beyond them.
    Kirkland 2010, §5.3; coefficients of Lobato & Van Dyck 2014 or Kirkland 2010.
    """

    positions: Varying[Float[Array, "atom 3"]]  # Å (z, y, x)
    debye_waller: Varying[Float[Array, " atom"]]  # Å², B = 8π²⟨u²⟩
    occupancy: Varying[Float[Array, " atom"]]
    thickness: Varying[Scalar]  # Å, of one slice
    origin: Varying[Pair]  # Å
    tilt: Varying[Scalar]  # rad
    angles: Varying[Pair] | None  # rad, about x and z
    shift: Varying[Pair]  # Å (y, x)
    axis: Varying[Scalar] | None  # Å below the entrance face
    numbers: tuple[int, ...] = eqx.field(static=True)
    n_slices: int = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    parametrisation: str = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    fixed_by_default: ClassVar = (
        "debye_waller",
        "occupancy",
        "thickness",
        "origin",
        "tilt",
        "angles",
        "shift",
        "axis",
    )

    def __init__(
        self,
        numbers: Numbers,
        positions: Any,
        shape: Sequence[int],
        thickness: Any,
        n_slices: int | np.integer = 1,
        origin: Any = (0.0, 0.0),
        debye_waller: Any = 0.0,
        occupancy: Any = 1.0,
        parametrisation: str = "lobato",
        periodic: bool = False,
        tilt: Varying[Scalar] = 0.0,
        angles: Any = None,
        shift: Any = (0.0, 0.0),
        axis: Any = None,
    ) -> None:
        """Atoms of atomic `numbers`; ValueError for an element without scattering factors."""
        scattering.require_known(numbers)
        self.numbers = tuple(int(z) for z in np.ravel(numbers))
        self.positions = positions
        n = len(self.numbers)
        self.debye_waller, self.occupancy = (_each(value, n) for value in (debye_waller, occupancy))
        self.thickness = thickness
        self.n_slices = int(n_slices)
        self.shape = (int(shape[0]), int(shape[1]))
        self.origin = as_array(origin)
        self.shift = as_array(shift)
        self.tilt = as_array(tilt)
        self.angles, self.axis = (
            None if value is None else as_array(value) for value in (angles, axis)
        )
        self.parametrisation = parametrisation
        self.periodic = periodic
        if self.n_slices < 1 or (np.ndim(thickness) == 0 and not _positive(thickness)):
            raise ValueError(
                f"{n_slices} slices of {thickness} Å; give at least one, thicker than 0 Å"
            )
        if any(isinstance(value, PerShot) for value in (tilt, angles, shift, axis)):
            raise ValueError(
                "atoms are rotated once for all shots of a view; give tilt, angles, shift and "
                "axis PerView"
            )

    @property
    def height(self) -> Scalar:
        """Depth [Å] of the rotation centre below the entrance face: `axis`, or mid-thickness."""
        return self.n_slices * self.thickness / 2 if self.axis is None else self.axis

    @property
    def above(self) -> Scalar:
        """Distance [Å] from the middle of the first slice to the tilt axis, as for a `Volume`."""
        return self.height - self.thickness / 2

    def slices(self, grid: Grid) -> Sliced:
        return as_sliced(exponential(grid.sigma * self.projected(grid.pixel), None), self, grid)

    def projected(self, pixel: tuple[float, float]) -> Stack:
        """Projected potential [V·Å] of every slice in one view, on pixels (y, x) [Å]."""
        atoms = scattering.gaussians(np.array(self.numbers), self.parametrisation)
        weighted = atoms._replace(amplitude=jnp.asarray(atoms.amplitude) * self.occupancy[:, None])
        edges = jnp.arange(self.n_slices + 1) * self.thickness
        edges = edges.at[0].set(-OUTER_FACE).at[-1].set(OUTER_FACE)
        faces = jnp.stack([edges[:-1], edges[1:]], 1)
        inside = self.turned() - _in_space(0.0, self.origin)
        return potentials.slabs(inside, self.debye_waller, weighted, faces, self.shape, pixel)

    def turned(self) -> Float[Array, "atom 3"]:
        """Positions of the atoms in the beam of one view (z, y, x) [Å]."""
        about_x, about_z = (0.0, 0.0) if self.angles is None else self.angles
        matrix = volumes.rotation_matrix((self.tilt, about_x, about_z)).astype(self.positions.dtype)
        axis = _in_space(self.height, jnp.zeros(2))
        places = jnp.matmul(self.positions - axis, matrix.T, precision="highest")
        return places + axis + _in_space(0.0, self.shift)

    def scale(self, grid: Grid) -> dict[str, Any]:
        pixel = min(grid.pixel)
        edge = max(n * p for n, p in zip(self.shape, grid.pixel, strict=True)) / 2
        turn = math.atan(pixel / edge)
        return {
            "positions": pixel,
            "debye_waller": 0.1,
            "tilt": turn,
            "angles": turn,
            "shift": pixel,
            "axis": pixel,
        }

    def slices_origin(self, grid: Grid) -> Varying[Pair]:
        return self.origin

    def shared_thickness(self, grid: Grid) -> Thickness:
        return jnp.asarray(self.thickness)

    @property
    def position(self) -> Varying[Pair]:
        return self.shift

    def move(self, by: PyTree) -> "Atoms":
        return eqx.tree_at(lambda s: s.shift, self, add(self.shift, by))

    @property
    def rotates(self) -> bool:
        return axis_size(self, PerView) > 1

    def nonnegative(self) -> "Atoms":
        """Occupancies and Debye–Waller factors at least zero."""

        def clipped(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda values: jnp.maximum(values, 0), tree)

        return eqx.tree_at(lambda s: (s.occupancy, s.debye_waller), self, replace_fn=clipped)

    def with_slices(self, grid: Grid, slices: int) -> "Atoms":
        """The atoms between the same faces, cut into `slices` slices."""
        return replace(self, n_slices=slices, thickness=self.n_slices * self.thickness / slices)

    def in_slices(self, grid: Grid) -> PotentialSlices:
        """Potential [V] of the atoms in the slices of the first view."""
        atoms = first_shot(self)
        potential = atoms.projected(grid.pixel) / atoms.thickness
        return PotentialSlices(potential, None, atoms.thickness, atoms.origin, atoms.periodic)

    def in_voxels(self, grid: Grid, like: AbstractSpecimen | None = None) -> Volume:
        """Potential [V] of the atoms about the tilt axis, on the voxels of `like`.

        By default on the pixels and over the extent of the slices, as deep as a pixel is high.
        """
        atoms = first_shot(self)
        voxel: Any
        shape: Any
        if like is not None and like.held:
            voxel = like.voxel_size(grid)
            shape = like.stack().shape
        else:
            voxel = min(grid.pixel), *grid.pixel
            depth = math.ceil(atoms.n_slices * float(atoms.thickness) / voxel[0])
            shape = (depth, *atoms.shape)
        positions = np.asarray(atoms.positions, float) - [float(atoms.height), 0.0, 0.0]
        vibration = np.asarray(atoms.debye_waller, float)
        occupancy = np.asarray(atoms.occupancy, float)
        numbers = np.array(atoms.numbers)
        known = atoms.parametrisation
        volts = atoms_potential(numbers, positions, vibration, shape, voxel, known, occupancy)
        poses: dict[str, Any] = {"tilt": self.tilt, "angles": self.angles, "shift": self.shift}
        return Volume(jnp.asarray(volts), voxel, taper=min(voxel), **poses)

    def voxels(self, grid: Grid, of: Of = "phase") -> Voxels:
        raise ValueError(
            "the specimen is made of atoms, not of voxels; export it as a structure (.xyz or .cif)"
        )

    def listed_atoms(self) -> AtomTable:
        columns = {
            "positions": self.positions,
            "debye_waller": self.debye_waller,
            "occupancy": self.occupancy,
        }
        for name, value in columns.items():
            if not eqx.is_array_like(value):
                raise ValueError(
                    f"the atoms' {name} differ from view to view or shot to shot; export one at a "
                    "time"
                )
        arrays = {name: np.asarray(value, float) for name, value in columns.items()}
        depth: Any = self.axis
        axis = None if depth is None else float(depth)
        return AtomTable(self.numbers, **arrays, axis=axis)


def _in_space(z: Scalar, yx: Pair) -> Float[Array, "3"]:
    return jnp.stack([jnp.asarray(z), jnp.asarray(yx)[0], jnp.asarray(yx)[1]])


def _each(value: Any, n: int) -> Any:
    """One number for every atom, from a number shared by all."""
    return jnp.full(n, float(value)) if isinstance(value, (int, float)) else value


def _positive(thickness: Any) -> bool:
    return not isinstance(thickness, (int, float)) or thickness > 0
