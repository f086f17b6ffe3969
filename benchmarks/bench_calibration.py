"""Calibration of simulated scans (`calibration_cases`) against their truth: camera and optics.

    python benchmarks/bench_calibration.py [--seeds 1000 1200] [--json FILE]

Defocus ±50 … ±20 000 Å with astigmatism, thin films of atoms or proteins in ice, 60 … 300 kV,
semiangles to match, eight orientations and any rotation, 0.5–2 pixels of descan, five bad pixels,
20 … 10⁵ e/Å², 1 … 8 counts per electron with spread. As users have it: `jp.read` of a file of
counts, with the scan's step, the voltage and the semiangle, and `jp.calibrate`. Goals: orientation
right or said to be ambiguous, rotation 0.3°, defocus max(5 Å, 2 %), disc centre and descan 0.1
pixels, radius 0.5 %, gain 10 %, |error| < 3 σ in 95 %, every bad pixel that counting lets be seen
and no other.
"""

import tempfile
import time
import warnings
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
from calibration_cases import KINDS, LIFE, SHOTS, Case, simulated
from common import Table, arguments, opening, save

import jaxptycho as jp
from jaxptycho import Dataset
from jaxptycho.start.calibrate import Calibration
from jaxptycho.start.camera import MeasuredCamera, measure_camera
from jaxptycho.start.optics_table import MeasuredOptics

LOW_DOSE = 200.0  # e/Å²
GOALS = {
    "centre": 0.1,
    "radius": 0.005,
    "descan": 0.1,
    "gain": 0.1,
    "rotation": 0.3,
    "defocus": 1.0,
}
SAME_ORIENTATION = np.deg2rad(10.0)
VERDICTS = ("right", "ambiguous", "wrong and determined")


def measured(seed: int) -> dict:
    """Errors of one case, in units of the goals' quantities and of their standard errors."""
    started = time.process_time()
    case = simulated(seed)
    made = time.process_time()
    row = {"seed": seed, "specimen": case.truth.specimen, "dose": case.truth.dose}
    row |= {"voltage": case.grid.voltage_kv, "true defocus": case.truth.defocus}
    row |= {"semiangle": case.truth.semiangle, "strength": case.truth.strength}
    row |= {
        "step": float(case.positions[1, 1]),
        "electrons": float(case.counts.sum()) / case.truth.gain,
    }
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        look = calibrated(case, Path(folder) / "scan.npy")
    row |= of_camera(case, look.data, look.camera)
    row |= {"verdict": "ambiguous"} if look.optics is None else of_optics(case, look.optics)
    row |= {"warnings": look.warnings}
    return row | {"simulation": made - started, "calibration": time.process_time() - made}


def calibrated(case: Case, path: Path) -> Calibration:
    """Calibration of a file of the counts, by what a user knows of it."""
    np.save(path, case.counts.reshape(SHOTS, SHOTS, *case.counts.shape[1:]))
    known = {"voltage_kv": case.grid.voltage_kv, "step_angstrom": float(case.positions[1, 1])}
    known["semiangle_mrad"] = 1e3 * case.truth.semiangle
    try:
        data = jp.read(path, **known)
    except ValueError:  # asks for the detector's step, as it sees no disc
        step = 1e3 * case.truth.semiangle / case.truth.radius
        data = jp.read(path, detector_step_mrad=step, **known)
    try:
        return jp.calibrate(data)
    except ValueError:  # of the optics
        return Calibration(data, measure_camera(data), None)


def of_optics(case: Case, found: MeasuredOptics) -> dict:
    """Verdict on the orientation, errors of defocus and rotation; of the conjugate where ambiguous."""
    truth = case.truth
    rows = found.rows()
    defocus = rows["defocus_angstrom"]
    sign = 1.0 if np.trace(found.matrix @ truth.orientation.T) > 0 else -1.0
    turned = sign * found.matrix @ truth.orientation.T
    angle = float(np.arctan2(turned[1, 0] - turned[0, 1], np.trace(turned)))
    same = np.linalg.det(turned) > 0 and abs(angle) < SAME_ORIENTATION
    same = bool(same and sign * defocus.value * truth.defocus > 0)
    open_question = found.ambiguous or any("nothing here" in text for text in found.warnings)
    named = same and (sign > 0 or open_question)
    verdict = "ambiguous" if open_question else "right" if named else "wrong and determined"
    row = {"verdict": verdict, "family": same, "pair": sign, "alternatives": found.alternatives}
    row |= {"skewness": found.skewness.value, "skewness error": found.skewness.error}
    row |= {"aberrations": found.aberrations}
    if not same:
        return row
    difference = sign * defocus.value - truth.defocus
    row["defocus"] = abs(difference) / max(5.0, 0.02 * abs(truth.defocus))
    row |= {"defocus difference": difference, "z defocus": difference / defocus.error}
    row["rotation"] = abs(np.rad2deg(angle))
    row["rotation difference"] = float(np.rad2deg(angle))
    row["z rotation"] = float(np.rad2deg(angle)) / rows["rotation_deg"].error
    lens = sign * np.array([found.aberrations.get(f"C12{part}", 0.0) for part in "ab"])
    row["astigmatism difference"] = float(np.hypot(*(lens - truth.astigmatism)))
    return row


