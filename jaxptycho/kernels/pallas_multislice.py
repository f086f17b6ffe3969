"""Multislice in one kernel of a GPU (Pallas): the wave stays on chip, a propagation is matrix
products.

Pallas supports neither FFTs nor complex numbers. A circulant matrix for each axis, C_y ψ C_xᵀ,
propagates by a transfer function that is a product of one of k_y and one of k_x; any other takes
two pairs of DFT matrices, F̄ (P ∘ F ψ F) F̄. A product of complex matrices is three of real ones
(Gauss), each of them three on tensor cores (TF32×3, which equals float32; `Precision.HIGHEST` would
not use the tensor cores). One program propagates one mode of one shot through all slices.

MFLOP for a wave of N² pixels and a gap, the same forward and backward, and ns by arithmetic on an
H200 (300 of its 495 TFLOP/s in TF32, copies at 4.3 TB/s), forward and backward together:

    N                       32       64      128
    circulant, 36 N³       1.2      9.4       75   MFLOP
    DFT, 72 N³             2.4       19      151   MFLOP
    circulant + 4 passes    16       94      620   ns
    DFT + 4 passes          24      155     1130   ns
    FFT by XLA, 31 passes   59      236      945   ns

The gradient requires the waves that entered each slice. Stored, they cost two passes of 8 N² bytes,
recomputed from the exit wave 36 N³ FLOP: 15 ns against 31 for N = 64, 61 against 252 for N = 128,
so they are stored.

By `ptxas` (Triton 3.6, sm_90a) a program for 32² spills nothing, one for 64² 1.4 kB a thread and
gap, one for 128² 11 kB, 2.9 MB in all, where the wave and its product fill the registers:
expect a gain for 32² and 64², none for 128². Nothing is measured on a GPU yet: only
`benchmarks/bench_fused.py` uses these functions. Pallas' way through Triton is deprecated since JAX
0.11; its successor (Mosaic) supports only Hopper and newer.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Complex

from .convolution import step
from .manual_axes import match_vma

Waves = Complex[Array, "m y x"]
Window = Complex[Array, "z y x"]
Transfer = Complex[Array, "y x"] | Complex[Array, "z y x"]
HIGHEST = jax.lax.Precision.HIGHEST  # on a GPU these would be products without tensor cores
SIZES = (16, 32, 64, 128)  # tiles of tensor cores, as far as they stay on chip


def multislice_fused(wave: Waves, slices: Window, kernel: Transfer) -> Waves:
    """Wave that enters the last of all slices, for kernels that are a product along y and x:
    Fresnel's, tilted or not.

    For windows of 16, 32, 64 or 128 pixels, derivatives in reverse mode only. With any other kernel
    it is NaN. Off a GPU it is interpreted, on one device.
    """
    return _fused(_circulant, wave, slices, kernel)


def multislice_fused_dft(wave: Waves, slices: Window, kernel: Transfer) -> Waves:
    """Wave that enters the last of all slices, for any kernel, in twice the products of
    `multislice_fused`."""
    return _fused(_dft, wave, slices, kernel)


def _fused(operators, wave, slices, kernel):
    if not set(wave.shape[1:]) <= set(SIZES):
        raise ValueError(
            f"windows of {' × '.join(map(str, wave.shape[1:]))} pixels do not suit the fused "
            "multislice, which supports 16, 32, 64 or 128; pad the patterns or use waves.multislice"
        )
    if slices.shape[0] == 1:
        return wave
    return _through(operators, *match_vma(wave, slices, kernel))


def _entering_last(operators, wave, slices, kernel):
    (last,) = _entering(wave, slices, operators(kernel), keep=False)
    return _waves(last)[:, 0]


def _forward(operators, wave, slices, kernel):
    (entering,) = _entering(wave, slices, operators(kernel), keep=True)
    return _waves(entering[:, -1]), (entering, wave, slices, kernel)


def _backward(operators, seen, cotangent):
    entering, wave, slices, kernel = seen
    of_wave, of_gaps = _adjoint(cotangent, entering, slices, _transposed(*operators(kernel)))
    of_slices = jnp.sum(_waves(of_gaps), 0), jnp.zeros_like(slices[-1:])
    # the compiler removes it if the kernel's gradient is not used
    of_kernel = jax.vjp(functools.partial(_by_steps, wave, slices), kernel)[1](cotangent)[0]
    return _waves(of_wave)[:, 0], jnp.concatenate(of_slices), of_kernel


def _by_steps(wave, slices, kernel):
    """Wave that enters the last slice, by FFTs."""
    gaps = len(slices) - 1
    own = jnp.broadcast_to(kernel, (gaps, *kernel.shape)) if kernel.ndim == 2 else kernel[:gaps]
    return jax.lax.scan(lambda psi, layer: (step(psi, *layer), None), wave, (slices[:-1], own))[0]


_through: Any = jax.custom_vjp(_entering_last, nondiff_argnums=(0,))
_through.defvjp(_forward, _backward)


def _circulant(kernel):
    """Left and right matrices [gap, i, j] of a transfer function p_y p_x; NaN where it is none."""
    kernel = kernel.reshape(-1, *kernel.shape[-2:])
    rows, columns = kernel[:, :, 0] / kernel[:, :1, 0], kernel[:, 0]
    product = jnp.max(jnp.abs(kernel - rows[:, :, None] * columns[:, None]), (1, 2)) < 1e-3
    return _circle(jnp.where(product[:, None], rows, jnp.nan)), jnp.swapaxes(_circle(columns), 1, 2)


def _circle(factor):
    """C with C_ij = c_(i−j), c the inverse transform of `factor`."""
    place = jnp.arange(factor.shape[1])
    return jnp.fft.ifft(factor)[:, place[:, None] - place]


def _dft(kernel):
    """Left and right DFT matrices, the transfer functions, left and right inverses."""
    kernel = kernel.reshape(-1, *kernel.shape[-2:])
    there = [jnp.fft.fft(jnp.eye(n, dtype=kernel.dtype))[None] for n in kernel.shape[1:]]
    return *there, kernel, *(jnp.conj(m) / m.shape[1] for m in there)


def _transposed(left, right, *more):
    left, right = jnp.swapaxes(left, 1, 2), jnp.swapaxes(right, 1, 2)
    return (*more[1:], *more[:1], left, right)  # those of the DFT are symmetric


def _entering(wave, slices, operators, keep):
    """Wave entering each slice, or only the last."""
    gaps = len(slices) - 1

    def through(precision: Any, wave: Any, slices: Any, *refs) -> Any:
        *operators, out = refs

        def one_slice(n: Any, psi: Any) -> Any:
            if keep:
                _write(out, n, psi)
            return _propagate(_times(_read(slices, n), psi), operators, n, precision)

        _write(out, gaps if keep else 0, jax.lax.fori_loop(0, gaps, one_slice, _read(wave, 0)))

    return _call(
        through, [_planes(wave[:, None])], [slices, *operators], [len(slices) if keep else 1]
    )


def _adjoint(cotangent, entering, slices, operators):
    """Cotangents of the wave and, mode by mode, of the slices.

    From the cotangent of the wave entering the last slice.
    """
    gaps = len(slices) - 1

    def back(precision: Any, cotangent: Any, entering: Any, slices: Any, *refs) -> Any:
        *operators, of_wave, of_slices = refs

        def one_slice(i: Any, psi: Any) -> Any:
            n = gaps - 1 - i
            psi = _propagate(psi, operators, n, precision)
            _write(of_slices, n, _times(_read(entering, n), psi))
            return _times(_read(slices, n), psi)

        _write(of_wave, 0, jax.lax.fori_loop(0, gaps, one_slice, _read(cotangent, 0)))

    return _call(back, [_planes(cotangent[:, None]), entering], [slices, *operators], [1, gaps])


def _call(body, of_mode, of_shot, counts):
    """Stacks [mode, count, part, y, x] written by `body`, one program per mode.

    The inputs are such stacks of each mode and arrays [count, y, x] of all modes.
    """
    modes, _, _, *shape = of_mode[0].shape
    planes = [*of_mode, *map(_planes, of_shot)]

    def own(count: Any) -> Any:
        return pl.BlockSpec((None, count, 2, *shape), lambda m: (m, 0, 0, 0, 0))

    def whole(array: Any) -> Any:
        return pl.BlockSpec(array.shape, lambda m: (0,) * array.ndim)

    varies = {"manual_axis_type": jax.typeof(planes[0]).manual_axis_type}
    options = {
        "out_shape": [
            jax.ShapeDtypeStruct((modes, n, 2, *shape), planes[0].dtype, **varies) for n in counts
        ],
        "grid": (modes,),
        "in_specs": [own(a.shape[1]) for a in of_mode] + [whole(a) for a in planes[len(of_mode) :]],
        "out_specs": [own(n) for n in counts],
    }
    single = planes[0].dtype == jnp.float32
    on_gpu = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3 if single else HIGHEST
    on_chip = triton.CompilerParams(num_warps=max(4, math.prod(shape) // 2048), num_stages=1)
    return jax.lax.platform_dependent(
        *planes,
        cpu=pl.pallas_call(functools.partial(body, HIGHEST), interpret=True, **options),
        default=pl.pallas_call(functools.partial(body, on_gpu), compiler_params=on_chip, **options),
    )


def _planes(array):
    """Real and imaginary parts [..., part, y, x]."""
    return jnp.stack([array.real, array.imag], -3)


def _waves(planes):
    return jax.lax.complex(planes[..., 0, :, :], planes[..., 1, :, :])


def _read(ref, n):
    return ref[n, 0], ref[n, 1]


def _write(ref, n, psi):
    ref[n, 0], ref[n, 1] = psi


def _times(a, b):
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _product(a, b, precision):
    """Matrix product of complex matrices, by three real ones (Gauss)."""
    dot = functools.partial(jnp.dot, precision=precision)
    both = dot(a[0] + a[1], b[0])
    turn = dot(a[0], b[1] - b[0])
    return both - dot(a[1], b[0] + b[1]), both + turn


def _propagate(psi, operators, n, precision):
    """Left matrix times wave times right matrix.

    With more operators these are spectra, which are multiplied and transformed back.
    """
    left, right, *more = operators

    def own(ref: Any) -> Any:  # read on use, since registers are few
        return _read(ref, n if ref.shape[0] > 1 else 0)

    def sandwich(left: Any, right: Any, psi: Any) -> Any:
        return _product(own(left), _product(psi, own(right), precision), precision)

    psi = sandwich(left, right, psi)
    if not more:
        return psi
    transfer, left, right = more
    return sandwich(left, right, _times(own(transfer), psi))
