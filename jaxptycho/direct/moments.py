"""Mean and variance of every pixel of the detector."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .processor import AbstractProcessor, Block


class PixelMoments(NamedTuple):
    """Mean and unbiased variance of the counts, zero frequency in the centre."""

    mean: Float[np.ndarray, "y x"]
    variance: Float[np.ndarray, "y x"]
    patterns: float  # sum of their weights


class MomentState(eqx.Module):
    """Sum of weights, mean, and sum of squared deviations from it."""

    weight: Float[Array, ""]
    mean: Float[Array, "y x"]
    squares: Float[Array, "y x"]


class Moments(AbstractProcessor):
    """Mean and variance of patterns of `shape`, stable for large counts.

    Source: Chan, Golub & LeVeque, Am. Stat. 37, 242 (1983).
    """

    shape: tuple[int, int] = eqx.field(static=True)

    def init(self) -> MomentState:
        """State without a pattern."""
        zero = jnp.zeros(self.shape, jnp.float32)
        return MomentState(jnp.float32(0), zero, jnp.zeros(self.shape, jnp.float32))

    def update(self, state: MomentState, block: Block) -> MomentState:
        """State with the patterns of a block."""
        weight = jnp.asarray(block.weight, jnp.float32)
        patterns = jnp.asarray(block.patterns)
        one = patterns[jnp.argmax(weight)].astype(jnp.float32)
        # close to the mean of the block, so that squares lose no digits
        some = jnp.where(jnp.max(weight) > 0, one, 0.0)
        centre = jnp.where(state.weight > 0, state.mean, some)

        def _add(i, sums):
            change = jnp.where(weight[i] > 0, patterns[i].astype(jnp.float32) - centre, 0.0)
            return sums[0] + weight[i] * change, sums[1] + weight[i] * change**2

        zero = jnp.zeros(self.shape, jnp.float32)
        first, second = lax.fori_loop(0, len(weight), _add, (zero, zero))
        total = jnp.sum(weight)
        change = first / jnp.maximum(total, 1e-30)
        squares = jnp.maximum(second - total * change**2, 0.0)
        return self.merge(state, MomentState(total, centre + change, squares))

    def merge(self, first: MomentState, second: MomentState) -> MomentState:
        """State of the patterns of both."""
        weight = first.weight + second.weight
        share = second.weight / jnp.maximum(weight, 1e-30)
        change = second.mean - first.mean
        mean = first.mean + share * change
        squares = first.squares + second.squares + first.weight * share * change**2
        return MomentState(weight, mean, squares)

    def result(self, state: MomentState) -> PixelMoments:
        """Mean and variance."""
        weight = float(state.weight)
        mean, squares = (np.fft.fftshift(np.asarray(a, float)) for a in (state.mean, state.squares))
        return PixelMoments(mean, squares / max(weight - 1, 1), weight)