def of_camera(case: Case, data: Dataset, camera: MeasuredCamera) -> dict:
    """Errors of disc, descan and gain, and the bad pixels that were found."""
    truth = case.truth
    rows, bounds = camera.rows(), camera.bounds()
    row = {"no_disc": camera.disc is None, "gain": truth.gain}
    true = {"disc_radius_pixels": truth.radius, "counts_per_electron": truth.gain}
    true |= dict(zip(("disc_centre_y_pixels", "disc_centre_x_pixels"), truth.centre, strict=True))
    names = [f"descan_{i}_along_{j}_pixels" for i in "yx" for j in "yx"]
    true |= dict(zip(names, truth.slopes.ravel(), strict=True))
    for name, value in true.items():
        if name in rows:
            row[name] = rows[name].value - value
            row[f"z {name}"] = row[name] / rows[name].error
            row[f"error {name}"] = rows[name].error
            row[f"bound {name}"] = bounds.get(name, np.nan)
    centre = [row.get(f"disc_centre_{i}_pixels", np.inf) for i in "yx"]
    row["centre"] = float(np.hypot(*centre))
    row["radius"] = abs(row.get("disc_radius_pixels", np.inf)) / truth.radius
    row["descan"] = max(abs(row.get(name, np.inf)) for name in names)
    row["gain error"] = abs(row.get("counts_per_electron", np.inf)) / truth.gain
    mask = np.ones(case.grid.shape, bool) if data.mask is None else data.mask
    hidden = ~mask | np.any([np.zeros_like(mask), *camera.bad_pixels.values()], axis=0)
    row["found"] = {kind: bool(hidden[place]) for kind, place in truth.bad.items()}
    row["visible"] = truth.visible
    sound = hidden.copy()
    for place in truth.bad.values():
        sound[place] = False
    row["false"] = int(sound.sum())
    return row


def summary(rows: list[dict]) -> None:
    """Print how many of the cases reach the goals."""
    table = Table(quantity="<40s", atoms="<16s", proteins="<16s", below_200="<16s")
    high = [row for row in rows if row["dose"] >= LOW_DOSE]
    groups = [
        [row for row in high if row["specimen"] not in LIFE],
        [row for row in high if row["specimen"] in LIFE],
        [row for row in rows if row["dose"] < LOW_DOSE],
    ]

    def line(quantity, of_row, where=bool, total=share):
        cells = (str(total([of_row(row) for row in group if where(row)])) for group in groups)
        table.line(quantity=quantity, **dict(zip(list(table.columns)[1:], cells, strict=True)))

    def goal(name, key, words="in goal", where=bool):
        line(f"{name} {words}", lambda row: row.get(key, np.inf) <= GOALS[name], where)

    line("cases", bool, total=len)
    for verdict in VERDICTS:
        line(f"orientation {verdict}", partial(_has, "verdict", verdict))
    for name in ("defocus", "rotation"):
        goal(name, name)
        goal(name, name, "in goal, of the right", partial(_has, "verdict", "right"))
    for name, key in {"centre": "centre", "radius": "radius", "descan": "descan"}.items():
        goal(name, key)
    goal("gain", "gain error")
    for name in sorted({key for row in rows for key in row if key.startswith("z ")}):
        line(f"{name[2:]}: |z| < 3", partial(_within, name), partial(_holds, name))
    for kind in KINDS:
        line(f"{kind} pixel found, where visible", partial(_found, kind), partial(_visible, kind))
    line("false pixels", itemgetter("false"), total=sum)
    line("no disc", itemgetter("no_disc"), total=sum)
    for name in ("simulation", "calibration"):
        line(f"{name}, seconds of CPU", itemgetter(name), total=median)


def _has(key, value, row):
    return row[key] == value


def _holds(key, row):
    return key in row


def _within(key, row):
    return abs(row[key]) < 3


def _found(kind, row):
    return row["found"][kind]


def _visible(kind, row):
    return row["visible"].get(kind)


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
