"""Wave optics of one shot, as functions of arrays.

A probe enters as its spectrum with the probe's centre at the origin; `place_probe` brings it
into the window of the specimen. Real-space windows are in natural order, spectra and
patterns have the zero frequency in the corner [0, 0]. Transforms are orthonormal, so
intensities keep their sum (Kirkland 2010, ch. 6; Maiden 2012; Thibault & Menzel 2013).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

from ..kernels import convolve, diffract, fft2, ifft2, step
from .grids import Grid
from .types import Intensity, Kernel, Kernels, Pair, Scalar, Waves, Window


def fourier(wave: Array) -> Array:
    """Spectrum of a wave, zero frequency in the corner, norm kept."""
    return fft2(wave) / math.sqrt(math.prod(wave.shape[-2:]))


def inverse_fourier(spectrum: Array) -> Array:
    """Wave of a spectrum with the zero frequency in the corner, norm kept."""
    return ifft2(spectrum) * math.sqrt(math.prod(spectrum.shape[-2:]))


def kept(factor: Complex[Array, "*n"]) -> Complex[Array, "*n"]:
    """The complex factor, computed only once.

    XLA would recompute its sines for every pixel, mode and shot that it multiplies; the result of
    a matrix product, here by the unit matrix, is stored instead.
    """
    planar = jnp.stack([factor.real, factor.imag], -1)
    planar = jnp.matmul(planar, jnp.eye(2, dtype=planar.dtype), precision="highest")
    return jax.lax.complex(planar[..., 0], planar[..., 1])


def phase_ramp(grid: Grid, shift: Pair, scale: float = 1.0) -> Kernel:
    """Phase ramp exp(−2πi k·shift) times `scale`, which moves a wave by `shift` (y, x) [Å]."""
    ky, kx = grid.frequencies()
    rows, columns = (
        scale * jnp.exp(-2j * jnp.pi * ky * shift[0]),
        jnp.exp(-2j * jnp.pi * kx * shift[1]),
    )
    return kept(rows) * kept(columns)


def place_probe(spectrum: Waves, centre: Pair, grid: Grid) -> Waves:
    """Wave with its centre at `centre` (y, x) [Å] from the window's first pixel; norm kept."""
    unitary = math.sqrt(math.prod(grid.shape))
    return ifft2(spectrum * phase_ramp(grid, centre, unitary))


def shift(wave: Waves, offset: Pair, grid: Grid) -> Waves:
    """The wave moved by `offset` (y, x) [Å]; exact for band-limited waves, norm kept."""
    return place_probe(fourier(wave), offset, grid)


def tilted(wave: Waves, grid: Grid, frequency: Pair) -> Waves:
    """The wave times exp(2πi frequency·r): its spectrum moved by `frequency` (y, x) [1/Å]."""
    y, x = (jnp.arange(n) * p for n, p in zip(grid.shape, grid.pixel, strict=True))
    rows, columns = jnp.exp(2j * jnp.pi * frequency[0] * y), jnp.exp(2j * jnp.pi * frequency[1] * x)
    return wave * (kept(rows)[:, None] * kept(columns))


class Exit(NamedTuple):
    """Wave behind the specimen, as the wave entering the last slice and the slice's transmission.

    Transforms include their product.
    """

    entering: Waves
    transmission: Kernel

    @property
    def wave(self) -> Waves:
        """The exit wave."""
        return transmit(*self)


def transmit(wave: Waves, transmission: Kernel) -> Waves:
    """Wave behind one slice."""
    return wave * transmission


def propagate(wave: Waves, kernel: Kernel) -> Waves:
    """Wave after a distance whose transfer function is `kernel`."""
    return convolve(wave, kernel)


UNROLL = 4  # slices that are compiled together in every step of a scan


def multislice(wave: Waves, slices: Window, kernel: Kernel | Kernels) -> Exit:
    """The wave behind all slices: a_n = F⁻¹[P·F(t_n a_{n−1})], the last slice without propagation.

    `kernel` is one transfer function, or one for each slice (the last is not used). One
    slice is exactly the product. Only the wave entering each slice is stored for the
    gradient (Maiden 2012). `physics.checkpointed` has versions that store fewer.
    """

    def one_slice(wave: Waves, layer: Any) -> Any:
        transmission, own = layer if kernel.ndim == 3 else (layer, kernel)
        return step(wave, transmission, own), None

    gaps = slices.shape[0] - 1
    layers = (slices[:-1], kernel[:gaps]) if kernel.ndim == 3 else slices[:-1]
    odd = gaps % UNROLL  # outside the scan, which would store them separately and then join both
    for n in range(odd):
        wave, _ = one_slice(wave, jax.tree.map(lambda a, n=n: a[n], layers))
    if gaps > odd:
        wave, _ = jax.lax.scan(
            one_slice, wave, jax.tree.map(lambda a: a[odd:], layers), unroll=UNROLL
        )
    return Exit(wave, slices[-1])


def intensity(wave: Waves) -> Intensity:
    """Intensity Σ_m |wave_m|², an incoherent sum over modes."""
    return sum(
        (mode.real**2 + mode.imag**2 for mode in wave[1:]), wave[0].real ** 2 + wave[0].imag ** 2
    )


def far_field(exit: Exit) -> Intensity:
    """Diffraction pattern, zero frequency in the corner; its sum is that of |wave|²."""
    return intensity(diffract(*exit)) / math.prod(exit.transmission.shape)


def near_field(exit: Exit, kernel: Kernel) -> Intensity:
    """In-line hologram, the detector's centre in the corner (as the far field's zero frequency)."""
    return jnp.fft.ifftshift(intensity(step(*exit, kernel)))


def fresnel(grid: Grid, distance: Scalar) -> Kernel:
    """Paraxial transfer function exp(−iπλΔz k²) over `distance` [Å] (Kirkland 2010, eq. 6.65)."""
    return kept(jnp.exp(-1j * jnp.pi * grid.wavelength * distance * grid.k2()))


def angular_spectrum(grid: Grid, distance: Scalar) -> Kernel:
    """Transfer function exp(2πiΔz(√(1/λ² − k²) − 1/λ)) over `distance` [Å].

    Evanescent waves are removed. The exponent is computed as −k²/(√(1/λ² − k²) + 1/λ), which
    preserves single precision
    (Goodman 2005, eq. 3-74).
    """
    k2 = grid.k2()
    inverse = 1 / grid.wavelength
    along = inverse**2 - k2
    travels = along > 0
    kz = jnp.sqrt(jnp.where(travels, along, 1.0)) + inverse
    return kept(jnp.where(travels, jnp.exp(-2j * jnp.pi * distance * k2 / kz), 0.0))


def tilt(grid: Grid, distance: Scalar, angles: Pair) -> Kernel:
    """Factor of a transfer function for a specimen tilted by `angles` (y, x) [rad].

    exp(−2πiΔz(k_y tan θ_y + k_x tan θ_x)) (Kirkland 2010, eq. 6.99).
    """
    return phase_ramp(grid, (distance * jnp.tan(angles[0]), distance * jnp.tan(angles[1])))


def band_limit(grid: Grid, fraction: float = 2 / 3) -> Intensity:
    """Band limit: 1 within `fraction` of Nyquist (an ellipse on a rectangular grid), else 0.

    2/3 keeps the product of two waves free of aliasing (Kirkland 2010, §6.8); waves exactly at
    the limit would alias and are removed.
    """
    ky, kx = grid.frequencies()
    (py, px) = grid.pixel
    return ((2 * py * ky) ** 2 + (2 * px * kx) ** 2 < fraction**2 - 1e-6).astype(ky.dtype)
