"""How well a model explains the counts."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..data import Dataset, make_batch
from ..inverse.accumulate import sum_over_shots
from ..model import Model


def goodness_of_fit(model: Model, data: Dataset, shots=None, size: int = 64) -> dict[str, float]:
    """E and R over all patterns, or over `shots` (a list over views).

    E is the mean of (√I − √M)² over pixels and patterns, R = Σ|√I − √M| / Σ√I, with I measured
    and M predicted.
    """
    shots = [np.arange(n) for n in data.n_shots] if shots is None else shots
    totals = np.zeros(3)
    for view, mine in enumerate(shots):
        for start in range(0, len(mine), size):
            batch = make_batch(data, view, mine[start : start + size], min(size, len(mine)))
            totals += np.asarray(_sums(model, batch), float)
    squares, differences, amplitudes = totals
    pixels = data.grid.shape[0] * data.grid.shape[1] if data.mask is None else int(data.mask.sum())
    return {"E": squares / (pixels * sum(map(len, shots))), "R": differences / amplitudes}


@eqx.filter_jit
def _sums(model, batch):
    def of_shot(predicted, counts):
        seen, expected = jnp.sqrt(counts.astype(predicted.dtype)), jnp.sqrt(jnp.maximum(predicted, 0))
        difference = expected - seen
        return jnp.stack([jnp.sum(difference**2), jnp.sum(jnp.abs(difference)), jnp.sum(seen)])

    return sum_over_shots(of_shot, model, batch)
