"""Report of `jaxptycho inspect --system`: devices, memory, kernels in use, versions."""

import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import jax

from ..inverse.memory import device_memory
from ..kernels import kernel_report
from ..kernels.selection import cores

PACKAGES = (
    "jaxptycho",
    "jax",
    "jaxlib",
    "llvmlite",
    "numpy",
    "scipy",
    "equinox",
    "optax",
    "orbax-checkpoint",
    "h5py",
)


def describe_system() -> dict[str, str]:
    """Rows of a table: name and value in words."""
    kinds = Counter(f"{d.platform} ({d.device_kind})" for d in jax.local_devices())
    memory = device_memory()
    return {
        "devices": ", ".join(f"{count} × {kind}" for kind, count in kinds.items()),
        "memory of a device": "unknown" if memory is None else f"{memory / 2**30:.1f} GiB",
        "CPU cores": f"{cores()} ({platform.machine()}, {platform.system()})",
        **kernel_report(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
