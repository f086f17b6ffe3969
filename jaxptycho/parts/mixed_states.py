"""Specimens in a mixed state: several states, whose patterns add incoherently."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..physics.grids import Grid
from ..physics.types import Pair, PyTree, Stack
from .indexed import Varying
from .slices import Of, Sliced, Thickness
from .specimen import AbstractSpecimen

START = 0.03  # rad rms, by which the states differ at first


class MixedStates(AbstractSpecimen):
    """States of one specimen, each a share of the time: I = Σ_s w_s I_s (Thibault & Menzel 2013).

    The occupancies w are the softmax of `log_occupancies`: positive, with the sum 1. Filters and
    clamps act on every state; figures, penalties and comparisons see the mean of the states.
    Patterns of a thin specimen leave √w_s t_s free up to a unitary mixture, so states that absorb
    are not unique; those of a phase are, but for their order.
    """

    states: tuple[AbstractSpecimen, ...]  # that hold stacks of equal shapes
    log_occupancies: Float[Array, " s"]

    @property
    def occupancies(self) -> Float[Array, " s"]:
        """Share of every state."""
        return jax.nn.softmax(self.log_occupancies)

    @property
    def mean(self) -> AbstractSpecimen:
        """The mean of the states by their occupancies, as they are stored."""
        shares = self.occupancies

        def weighted(*values: Any) -> Array:
            each = jnp.stack(values)
            return jnp.tensordot(shares, each, 1).astype(each.dtype)

        return jax.tree.map(weighted, *self.states)

    def slices(self, grid: Grid) -> Sliced:
        """Slices of the first state, then of the second …"""
        each = [state.slices(grid) for state in self.states]
        if len(each) == 1:
            return each[0]
        joined = jnp.concatenate([sliced.transmission for sliced in each])
        return replace(each[0], transmission=joined, occupancies=self.occupancies)

    # what is the same in all states

    def slices_origin(self, grid: Grid) -> Varying[Pair]:
        return self.states[0].slices_origin(grid)

    def shared_thickness(self, grid: Grid) -> Thickness:
        return self.states[0].shared_thickness(grid)

    def thicknesses(self, grid: Grid) -> Float[Array, " z"]:
        return self.states[0].thicknesses(grid)

    def radians(self, grid: Grid) -> Any:
        return self.states[0].radians(grid)

    @property
    def absorbs(self) -> bool:
        return self.states[0].absorbs

    @property
    def position(self) -> Varying[Pair]:
        return self.states[0].position

    # the mean of the states

    def stack(self, of: Of = "phase") -> Stack:
        return self.mean.stack(of)

    def in_slices(self, grid: Grid) -> AbstractSpecimen:
        return self.mean

    # changes of every state

    def map_stacks(
        self, function: Callable[[Stack], Stack], of: tuple[Of, ...] = ("phase", "absorption")
    ) -> "MixedStates":
        return self._each(lambda state: state.map_stacks(function, of))

    def clamp_amplitude(self, grid: Grid, lowest: float, highest: float) -> "MixedStates":
        return self._each(lambda state: state.clamp_amplitude(grid, lowest, highest))

    def move(self, by: PyTree) -> "MixedStates":
        return self._each(lambda state: state.move(by))

    def with_slices(self, grid: Grid, slices: int) -> "MixedStates":
        return self._each(lambda state: state.with_slices(grid, slices))

    def summary(self) -> dict[str, str]:
        shares = ", ".join(f"{share:.3g}" for share in np.asarray(self.occupancies))
        return {"occupancies of the states": shares}

    def _each(self, change: Callable[[AbstractSpecimen], Any]) -> "MixedStates":
        return replace(self, states=tuple(map(change, self.states)))


def mixed_states(specimen: AbstractSpecimen, states: int, seed: int = 0) -> MixedStates:
    """As many equally occupied `states`, whose phases differ from `specimen` at random.

    Equal states would have equal gradients and stay equal.
    """
    rng = np.random.default_rng(seed)

    def different(stack: Stack) -> Stack:
        return stack + START * jnp.asarray(rng.standard_normal(stack.shape), stack.dtype)

    each = tuple(specimen.map_stacks(different, ("phase",)) for _ in range(states))
    return MixedStates(each, jnp.zeros(states))
