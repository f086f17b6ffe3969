"""Operations that XLA is slow at on CPUs, by machine code made for their size.

Where `llvmlite` is installed and there is a device for about every core (`one_device_per_core`), waves are transformed,
and volumes turned, by code written here for LLVM (`handlers`): Fourier transforms of windows whose sides have prime
factors of at most 13, three to four times as fast as XLA's own, with the products before and behind them; spline
coefficients; and products with sparse matrices. Elsewhere the same primitives are `jax.numpy`.
"""

from .manual_axes import match_vma
from .transforms import convolve, diffract, fft2, ifft2, step
from .turning import product, spline

__all__ = ["convolve", "diffract", "fft2", "ifft2", "match_vma", "product", "spline", "step"]
