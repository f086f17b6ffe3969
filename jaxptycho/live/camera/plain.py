"""Our minimal protocol (`io.stream`), of which every new client gets the header first."""

import numpy as np

from ...io.stream import END, Series
from .transport import TcpTransport


class Plain(TcpTransport):
    """Camera that sends the bytes of a recording."""

    def begin(self, series: Series) -> None:
        self.listener.fresh = True

    def send(self, series: Series, numbers: np.ndarray, frames: np.ndarray) -> int:
        if not self._greeted(series):
            return 0
        records = np.empty(len(numbers), series.record)
        records["number"] = numbers
        records["pixels"] = frames
        return len(numbers) if self.listener.send(records.view(np.uint8).data) else 0

    def end(self, series: Series) -> None:
        last = np.zeros(1, series.record)
        last["number"] = END
        if self._greeted(series):
            self.listener.send(last.view(np.uint8).data)

    def _greeted(self, series: Series) -> bool:
        """True once a client has the header of the series."""
        if not self.listener.connected():
            return False
        if self.listener.fresh:
            self.listener.fresh = False
            return self.listener.send(series.header())
        return True
