"""Step `atoms`: from a volume to atoms, which the next `refine` refines from the patterns."""

from dataclasses import replace
from itertools import cycle, islice
from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers
from pydantic import Field

from ...analysis.tracing import APART, atoms_of, in_place, named_anew
from ...model import Model
from ...runs.state import State
from ..context import Context, Step
from ..schema import key

VOLUME_PER_ATOM = 12.0  # Å³, to count atoms where there is no volume yet


class AtomsStep(Step):
    """Trace atoms in the volume, or name traced atoms again by their occupancies and drop faint
    ones."""

    needs: ClassVar = ("linear", "refine")
    kind: Literal["atoms"]
    elements: Annotated[list[str], Field(min_length=1)] = key(
        "elements that the atoms may be", example=["O", "Al", "Pt"]
    )
    threshold_volt: float | None = key(
        "potential of the slightly blurred volume from which a peak is an atom; default: half of "
        "the lightest element's",
        None,
        30.0,
        gt=0,
    )

    def summary(self) -> str:
        return f"traces {', '.join(self.elements)}"

    def preview(self, model: Model | None, context: Context) -> Model | None:
        if model is None or model.specimen.listed_atoms() is not None:
            return model
        volume: Any = model.specimen
        count = max(1, int(volume.potential.size * np.prod(volume.voxel) / VOLUME_PER_ATOM))
        numbers = [atomic_numbers[name] for name in islice(cycle(self.elements), count)]
        return replace(model, specimen=in_place(volume, numbers, np.zeros((count, 3))))

    def run(self, state: State, context: Context) -> State:
        model = state.model
        assert model is not None
        specimen: Any = model.specimen
        if specimen.listed_atoms() is not None:
            spacing = (min(model.grid.pixel), *model.grid.pixel)
            atoms = named_anew(specimen, self.elements, spacing)
        elif float(jnp.max(specimen.potential)) > 0:
            smooth = max(specimen.voxel)
            atoms = atoms_of(specimen, self.elements, self.threshold_volt, APART, smooth=smooth)
        else:
            raise ValueError("the volume is empty, and no atom can be traced in it")
        return replace(state, model=replace(model, specimen=atoms))
