"""Linear tomography: volumes from projections that depend linearly on them.

All solvers minimise ½ Σ w·(A V + N c − p)² over the volume V, where A is any linear map to images
[view, y, x] (a `Projector`), p the measured images, w their weights (1/variance; 0 where nothing is
known), and N c the part of every view that is left `free`: nothing, a constant, or a plane. The
best c is always projected out (variable projection, Golub & Pereyra, SIAM J. Numer. Anal. 10, 413
(1973)); a given basis [view, n, y, x] is accepted too. Each solver is one compiled program, and
differentiable.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..inverse.denoising import tv_step
from ..inverse.least_squares import fit_linear
from ..physics.types import Numbers, Stack
from .projections import Images

Free = Literal["nothing", "constant", "plane"] | Float[Array, "view n y x"]
REGULARISATION = 1e-6  # of the fit of the free part


class Solution(NamedTuple):
    """Volume and the course of its misfit."""

    volume: Stack
    residuals: Float[Array, " iteration"]  # weighted rms, at the beginning of every iteration


class _Problem(eqx.Module):
    """Operator and data of a solver, with the products that all solvers require."""

    operator: Callable
    measured: Images
    weights: Images
    support: Stack  # 1 or 0
    basis: Float[Array, "view n y x"]  # of the free part

    def misfit(self, volume: Stack) -> Images:
        """Measured minus projected, without the free part."""
        return project_out(self.measured - self.operator(volume), self.weights, self.basis)

    def seen(self, volume: Stack) -> Images:
        """Projections without the free part."""
        return project_out(self.operator(volume), self.weights, self.basis)

    def back(self, images: Images) -> Stack:
        """Aᵀ w images, inside the support."""
        return self.support * adjoint((self.operator, self.weights * images), self.support)

    def rms(self, images: Images) -> Float[Array, ""]:
        return jnp.sqrt(_ratio(jnp.sum(self.weights * images**2), jnp.sum(self.weights)))


@eqx.filter_custom_vjp
def adjoint(mapped: tuple[Callable, Images], like: Stack) -> Stack:
    """Aᵀ images of `mapped` = (A, images), a volume of the shape of `like`.

    Its derivative by A comes from ⟨V, Aᵀ images⟩ = ⟨A V, images⟩: in reverse mode only.
    """
    operator, images = mapped
    return jax.vjp(operator, jnp.zeros_like(like))[1](images)[0]


@adjoint.def_fwd
def _adjoint_forward(perturbed, mapped, like):
    del perturbed
    return adjoint(mapped, like), None


@adjoint.def_bwd
def _adjoint_backward(residuals, cotangent, perturbed, mapped, like):
    del residuals, perturbed, like
    operator, images = mapped
    seen, pull = eqx.filter_vjp(lambda operator: operator(cotangent), operator)
    return pull(images)[0], seen


def _problem(operator, measured, start, weights, support, free) -> _Problem:
    measured = jnp.asarray(measured, start.dtype)
    weights = (
        jnp.ones_like(measured)
        if weights is None
        else _spread(jnp.asarray(weights, start.dtype), measured)
    )
    support = jnp.ones_like(start) if support is None else jnp.asarray(support).astype(start.dtype)
    return _Problem(operator, measured, weights, support, basis_of(free, measured))


def _spread(weights, measured):
    """Weights of every pixel, also from those of views."""
    if weights.shape not in (measured.shape, measured.shape[:1]):
        raise ValueError(
            f"weights of shape {weights.shape} came with projections of {measured.shape}; give "
            "one for each view, or one for each pixel of each view"
        )
    return jnp.broadcast_to(
        weights.reshape(*weights.shape, *(1,) * (3 - weights.ndim)), measured.shape
    )


def basis_of(free: Free, measured: Images) -> Float[Array, "view n y x"]:
    """Basis of the free part of every view: empty, a constant, a plane, or the given one."""
    if not isinstance(free, str):
        return free
    y, x = jnp.meshgrid(
        *(jnp.linspace(-1, 1, n, dtype=measured.dtype) for n in measured.shape[1:]), indexing="ij"
    )
    basis = jnp.stack([jnp.ones_like(y), y, x])[: {"nothing": 0, "constant": 1, "plane": 3}[free]]
    return jnp.broadcast_to(basis, (len(measured), *basis.shape))


@jax.jit
def project_out(images: Images, weights: Images, basis: Float[Array, "view n y x"]) -> Images:
    """Images minus their component in the basis, by weighted least squares."""
    if not basis.shape[1]:
        return images

    def one(image: Any, weight: Any, basis: Any) -> Array:
        return image - jnp.tensordot(fit_linear(basis, image, weight, REGULARISATION), basis, 1)

    return jax.vmap(one)(images, weights, basis)


@eqx.filter_jit
def sirt(
    operator: Callable,
    measured: Images,
    start: Stack,
    iterations: int = 50,
    *,
    weights: Numbers | None = None,
    support: Numbers | None = None,
    positive: bool = False,
    free: Free = "nothing",
    relaxation: float = 1.0,
) -> Solution:
    """Return the volume after SIRT: V ← V + λ·C Aᵀ w R (p − A V), with R = 1/A1 and C = 1/Aᵀw1.

    Source: Gilbert, J. Theor. Biol. 36, 105 (1972). Slow and robust: noise converges last. `start`
    gives the shape of the volume and its initial values.
    """
    problem = _problem(operator, measured, start, weights, support, free)
    lengths = operator(jnp.ones_like(start))
    rows = _inverse(lengths)
    scaled = eqx.tree_at(lambda p: p.weights, problem, problem.weights * rows)
    columns = _inverse(problem.back(jnp.ones_like(lengths)))

    def step(volume: Stack, _: None) -> tuple[Stack, Array]:
        misfit = scaled.misfit(volume)
        volume = volume + relaxation * columns * scaled.back(misfit)
        return _positive(volume, positive), problem.rms(misfit)

    return Solution(*jax.lax.scan(jax.checkpoint(step), start * problem.support, None, iterations))


def _inverse(values):
    """1/values, and 0 where they nearly vanish."""
    some = values > 1e-3 * jnp.max(values)
    return jnp.where(some, 1 / jnp.where(some, values, 1), 0)


def _positive(volume, positive):
    return jnp.maximum(volume, 0) if positive else volume


@eqx.filter_jit
def cgls(
    operator: Callable,
    measured: Images,
    start: Stack,
    iterations: int = 20,
    *,
    weights: Numbers | None = None,
    support: Numbers | None = None,
    free: Free = "nothing",
    damping: float = 0.0,
) -> Solution:
    """Return the volume after conjugate gradients for least squares.

    Source: Björck, *Numerical Methods for Least Squares Problems*, §7.4. Fast, with more noise:
    stop early, or give `damping`, the weight of ½‖V‖². Positivity is not supported.
    """
    problem = _problem(operator, measured, start, weights, support, free)
    volume = start * problem.support
    misfit = problem.misfit(volume)
    descent = problem.back(misfit) - damping * volume

    def step(state: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], Array]:
        volume, misfit, descent, direction, square = state
        seen = problem.seen(direction)
        curvature = jnp.sum(problem.weights * seen**2) + damping * jnp.sum(direction**2)
        # the exact minimum along the direction: ‖descent‖²/curvature overshoots, and diverges, once
        # rounding alone is left in the descent
        length = _ratio(jnp.sum(descent * direction), curvature)
        volume = volume + length * direction
        after = misfit - length * seen
        descent = problem.back(after) - damping * volume
        new = jnp.sum(descent**2)
        return (
            volume,
            after,
            descent,
            descent + _ratio(new, square) * direction,
            new,
        ), problem.rms(misfit)

    begin = (volume, misfit, descent, descent, jnp.sum(descent**2))
    (volume, *_), residuals = jax.lax.scan(jax.checkpoint(step), begin, None, iterations)
    return Solution(volume, residuals)


def _ratio(a, b):
    """a/b, and 0 once both have vanished."""
    some = b > jnp.finfo(b.dtype).tiny
    return jnp.where(some, a / jnp.where(some, b, 1), 0)


@eqx.filter_jit
def fista(
    operator: Callable,
    measured: Images,
    start: Stack,
    iterations: int = 50,
    *,
    weights: Numbers | None = None,
    support: Numbers | None = None,
    positive: bool = True,
    free: Free = "nothing",
    tv: float = 0.0,
) -> Solution:
    """Return a non-negative volume of small total variation, `tv`·Σ|∇V| added to the misfit.

    Accelerated proximal gradients (Beck & Teboulle, SIAM J. Imaging Sci. 2, 183 (2009)), restarted
    where the momentum leads uphill (O'Donoghue & Candès 2015). The step length comes from
    ‖AᵀwA‖ ≤ max AᵀwA1.
    """
    problem = _problem(operator, measured, start, weights, support, free)
    # the cubic kernel is a little negative
    bound = 1.05 * jnp.max(problem.back(operator(problem.support)))
    bound = jnp.where(bound > 0, bound, 1)  # without any weight

    def near(volume: Stack, dual: Array) -> tuple[Stack, Array]:
        if tv:
            return tv_step(volume, tv / bound, dual, problem.support, positive)
        return problem.support * _positive(volume, positive), dual

    def step(state: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], Array]:
        volume, ahead, dual, t = state
        misfit = problem.misfit(ahead)
        new, dual = near(ahead + problem.back(misfit) / bound, dual)
        uphill = jnp.sum((ahead - new) * (new - volume)) > 0
        t = jnp.where(uphill, jnp.ones_like(t), t)
        following = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return (new, new + (t - 1) / following * (new - volume), dual, following), problem.rms(
            misfit
        )

    volume = _positive(start * problem.support, positive)
    begin = (volume, volume, jnp.zeros((3, *start.shape), start.dtype), jnp.ones((), start.dtype))
    (volume, *_), residuals = jax.lax.scan(jax.checkpoint(step), begin, None, iterations)
    return Solution(volume, residuals)
