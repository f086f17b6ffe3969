"""Fisher information of a model from counts, as an operator without a stored matrix.

Poisson counts of expectation M(θ) hold the information I = Jᵀ diag(1/M) J about θ, with
J = ∂M/∂θ (Kay, *Estimation Theory*, ch. 3; for ptychography Wei, Urbach & Coene, Phys. Rev. A
102, 043516 (2020)). Prior knowledge adds its precision (Van Trees, *Detection,
Estimation, and Modulation Theory*, §2.4). Vectors are real and in the natural units of
`inverse.solvers.parameter_scaling`, a complex parameter is its real and its imaginary part.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from ..inverse.solvers.parameter_scaling import natural_units
from ..inverse.step import named, trainable
from ..model import Model, predict
from ..parts.indexed import PerShot, PerView, axis_size, select

AT_ONCE = 16  # vectors that the operator processes together
Vector = Float[Array, "n"]


class Fisher(eqx.Module):
    """Fisher information of some parameters of a model, a symmetric operator on vectors.

    A vector is the concatenation of the chosen parameters; `tree` restores their structure.
    """

    model: Model
    chosen: Model  # the parameters in question, None elsewhere
    units: Vector  # physical size of every entry of a vector
    precision: Vector  # of the prior
    exposure: Float[Array, ""]  # factor on all expected counts
    views: Int[Array, " chunk"]
    shots: Int[Array, "chunk b"]
    weight: Float[Array, "chunk b"]

    def product(self, vector: Vector) -> Vector:
        """Product (I + prior)·vector."""
        return self._pulled(lambda push, _: push(vector)) + self.precision * vector

    def score(self, key: Any) -> Vector:
        """Random vector of covariance I + prior: the score of the log-likelihood under simulated
        noise.
        """
        of_counts, of_prior = jax.random.split(key)

        def noise(push: Callable, number: Any) -> Any:
            shape = jax.eval_shape(push, self.units)
            return jax.random.normal(
                jax.random.fold_in(of_counts, number), shape.shape, shape.dtype
            )

        prior = jax.random.normal(of_prior, self.units.shape, self.units.dtype)
        return self._pulled(noise) + jnp.sqrt(self.precision) * prior

    def moved(self, vector: Vector) -> Model:
        """The model with its chosen parameters moved by a vector."""
        return eqx.combine(
            jax.tree.map(jnp.add, self.chosen, self.tree(self.units * vector)), self.model
        )

    def tree(self, values: Float[Array | np.ndarray, " n"]) -> Model:
        """Entries of a vector in the structure of the parameters, without a change of units.

        A complex parameter is the entry of its real part + i that of its imaginary part.
        """
        parts = ravel_pytree(_real_parts(self.chosen))[1](jnp.asarray(values, self.units.dtype))

        def whole(like: Any, value: Any) -> Any:
            return jax.lax.complex(value[0], value[1]) if jnp.iscomplexobj(like) else value

        return jax.tree.map(whole, self.chosen, parts)

    def linear(self, chunk: Any) -> Any:
        """Expected counts of a chunk of shots, and K = diag(1/√M) J as a function of a vector."""
        view, shots, weight = chunk
        nothing = jnp.zeros_like(self.units)
        expected, push = jax.linearize(
            lambda vector: predict(self.moved(vector), shots, view), nothing
        )
        # below it counts are rounding errors
        least = jnp.finfo(expected.dtype).eps * jnp.max(expected) + 1e-30
        root = jnp.sqrt(self.exposure * weight[:, None, None] / jnp.maximum(expected, least))
        return expected, lambda vector: root * push(vector)

    @property
    def chunks(self) -> Any:
        """View, shots and weights of every chunk that is processed at once."""
        return self.views, self.shots, self.weight

    def _pulled(self, seen):
        """Sum over the chunks of Kᵀ seen(K, number of the chunk)."""

        def add(total: Any, numbered: Any) -> Any:
            number, chunk = numbered
            push = self.linear(chunk)[1]
            (back,) = jax.linear_transpose(push, self.units)(seen(push, number))
            return total + back, None

        return jax.lax.scan(
            add, jnp.zeros_like(self.units), (jnp.arange(len(self.views)), self.chunks)
        )[0]


class Probed(NamedTuple):
    """A diagonal estimated by random probes, and the standard error of every entry."""

    value: Model
    error: Model


def fisher(
    model: Model,
    *names: str,
    shots: Sequence | None = None,
    dose: float | None = None,
    prior: Mapping[str, float] | None = None,
    size: int = 16,
) -> Fisher:
    """Fisher information of the parameters that `names` cover, paths as for
    `inverse.step.per_part`.

    `fisher(model, "specimen.phase", "probe", dose=1e4)`. Of all shots or `shots`, a list over
    views, in chunks of `size`. `dose` [quanta per shot, detected] scales all patterns equally
    to that mean, including their background. `prior` maps paths to the standard
    deviation of the prior of their parameters.
    """
    params = trainable(model)
    chosen = _covered(params, names, "take the information of")
    units = _filled(chosen, natural_units(params))
    precision = _precision(chosen, units, prior or {})
    chunks = _chunks(_every_shot(model) if shots is None else shots, size, units.dtype)
    information = Fisher(model, chosen, units, precision, jnp.ones((), units.dtype), *chunks)
    if dose is None:
        return information
    return eqx.tree_at(
        lambda i: i.exposure, information, (dose / _mean_dose(information)).astype(units.dtype)
    )


def matrix(information: Fisher) -> Float[np.ndarray, "n n"]:
    """Every entry of the information (with the prior), natural units; for small models."""
    return np.asarray(_matrix(information), float)


def diagonal(information: Fisher, probes: int = 64, seed: int = 0) -> Probed:
    """Information of every parameter for known others [1/unit²], by random signs.

    E[z·(I z)] = diag I for z = ±1 (Bekas, Kokiopoulou & Saad 2007).
    """
    if probes < 2:
        raise ValueError(f"{probes} probes have no spread; give at least 2")
    found = _probed(information, jax.random.split(jax.random.key(seed), probes))
    value = jnp.mean(found, 0)
    error = jnp.std(found, 0, ddof=1) / jnp.sqrt(probes)
    return Probed(*(information.tree(v / information.units**2) for v in (value, error)))


@eqx.filter_jit
def _mean_dose(information):
    def total(chunk: Any) -> Any:
        return jnp.sum(chunk[2] * jnp.sum(information.linear(chunk)[0], (1, 2)))

    return jnp.sum(jax.lax.map(total, information.chunks)) / jnp.sum(information.weight)


@eqx.filter_jit
def _matrix(information):
    every = jnp.eye(len(information.units), dtype=information.units.dtype)

    def add(total: Any, chunk: Any) -> Any:
        columns = jax.lax.map(information.linear(chunk)[1], every, batch_size=AT_ONCE).reshape(
            len(every), -1
        )
        return total + jnp.matmul(columns, columns.T, precision="highest"), None

    return jax.lax.scan(add, jnp.diag(information.precision), information.chunks)[0]


@eqx.filter_jit
def _probed(information, keys):
    def probe(key: Any) -> Any:
        signs = jax.random.rademacher(key, information.units.shape, information.units.dtype)
        return signs * information.product(signs)

    return jax.lax.map(probe, keys, batch_size=AT_ONCE)


def _real_parts(tree):
    return jax.tree.map(lambda z: jnp.stack([z.real, z.imag]) if jnp.iscomplexobj(z) else z, tree)


def _filled(chosen, scalars) -> Vector:
    """Vector with the corresponding scalar of `scalars` for every parameter of `chosen`."""

    def fill(leaf: Any, scalar: Any) -> Any:
        if leaf is None:
            return None
        return jnp.full((1 + jnp.iscomplexobj(leaf), *leaf.shape), scalar, leaf.real.dtype)

    return ravel_pytree(jax.tree.map(fill, chosen, scalars, is_leaf=lambda node: node is None))[0]


def _covered(params, names, wanted):
    """Parameters that `names` cover, None elsewhere; every name must cover at least one."""
    labels = named(params, names)
    unused = set(names) - set(jax.tree.leaves(labels))
    if unused or not names:
        parts = [field for field in params.__dataclass_fields__ if field != "grid"]
        name = repr(sorted(unused)[0]) if unused else "without a name"
        raise ValueError(
            f"the model has no parameter {name} to {wanted}; its parts are {', '.join(parts)}"
        )
    return jax.tree.map(lambda label, leaf: None if label == "frozen" else leaf, labels, params)


def _precision(chosen, units, prior) -> Vector:
    """Precision 1/σ² of the prior in natural units; a complex deviation is shared by both
    components.
    """
    if not all(deviation > 0 for deviation in prior.values()):
        raise ValueError(
            f"the prior is {dict(prior)}; give positive standard deviations (leave out what is "
            "unknown)"
        )
    if not prior:
        return jnp.zeros_like(units)
    _covered(chosen, tuple(prior), "have a prior of")

    def of_component(label: Any, leaf: Any) -> Any:
        return prior.get(label, np.inf) ** -2 * (2 if jnp.iscomplexobj(leaf) else 1)

    return (
        _filled(chosen, jax.tree.map(of_component, named(chosen, tuple(prior)), chosen)) * units**2
    )


def _every_shot(model):
    views = axis_size(model, PerView)
    shots = axis_size(select(model, PerView, 0), PerShot)
    return [np.arange(shots)] * views


def _chunks(shots, size, dtype):
    """Shots of every view as chunks of one size, padded with weight 0."""
    if not all(np.ndim(mine) == 1 for mine in shots) or not any(len(mine) for mine in shots):
        raise ValueError(
            f"the shots are {shots}; give a list over views of lists of shots, with at least one "
            "shot"
        )
    size = min(size, max(len(mine) for mine in shots))
    views = []
    chunks = []
    weights = []
    for view, mine in enumerate(shots):
        for start in range(0, len(mine), size):
            part = np.asarray(mine[start : start + size], np.int32)
            padding = size - len(part)
            views.append(view)
            chunks.append(np.pad(part, (0, padding), mode="edge"))
            weights.append(np.pad(np.ones(len(part)), (0, padding)))
    return (
        jnp.asarray(views, jnp.int32),
        jnp.asarray(np.stack(chunks)),
        jnp.asarray(np.stack(weights), dtype),
    )
