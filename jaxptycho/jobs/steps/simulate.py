"""Step `simulate`: a measurement from atoms to counts."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import jax

from ...model import Model
from ...runs.state import State
from ..context import Context, Step
from ..simulation import build_experiment, exposures, require_new, run_simulation
from ..simulation_sections import Simulation


class SimulateStep(Simulation, Step):
    """Simulate a measurement from atoms to counts, with everything true of it under /truth."""

    simulates: ClassVar = True
    kind: Literal["simulate"]

    def summary(self) -> str:
        lens = self.microscope
        scan = self.scan
        return (
            f"simulates {self.specimen.phantom or self.specimen.file}: {lens.voltage_kv:g} kV, "
            f"{lens.semiangle_mrad:g} mrad, defocus {lens.defocus_angstrom:g} Å; "
            f"{' × '.join(map(str, scan.shape))} points, {scan.step_angstrom:g} Å apart"
        )

    def preview(self, model: Model | None, context: Context) -> Model | None:
        if self.file is not None:
            require_new(Path(self.file))
        build_experiment(self)
        return model

    def run(self, state: State, context: Context) -> State:
        if jax.process_count() > 1:
            raise ValueError(
                f"{jax.process_count()} processes were started, and a simulation runs in one; "
                "simulate first, then give its file to the others"
            )
        file = Path(self.file) if self.file else context.folder / "data.h5"
        listener = context.listener
        listener.begin("simulate", 1, exposures(build_experiment(self)), 0)
        said = run_simulation(self, file, lambda patterns: listener.batch(float(patterns)))
        for name, value in said.items():
            listener.say(f"{name}: {value}")
        return replace(state, measurement=file.resolve())
