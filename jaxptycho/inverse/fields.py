"""Where penalties and constraints find what they act on, and how they put it back.

A specimen's `"phase"` is its phase or potential per slice, `"absorption"` what goes with it. The slices of a
volume are its layers of voxels, as the specimen holds them and no view sees them.
What is changed keeps its dtype and the wrapping (shared, PerShot, PerView) that it came in.
"""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PyTree

from ..model import Model
from ..parts.indexed import PerShot, PerView, plain, select
from ..parts.probe import AberratedProbe, AbstractProbe, PixelProbe, RelaxedProbe
from ..parts.scan import AbstractScan, AffineScan, FreeScan
from ..parts.specimen import AbstractSpecimen, PotentialSlices, SliceStack, WeakPhaseStack
from ..parts.volume import Volume
from ..physics import waves, windows
from ..physics.types import Stack

Of = Literal["phase", "absorption"]
Basis = Complex[Array, "j m y x"]
Moments = Complex[Array, "j j"] | Float[Array, "j j"]

STACKS = {
    SliceStack: {"phase": "phase", "absorption": "absorption"},
    WeakPhaseStack: {"phase": "phase", "absorption": "absorption"},
    PotentialSlices: {"phase": "potential", "absorption": "absorptive"},
    Volume: {"phase": "potential", "absorption": "absorptive"},
}


def stack(specimen: AbstractSpecimen, of: Of = "phase") -> Stack:
    """Phase [rad] or potential [V] of every slice, or the absorption, as the specimen holds it."""
    values = getattr(specimen, _name(specimen, of))
    if values is None:
        raise ValueError("the specimen has no absorption; give it an array of zeros or ask for its phase alone")
    return values


def change_stacks(model: Model, change: Callable[[Stack], Stack], of=("phase", "absorption")) -> Model:
    """`model` with `change(stack)` in place of those of the stacks `of` that the specimen has."""
    specimen = model.specimen
    for name in (_name(specimen, o) for o in of):
        old = getattr(specimen, name)
        if old is not None:
            new = change(old).astype(old.dtype)
            specimen = eqx.tree_at(lambda s, n=name: getattr(s, n), specimen, new)
    return eqx.tree_at(lambda m: m.specimen, model, specimen)


def radians(model: Model) -> float | Float[Array, "z 1 1"]:
    """Phase [rad] per unit of the specimen's stacks: 1, or σΔz of every slice for a potential."""
    specimen = model.specimen
    if not isinstance(specimen, (PotentialSlices, Volume)):
        return 1.0
    thickness = _shared_thickness(specimen)
    return model.grid.sigma * jnp.broadcast_to(thickness, specimen.potential.shape[:1])[:, None, None]


def thicknesses(specimen: AbstractSpecimen) -> Float[Array, "z"]:
    """Thickness [Å] of every slice."""
    return jnp.broadcast_to(_shared_thickness(specimen), stack(specimen).shape[:1])


def spacing(specimen: AbstractSpecimen) -> Float[Array, ""]:
    """The thickness [Å] that all slices of a thick specimen share."""
    several_slices(stack(specimen))
    thickness = _shared_thickness(specimen)
    if thickness.ndim:
        raise ValueError(f"got {thickness.size} thicknesses; a filter along z wants one number for all slices")
    return thickness


def several_slices(stack: Stack) -> None:
    """Raises ValueError for one slice, which has no depth."""
    if stack.shape[0] < 2:
        raise ValueError("the specimen has one slice and no neighbours along z; use at least two, or leave this out")


def seen_upright(specimen: AbstractSpecimen) -> None:
    """Raises ValueError for a volume, whose views meet it turned: a filter of one beam's frame means nothing to them."""
    if isinstance(specimen, Volume):
        raise ValueError(
            "what one view cannot measure of a volume another one does, and each meets it turned; leave the missing cone "
            "out, or filter the gradients of each view by the precondition `measured`"
        )


def over(function: Callable, value: PyTree) -> PyTree:
    """`function` of a shared value, or of every entry of a PerShot or PerView, wrapped likewise."""
    if isinstance(value, (PerShot, PerView)):
        return type(value)(jax.vmap(lambda entry: over(function, entry))(value.values))
    return function(value)


def over_waves(probe: AbstractProbe, function: Callable[[Basis, Moments], PyTree]) -> PyTree:
    """`function(waves [j m y x], moments [j j])` of the probe, view by view where views differ.

    A PixelProbe has one basis wave; `moments` is the mean of c_j c*_j′ over the shots.
    """
    if isinstance(probe, PixelProbe):
        return over(lambda own: function(own[None], jnp.ones((1, 1), own.real.dtype)), probe.waves)
    if not isinstance(probe, RelaxedProbe):
        raise ValueError(
            f"{type(probe).__name__} has no free waves; use a PixelProbe or a RelaxedProbe, or leave this constraint out"
        )
    if not isinstance(probe.waves, PerView):
        return function(probe.waves, _moments(probe.coefficients))
    coefficients = probe.coefficients
    own = isinstance(coefficients, PerView)
    both = jax.vmap(lambda basis, c: function(basis, _moments(c)), in_axes=(0, 0 if own else None))
    return PerView(both(probe.waves.values, coefficients.values if own else coefficients))


