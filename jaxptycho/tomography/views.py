"""Views of a tilt series, each reconstructed separately, as projections of one volume."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from scipy.ndimage import affine_transform

from ..data import Dataset, batches
from ..inverse.illumination import illumination
from ..inverse.step import copy_for_donation, identity, init_state, make_step
from ..model import Model
from ..start.guess import guess_model
from .projections import axis_frame

THIN = partial(guess_model, specimen="phase")
MIN_ILLUMINATION = 0.3  # of the greatest illumination, from which a pixel has full weight


class Views(NamedTuple):
    """Projections of the volume in all views, the tilt axis in the middle pixel [n//2, n//2]."""

    projections: Float[np.ndarray, "view y x"]  # V·Å
    weights: Float[np.ndarray, "view y x"]  # 1 where well illuminated, 0 where not illuminated


def reconstruct_views(
    loss: Callable,
    data: Dataset,
    optimiser: optax.GradientTransformation,
    size: int,
    epochs: int,
    project: Callable[[Model], Model] = identity,
    known: Mapping[int, Model] = MappingProxyType({}),
    first: Callable[[Dataset], Model] = THIN,
    seed: int = 0,
) -> Iterator[tuple[int, Model]]:
    """Yield every view with its separate model, the least tilted first.

    Each starts with the probe of the view before. The models of `known` views are returned
    unchanged. `first` makes the model that a view starts from: one thin phase by default, at the
    height of the tilt axis. `seed` is that of the batches.
    """
    step = make_step(loss, optimiser, project)
    probe = None
    for view in order_of_views(data):
        if view in known:
            probe = known[view].probe
            yield view, known[view]
            continue
        one = data.view(view)
        model = first(one)
        model = copy_for_donation(model if probe is None else replace(model, probe=probe))
        state = init_state(optimiser, model)
        for batch in batches(one, size, epochs, seed=seed * data.n_views + view):
            model, state, _ = step(model, state, batch)
        probe = model.probe
        yield view, model


def order_of_views(data: Dataset) -> list[int]:
    """Numbers of all views, the least tilted first."""
    if data.tilts is None:
        return list(range(data.n_views))
    return np.argsort(np.abs(data.tilts), kind="stable").tolist()


def projected_views(models: Sequence[Model], shape: tuple[int, int], axis: float = 0.0) -> Views:
    """Projected potential of every view on `shape` pixels about the tilt axis: `Views`.

    The phase of the model of each view over σ, summed over slices. Rows are along the tilt axis,
    whose direction in the patterns is `axis` [rad] from y towards x. The ambiguities of a view, a
    constant and a plane, are kept as reconstructed. Splines resample it to the common pixels.
    """
    pixel = np.array(models[0].grid.pixel)
    one = []
    for view, model in enumerate(models):
        if not np.allclose(model.grid.pixel, pixel, rtol=1e-6):
            raise ValueError(
                f"view {view} has pixels of {model.grid.pixel} Å, view 0 of "
                f"{models[0].grid.pixel} Å; give one grid"
            )
        volts = np.asarray(
            jnp.sum(model.specimen.phase_per_slice(model.grid), 0) / model.grid.sigma, float
        )
        seen = np.asarray(illumination(model), float)
        # from the frame of the axis to that of the patterns
        along: Any = axis_frame(axis).T if axis else np.eye(2)
        matrix = along * pixel / pixel[:, None]
        first = along @ (-(np.array(shape) // 2) * pixel)
        corner: Any = (
            first - np.asarray(jax.device_get(model.specimen.slices_origin(model.grid)))
        ) / pixel
        turned: Any = matrix if axis else np.ones(2)
        placed = affine_transform(volts, turned, corner, shape, order=5, mode="nearest")
        weight = np.clip(
            affine_transform(seen, turned, corner, shape, order=1)
            / (MIN_ILLUMINATION * seen.max()),
            0,
            1,
        )
        one.append((placed, weight))
    projections, weights = map(np.stack, zip(*one, strict=True))
    return Views(projections, weights)
