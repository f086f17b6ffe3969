"""Numbers of the geometry by name: rotation and scale of a scan, defocus, descan, thickness …

A number of `SCAN` maps the positions and moves the specimen along, `probe.defocus` propagates the
probe of any kind, and every other name is the path of real parameters that all shots share
(`probe.semiangle`, `probe.aberrations.C12a`, `detector.shift`, `specimen.thickness` …).
"""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..data import Dataset
from ..model import Model, probe_positions
from ..parts.indexed import PerShot, PerView
from ..parts.mapping import map_specimen
from ..parts.scan import map_parameters
from ..physics.types import Pair
from .step import named, path_of, require_parameters, trainable

# change of the matrix on (y, x) per unit: scales in parts, shear in parts, rotation in rad
SCAN = MappingProxyType(
    {
        "scan.scale": ((1.0, 0.0), (0.0, 1.0)),
        "scan.scale_y": ((1.0, 0.0), (0.0, 0.0)),
        "scan.scale_x": ((0.0, 0.0), (0.0, 1.0)),
        "scan.shear": ((0.0, 0.0), (1.0, 0.0)),
        "scan.rotation": ((0.0, -1.0), (1.0, 0.0)),
    }
)
DEFOCUS = "probe.defocus"
MAX_NUMBERS = 64  # each of which costs a pass over the patterns

Vector = Float[Array, "k"]


class GeometryNumbers(NamedTuple):
    """Some numbers of the geometry of a model, in physical units, as a vector."""

    scan: tuple[str, ...]
    defocus: tuple[str, ...]  # (DEFOCUS,) or ()
    paths: tuple[str, ...]
    entries: tuple[str, ...]  # names of the parameters that `paths` cover, one each

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every entry of the vector."""
        return self.scan + self.defocus + self.entries

    def moved(self, model: Model, by: Vector, about: Pair) -> Model:
        """The model with its numbers changed by a vector; a map of the scan keeps `about` [Å].

        Differentiable. The specimen follows a map of the scan, so that a feature remains at the
        position at which it was found.
        """
        of_scan, of_defocus, of_paths = jnp.split(
            by, [len(self.scan), len(self.scan) + len(self.defocus)]
        )
        if self.scan:
            generators = jnp.asarray([SCAN[name] for name in self.scan], by.dtype)
            matrix = jnp.eye(2, dtype=by.dtype) + jnp.tensordot(of_scan, generators, 1)
            specimen = map_specimen(model.specimen, model.grid, matrix, about)
            scan = model.scan.map_linearly(matrix, about)
            model = replace(model, scan=scan, specimen=specimen)
        if self.defocus:
            model = replace(model, probe=model.probe.propagate(model.grid, -of_defocus[0]))
        if self.paths:
            values, restore = ravel_pytree(chosen_parameters(trainable(model), self.paths))
            changed = restore(values + of_paths.astype(values.dtype))
            model = eqx.combine(changed, model)
        return model


def numbers_of(model: Model, names: Sequence[str]) -> GeometryNumbers:
    """The named numbers of a model.

    Raises ValueError for names that the model does not have, and for parameters that are not a few
    real numbers that all shots share.
    """
    paths = tuple(name for name in names if name not in SCAN and name != DEFOCUS)
    unknown = [p for p in paths if p.startswith("scan.")]
    if unknown or not names:
        raise ValueError(
            f"{unknown[0] if unknown else 'nothing'} was to be calibrated; the numbers of a scan "
            f"are {', '.join(SCAN)}"
        )
    chosen = chosen_parameters(trainable(model), paths) if paths else None
    leaves = jax.tree_util.tree_leaves_with_path(chosen)
    size = sum(leaf.size for _, leaf in leaves)
    if any(jax.tree.leaves(node) for node in _varying(chosen)):
        raise ValueError(
            f"{', '.join(paths)} differ from shot to shot or view to view; a calibration refines "
            "numbers that all share"
        )
    if size > MAX_NUMBERS or any(jnp.iscomplexobj(leaf) for _, leaf in leaves):
        raise ValueError(
            f"{', '.join(paths)} are {size} numbers; a calibration refines at most "
            f"{MAX_NUMBERS} real ones, such as probe.semiangle or detector.shift"
        )
    return GeometryNumbers(
        tuple(name for name in SCAN if name in names),
        (DEFOCUS,) * (DEFOCUS in names),
        paths,
        tuple(entry for path, leaf in leaves for entry in _entries(path_of(path), leaf.shape)),
    )


def values_of(model: Model, data: Dataset, numbers: GeometryNumbers) -> Float[np.ndarray, " k"]:
    """Values of the numbers; those of a scan are of the map from the positions of `data`.

    NaN for the defocus of a probe without aberrations.
    """
    values = []
    if numbers.scan:
        places = probe_positions(model)
        nominal = np.asarray(data.positions[0], float)
        away = nominal - nominal.mean(0)
        matrix = np.linalg.lstsq(away, places - places.mean(0), rcond=None)[0].T
        y, x, shear, turn = map_parameters(matrix)
        known = dict(zip(SCAN, (np.sqrt(np.linalg.det(matrix)), y, x, shear, turn), strict=True))
        values += [known[name] for name in numbers.scan]
    if numbers.defocus:
        values.append(-getattr(model.probe, "aberrations", {}).get("C10", np.nan))
    if numbers.paths:
        values += list(ravel_pytree(chosen_parameters(trainable(model), numbers.paths))[0])
    return np.asarray(values, float)


def _varying(tree: Any) -> list[Any]:
    """Nodes of a tree that differ from shot to shot or view to view."""

    def varies(node: Any) -> bool:
        return isinstance(node, (PerShot, PerView))

    return [node for node in jax.tree.leaves(tree, is_leaf=varies) if varies(node)]


def _entries(path: str, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [path]
    return [f"{path}[{', '.join(map(str, index))}]" for index in np.ndindex(shape)]


def chosen_parameters(params: Any, names: tuple[str, ...]) -> Any:
    """Parameters that `names` cover, None elsewhere. Raises ValueError for a name without any."""
    labels = named(params, names)
    require_parameters(params, set(names) - set(jax.tree.leaves(labels)))
    return jax.tree.map(lambda label, leaf: None if label == "frozen" else leaf, labels, params)
