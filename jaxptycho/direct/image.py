"""Pictures of direct phase retrieval, with their transfer and noise, and a Wiener correction."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Complex, Float

from .. import viewing
from .scan_grid import ScanGrid

MODEL_ERROR = 3e-3  # of the largest |T|², least regularisation of a Wiener filter
STRONG_PHASE_RAD = 1.0  # rms beyond which 1 + iφ is a poor model of e^{iφ}


class DirectImage(eqx.Module):
    """Image on the grid of the scan, in the frame of the positions.

    Its Fourier transform is `transfer` · Φ(Q) + noise of power `noise`, at `grid.frequencies()`,
    where Φ is the transform of the specimen's phase [rad] over the entries of the grid. `caution`
    explains why it may be qualitative only.
    """

    image: Float[np.ndarray, "Y X"]
    grid: ScanGrid
    transfer: Complex[np.ndarray, "Y half"] | Float[np.ndarray, "Y half"]
    noise: Float[np.ndarray, "Y half"]  # E|noise(Q)|² of the unnormalised transform
    title: str = eqx.field(static=True)
    unit: str = eqx.field(static=True, default="rad")
    caution: str | None = eqx.field(static=True, default=None)

    @property
    def pixel(self) -> tuple[float, float]:
        """Distances [Å] between rows and between columns."""
        rows, columns = np.hypot(*self.grid.steps.T)
        return float(rows), float(columns)

    @property
    def corner(self) -> tuple[float, float]:
        """Position (y, x) [Å] of pixel [0, 0] in the frame of the positions."""
        y, x = self.grid.origin
        return float(y), float(x)

    @property
    def spectrum(self) -> Complex[np.ndarray, "Y half"]:
        """Fourier transform of the image, as `numpy.fft.rfft2`."""
        return np.fft.rfft2(self.image)

    def signal_to_noise(self) -> Float[np.ndarray, "Y half"]:
        """Spectral ratio |T|² S/N of a specimen of white phase power S, estimated by moments."""
        return np.abs(self.transfer) ** 2 * signal_power(self) / np.maximum(self.noise, _TINY)

    def corrected(self) -> "DirectImage":
        """Phase [rad] by the Wiener filter T*/(|T|² + N/S) of the transfer.

        N/S is at least `MODEL_ERROR` of the largest |T|²: counts of a high dose are exact, the
        transfer of a weak phase and the edges of a scan are not.
        """
        power = np.abs(self.transfer) ** 2
        regular = self.noise / max(signal_power(self), _TINY)
        regular = np.maximum(regular, MODEL_ERROR * power.max())
        gain = np.conj(self.transfer) / np.maximum(power + regular, _TINY)
        phase = np.fft.irfft2(gain * self.spectrum, self.image.shape)
        return warned(
            DirectImage(
                phase,
                self.grid,
                (gain * self.transfer).real,
                np.abs(gain) ** 2 * self.noise,
                f"{self.title}, corrected for its transfer",
                caution=self.caution,
            )
        )

    def show(self) -> Any:
        """Figure of the image with its scale."""
        return viewing.figures().direct(self)


_TINY = np.finfo(float).tiny ** 0.5


def signal_power(picture: DirectImage) -> float:
    """Mean power S of the phase's spectrum within the transfer: Σ(|y|² − N) / Σ|T|², ≥ 0."""
    excess = np.sum(np.abs(picture.spectrum) ** 2 - picture.noise, where=_measured(picture))
    power = np.sum(np.abs(picture.transfer) ** 2, where=_measured(picture))
    return float(max(excess, 0.0) / max(power, _TINY))


def _measured(picture: DirectImage) -> Bool[np.ndarray, "Y half"]:
    measured = np.abs(picture.transfer) > 1e-3 * np.abs(picture.transfer).max()
    measured[0, 0] = False
    return measured


def warned(picture: DirectImage) -> DirectImage:
    """The picture, with a caution if its phase [rad] is too strong for a weak-phase method."""
    rms = float(np.std(picture.image))
    if picture.caution is not None or rms <= STRONG_PHASE_RAD:
        return picture
    words = (
        f"the phase has a standard deviation of {rms:.2f} rad, where weak-phase methods require "
        f"less than {STRONG_PHASE_RAD:g}: the picture is qualitative"
    )
    return replace(picture, caution=words)
