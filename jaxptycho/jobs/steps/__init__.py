"""Steps of a job, by the kinds that job files name."""

from ..context import Step
from .align import Align
from .atoms import Atoms
from .evaluate import Evaluate
from .linear import Linear
from .refine import Refine
from .simulate import Simulate
from .views import Views

STEPS: dict[str, type[Step]] = {
    "simulate": Simulate,
    "views": Views,
    "align": Align,
    "linear": Linear,
    "refine": Refine,
    "atoms": Atoms,
    "evaluate": Evaluate,
}
