"""Verdict of a run in plain words, from its `evidence` and its history, with likely causes."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import equinox as eqx
import numpy as np

from ..data import Dataset, make_batch, split
from ..data.batching import MIN_HELD_OUT
from ..model import Model
from .evidence import Evidence, evidence

BATCH = 64  # shots
GOOD_SHARE = 0.5  # of the variation, below which causes are named
GOOD_FIT = 0.75  # likewise of fitted patterns, of which wrong geometries reproduce up to 0.6
MAX_OFFSET = 0.1  # misfit beyond that of the mean pattern, over the dose
RISE = 2.0  # of the loss within a step, from which it has diverged
STILL_FALLS = 0.98  # of the loss of the last epoch but one
OVERFIT = 2.0  # held-out loss over training loss


@dataclass(frozen=True)
class Verdict:
    """Conclusion of a run in plain words; `causes` begins with the most likely one.

    `doubtful` where the model explains nothing or, at the end of its epochs, so little of what
    varies that a wrong geometry may explain as much.
    """

    explains: bool
    doubtful: bool
    lines: tuple[str, ...]
    causes: tuple[str, ...]
    evidence: Evidence

    def __str__(self) -> str:
        causes = [f"  {number}. {cause}" for number, cause in enumerate(self.causes, 1)]
        return "\n".join([*self.lines, *(["Likely causes:"] if causes else []), *causes])


def judge(
    model: Model, data: Dataset, history: Iterable = (), hold_out: float = 0.0, seed: int = 0
) -> Verdict:
    """Verdict about a model of `data`, from the shots that `split(data, hold_out, seed)` holds out.

    `history` holds rows with `step`, `loss` and `held_out`, or only losses.
    """
    learnt, held = split(data, hold_out, seed)

    def sums(function: Callable, view: int, shots: np.ndarray) -> np.ndarray:
        size = min(BATCH, len(shots))
        parts = np.split(shots, range(size, len(shots), size))
        found = [_compiled(function, model, make_batch(data, view, part, size)) for part in parts]
        return np.sum([np.asarray(own, float) for own in found], 0)

    return conclude(evidence(data, learnt, held, sums), history)


_compiled = eqx.filter_jit(lambda function, model, batch: function(model, batch))


def conclude(evidence: Evidence, history: Iterable = ()) -> Verdict:
    """Verdict from the evidence and the history of a run (rows with `step`, `loss`, `held_out`, or
    losses).
    """
    rows = [_row(row) for row in history]
    step = [row for row in rows if row[0] == rows[-1][0]]
    first, last = (step[0][1], step[-1][1]) if step else (math.nan, math.nan)
    held = step[-1][2] if step else None
    risen = not math.isfinite(last) if step else False
    risen = risen or last > RISE * first > 0
    excess = held / last if held is not None and last > 0 else 0.0
    explains = not risen and _explains(evidence)
    good = GOOD_SHARE if evidence.held_out else GOOD_FIT
    little = not explains or (evidence.varies and evidence.share_at_most < good)
    overfitted = excess > OVERFIT and (little or not evidence.held_out)
    lines = [_headline(evidence, explains, risen), *_notes(evidence)]
    if len(step) > 1 and last > first:
        lines.append(
            f"The loss rose from {first:.4g} in the first epoch of this step to {last:.4g} in its "
            "last."
        )
    if overfitted:
        lines.append(
            f"The held-out loss is {excess:.1f} times the training loss: over-fitting, a wrong "
            "geometry, or positions and intensities of single shots, which are not refined for "
            "held-out ones."
        )
    early = len(rows) < 3 or _falls(step)
    causes = _causes(evidence, risen, overfitted, early) if little else []
    doubtful = not explains or (little and not early)
    if explains and doubtful:
        lines.append("A wrong geometry may explain as much (exit code 4).")
    return Verdict(explains, doubtful, tuple(lines), tuple(causes), evidence)


def _row(row) -> tuple[str, float, float | None]:
    if hasattr(row, "loss"):
        return row.step, float(row.loss), row.held_out
    return "", float(row), None


def _falls(step: list[tuple[str, float, float | None]]) -> bool:
    """True if the last epoch lowered the held-out loss, or without one the loss, by 2 %.

    A wrong geometry fits its patterns better and better.
    """
    if len(step) < 2:
        return False
    (_, loss_before, held_before), (_, loss, held) = step[-2:]
    if held is None or held_before is None:
        return loss < STILL_FALLS * loss_before
    return held < STILL_FALLS * held_before


def _explains(found: Evidence) -> bool:
    if not (math.isfinite(found.misfit) and math.isfinite(found.explained)):
        return False
    if not found.varies:
        return found.offset < MAX_OFFSET
    return found.significant and (found.held_out or found.share_at_most > GOOD_SHARE)


def _headline(found: Evidence, explains: bool, risen: bool) -> str:
    patterns = f"{found.shots} {'held-out' if found.held_out else 'fitted'} patterns"
    if not found.shots:
        return "A single pattern shows no variation that a model could explain."
    if not found.varies and explains:
        return (
            f"The {patterns} differ by no more than noise: they do not show whether the model "
            "explains more than their mean pattern."
        )
    if not found.varies:
        return f"The model does not explain the {patterns}: their mean pattern fits far better."
    if not found.significant:
        exaggerates = "exaggerates how they differ and " if found.predicts else ""
        return (
            f"The model does not explain the {patterns}: it {exaggerates}predicts them no better "
            "than their mean pattern does."
        )
    verb = "explains" if found.held_out else "reproduces"
    if risen:
        verb = f"has diverged; it still {verb}"
    elif not explains:
        verb = f"does not explain the patterns: it {verb} only"
    if found.noise_limited:
        chance = found.covariance / found.covariance_error
        return (
            f"The model {verb} how {patterns} differ, {chance:.0f} standard errors above chance; "
            "most of their variation is noise."
        )
    share = _percent(found.share, found.share_error)
    return f"The model {verb} {share} of the variation between {patterns} beyond noise."


def _notes(found: Evidence) -> list[str]:
    """Remarks on the evidence and its limits, in addition to the conclusion."""
    notes = []
    if found.varies and found.noise > 0:
        measured, left = (
            v / found.noise for v in (found.variation, found.variation - found.explained)
        )
        notes.append(
            f"Variation between these patterns over that of counting noise: {measured:.3g} "
            f"measured, {left:.3g} after subtraction of the model's prediction (1 is pure noise)."
        )
    if found.varies and found.pixel_noise != 1:
        notes.append(
            f"The counts of a pixel vary by {found.pixel_noise:.2g} times their mean, 1 for single "
            "electrons or photons; the noise is computed accordingly."
        )
    if found.shots and not found.held_out:
        notes.append(
            f"Fewer than {MIN_HELD_OUT} patterns were held out, so these are patterns of the fit, "
            "and over-fitting or a wrong geometry may go unnoticed: increase data.hold_out."
        )
    return notes


def _percent(value: float, error: float) -> str:
    digits = 0 if error > 0.0095 else 1
    return f"{100 * min(max(value, 0.0), 1.0):.{digits}f} ± {100 * error:.{digits}f} %"


UNITS = "units of the positions (Å) or of the pixel: positions in the file, data.pixel_angstrom"
AXES = "axes of the scan on the detector: scan.transform, scan.rotation_deg"
DEFOCUS = "sign or value of the defocus (> 0 is underfocus): probe.defocus_angstrom"
OPTICS = "units of semiangle (mrad) and voltage (kV): probe.semiangle_mrad, data.voltage_kv"
CORNER = "patterns whose zero frequency is not in the middle: counts in the file"
NEAR_FIELD = (
    "in-line holograms taken for diffraction patterns: data.near_field, "
    "detector.effective_distance_angstrom"
)
PROBE = "a first probe far from the true one: probe.start, probe.semiangle_mrad"
PIXELS = "bad pixels or frames: mask in the file"
RATES = "rates too large: step.0.rates"
EPOCHS = "too few epochs or too small rates: step.0.epochs, step.0.rates"
SPECIMEN = "a specimen too simple for the data: specimen.slices, probe.modes"
NOISE = "fitted noise: fewer epochs, smaller rates or a penalty (step.0)"


def _causes(found: Evidence, risen: bool, overfitted: bool, early: bool) -> list[str]:
    """Likely causes, the most likely first."""
    geometry = [AXES, UNITS, DEFOCUS, NEAR_FIELD]
    if risen:
        return [RATES, OPTICS, PIXELS]
    if found.offset > MAX_OFFSET:
        return [*([EPOCHS] if early else []), OPTICS, CORNER, PIXELS, RATES, UNITS]
    if found.modelled < 0.02 * found.variation:
        return [*([EPOCHS] if early else []), UNITS, *(c for c in geometry if c != UNITS), EPOCHS][
            : 5 + early
        ]
    causes = [*geometry, PROBE, PIXELS, SPECIMEN]
    exaggerated = found.predicts and not found.significant
    if exaggerated and found.noise_limited:
        causes = [NOISE, *causes]
    elif exaggerated or overfitted or found.modelled > found.variation:
        causes = [*causes, NOISE]
    return [EPOCHS, *causes] if early else causes
