"""Reconstruction of a measurement in Python: one call, or a loop that a callback watches."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import optax
from matplotlib.figure import Figure

from ..analysis.verdict import Verdict
from ..data import Dataset
from ..distributed.multihost import first
from ..distributed.sharding import mesh
from ..distributed.slabs.layout import fitted
from ..figures import object as draw_specimen
from ..figures.html import html_of
from ..inverse.automatic import (
    automatic_adam,
    batch_size,
    begins_tied,
    keep_passive,
    late,
    modes_to_try,
    proportions,
)
from ..inverse.losses import amplitude, from_noise_or_loss
from ..inverse.step import copy_for_donation, identity
from ..io.results import write
from ..model import Model
from ..start.guess import first_model
from .batch_source import BatchSource
from .loop import START, Loop
from .progress import ProgressBar, ProgressListener
from .refinement import Refinement
from .state import Progress, Row, columns_of

Callback = Callable[[int, Model, dict[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Result:
    """Model, history and fit of a reconstruction."""

    model: Model = field(repr=False)
    data: Dataset = field(repr=False)
    history: tuple[Row, ...] = field(repr=False)  # an entry an epoch
    fit: dict[str, float]  # to all patterns (`analysis.fit`), held_out_chi2 of those held out
    verdict: Verdict  # whether the model explains the patterns
    epoch: int  # of the model, from 1; that of the least held-out loss; 0: the model given
    stopped: bool = False  # by the callback

    @property
    def losses(self) -> list[float]:
        """Mean loss of every epoch [quanta per shot]."""
        return [row.loss for row in self.history]

    def show(self) -> Figure:
        """Figure of the specimen."""
        return draw_specimen(self.model)

    def _repr_html_(self) -> str:
        return html_of(str(self), self.show())

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write model, history and fit to a file for `jaxptycho.load` and the command line."""
        about = {"verdict": str(self.verdict), "explains": self.verdict.explains}
        history = columns_of(self.history)
        write(path, self.model, history, overwrite=overwrite, **self.fit, **about)

    def __str__(self) -> str:
        rows = [f"{name} {value:.4g}" for name, value in self.fit.items()]
        return "\n".join([f"epoch {self.epoch} of {len(self.history)}", *rows, str(self.verdict)])


def reconstruct(
    data: Dataset,
    model: Model | None = None,
    *,
    loss: Callable[..., jax.Array] = amplitude,
    epochs: int = 50,
    batch: int | None = None,
    optimiser: optax.GradientTransformation | None = None,
    project: Callable[[Model], Model] | None = None,
    penalty: Callable[[Model], jax.Array] | None = None,
    order: str = "random",
    hold_out: float = 0.02,
    seed: int = 0,
    devices: int | None = None,
    slabs: int = 1,
    callback: Callback | None = None,
    progress: bool = True,
) -> Result:
    """Reconstruct a measurement and return the model with the least held-out loss.

    `model` is the first guess, `first_model(data)` by default; it is not used up. `loss` is a noise
    model `noise(predicted, counts)` or any `loss(model, batch)`. By default Adam refines all parts
    at rates that a range test finds, which fall when the held-out loss no longer does; then it
    ends, after at most `epochs`; a probe of one wave is given three or six modes if trials show
    a clearly lower held-out loss. With an `optimiser`, any optax transformation such as
    `per_part(specimen=adam(5e-3))`, there are as many epochs. `batch` is the number of shots of a
    step, by default chosen by that of all shots. `project(model)` is applied after every step,
    `penalty(model)` added to the loss. A fraction `hold_out` of the
    shots is not learned from; `seed` decides which, and the order of batches. All `devices` are
    used, in groups of `slabs` of the specimen. After every epoch (counted from 1)
    `callback(epoch, model, info)` is called with a copy of the model and `info` of loss, held_out
    and seconds; a true answer stops. Raises ValueError where the loss is no longer a number, with
    the part that broke it.
    """
    if not isinstance(data, Dataset):
        raise ValueError(
            "reconstruct takes a measurement first, jaxptycho.Dataset, and got a "
            f"{type(data).__name__}; the loop over batches of your own is "
            "jaxptycho.minimise(loss, model, batches, optimiser)"
        )
    start = first_model(data) if model is None else model
    source = BatchSource.of(data, mesh(devices, slabs), hold_out, seed)
    automatic = optimiser is None
    parts = tuple(proportions(start)) if automatic else ()
    after_step = (keep_passive(start) if automatic else identity) if project is None else project
    plan = Refinement(
        loss=from_noise_or_loss(loss),
        optimiser=automatic_adam(start) if optimiser is None else optimiser,
        epochs=epochs,
        batch=batch_size(source.shots_per_epoch) if batch is None else batch,
        parts=parts,
        automatic=automatic,
        tied=automatic and begins_tied(start),
        late=late(parts) if automatic else {},
        modes=modes_to_try(start) if automatic else (),
        order=order,
        penalty=penalty,
        after_step=after_step,
    )
    listener = ProgressBar() if progress and first() else ProgressListener()
    reached = Progress(copy_for_donation(fitted(start, slabs)))
    stopped: list[bool] = []

    def on_epoch(now: Progress) -> None:
        row = now.history[-1]
        info = {"loss": row.loss, "held_out": row.held_out, "seconds": row.seconds}
        if callback is not None and callback(row.epoch, copy_for_donation(now.model), info):
            stopped.append(True)

    loop = Loop(plan, source, listener, lambda: "callback" if stopped else None, on_epoch)
    listener.begin(plan.name, epochs, source.shots_per_epoch, 0)
    with listener:
        loop.run(reached)
    found = loop.result(reached)
    history = reached.history
    epoch = len(history) if reached.best is None else (reached.course or START).best_epoch
    if epoch == 0:
        warnings.warn(
            "no epoch lowered the held-out loss: the result is the model that was given; lower the "
            "rates of the optimiser, or leave them out",
            stacklevel=2,
        )
    fit = source.fit(found)
    verdict = source.verdict(found, history)
    return Result(found, data, tuple(history), fit, verdict, epoch, bool(stopped))
