"""Measured positions that come beside the frames, and later than these: joined by number.

Lines of text `number y x` (from 0; Å), in a file that grows or from a TCP port. Lines behind
`# series NAME` belong to the series of that name, those before any such line to the running one.
"""

import socket
import threading
import time
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float

from .sources.address import Address, parse_address

NAMED = "# series "
POLL = 0.05  # s
PORT_S = 5.0  # within which a port has to answer


class LatePositions:
    """Positions of a source as they come; `fault` is a sentence once it has failed.

    `address` is `tcp://HOST:PORT` or a file. Raises ValueError for anything else, and for a port
    that does not answer.
    """

    def __init__(self, address: str):
        self.address = parse_address(address)
        if self.address.scheme not in ("tcp", "file"):
            raise ValueError(
                f"positions come from a file or tcp://HOST:PORT, and {address} was given"
            )
        self.fault = ""
        self.changes = 0
        self._named: str | None = None
        self._rows: dict[str | None, dict[int, tuple[float, float]]] = {}
        self._running: str | None = None
        self._copy: TextIO | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        link = self._connected() if self.address.scheme == "tcp" else None
        self._thread = threading.Thread(target=self._follow, args=(link,), daemon=True)
        self._thread.start()

    def begin(self, series: str, copy: Path) -> None:
        """A series runs, whose positions are copied to the file `copy`."""
        with self._lock:
            self._end()
            self._running = series
            self._rows[series] = self._rows.pop(None, {}) | self._rows.get(series, {})
            self._copy = copy.open("w", encoding="utf-8")
            self._write(self._rows[series])

    def of(self, series: str, frames: int) -> Float[np.ndarray, "frame 2"]:
        """Positions (y, x) [Å] of the frames of a series, NaN where none has come."""
        found = np.full((frames, 2), np.nan)
        with self._lock:
            rows = self._rows.get(series, {})
            inside = [(number, place) for number, place in rows.items() if 0 <= number < frames]
        if inside:
            found[[number for number, _ in inside]] = [place for _, place in inside]
        return found

    def close(self) -> None:
        """End of all series."""
        self._closing.set()
        self._thread.join()
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._copy is not None:
            self._copy.close()
        self._copy = None

    def _connected(self) -> socket.socket:
        try:
            return socket.create_connection((self.address.host, self.address.port), PORT_S)
        except OSError as error:
            raise ValueError(
                f"no positions at {self.address} ({error.strerror or error}); check host and port"
            ) from None

    def _follow(self, link: socket.socket | None) -> None:
        try:
            pending = ""
            for text in _port(link, self._closing) if link else _file(self.address, self._closing):
                *lines, pending = (pending + text).split("\n")
                if lines:
                    self._take(lines)
        except (OSError, ValueError) as error:
            self.fault = f"positions of {self.address} have ended: {error}"

    def _take(self, lines: list[str]) -> None:
        with self._lock:
            new: dict[int, tuple[float, float]] = {}
            for line in lines:
                if line.startswith(NAMED):
                    self._add(new)
                    new = {}
                    self._named = line.removeprefix(NAMED).strip()
                elif line.strip() and not line.startswith("#"):
                    new |= _parsed(line)
            self._add(new)
            self.changes += 1

    def _add(self, new: dict[int, tuple[float, float]]) -> None:
        series = self._running if self._named is None else self._named
        self._rows.setdefault(series, {}).update(new)
        if series == self._running and self._copy is not None:
            self._write(new)

    def _write(self, rows: dict[int, tuple[float, float]]) -> None:
        assert self._copy is not None
        self._copy.writelines(f"{number} {y!r} {x!r}\n" for number, (y, x) in rows.items())
        self._copy.flush()


def _parsed(line: str) -> dict[int, tuple[float, float]]:
    try:
        number, y, x = line.replace(",", " ").split()
        place = float(y), float(x)
        if not np.isfinite(place).all():
            raise ValueError
        return {int(number): place}
    except ValueError:
        raise ValueError(
            f"{line[:60]!r} is no position; a line of number, y, x (Å) is required"
        ) from None


def _port(link: socket.socket, closing: threading.Event):
    link.settimeout(POLL)
    with link:
        while not closing.is_set():
            try:
                received = link.recv(2**16)
            except TimeoutError:
                continue
            if not received:
                return
            yield received.decode("utf-8", "replace")


def _file(address: Address, closing: threading.Event):
    path = Path(address.host)
    while not path.exists() and not closing.is_set():
        time.sleep(POLL)
    if closing.is_set():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        while not closing.is_set():
            text = file.read(2**16)
            if text:
                yield text
            else:
                closing.wait(POLL)
