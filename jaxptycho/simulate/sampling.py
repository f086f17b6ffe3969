"""The grid on which waves are computed, finer than that of the detector."""

import math
from dataclasses import dataclass

from scipy.fft import next_fast_len

from ..physics.grids import Grid

BAND = 2 / 3  # of the fine grid's frequencies are kept


@dataclass(frozen=True)
class Sampling:
    """Sampling of the waves."""

    pixel: float = 0.1  # Å, at most; finer where the detector needs it
    slice: float = 1.0  # Å
    finer: int = 1  # samples for each detector pixel and direction; the window grows likewise

    def __post_init__(self):
        if min(self.pixel, self.slice) <= 0 or self.finer < 1:
            raise ValueError(
                f"a simulation with pixels of {self.pixel:g} Å, slices of {self.slice:g} Å and "
                f"{self.finer} samples for each detector pixel; expected numbers above zero"
            )

    def grid(self, coarse: Grid) -> Grid:
        """Grid of the waves whose patterns end on the detector of `coarse`.

        Detector pixels are sums of `finer`² samples, and all of them, the corners included,
        are within the band limit.
        """

        def pixels(n: int, pixel: float) -> int:
            least = max(n * pixel / self.pixel, n * math.sqrt(2) / BAND)
            return self.finer * fast(least)

        shape = tuple(pixels(n, p) for n, p in zip(coarse.shape, coarse.pixel, strict=True))
        lengths = (self.finer * n * p for n, p in zip(coarse.shape, coarse.pixel, strict=True))
        return Grid(
            shape,
            tuple(length / n for length, n in zip(lengths, shape, strict=True)),
            coarse.voltage_kv,
        )


def fast(least: float) -> int:
    """The next number of pixels that is fast to transform."""
    return int(next_fast_len(math.ceil(least)) or 1)
