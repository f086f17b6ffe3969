"""Simulation of 4D-STEM and tilt series from atoms, with a complete ground truth.

The multislice runs on a finer grid and thinner slices than any reconstruction, over atoms that
vibrate and are rotated as atoms, never as voxels. Incoherent variations (vibrations, source,
energy) form one ensemble, whose patterns are averaged as intensities.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Float, Num

from ..model import Model, predict
from ..parts.detector import (
    AbstractDetector,
    Cropped,
    Descanned,
    Ideal,
    ModulationTransfer,
    SuperSampled,
)
from ..parts.indexed import PerShot
from ..parts.propagator import AngularSpectrum, BandLimited
from ..parts.scan import FreeScan
from ..physics import scattering
from ..physics.grids import Grid
from ..physics.potentials import PROJECTIONS
from ..physics.types import Indices, Patterns, Stack
from .camera import Camera
from .microscope import Microscope
from .phantoms.arrange import displaced, require_apart, rms_of_atoms, rotate_atoms
from .sampling import BAND, Sampling, fast
from .scan import ScanErrors
from .stacks import Box, Content, Transmissions, content, projected, transmissions

MARGIN = 5.0  # Å around the windows, so that no atom near an edge is missed
ENOUGH = 8  # configurations that represent the incoherent variations
SURFACE = 1.0  # Å of vacuum before and behind the atoms
BLOCK = 128  # shots of one call
HELD_BYTES = 2**30  # of expected patterns, that wait for all configurations
CHUNK_BYTES = {"cpu": 2**20}  # of waves side by side: what its cache holds
MANY_BYTES = 2**28  # on any other device

Expected = Float[np.ndarray, "shot y x"]
Report = Callable[[int], None]
Compute = Callable[[Model, Indices], Patterns]


@dataclass(frozen=True)
class ViewErrors:
    """Unknown errors of the views of a tilt series."""

    angle: float = 0.0  # rad, rms of each of the three Euler angles
    shift: float = 0.0  # Å, the greatest in y and in x, uniform
    defocus: float = 0.0  # Å, rms


@dataclass(frozen=True)
class View:
    """The truth of one view."""

    angles: np.ndarray  # rad: about y (the tilt), x and z
    shift: np.ndarray  # Å (y, x) of the specimen
    defocus: float  # Å, of the lens
    positions: np.ndarray  # Å [shot, 2], true positions of the probe


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Complete description of a simulated measurement; lengths in Å, angles in rad.

    `atoms` are in ASE's order (x, y, z) with z along the beam; a tilt series rotates them about the
    y axis through the origin. Raises ValueError for atoms that overlap or have no parameters, for a
    window that is too small for the probe, and for one configuration of a wide source.
    """

    atoms: Atoms
    grid: Grid  # of the detector, and of reconstructions
    microscope: Microscope
    scan: np.ndarray  # nominal positions [shot, 2] (y, x)
    dose: float  # electrons per pattern
    camera: Camera = field(default_factory=Camera)
    sampling: Sampling = field(default_factory=Sampling)
    scan_errors: ScanErrors = field(default_factory=ScanErrors)
    # rad (y, x) by which the pattern moves across the scan
    descan: tuple[float, float] = (
        0.0,
        0.0,
    )
    vibration: float | Mapping[str, float] = 0.0  # Å rms in each direction, by element
    configurations: int = 1
    parametrisation: str = "lobato"
    projection: str = "finite"
    tilts: tuple[float, ...] | None = None  # rad
    view_errors: ViewErrors = field(default_factory=ViewErrors)
    seed: int = 0

    def __post_init__(self):
        self._check()

    @property
    def n_views(self) -> int:
        return 1 if self.tilts is None else len(self.tilts)

    @property
    def varies(self) -> list[str]:
        """Quantities that differ from configuration to configuration."""
        lens = self.microscope
        present = {
            "source": lens.source_fwhm,
            "energy": lens.focal_spread(_voltage(self.grid)),
            "vibrations": self.debye_waller.max(),
        }
        return [name for name, size in present.items() if size]

    @cached_property
    def fine(self) -> Grid:
        """The grid of the waves."""
        return self.sampling.grid(self.grid)

    @cached_property
    def debye_waller(self) -> np.ndarray:
        """B = 8π²⟨u²⟩ [Å²] of every atom, for the mean potential."""
        return 8 * np.pi**2 * rms_of_atoms(self.atoms, self.vibration) ** 2

    @property
    def gain_map(self) -> np.ndarray:
        """The relative gain of every pixel of the camera."""
        return self.camera.gain_map(self.grid.shape, self.seed)

    @cached_property
    def views(self) -> list[View]:
        """The truth of every view."""
        return [self._view(number) for number in range(self.n_views)]

    @cached_property
    def box(self) -> Box:
        """The box that all views share: whatever a window or an atom reaches."""
        places = np.concatenate([view.positions for view in self.views])
        around = (
            np.array(self.fine.shape) * self.fine.pixel / 2
            + MARGIN
            + 2 * self.microscope.source_fwhm
        )
        low, high = places.min(0) - around, places.max(0) + around
        shape = tuple(fast(n) for n in (high - low) / self.fine.pixel)
        heights = [self.atoms.positions[:, 2]] + [
            self.turned(view).positions[:, 2] for view in self.views
        ]
        top = min(h.min() for h in heights) - SURFACE
        bottom = max(h.max() for h in heights) + SURFACE
        edges = self.sampling.slice * np.arange(math.ceil((bottom - top) / self.sampling.slice) + 1)
        return Box(
            np.array([top, *low]),
            np.stack([edges[:-1], edges[1:]], 1),
            Grid(shape, self.fine.pixel, self.grid.voltage_kv),
        )

    def turned(self, view: View) -> Atoms:
        """The atoms as a view sees them."""
        turned = rotate_atoms(self.atoms, *np.rad2deg(view.angles))
        turned.positions[:, 1::-1] += view.shift
        return turned

    def expected(
        self,
        number: int,
        report: Report = lambda patterns: None,
        compute: Compute | None = None,
        part: slice = slice(None),
    ) -> Expected:
        """Mean electrons [shot, y, x] of the patterns of a view, zero frequency in the corner; of
        `part` of its shots.

        `compute(model, shots)` is `expected_patterns`, or that shared among devices.
        """
        view = self.views[number]
        box = self.box
        shots = len(self.scan)
        first, last, _ = part.indices(shots)
        rng = self._random(number, 3)
        defoci, shifts = self.microscope.incoherent(
            self.configurations, shots, _voltage(self.grid), rng
        )
        total = np.zeros((last - first, *self.grid.shape), np.float32)
        atoms = self.turned(view)
        for defocus, shift in zip(defoci, shifts, strict=True):
            still = displaced(atoms, self.vibration, rng)
            stack = transmissions(self._content(still, np.zeros(len(still)), box), box.grid)
            probe = self.microscope.probe(
                self.dose, view.defocus - self.microscope.defocus + float(defocus)
            )
            for block in blocks(first, last):
                model = self._model(probe, stack, (view.positions + shift)[block], self.scan[block])
                found = (compute or expected_patterns)(model, np.arange(min(BLOCK, shots)))
                total[block.start - first : block.stop - first] += np.asarray(found)[
                    : block.stop - block.start
                ]
                report(block.stop - block.start)
        return total / self.configurations

    def potential(self, slab: float) -> Stack:
        """Mean potential [V·Å] of the untilted specimen projected within slabs of `slab` [Å], on
        the grid of `box`.
        """
        edges = np.arange(math.ceil(self.box.faces[-1, 1] / slab - 1e-6) + 1) * slab
        slabs = self.box._replace(faces=np.stack([edges[:-1], edges[1:]], 1))
        return projected(self._content(self.atoms, self.debye_waller, slabs), slabs.grid)

    def _content(self, atoms: Atoms, debye_waller, box: Box) -> Content:
        positions = atoms.positions[:, ::-1]
        return content(
            atoms.numbers, positions, debye_waller, box, self.parametrisation, self.projection
        )

    def descanned(self, nominal: np.ndarray) -> np.ndarray:
        """By how much the patterns of these positions are moved (y, x) [rad]."""
        middle = (self.scan.max(0) + self.scan.min(0)) / 2
        extent = np.ptp(self.scan, axis=0)
        across = (nominal - middle) / np.maximum(extent, 1e-9)  # −½ to ½
        return across * self.descan

    def _model(self, probe, stack, positions, nominal) -> Model:
        """The model of one block of shots, all padded to the same number."""
        grid = self.fine
        box = self.box
        limited = BandLimited(AngularSpectrum(), BAND)
        # see `sum_pixels`
        off_axis = np.array(grid.dk) / 2 if self.sampling.finer % 2 == 0 else np.zeros(2)
        descan = self.descanned(nominal) / grid.wavelength - off_axis
        camera: AbstractDetector = Cropped(
            self.grid.shape, SuperSampled(Ideal(), self.sampling.finer)
        )
        if self.camera.mtf is not None:
            camera = ModulationTransfer(jnp.asarray(self.camera.mtf), camera)
        padding = [(0, min(BLOCK, len(self.scan)) - len(positions)), (0, 0)]
        places, moved = (
            PerShot(jnp.asarray(np.pad(v, padding, mode="edge"))) for v in (positions, descan)
        )
        specimen = Transmissions(stack, box.thickness, jnp.asarray(box.origin[1:]))
        return Model(probe, specimen, FreeScan(places), grid, limited, Descanned(moved, camera))

    def _view(self, number: int) -> View:
        rng = self._random(number, 1)
        errors = self.view_errors
        nominal = 0.0 if self.tilts is None else self.tilts[number]
        angles = np.array([nominal, 0.0, 0.0]) + errors.angle * rng.normal(size=3)
        shift = errors.shift * rng.uniform(-1, 1, 2)
        defocus = self.microscope.defocus + errors.defocus * rng.normal()
        return View(
            angles, shift, defocus, self.scan_errors.applied(self.scan, self._random(number, 2))
        )

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])

    def _check(self) -> None:
        _voltage(self.grid)
        if not len(self.atoms):
            raise ValueError("the specimen has no atoms; give it some, or check what cut them away")
        scattering.require_known(self.atoms.numbers)
        assert len(self.debye_waller) == len(self.atoms)  # raises for an element that it lacks
        require_apart(self.atoms)
        if self.projection not in PROJECTIONS:
            raise ValueError(
                f"unknown projection {self.projection!r}; known are {', '.join(PROJECTIONS)}"
            )
        if self.tilts is None and self.view_errors != ViewErrors():
            raise ValueError(
                f"errors of the views of a tilt series ({self.view_errors}) came without tilts, "
                "and would rotate and move a single scan; give the tilts, or leave the errors out"
            )
        box = self.box
        lens = self.microscope
        own = (
            np.concatenate([self.turned(view).positions[:, 1::-1] for view in self.views])
            - box.origin[1:]
        )
        if not ((own >= 0) & (own < np.array(box.grid.shape) * box.grid.pixel)).all(1).any():
            raise ValueError(
                "no atom is under the probe at any position; move the scan or the specimen"
            )
        depth = float(box.faces[-1, 1])
        width = max(
            lens.width(self.grid, d)
            for view in self.views
            for d in (view.defocus, view.defocus - depth)
        )
        window = min(n * p for n, p in zip(self.grid.shape, self.grid.pixel, strict=True))
        if width > window:
            raise ValueError(
                f"the probe is {width:.4g} Å wide in the specimen, its window only {window:.4g} "
                "Å; take more detector pixels or larger object pixels, less defocus or a thinner "
                "specimen"
            )
        spread = lens.focal_spread(_voltage(self.grid))
        if self.configurations < 2 and (lens.source_fwhm or spread):
            raise ValueError(
                f"a source of {lens.source_fwhm:g} Å and a focal spread of {spread:.3g} Å are "
                f"averaged over {self.configurations} configuration, which is a shift of every "
                f"probe instead; take at least {ENOUGH}"
            )


