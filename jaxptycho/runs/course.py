"""Course of the rates over the epochs of a step: constant, then falling to zero, then the end.

The rates stay constant while the held-out loss falls. Once it no longer does, they fall linearly
to zero from the best model on, which averages the noise of the steps away (warm-up, stable and
decay phases: Hu et al., arXiv:2404.06395 (2024)); no number of epochs has to be known. What
over-fits, as at low dose, ends early, since the best model is kept throughout.

Slices of a thick specimen may begin tied, all alike. They are freed once the held-out loss no
longer falls, and tied again while the rates fall if they gained nothing by it.
"""

import math
from typing import NamedTuple

PATIENCE = 2  # epochs without a gain, after which the rates fall …
DOUBT = 0.2  # … or this part of all epochs so far, if it is more
TOLERANCE = 2e-3  # relative fall of the loss that counts as a gain …
PART = 0.02  # … as does this part of the fall so far, where all of it is small, as at low dose
SHARE = 1.2  # epochs of falling rates over those of constant rates
SHORTEST = 3  # epochs of falling rates
FREED = 0.25  # factor of the rates when tied slices are freed, whose noise does not average out
LOWER = 0.25  # factor of the rates after a divergence
MAX_RESTARTS = 3
RISE = 3.0  # of the loss over the best one, which is a divergence


class Course(NamedTuple):
    """Place in the course of a step, as its checkpoints hold it; numbers only."""

    rates: dict[str, float]  # of every part
    automatic: bool  # whether the rates fall and the step ends by the loss
    first: float = math.inf  # loss of the model given, held-out if there are any
    best: float = math.inf  # least such loss, of this model and those at the ends of epochs
    best_epoch: int = 0  # of the step, after which that model was reached; 0: the model given
    level: float = 1.0  # common factor of the rates in the next epoch
    fall: float = 0.0  # of this factor per epoch
    waited: int = 0  # epochs without a gain
    gained: float = math.inf  # loss at the last gain
    restarts: int = 0
    tied: bool = False  # whether all slices move alike
    freed: int = 0  # epoch after which they no longer did
    over: bool = False
    epochs: int = 0  # at most, for which the rates fell

    @property
    def falling(self) -> bool:
        """True once the rates fall."""
        return self.fall > 0


def advance(course: Course, loss: float, epoch: int, epochs: int) -> tuple[Course, bool]:
    """The course after `epoch` of at most `epochs`, and whether to go back to the best model.

    `loss` is that of the model reached.
    """
    better = loss <= course.best
    least = min(TOLERANCE * course.gained, PART * max(course.first - course.best, 0.0))
    gain = loss < course.gained - least
    seen = course._replace(
        best=loss if better else course.best,
        best_epoch=epoch if better else course.best_epoch,
        gained=loss if gain else course.gained,
        waited=0 if gain else course.waited + 1,
        epochs=epochs,
    )
    if not course.automatic:
        return seen, False
    if course.falling:
        level = max(course.level - course.fall, 0.0)
        return seen._replace(level=level, over=level < 0.5 * course.fall), False
    left = epochs - epoch
    length = max(SHORTEST, math.ceil(SHARE * epoch))
    late = left <= length
    if not late and seen.waited < max(PATIENCE, math.ceil(DOUBT * epoch)):
        return seen, False
    if seen.tied and not late:
        level = FREED * course.level
        return seen._replace(tied=False, freed=epoch, waited=0, level=level), not better
    length = max(1, min(length, left))
    useless = seen.freed > 0 and seen.best_epoch <= seen.freed
    return seen._replace(fall=course.level / length, tied=seen.tied or useless), not better


def extended(course: Course, epochs: int) -> Course:
    """The course of a step that is given more `epochs` after its rates have begun to fall."""
    if not course.falling or epochs <= course.epochs:
        return course
    level = LOWER**course.restarts * (FREED if course.freed else 1.0)
    return course._replace(level=level, fall=0.0, waited=0, over=False, epochs=epochs)


def restarted(course: Course) -> Course:
    """The course from the best model on at lower rates, after a divergence."""
    return course._replace(
        level=LOWER * course.level,
        fall=LOWER * course.fall,
        restarts=course.restarts + 1,
        waited=0,
    )


def changes(before: Course, after: Course, epoch: int) -> list[str]:
    """Sentences on what the course has changed after an epoch."""
    found = []
    if before.tied and not after.tied:
        found.append(
            f"the held-out loss of identical slices no longer falls after epoch {epoch}; the "
            "slices are free from now on"
        )
    if after.falling and not before.falling:
        found.append(
            f"the held-out loss no longer falls after epoch {epoch}; the rates fall from now on"
        )
    return found


def diverges(course: Course, loss: float) -> bool:
    """True if a loss is no number, or far above the best one."""
    return not math.isfinite(loss) or loss > RISE * course.best
