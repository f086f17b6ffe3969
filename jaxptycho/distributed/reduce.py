"""Sums over devices, as few of them as can be: every one waits for all devices, however little it
adds up.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

SMALL = 2**17  # largest size of an array packed with others, cheaper than another collective


def psum_packed(tree: Any, specs: Any, axes: tuple[str, ...]):
    """The arrays of `tree` summed over the devices along those of `axes` that their `specs` do not
    name.

    Small ones that are summed along all axes are one vector. To be called within `shard_map`.
    """
    leaves, structure = jax.tree.flatten(tree)
    along = [
        tuple(axis for axis in axes if axis not in spec) for spec in structure.flatten_up_to(specs)
    ]
    joined = [leaf.size <= SMALL and own == axes for leaf, own in zip(leaves, along, strict=True)]
    vector, apart = ravel_pytree(
        [_planar(leaf) for leaf, joins in zip(leaves, joined, strict=True) if joins]
    )
    small = iter(apart(jax.lax.psum(vector, axes)))
    return structure.unflatten(
        _whole(next(small)) if joins else jax.lax.psum(leaf, own)
        for leaf, own, joins in zip(leaves, along, joined, strict=True)
    )


def _planar(array):
    """Real and imaginary part of what has both."""
    return (array.real, array.imag) if jnp.iscomplexobj(array) else (array,)


def _whole(parts):
    return jax.lax.complex(*parts) if len(parts) == 2 else parts[0]
