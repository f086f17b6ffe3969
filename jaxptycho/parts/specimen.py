"""Specimens: their protocol, and a stack of free slices, the common form.

A new kind of specimen is a subclass of `AbstractSpecimen` with a method `slices`; every other
method that the package calls has a default here, which a kind may override.
"""

import abc
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..physics.grids import Grid
from ..physics.transmission import phase_and_absorption
from ..physics.types import Pair, PyTree, Scalar, Slices, Stack
from .indexed import PerShot, PerView, Varying, add, first_shot
from .slices import (
    PHASES,
    AtomTable,
    Lengths,
    Of,
    Slab,
    Sliced,
    Thickness,
    Voxels,
    as_sliced,
    as_voxels,
    exponent_change,
    exponent_step,
    exponential,
    overlap,
    require_depth,
    sliced_origin,
    sliced_thickness,
)

MAX_PHASE = 0.95 * math.pi  # rad, the phase beyond which a wrap by 2π cannot be excluded


class AbstractSpecimen(eqx.Module):
    """Any specimen. A kind of specimen needs only `slices`.

    A kind that holds arrays of slices or voxels names them in `held`; penalties, constraints,
    figures, exports and slabs then use these. Any other kind (atoms, blobs, a network) is
    shown and compared by `in_slices`. A method without a meaningful default raises ValueError
    in one sentence. Fields in `fixed_by_default` are optimised only where rates name them.
    """

    held: ClassVar[Mapping[Of, str]] = MappingProxyType({})  # fields of its arrays [z, y, x]
    vacuum: ClassVar[float] = 0.0  # value of these arrays
    pixelwise: ClassVar[tuple[str, ...]] = ()  # arrays by which each pixel's t is free
    labels: ClassVar[Mapping[Of, str]] = PHASES  # of these arrays, with their units
    phase_is_gauge: ClassVar[bool] = (
        False  # offset and ramp of a slice's phase do not affect patterns
    )

    @abc.abstractmethod
    def slices(self, grid: Grid) -> Sliced:
        """Transmission functions of all slices, with their thickness and position."""

    # geometry

    def shapes(self, grid: Grid) -> Sliced:
        """The slices of one view as shapes and dtypes, without values."""
        return eqx.filter_eval_shape(lambda one: one.slices(grid), first_shot(self))

    def slices_origin(self, grid: Grid) -> Varying[Pair]:
        """Position of pixel [0, 0] of the slices (y, x) [Å]."""
        return sliced_origin(self, grid)

    def shared_thickness(self, grid: Grid) -> Thickness:
        """Thickness [Å] that all shots share: one for all slices, or one each."""
        return sliced_thickness(first_shot(self), grid)

    def thicknesses(self, grid: Grid) -> Float[Array, " z"]:
        """Thickness [Å] of every slice."""
        count = self.stack().shape[0] if self.held else self.shapes(grid).transmission.shape[0]
        return jnp.broadcast_to(self.shared_thickness(grid), (count,))

    def spacing(self, grid: Grid) -> Float[Array, ""]:
        """The thickness [Å] that all slices of a thick specimen share."""
        require_depth(self.thicknesses(grid))
        thickness = jnp.asarray(self.shared_thickness(grid))
        if thickness.ndim:
            raise ValueError(
                f"got {thickness.size} thicknesses; a filter along z requires one for all slices"
            )
        return thickness

    def voxel_size(self, grid: Grid) -> Lengths:
        """Distance between slices and between their pixels (z, y, x) [Å]."""
        return (self.spacing(grid), *grid.pixel)

    @property
    def above(self) -> Scalar:
        """Distance [Å] from the plane where the first slice acts down to the tilt axis.

        Zero for a specimen that does not rotate: its first slice acts at the entrance face.
        """
        return 0.0

    # arrays, and their phase

    @property
    def absorbs(self) -> bool:
        """True if the specimen holds an absorption."""
        return "absorption" in self.held and self._held("absorption") is not None

    def stack(self, of: Of = "phase") -> Stack:
        """Phase [rad] or potential [V] of every slice, or the absorption, as stored."""
        values = self._held(of)
        if values is None:
            raise ValueError(
                "the specimen has no absorption; give it an array of zeros or use its phase only"
            )
        return values

    def map_stacks(
        self, function: Callable[[Stack], Stack], of: tuple[Of, ...] = ("phase", "absorption")
    ) -> "AbstractSpecimen":
        """The specimen with `function(stack)` in place of those stacks `of` that it holds.

        Dtypes are kept.
        """
        new = self
        for one in of:
            old = self._held(one)
            if old is not None:
                changed = function(old).astype(old.dtype)
                new = eqx.tree_at(lambda s, one=one: getattr(s, self.held[one]), new, changed)
        return new

    def radians(self, grid: Grid) -> Scalar | Float[Array, "z 1 1"]:
        """Phase [rad] per unit of the stacks: 1, or σΔz of every slice for a potential."""
        return 1.0

    def phase_per_slice(self, grid: Grid, of: Of = "phase") -> Stack:
        """Phase [rad] or absorption −ln|t| of every slice.

        The phase of a potential refers to slices of mean thickness.
        """
        if self.held:
            values = self.stack(of)
            return (values * jnp.mean(jnp.asarray(self.radians(grid)))).astype(values.dtype)
        if self.rotates:
            raise ValueError(
                f"the slices of this {type(self).__name__} differ from view to view; leave this "
                "penalty, constraint or figure out"
            )
        return self.in_slices(grid).phase_per_slice(grid, of)

    def absorption_at(self, amplitude: float) -> float:
        """Absorption at which |t| is `amplitude`."""
        return -math.log(amplitude) if amplitude else math.inf

    def clamp_amplitude(self, grid: Grid, lowest: float, highest: float) -> "AbstractSpecimen":
        """The specimen with |t| within [lowest, highest], by its absorption."""
        self.stack("absorption")  # raises for a specimen without one
        low, high = (self.absorption_at(t) / self.radians(grid) for t in (highest, lowest))
        return self.map_stacks(lambda absorption: jnp.clip(absorption, low, high), ("absorption",))

    def transmission_step(self, gradient: "AbstractSpecimen", step: Stack) -> dict[str, Array]:
        """Changes of the fields `pixelwise` that change t by −`step`·∂L/∂t*.

        `gradient` holds the direction of ascent of the loss L in these fields.
        """
        raise ValueError(
            f"a {type(self).__name__} holds no free transmission of its pixels; give it an "
            "optimiser of its parameters, such as adam"
        )

    def transmission_change(self, change: Slices) -> dict[str, Array]:
        """Changes of the fields `pixelwise` that change t by `change`, as closely as they can."""
        raise ValueError(
            f"a {type(self).__name__} holds no free transmission of its pixels; give it an "
            "optimiser of its parameters, such as adam"
        )

    def nonnegative(self) -> "AbstractSpecimen":
        """The specimen with its phase or potential at least zero."""
        return self.map_stacks(lambda values: jnp.maximum(values, 0), ("phase",))

    # position and rotation

    @property
    def position(self) -> Varying[Pair]:
        """Position of the specimen (y, x) [Å], as `move` changes it."""
        raise self._fixed_in_place()

    def move(self, by: PyTree) -> "AbstractSpecimen":
        """The specimen moved by `by` (y, x) [Å], shared, PerShot or PerView."""
        raise self._fixed_in_place()

    @property
    def rotates(self) -> bool:
        """True if the specimen is rotated about a tilt axis from view to view."""
        return False

    def require_fixed_beam(self) -> None:
        """Raise ValueError for a specimen that rotates, for which no missing cone is defined."""
        if self.rotates:
            raise ValueError(
                "a missing-cone filter is defined in one beam direction and does not apply to a "
                "rotating specimen; leave the missing cone out, or filter the gradients of each "
                "view by the precondition `measured`"
            )

    def stack_rotation(self) -> Float[Array, "3 3"] | None:
        """Rotation on (z, y, x) of the stacks into the beam of one view, None without any."""
        return None

    # other slices, voxels and atoms

    def with_slices(self, grid: Grid, slices: int) -> "AbstractSpecimen":
        """The specimen cut into `slices` equal slices; its projection is unchanged."""
        if self.shapes(grid).transmission.shape[0] != slices:
            raise ValueError(
                f"a {type(self).__name__} cannot be cut into {slices} slices; define its "
                "`with_slices`, or leave step.N.slices out"
            )
        return self

    def in_slices(self, grid: Grid) -> "AbstractSpecimen":
        """A specimen that holds the slices of the first view, or this one if it holds stacks.

        By default derived from the transmission functions, which determine the phase up to 2π;
        raises ValueError where the phase approaches ±π.
        """
        if self.held:
            return self
        sliced = first_shot(self).slices(grid)
        rows, columns = sliced.plane
        transmission = sliced.transmission[:, :rows, :columns]
        if isinstance(transmission, Tracer):
            raise ValueError(f"a {type(self).__name__} has no phase in slices; {_DEFINE}")
        phase, absorption = phase_and_absorption(transmission)
        if float(jnp.max(jnp.abs(phase))) > MAX_PHASE:
            raise ValueError(
                f"the phase of a slice of this {type(self).__name__} reaches ±π, beyond which its "
                f"transmission does not determine it; {_DEFINE}"
            )
        periodic = sliced.period is not None
        return SliceStack(phase, absorption, sliced.thickness, sliced.origin, periodic)

    def in_voxels(self, grid: Grid, like: "AbstractSpecimen | None" = None) -> "AbstractSpecimen":
        """A `Volume` about the tilt axis: this one, or one rendered on the voxels of `like`."""
        raise ValueError(
            f"a {type(self).__name__} of one view has no voxels about a tilt axis; compare two "
            "results of tilt series, or two of one view"
        )

    def voxels(self, grid: Grid, of: Of = "phase") -> Voxels:
        """Phase [rad] or potential [V], or the absorption, as voxels for other programs.

        Slices of thickness 0 have voxels as deep as the smaller side of a pixel, since no file
        holds voxels without a depth. Raises ValueError for slices of several thicknesses.
        """
        return as_voxels(self.in_slices(grid), grid, of)

    def listed_atoms(self) -> AtomTable | None:
        """Table of the atoms of the specimen, None for a specimen without atoms."""
        return None

    def summary(self) -> dict[str, str]:
        """Rows that the specimen adds to the table of a job, by name."""
        return {}

    # slabs of rows for several devices

    def slab_stacks(self) -> list[Any]:
        """The arrays [z, y, x], or their shapes, that slabs split along y.

        Raises ValueError for a specimen without such arrays.
        """
        if not self.held:
            raise ValueError(
                f"a specimen of type {type(self).__name__} cannot be split into slabs; use one "
                "that holds its slices or voxels, or one slab (run.slabs = 1)"
            )
        found = (getattr(self, name) for name in dict.fromkeys(self.held.values()))
        return [values for values in found if values is not None]

    def anchor_row(self, rows: int) -> int:
        """Index of the row that keeps its position when rows are added to `rows`: the first."""
        return 0

    def slab_slices(self, grid: Grid, slab: Slab) -> Sliced:
        """Slices of one slab; this specimen holds the rows of that slab."""
        return self.slices(grid)

    def slab_reach(self) -> int:
        """Number of rows that a slab requires from each neighbour in order to be rotated."""
        return 0

    def require_slab_angles(self) -> None:
        """Raise ValueError where a view is rotated beyond the reach of the halos of slabs."""

    def _fixed_in_place(self) -> ValueError:
        return ValueError(
            f"a {type(self).__name__} cannot be moved; define its `position` and `move`, or leave "
            "this constraint out"
        )

    def _held(self, of: Of) -> Stack | None:
        if not self.held:
            raise ValueError(
                f"{type(self).__name__} has no phase in slices; use a specimen that holds its "
                "slices or voxels, or leave this penalty or constraint out"
            )
        return getattr(self, self.held[of]) if of in self.held else None


