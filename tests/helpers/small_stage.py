"""A small simulated microscope for schedules: NumPy, places in place of images, faults on demand.

Its stage has runout, jitter, backlash and eucentric error, all from the seed and the angle alone,
so that a process that begins again finds the same world. `disk` keeps what a real microscope keeps
when the process that steers it is killed: clock, angle, scans, number of exposures.
"""

import json
import os
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jaxptycho.acquisition.instrument import TargetScan
from jaxptycho.acquisition.microscopes.microscope import Displacement

FIELD = 2_000.0  # Å, half of that of a scan; beyond it nothing is in common
LOOK = 20.0  # a look is wider


def noise(*words, size=2):
    """Normal numbers that belong to these words."""
    return np.random.default_rng(zlib.crc32(repr(words).encode())).normal(size=size)


class SmallStage:
    """Microscope with `targets` (x, y) [Å] on a specimen; lengths in Å, angles in rad."""

    def __init__(self, targets, seed=0, jitter=300.0, pair=20.0, roughness=500.0, disk=None):
        self.seed = seed
        self.jitter = jitter
        self.pair = pair
        rng = np.random.default_rng(seed)
        z = rng.normal(0, 3_000.0) + rng.normal(0, roughness, len(targets))
        self.points = np.column_stack([targets, z])
        self.axis = np.append(0.0, rng.normal(0, 1_000.0, 2))
        self.phases = rng.uniform(0, 2 * np.pi, (3, 4))
        self.disk = disk
        self.now = 0.0
        self.here = 0.0
        self.aimed = (0.0, 0.0)
        self.focus = 0.0
        self.scans = {}
        self.made = []
        self.beam = True
        self.faults = {}  # name of a method: function called with its arguments first
        if disk is not None and Path(disk).exists():
            self._restore()

    def place(self, target, angle):
        """Where a target is at an angle, x, y, z."""
        cos, sin = np.cos(angle), np.sin(angle)
        x, y, z = self.points[target] - self.axis
        k = np.arange(1, 5)
        runout = 500.0 * np.sin(k * angle + self.phases).sum(1) / 2
        jitter = self.jitter * noise(self.seed, round(float(angle), 3), size=3) * [1, 1, 0.3]
        return np.array([x, y * cos + z * sin, z * cos - y * sin]) + self.axis + runout + jitter

    def seconds(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds

    def tilt(self, angle):
        self._fault("tilt", angle)
        below = angle - 0.0524  # from where it is approached
        down = self.here > angle - 0.02
        moves = 2 if down else 1
        way = abs(below - self.here) + 0.0524 if down else angle - self.here
        self.now += 6.0 * moves + 30.0 * way
        self.here = angle
        self._store("here", angle)
        return angle + 1e-5

    def angle(self):
        return self.here + 1e-5

    def aim(self, shift, focus):
        self._fault("aim", shift)
        self.now += 1.0
        self.aimed = tuple(shift)
        self.focus = focus

    def exposures(self):
        return len(self.made)

    def record(self, name):
        self._fault("record", name)
        scan = self._scan(name, FIELD)
        self.now += 9.0
        self._store("made", name)
        self.made.append(name)
        self._fault("exposed", name)
        return self._keep(scan)

    def look(self, name):
        self._fault("look", name)
        self.now += 2.0
        return self._keep(self._scan(name, LOOK * FIELD))

    def load(self, name):
        return self.scans.get(name)

    def displacement(self, scan, other):
        apart = np.rad2deg(scan.angle - other.angle)
        sigma = self.pair * np.sqrt(1 + (apart / 6) ** 2)
        target, x, y = scan.image[0]
        against, u, v = other.image[0]
        if not target == against >= 0:
            return Displacement((0.0, 0.0), np.inf)
        value = np.array([x - u, y - v]) + sigma * noise(self.seed, scan.name, other.name)
        return Displacement((float(value[0]), float(value[1])), float(sigma))

    def blank(self):
        self.beam = False

    def _scan(self, name, reach):
        self.beam = True
        places = np.array([self.place(i, self.here) for i in range(len(self.points))])
        offsets = places[:, :2] - self.aimed
        nearest = int(np.argmin(np.hypot(*offsets.T)))
        seen = np.max(np.abs(offsets[nearest])) < reach
        error = self.focus - places[nearest, 2] + 100.0 * noise(self.seed, name, size=1)[0]
        image = np.array([[nearest if seen else -1, *offsets[nearest]]])
        scan = TargetScan(
            name, self.here, self.aimed, self.focus, 100.0, float(error), 100.0, image
        )
        return self.faults.get("image", lambda s: s)(scan)

    def _keep(self, scan):
        self._store("scan", asdict(scan) | {"image": scan.image.tolist()})
        self.scans[scan.name] = scan
        return scan

    def _fault(self, name, argument):
        self.faults.get(name, lambda argument: None)(argument)

    def _store(self, kind, value):
        if self.disk is None:
            return
        with open(self.disk, "a") as file:
            file.write(json.dumps([kind, self.now, value]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _restore(self):
        for line in Path(self.disk).read_text().splitlines():
            kind, self.now, value = json.loads(line)
            if kind == "here":
                self.here = value
            elif kind == "made":
                self.made.append(value)
            else:
                arrays = {"shift": tuple(value["shift"]), "image": np.array(value["image"])}
                self.scans[value["name"]] = TargetScan(**value | arrays)
