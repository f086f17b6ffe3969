"""Simulated cameras, which replay a measurement by the protocols of real ones."""

from collections.abc import Callable

from .dectris import DectrisV1, DectrisV2
from .merlin import Merlin
from .plain import Plain
from .transport import AbstractTransport

PROTOCOLS: dict[str, Callable[[str, int], AbstractTransport]] = {
    "plain": Plain,
    "merlin": Merlin,
    "dectris": DectrisV2,
    "dectris-v1": DectrisV1,
}
