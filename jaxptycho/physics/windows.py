"""Windows of the specimen that shots see: extraction, and its adjoint."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from .grids import Grid
from .types import Index, Pair, Slices, Stack, Window


def split_position(
    position: Float[Array, "2"], origin: Pair, grid: Grid
) -> tuple[Int[Array, "2"], Float[Array, "2"]]:
    """First pixel of the window of a probe at `position` [Å], and its centre in the window [Å].

    The centre is within half a pixel of pixel [N//2, N//2]; only this remainder is
    differentiable. `origin` [Å] is the position of the specimen's pixel [0, 0].
    """
    pixel = jnp.asarray(grid.pixel)
    middle = jnp.asarray([n // 2 for n in grid.shape])
    offset = position - jnp.asarray(origin)
    corner = jnp.round(jax.lax.stop_gradient(offset) / pixel).astype(int) - middle
    return corner, offset - corner * pixel


def wrap(
    slices: Slices, shape: tuple[int, int]
) -> Complex[Array, "z Y+{shape[0]}-1 X+{shape[1]}-1"]:
    """A periodic specimen continued by one window, so that every window is one block."""
    return jnp.pad(slices, ((0, 0), (0, shape[0] - 1), (0, shape[1] - 1)), mode="wrap")


def cut(slices: Slices, corner: Int[Array, "2"], shape: tuple[int, int]) -> Window:
    """The window of `shape` whose first pixel is `corner`."""
    return jax.lax.dynamic_slice(slices, (0, corner[0], corner[1]), (slices.shape[0], *shape))


def add_back(slices: Slices | Stack, corners: Int[Array, "b 2"], windows: Array) -> Slices | Stack:
    """Adjoint of `cut` for a batch: each window added to `slices` at its corner.

    In place when `slices` is the carry of a loop, so the cost depends on the size of the
    windows and not on that of the specimen.
    """
    by = {"cuda": scatter, "rocm": scatter, "default": one_by_one}
    return jax.lax.platform_dependent(slices, corners, windows, **by)


def one_by_one(slices: Array, corners: Array, windows: Array) -> Array:
    """Adjoint `add_back` by a loop over the windows, the fastest form on CPUs."""

    def add(n: Index, slices: Array) -> Array:
        start = (0, corners[n, 0], corners[n, 1])
        old = jax.lax.dynamic_slice(slices, start, windows.shape[1:])
        return jax.lax.dynamic_update_slice(slices, old + windows[n], start)

    return jax.lax.fori_loop(0, windows.shape[0], add, slices)


def scatter(slices: Array, corners: Array, windows: Array) -> Array:
    """Adjoint `add_back` in one operation, for GPUs.

    Real and imaginary parts are added separately, as atomic additions have 32 bits.
    """
    if jnp.iscomplexobj(slices):
        parts = (scatter(part(slices), corners, part(windows)) for part in (jnp.real, jnp.imag))
        return jax.lax.complex(*parts)
    blocks = jax.lax.ScatterDimensionNumbers((1, 2, 3), (), (1, 2))
    return jax.lax.scatter_add(slices, corners, windows, blocks, mode="clip")
