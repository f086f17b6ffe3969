"""Simulated scans with a known truth, for `bench_calibration`: another one of every seed.

Atoms, of thin films, crystals, particles and of proteins in ice, are cut into slices and projected
with Lobato's scattering factors; waves pass them by multislice on a grid of 1.5 times the detector's
frequencies. The camera moves its disc over the scan, multiplies electrons, and has bad pixels.
"""

from typing import NamedTuple

import numpy as np
import scipy.fft
from ase.build import bulk, mx2
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from scipy.special import expit

from jaxptycho import Grid
from jaxptycho.data.orientation import SCAN_TRANSFORMS, orientation_matrix
from jaxptycho.physics.scattering import VOLT_ANGSTROM2, scattering_factor
from jaxptycho.simulate.camera import Camera

SIDE = 96  # pixels of the detector
FINE = 144  # of the waves
SHOTS = 32  # along each side of the scan
BLOCK = 32  # patterns at once
VOLTAGES = (60.0, 80.0, 200.0, 300.0)
BIOLOGICAL = 1500.0  # Å of defocus, beyond which specimens are biological
DEBYE_WALLER = 0.5  # Å²
MOST_COUNTS = 2**16 - 1
KINDS = ("weak", "strong", "hot", "stuck", "dead", "flickering")
THIN = ("carbon", "bilayer", "particles", "silicon")
LIFE = ("proteins", "virus", "proteins and gold")


class Truth(NamedTuple):
    """What a calibration has to find, and how the case was made."""

    specimen: str
    defocus: float  # Å, of the plane in which the specimen scatters on average
    astigmatism: np.ndarray  # Å, C12 times (cos 2φ, sin 2φ)
    orientation: np.ndarray  # matrix on the positions of the file
    semiangle: float  # rad
    pixel_error: float  # relative, of the step of the detector that the file says
    thickness: float  # Å
    strength: float  # rad, rms phase over the area
    dose: float  # e/Å²
    centre: np.ndarray  # pixels (y, x) of the disc
    radius: float  # pixels
    slopes: np.ndarray  # pixels of descan along (y, x) of the file's scan
    gain: float  # counts per electron
    bad: dict[str, tuple[int, int]]
    visible: dict[str, bool]  # whether counting lets a bad pixel be seen


class Case(NamedTuple):
    """A simulated scan."""

    counts: np.ndarray
    positions: np.ndarray  # Å, as in the file
    grid: Grid
    truth: Truth


class Atoms(NamedTuple):
    """Atoms of one element each, (z, y, x) [Å]."""

    numbers: np.ndarray
    positions: np.ndarray


def simulated(seed: int) -> Case:
    """Case of a seed."""
    rng = np.random.default_rng([seed, 14])
    voltage = float(rng.choice(VOLTAGES))
    wavelength = Grid((SIDE, SIDE), 1.0, voltage).wavelength
    size = 10 ** rng.uniform(np.log10(50), np.log10(20000))
    defocus = size * rng.choice([-1, 1])
    rim_phase = 10 ** rng.uniform(np.log10(2.5), np.log10(20))
    semiangle = float(np.clip(np.sqrt(rim_phase * wavelength / np.pi / size), 1e-3, 30e-3))
    kind = str(rng.choice(LIFE if size > BIOLOGICAL else THIN))
    thickness = rng.uniform(150, 500) if kind in LIFE else rng.uniform(10, 80)
    diameter = 2 * semiangle * size + 1.2 * wavelength / semiangle
    window = rng.uniform(1.0, 1.3) * (diameter + semiangle * thickness) / 0.6
    window = max(window, rng.uniform(12, 26) * wavelength / semiangle)
    step = min(10 ** rng.uniform(-0.22, 0.3) * wavelength / (2 * semiangle), 0.35 * diameter)
    radius = semiangle * window / wavelength
    raster = np.stack(np.meshgrid(*[np.arange(SHOTS) * 1.0] * 2, indexing="ij"), -1).reshape(-1, 2)
    orientation = orientation_matrix(
        str(rng.choice(list(SCAN_TRANSFORMS))), rng.uniform(-np.pi / 4, np.pi / 4)
    )
    places = step * (raster - raster.mean(0)) @ orientation.T
    true_grid = Grid((SIDE, SIDE), window / SIDE, voltage)
    fine = Grid((FINE, FINE), window / FINE, voltage)
    extent = np.ptp(places, 0).max() + window
    stack, slab = projected(specimen(rng, kind, extent, thickness), fine, extent, thickness)
    astigmatism = rng.uniform(-0.15, 0.15, 2) * size
    centre = rng.uniform(-4, 4, 2)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slopes = rng.uniform(0.5, 2) * turn * rng.uniform(0.6, 1, (2, 2))
    shifts = centre + (raster / (SHOTS - 1) - 0.5) @ slopes.T
    # a slice scatters at its middle
    lens = aperture(rng, fine, radius, defocus - slab / 2, astigmatism)
    expected = diffracted(lens, stack, slab, fine, places, shifts)
    dose = 10 ** rng.uniform(np.log10(20), 5 if kind in THIN else 3.5)
    counts, gain = recorded(rng, expected * dose * step**2)
    bad, visible = spoil(rng, counts, centre, radius, gain)
    wrong = rng.uniform(-0.05, 0.05) if rng.random() < 0.5 else 0.0
    power = np.var(stack, axis=(1, 2))
    depth = float(np.sum(power * (np.arange(len(stack)) + 0.5)) / power.sum()) * slab
    truth = Truth(
        kind,
        defocus - depth,
        astigmatism,
        orientation,
        semiangle,
        wrong,
        thickness,
        float(np.std(stack.sum(0))),
        dose,
        centre,
        radius,
        slopes,
        gain,
        bad,
        visible,
    )
    stated = Grid((SIDE, SIDE), true_grid.pixel[0] * (1 + wrong), voltage)
    counts = np.minimum(counts, MOST_COUNTS).astype(np.uint16)
    return Case(counts, step * raster, stated, truth)


