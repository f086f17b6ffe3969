"""Errors of predicted targets: the joint Kalman filter beside the rule of the community (Eisenstein et al. 2023).

    python benchmarks/bench_acquisition.py [--logs FOLDER] [--seeds 20] [--json FILE]

Logs are recorded series of one target each, replayed tilt by tilt: FOLDER is `tilt_logs` of the measured data. Worlds are
simulated stages (`acquisition_worlds`) with nine targets within ±8 µm, ±60° by 3°, dose-symmetric. At each tilt the first
target is tracked, then each of the others is predicted, exposed, and measured. The rule takes the shift to the image before,
the filter those to the three closest tilts and a defocus (10 nm). An error is that before the exposure, in x and y.
The filter knows the size of the errors, not what they are; the first tilt and the tracked target are not counted.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from acquisition_worlds import GENTLE, HARSH, Series
from common import Table, arguments, opening, save

from jaxptycho.acquisition import (
    CommunityRule,
    Exposures,
    GeometryPrior,
    TargetMeasurement,
    along_the_axis,
    closest_tilts,
    read_tilt_log,
    replay_filter,
    replay_rule,
)
from jaxptycho.acquisition.belief import HUBER

ANGSTROM_PER_NM = 10.0
DEFOCUS_SIGMA = 10.0  # nm
FIRST_SIGMA = 0.1  # nm; the first image says what the target is
PARTNERS = 3
FIELD = 100.0  # nm, beyond which a target is out of its scan
LOGS = {  # place across the axis [Å], and the tilt [degrees] from which the target was lost
    "aretomo3_L1_ts_001.mrc.mdoc": (0.0, 40.0),
    "murfey_chrom_07_ts_010_first11.mdoc": (40_200.0, 90.0),
    "mdocfile_EMPIAR10164_TS_01.mdoc": (0.0, 90.0),
}
WORLDS = {
    "gentle": GENTLE,
    "harsh": HARSH,
    "harsh, Student t": replace(HARSH, student_t=True),
    "harsh, backlash 500 nm": replace(HARSH, backlash=500.0),
    "harsh, matrix 1 %": replace(HARSH, matrix=0.01),
    "harsh, 3 % of shifts 100 nm off": replace(HARSH, mislocks=0.03),
}


def of_logs(folder):
    """A row for every log and predictor."""
    for name, (n0, until) in LOGS.items():
        log = along_the_axis(read_tilt_log(folder / name))
        degrees = np.rad2deg(log.angle)
        good = (np.arange(len(degrees)) > 0) & (degrees < until)
        for way, replay in (("rule", replay_rule(log, n0)), ("filter", replay_filter(log, n0))):
            error = np.abs(replay.error[good]) / ANGSTROM_PER_NM
            lost = degrees[replay.lost]
            first = np.flatnonzero(replay.lost)[:1] if replay.lost.any() else [len(degrees) - 1]
            yield {
                "log": name,
                "way": way,
                "x_p90": np.quantile(error[:, 0], 0.9),
                "y_median": np.median(error[:, 1]),
                "y_p90": np.quantile(error[:, 1], 0.9),
                "lost_deg": lost[0] if len(lost) else None,
                "false_alarms": int(np.sum(replay.lost & good)),
                "focus_um": float(np.max(np.abs(np.nan_to_num(replay.focus[: first[0] + 1]))))
                / 1e4,
                "z0_um": float(np.max(np.abs(replay.height))) / 1e4,
                "logged_z0_apart_um": float(np.median(np.abs(replay.height - log.height))) / 1e4,
            }


def by_rule(series):
    """Errors (x, y) and of focus [nm] of the rule, one row for each target but the tracked and tilt."""
    increment = np.deg2rad(3.0)
    start = series.places[:, 0]
    rules = {}
    known = {}
    for side in (0, 1):
        sign = 1 - 2 * side
        rules[side] = [
            CommunityRule.begin(0.0, sign * increment, float(y0), float(y))
            for y0, y in zip(series.nominal[:, 1], start[:, 1], strict=True)
        ]
        known[side] = [(0, place[:2], 0.0) for place in start]
    errors = []
    focus_errors = []
    for k in range(1, len(series.tilts)):
        side = series.branch[k]
        angle = np.deg2rad(series.tilts[k])
        tracked = np.zeros(2)
        for i, rule in enumerate(rules[side]):
            before, place, focus = known[side][i]
            shift, _ = series.pair(i, k, before)
            found = place + shift
            predicted = np.array([place[0], rule.y + rule.predicted_step(angle)])
            focus = focus - rule.predicted_focus_step(angle)
            if i == 0:
                tracked = found - predicted
            else:
                errors.append(series.places[i, k, :2] - predicted - tracked)
                focus_errors.append(series.places[i, k, 2] - start[i, 2] - focus)
            rules[side][i] = rule.record(angle, float(found[1]))
            known[side][i] = k, found, focus
    return np.array(errors), np.array(focus_errors)


def prior_of(world):
    """Sizes of the errors of a world, as a prior."""
    scale = ANGSTROM_PER_NM
    return GeometryPrior(
        height=1500.0 * scale,
        roughness=world.roughness * scale,
        roughness_length=1000.0 * scale,
        axis_offset=world.axis_offset * scale,
        runout=1.2 * world.runout * scale,
        backlash=world.backlash * scale,
        jitter=world.jitter * scale,
        drift=world.drift_per_minute / 60 * scale,
        angle_error=np.deg2rad(np.hypot(world.reading, 1e-3)),
        matrix=world.matrix,
    )


def by_filter(series):
    """As `by_rule`, with the errors over sigma (x, y, focus)."""
    count = len(series.tilts)
    targets = len(series.nominal)
    exposures = Exposures.of(
        np.deg2rad(series.tilts),
        series.branch,
        np.repeat(series.delay[:, None], count, 1),
        np.zeros(count),
    )
    nominal = np.column_stack([series.nominal, np.zeros(targets)]) * ANGSTROM_PER_NM
    prior = prior_of(series.world)
    belief = prior.belief(nominal, exposures)
    errors = []
    normalised = []
    for k in range(count):
        angle = np.array(exposures.angle)
        angle[k] = np.deg2rad(series.readings[k])
        exposures = Exposures.of(angle, exposures.branch, exposures.delay, exposures.dose)
        for i in range(targets):
            true = series.places[i, k]
            if k and i:
                predicted = belief.predict(exposures, i, k)
                mean = np.append(predicted.shift, predicted.focus) / ANGSTROM_PER_NM
                errors.append(true - mean)
                normalised.append((true - mean) / (np.asarray(predicted.sigma) / ANGSTROM_PER_NM))
            measured = measure(series, i, k, angle)
            # far off, the tracked target reports a jump of the stage, not an error of measurement
            after, innovation = belief.observe(exposures, measured, huber=HUBER if i else np.inf)
            if i == 0 and k and np.all(innovation.lost[:PARTNERS]):
                # the second, wider look at the tracked target finds it where the first did
                wide = belief.widen(k, 10 * prior.jitter)
                after, innovation = wide.observe(exposures, measured, huber=np.inf)
            belief = after
    errors = np.array(errors)
    return errors[:, :2], errors[:, 2], np.array(normalised)


def measure(series, target, tilt, angle):
    """Shifts to the closest earlier images and one defocus; at the first tilt the place itself."""
    value = np.zeros((PARTNERS + 1, 3))
    sigma = np.full((PARTNERS + 1, 3), np.inf)
    reference = np.full(PARTNERS + 1, -1)
    if tilt == 0:
        value[0, :2] = series.places[target, 0, :2]
        sigma[0, :2] = FIRST_SIGMA
    for n, other in enumerate(closest_tilts(angle, tilt, np.arange(tilt), PARTNERS)):
        reference[n] = other
        value[n, :2], sigma[n, :2] = series.pair(target, tilt, other)
    value[-1, 2] = series.height(target, tilt, DEFOCUS_SIGMA)
    sigma[-1, 2] = DEFOCUS_SIGMA
    return TargetMeasurement.of(
        target, tilt, reference, value * ANGSTROM_PER_NM, sigma * ANGSTROM_PER_NM
    )


def of_worlds(names, seeds, targets):
    """A row for every world and predictor."""
    for name in names:
        found = {"rule": [], "filter": []}
        scaled = []
        for seed in range(seeds):
            found["rule"].append(by_rule(Series(WORLDS[name], seed, targets)))
            *errors, normalised = by_filter(Series(WORLDS[name], seed, targets))
            found["filter"].append(errors)
            scaled.append(normalised)
        for way, series in found.items():
            error = np.array([np.hypot(*e.T).reshape(-1, targets - 1) for e, _ in series])
            focus = np.abs(np.concatenate([f for _, f in series]))
            inside = np.abs(np.concatenate(scaled)) < 1.645
            yield {
                "world": name,
                "way": way,
                "median": np.median(error),
                "p90": np.quantile(error, 0.9),
                "max": np.max(error),
                "focus_median": np.median(focus),
                "targets_out_of_field": int(np.sum(np.max(error, 1) > FIELD)),
                "within_90": float(np.mean(inside[:, :2])) if way == "filter" else None,
                "focus_within_90": float(np.mean(inside[:, 2])) if way == "filter" else None,
            }


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="recorded series")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    given = parser.parse_args()
    opening()
    rows = []
    if given.logs:
        table = Table(
            log="<36s", way="<7s", x_p90="6.1f", y_median="8.1f", y_p90="6.1f", lost_deg="8.2f",
            false_alarms="12d", focus_um="8.2f", z0_um="6.2f", logged_z0_apart_um="18.5f",
        )  # fmt: skip
        for row in of_logs(given.logs):
            table.line(**row)
            rows.append(row)
    table = Table(
        world="<32s", way="<7s", median="7.1f", p90="7.1f", max="7.1f", focus_median="12.1f",
        targets_out_of_field="20d", within_90="9.3f", focus_within_90="15.3f",
    )  # fmt: skip
    worlds = given.worlds[:1] if given.quick else given.worlds
    for row in of_worlds(worlds, 1 if given.quick else given.seeds, 3 if given.quick else 9):
        table.line(**row)
        rows.append(row)
    save(given, rows)


if __name__ == "__main__":
    main()
