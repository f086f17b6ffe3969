"""A quantity measured from the data: value ± error ← source."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Quantity with its standard error, both in `unit`, and the method or place it comes from.

    `error` is NaN or infinite where it is unknown.
    """

    value: float
    error: float
    unit: str
    source: str

    def __str__(self) -> str:
        """As in tables: value to the second figure of its error, unit, source."""
        return f"{self.amount} ← {self.source}"

    @property
    def amount(self) -> str:
        """Value ± error with their unit."""
        unit = f" {self.unit}" if self.unit else ""
        if not 0 < self.error < math.inf:
            return f"{self.value:.5g}{unit}"
        figures = max(0, 1 - _exponent(self.error))
        return f"{self.value:.{figures}f} ± {self.error:.{figures}f}{unit}"


def _exponent(value: float) -> int:
    """Power of ten of the first figure of a positive number."""
    return int(f"{value:.1e}".partition("e")[2])