_DEFINE = "define its `in_slices(grid)`, which returns them as a SliceStack"


class AbstractStack(AbstractSpecimen):
    """Slices stored as arrays [z, y, x].

    A kind has the fields `thickness`, `origin` and `periodic` of a `SliceStack`.
    """

    def slices_origin(self: Any, grid: Grid) -> Varying[Pair]:
        return self.origin

    def shared_thickness(self: Any, grid: Grid) -> Thickness:
        if isinstance(self.thickness, (PerShot, PerView)):
            raise ValueError(
                "the slices have another thickness in every view or shot; give one for all, or "
                "export one view or shot at a time"
            )
        return jnp.asarray(self.thickness)

    @property
    def position(self: Any) -> Varying[Pair]:
        return self.origin

    def move(self: Any, by: PyTree) -> Any:
        return eqx.tree_at(lambda s: s.origin, self, add(self.origin, by))

    def with_slices(self, grid: Grid, slices: int) -> "AbstractStack":
        thickness = np.asarray(self.thicknesses(grid), float)
        if len(thickness) == slices:
            return self
        if slices > 1 and not thickness.all():
            raise ValueError(
                f"a specimen of thickness 0 cannot be cut into {slices} slices; give its "
                "thickness in Å, in a job specimen.thickness_angstrom"
            )
        shares = self._shares(thickness, slices)
        new = self.map_stacks(
            lambda values: jnp.tensordot(jnp.asarray(shares, values.dtype), values, 1)
        )
        each = jnp.asarray(thickness.sum() / slices, float)
        return eqx.tree_at(lambda s: s.thickness, new, each)

    def _shares(self, thickness: np.ndarray, slices: int) -> Float[np.ndarray, "new old"]:
        """Weight of every old slice in every new one; phases are additive."""
        return overlap(thickness, slices)

    def slab_stacks(self: Any) -> list[Any]:
        if self.periodic:
            raise ValueError(
                "a periodic specimen cannot be split into slabs; give it a margin instead, or use "
                "one slab"
            )
        return super().slab_stacks()


class SliceStack(AbstractStack):
    """Free phase and absorption in every slice, t = e^{iφ−a}.

    One slice is a thin specimen; without absorption it is the strong phase approximation.
    A periodic specimen continues beyond its edges.
    """

    phase: Stack  # rad
    absorption: Stack | None  # −ln|t|, ≥ 0 for matter
    thickness: Varying[Thickness]  # Å
    origin: Varying[Pair]  # Å
    periodic: bool = eqx.field(static=True, default=False)
    fixed_by_default: ClassVar = ("thickness", "origin")
    held: ClassVar = MappingProxyType({"phase": "phase", "absorption": "absorption"})
    phase_is_gauge: ClassVar = True

    pixelwise: ClassVar = ("phase", "absorption")

    def slices(self, grid: Grid) -> Sliced:
        return as_sliced(exponential(self.phase, self.absorption), self, grid)

    def transmission_step(self, gradient: Any, step: Stack) -> dict[str, Array]:
        return exponent_step(self.absorption, gradient, step)

    def transmission_change(self, change: Slices) -> dict[str, Array]:
        return exponent_change(self.absorption, change / exponential(self.phase, self.absorption))
