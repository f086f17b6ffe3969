"""Dose of the probe on every pixel of the specimen."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..model import Model
from ..parts.indexed import first_shot, vmap_shots
from ..physics import waves, windows


def illumination(model: Model) -> Float[Array, "Y X"]:
    """Dose Σ_shots |ψ|² on every pixel of the specimen, with the probe of the first shot."""
    grid = model.grid
    ny, nx = model.specimen.shapes(grid).plane

    def corner(seen: Any) -> Int[Array, "2"]:
        scan, specimen = seen
        return windows.split_position(scan.position(), specimen.slices_origin(grid), grid)[0]

    corners = vmap_shots(corner, (model.scan, model.specimen))
    spectrum = first_shot(model.probe).spectrum(grid)
    centre = grid.shape[0] // 2 * grid.pixel[0], grid.shape[1] // 2 * grid.pixel[1]
    seen = waves.intensity(waves.place_probe(spectrum, centre, grid))
    blank = jnp.zeros((ny, nx), seen.dtype)
    rows, columns = jnp.arange(grid.shape[0])[:, None] % ny, jnp.arange(grid.shape[1]) % nx
    window = blank.at[rows, columns].add(seen)
    count = blank.at[corners[:, 0] % ny, corners[:, 1] % nx].add(1.0)
    spread = jnp.fft.irfft2(jnp.fft.rfft2(count) * jnp.fft.rfft2(window), s=(ny, nx))
    return jnp.maximum(spread, 0.0)
