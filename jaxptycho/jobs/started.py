"""First model of a job that starts from the result of another run."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model import Model, require_inside
from ..parts.indexed import PerView, axis_size, first_shot
from ..runs.folder import load_result
from .data_sections import Start

FIELDS = {"specimen": "specimen", "probe": "probe", "positions": "scan"}  # of a model, by part


def from_result(section: Start, model: Model) -> Model:
    """The first guess `model` with the parts of a result that the job names in their place.

    A specimen is cut into the slices of the guess, a probe has its modes. Raises ValueError for a
    result on other pixels, of another kind, or whose scan has other shots.
    """
    if section.result is None:
        return model
    other = load_result(Path(section.result))
    pixels = other.grid.pixel, model.grid.pixel
    if not np.allclose(*pixels, rtol=1e-3):
        raise ValueError(
            f"start.result has pixels of {pixels[0][0]:.5g} × {pixels[0][1]:.5g} Å and this job of "
            f"{pixels[1][0]:.5g} × {pixels[1][1]:.5g} Å; give a result on the same pixels"
        )
    apart = jnp.asarray(np.subtract(other.frame, model.frame))
    for part in section.parts:
        field = FIELDS[part]
        found = _fitted(part, getattr(other, field), model)
        if part != "probe" and any(apart):
            found = found.move(apart)
        model = eqx.tree_at(lambda m, field=field: getattr(m, field), model, found)
    for view in range(axis_size(model, PerView)):
        require_inside(model, view)
    return model


def _fitted(part: str, found: Any, model: Model) -> Any:
    """Part of a result in the form that the guess has; ValueError where that is not possible."""
    guess = getattr(model, FIELDS[part])
    if type(found) is not type(guess):
        raise ValueError(
            f"the {part} of start.result is a {type(found).__name__}, and this job describes a "
            f"{type(guess).__name__}; give it the kind of that job, or leave {part} out of "
            "start.parts"
        )
    if part == "specimen":
        return found.with_slices(model.grid, guess.shapes(model.grid).transmission.shape[0])
    if part == "probe":
        modes = eqx.filter_eval_shape(lambda p: first_shot(p).spectrum(model.grid), guess).shape[0]
        found = found.with_modes(modes)
    shapes = [[leaf.shape for leaf in _arrays(one)] for one in (found, guess)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the {part} of start.result have the shapes {_listed(shapes[0])}, and this job "
            f"requires {_listed(shapes[1])}; leave {part} out of start.parts"
        )
    return found


def _arrays(part: Any) -> list[Any]:
    return jax.tree.leaves(eqx.filter(part, eqx.is_array))


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(" × ".join(map(str, shape)) or "1" for shape in shapes)
