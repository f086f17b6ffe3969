"""What a simulated camera requires of a protocol."""

import socket
import time
from abc import ABC, abstractmethod

import numpy as np

from ...io.stream import Series
from ..listening import listening_socket

POLL = 0.05  # s


class AbstractTransport(ABC):
    """Port of a camera that sends series."""

    port: int

    @abstractmethod
    def wait(self) -> None:
        """Wait for somebody who listens."""

    @abstractmethod
    def begin(self, series: Series) -> None:
        """Announce a series."""

    @abstractmethod
    def send(self, series: Series, numbers: np.ndarray, frames: np.ndarray) -> int:
        """Send frames in the camera's layout; returns how many of them were sent."""

    @abstractmethod
    def end(self, series: Series) -> None:
        """End a series."""

    @abstractmethod
    def close(self) -> None:
        """Close the port once everything is sent."""


class Listener:
    """TCP port that serves one client at a time; one that leaves may come back."""

    def __init__(self, host: str, port: int):
        self.server = listening_socket(host, port)
        self.port = self.server.getsockname()[1]
        self.server.setblocking(False)
        self.client: socket.socket | None = None
        self.fresh = False  # whether the client has not been greeted yet

    def wait(self) -> None:
        """Wait for a client."""
        while not self.connected():
            time.sleep(POLL)

    def connected(self) -> bool:
        """True while there is a client; a new one is accepted."""
        if self.client is None:
            try:
                self.client, _ = self.server.accept()
            except BlockingIOError:
                return False
            self.client.setblocking(True)
            self.fresh = True
        return True

    def send(self, *parts: bytes | memoryview) -> bool:
        """Send to the client; False once it has left."""
        if self.client is None:
            return False
        try:
            for part in parts:
                self.client.sendall(part)
        except OSError:
            self.client.close()
            self.client = None
        return self.client is not None

    def close(self) -> None:
        """Close both ends."""
        if self.client is not None:
            self.client.close()
        self.server.close()


class TcpTransport(AbstractTransport):
    """Camera that one client at a time is connected to."""

    def __init__(self, host: str, port: int):
        self.listener = Listener(host, port)
        self.port = self.listener.port

    def wait(self) -> None:
        self.listener.wait()

    def close(self) -> None:
        self.listener.close()
