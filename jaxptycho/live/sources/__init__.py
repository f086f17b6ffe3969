"""Sources of frames, by the scheme of an address: `scheme://host:port`.

A source is a function `receive(address, intake, patience)` that hands frames over until its camera
has ended.
"""

from collections.abc import Callable

from ..intake import Intake
from .address import Address
from .dectris import receive_v1, receive_v2
from .growing import receive_file
from .merlin import receive_merlin
from .plain import receive_plain

SOURCES: dict[str, Callable[[Address, Intake, float], None]] = {
    "plain": receive_plain,
    "merlin": receive_merlin,
    "dectris": receive_v2,
    "dectris-v1": receive_v1,
    "file": receive_file,
}


def require_source(address: Address) -> Callable[[Address, Intake, float], None]:
    """Function that receives from an address; ValueError for an unknown scheme."""
    if address.scheme not in SOURCES:
        raise ValueError(
            f"no camera speaks {address.scheme!r}; known are {', '.join(SOURCES)}, as in "
            "merlin://localhost:6342"
        )
    return SOURCES[address.scheme]