def specimen(rng: np.random.Generator, kind: str, extent: float, thickness: float) -> Atoms:
    """Atoms over a square of `extent` [Å], whose corner is the origin."""
    box = np.array([thickness, extent, extent])
    if kind == "carbon":
        return _filled(rng, box, 6, 0.1)
    if kind == "bilayer":
        return _bilayer(rng, box)
    if kind == "silicon":
        return _crystal(bulk("Si", cubic=True), rng, box, tilt=0.02)
    if kind == "particles":
        film = _filled(rng, box * [0.3, 1, 1], 6, 0.1)
        gold = bulk("Au", cubic=True)
        balls = [_ball(gold, rng, box, rng.uniform(6, 15)) for _ in range(int(rng.uniform(4, 12)))]
        return _joined(film, *balls)
    ice = _filled(rng, box, 8, 0.033)
    number = int(rng.uniform(3, 12)) if kind != "virus" else int(rng.uniform(1, 4))
    size = 0.12 * extent if kind != "virus" else 0.25 * extent
    radii = np.minimum(rng.uniform(0.6, 1.2, number) * size, 0.48 * thickness)
    centres = rng.uniform(0, 1, (number, 3)) * box
    centres[:, 0] = 0.5 * thickness + (centres[:, 0] - 0.5 * thickness) * 0.5
    bodies = []
    for centre, radius in zip(centres, radii, strict=True):
        ice = _outside(ice, centre, radius)
        inner = rng.uniform(0.6, 0.85) * radius if kind == "virus" else 0.0
        bodies.append(_protein(rng, centre, radius, inner))
    if kind == "proteins and gold":
        gold = bulk("Au", cubic=True)
        bodies += [_ball(gold, rng, box, rng.uniform(10, 25)) for _ in range(3)]
    return _joined(ice, *bodies)


def _filled(rng, box, number, density):
    """Jittered lattice of one element."""
    spacing = density ** (-1 / 3)
    axes = [np.arange(0, max(b, spacing), spacing) for b in box]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    places = places + rng.uniform(-0.6, 0.6, places.shape) * spacing
    return Atoms(np.full(len(places), number), places)


def _bilayer(rng, box):
    """Two sheets of dichalcogenides turned against each other, with vacancies."""
    sheets = []
    for formula, height in (("WSe2", 3.0), ("MoS2", 9.5)):
        sheet = mx2(formula, a=3.25, thickness=3.3, size=(1, 1, 1), vacuum=0)
        cell = np.asarray(sheet.cell)[:2, :2]
        reach = int(1.5 * box[1] / 2.8) + 2
        index = np.stack(np.meshgrid(*[np.arange(-reach, reach)] * 2, indexing="ij"), -1)
        corners = index.reshape(-1, 2) @ cell
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        depths = sheet.positions[:, 2] - sheet.positions[:, 2].mean()
        for number, place, depth in zip(sheet.numbers, sheet.positions, depths, strict=True):
            flat = (corners + place[:2]) @ turn + box[1] / 2
            kept = rng.random(len(flat)) > 0.04
            z = np.full(len(flat), height + depth)
            sheets.append(Atoms(np.full(kept.sum(), number), np.c_[z, flat][kept]))
    return _inside(_joined(*sheets), box)


