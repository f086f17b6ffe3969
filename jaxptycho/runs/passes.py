"""Passes over patterns without a step: what was held out, and the fit of all."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ..analysis.fit import SUMS, measures
from ..data import Batch, Dataset, prefetch
from ..inverse.step import AHEAD

SIZE = 64  # shots of a batch


def over(drawn: Iterator[Batch], function: Callable[[Batch], Any]) -> list:
    """`function` of every batch, on the host; as many are under way as the device has room for."""
    found = []
    with contextlib.closing(prefetch(drawn)) as ready:
        for batch in ready:
            found.append(function(batch))
            jax.block_until_ready(found[-AHEAD - 1 : -AHEAD])  # else all batches would be there at once
    return jax.device_get(found)


def fit(data: Dataset, held: list[np.ndarray], sums: Callable[[list[np.ndarray]], list]) -> dict[str, float]:
    """How well a model explains all patterns, and with which chi2 those kept aside; each is looked at once.

    `sums(shots)` are the `analysis.fit.fit_sums` of batches of these shots, of every view.
    """
    others = [np.setdiff1d(np.arange(n), own) for n, own in zip(data.n_shots, held, strict=True)]
    rest, aside = (np.sum([np.zeros(SUMS), *sums(shots)], 0) for shots in (others, held))
    found, n = measures(rest + aside, data, sum(data.n_shots)), sum(map(len, held))
    return found | ({"held_out_chi2": measures(aside, data, n)["chi2"]} if n else {})
