"""Constraints: exact prior knowledge, or a choice of gauge, restored after every step.

`project(model) -> model` functions, made by the builders here; `CONSTRAINTS` lists those that jobs
can name, and `registry` describes their protocol.
"""

from .bands import butterworth, grid_artefact_removal
from .field import field_of_view, vacuum_baseline
from .gauge import (
    phase_offset_removal,
    phase_ramp_removal,
    position_recentring,
    probe_centring,
)
from .over_scan import smooth_tilts, smooth_weights
from .phase import phase_limits, shrinkage, total_variation_step
from .probe import orthogonal_modes, probe_aperture, probe_power, probe_support
from .registry import CONSTRAINTS, all_of, build
from .specimen import (
    amplitude_clamp,
    gaussian_along_z,
    gaussian_in_plane,
    identical_slices,
    low_pass,
    missing_cone_filter,
    positivity,
    vacuum_surfaces,
)
from .volume import atomicity, low_pass_volume, support

__all__ = [
    "CONSTRAINTS",
    "all_of",
    "amplitude_clamp",
    "atomicity",
    "build",
    "butterworth",
    "field_of_view",
    "gaussian_along_z",
    "gaussian_in_plane",
    "grid_artefact_removal",
    "identical_slices",
    "low_pass",
    "low_pass_volume",
    "missing_cone_filter",
    "orthogonal_modes",
    "phase_limits",
    "phase_offset_removal",
    "phase_ramp_removal",
    "position_recentring",
    "positivity",
    "probe_aperture",
    "probe_centring",
    "probe_power",
    "probe_support",
    "shrinkage",
    "smooth_tilts",
    "smooth_weights",
    "support",
    "total_variation_step",
    "vacuum_baseline",
    "vacuum_surfaces",
]
