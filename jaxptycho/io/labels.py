"""Units and axes of the arrays of a model, as attributes of their datasets in a file."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import equinox as eqx
import numpy as np

from ..parts.indexed import PerShot, PerView
from .hdf5 import H5

LENGTH = "angstrom"
UNITS: Mapping[str, str] = {
    **dict.fromkeys(("positions", "nominal", "residual", "pivot", "shift"), LENGTH),
    **dict.fromkeys(("thickness", "origin", "axis", "distance", "source"), LENGTH),
    **dict.fromkeys(("tilt", "angles", "semiangle", "centre", "phase"), "rad"),
    **dict.fromkeys(("absorption", "transmission", "matrix", "coefficients"), "1"),
    **dict.fromkeys(("occupancy", "log_occupancies", "factor", "mtf", "mask"), "1"),
    **dict.fromkeys(("potential", "absorptive"), "V"),
    **dict.fromkeys(("dose", "counts"), "counts"),
    "aberrations": LENGTH,
    "debye_waller": "angstrom^2",
    "waves": "sqrt(counts)",
    "sigma": "pixel",
    "Descanned.shift": "1/angstrom",
}  # by the field, where kinds differ by Kind.field
HISTORY: Mapping[str, str] = {"loss": "counts", "held_out": "counts", "seconds": "s", "epoch": "1"}
AXES = {"2": "yx", "3": "zyx", "m": "mode", "j": "wave", "s": "state", "q": "frequency"}


def label(stored: H5, units: str | None, axes: tuple[str, ...] | None) -> None:
    """Write the unit of a dataset and the names of its axes as its attributes, where known."""
    if units is not None:
        stored.attrs["units"] = units
    if axes and len(axes) == len(stored.shape):
        stored.attrs["axes"] = list(axes)


def label_tree(group: H5, tree: eqx.Module) -> None:
    """Label the datasets of a tree, which `write_tree` has written into `group`."""
    for path, units, axes in _labels(tree):
        if path in group:
            label(group[path], units, axes)


def _labels(part: eqx.Module) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """Path, unit and axes of every array of a part."""
    hints = _annotations(type(part))
    for field in dataclasses.fields(part):
        name = field.name
        units = UNITS.get(f"{type(part).__name__}.{name}", UNITS.get(name))
        for path, array, before in _arrays(getattr(part, name), name):
            if isinstance(array, eqx.Module):
                for inner, inner_units, axes in _labels(array):
                    yield f"{path}/{inner}", inner_units, axes
            else:
                yield path, units, (*before, *_axes(hints.get(name), np.ndim(array) - len(before)))


def _arrays(value: Any, path: str) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Path, value and leading axes of all that a field holds."""
    before = ()
    while isinstance(value, (PerShot, PerView)):
        before += ("shot" if isinstance(value, PerShot) else "view",)
        path = f"{path}/values"
        value = value.values
    if not isinstance(value, (dict, tuple, list)):
        yield path, value, before
        return
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        for inner, array, more in _arrays(item, f"{path}/{name}"):
            yield inner, array, (*before, *more)


def _annotations(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError:  # of a class within a function, whose names are gone
        return {}


def _axes(hint: Any, dimensions: int) -> tuple[str, ...]:
    """Axes of an array of this number of dimensions by its annotation, none without such."""
    for one in (hint, *get_args(hint)):
        names = str(getattr(one, "dim_str", "")).split()
        if len(names) == dimensions:
            return tuple(AXES.get(name, name.lower()) for name in names)
    return ()
