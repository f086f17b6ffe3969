"""Hot operations behind one interface: Fourier transforms, convolutions, resampling.

Each is a primitive of JAX, differentiable both ways and mapped over any axes, defined in plain
`jax.numpy` by the function of the same name in `reference`. On CPUs `cpu_llvm` computes it where it
can (`selection`): llvmlite is installed, there is a device for about every core, and the sizes
suit. `JAXPTYCHO_KERNELS=jnp` switches that off.
"""

from .convolution import convolve, step
from .fourier import diffract, fft2, ifft2
from .manual_axes import match_vma
from .resampling import rotate_planes
from .selection import kernel_report
from .sparse import sparse_product, spline_coefficients

__all__ = [
    "convolve",
    "diffract",
    "fft2",
    "ifft2",
    "kernel_report",
    "match_vma",
    "rotate_planes",
    "sparse_product",
    "spline_coefficients",
    "step",
]
