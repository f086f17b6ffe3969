"""Accumulator of a live series: frames in any order become states of processors."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Num

from ..direct.bright_field import BrightField
from ..direct.processor import AbstractProcessor, Block, init_states, update_states
from ..io.stream import Series
from .ring import frames_at_once
from .scan import LiveScan, linear_processors, scan_of
from .tally import Tally

Make = Callable[[LiveScan], AbstractProcessor]
FIRST = 64  # frames that the disc is found in


class Accumulator:
    """States of the processors of one series; `scan` is None until its first frames have come.

    `further` make processors of the user from the scan, beside the linear ones.
    """

    def __init__(self, series: Series, layout: dict[str, Any], further: Sequence[Make] = ()):
        self.series = series
        self.layout = layout
        self.further = further
        self.tally = Tally(series.frames)
        self.scan: LiveScan | None = None
        self.processors: tuple[AbstractProcessor, ...] = ()
        self.bright: BrightField  # the one among them that keeps the bright field
        self.states: tuple[Any, ...] = ()
        self.block = frames_at_once(series)
        self._held: list[np.ndarray] = []

    def add(self, records: np.ndarray) -> None:
        """Add up to `block` records of the series."""
        if self.scan is None:
            self._held.append(records)
        else:
            self._update(records)

    @property
    def may_begin(self) -> bool:
        """True once enough frames have come that the scan is known by them."""
        held = sum(map(len, self._held))
        return self.scan is None and held >= min(FIRST, self.series.frames)

    def begin(self) -> None:
        """Begin with the frames that have come; ValueError where the scan is not known by them.

        Returns when the programs are compiled.
        """
        if self.scan is not None or not self._held:
            return
        records = np.concatenate(self._held)
        self.scan = scan_of(self.series, np.asarray(records["pixels"]), self.layout)
        linear = linear_processors(self.scan)
        self.bright = linear[-1]
        self.processors = (*linear, *(make(self.scan) for make in self.further))
        self.states = init_states(self.processors)
        for held in self._held:
            self._update(held)
        self._held = []
        jax.block_until_ready(self.states)

    def copied(self) -> tuple[Any, ...]:
        """Copies of the states, which stay when others follow."""
        return jax.tree.map(jnp.copy, self.states)

    def _update(self, records: np.ndarray) -> None:
        assert self.scan is not None
        weight = np.zeros(self.block, np.float32)
        shots = np.zeros(self.block, int)
        weight[: len(records)] = self.tally.add(records["number"])
        shots[: len(records)] = np.clip(records["number"], 0, self.series.frames - 1)
        patterns = np.zeros((self.block, *self.series.shape), self.scan.dtype)
        to_corner(records["pixels"], patterns[: len(records)])
        block = Block(shots, self.scan.positions[shots], patterns, weight)
        jax.block_until_ready(self.states)  # one block under way while the next one is copied
        self.states = update_states(self.processors, self.states, block)


def to_corner(pixels: Num[np.ndarray, "b y x"], out: Num[np.ndarray, "b y x"]) -> None:
    """Copy patterns into `out` with the zero frequency in the corner, as `numpy.fft.ifftshift`."""
    y, x = (n // 2 for n in pixels.shape[1:])
    ny, nx = pixels.shape[1:]
    for there, here in ((slice(0, ny - y), slice(y, ny)), (slice(ny - y, ny), slice(0, y))):
        out[:, there, : nx - x] = pixels[:, here, x:]
        out[:, there, nx - x :] = pixels[:, here, :x]
