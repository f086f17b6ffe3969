"""Choice of the implementation of a kernel: an accelerator if able and faster, else `reference`.

Made when a program is lowered for a platform, so a compiled program keeps its choice.
"""

import functools
import importlib.util
import os
import warnings
from types import ModuleType
from typing import NamedTuple

import jax
from jax.typing import DTypeLike

SWITCH = "JAXPTYCHO_KERNELS"
DTYPES = ("float32", "float64", "complex64", "complex128")
MAX_CORES_PER_DEVICE = 4  # XLA's transforms on more cores beat the code that runs on one


class Choice(NamedTuple):
    """Use of the kernels of `cpu_llvm` on CPU devices, and the reason."""

    accelerated: bool
    reason: str


def choice() -> Choice:
    """Choice for the CPU devices of this process.

    A kernel of `cpu_llvm` runs on one core of its device, about four times as fast as XLA's
    transforms there, which spread over all cores of a device. Raises ValueError for an unknown
    value of the environment variable.
    """
    asked = os.environ.get(SWITCH, "")
    if asked not in ("", "jnp"):
        raise ValueError(f"{SWITCH} is {asked!r}; set it to 'jnp' for plain jax.numpy, or unset it")
    if asked:
        return Choice(False, f"switched off by {SWITCH}={asked}")
    try:
        devices = jax.local_device_count("cpu")
    except RuntimeError:  # JAX_PLATFORMS may leave the CPU out
        return Choice(False, "JAX has no CPU device")
    if MAX_CORES_PER_DEVICE * devices < cores():
        few = f"{devices} CPU device{'s' * (devices > 1)} for {cores()} cores"
        return Choice(False, f"{few}; call one_device_per_core before JAX computes anything")
    module, reason = _loaded()
    return Choice(module is not None, reason)


def cpu_llvm(dtype: DTypeLike) -> ModuleType | None:
    """The module `cpu_llvm.handlers` where it is chosen and has code for numbers of this type."""
    return _loaded()[0] if str(dtype) in DTYPES and choice().accelerated else None


@functools.cache
def _loaded() -> tuple[ModuleType | None, str]:
    """Module if it can be used, and the reason; a fault is a warning, once."""
    if importlib.util.find_spec("llvmlite") is None:
        return None, "llvmlite is not installed"
    try:
        from .cpu_llvm import abi, handlers

        abi.require_layout()
        return handlers, handlers.description()
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        warnings.warn(f"CPU kernels are off, jax.numpy computes: {error}", stacklevel=2)
        return None, str(error)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def kernel_report() -> dict[str, str]:
    """Implementation of the kernels on each kind of device of this process, in words."""
    accelerated, reason = choice()
    rows = {"kernels on cpu": f"{'cpu_llvm' if accelerated else 'jax.numpy'} ({reason})"}
    for platform in sorted({device.platform for device in jax.local_devices()} - {"cpu"}):
        rows[f"kernels on {platform}"] = "jax.numpy (compiled by XLA)"
    return rows
