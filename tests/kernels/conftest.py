"""What computes a kernel in a test: the accelerator, or plain `jax.numpy`."""

import pytest

from jaxptycho.kernels import selection


@pytest.fixture
def cpu_llvm():
    """The module of the CPU kernels; skips the test where they are off, with the reason."""
    accelerated, reason = selection.choice()
    if not accelerated:
        pytest.skip(f"the CPU kernels are off: {reason}")
    return selection.cpu_llvm("complex64")


@pytest.fixture
def off(monkeypatch):
    """The switch: what is compiled from here on in this test takes `jax.numpy`."""
    monkeypatch.setenv(selection.SWITCH, "jnp")
