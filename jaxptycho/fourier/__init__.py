"""Fourier transforms of the last two axes, for waves.

On a CPU, where `llvmlite` is installed, windows whose sides have prime factors of at most 13 are transformed by code
that is made for their size (`planes`): three to four times as fast as XLA's own transforms, and a slice is one
operation. It is fastest with a device for every core (`one_device_per_core`). Elsewhere these are `jax.numpy.fft` and
products.
"""

from .transforms import convolve, diffract, fft2, ifft2, step

__all__ = ["convolve", "diffract", "fft2", "ifft2", "step"]