def change_waves(model: Model, change: Callable[[Basis, Moments], Basis]) -> Model:
    """`model` with `change(waves [j m y x], moments [j j])` in place of the probe's waves."""

    def of_view(basis, moments):
        new = change(basis, moments).astype(basis.dtype)
        return new[0] if isinstance(model.probe, PixelProbe) else new

    changed = over_waves(model.probe, of_view)
    return eqx.tree_at(lambda m: m.probe.waves, model, changed)


def mean_dose(probe: AbstractProbe) -> Float[Array, ""]:
    """Σ|ψ|² [quanta per shot], the mean over shots and views."""
    if isinstance(probe, AberratedProbe):
        return jnp.mean(plain(probe.dose))
    return jnp.mean(plain(over_waves(probe, lambda basis, moments: jnp.sum(mean_intensity(basis, moments)))))


def mean_intensity(basis: Basis, moments: Moments) -> Float[Array, "y x"]:
    """Σ_m |Σ_j c_j ψ_jm|², the mean over the shots."""
    return jnp.einsum("jk,jmyx,kmyx->yx", moments.astype(basis.dtype), basis, jnp.conj(basis)).real


def move_scan(scan: AbstractScan, by: PyTree) -> AbstractScan:
    """`scan` with every position moved by `by` (y, x) [Å], shared, PerShot or PerView."""
    if isinstance(scan, FreeScan):
        return eqx.tree_at(lambda s: s.positions, scan, add(scan.positions, by))
    if isinstance(scan, AffineScan):
        return eqx.tree_at(lambda s: s.shift, scan, add(scan.shift, by))
    raise ValueError(f"{type(scan).__name__} cannot be moved; use a FreeScan or an AffineScan")


def add(value: PyTree, change: PyTree) -> PyTree:
    """value + change, where either may be shared, PerShot or PerView; wrapped as `value` is."""
    for kind in (PerView, PerShot):
        if isinstance(value, kind):
            own = isinstance(change, kind)
            summed = jax.vmap(add, in_axes=(0, 0 if own else None))(value.values, change.values if own else change)
            return kind(summed)
        if isinstance(change, kind):
            raise ValueError(f"the change differs from entry to entry: wrap what it changes in {kind.__name__} as well")
    if not eqx.is_array(value):
        raise ValueError(f"got the fixed numbers {value}; make them an array, so that they can be moved")
    return value + change.astype(value.dtype)


def every_shot(function: Callable, tree: PyTree) -> PyTree:
    """`function(tree)` as every shot of every view sees it, along one leading axis."""

    def of_view(view):
        own = select(tree, PerView, view)
        return jax.vmap(lambda shot: function(select(own, PerShot, shot)))(jnp.arange(shots))

    views, shots = entries(tree, PerView), entries(select(tree, PerView, 0), PerShot)
    values = jax.vmap(of_view)(jnp.arange(views))
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), values)


def illumination(model: Model) -> Float[Array, "Y X"]:
    """Σ_shots |ψ|² on every pixel of the specimen, with the first shot's probe for all."""
    grid, (ny, nx) = model.grid, stack(model.specimen).shape[-2:]

    def corner(placed):
        scan, origin = placed
        return windows.split_position(scan.position(), origin, grid)[0]

    corners = every_shot(corner, (model.scan, _origin(model.specimen)))
    first = select(select(model.probe, PerView, 0), PerShot, 0).spectrum(grid)
    centre = grid.shape[0] // 2 * grid.pixel[0], grid.shape[1] // 2 * grid.pixel[1]
    seen = waves.intensity(waves.place(first, centre, grid))
    blank = jnp.zeros((ny, nx), seen.dtype)
    window = blank.at[jnp.arange(grid.shape[0])[:, None] % ny, jnp.arange(grid.shape[1]) % nx].add(seen)
    count = blank.at[corners[:, 0] % ny, corners[:, 1] % nx].add(1.0)
    return jnp.maximum(jnp.fft.irfft2(jnp.fft.rfft2(count) * jnp.fft.rfft2(window), s=(ny, nx)), 0.0)


def entries(tree: PyTree, kind: type) -> int:
    """How many entries the first `kind` in `tree` holds, 1 without any."""
    nodes = [n for n in jax.tree.leaves(tree, is_leaf=lambda n: isinstance(n, kind)) if isinstance(n, kind)]
    return jax.tree.leaves(nodes[0])[0].shape[0] if nodes else 1


def _name(specimen, of):
    for kind, names in STACKS.items():
        if isinstance(specimen, kind):
            return names[of]
    raise ValueError(
        f"{type(specimen).__name__} has no phase in slices; use {', '.join(k.__name__ for k in STACKS)}, "
        "or leave this penalty or constraint out"
    )


def _origin(specimen):
    return specimen.origin


def _shared_thickness(specimen):
    if isinstance(specimen, Volume):
        return jnp.asarray(specimen.voxel[0], specimen.potential.dtype)
    if isinstance(specimen.thickness, (PerShot, PerView)):
        raise ValueError("the thickness differs from shot to shot or view to view; this wants one for all")
    return jnp.asarray(specimen.thickness)


def _moments(coefficients):
    rows = plain(coefficients).reshape(-1, plain(coefficients).shape[-1])
    return rows.T @ jnp.conj(rows) / rows.shape[0]
