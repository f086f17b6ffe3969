"""`jaxptycho demo`: a bilayer simulated, reconstructed as any measurement is, and compared with the truth.

The simulation shares neither grid nor windows nor slices with the reconstruction: the whole box
is one window with half the pixel and half the frequency step, every plane of atoms is a slice.
"""

import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import fourier_shift

from ..analysis.gauge import without_ramp
from ..analysis.resolution import fixed, fourier_correlation
from ..analysis.scanned import origin, scanned
from ..analysis.shells import taper
from ..analysis.truth import compare_phase, phases
from ..data import Dataset
from ..io.native import write_native
from ..model import Model
from ..parts.probe import AberratedProbe
from ..parts.propagator import AngularSpectrum, BandLimited
from ..physics import detection, waves
from ..physics.grids import Grid
from ..physics.types import Pattern, Patterns
from .jobs import read_job
from .plots import save, show
from .run import refuse_existing, start
from .watch import Bar

VOLTAGE_KV = 80.0
COARSE = Grid((64, 64), 0.2, VOLTAGE_KV)  # of detector and reconstruction
FINE = Grid((256, 256), 0.1, VOLTAGE_KV)  # of the simulation: a periodic box of 25.6 Å
FINER = 2  # times, in pixel and in frequency step
BOX = FINE.shape[0] * FINE.pixel[0]  # Å
SEMIANGLE_MRAD, DEFOCUS, STEP = 30.0, 60.0, 0.7  # the latter two in Å
DOSE = 1e5 * STEP**2  # electrons per pattern at 10⁵ per Å²
SPACING, THICKNESS = 15.0, 20.0  # of the two layers, and of both together [Å]

# f_e(s) = Σ a e^{−b s²} [Å], s = k/2 ≤ 6/Å (Peng, Ren, Dudarev & Whelan, Acta Cryst. A52, 257 (1996))
SCATTERING = {
    "S": ((0.0915, 0.4312, 1.0847, 2.4671, 1.0852), (0.0838, 0.7788, 4.3462, 15.5846, 44.6365)),
    "Se": ((0.1574, 0.7614, 1.4834, 3.0016, 1.7978), (0.0686, 0.6808, 3.1163, 14.3458, 44.0455)),
    "Mo": ((0.3069, 1.1714, 3.2293, 3.4254, 2.1224), (0.1101, 1.0222, 5.9613, 25.1965, 93.5831)),
    "W": ((0.3661, 1.6191, 3.2455, 4.0856, 3.2064), (0.0761, 0.7543, 4.0952, 18.2886, 68.0967)),
}
VOLT_ANGSTROM2 = 47.87801  # h²/(2πm₀e): V(k) [V·Å³] for each Å of f_e
DEBYE_WALLER = 0.5  # B = 8π²⟨u²⟩ [Å²]: vibrations of 0.08 Å blur the mean potential

JOB = """# What `jaxptycho demo` runs; change it and run it again: jaxptycho reconstruct bilayer.toml --out again

[data]
file = "bilayer.h5"

[probe]
start = "optics"

[specimen]
kind = "phase"
slices = 4

[[stage]]
epochs = {epochs}
batch = 32

[stage.rates]
specimen = {{rate = 1e-2, schedule = "cosine"}}
probe = {{rate = 5e-3, schedule = "cosine"}}
"""


class Layer(NamedTuple):
    """A hexagonal monolayer MX₂: a plane of metal between two of chalcogen."""

    metal: str
    chalcogen: str
    constant: float  # Å, of the lattice
    half: float  # Å, from metal to chalcogen
    twist: float  # rad


LAYERS = (Layer("Mo", "S", 3.16, 1.56, 0.0), Layer("W", "Se", 3.28, 1.67, 0.2))


def run_demo(out: Path, positions: int = 16, epochs: int = 40) -> dict[str, float]:
    """Simulates a scan of `positions`², reconstructs it in `out`, says and returns how good it became.

    `correlation_1` and `_2` compare each layer with its own truth, `crosstalk_1` and `_2` with
    the other's, `resolution_angstrom` is where the ring correlation with the truth falls to 0.5.
    """
    refuse_existing(out)
    out.mkdir(parents=True)
    began = time.monotonic()
    data, truth = simulate(positions)
    names = ("projected_top", "projected_bottom")
    write_native(out / "bilayer.h5", data, dict(zip(names, truth, strict=True)))
    print(f"simulated {len(data.positions[0])} patterns of two layers {SPACING:g} Å apart in {since(began):.0f} s")
    (out / "bilayer.toml").write_text(JOB.format(epochs=epochs), encoding="utf-8")
    model = start(read_job(out / "bilayer.toml"), out / "run", Bar()).model
    true_phases = FINE.sigma * truth
    figures = judge(model, true_phases) | {"seconds": since(began)}
    save(draw(*both(model, true_phases)), out / "layers.png")
    for n in (1, 2):
        print(
            f"layer {n}: correlation with its own truth {figures[f'correlation_{n}']:.3f}, "
            f"with that of the other {figures[f'crosstalk_{n}']:.3f}"
        )
    print(f"resolution {figures['resolution_angstrom']:.2f} Å (ring correlation with the truth at 0.5)")
    print(f"{figures['seconds']:.0f} s in all; look at {out / 'layers.png'} and {out / 'run' / 'figures'}")
    return figures


def since(began: float) -> float:
    """Seconds since `began`."""
    return time.monotonic() - began


