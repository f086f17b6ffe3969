"""Virtual detectors: sums over areas of every pattern, and pictures of them."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Float

from ..physics.grids import Grid
from ..physics.types import Pair
from .bright_field import frequencies_from
from .image import DirectImage
from .placement import AbstractPlacement
from .processor import AbstractProcessor, Block
from .transfer import Optics, transfer, transmission


class SignalState(eqx.Module):
    """Signals of the shots seen so far, zero elsewhere."""

    signals: Float[Array, "shot m"]
    positions: Float[Array, "shot 2"]
    seen: Bool[Array, " shot"]


def no_signals(n_shots: int, m: int) -> SignalState:
    """State of `m` signals of a scan without a pattern."""
    signals = jnp.zeros((n_shots, m), jnp.float32)
    return SignalState(signals, jnp.zeros((n_shots, 2)), jnp.zeros(n_shots, bool))


def stored(state: SignalState, block: Block, signals: Float[Array, "b m"]) -> SignalState:
    """State with the `signals` of a block in the rows of its shots."""
    rows = jnp.where(jnp.asarray(block.weight) > 0, block.shots, len(state.seen))
    return SignalState(
        state.signals.at[rows].set(signals, mode="drop"),
        state.positions.at[rows].set(block.positions, mode="drop"),
        state.seen.at[rows].set(True, mode="drop"),
    )


def joined(first: SignalState, second: SignalState) -> SignalState:
    """State of the shots of both: a shot is zero in one of them."""
    return SignalState(
        first.signals + second.signals,
        first.positions + second.positions,
        first.seen | second.seen,
    )


class VirtualSignals(NamedTuple):
    """Counts of every shot in every detector, and in the entire pattern."""

    signals: Float[np.ndarray, "shot m"]
    total: Float[np.ndarray, " shot"]
    positions: Float[np.ndarray, "shot 2"]  # Å (y, x)
    seen: Bool[np.ndarray, " shot"]
    detector: "VirtualDetector"


class VirtualDetector(AbstractProcessor):
    """Processor that sums every pattern of `n_shots` over the areas of several detectors."""

    masks: Bool[np.ndarray, "m y x"]  # zero frequency in the corner
    grid: Grid = eqx.field(static=True)  # of the patterns
    n_shots: int = eqx.field(static=True)
    centre: tuple[float, float] = eqx.field(static=True, default=(0.0, 0.0))  # rad, of the disc

    def init(self) -> SignalState:
        """State without a pattern."""
        return no_signals(self.n_shots, len(self.masks) + 1)

    def update(self, state: SignalState, block: Block) -> SignalState:
        """State with the signals of a block."""
        areas = jnp.concatenate([jnp.asarray(self.masks), jnp.ones((1, *self.grid.shape), bool)])
        weights = areas.reshape(len(areas), -1).astype(jnp.float32)

        def signal(pattern: Any) -> Any:
            return weights @ pattern.reshape(-1).astype(jnp.float32)

        return stored(state, block, lax.map(signal, jnp.asarray(block.patterns)))

    def merge(self, first: SignalState, second: SignalState) -> SignalState:
        """State of the shots of both."""
        return joined(first, second)

    def result(self, state: SignalState) -> VirtualSignals:
        """Signals of every shot."""
        signals = np.asarray(state.signals, float)
        positions = np.asarray(state.positions, float)
        return VirtualSignals(
            signals[:, :-1], signals[:, -1], positions, np.asarray(state.seen), self
        )


def ring_segments(
    grid: Grid, inner: float, outer: float, sectors: int = 1, centre: Pair = (0.0, 0.0)
) -> Bool[np.ndarray, "m y x"]:
    """Detectors from the angle `inner` to `outer` [rad], divided into equal `sectors`.

    The bright field is `ring_segments(grid, 0, semiangle)`. `centre` (y, x) [rad] is that of the
    disc. Raises ValueError where a detector has no pixel.
    """
    k = grid.wavelength * frequencies_from(grid, centre)
    angle = np.hypot(k[..., 0], k[..., 1])
    turn = np.mod(np.arctan2(k[..., 0], k[..., 1]) / (2 * np.pi), 1)
    sector = np.floor(turn * sectors).astype(int) % sectors
    ring = (angle >= inner) & (angle < outer)
    masks = np.stack([ring & (sector == m) for m in range(sectors)])
    if not masks.any((1, 2)).all():
        raise ValueError(
            f"a detector from {1e3 * inner:.4g} to {1e3 * outer:.4g} mrad in {sectors} sectors has "
            "no pixel; check the angles"
        )
    return masks


def virtual_image(
    found: VirtualSignals, placement: AbstractPlacement, optics: Optics, detector: int = 0
) -> DirectImage:
    """Picture of one detector [counts], mean included, with the noise of Poisson counts.

    The transfer is that of a weak phase: to first order, none reaches a dark-field detector.
    """
    values = found.signals[:, detector]
    mean = values[found.seen].mean()
    spectrum = placement.transform(jnp.asarray(values - mean)[:, None])[0]
    image = np.fft.irfft2(np.asarray(spectrum), placement.grid.shape) + mean
    gain = detector_transfer(found, detector, optics, placement.grid.frequencies())
    noise = placement.power * mean * np.ones(gain.shape)
    return DirectImage(image, placement.grid, gain, noise, "Virtual detector", "counts")


def detector_transfer(
    found: VirtualSignals, detector: int, optics: Optics, q: Float[np.ndarray, "Y half 2"]
) -> Complex[np.ndarray, "Y half"]:
    """Transfer |P|² Σ_k D(k) iΓ(k, Q) [counts/rad] of a weak phase to a detector D."""
    k = frequencies_from(found.detector.grid, found.detector.centre)
    disc = np.asarray(transmission(optics, jnp.asarray(k)))
    used = found.detector.masks[detector] & (disc > 0)
    intensity = found.total[found.seen].mean() / np.sum(disc**2)
    if not used.any():
        return np.zeros(q.shape[:-1], complex)
    return intensity * np.asarray(_summed(optics, k[used], q))


@eqx.filter_jit
def _summed(optics, k, q):
    def _add(total, place):
        return total + 1j * transfer(optics, place[None], q)[0], None

    zero = 1j * transfer(optics, jnp.asarray(k[:1]), q)[0]
    return lax.scan(_add, zero, jnp.asarray(k[1:]))[0]
