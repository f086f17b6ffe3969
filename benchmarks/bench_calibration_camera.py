"""The camera measured from simulated scans: disc, descan, bad pixels, gain, and their errors.

    python benchmarks/bench_calibration_camera.py [--seeds 1000 1200] [--json FILE]

Every seed is another microscope, specimen and camera: a soft elliptic aperture off the middle,
defocus, a strong-phase specimen with or without vacuum, descan of 0.5–2 pixels over the scan,
20 … 10⁵ e/Å², 1 … 8 counts per electron with spread (of Poisson or gamma distribution) and five bad
pixels. Goals: centre 0.1 pixels, radius 0.5 %, descan 0.1 pixels, gain 10 %, |error| < 3 σ in 95 %.
A bad pixel counts as visible where it departs by ten standard deviations of the counts.
"""

import time
import warnings
from typing import NamedTuple

import numpy as np
from common import Table, arguments, opening, save
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from jaxptycho import Dataset, Grid
from jaxptycho.simulate.camera import Camera
from jaxptycho.start.camera import measure_camera

SIDE = 96
KINDS = ("weak", "strong", "hot", "stuck", "dead", "flickering")
LOW_DOSE = 200.0  # e/Å²
GOALS = {"centre": 0.1, "radius": 0.005, "descan": 0.1, "gain": 0.1}


class Case(NamedTuple):
    """A simulated scan and its truth."""

    counts: np.ndarray
    positions: np.ndarray
    grid: Grid
    dose: float  # e/Å²
    centre: np.ndarray
    radius: float
    slopes: np.ndarray
    gain: float
    bad: dict[str, tuple[int, int]]
    visible: dict[str, bool]


def simulated(seed: int, side: int = 28) -> Case:
    """Scan of `side` × `side` patterns."""
    rng = np.random.default_rng([seed, 7])
    radius = rng.uniform(13, 26)
    semiangle = rng.uniform(0.015, 0.03)
    wavelength = Grid((SIDE, SIDE), 1.0, 200.0).wavelength
    pixel = radius * wavelength / (semiangle * SIDE)
    grid = Grid((SIDE, SIDE), pixel, 200.0)
    window = SIDE * pixel
    defocus = rng.uniform(-1, 1) * 0.25 * window / semiangle
    step = max(1, round(rng.uniform(0.02, 0.06) * SIDE / 2 * rng.uniform(0.5, 1)))
    dose = 10 ** rng.uniform(np.log10(20), 5)
    centre = rng.uniform(-4, 4, 2)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slopes = rng.uniform(0.5, 2) * turn * rng.uniform(0.6, 1, (2, 2))
    phase = specimen(rng, SIDE + step * side, pixel)
    places = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1).reshape(-1, 2)
    units = places / (side - 1) - 0.5
    shifts = centre + units @ slopes.T
    expected = diffracted(rng, grid, radius, defocus, phase, step * places, shifts)
    electrons = dose * (step * pixel) ** 2
    counts, gain = recorded(rng, expected * electrons)
    bad, visible = spoil(rng, counts, centre, radius, gain)
    limit = 2**16 - 1
    counts = np.minimum(counts, limit).astype(np.uint16)
    return Case(
        counts, step * pixel * places, grid, dose, centre, radius, slopes, gain, bad, visible
    )


def specimen(rng: np.random.Generator, size: int, pixel: float) -> np.ndarray:
    """Phase of atoms at random, over all or a part of the area."""
    number = int(rng.uniform(0.03, 0.3) * (size * pixel) ** 2)
    atoms = np.zeros((size, size))
    y, x = rng.integers(0, size, (2, max(number, 20)))
    np.add.at(atoms, (y, x), rng.uniform(0.5, 1.5, len(y)))
    width = max(0.35 / pixel, 0.7)
    phase = gaussian_filter(atoms, width, mode="wrap") * 2 * np.pi * width**2
    phase *= rng.uniform(0.05, 0.5)
    if rng.random() < 0.4:  # partly vacuum
        phase[:, : int(size * rng.uniform(0.2, 0.6))] = 0
    return phase


def diffracted(rng, grid, radius, defocus, phase, corners, shifts) -> np.ndarray:
    """Probabilities of the pixels, zero frequency in the middle."""
    axis = np.arange(SIDE) - SIDE // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    rho, angle = np.hypot(y, x), np.arctan2(y, x)
    ellipse, direction = rng.uniform(0, 0.02), rng.uniform(0, np.pi)
    rim = radius * (1 + ellipse * np.cos(2 * (angle - direction)))
    aperture = np.sqrt(expit((rim - rho) / rng.uniform(0.2, 0.8)))
    k2 = (rho * grid.dk[0]) ** 2
    lens = aperture * np.exp(1j * np.pi * grid.wavelength * defocus * k2)
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(lens), norm="ortho"))
    probe = probe / np.linalg.norm(probe)
    wave = np.exp(1j * phase)
    patterns = np.empty((len(corners), SIDE, SIDE), np.float32)
    for shot, ((row, column), shift) in enumerate(zip(corners, shifts, strict=True)):
        ramps = [np.exp(2j * np.pi * axis * s / SIDE) for s in shift]
        exit_wave = probe * wave[row : row + SIDE, column : column + SIDE]
        spectrum = np.fft.fft2(exit_wave * np.multiply.outer(*ramps), norm="ortho")
        patterns[shot] = np.abs(np.fft.fftshift(spectrum)) ** 2
    return patterns


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


