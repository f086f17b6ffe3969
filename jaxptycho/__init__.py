"""Differentiable electron ptychography and ptychographic tomography in JAX.

Folders, from the ground up; a file imports only from folders below its own:

- `kernels`: Fourier transforms, convolutions, resampling, with accelerators
- `physics`: arrays in, arrays out: grids, waves, windows, aberrations, potentials, detection
- `parts`: probe, specimen, scan, propagator, detector; `PerShot` and `PerView`
- `model`: `Model`, `predict`; `data`: `Dataset`, `batches`, halves of a measurement
- `inverse`: losses, penalties, constraints, solvers, `make_step`, `reconstruct`
- `analysis`: quality of a result; `start`: from a dataset to a first model
- `tomography`: projections and alignment; `simulate`: atoms to counts
- `distributed`: many devices and processes; `io`: files; `figures`: plots
- `runs`: epochs, progress and state of a run; `jobs`: job files and their steps
- `reports`: comparison of results; `cli`: the command line
"""

from importlib import import_module

from .data import Batch, Dataset, batches, make_batch, prefetch, split, stacked
from .data.half_sets import checkerboard, thinned
from .distributed.sharding import distribute, mesh, one_device_per_core
from .inverse.losses import amplitude, anscombe, gaussian, misfit, poisson
from .inverse.step import init_state, make_step, per_part, reconstruct
from .model import Model, exit_wave, predict, shoot
from .parts.atoms import Atoms
from .parts.detector import (
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
from .parts.probe import AberratedProbe, AbstractProbe, PixelProbe, RelaxedProbe
from .parts.propagator import AbstractPropagator, AngularSpectrum, BandLimited, Fresnel, Tilted
from .parts.scan import AbstractScan, AffineScan, FreeScan
from .parts.slices import Sliced
from .parts.specimen import AbstractSpecimen, SliceStack
from .parts.stacks import PotentialSlices, WeakPhaseStack
from .parts.volume import Volume
from .physics.grids import Grid
from .start.guess import first_model

__version__ = "0.1.0"

_FILES = {"read": "io.datasets", "write": "io.results", "load": "io.results"}  # these load h5py


def __getattr__(name):
    if name in _FILES:
        return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
