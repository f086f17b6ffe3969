"""The forward model: expected counts of shots."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from . import viewing
from .parts.detector import AbstractDetector, Ideal
from .parts.indexed import PerShot, PerView, select
from .parts.probe import AbstractProbe
from .parts.propagator import AbstractPropagator, Fresnel
from .parts.scan import AbstractScan
from .parts.slices import Sliced
from .parts.specimen import AbstractSpecimen
from .physics import waves as optics
from .physics.grids import Grid
from .physics.types import Index, Indices, Pattern, Patterns, Waves, Window
from .physics.waves import Exit


class Model(eqx.Module):
    """All that determines a pattern; each part may be replaced by a user-defined one.

    Positions and the specimen's origin are relative to `frame` (y, x) [Å], which keeps them small
    enough for single precision: add it for positions in the frame of the measurement
    (`Dataset.frame`).
    """

    probe: AbstractProbe
    specimen: AbstractSpecimen
    scan: AbstractScan
    grid: Grid
    propagator: AbstractPropagator = Fresnel()
    detector: AbstractDetector = Ideal()
    frame: tuple[float, float] = eqx.field(static=True, default=(0.0, 0.0))

    def show(self) -> Any:
        """Figure of the specimen (`figures.object`)."""
        return viewing.figures().object(self)

    def _repr_html_(self) -> str:
        return viewing.html_table(self, "model")


def exit_wave(
    model: Model,
    sliced: Sliced,
    window: Window,
    centre: Float[Array | np.ndarray, "2"],
    multislice: Callable[..., Exit] = optics.multislice,
) -> Exit:
    """Wave behind the specimen of one shot [√quanta], in real space: `exit_wave(…).wave`.

    States of a specimen multiply the modes of the probe; each is weighted by its occupancy.
    `window` holds the transmission functions under the probe, `centre` is the position of the
    probe's centre in it (y, x) [Å]; all values of `model` are those of the shot (`select`).
    `multislice` propagates the wave through the slices.
    """
    grid = model.grid
    wave = optics.place_probe(model.probe.spectrum(grid), centre, grid)
    if sliced.occupancies is None:
        return _behind(model, sliced, wave, window, multislice)
    states = window.reshape(len(sliced.occupancies), -1, *grid.shape)
    found = jax.vmap(lambda state: _behind(model, sliced, wave, state, multislice).wave)(states)
    weighted = jnp.sqrt(sliced.occupancies)[:, None, None, None] * found
    return Exit(weighted.reshape(-1, *grid.shape), jnp.ones(grid.shape, found.dtype))


def _behind(
    model: Model, sliced: Sliced, wave: Waves, window: Window, multislice: Callable[..., Exit]
) -> Exit:
    """Wave behind the slices of one state."""
    grid = model.grid
    if window.shape[0] == 1:
        return Exit(wave, window[0])
    kernel = model.propagator.kernel
    if jnp.ndim(sliced.thickness) == 0:
        return multislice(wave, window, kernel(grid, sliced.thickness))
    kernels = jax.vmap(lambda distance: kernel(grid, distance))(jnp.asarray(sliced.thickness))
    return multislice(wave, window, kernels)


def simulate_pattern(
    model: Model,
    sliced: Sliced,
    window: Window,
    centre: Float[Array | np.ndarray, "2"],
    multislice: Callable[..., Exit] = optics.multislice,
) -> Pattern:
    """Expected counts of one shot; arguments as for `exit_wave`."""
    grid = model.grid
    offset = centre - jnp.asarray([n // 2 * p for n, p in zip(grid.shape, grid.pixel, strict=True)])
    return model.detector.detect(exit_wave(model, sliced, window, centre, multislice), grid, offset)


@runtime_checkable
class ShotsOfView(Protocol):
    """Shots of one view, as a `Batch` carries them."""

    view: Any
    shots: Any


def predict(model: Model, shots: Indices | ShotsOfView, view: Index | None = None) -> Patterns:
    """Expected counts [shot, y, x] of selected shots of one view, zero frequency in the corner.

    `shots` are their numbers in `view` (by default 0), or a batch, which carries its view.
    A pure function, compiled: vmap, differentiate or linearize it. The specimen is sliced once.
    """
    return _of_shots(simulate_pattern, model, shots, view)


def waves(
    model: Model, shots: Indices | ShotsOfView, view: Index | None = None
) -> Complex[Array, "b m y x"]:
    """Exit waves [shot, mode, y, x] of selected shots [√quanta], in real space.

    Arguments as for `predict`, and as pure. Each is in the window of its shot, behind the last
    slice; `physics.waves.fourier` takes it to the far field. Solvers that need more than the
    gradient of a loss, such as its curvature, start from these.
    """

    return _of_shots(_wave_behind, model, shots, view)


def _wave_behind(model: Model, sliced: Sliced, window: Window, centre: Float[Array, "2"]) -> Waves:
    return exit_wave(model, sliced, window, centre).wave


def _of_shots(
    function: Callable[..., Array], model: Model, shots: Any, view: Index | None
) -> Array:
    """`function(model, sliced, window, centre)` of every shot."""
    if isinstance(shots, ShotsOfView):
        if view is not None:
            raise ValueError(
                "a batch carries its view; leave view out, or give the numbers of shots: "
                "batch.shots"
            )
        shots, view = shots.shots, shots.view
    view = 0 if view is None else view
    require_alive(model)
    return _mapped(function, model, jnp.asarray(shots), jnp.asarray(view))


@eqx.filter_jit
def _mapped(function: Callable[..., Array], model: Model, shots: Indices, view: Index) -> Array:
    model = select(model, PerView, view)
    sliced = model.specimen.slices(model.grid)

    def of_shot(shot: Index) -> Array:
        one, seen = select((model, sliced), PerShot, shot)
        corner, centre = seen.corner(one.scan.position(), one.grid)
        return function(one, seen, seen.window(corner, one.grid), centre)

    return jax.vmap(of_shot)(shots)


def require_alive(tree: Any) -> None:
    """Raise ValueError for a model whose arrays were donated to a step."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted():
            raise ValueError(
                "this model, or state, was used up by a step, which takes over the arrays of its "
                "arguments; use what the step returned, or give it a copy: jax.tree.map(jnp.copy, "
                "model)"
            )


