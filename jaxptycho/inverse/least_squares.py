"""Small least-squares problems min ‖J x − r‖² by damped normal equations (Gauss–Newton).

For all that fits a few parameters: poses of views, Gaussians of peaks, registrations, planes. The
columns of J may have any units: damping is relative to the diagonal of JᵀJ (Marquardt, J. SIAM 11,
431 (1963)), and a parameter without effect stays where it is. Arrays of NumPy and JAX give arrays
of their kind; written for one problem, to be mapped over many.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

A = TypeVar("A", Array, np.ndarray)

MIN_DAMPING = 1e-9
MAX_DAMPING = 1e6
RETRY_DAMPING = 1e-3  # smallest after a step that failed


def normal_equations(
    columns: Num[A, " n *s"], residual: Num[A, "*s"], weight: Float[A, "*s"] | float = 1.0
) -> tuple[Float[A, "n n"], Float[A, " n"]]:
    """Re JᴴWJ and Re JᴴWr of the `columns` of J, each of the shape of the residual r."""
    xp = _namespace(columns)
    columns = columns.reshape(len(columns), -1)
    weighted = columns.conj() * xp.broadcast_to(weight, residual.shape).reshape(-1)
    with jax.default_matmul_precision("highest"):
        return xp.real(weighted @ columns.T), xp.real(weighted @ residual.reshape(-1))


def solve_damped(
    normal: Float[A, "n n"], right: Float[A, " n"], damping: Float[A, ""] | float = 0.0
) -> Float[A, " n"]:
    """Solution x of (N + damping·diag N) x = right; 0 for a parameter without effect (N_ii = 0)."""
    xp = _namespace(normal)
    diagonal = xp.diagonal(normal)
    some = diagonal > 0
    unit = xp.where(some, 1 / xp.sqrt(xp.where(some, diagonal, 1)), 0)
    scaled = unit[:, None] * normal * unit + xp.diag(xp.where(some, damping, 1))
    return unit * xp.linalg.solve(scaled, unit * right)


def fit_linear(
    columns: Num[A, " n *s"],
    values: Num[A, "*s"],
    weight: Float[A, "*s"] | float = 1.0,
    damping: float = 0.0,
) -> Float[A, " n"]:
    """Real coefficients of the combination of the `columns` that is closest to the values."""
    return solve_damped(*normal_equations(columns, values, weight), damping)


def adapt_damping(damping: Any, better: Any) -> Any:
    """Damping of the next step: a tenth after one that reduced the misfit, else ten times."""
    xp = _namespace(better)
    raised = xp.maximum(10 * damping, RETRY_DAMPING)
    return xp.clip(xp.where(better, damping / 10, raised), MIN_DAMPING, MAX_DAMPING)


def _namespace(array: Array | np.ndarray | np.generic | bool) -> Any:
    return jnp if isinstance(array, Array) else np
