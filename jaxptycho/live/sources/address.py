"""Addresses of sources: a camera on the network, or a file that grows."""

from typing import NamedTuple
from urllib.parse import urlsplit

PORTS = {"plain": 7017, "merlin": 6342, "dectris": 31001, "dectris-v1": 9999}


class Address(NamedTuple):
    """Parts of `scheme://host:port`; of a file the scheme is `file` and the host its path."""

    scheme: str
    host: str
    port: int

    def __str__(self):
        return self.host if self.scheme == "file" else f"{self.scheme}://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Address of a source; its port is by default the usual one of the protocol."""
    if "://" not in text:
        return Address("file", text, 0)
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or (port is None and parts.netloc.count(":")):
        raise ValueError(f"{text} is no address; scheme://host:port is required")
    return Address(
        parts.scheme, parts.hostname, PORTS.get(parts.scheme, 0) if port is None else port
    )