def simulate(
    experiment: Experiment, report: Report = lambda patterns: None, compute: Compute | None = None
) -> Iterator[tuple[int, slice, Num[np.ndarray, "b y x"]]]:
    """Counts of some shots at a time, as (view, shots, counts), zero frequency in the middle.

    `report` receives the number of patterns computed since its last call, each configuration
    separately; `compute` is that of `Experiment.expected`.
    """
    camera = experiment.camera
    shots = len(experiment.scan)
    gain = experiment.gain_map
    together = BLOCK * max(1, HELD_BYTES // (4 * BLOCK * math.prod(experiment.grid.shape)))
    for number in range(experiment.n_views):
        for part in blocks(
            0, shots, together
        ):  # slices are recomputed for each, so that no view must fit into memory
            expected = experiment.expected(number, report, compute, part)
            for block in blocks(part.start, part.stop):
                rng = np.random.default_rng([experiment.seed, number, 4, block.start])
                own = expected[block.start - part.start : block.stop - part.start]
                yield number, block, camera.recorded(np.fft.fftshift(own, axes=(1, 2)), gain, rng)


def blocks(first: int, last: int, size: int = BLOCK) -> Iterator[slice]:
    """The shots in blocks."""
    return (slice(start, min(start + size, last)) for start in range(first, last, size))


def _voltage(grid: Grid) -> float:
    if grid.voltage_kv is None:
        raise ValueError("only electrons are simulated; give the grid voltage_kv, not wavelength")
    return grid.voltage_kv


@eqx.filter_jit
def expected_patterns(model: Model, shots: Indices) -> Patterns:
    """Expected electrons of some shots of a model, as many side by side as is fast."""
    waves = 8 * math.prod(model.grid.shape)
    chunk = max(1, CHUNK_BYTES.get(jax.default_backend(), MANY_BYTES) // waves)
    return jax.lax.map(
        lambda shot: predict(model, shot[None])[0],
        jnp.asarray(shots),
        batch_size=min(chunk, len(shots)),
    )
