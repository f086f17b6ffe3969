"""From projections to a volume, where both depend linearly on one another.

All solvers minimise ½ Σ w·(A V + N c − p)² over the volume V, where A is any linear map to images [view, y, x]
(a `Projector`), p what was measured, w its weights (1/variance; 0 where nothing is known), and N c what of every
view is left `free`: nothing, a constant, or a plane. The best c is always taken out (variable projection, Golub &
Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)); a basis [view, n, y, x] of one's own is as good. Each solver is one compiled program, and differentiable.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..physics.types import Stack
from .projections import Images

Free = Literal["nothing", "constant", "plane"] | Float[Array, "view n y x"]
TV_STEPS = 10  # of the dual in every iteration, which goes on where it was


class Solution(NamedTuple):
    """A volume, and how the fit went."""

    volume: Stack
    residuals: Float[Array, " iteration"]  # weighted rms, at the beginning of every iteration


class _Problem(eqx.Module):
    """The operator and the data, with what all solvers want of them."""

    operator: Callable
    measured: Images
    weights: Images
    support: Stack  # 1 or 0
    basis: Float[Array, "view n y x"]  # of what is free

    def misfit(self, volume) -> Images:
        """Measured less projected, less what is free."""
        return project_out(self.measured - self.operator(volume), self.weights, self.basis)

    def seen(self, volume) -> Images:
        """The projections, less what is free."""
        return project_out(self.operator(volume), self.weights, self.basis)

    def back(self, images) -> Stack:
        """Aᵀ w images, inside the support."""
        return self.support * adjoint((self.operator, self.weights * images), self.support)

    def rms(self, images) -> Float[Array, ""]:
        return jnp.sqrt(_ratio(jnp.sum(self.weights * images**2), jnp.sum(self.weights)))


@eqx.filter_custom_vjp
def adjoint(mapped, like: Stack) -> Stack:
    """Aᵀ images of `mapped` = (A, images), a volume as large as `like`.

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
    """Weights of every pixel, from those of views, too."""
    if weights.shape not in (measured.shape, measured.shape[:1]):
        raise ValueError(
            f"weights of shape {weights.shape} came with projections of {measured.shape}; give one for each view, "
            "or one for each pixel of each view"
        )
    return jnp.broadcast_to(
        weights.reshape(*weights.shape, *(1,) * (3 - weights.ndim)), measured.shape
    )


def basis_of(free: Free, measured: Images) -> Float[Array, "view n y x"]:
    """What is left free of every view: nothing, a constant, a plane, or what the basis shows."""
    if not isinstance(free, str):
        return free
    y, x = jnp.meshgrid(
        *(jnp.linspace(-1, 1, n, dtype=measured.dtype) for n in measured.shape[1:]), indexing="ij"
    )
    basis = jnp.stack([jnp.ones_like(y), y, x])[: {"nothing": 0, "constant": 1, "plane": 3}[free]]
    return jnp.broadcast_to(basis, (len(measured), *basis.shape))


def project_out(images: Images, weights: Images, basis: Float[Array, "view n y x"]) -> Images:
    """Every image less what of it the basis can show, by weighted least squares."""
    if not basis.shape[1]:
        return images

    def one(image, weight, basis):
        normal = jnp.einsum("ayx,yx,byx->ab", basis, weight, basis, precision="highest")
        right = jnp.einsum("ayx,yx,yx->a", basis, weight, image, precision="highest")
        size = jnp.sqrt(jnp.diag(normal))  # 0 for a view of no weight at all
        unit = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0)
        scaled = unit[:, None] * normal * unit + 1e-6 * jnp.eye(len(basis), dtype=image.dtype)
        return image - jnp.tensordot(unit * jnp.linalg.solve(scaled, unit * right), basis, 1)

    return jax.vmap(one)(images, weights, basis)


