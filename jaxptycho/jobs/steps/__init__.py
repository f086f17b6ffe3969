"""Steps of a job, by the kinds that job files name."""

from ..context import Step
from .align import AlignStep
from .atoms import AtomsStep
from .calibrate import CalibrateStep
from .evaluate import EvaluateStep
from .linear import LinearStep
from .refine import RefineStep
from .simulate import SimulateStep
from .views import ViewsStep

STEPS: dict[str, type[Step]] = {
    "simulate": SimulateStep,
    "calibrate": CalibrateStep,
    "views": ViewsStep,
    "align": AlignStep,
    "linear": LinearStep,
    "refine": RefineStep,
    "atoms": AtomsStep,
    "evaluate": EvaluateStep,
}
