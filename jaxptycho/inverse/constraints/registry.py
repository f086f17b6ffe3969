"""Constraints: exact prior knowledge, or a choice of gauge, restored after every step.

A constraint is any `project(model) -> model`; `all_of` runs several in the order given. The
functions of the modules beside this one build
such closures, and `CONSTRAINTS` lists them by the names that job files use. The protocol:

- a builder takes plain numbers by keyword, with the unit in the key (`semiangle_mrad`,
  `sigma_angstrom`); its annotated signature defines the keys with their types and defaults (keys
  without default are required);
- a builder whose first parameter is called `model` requires the model that the run or step starts
  from: `builder(model, **keys)`;
- `project` keeps every shape, dtype and wrapper, and runs inside the compiled step;
- a constraint that does not apply to a part raises ValueError when it is applied, before
  compilation: `jax.eval_shape(project, model)` checks this without computing.

Builders that take arrays (`probe_mask`, `probe_spectrum_mask`) are available in Python only.
"""

import inspect
from collections.abc import Callable
from typing import Any

from ...model import Model
from . import bands, over_scan
from . import field as field_constraints
from . import gauge as gauges
from . import phase as phase_constraints
from . import probe as probe_constraints
from . import specimen as specimen_constraints
from . import volume as volume_constraints

Project = Callable[[Model], Model]


def all_of(*projects: Project) -> Project:
    """Sequence of projections, in the order given."""

    def project(model: Model) -> Model:
        for one in projects:
            model = one(model)
        return model

    return project


CONSTRAINTS: dict[str, Callable[..., Project]] = {
    builder.__name__: builder
    for builder in (
        specimen_constraints.amplitude_clamp,
        specimen_constraints.positivity,
        specimen_constraints.identical_slices,
        specimen_constraints.vacuum_surfaces,
        specimen_constraints.gaussian_in_plane,
        specimen_constraints.gaussian_along_z,
        specimen_constraints.low_pass,
        specimen_constraints.missing_cone_filter,
        phase_constraints.phase_limits,
        phase_constraints.shrinkage,
        phase_constraints.total_variation_step,
        bands.butterworth,
        bands.grid_artefact_removal,
        field_constraints.field_of_view,
        field_constraints.vacuum_baseline,
        over_scan.smooth_tilts,
        over_scan.smooth_weights,
        volume_constraints.support,
        volume_constraints.low_pass_volume,
        volume_constraints.atomicity,
        probe_constraints.probe_power,
        probe_constraints.orthogonal_modes,
        probe_constraints.probe_aperture,
        probe_constraints.probe_support,
        gauges.probe_centring,
        gauges.phase_offset_removal,
        gauges.phase_ramp_removal,
        gauges.position_recentring,
    )
}


def build(name: str, model: Model, **keys: Any) -> Project:
    """The constraint `name` of `CONSTRAINTS` for a run that starts from `model`."""
    if name not in CONSTRAINTS:
        raise ValueError(f"unknown constraint {name!r}; known are {', '.join(CONSTRAINTS)}")
    builder = CONSTRAINTS[name]
    return builder(model, **keys) if wants_model(builder) else builder(**keys)


def wants_model(builder: Callable[..., Project]) -> bool:
    """True if a builder requires the model that a run or step starts from."""
    return "model" in inspect.signature(builder).parameters
