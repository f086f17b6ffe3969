"""Solvers: optax transformations that update a model, and preconditioners of gradients."""

from .accumulation import accumulate_gradients
from .awf import awf
from .layerwise_adam import layerwise_adam
from .pie import epie, rpie
from .preconditioning import PRECONDITIONERS, measured, shell_growth
from .registry import SOLVERS, momentum

__all__ = [
    "PRECONDITIONERS",
    "SOLVERS",
    "accumulate_gradients",
    "awf",
    "epie",
    "layerwise_adam",
    "measured",
    "momentum",
    "rpie",
    "shell_growth",
]
