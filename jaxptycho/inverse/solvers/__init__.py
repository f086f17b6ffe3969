"""Solvers: optax transformations that update a model, and preconditioners of gradients."""

from .accumulation import accumulate_gradients
from .awf import awf
from .layerwise_adam import layerwise_adam
from .lsqml import lsqml
from .mpie import mpie
from .pie import epie, rpie
from .preconditioning import PRECONDITIONERS, measured, shell_growth
from .projections import difference_map, raar
from .registry import SOLVERS, momentum
from .three_pie import three_pie

__all__ = [
    "PRECONDITIONERS",
    "SOLVERS",
    "accumulate_gradients",
    "awf",
    "difference_map",
    "epie",
    "layerwise_adam",
    "lsqml",
    "measured",
    "momentum",
    "mpie",
    "raar",
    "rpie",
    "shell_growth",
    "three_pie",
]
