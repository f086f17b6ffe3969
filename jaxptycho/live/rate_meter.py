"""Rate of arriving frames, and the clock of snapshots."""

import time

PERIOD_S = 0.1  # between two snapshots, at least
WINDOW_S = 1.0  # over which a rate is taken


class RateMeter:
    """Frames per second, and whether it is time for another snapshot."""

    def __init__(self):
        self.marks: list[tuple[float, int]] = [(time.monotonic(), 0)]
        self.shown = 0.0

    def add(self, frames: int) -> None:
        """Count frames."""
        now = time.monotonic()
        self.marks.append((now, self.marks[-1][1] + frames))
        while len(self.marks) > 2 and self.marks[1][0] < now - WINDOW_S:
            self.marks.pop(0)

    def rate(self) -> float:
        """Frames per second of the last second."""
        (first, before), (_, after) = self.marks[0], self.marks[-1]
        return (after - before) / max(time.monotonic() - first, 1e-3)

    def due(self) -> bool:
        """True if it is time for a snapshot."""
        now = time.monotonic()
        if now - self.shown < PERIOD_S:
            return False
        self.shown = now
        return True
