"""Connection to a camera by TCP, which gives up after a time without data."""

import socket
import time

from ..intake import Intake
from .address import Address

POLL = 0.1  # s, between two looks whether the session asks to stop
RECEIVE_BYTES = 2**23  # buffer of the operating system


class Silent(ValueError):
    """A camera sent nothing for too long."""


class Patience:
    """Clock that raises `Silent` where nothing has come for `limit` seconds."""

    def __init__(self, limit: float, address: Address, intake: Intake):
        self.limit = limit
        self.address = address
        self.intake = intake
        self.last = time.monotonic()

    def fed(self) -> None:
        """Something has come."""
        self.last = time.monotonic()

    def tried(self) -> None:
        """Nothing has come."""
        self.intake.check()
        if time.monotonic() - self.last > self.limit:
            raise Silent(
                f"{self.address} sent nothing for {self.limit:g} s; check the camera, or give it "
                "more time with --timeout"
            )


class Connection:
    """Socket that is connected to a camera, which may start later."""

    def __init__(self, address: Address, intake: Intake, limit: float):
        self.address = address
        self.patience = Patience(limit, address, intake)
        self.socket = self._connected()
        self.socket.settimeout(POLL)

    def __enter__(self):
        return self

    def __exit__(self, *error: object):
        self.socket.close()

    def receive_into(self, buffer: memoryview) -> int:
        """Number of bytes received into `buffer`; 0 once the camera has closed."""
        while True:
            try:
                count = self.socket.recv_into(buffer)
            except TimeoutError:
                self.patience.tried()
                continue
            except ConnectionResetError:
                return 0
            self.patience.fed()
            return count

    def receive(self, count: int) -> bytes:
        """`count` bytes, fewer only where the camera has closed."""
        found = bytearray(count)
        done = 0
        while done < count and (more := self.receive_into(memoryview(found)[done:])):
            done += more
        return bytes(found[:done])

    def _connected(self) -> socket.socket:
        while True:
            link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            link.settimeout(5.0)
            try:
                link.connect((self.address.host, self.address.port))
                return link
            except (ConnectionError, TimeoutError):
                link.close()
                self._unanswered()
            except OSError as error:
                link.close()
                raise ValueError(
                    f"{self.address} cannot be reached ({error.strerror or error}); check the host"
                ) from None

    def _unanswered(self) -> None:
        try:
            self.patience.tried()
        except Silent:
            raise ValueError(
                f"nothing answered at {self.address} for {self.patience.limit:g} s; start the "
                "camera's server, or check host and port"
            ) from None
        time.sleep(POLL)