@eqx.filter_jit
def sirt(
    operator: Callable,
    measured: Images,
    start: Stack,
    iterations: int = 50,
    *,
    weights=None,
    support=None,
    positive: bool = False,
    free: Free = "nothing",
    relaxation: float = 1.0,
) -> Solution:
    """The volume after V ← V + λ·C Aᵀ w R (p − A V), with R = 1/A1 and C = 1/Aᵀw1 (Gilbert, J. Theor. Biol. 36, 105 (1972)).

    Slow and mild: noise comes last. `start` tells the shape of the volume, and where it begins.
    """
    problem = _problem(operator, measured, start, weights, support, free)
    lengths = operator(jnp.ones_like(start))
    rows = _inverse(lengths)
    scaled = eqx.tree_at(lambda p: p.weights, problem, problem.weights * rows)
    columns = _inverse(problem.back(jnp.ones_like(lengths)))

    def step(volume, _):
        misfit = scaled.misfit(volume)
        volume = volume + relaxation * columns * scaled.back(misfit)
        return _positive(volume, positive), problem.rms(misfit)

    return Solution(*jax.lax.scan(jax.checkpoint(step), start * problem.support, None, iterations))


def _inverse(values):
    """1/values, and 0 where they are next to nothing."""
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
    weights=None,
    support=None,
    free: Free = "nothing",
    damping: float = 0.0,
) -> Solution:
    """The volume by conjugate gradients for least squares (Björck, *Numerical Methods for Least Squares Problems*, §7.4).

    Fast, with noise to match: stop early, or give `damping`, the weight of ½‖V‖². Positivity is not for it.
    """
    problem = _problem(operator, measured, start, weights, support, free)
    volume = start * problem.support
    misfit = problem.misfit(volume)
    descent = problem.back(misfit) - damping * volume

    def step(state, _):
        volume, misfit, descent, direction, square = state
        seen = problem.seen(direction)
        curvature = jnp.sum(problem.weights * seen**2) + damping * jnp.sum(direction**2)
        length = _ratio(square, curvature)
        volume, after = volume + length * direction, misfit - length * seen
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
    weights=None,
    support=None,
    positive: bool = True,
    free: Free = "nothing",
    tv: float = 0.0,
) -> Solution:
    """The volume that is also the smoothest, with `tv`·Σ|∇V| added to the misfit, and nowhere negative.

    Accelerated proximal gradients (Beck & Teboulle, SIAM J. Imaging Sci. 2, 183 (2009)), that begin anew where
    the momentum leads uphill (O'Donoghue & Candès 2015). The step comes from ‖AᵀwA‖ ≤ max AᵀwA1.
    """
    problem = _problem(operator, measured, start, weights, support, free)
    bound = 1.05 * jnp.max(
        problem.back(operator(problem.support))
    )  # the cubic kernel is a little negative
    bound = jnp.where(bound > 0, bound, 1)  # without any weight

    def near(volume, dual):
        if tv:
            return tv_step(volume, tv / bound, dual, problem.support, positive)
        return problem.support * _positive(volume, positive), dual

    def step(state, _):
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


def total_variation_of(volume: Stack) -> Float[Array, ""]:
    """Σ|∇V| with the differences between neighbours [V] (isotropic; Rudin, Osher & Fatemi 1992)."""
    return jnp.sum(jnp.sqrt(jnp.sum(_gradient(volume) ** 2, 0)))


def tv_step(
    volume: Stack,
    weight,
    dual,
    support: Stack | float = 1.0,
    positive: bool = False,
    iterations: int = TV_STEPS,
):
    """argmin ½‖U − V‖² + weight·Σ|∇U| over U in the support (and ≥ 0), and the dual, from which it can go on.

    Fast gradient projection of the dual (Beck & Teboulle, IEEE Trans. Image Process. 18, 2419 (2009)).
    """

    def primal(dual):
        return support * _positive(volume - weight * _gradient_transposed(dual), positive)

    def step(state, _):
        dual, ahead, t = state
        new = ahead + _gradient(primal(ahead)) / (12 * weight)
        new = new / jnp.maximum(1, jnp.sqrt(jnp.sum(new**2, 0) + jnp.finfo(new.dtype).tiny))
        following = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return (new, new + (t - 1) / following * (new - dual), following), None

    (dual, _, _), _ = jax.lax.scan(step, (dual, dual, jnp.ones((), volume.dtype)), None, iterations)
    return primal(dual), dual


def _gradient(volume):
    """Differences to the next voxel along z, y, x; none at the far face."""
    return jnp.stack([jnp.diff(volume, axis=a, append=_last(volume, a)) for a in range(3)])


def _last(volume, axis):
    return jax.lax.slice_in_dim(volume, volume.shape[axis] - 1, None, axis=axis)


def _gradient_transposed(dual):
    return jax.vjp(_gradient, jnp.zeros_like(dual[0]))[1](dual)[0]
