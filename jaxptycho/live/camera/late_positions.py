"""Port of a simulated scan controller, whose positions follow the frames of a camera."""

import numpy as np
from jaxtyping import Float, Int

from ...io.stream import Series
from ..positions import NAMED
from .transport import Listener


class PositionPort:
    """Measured `positions` [frame, 2] (y, x) [Å] of frames that were sent, `late` frames behind."""

    def __init__(self, positions: Float[np.ndarray, "frame 2"], late: int, host: str, port: int):
        self.positions = positions
        self.listener = Listener(host, port)
        self.port = self.listener.port
        self.late = late
        self.waiting: list[int] = []

    def begin(self, series: Series) -> None:
        """Announce a series."""
        self.waiting = []
        self._send(f"{NAMED}{series.name}\n")

    def sent(self, numbers: Int[np.ndarray, " b"]) -> None:
        """Frames were sent."""
        self.waiting += numbers.tolist()
        self._release(len(self.waiting) - self.late)

    def end(self) -> None:
        """A series has ended."""
        self._release(len(self.waiting))

    def close(self) -> None:
        """Close the port."""
        self.listener.close()

    def _release(self, count: int) -> None:
        if count <= 0:
            return
        due = self.waiting[:count]
        del self.waiting[:count]
        rows = zip(due, self.positions[due].tolist(), strict=True)
        self._send("".join(f"{number} {y!r} {x!r}\n" for number, (y, x) in rows))

    def _send(self, text: str) -> None:
        if self.listener.connected():
            self.listener.send(text.encode())
