"""Figure of a tuned job: held-out losses over every key."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

SPAN = 10.0  # ratio of the ends of an axis from which it is logarithmic


def draw_tuning(
    values: Sequence[Mapping[str, Any]], losses: Sequence[float | None], complete: Sequence[bool]
) -> Figure:
    """Least held-out loss of every trial over each of its values; trials ended early are open."""
    keys = list(values[0])
    figure = Figure((0.8 + 3.4 * len(keys), 3.6), layout="constrained")
    axes = figure.subplots(1, len(keys), squeeze=False)[0]
    shown = [n for n, loss in enumerate(losses) if loss is not None]
    best = min((n for n in shown if complete[n]), key=lambda n: losses[n] or np.inf)
    for ax, key in zip(axes, keys, strict=True):
        numbers = [values[n][key] for n in shown]
        places = [str(v) for v in numbers] if isinstance(numbers[0], str | bool) else numbers
        for n, place in zip(shown, places, strict=True):
            face = "C0" if complete[n] else "none"
            ax.plot(place, losses[n], "o", mfc=face, mec="C1" if n == best else "C0", ms=6)
        if places is numbers and min(numbers) > 0 and max(numbers) / min(numbers) >= SPAN:
            ax.set_xscale("log")
        ax.set_xlabel(key)
    axes[0].set_ylabel("held-out loss (quanta per pattern)")
    return figure
