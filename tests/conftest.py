"""Double precision, eight virtual devices, and every annotation of the package checked at run time."""

import os
from pathlib import Path

import jax
import matplotlib
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
matplotlib.use("Agg")
install_import_hook("jaxptycho", "typechecker.checked")


@pytest.fixture
def quick_to_compile():
    """Code that compiles in half the time and runs slower: for tests that compute next to nothing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def data_dir():
    """The folder with the measured data; `data_dir(name)` is a file of it, or the test is skipped."""

    def file(name: str) -> Path:
        folder = os.environ.get("JAXPTYCHO_DATA")
        if folder is None:
            pytest.skip(
                "the environment variable JAXPTYCHO_DATA does not name the folder of the measured data"
            )
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"JAXPTYCHO_DATA has no file {name}")
        return path

    return file
