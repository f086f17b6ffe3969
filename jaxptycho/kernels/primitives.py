"""Operations on planes as primitives of JAX: linear in each operand, mapped over any axes, and
lowered to an accelerator of the platform or to `reference`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from . import operations, reference, selection
from .manual_axes import match_vma

MAX_PIXELS = 2**18  # of a plane that still fits the caches with its working space


def operation(kind: str) -> Primitive:
    """Primitive of one of `operations.OPERANDS`, lowered for every platform."""
    one = primitive(kind, operations.OPERANDS[kind], operations.results(kind))
    plain = getattr(reference, f"jnp_{kind}")
    on_gpu = partial(plain, ifft=reference.unscaled_ifft2) if _inverts(kind) else plain
    by_xla = mlir.lower_fun(plain, multiple_results=one.multiple_results)
    by_gpu_libraries = mlir.lower_fun(on_gpu, multiple_results=one.multiple_results)
    mlir.register_lowering(one, by_xla)
    mlir.register_lowering(one, partial(_lower_for_cpu, kind, by_xla), platform="cpu")
    for platform in ("cuda", "rocm"):
        mlir.register_lowering(one, by_gpu_libraries, platform=platform)
    return one


def _inverts(kind: str) -> bool:
    return kind == "ifft2" or "kernel" in operations.OPERANDS[kind]


def _lower_for_cpu(kind, otherwise, context, *operands):
    aval = context.avals_in[0]
    n, m = aval.shape[-2:]
    handlers = selection.cpu_llvm(aval.dtype) if n * m <= MAX_PIXELS else None
    if handlers is None:
        return otherwise(context, *operands)
    plan = handlers.Planes(kind, n, m, aval.dtype == jnp.complex64)
    if not handlers.suits(plan):
        return otherwise(context, *operands)
    numbers = jnp.float32 if plan.single else jnp.float64
    space = ShapedArray((handlers.scratch(plan),), numbers)
    rule = jax.ffi.ffi_lowering(handlers.target_of(plan))
    return rule(context.replace(avals_out=[*context.avals_out, space]), *operands)[:-1]


def primitive(
    name: str, operands: tuple[str, ...], results: tuple[str, ...] = ("wave",)
) -> Primitive:
    """Primitive whose results have the shapes of the operands of these names."""
    one = Primitive(f"{name}_planes")
    one.multiple_results = len(results) > 1
    like = [operands.index(name) for name in results]

    def shapes(*avals) -> Any:
        found = [avals[i] for i in like]
        return found if one.multiple_results else found[0]

    one.def_impl(jax.jit(one.bind))
    one.def_abstract_eval(shapes)
    batching.primitive_batchers[one] = partial(_batched, one, operands)
    return one


def derived(name: str, operands: tuple[str, ...], function: Callable) -> Primitive:
    """Primitive that is lowered to other ones everywhere; so is its derivative."""
    one = primitive(name, operands)
    mlir.register_lowering(one, mlir.lower_fun(function, multiple_results=False))
    derived_by_parts(one, function)
    return one


def derived_by_parts(one: Primitive, function: Callable) -> None:
    """Give a primitive the derivative of the `function` of other primitives that it equals."""

    def jvp(primals: Any, tangents: Any) -> Any:
        return jax.jvp(function, primals, tuple(map(ad.instantiate_zeros, tangents)))

    ad.primitive_jvps[one] = jvp


def matched(*operands) -> Any:
    """The operands with one type, varying over the same axes of a mesh."""
    dtype = jnp.result_type(*operands)
    return match_vma(*(a.astype(dtype) for a in operands))


def is_known(tangent: Any) -> bool:
    """True for a tangent that is not zero by construction."""
    return not isinstance(tangent, ad.Zero)


def _batched(primitive, names, operands, axes):
    """Batching rule: shared operands stay shared where the operation allows it, else repeat."""
    size = next(a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None)
    only_wave = axes[0] is not None and not any(a is not None for a in axes[1:])
    keep_shared = only_wave and {*names[1:]} <= {"factor", "kernel"}
    place = max((a.ndim - 2 for a in operands[1:]), default=0) if keep_shared else 0

    def moved(name: str, operand: Any, axis: Any) -> Any:
        if axis is not None:
            return jnp.moveaxis(operand, axis, place)
        if keep_shared or (name == "kernel" and operand.ndim == 2):
            return operand
        return jnp.broadcast_to(operand, (size, *operand.shape))

    result = primitive.bind(*map(moved, names, operands, axes))
    return (result, [place] * len(result)) if primitive.multiple_results else (result, place)
