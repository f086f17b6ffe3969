"""From the electrons that arrive to the counts that a real camera writes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from scipy.ndimage import gaussian_filter


@dataclass(frozen=True)
class Camera:
    """A counting camera by default; with a `gain`, one that integrates.

    Every electron then leaves a Poisson-distributed number of counts, `gain` on average, spread
    over the neighbouring pixels by a Gaussian of `spread`: noise that is correlated and more than
    Poisson's, as on real cameras.
    """

    mtf: Sequence[float] | None = (
        None  # of the optics of the camera, at even steps from 0 to Nyquist
    )
    gain: float | None = None  # counts for each electron; None counts electrons
    spread: float = 0.0  # pixels, of the counts of one electron
    flatfield: float = 0.0  # rms error of the gain from pixel to pixel, the same in all patterns
    readout: float = 0.0  # rms counts of every pixel
    noise: bool = True  # without it the expectation is written

    @property
    def dtype(self) -> np.dtype:
        """Type of the counts that are written."""
        return np.dtype((np.int32 if self.readout else np.uint16) if self.noise else np.float32)

    def gain_map(self, shape: tuple[int, ...], seed: int) -> Float[np.ndarray, "y x"]:
        """The relative gain of every pixel."""
        return np.maximum(
            1 + self.flatfield * np.random.default_rng([seed, 101]).normal(size=shape), 0
        )

    def recorded(
        self,
        expected: Float[np.ndarray, "b y x"],
        gain_map: np.ndarray | float,
        rng: np.random.Generator,
    ) -> Num[np.ndarray, "b y x"]:
        """Counts of some patterns with `expected` electrons in every pixel, zero frequency in the
        middle.
        """
        if not self.noise:
            return (self._answer(expected) * gain_map).astype(np.float32)
        counts = rng.poisson(np.maximum(expected, 0)).astype(float)
        if self.gain is not None:
            counts = rng.poisson(np.maximum(self._answer(counts), 0)).astype(float)
        counts = counts * gain_map
        if self.readout:  # what is left after the dark frame was subtracted may be negative
            counts = counts + self.readout * rng.normal(size=counts.shape)
        whole = np.rint(counts)
        most = np.iinfo(self.dtype).max
        if whole.max(initial=0) > most:
            raise ValueError(
                f"{whole.max():.4g} counts in a pixel are more than the {most} that a file holds; "
                "lower the dose or the gain, or write the expectation (noise = false)"
            )
        return whole.astype(self.dtype)

    def _answer(self, electrons):
        """The mean counts that electrons leave where they arrive and around it."""
        if self.gain is None:
            return electrons
        width = (0, self.spread, self.spread)
        return self.gain * (
            gaussian_filter(electrons, width, mode="constant") if self.spread else electrons
        )