def probe_positions(model: Model, view: int = 0) -> Float[np.ndarray, "shot 2"]:
    """Positions of the probe's centre in all shots of a view (y, x) [Å], from `model.frame`."""
    scan = select(model.scan, PerView, view)
    nodes = jax.tree.leaves(scan, is_leaf=lambda node: isinstance(node, PerShot))
    shots = max(
        (len(jax.tree.leaves(node)[0]) for node in nodes if isinstance(node, PerShot)), default=1
    )
    return np.asarray(_positions(scan, np.arange(shots)), float)


@eqx.filter_jit
def _positions(scan: AbstractScan, shots: Indices) -> Float[Array, "b 2"]:
    return jax.vmap(lambda shot: select(scan, PerShot, shot).position())(shots)


def require_inside(model: Model, view: int = 0) -> None:
    """Raise ValueError when the window of a shot extends beyond the edge of the specimen."""
    specimen = select(select(model.specimen, PerView, view), PerShot, 0)
    sliced = specimen.shapes(model.grid)
    if sliced.period is not None:
        return
    places = probe_positions(model, view)
    pixel = np.asarray(model.grid.pixel)
    window = np.asarray(model.grid.shape)
    shape = np.asarray(sliced.transmission.shape[1:])
    origin = np.asarray(specimen.slices_origin(model.grid))
    corners = np.round((places - origin) / pixel) - window // 2
    outside = (corners < 0) | (corners + window > shape)
    if outside.any():
        shot, axis = np.argwhere(outside)[0]
        several = any(
            isinstance(n, PerView)
            for n in jax.tree.leaves(model, is_leaf=lambda n: isinstance(n, PerView))
        )
        whose = f" of view {view}" if several else ""
        away = model.frame[axis]
        digits = 12 if any(model.frame) else 5
        ends = away + origin[axis] + np.array([0, shape[axis] - 1]) * pixel[axis]
        raise ValueError(
            f"the windows of {outside.any(1).sum()} shots{whose} reach outside the object (first: "
            f"shot {shot} at {'yx'[axis]} = {away + places[shot, axis]:.{digits}g} Å with a "
            f"window of {window[axis] * pixel[axis]:.5g} Å, the object extends from "
            f"{ends[0]:.{digits}g} to {ends[1]:.{digits}g} Å); give the object a larger margin or "
            "drop these shots"
        )
