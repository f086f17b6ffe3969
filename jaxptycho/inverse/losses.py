"""What makes a model good: noise models, and the mean misfit over a batch.

A noise model is any function of predicted and measured counts, pixel by pixel. A loss is any
`loss(model, batch) -> scalar` that averages over the shots of the batch with their weight:
then neither rates nor the weights of penalties depend on the batch size. I is measured, M
predicted, both in quanta.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from ..data import Batch
from ..model import Model
from .microbatch import sum_over_shots

Noise = Callable


def amplitude(predicted, counts, eps=1e-6):
    """(√(I+ε) − √(M+ε))²: Poisson noise made even (Thibault & Guizar-Sicairos 2012)."""
    return (jnp.sqrt(jnp.maximum(predicted, 0.0) + eps) - jnp.sqrt(counts + eps)) ** 2


def anscombe(predicted, counts):
    """The amplitude loss with ε = 3/8, the best at low counts (Anscombe 1948)."""
    return amplitude(predicted, counts, 0.375)


def gaussian(variance=1.0) -> Noise:
    """(I − M)²/(2·variance): additive noise of a camera."""
    return lambda predicted, counts: (counts - predicted) ** 2 / (2 * variance)


def poisson(predicted, counts, eps=1e-3):
    """Poisson deviance M − I + I·log(I/M): 0 for a perfect fit, about ½ at high counts."""
    model, seen = jnp.maximum(predicted, 0.0) + eps, counts + eps
    return model - seen + xlogy(seen, seen) - seen * jnp.log(model)


def misfit(
    noise: Noise, micro: int | None = None, multislice: Callable | None = None, budget: float | None = None
) -> Callable[[Model, Batch], jax.Array]:
    """A loss: Σ over pixels of `noise`, averaged over the shots of a batch [quanta per shot].

    Worked off in micro-batches of `micro` shots, by default as many as fit the cache; their
    gradients are added up on the way, so memory does not grow with the batch. `multislice` is
    one of `physics.waves` or `physics.checkpointed`. What of both is not given is chosen so that the gradient keeps
    within `budget` [bytes], by default half of the device's memory.
    """

    def loss(model: Model, batch: Batch):
        def of_shot(predicted, counts):
            return jnp.sum(noise(predicted, counts.astype(predicted.dtype)))

        total = sum_over_shots(of_shot, model, batch, micro, multislice, budget)
        return total / jnp.maximum(jnp.sum(batch.weight), 1e-30)

    return loss
