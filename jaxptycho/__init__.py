"""Differentiable electron ptychography and ptychographic tomography in JAX.

`data = read(file)`, `model = first_model(data)`, `result = reconstruct(data, model)`. Parts of a
model are at the top, functions in namespaces: `losses`, `penalties`, `constraints`, `solvers`,
`tomography`, `simulate`, `analysis`, `figures`.

Folders, from the ground up; a file imports only from folders below its own:

- `kernels`: Fourier transforms, convolutions, resampling, with accelerators
- `physics`: arrays in, arrays out: grids, waves, windows, aberrations, potentials, detection
- `parts`: probe, specimen, scan, propagator, detector; `PerShot` and `PerView`
- `model`: `Model`, `predict`; `data`: `Dataset`, `batches`, halves of a measurement
- `direct`: phase without iteration, virtual detectors
- `inverse`: losses, penalties, constraints, solvers, `make_step`, `minimise`
- `analysis`: quality of a result; `start`: from a dataset to a first model
- `tomography`: projections and alignment; `acquisition`: where targets of a tilt series will be
- `simulate`: atoms to counts; `live`: pictures while a scan is recorded
- `distributed`: many devices and processes; `io`: files; `figures`: plots
- `runs`: epochs, progress and state of a run, `reconstruct`; `jobs`: job files and their steps
- `reports`: comparison of results; `cli`: the command line
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .data import Batch, Dataset, batches, make_batch, prefetch, split, stacked
from .data.half_sets import checkerboard, thinned
from .distributed.sharding import distribute, mesh, one_device_per_core
from .inverse import losses, penalties
from .inverse.losses import amplitude, anscombe, gaussian, misfit, poisson
from .inverse.step import init_state, make_step, minimise, per_part
from .model import Model, exit_wave, predict, simulate_pattern, waves
from .parts.atoms import Atoms
from .parts.detector import (
    AbstractDetector,
    Background,
    Blurred,
    Cropped,
    Descanned,
    Gain,
    Ideal,
    Masked,
    ModulationTransfer,
    NearField,
    SuperSampled,
)
from .parts.indexed import PerShot, PerView, Varying, select
from .parts.mixed_states import MixedStates
from .parts.probe import AberratedProbe, AbstractProbe, PixelProbe, RelaxedProbe
from .parts.propagator import AbstractPropagator, AngularSpectrum, BandLimited, Fresnel, Tilted
from .parts.scan import AbstractScan, AffineScan, FreeScan
from .parts.slices import Sliced
from .parts.specimen import AbstractSpecimen, SliceStack
from .parts.stacks import PotentialSlices, TransmissionStack, WeakPhaseStack
from .parts.volume import Volume
from .physics.grids import Grid

if TYPE_CHECKING:
    from . import analysis, direct, figures, simulate, tomography
    from .inverse import constraints, solvers
    from .io.datasets import read
    from .io.results import load, write
    from .runs.reconstruct import Result, reconstruct
    from .start.calibrate import Calibration, calibrate
    from .start.guess import first_model

__version__ = "0.2.0"

# loaded when first used: files, plots, progress bars and what a start is found by take seconds
# to import
_FUNCTIONS = {
    "read": "io.datasets",
    "write": "io.results",
    "load": "io.results",
    "reconstruct": "runs.reconstruct",
    "Result": "runs.reconstruct",
    "Calibration": "start.calibrate",
    "calibrate": "start.calibrate",
    "first_model": "start.guess",
}
_NAMESPACES = {
    "analysis": "analysis",
    "constraints": "inverse.constraints",
    "direct": "direct",
    "figures": "figures",
    "simulate": "simulate",
    "solvers": "inverse.solvers",
    "tomography": "tomography",
}

__all__ = [
    "AberratedProbe",
    "AbstractDetector",
    "AbstractProbe",
    "AbstractPropagator",
    "AbstractScan",
    "AbstractSpecimen",
    "AffineScan",
    "AngularSpectrum",
    "Atoms",
    "Background",
    "BandLimited",
    "Batch",
    "Blurred",
    "Calibration",
    "Cropped",
    "Dataset",
    "Descanned",
    "FreeScan",
    "Fresnel",
    "Gain",
    "Grid",
    "Ideal",
    "Masked",
    "MixedStates",
    "Model",
    "ModulationTransfer",
    "NearField",
    "PerShot",
    "PerView",
    "PixelProbe",
    "PotentialSlices",
    "RelaxedProbe",
    "Result",
    "SliceStack",
    "Sliced",
    "SuperSampled",
    "Tilted",
    "TransmissionStack",
    "Varying",
    "Volume",
    "WeakPhaseStack",
    "amplitude",
    "analysis",
    "anscombe",
    "batches",
    "calibrate",
    "checkerboard",
    "constraints",
    "direct",
    "distribute",
    "exit_wave",
    "figures",
    "first_model",
    "gaussian",
    "init_state",
    "load",
    "losses",
    "make_batch",
    "make_step",
    "mesh",
    "minimise",
    "misfit",
    "one_device_per_core",
    "penalties",
    "per_part",
    "poisson",
    "predict",
    "prefetch",
    "read",
    "reconstruct",
    "select",
    "simulate",
    "simulate_pattern",
    "solvers",
    "split",
    "stacked",
    "thinned",
    "tomography",
    "waves",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    if name in _NAMESPACES:
        return import_module(f"{__name__}.{_NAMESPACES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
