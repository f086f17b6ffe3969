"""Fourier transforms of the last two axes, for waves.

On a CPU, where `llvmlite` is installed and JAX has a device for every core (`one_device_per_core`), windows whose
sides have small prime factors are transformed by code that is made for their size (`planes`): several times as fast
as XLA's own transforms, and a propagation is one operation. Elsewhere these are `jax.numpy.fft` and products.
"""

from .transforms import convolve, fft2, ifft2, step

__all__ = ["convolve", "fft2", "ifft2", "step"]
