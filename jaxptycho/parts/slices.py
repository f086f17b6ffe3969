"""Forms of a specimen for its callers: slices for the wave, voxels and atoms for files."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..physics import windows
from ..physics.grids import Grid
from ..physics.transmission import transmission_function
from ..physics.types import Index, Pair, Scalar, Slices, Stack, Window
from .indexed import PerShot, PerView, Varying

Of = Literal["phase", "absorption"]
Thickness = Scalar | Float[Array, "z"]
Lengths = tuple[Scalar, Scalar, Scalar]  # (z, y, x)

MIN_AMPLITUDE = 1e-6  # |t| below which a pixel is opaque and has no phase
PHASES: Mapping[Of, str] = MappingProxyType({"phase": "phase (rad)", "absorption": "absorption"})
POTENTIALS: Mapping[Of, str] = MappingProxyType(
    {"phase": "potential (V)", "absorption": "absorptive potential (V)"}
)


class Sliced(eqx.Module):
    """Slices of a specimen along the beam: transmission functions and their positions.

    Those of a specimen in a mixed state are the slices of all its states, one state after another.
    """

    transmission: Slices  # entrance face first
    thickness: Varying[Thickness]  # Å, one for all slices or one each
    origin: Varying[Pair]  # Å, position of pixel [0, 0]
    period: tuple[int, int] | None = eqx.field(static=True, default=None)
    occupancies: Float[Array, " s"] | None = None  # of the states, None for a single one

    @property
    def plane(self) -> tuple[int, int]:
        """Pixels (y, x) of the specimen, without its periodic continuation."""
        _, rows, columns = self.transmission.shape
        return (rows, columns) if self.period is None else self.period

    def corner(
        self, position: Float[Array, "2"], grid: Grid
    ) -> tuple[Int[Array, "2"], Float[Array, "2"]]:
        """First pixel of a shot's window, and the probe's centre in that window [Å]."""
        corner, centre = windows.split_position(position, self.origin, grid)
        return (corner if self.period is None else corner % jnp.asarray(self.period)), centre

    def window(self, corner: Int[Array, "2"], grid: Grid) -> Window:
        """Transmission functions in the window of one shot."""
        return windows.cut(self.transmission, corner, grid.shape)


class Slab(NamedTuple):
    """Part of the rows of a specimen on one of several devices, within `shard_map`."""

    number: Index  # of the slab, from 0
    count: int  # of slabs  # pyright: ignore[reportIncompatibleMethodOverride]
    # (rows, reach, value outside) -> rows with halos
    with_halo: Callable[[Stack, int, float], Stack]


class Voxels(NamedTuple):
    """A volume, or a stack of slices, entrance face first."""

    values: Float[np.ndarray, "z y x"]
    voxel: tuple[float, float, float]  # Å (z, y, x)
    corner: tuple[float, float, float]  # Å (z, y, x), position of the middle of voxel [0, 0, 0]
    what: str  # name of the quantity with its unit


class AtomTable(NamedTuple):
    """The atoms that a specimen is made of."""

    numbers: tuple[int, ...]
    positions: Float[np.ndarray, "atom 3"]  # Å (z, y, x), z from the entrance face
    debye_waller: Float[np.ndarray, " atom"]  # Å², B = 8π²⟨u²⟩
    occupancy: Float[np.ndarray, " atom"]
    axis: float | None  # Å below the entrance face, None if not specified


def mean_slice(specimen: Any) -> Any:
    """A specimen, or a gradient by it, with the mean of its slices in place of each.

    Means of the arrays as stored; a specimen without arrays of slices is unchanged.
    """
    names = dict.fromkeys(specimen.held.values())
    present = [name for name in names if getattr(specimen, name) is not None]
    if not present:
        return specimen
    old = [getattr(specimen, name) for name in present]
    new = [jnp.broadcast_to(jnp.mean(v, 0, keepdims=True), v.shape) for v in old]
    return eqx.tree_at(lambda s: [getattr(s, name) for name in present], specimen, new)


def require_depth(slices: Float[Array, " z *n"]) -> None:
    """Raise ValueError for one slice, which has no depth."""
    if slices.shape[0] < 2:
        raise ValueError(
            "the specimen has one slice and no neighbours along z; use at least two, or leave "
            "this out"
        )


def finite_voxels(values: Stack) -> Float[np.ndarray, "z y x"]:
    """Values as 32-bit numbers; raise ValueError where one is not finite."""
    single = np.asarray(values, np.float32)
    if not np.isfinite(single).all():
        raise ValueError(
            "the specimen holds values that are not finite; look at the run's history before "
            "exporting it"
        )
    return single


def as_voxels(shown: Any, grid: Grid, of: Of) -> Voxels:
    """Voxels of a specimen that holds its slices, entrance face first."""
    values = finite_voxels(shown.stack(of))
    origin = shown.slices_origin(grid)
    if isinstance(origin, (PerShot, PerView)):
        raise ValueError(
            "the slices have another origin in every view or shot; export one view at a time"
        )
    depths = np.asarray(shown.thicknesses(grid), float)
    if np.ptp(depths) > 1e-3 * depths.mean():
        raise ValueError(
            f"the slices are {depths.min():g} to {depths.max():g} Å thick, and a volume has "
            "voxels of one size; reconstruct with equal slices, or take the slices from "
            "result.h5"
        )
    y, x = (float(v) for v in np.asarray(origin))
    dz = float(depths[0]) or min(grid.pixel)
    voxel = (dz, *grid.pixel)
    corner = (float(depths[0]) / 2, y, x)
    return Voxels(values, voxel, corner, shown.labels[of])


def exponential(phase: Stack, absorption: Stack | None) -> Slices:
    """Transmission function e^{iφ−a}."""
    return transmission_function(phase, jnp.zeros_like(phase) if absorption is None else absorption)


def exponent_step(absorption: Stack | None, gradient: Any, step: Stack) -> dict[str, Array]:
    """Changes of phase and absorption that change t = e^u, u = iφ − a, by −step·∂L/∂t*.

    ∂L/∂t* = G/t* with G = i∂L/∂φ − ∂L/∂a, so t changes by −step·G/|t|² times itself.
    """
    loss = jnp.zeros_like(step) if absorption is None else gradient.absorption
    slope = jax.lax.complex(-loss, gradient.phase)
    squared = 1.0 if absorption is None else jnp.exp(2 * absorption)
    return exponent_change(absorption, -step * squared * slope)


def exponent_change(absorption: Stack | None, relative: Slices) -> dict[str, Array]:
    """Changes of phase and absorption that change t = e^u, u = iφ − a, by `relative` times itself.

    The change of u is log(1 + relative). Without absorption only the phase changes.
    """
    if absorption is None:
        return {"phase": jnp.arctan(relative.imag)}
    factor = 1 + relative
    damped = -jnp.log(jnp.maximum(jnp.abs(factor), MIN_AMPLITUDE))  # t = 0 has no way back
    return {"phase": jnp.angle(factor), "absorption": damped}


def as_sliced(transmission: Slices, specimen: Any, grid: Grid) -> Sliced:
    """Slices with the thickness and origin of `specimen`, continued by a window if periodic."""
    if not specimen.periodic:
        return Sliced(transmission, specimen.thickness, specimen.origin)
    period = transmission.shape[1], transmission.shape[2]
    wrapped = windows.wrap(transmission, grid.shape)
    return Sliced(wrapped, specimen.thickness, specimen.origin, period)


def overlap(thickness: np.ndarray, slices: int) -> Float[np.ndarray, "new old"]:
    """Fraction of every old slice (column) within every new one (row)."""
    steps = thickness if thickness.all() else np.ones_like(thickness)
    edges = np.concatenate([[0.0], np.cumsum(steps)])
    new = np.linspace(0, edges[-1], slices + 1)
    shared = np.minimum(edges[1:], new[1:, None]) - np.maximum(edges[:-1], new[:-1, None])
    return np.clip(shared, 0, None) / np.diff(edges)


@eqx.filter_jit
def sliced_origin(specimen: Any, grid: Grid) -> Varying[Pair]:
    """Position of pixel [0, 0] of the slices of a specimen (y, x) [Å]."""
    return specimen.slices(grid).origin


@eqx.filter_jit
def sliced_thickness(specimen: Any, grid: Grid) -> Thickness:
    """Thickness of the slices of a specimen [Å]."""
    return specimen.slices(grid).thickness