def _crystal(cell, rng, box, tilt):
    """Block of a crystal near a zone axis."""
    atoms = _lattice(cell, 0.9 * box.max())
    angles = [rng.uniform(0, 2 * np.pi), *rng.uniform(-tilt, tilt, 2)]
    places = Rotation.from_euler("zyx", angles).apply(atoms.positions) + box[::-1] / 2
    return _inside(Atoms(atoms.numbers, places[:, ::-1]), box)


def _ball(cell, rng, box, radius):
    """Round particle of a crystal, in any orientation and place."""
    atoms = _lattice(cell, radius)
    near = np.linalg.norm(atoms.positions, axis=1) < radius
    places = Rotation.random(random_state=rng).apply(atoms.positions[near])
    centre = np.r_[0.5 * box[0], rng.uniform(0, 1, 2) * box[1:]]
    return Atoms(atoms.numbers[near], places + centre)


def _lattice(cell, reach):
    """Atoms of a cubic crystal within a cube of half width `reach`."""
    length = cell.cell.lengths()[0]
    count = int(reach / length) + 1
    axis = np.arange(-count, count + 1) * length
    corners = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    places = (corners[:, None] + cell.positions).reshape(-1, 3)
    return Atoms(np.tile(cell.numbers, len(corners)), places)


def _protein(rng, centre, radius, inner):
    """Ball or shell of light atoms, with holes."""
    ball = _filled(rng, np.full(3, 2 * radius), 7, 0.075)
    away = ball.positions - radius
    distance = np.linalg.norm(away, axis=1)
    waves = rng.normal(size=(6, 3)) * rng.uniform(0.1, 0.35, (6, 1))
    texture = np.cos(away @ waves.T + rng.uniform(0, 2 * np.pi, 6)).sum(1)
    kept = (distance < radius) & (distance >= inner) & (texture > rng.uniform(-2, -0.5))
    return Atoms(ball.numbers[kept], away[kept] + centre)


def _outside(atoms, centre, radius):
    far = np.sum((atoms.positions - centre) ** 2, 1) > radius**2
    return Atoms(atoms.numbers[far], atoms.positions[far])


def _inside(atoms, box):
    kept = ((atoms.positions >= 0) & (atoms.positions < box)).all(1)
    return Atoms(atoms.numbers[kept], atoms.positions[kept])


