"""Losses: noise models, and their mean misfit over a batch.

A noise model is any function `noise(predicted, counts, **options)` of predicted and measured
counts, pixel by pixel; `LOSSES` lists those that jobs can name. A loss is any
`loss(model, batch) -> scalar` that averages over the shots of the batch with their weights, so
that rates and the weights of penalties do not depend on the batch size. I is measured, M
predicted, both in quanta.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy

from ..data import Batch
from ..model import Model
from .memory import Multislice
from .microbatch import sum_over_shots

Counts = jax.Array | np.ndarray | float
Noise = Callable[..., jax.Array]


def amplitude(predicted: Counts, counts: Counts, eps: float = 1e-6) -> jax.Array:
    """Amplitude loss (√(I+ε) − √(M+ε))²: Poisson noise of uniform variance (Thibault &
    Guizar-Sicairos 2012).
    """
    return (jnp.sqrt(jnp.maximum(predicted, 0.0) + eps) - jnp.sqrt(counts + eps)) ** 2


def anscombe(predicted: Counts, counts: Counts) -> jax.Array:
    """Amplitude loss with ε = 3/8, the best choice at low counts (Anscombe 1948)."""
    return amplitude(predicted, counts, 0.375)


def gaussian(predicted: Counts, counts: Counts, variance: float = 1.0) -> jax.Array:
    """Gaussian loss (I − M)²/(2·variance): additive noise of a camera."""
    return jnp.square(counts - predicted) / (2 * variance)


def poisson(predicted: Counts, counts: Counts, eps: float = 1e-3) -> jax.Array:
    """Poisson deviance M − I + I·log(I/M): 0 for a perfect fit, about ½ at high counts."""
    model = jnp.maximum(predicted, 0.0) + eps
    seen = counts + eps
    return model - seen + xlogy(seen, seen) - seen * jnp.log(model)


LOSSES: dict[str, Noise] = {
    noise.__name__: noise for noise in (amplitude, anscombe, gaussian, poisson)
}


def from_noise_or_loss(
    function: Callable[..., Any],
    options: Mapping[str, Any] = MappingProxyType({}),
    budget: float | None = None,
) -> Callable[[Model, Batch], jax.Array]:
    """A loss from `function`, a noise model or a loss, with its options.

    The first parameters of a noise model are `predicted, counts`; any other function is a loss
    `loss(model, batch)`. `budget` [bytes] limits the gradient of a noise model.
    """
    chosen = partial(function, **options) if options else function
    names = list(inspect.signature(function).parameters)
    return misfit(chosen, budget=budget) if names[:2] == ["predicted", "counts"] else chosen


def misfit(
    noise: Noise,
    micro: int | None = None,
    multislice: Multislice | None = None,
    budget: float | None = None,
) -> Callable[[Model, Batch], jax.Array]:
    """Loss: Σ over pixels of `noise`, averaged over the shots of a batch [quanta per shot].

    The batch is processed in micro-batches of `micro` shots, by default as many as fit the cache;
    their gradients are accumulated, so memory does not grow with the batch. `multislice` is one
    of `physics.waves` or `physics.checkpointed`. Both default to the fastest choice whose
    gradient fits `budget` [bytes], by default half of the device's memory.
    """

    def loss(model: Model, batch: Batch) -> jax.Array:
        def of_shot(predicted: jax.Array, counts: jax.Array) -> jax.Array:
            return jnp.sum(noise(predicted, counts.astype(predicted.dtype)))

        total = sum_over_shots(of_shot, model, batch, micro, multislice, budget)
        return total / jnp.maximum(jnp.sum(batch.weight), 1e-30)

    return loss
