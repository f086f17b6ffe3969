"""Differentiable electron ptychography and ptychographic tomography in JAX.

The floors, from the ground up; a file imports only from floors below:

- `kernels`: hot operations: Fourier transforms, convolutions, resampling, with accelerators
- `physics`: arrays in, arrays out: grids, waves, windows, aberrations, detection
- `parts`: probe, specimen, scan, propagator, detector; `PerShot` and `PerView`
- `model`: `Model`, `predict`; `data`: `Dataset`, `batches`; `halves`: two that share nothing
- `inverse`: losses, penalties, constraints, `make_step`, `reconstruct`, solvers
- `start`: from a dataset to a first model; `simulate`: atoms to counts; `analysis`: how good a result is
- `machines`: many devices; `io`: files; `app`: jobs, command line, figures
"""

from importlib import import_module

from .data import Batch, Dataset, batches, make_batch, prefetch, split, stacked
from .halves import checkerboard, thinned
from .inverse.losses import amplitude, anscombe, gaussian, misfit, poisson
from .inverse.solve import init_state, make_step, per_part, reconstruct
from .machines.placement import distribute, mesh, one_device_per_core
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
