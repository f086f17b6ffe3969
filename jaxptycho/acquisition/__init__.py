"""Acquisition of tilt series: where targets will be, how well that is known, what logs recorded.

`GeometryPrior().belief(targets, exposures)` is what is known before the first exposure,
`Belief.observe` the joint Kalman filter of all targets, `Belief.predict` the shift and focus of the
next exposure, `maximum_a_posteriori` the geometry of a finished series, and `tomogram_poses` what
its tomogram starts from.
"""

from .belief import Belief, Innovation, Prediction, TargetMeasurement
from .community_rule import CommunityRule
from .geometry import Exposures, SeriesGeometry, aim, target_position
from .mdoc import Mdoc, read_mdoc, write_mdoc
from .pairs import closest_tilts, pair_sigma
from .poses import tomogram_poses
from .priors import GeometryPrior
from .replay import LogReplay, replay_filter, replay_rule
from .smoothing import maximum_a_posteriori
from .tilt_log import TiltLog, along_the_axis, read_tilt_log

__all__ = [
    "Belief",
    "CommunityRule",
    "Exposures",
    "GeometryPrior",
    "Innovation",
    "LogReplay",
    "Mdoc",
    "Prediction",
    "SeriesGeometry",
    "TargetMeasurement",
    "TiltLog",
    "aim",
    "along_the_axis",
    "closest_tilts",
    "maximum_a_posteriori",
    "pair_sigma",
    "read_mdoc",
    "read_tilt_log",
    "replay_filter",
    "replay_rule",
    "target_position",
    "tomogram_poses",
    "write_mdoc",
]