def _joined(*parts):
    return Atoms(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def projected(
    atoms: Atoms, fine: Grid, extent: float, thickness: float
) -> tuple[np.ndarray, float]:
    """Phases [rad] of the slices over the area, and their thickness."""
    pixel = fine.pixel[0]
    side = scipy.fft.next_fast_len(int(np.ceil(extent / pixel)) + 2)
    count = int(np.clip(np.ceil(thickness / max(10.0, 3 * pixel**2 / fine.wavelength)), 1, 6))
    slab = thickness / count
    k2 = np.add.outer(*(np.fft.fftfreq(side, pixel) ** 2, np.fft.rfftfreq(side, pixel) ** 2))
    spectra = np.zeros((count, *k2.shape), complex)
    index = np.rint(atoms.positions[:, 1:] / pixel).astype(int) % side
    number = np.clip(atoms.positions[:, 0] // slab, 0, count - 1).astype(int)
    flat = (number * side + index[:, 0]) * side + index[:, 1]
    for element in np.unique(atoms.numbers):
        here = np.bincount(flat[atoms.numbers == element], minlength=count * side**2)
        factor = scattering_factor(int(element), k2) * np.exp(-DEBYE_WALLER / 4 * k2)
        spectra += scipy.fft.rfft2(here.reshape(count, side, side).astype(float)) * factor
    potential = scipy.fft.irfft2(spectra, (side, side)) * VOLT_ANGSTROM2 / pixel**2
    return (fine.sigma * potential).astype(np.float32), slab


def aperture(rng, fine: Grid, radius: float, defocus: float, astigmatism) -> np.ndarray:
    """Wave in a soft, slightly elliptic aperture of `radius` pixels, zero frequency in the corner."""
    axis = np.fft.fftfreq(FINE, 1 / FINE)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    rho = np.hypot(y, x)
    angle = np.arctan2(y, x)
    ellipse = rng.uniform(0, 0.02)
    rim = radius * (1 + ellipse * np.cos(2 * (angle - rng.uniform(0, np.pi))))
    lens = astigmatism[0] * np.cos(2 * angle) + astigmatism[1] * np.sin(2 * angle) - defocus
    chi = np.pi * fine.wavelength * (rho * fine.dk[0]) ** 2 * lens
    wave = np.sqrt(expit((rim - rho) / rng.uniform(0.2, 0.8))) * np.exp(-1j * chi)
    return (wave / np.linalg.norm(wave)).astype(np.complex64)


def diffracted(lens, stack, slab, fine: Grid, places, shifts) -> np.ndarray:
    """Probabilities of the detector's pixels, zero frequency in the middle; places from the middle."""
    axis = np.fft.fftfreq(FINE, 1 / FINE).astype(np.float32)
    k2 = np.add.outer(axis**2, axis**2) * fine.dk[0] ** 2
    band = np.sqrt(k2) < fine.dk[0] * FINE / 3
    carried = (band * np.exp(-1j * np.pi * fine.wavelength * slab * k2)).astype(np.complex64)
    objects = np.exp(1j * stack).astype(np.complex64)
    where = places / fine.pixel[0] + (stack.shape[1] - FINE) / 2
    corners = np.rint(where).astype(int)
    rest = where - corners + FINE / 2  # of the probe, in its window
    cut = slice((FINE - SIDE) // 2, (FINE + SIDE) // 2)
    patterns = np.empty((len(places), SIDE, SIDE), np.float32)
    for first in range(0, len(places), BLOCK):
        own = slice(first, first + BLOCK)
        wave = scipy.fft.ifft2(lens * _ramps(axis, -rest[own]), norm="ortho")
        for number, piece in enumerate(objects):
            windows = [piece[y : y + FINE, x : x + FINE] for y, x in corners[own]]
            wave = wave * np.stack(windows)
            if number < len(objects) - 1:
                wave = scipy.fft.ifft2(scipy.fft.fft2(wave) * carried)
        middle = np.arange(FINE, dtype=np.float32) - FINE // 2
        spectrum = scipy.fft.fft2(wave * _ramps(middle, shifts[own]), norm="ortho")
        power = spectrum.real**2 + spectrum.imag**2
        patterns[own] = scipy.fft.fftshift(power, axes=(1, 2))[:, cut, cut]
    return patterns


def _ramps(axis, shifts):
    """exp(2πi axis·shift/FINE) in both directions, of every shot."""
    y, x = (np.exp(2j * np.pi / FINE * np.multiply.outer(s, axis)) for s in shifts.T)
    return (y[:, :, None] * x[:, None, :]).astype(np.complex64)


def recorded(rng: np.random.Generator, expected: np.ndarray) -> tuple[np.ndarray, float]:
    """Counts of a camera, and its counts per electron."""
    gain = rng.uniform(1, 8)
    spread = rng.uniform(0, 0.7)
    if gain < 2:
        return Camera().recorded(expected, 1.0, rng).astype(float), 1.0
    if rng.random() < 0.5:
        return Camera(gain=gain, spread=spread).recorded(expected, 1.0, rng).astype(float), gain
    shape = rng.uniform(0.2, 0.5) ** -2.0
    electrons = rng.poisson(np.maximum(expected, 0)).astype(np.float32)
    energy = np.where(electrons > 0, rng.gamma(np.maximum(electrons * shape, 1e-3)), 0) / shape
    return np.rint(gain * gaussian_filter(energy, (0, 0.5 * spread, 0.5 * spread))), gain


def spoil(rng, counts, centre, radius, gain):
    """Make five pixels bad, in place; their places, and whether counting lets them be seen."""
    total = counts.sum(0)
    middle = SIDE // 2 + centre
    bad, visible = {}, {}
    taken = []
    for kind in rng.permutation(KINDS)[:5]:
        while True:
            place = rng.uniform(-1.5, 1.5, 2) * radius + middle
            y, x = np.rint(place).astype(int)
            near_rim = abs(np.hypot(*(place - middle)) - radius) < 3
            inside = min(y, x) >= 6 and max(y, x) < SIDE - 6
            if inside and not near_rim and all(np.hypot(y - a, x - b) > 6 for a, b in taken):
                break
        taken.append((y, x))
        before, mean = float(total[y, x]), counts[:, y, x].mean()
        values = counts[:, y, x]
        flicker = rng.random(len(counts)) < 0.05
        level = 20 * (mean + gain)
        changed = {
            "weak": np.rint(values * rng.uniform(0.4, 0.7)),
            "strong": np.rint(values * rng.uniform(1.5, 2.5)),
            "hot": values + rng.poisson(30 * gain + 20 * mean, len(counts)),
            "stuck": np.full(len(counts), np.rint(3 * gain + 2 * mean)),
            "dead": np.zeros(len(counts)),
            "flickering": values + flicker * rng.poisson(level, len(counts)),
        }[kind]
        counts[:, y, x] = changed
        bad[kind] = (int(y), int(x))
        sigma = np.sqrt((gain + 1) * max(before, gain))
        visible[kind] = bool(abs(changed.sum() - before) > 10 * sigma) or kind == "stuck"
    return bad, visible
