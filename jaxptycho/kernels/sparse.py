"""Spline coefficients and products of sparse matrices with rows of an array, as JAX primitives.

A sparse matrix is `column` and `value` [group, term, row], with the same number of terms in every
row; rows form groups so that the terms of one row are near each other in memory, and neighbouring
rows beside each other. It comes with its transpose in the same form, so that a gradient need not be
scattered where that is slow; `cpu_llvm` does scatter, and needs only the matrix.
"""

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

from . import reference, selection
from .manual_axes import match_vma

Columns = Int[Array, "g t row"]
Values = Float[Array, "g t row"]
Source = Float[Array, "source c"]
Target = Float[Array, "g*row c"]


def spline_coefficients(values: Float[Array, "p q c"]) -> Float[Array, "p q c"]:
    """Coefficients of cubic B-splines along p and q, zero outside, that interpolate `values`."""
    return _SPLINE.bind(values)


def sparse_product(
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
    operands = match_vma(column, value, back_column, back_value, rows)
    return _PRODUCT.bind(*operands, back=False, planes=planes)


# splines


def _spline_batched(operands, axes):
    """Batching rule: a new axis is more columns."""
    (values,) = operands
    (axis,) = axes
    joined = jnp.moveaxis(values, axis, -1)
    found = _SPLINE.bind(joined.reshape(*joined.shape[:2], -1))
    return found.reshape(joined.shape), joined.ndim - 1


def _lower_spline(context, values):
    aval = context.avals_in[0]
    handlers = selection.cpu_llvm(aval.dtype)
    if handlers is None:
        return _SPLINE_BY_XLA(context, values)
    plan = handlers.Spline(*aval.shape, aval.dtype == jnp.float32)
    rule = jax.ffi.ffi_lowering(handlers.target_of(plan), operand_output_aliases={0: 0})
    return rule(context, values)


_SPLINE = Primitive("spline_coefficients")
_SPLINE_BY_XLA = mlir.lower_fun(reference.jnp_spline_coefficients, multiple_results=False)
_SPLINE.def_impl(jax.jit(_SPLINE.bind))
_SPLINE.def_abstract_eval(lambda values: values)
ad.deflinear2(_SPLINE, lambda cotangent, _: [_SPLINE.bind(cotangent)])  # a symmetric matrix
batching.primitive_batchers[_SPLINE] = _spline_batched
mlir.register_lowering(_SPLINE, _SPLINE_BY_XLA)
mlir.register_lowering(_SPLINE, _lower_spline, platform="cpu")


# products


def _shape(column, value, back_column, back_value, rows, *, back, planes):
    return rows.update(shape=(value.shape[0] * value.shape[2], rows.shape[1]))


def _plain(column, value, back_column, back_value, rows, *, back, planes):
    if back:
        return _coefficients(reference.jnp_sparse_product(column, value, rows), planes)
    return reference.jnp_sparse_product(column, value, _coefficients(rows, planes))


def _coefficients(rows, planes):
    if planes is None:
        return rows
    return spline_coefficients(rows.reshape(*planes, -1)).reshape(rows.shape)


def _derivative(primals, tangents, **how):
    of_value = tangents[1]
    of_rows = tangents[4]
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
    """Batching rule: more columns where the matrix is shared; else one after the other."""
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
    handlers = selection.cpu_llvm(context.avals_in[4].dtype)
    if handlers is None:
        return _PRODUCT_BY_XLA(context, *operands, back=back, planes=planes)
    if planes is not None and not back:
        by_parts = mlir.lower_fun(_of_coefficients, multiple_results=False)
        return by_parts(context, *operands, planes=planes)
    which = (2, 3, 4) if back else (0, 1, 4)
    of_matrix, _, rows = avals = [context.avals_in[i] for i in which]
    sources = (context.avals_out[0] if back else rows).shape[0]
    width = rows.shape[1]
    single = rows.dtype == jnp.float32
    plan = handlers.Product(*of_matrix.shape, sources, width, single, back, planes)
    rule = jax.ffi.ffi_lowering(handlers.target_of(plan))
    return rule(context.replace(avals_in=avals), *(operands[i] for i in which))


def _of_coefficients(*operands, planes):
    return _PRODUCT.bind(*operands[:4], _coefficients(operands[4], planes), back=False, planes=None)


_PRODUCT = Primitive("sparse_product")
_PRODUCT_BY_XLA = mlir.lower_fun(_plain, multiple_results=False)
_PRODUCT.def_impl(jax.jit(_PRODUCT.bind, static_argnames=("back", "planes")))
_PRODUCT.def_abstract_eval(_shape)
ad.primitive_jvps[_PRODUCT] = _derivative
ad.primitive_transposes[_PRODUCT] = _transposed
batching.primitive_batchers[_PRODUCT] = _batched
mlir.register_lowering(_PRODUCT, _PRODUCT_BY_XLA)
mlir.register_lowering(_PRODUCT, _lower_product, platform="cpu")
