"""Double precision, eight virtual devices, and every annotation of the package checked at run time."""

import gc
import os
import pkgutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
import matplotlib
import pytest
from jaxtyping import install_import_hook

# Programs that compile in two thirds of the time. What users run is what XLA makes by default: so
# does the nightly run, and every run with XLA_FLAGS set, even to nothing.
QUICK = ["--xla_backend_optimization_level=1", "--xla_cpu_parallel_codegen_split_count=1"]
if version("jaxlib") < "0.11":  # later ones know only the emitters that take longer
    QUICK.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
matplotlib.use("Agg")


def modules_of(package: str) -> set[str]:
    """Names of the modules and folders of a package, which is not imported."""
    folder = Path(__file__).parents[1].joinpath(*package.split("."))
    return {module.name for module in pkgutil.iter_modules([folder], f"{package}.")}


# all but the generator of machine code: ten thousands of calls for a function, none with an array
KERNELS, GENERATOR = "jaxptycho.kernels", "jaxptycho.kernels.cpu_llvm"
CHECKED = modules_of("jaxptycho") - {KERNELS} | modules_of(KERNELS) - {GENERATOR}
install_import_hook(sorted(CHECKED), "typechecker.checked")


def pytest_configure(config):
    """What one test compiles, the others take from a cache, in whichever worker or process they run."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="jaxptycho-tests-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        settings = {
            "jax_compilation_cache_dir": folder.name,
            "jax_persistent_cache_min_compile_time_secs": 0.1,
        }
        for name, value in settings.items():
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)


def pytest_collection_finish():
    """A full collection of garbage takes a quarter of a second here: fewer of them, of fewer objects."""
    gc.collect()
    gc.freeze()  # what is imported stays
    gc.set_threshold(700, 10, 100)


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
