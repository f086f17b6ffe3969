"""Reconstruction of a measurement in Python: one call, or a loop that a callback watches."""

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
from ..distributed.sharding import mesh, restore, snapshot
from ..distributed.slabs.layout import fitted
from ..figures import object as draw_specimen
from ..figures.html import html_of
from ..inverse.losses import amplitude, from_noise_or_loss
from ..inverse.step import copy_for_donation, identity, per_part
from ..io.results import write
from ..model import Model
from ..start.guess import first_model
from .batch_source import BatchSource
from .loop import Loop, Refinement
from .progress import ProgressBar, ProgressListener
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
    epoch: int  # of the model, from 1; the one with the least held-out loss
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
    batch: int = 64,
    optimiser: optax.GradientTransformation | None = None,
    project: Callable[[Model], Model] = identity,
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
    model `noise(predicted, counts)` or any `loss(model, batch)`; `optimiser` any optax
    transformation, by default `per_part` with Adam on specimen and probe at 5e-3; `project(model)`
    is applied after every step, `penalty(model)` added to the loss. A fraction `hold_out` of the
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
    plan = Refinement(
        loss=from_noise_or_loss(loss),
        optimiser=optimiser or per_part(specimen=optax.adam(5e-3), probe=optax.adam(5e-3)),
        epochs=epochs,
        batch=batch,
        order=order,
        penalty=penalty,
        after_step=project,
    )
    source = BatchSource.of(data, mesh(devices, slabs), hold_out, seed)
    listener = ProgressBar() if progress and first() else ProgressListener()
    reached = Progress(copy_for_donation(fitted(start, slabs)))
    best = _Best()
    stopped: list[bool] = []

    def on_epoch(now: Progress) -> None:
        row = now.history[-1]
        best.see(now.model, row)
        info = {"loss": row.loss, "held_out": row.held_out, "seconds": row.seconds}
        if callback is not None and callback(row.epoch, copy_for_donation(now.model), info):
            stopped.append(True)

    loop = Loop(plan, source, listener, lambda: "callback" if stopped else None, on_epoch)
    listener.begin(plan.name, epochs, source.shots_per_epoch, 0)
    with listener:
        loop.run(reached)
    found, epoch = best.model(reached)
    history = reached.history
    fit = source.fit(found)
    verdict = source.verdict(found, history)
    return Result(found, data, tuple(history), fit, verdict, epoch, bool(stopped))


class _Best:
    """The model of the epoch with the least held-out loss, as a copy on the host."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.row: Row | None = None

    def see(self, model: Model, row: Row) -> None:
        """Keep the model where its epoch is the best so far."""
        least = None if self.row is None else self.row.held_out
        if row.held_out is not None and (least is None or row.held_out <= least):
            self.kept = snapshot(model)
            self.row = row

    def model(self, reached: Progress) -> tuple[Model, int]:
        """Best model and its epoch; the last without held-out shots."""
        if self.row is None or self.row.epoch == len(reached.history):
            return reached.model, len(reached.history)
        return restore(self.kept), self.row.epoch
