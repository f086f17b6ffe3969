"""Which kernels compute: the switch, the capabilities, what is missing, and equality of both."""

import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import kernels
from jaxptycho.kernels import reference, resampling, selection
from jaxptycho.kernels.resampling import Axis, rotate_planes

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SIZES = [(16, 16), (27, 35), (34, 64)]  # the last has no small factors


def random(*shape, dtype):
    values = np.random.default_rng(sum(shape)).normal(size=(2, *shape))
    complex_values = values[0] + 1j * values[1]
    return (complex_values if np.issubdtype(dtype, np.complexfloating) else values[0]).astype(dtype)


def require_close(found, expected, terms=1):
    """Equality within rounding, of sums of many `terms` that partly cancel."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        rounding = max(50, math.sqrt(terms)) * jnp.finfo(a.dtype).eps
        assert jnp.max(jnp.abs(a - b)) <= rounding * jnp.max(jnp.abs(b))


def value_and_gradients(function, operands, weights):
    """Value, and gradients of a real function of it by all operands, compiled afresh."""

    def compute(*operands):
        value, pull = jax.vjp(function, *operands)
        return value, pull(weights * value)

    return jax.jit(compute)(*operands)


OPERATIONS = {
    "fft2": (kernels.fft2, reference.jnp_fft2, 0),
    "ifft2": (kernels.ifft2, reference.jnp_ifft2, 0),
    "convolve": (kernels.convolve, reference.jnp_convolve, "kernel"),
    "diffract": (kernels.diffract, reference.jnp_diffract, "factor"),
    "step": (kernels.step, reference.jnp_step, "both"),
}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [*((shape, np.complex64) for shape in SIZES), (SIZES[0], np.complex128)],
    ids=str,
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_on_planes_is_its_reference(name, shape, dtype):
    """Values and gradients, those of the reference by JAX's own rules."""
    kernel, plain, more = OPERATIONS[name]
    leads = {0: [(3, 2)], "kernel": [(3, 2), ()], "factor": [(3, 2), (3,)]}.get(more)
    operands = [random(*lead, *shape, dtype=dtype) for lead in leads or [(3, 2), (3,), ()]]
    weights = random(3, 2, *shape, dtype=dtype)
    found, expected = (value_and_gradients(f, operands, weights) for f in (kernel, plain))
    require_close(found, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 7, 1), (9, 8, 21)], ids=str)
def test_spline_coefficients_are_their_reference(shape, dtype):
    values, weights = random(*shape, dtype=dtype), random(*shape, dtype=dtype)
    both = kernels.spline_coefficients, reference.jnp_spline_coefficients
    require_close(*(value_and_gradients(f, [values], weights) for f in both))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "shape", "width", "bins"),
    [("linear", (6, 5), 1, 2), ("cubic", (9, 16), 37, 1), ("cubic", (6, 5), 3, 2)],
)
def test_rotated_planes_are_the_same_switched_off(kind, shape, width, bins, dtype, monkeypatch):
    """Values and gradients by planes, angle and shift."""
    source = Axis(shape[0], 0.5, shape[0] // 2), Axis(shape[1], 0.4, shape[1] // 2)
    target = Axis(2 * shape[0], 0.5, shape[0]), source[1]
    planes, shift = random(*shape, width, dtype=dtype), random(2, dtype=dtype)
    weights = random(target[0].count // bins, shape[1], width, dtype=dtype)

    def rotated(planes, angle, shift):
        return rotate_planes(planes, angle, shift, source, target, bins, kind)

    operands = planes, dtype(0.3), shift
    found = value_and_gradients(rotated, operands, weights)
    monkeypatch.setenv(selection.SWITCH, "jnp")
    (value, (by_planes, *by_pose)), expected = (
        found,
        value_and_gradients(rotated, operands, weights),
    )
    require_close((value, by_planes), (expected[0], expected[1][0]))
    taps = resampling.INTERPOLATIONS[kind].taps ** 2
    require_close(by_pose, expected[1][1:], terms=weights.size * bins * taps)


@pytest.mark.usefixtures("off")
def test_switched_off_nothing_calls_llvm():
    parts = [random(*lead, 16, 24, dtype=complex) for lead in ((3, 2), (3,), ())]
    text = jax.jit(lambda *a: kernels.step(*a)).lower(*parts).as_text()
    assert "jaxptycho" not in text
    text = jax.jit(lambda a: kernels.spline_coefficients(a)).lower(jnp.ones((4, 5, 6))).as_text()
    assert "jaxptycho" not in text
    assert kernels.kernel_report() == {
        "kernels on cpu": "jax.numpy (switched off by JAXPTYCHO_KERNELS=jnp)"
    }


def test_cpu_kernels_are_used_and_reported(cpu_llvm):
    wave = random(16, 24, dtype=complex)
    assert "jaxptycho_fft2" in jax.jit(kernels.fft2).lower(wave).as_text()
    values = jnp.ones((4, 5, 6))
    assert "jaxptycho_spline" in jax.jit(kernels.spline_coefficients).lower(values).as_text()
    assert kernels.kernel_report()["kernels on cpu"] == f"cpu_llvm ({cpu_llvm.description()})"


def test_other_numbers_are_left_to_xla():
    """Half precision has no CPU kernel: its bytes must not be taken for those of double precision."""
    values = jnp.asarray(random(4, 5, 6, dtype=float), jnp.float16)
    fresh = jax.jit(lambda a: kernels.spline_coefficients(a))
    assert "jaxptycho" not in fresh.lower(values).as_text()
    require_close(fresh(values), reference.jnp_spline_coefficients(values))


def test_an_unknown_switch_is_refused(monkeypatch):
    monkeypatch.setenv(selection.SWITCH, "numpy")
    with pytest.raises(ValueError, match=r"JAXPTYCHO_KERNELS is 'numpy'; set it to 'jnp'"):
        selection.choice()


def test_xla_computes_where_a_device_has_many_cores(monkeypatch):
    monkeypatch.delenv(selection.SWITCH, raising=False)
    monkeypatch.setattr(selection, "cores", lambda: 64)
    assert selection.choice() == (
        False,
        "8 CPU devices for 64 cores; call one_device_per_core before JAX computes anything",
    )
    fresh = jax.jit(lambda wave: kernels.fft2(wave))
    assert "jaxptycho" not in fresh.lower(random(16, 24, dtype=complex)).as_text()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("sys.modules['llvmlite'] = None", "llvmlite"),
        ("sys.modules['llvmlite.binding'] = None", "llvmlite.binding"),
        (
            "from jaxptycho.kernels.cpu_llvm import abi; abi.FIELDS['XLA_FFI_Buffer.data'] = 28",
            "XLA_FFI_Buffer.data is 24",
        ),
    ],
    ids=["no llvmlite", "broken llvmlite", "another interface"],
)
def test_without_llvm_everything_computes(fault, said):
    """Each in a process of its own: what is loaded stays loaded."""
    code = f"""
import sys
{fault}
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from jaxptycho import kernels
wave = np.ones((16, 16), np.complex64)
assert np.allclose(kernels.step(wave, wave, wave), np.fft.ifft2(np.fft.fft2(wave)), atol=1e-5)
print(kernels.kernel_report()["kernels on cpu"])
"""
    env = {k: v for k, v in os.environ.items() if k != selection.SWITCH}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("jax.numpy (")
    assert said in done.stdout
