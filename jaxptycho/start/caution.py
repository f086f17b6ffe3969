"""A caution about a measurement, and what is known of the measurement."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ..data import Dataset
from .count_statistics import Noise, noise_of


class Caution(NamedTuple):
    """Suspicious property of the data, and the key of a job that changes it."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.key})"


@dataclass(frozen=True, eq=False)
class Measurement:
    """A dataset, and what is known of it."""

    data: Dataset
    about: Mapping[str, Any]

    @property
    def is_far_field_of_electrons(self) -> bool:
        near = "effective_distance_angstrom" in self.about
        return self.data.grid.voltage_kv is not None and not near

    @cached_property
    def noise(self) -> Noise:
        """Sample of patterns with its mean and variance."""
        return noise_of(self.data)
