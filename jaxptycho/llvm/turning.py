"""What turns a volume, as primitives of JAX: spline coefficients, and sparse matrices that act on rows of an array.

A sparse matrix is `column` and `value` [group, term, row], as many terms in every row; rows stand in groups so that the
terms of one row lie near each other in memory, and neighbouring rows beside each other. It comes with its transpose in the same
form, so that a gradient need not be scattered where that is slow; the code of our own does scatter, and needs no more
than the matrix itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

from .manual_axes import match_vma
from .transforms import by_own_code

AT_ONCE = 16  # terms in one pass over memory

Columns = Int[Array, "g t row"]
Values = Float[Array, "g t row"]
Source = Float[Array, "source c"]
Target = Float[Array, "g*row c"]


def spline(values: Float[Array, "p q c"]) -> Float[Array, "p q c"]:
    """Coefficients of cubic B-splines along p and q, zero outside, whose sums are `values` in the samples."""
    return _SPLINE.bind(values)


def product(
    column: Columns,
    value: Values,
    back_column: Int[Array, "h u source"],
    back_value: Float[Array, "h u source"],
    rows: Float[Array, "h*source c"],
    planes: tuple[int, int] | None = None,
) -> Target:
    """Σ_t value[g, t]·rows[column[g, t]], the matrix times `rows`; `back` is the matrix transposed.

    Where `rows` are `planes` (p, q), the matrix acts on their spline coefficients.

    Differentiable in `value` and `rows`, forwards and backwards.
    """
    column, back_column = (numbers.astype(jnp.int32) for numbers in (column, back_column))
    return _PRODUCT.bind(*match_vma(column, value, back_column, back_value, rows), back=False, planes=planes)


def gather(column: Columns, value: Values, rows: Source) -> Target:
    """As `product`, by jax.numpy: some terms at a time, more than once, since what enters a loop is computed before it."""
    column, value = (array.swapaxes(0, 1).reshape(array.shape[1], -1) for array in (column, value))
    at_once = max(n for n in range(1, AT_ONCE + 1) if len(column) % n == 0 and n < max(2, len(column)))

    @jax.checkpoint
    def add(total, own):
        taken = (v[:, None] * rows.at[c].get(mode="promise_in_bounds") for c, v in zip(*own, strict=True))
        return sum(taken, total), None

    groups = tuple(array.reshape(-1, at_once, array.shape[1]) for array in (column, value))
    return jax.lax.scan(add, 0 * value[0][:, None] * rows[0], groups)[0]


# splines


def _by_inverses(values):
    p, q = (jnp.asarray(_inverse(n), values.dtype) for n in values.shape[:2])
    by_rows = jnp.einsum("ab,bqc->aqc", p, values, precision="highest")
    return jnp.einsum("ab,pbc->pac", q, by_rows, precision="highest")


def _inverse(n: int) -> np.ndarray:
    return np.linalg.inv((4 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)) / 6)


def _spline_batched(operands, axes):
    """A new axis is but more columns."""
    (values,), (axis,) = operands, axes
    joined = jnp.moveaxis(values, axis, -1)
    return _SPLINE.bind(joined.reshape(*joined.shape[:2], -1)).reshape(joined.shape), joined.ndim - 1


def _lower_spline(context, values):
    aval = context.avals_in[0]
    if not by_own_code():
        return mlir.lower_fun(_by_inverses, multiple_results=False)(context, values)
    from . import handlers

    plan = handlers.Spline(aval.shape[0], aval.shape[1], aval.shape[2], aval.dtype == jnp.float32)
    return jax.ffi.ffi_lowering(handlers.target_of(plan), operand_output_aliases={0: 0})(context, values)


_SPLINE = Primitive("spline_coefficients")
_SPLINE.def_impl(jax.jit(_SPLINE.bind))
_SPLINE.def_abstract_eval(lambda values: values)
ad.deflinear2(_SPLINE, lambda cotangent, _: [_SPLINE.bind(cotangent)])  # a symmetric matrix
batching.primitive_batchers[_SPLINE] = _spline_batched
mlir.register_lowering(_SPLINE, mlir.lower_fun(_by_inverses, multiple_results=False))
mlir.register_lowering(_SPLINE, _lower_spline, platform="cpu")


# products


def _shape(column, value, back_column, back_value, rows, *, back, planes):
    return rows.update(shape=(value.shape[0] * value.shape[2], rows.shape[1]))


def _plain(column, value, back_column, back_value, rows, *, back, planes):
    if back:
        return _coefficients(gather(column, value, rows), planes)
    return gather(column, value, _coefficients(rows, planes))


def _coefficients(rows, planes):
    return rows if planes is None else spline(rows.reshape(*planes, -1)).reshape(rows.shape)


def _derivative(primals, tangents, **how):
    of_value, of_rows = tangents[1], tangents[4]
    parts = []
    if not isinstance(of_value, ad.Zero):
        parts.append(_plain(primals[0], of_value, *primals[2:], **how))
    if not isinstance(of_rows, ad.Zero):
        parts.append(_PRODUCT.bind(*match_vma(*primals[:4], of_rows), **how))
    return _PRODUCT.bind(*primals, **how), sum(parts[1:], parts[0])


def _transposed(cotangent, column, value, back_column, back_value, rows, *, back, planes):
    operands = match_vma(back_column, back_value, column, value, cotangent)
    return [None] * 4 + [_PRODUCT.bind(*operands, back=not back, planes=planes)]


def _batched(operands, axes, **how):
    """More columns where the matrix is shared; else one after the other."""
    *matrix, rows = operands
    if all(axis is None for axis in axes[:-1]):
        joined = jnp.moveaxis(rows, axes[-1], -1)
        found = _PRODUCT.bind(*matrix, joined.reshape(len(joined), -1), **how)
        return found.reshape(len(found), *joined.shape[1:]), joined.ndim - 1
    size = next(a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None)
    moved = tuple(
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(operands, axes, strict=True)
    )
    return jax.lax.map(lambda own: _PRODUCT.bind(*own, **how), moved), 0


def _lower_product(context, *operands, back, planes):
    if not by_own_code():
        return mlir.lower_fun(_plain, multiple_results=False)(context, *operands, back=back, planes=planes)
    if planes is not None and not back:
        return mlir.lower_fun(_of_coefficients, multiple_results=False)(context, *operands, planes=planes)
    from . import handlers

    of_matrix, rows = context.avals_in[2 if back else 0], context.avals_in[4]
    (groups, terms, count), sources = of_matrix.shape, context.avals_out[0].shape[0] if back else rows.shape[0]
    plan = handlers.Product(groups, terms, count, sources, rows.shape[1], rows.dtype == jnp.float32, back, planes)
    which = (2, 3, 4) if back else (0, 1, 4)
    rule = jax.ffi.ffi_lowering(handlers.target_of(plan))
    return rule(context.replace(avals_in=[context.avals_in[i] for i in which]), *(operands[i] for i in which))


def _of_coefficients(*operands, planes):
    return _PRODUCT.bind(*operands[:4], _coefficients(operands[4], planes), back=False, planes=None)


_PRODUCT = Primitive("sparse_product")
_PRODUCT.def_impl(jax.jit(_PRODUCT.bind, static_argnames=("back", "planes")))
_PRODUCT.def_abstract_eval(_shape)
ad.primitive_jvps[_PRODUCT] = _derivative
ad.primitive_transposes[_PRODUCT] = _transposed
batching.primitive_batchers[_PRODUCT] = _batched
mlir.register_lowering(_PRODUCT, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(_PRODUCT, _lower_product, platform="cpu")
