"""Iterative reconstruction of a series while it is recorded.

The object covers the commanded scan from the start; every step takes shots that have come, the more
often the fewer steps have seen them, so that early and late lines count alike. The probe moves once
a part of the scan has come. Patterns are read from the recording.
"""

import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from ..data import Batch, Dataset
from ..direct.transfer import Optics
from ..inverse.automatic import batch_size, keep_passive
from ..inverse.losses import amplitude, from_noise_or_loss
from ..inverse.step import copy_for_donation, init_state, make_step, per_part
from ..io.readers.stream import read_records
from ..model import Model
from ..parts.indexed import PerShot
from ..parts.scan import FreeScan
from ..start.guess import guess_model
from .scan import LiveScan

RATE = 5e-3  # of Adam, in natural units
PROBE_FROM = 0.05  # fraction of the scan from which the probe moves
HELD_OUT = 0.02
SAMPLE = 64  # positions that a model is made for, the outermost ones among them


class Arrivals:
    """Patterns of a recording that grows, by the numbers of their shots."""

    def __init__(self, recording: Path, frames: int):
        self.recording = recording
        self.row: Int[np.ndarray, " shot"] = np.full(frames, -1)
        self._known = 0
        self.refresh()

    def refresh(self) -> None:
        """See what has come since; a recording that was converted has no more."""
        if not self.recording.exists():
            return
        self._records = read_records(self.recording)[1]
        numbers = np.asarray(self._records["number"][self._known :])
        rows = np.arange(self._known, self._known + len(numbers))
        inside = (numbers >= 0) & (numbers < len(self.row))
        self.row[numbers[inside][::-1]] = rows[inside][::-1]
        self._known += len(numbers)

    @property
    def seen(self) -> Bool[np.ndarray, " shot"]:
        """Shots that have come."""
        return self.row >= 0

    def patterns(self, shots: Int[np.ndarray, " b"]) -> np.ndarray:
        """Patterns [b, y, x] of shots that have come, zero frequency in the corner."""
        pixels = self._records["pixels"][self.row[shots]]
        return np.fft.ifftshift(pixels.astype(pixels.dtype.newbyteorder("=")), axes=(1, 2))


class Iterative:
    """Model of the commanded scan, and the steps that it has taken."""

    def __init__(self, model: Model, arrivals: Arrivals, seed: int = 0):
        n_shots = len(arrivals.row)
        self.arrivals = arrivals
        self.rng = np.random.default_rng(seed)
        self.batch = batch_size(n_shots)
        self.steps = 0
        self.losses: list[jax.Array] = []
        self.visits = np.zeros(n_shots)
        self.unplaced = np.zeros(n_shots, bool)
        self.held = np.zeros(n_shots, bool)
        self.held[self.rng.permutation(n_shots)[: round(HELD_OUT * n_shots)]] = True
        self.loss = from_noise_or_loss(amplitude)
        self._evaluated = eqx.filter_jit(self.loss)
        project = keep_passive(model)
        self.model = copy_for_donation(model)
        adam = optax.adam(RATE)
        parts = {False: per_part(specimen=adam), True: per_part(specimen=adam, probe=adam)}
        self._step = {free: make_step(self.loss, way, project) for free, way in parts.items()}
        self._state = {free: init_state(way, model) for free, way in parts.items()}

    def place(self, scan: LiveScan) -> None:
        """Use the measured positions that have come."""
        if scan.unplaced is not None:
            self.unplaced = scan.unplaced
            self.model = eqx.tree_at(lambda m: m.scan, self.model, _shots(scan))

    def tick(self, seconds: float, most: int = 2**31) -> int:
        """Take steps on what has come for some `seconds`, at most `most`; their number."""
        end = time.monotonic() + seconds
        self.arrivals.refresh()
        seen = self.arrivals.seen & ~self.unplaced
        usable = np.flatnonzero(seen & ~self.held)
        if len(usable) < self.batch:
            return 0
        free = bool(seen.mean() >= PROBE_FROM)
        taken = 0
        while taken < most and time.monotonic() < end:
            batch = self._batch(self._sampled(usable))
            step = self._step[free]
            self.model, self._state[free], info = step(self.model, self._state[free], batch)
            self.losses.append(info["loss"])
            taken += 1
        self.steps += taken
        return taken

    def held_out_loss(self) -> float:
        """Mean loss of the held-out shots that have come [quanta per shot], NaN without any."""
        shots = np.flatnonzero(self.arrivals.seen & ~self.unplaced & self.held)
        total = 0.0
        for start in range(0, len(shots), self.batch):
            some = shots[start : start + self.batch]
            total += float(self._evaluated(self.model, self._batch(some))) * len(some)
        return total / len(shots) if len(shots) else float("nan")

    def _sampled(self, usable: Int[np.ndarray, " n"]) -> Int[np.ndarray, " b"]:
        """Different shots, one with v visits as likely as 1/(1 + v)."""
        chance = 1 / (1 + self.visits[usable])
        # first in a race of exponential times: without replacement, in proportion to the chances
        race = self.rng.exponential(size=len(usable)) / chance
        shots = usable[np.argpartition(race, self.batch - 1)[: self.batch]]
        self.visits[shots] += 1
        return shots

    def _batch(self, shots: Int[np.ndarray, " b"]) -> Batch:
        padded = np.resize(shots, self.batch)
        weight = (np.arange(self.batch) < len(shots)).astype(np.float32)
        return Batch(0, padded, self.arrivals.patterns(padded), weight)


def live_model(
    scan: LiveScan,
    mean: Float[np.ndarray, "y x"],
    optics: Optics | None = None,
    **parts: Any,
) -> Model:
    """First model of a commanded scan, from the `mean` pattern as the camera shows it.

    `optics` are by default those that the camera states; `parts` are those of
    `start.guess.guess_model`, such as `modes`.
    """
    lens = scan.lens() if optics is None else optics
    further = {name: float(value) for name, value in lens.aberrations.items()}
    defocus = -further.pop("C10", 0.0)
    positions = scan.positions
    corners = np.r_[positions.argmin(0), positions.argmax(0)]
    some = np.unique(np.r_[corners, np.linspace(0, len(positions) - 1, SAMPLE).astype(int)])
    patterns = np.broadcast_to(np.asarray(mean, np.float32), (len(some), *mean.shape))
    frame = (0.0, 0.0)
    data = Dataset(patterns, positions[some], scan.grid, frame=frame, bad_data="keep")
    known = {"semiangle": scan.semiangle, "defocus": defocus, "aberrations": further}
    model = guess_model(data, **known, **parts)
    return eqx.tree_at(lambda m: m.scan, model, _shots(scan))


def _shots(scan: LiveScan) -> FreeScan:
    return FreeScan(PerShot(jnp.asarray(scan.positions, float)))
