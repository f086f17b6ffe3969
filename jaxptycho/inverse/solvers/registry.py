"""Solvers that a job can name: `make(learning_rate, **options)`, an optax transformation.

All optimisers of optax whose first parameter is a learning rate, and those of this package.
"""

import inspect
from collections.abc import Callable
from typing import Any

import optax

from .awf import awf
from .layerwise_adam import layerwise_adam
from .lsqml import lsqml
from .mpie import mpie
from .pie import epie, rpie
from .projections import difference_map, raar
from .three_pie import three_pie

Rate = float | Callable[[Any], Any]


def momentum(
    learning_rate: Rate, momentum: float = 0.9, nesterov: bool = True
) -> optax.GradientTransformation:
    """Gradient descent with momentum."""
    return optax.sgd(learning_rate, momentum, nesterov)


def scaled(make: Callable[..., optax.GradientTransformation]) -> Callable[..., Any]:
    """A ptychographic engine whose steps are scaled by a rate, which may be a schedule."""

    def solver(learning_rate: Any, **options: Any) -> optax.GradientTransformation:
        constant = optax.constant_schedule(learning_rate)
        schedule: Any = learning_rate if callable(learning_rate) else constant
        return optax.chain(make(**options), optax.scale_by_schedule(schedule))

    solver.__doc__ = make.__doc__
    return solver


def _takes_rate(function: Any) -> bool:
    if not inspect.isfunction(function):
        return False
    return next(iter(inspect.signature(function).parameters), "") == "learning_rate"


def _of_optax() -> dict[str, Callable[..., Any]]:
    named = {name: getattr(optax, name) for name in dir(optax) if name.islower()}
    return {name: make for name, make in named.items() if _takes_rate(make)}


# engines of ptychography: they update specimen and probe from the waves of one batch, rate 1 is a
# full step, and no other rate has to be found
ENGINES: dict[str, Callable[..., Any]] = {
    make.__name__: scaled(make)
    for make in (awf, epie, rpie, mpie, three_pie, lsqml, difference_map, raar)
}
OF_ALL_SHOTS = frozenset({"difference_map", "raar"})  # take the number of `shots`
JOINT = OF_ALL_SHOTS | {"lbfgs", "lsqml"}  # find the steps of all their parts together
SOLVERS: dict[str, Callable[..., Any]] = (
    _of_optax() | {"momentum": momentum, "layerwise_adam": layerwise_adam} | ENGINES
)
