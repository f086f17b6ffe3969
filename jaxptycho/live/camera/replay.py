"""Replay of a measurement at the rate of a camera, with the faults of real transmissions."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ...data import Dataset
from ...io.instrument import properties_of
from ...io.stream import Series
from .late_positions import PositionPort
from .transport import AbstractTransport

BURST_S = 5e-3  # of frames that are sent together
MOST = 256


class Faults(NamedTuple):
    """Faults of a transmission: the fraction of frames that are lost, the number that come twice,
    and the number of places by which they may be displaced.
    """

    drop: float = 0.0
    double: int = 0
    shuffle: int = 0


NO_FAULTS = Faults()


class Sent(NamedTuple):
    """Frames of a series that were sent, and those among them that came twice."""

    frames: int
    doubled: int
    seconds: float


def sent_order(frames: int, faults: Faults, rng: np.random.Generator) -> Int[np.ndarray, " sent"]:
    """Numbers of the frames in the order in which they are sent."""
    lost = rng.permutation(frames)[: round(faults.drop * frames)]
    numbers = np.setdiff1d(np.arange(frames), lost)
    twice = rng.permutation(numbers)[: faults.double]
    numbers = np.sort(np.concatenate([numbers, twice]))
    # a key that is at most `shuffle` places late displaces no frame by more than that
    late = np.arange(len(numbers)) + rng.uniform(0, faults.shuffle + 1e-9, len(numbers))
    return numbers[np.argsort(late, kind="stable")]


def series_of(data: Dataset, name: str) -> Series:
    """Series that announces the patterns of a single scan, with all that is known of them."""
    positions = data.positions[0]
    about = properties_of(data.grid)
    pixel = np.broadcast_to(np.asarray(about.pop("pixel_angstrom"), float), 2)
    about["dk_inverse_angstrom"] = (1 / (pixel * np.asarray(data.grid.shape))).tolist()
    about |= {name: data.about[name] for name in KNOWN if name in data.about}
    y, x = data.grid.shape
    return Series(name, len(positions), (y, x), data.kinds[0], about, positions)


KNOWN = ("semiangle_mrad", "defocus_angstrom")


def replay(
    data: Dataset,
    transport: AbstractTransport,
    series: Series,
    rate: float = 0.0,
    faults: Faults = NO_FAULTS,
    seed: int = 0,
    sleep: Callable[[float], None] = time.sleep,
    controller: PositionPort | None = None,
) -> Sent:
    """Send one series at `rate` frames per second, as fast as possible by default.

    A `controller` sends the positions of these frames.
    """
    order = sent_order(series.frames, faults, np.random.default_rng(seed))
    burst = MOST if rate <= 0 else max(1, min(MOST, round(rate * BURST_S)))
    transport.begin(series)
    if controller is not None:
        controller.begin(series)
    begun = time.monotonic()
    sent = 0
    for start in range(0, len(order), burst):
        numbers = order[start : start + burst]
        if rate > 0:
            sleep(max(0.0, begun + start / rate - time.monotonic()))
        frames = np.fft.fftshift(data.patterns(0, numbers), axes=(1, 2))
        sent += transport.send(series, numbers, frames)
        if controller is not None:
            controller.sent(numbers)
    transport.end(series)
    if controller is not None:
        controller.end()
    seconds = time.monotonic() - begun
    return Sent(sent, len(order) - len(np.unique(order)), seconds)
