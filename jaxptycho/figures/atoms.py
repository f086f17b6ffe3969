"""Figures of atoms: their positions, and their errors."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ..analysis.assignment import AtomComparison, Score
from ..analysis.pictures import limits
from ..physics.types import Numbers
from .plots import unit_of

MARKS = {  # of found atoms, missing ones, extra ones, and those of another element
    "matched": {"marker": "o", "facecolors": "none", "edgecolors": "tab:cyan", "s": 28},
    "missing": {"marker": "s", "facecolors": "none", "edgecolors": "tab:orange", "s": 60},
    "extra": {"marker": "x", "color": "tab:red", "s": 40},
    "swapped": {"marker": "D", "facecolors": "none", "edgecolors": "magenta", "s": 70},
}
AXES = "zyx"


def draw_atoms(
    image: Float[np.ndarray, "y x"] | Float[np.ndarray, "z y x"],
    spacing: Numbers,
    found: Numbers,
    true: Numbers,
    comparison: AtomComparison,
    origin: Numbers = 0.0,
) -> Figure:
    """Atoms found over an image, or over the three sums of a volume, with every error marked.

    `spacing` [Å] and `origin` [Å], the position of the first voxel, are one number or one for each
    axis.
    """
    d = image.ndim
    spacing, origin = (np.broadcast_to(np.asarray(v, float), d) for v in (spacing, origin))
    marked = _marked(np.asarray(found, float), np.asarray(true, float), comparison)
    # summed, vertical and horizontal axis
    sums = [(0, 1, 2), (1, 0, 2), (2, 0, 1)] if d == 3 else [(None, 0, 1)]
    names = AXES[-d:]
    figure = Figure((5.2 * len(sums), 5.6), layout="constrained")
    unit, size = unit_of(max(n * s for n, s in zip(image.shape, spacing, strict=True)) / 10)
    for ax, (along, down, right) in zip(
        figure.subplots(1, len(sums), squeeze=False)[0], sums, strict=True
    ):
        shown = image if along is None else image.sum(along)
        low = (origin - spacing / 2) / size
        high = (origin + (np.array(image.shape) - 0.5) * spacing) / size
        grey = dict(zip(("vmin", "vmax"), limits(shown), strict=True))
        ax.imshow(
            shown, cmap="gray", extent=(low[right], high[right], high[down], low[down]), **grey
        )
        for what, places in marked.items():
            ax.scatter(
                *places[:, [right, down]].T / size,
                label=f"{what}: {len(places)}",
                lw=1,
                **MARKS[what],
            )
        ax.set(xlabel=f"{names[right]} ({unit})", ylabel=f"{names[down]} ({unit})")
        ax.set_title("Image" if along is None else f"Sum along {names[along]}")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(marked))
    return figure


def draw_displacements(found: Numbers, true: Numbers, comparison: AtomComparison) -> Figure:
    """Histograms of found − true along every axis, with bias and root mean square."""
    pairs = comparison.matching
    overall = comparison.overall
    moved = np.asarray(found, float)[pairs.found] - np.asarray(true, float)[pairs.true]
    d = moved.shape[1]
    figure = Figure((3.6 * d, 3.4), layout="constrained")
    reach = max(float(np.abs(moved).max(initial=0)), 1e-6)
    for a, ax in enumerate(figure.subplots(1, d, sharey=True, squeeze=False)[0]):
        ax.hist(moved[:, a], bins=41, range=(-reach, reach), color="tab:blue")
        ax.axvline(0, color="0.6", lw=1)
        ax.set_title(
            f"bias {overall.bias[a]:.2g} Å, RMSD {overall.rmsd[a]:.2g} Å", fontsize="medium"
        )
        ax.set_xlabel(f"found − true along {AXES[-d:][a]} (Å)")
    figure.axes[0].set_ylabel("atoms")
    return figure


def draw_scores(cases: Mapping[str, Mapping[str, Score]]) -> Figure:
    """F1 and the RMSD along every axis of several classes of atoms over named cases.

    The classes may be elements.
    """
    classes = list(dict.fromkeys(name for scores in cases.values() for name in scores))
    figure = Figure((4.2 * (1 + len(classes)), 3.8), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(classes), squeeze=False)[0]
    for name, ax in zip(classes, others, strict=True):
        seen = {
            place: scores[name] for place, scores in enumerate(cases.values()) if name in scores
        }
        left.plot(list(seen), [score.f1 for score in seen.values()], "o-", label=name)
        rmsd = np.array([score.rmsd for score in seen.values()])
        for axis, values in zip(AXES[-rmsd.shape[1] :], rmsd.T, strict=True):
            ax.plot(list(seen), values, "o-", label=axis)
        ax.set(title=f"RMSD of {name} atoms (Å)", ylim=(0, None))
    left.set(title="F1", ylim=(0, 1.02))
    for ax in (left, *others):
        ax.set_xticks(range(len(cases)), list(cases), rotation=30)
        ax.grid(axis="y", alpha=0.3)
        ax.legend(loc="lower left")
    return figure


def _marked(found, true, comparison: AtomComparison) -> dict[str, np.ndarray]:
    pairs = comparison.matching
    marked = {
        "matched": found[pairs.found],
        "missing": true[pairs.missing],
        "extra": found[pairs.extra],
    }
    return marked | (
        {"swapped": found[pairs.found[comparison.swapped]]} if comparison.elements else {}
    )