def measured(seed: int) -> dict:
    """Errors of one case, in units of the goals' quantities and of their standard errors."""
    case = simulated(seed)
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Dataset(case.counts, case.positions, case.grid)
        read = time.process_time()
        camera = measure_camera(data)
    rows, bounds = camera.rows(), camera.bounds()
    row = {"seed": seed, "dose": case.dose, "seconds": time.process_time() - read}
    row |= {"reading": read - started, "no_disc": camera.disc is None, "gain": case.gain}
    true = {"disc_radius_pixels": case.radius, "counts_per_electron": case.gain}
    true |= dict(zip(("disc_centre_y_pixels", "disc_centre_x_pixels"), case.centre, strict=True))
    names = [f"descan_{i}_along_{j}_pixels" for i in "yx" for j in "yx"]
    true |= dict(zip(names, case.slopes.ravel(), strict=True))
    for name, value in true.items():
        if name in rows:
            row[name] = rows[name].value - value
            row[f"z {name}"] = row[name] / rows[name].error
            row[f"error {name}"] = rows[name].error
            row[f"bound {name}"] = bounds.get(name, np.nan)
    centre = [row.get(f"disc_centre_{i}_pixels", np.inf) for i in "yx"]
    row["centre"] = float(np.hypot(*centre))
    row["radius"] = abs(row.get("disc_radius_pixels", np.inf)) / case.radius
    row["descan"] = max(abs(row.get(name, np.inf)) for name in names)
    row["gain error"] = abs(row.get("counts_per_electron", np.inf)) / case.gain
    mask = np.ones(case.grid.shape, bool) if data.mask is None else data.mask
    hidden = ~mask | np.any([np.zeros_like(mask), *camera.bad_pixels.values()], axis=0)
    row["found"] = {kind: bool(hidden[place]) for kind, place in case.bad.items()}
    row["visible"] = case.visible
    sound = hidden.copy()
    for place in case.bad.values():
        sound[place] = False
    row["false"] = int(sound.sum())
    return row


def summary(rows: list[dict]) -> None:
    """Print how many of the cases reach the goals."""
    table = Table(quantity="<40s", from_200="<16s", below_200="<16s")

    def line(quantity, high, low):
        table.line(quantity=quantity, from_200=str(high), below_200=str(low))

    groups = [[r for r in rows if (r["dose"] >= LOW_DOSE) == high] for high in (True, False)]
    line("cases", *map(len, groups))
    keys = {"centre": "centre", "radius": "radius", "descan": "descan", "gain": "gain error"}
    for name, key in keys.items():
        good = [share([r[key] <= GOALS[name] for r in group]) for group in groups]
        line(f"{name} ≤ {GOALS[name]:g}", *good)
    scores = sorted({k for r in rows for k in r if k.startswith("z ")})
    for name in scores:
        near = [share([abs(r[name]) < 3 for r in g if name in r]) for g in groups]
        line(f"{name[2:]}: |z| < 3", *near)
        if "electron" not in name:
            wide = [median([_ratio(r, name[2:]) for r in g if name in r]) for g in groups]
            line("  error / Cramér–Rao bound", *wide)
    for kind in KINDS:
        some = [[r for r in g if kind in r["found"]] for g in groups]
        seen = [[r for r in g if r["visible"][kind]] for g in some]
        line(f"{kind} found", *(share([r["found"][kind] for r in g]) for g in some))
        line("  of the visible", *(share([r["found"][kind] for r in g]) for g in seen))
    line("false pixels", *(sum(r["false"] for r in g) for g in groups))
    line("no disc", *(sum(r["no_disc"] for r in g) for g in groups))
    line("seconds of CPU", *(median([r["seconds"] for r in g]) for g in groups))


def _ratio(row: dict, name: str) -> float:
    return row[f"error {name}"] / row[f"bound {name}"]


def share(values: list) -> str:
    """Percentage of true values, with their number."""
    return f"{100 * np.mean(values):.0f} % of {len(values)}" if values else "–"


def median(values: list) -> str:
    """Median in words."""
    return f"{np.nanmedian(values):.3g}" if values else "–"


def main() -> None:
    """Measure all cases and print the table."""
    parser = arguments(__doc__, 1)
    parser.add_argument(
        "--seeds", type=int, nargs=2, default=(1000, 1200), help="first seed, and the last + 1"
    )
    args = parser.parse_args()
    opening()
    first, last = args.seeds
    rows = [measured(seed) for seed in range(first, first + 2 if args.quick else last)]
    summary(rows)
    save(args, rows)


if __name__ == "__main__":
    main()
