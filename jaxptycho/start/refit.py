"""The same model with other slices or modes: how one stage hands over to the next."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from ..inverse.fields import thicknesses
from ..model import Model
from ..parts.atoms import Atoms
from ..parts.indexed import plain
from ..parts.probe import PixelProbe
from ..parts.specimen import PotentialSlices
from ..parts.volume import Volume
from ..physics.volumes import depth_of
from .guess import make_modes, with_dose
from .probes import moved_along


def with_slices(model: Model, slices: int) -> Model:
    """The same specimen cut into `slices` equal slices; its projection is unchanged.

    A volume stays as it is, its views alone are cut anew, as deep as their tilts want, and the probe is brought to
    where the first slice is then; so are atoms, between the same faces.
    """
    specimen = model.specimen
    if isinstance(specimen, Atoms):
        new = replace(specimen, n_slices=slices, thickness=specimen.n_slices * specimen.thickness / slices)
        moved = float(new.thickness - specimen.thickness) / 2  # pyright: ignore[reportArgumentType]
        return replace(model, specimen=new, probe=moved_along(model.probe, model.grid, moved))
    if isinstance(specimen, Volume):
        depth = depth_of(specimen.potential.shape, specimen.voxel, slices, plain(specimen.tilt), plain(specimen.angles))
        new = replace(specimen, n_slices=slices, depth=depth)
        return replace(model, specimen=new, probe=moved_along(model.probe, model.grid, specimen.above - new.above))
    fields = ("potential", "absorptive") if isinstance(specimen, PotentialSlices) else ("phase", "absorption")
    old = getattr(specimen, fields[0]).shape[0]
    thickness = np.asarray(thicknesses(specimen), float)
    if old == slices:
        return model
    if slices > 1 and not thickness.all():
        raise ValueError(f"a specimen of thickness 0 cannot be cut into {slices} slices; give its thickness in Å")
    shares = overlap(thickness, slices)
    if isinstance(specimen, PotentialSlices):  # a mean over the thickness, where a phase is a sum
        shares = shares * thickness / (thickness.sum() / slices)

    def recut(values):
        return None if values is None else jnp.tensordot(jnp.asarray(shares, values.dtype), values, 1)

    new = {name: recut(getattr(specimen, name)) for name in fields}
    return replace(model, specimen=replace(specimen, **new, thickness=jnp.asarray(thickness.sum() / slices, float)))


def overlap(thickness: np.ndarray, slices: int) -> np.ndarray:
    """Fraction of every old slice (column) that lies in every new one (row)."""
    edges = np.concatenate([[0.0], np.cumsum(thickness if thickness.all() else np.ones_like(thickness))])
    new = np.linspace(0, edges[-1], slices + 1)
    shared = np.minimum(edges[1:], new[1:, None]) - np.maximum(edges[:-1], new[:-1, None])
    return np.clip(shared, 0, None) / np.diff(edges)


def with_modes(model: Model, modes: int) -> Model:
    """The same probe with `modes` incoherent modes, completed or cut; its power is unchanged."""
    if not isinstance(model.probe, PixelProbe):
        raise ValueError(f"only a PixelProbe can change its modes; this model has {type(model.probe).__name__}")
    old = model.probe.waves
    if old.shape[0] == modes:
        return model
    power = jnp.sum(jnp.abs(old) ** 2)
    return replace(model, probe=PixelProbe(with_dose(make_modes(old, modes), power)))
