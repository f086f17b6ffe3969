"""Range test of a rate: short trials from the same model on the same batches (Smith 2017)."""

import math
from collections.abc import Callable

FIRST = 2e-2  # of the rates tried, in natural units
RATIO = 2.0  # between neighbours
HIGHEST = 0.32
LOWEST = 1e-4
TRIAL = 0.25  # of an epoch
MIN_TRIAL = 4  # batches


def find_rate(
    trial: Callable[[float], float], first: float = math.inf, share: float = 1.0
) -> tuple[float, dict[float, float]]:
    """The rate of the least loss after a `trial(rate)`, and the losses of all rates tried.

    From `FIRST` the rate is doubled as long as the loss falls, or else halved. Of the rates by
    which the loss falls from `first` by a `share` of the greatest fall, the greatest is taken.
    Raises ValueError if no rate has a finite loss.
    """
    tried = {FIRST: trial(FIRST)}
    for ratio in (RATIO, 1 / RATIO):
        best = min(tried, key=tried.__getitem__)
        rate = best * ratio
        while LOWEST <= rate <= HIGHEST and rate not in tried:
            before = tried[rate / ratio]
            tried[rate] = trial(rate)
            if tried[rate] >= before and (ratio > 1 or math.isfinite(before)):
                break
            rate *= ratio
        if best != min(tried, key=tried.__getitem__):
            break
    if not any(map(math.isfinite, tried.values())):
        raise ValueError(
            f"the loss is no number after a few steps at any rate from {min(tried):.2g} to "
            f"{max(tried):.2g}; look at the first model and the patterns (jaxptycho inspect)"
        )
    least = min(tried.values())
    if not least < first < math.inf:
        return min(tried, key=tried.__getitem__), tried
    enough = least + (1 - share) * (first - least)
    return max(rate for rate, loss in tried.items() if loss <= enough), tried


def describe_rates(rate: float, tried: dict[float, float]) -> str:
    """The rate taken, and the losses that all rates tried reached."""
    pairs = (f"{one:.2g}: {loss:.5g}" for one, loss in sorted(tried.items()))
    return f"rate {rate:.2g} (loss by rate {', '.join(pairs)})"