def simulate(positions: int) -> tuple[Dataset, np.ndarray]:
    """A scan of `positions`² patterns with Poisson noise, and the layers' projected potentials [V·Å]."""
    planes = [atom_planes(layer, height) for layer, height in zip(LAYERS, (0.0, SPACING), strict=True)]
    stack = [plane for layer in planes for plane in layer]
    potentials = np.stack([potential(element, atoms) for _, element, atoms in stack])
    heights = np.array([z for z, _, _ in stack])
    axis = STEP * (np.arange(positions) - positions / 2) + BOX / 2
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    expected = np.asarray(patterns(potentials, np.diff(heights, append=heights[-1]), places))
    counts = np.random.default_rng(0).poisson(np.fft.fftshift(expected, axes=(1, 2))).astype(np.uint16)
    about = {
        "semiangle_mrad": SEMIANGLE_MRAD,
        "defocus_angstrom": DEFOCUS,
        "thickness_angstrom": THICKNESS,
        "truth_pixel_angstrom": FINE.pixel[0],
    }
    projected = potentials.reshape(len(LAYERS), -1, *FINE.shape).sum(1)
    return Dataset(counts, places, COARSE, about=about), projected


def atom_planes(layer: Layer, height: float) -> list[tuple[float, str, np.ndarray]]:
    """Height [Å], element and positions [atom, (y, x)] of a layer's three planes, entrance first."""
    c, s = np.cos(layer.twist), np.sin(layer.twist)
    vectors = layer.constant * np.array([[0, 1], [np.sqrt(3) / 2, 0.5]]) @ np.array([[c, s], [-s, c]])
    cells = np.stack(np.meshgrid(*[np.arange(-30, 31)] * 2), -1).reshape(-1, 2)
    metal, chalcogen = ((cells + basis) @ vectors + BOX / 2 for basis in (0.0, 1 / 3))
    inside = [atoms[((atoms >= 0) & (atoms < BOX)).all(1)] for atoms in (metal, chalcogen)]
    return [
        (height, layer.chalcogen, inside[1]),
        (height + layer.half, layer.metal, inside[0]),
        (height + 2 * layer.half, layer.chalcogen, inside[1]),
    ]


def potential(element: str, atoms: np.ndarray) -> np.ndarray:
    """Projected potential [V·Å] of one plane of atoms on the fine grid, periodic."""
    ky, kx = (np.fft.fftfreq(n, p) for n, p in zip(FINE.shape, FINE.pixel, strict=True))
    k2 = ky[:, None] ** 2 + kx**2
    factor = sum(a * np.exp(-(b + DEBYE_WALLER) * k2 / 4) for a, b in zip(*SCATTERING[element], strict=True))
    structure = np.exp(-2j * np.pi * np.outer(ky, atoms[:, 0])) @ np.exp(-2j * np.pi * np.outer(atoms[:, 1], kx))
    return VOLT_ANGSTROM2 * np.fft.ifft2(factor * structure).real / np.prod(FINE.pixel)


@jax.jit
def patterns(potentials, gaps, places) -> Patterns:
    """Expected counts [shot, y, x], zero frequency in the corner, `gaps` [Å] behind the planes."""
    kernel = partial(BandLimited(AngularSpectrum()).kernel, FINE)
    slices = waves.propagate(jnp.exp(1j * FINE.sigma * potentials), kernel(0.0))
    kernels = jax.vmap(kernel)(gaps)
    probe = AberratedProbe(1e-3 * SEMIANGLE_MRAD, {"defocus": DEFOCUS}, DOSE).spectrum(FINE)

    def pattern(place) -> Pattern:
        wave = waves.multislice(waves.place(probe, place, FINE), slices, kernels)
        return detection.crop(detection.sum_pixels(waves.far_field(wave), FINER), COARSE.shape)

    return jax.lax.map(pattern, places)


def layers(model: Model) -> np.ndarray:
    """Phase [rad] of the upper and the lower half of the slices."""
    stack = phases(model)
    return stack.reshape(len(LAYERS), -1, *stack.shape[1:]).sum(1)


def judge(model: Model, truth: np.ndarray) -> dict[str, float]:
    """How the reconstructed layers compare with the true phases [rad]."""
    result = {}
    for n, phase in enumerate(layers(model)):
        own, other = (compare_phase(phase, model, truth[m], FINE.pixel[0]) for m in (n, 1 - n))
        result |= {f"correlation_{n + 1}": own.correlation, f"crosstalk_{n + 1}": other.correlation}
    seen, expected = (images.sum(0) for images in both(model, truth))
    curve = fourier_correlation(seen, expected, COARSE.pixel, taper(seen.shape))
    return result | {"resolution_angstrom": curve.resolution(fixed(0.5))}


def both(model: Model, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructed and true phases [layer, y, x] of the scanned area, registered, without ramp."""
    found = layers(model)
    area = scanned(model)
    first = origin(model) + COARSE.pixel * np.array([part.start for part in area])
    shift = compare_phase(found.sum(0), model, truth.sum(0), FINE.pixel[0]).shift
    seen = np.stack([without_ramp(phase[area]) for phase in found])
    begun = [np.fft.ifft2(fourier_shift(np.fft.fft2(t), -(first + shift) / FINE.pixel)).real for t in truth]
    expected = [t[::FINER, ::FINER][: seen.shape[1], : seen.shape[2]] for t in begun]
    return seen, np.stack([without_ramp(phase) for phase in expected])


def draw(seen: np.ndarray, expected: np.ndarray) -> Figure:
    """Layer by layer, the reconstruction beside the truth."""
    figure = Figure((8, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for n, row in enumerate(axes):
        between = float(expected[n].min()), float(expected[n].max())
        for ax, image, what in zip(row, (expected[n], seen[n]), ("truth", "reconstructed"), strict=True):
            drawn = show(ax, image, COARSE.pixel, f"Layer {n + 1}, {what}", None, between)
        figure.colorbar(drawn, ax=list(row), label="phase (rad)", shrink=0.8)
    return figure
