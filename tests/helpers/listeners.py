"""Listeners of a run that ask it to stop, or keep what it says."""

from jaxptycho.runs.progress import ProgressListener


class AfterViews(ProgressListener):
    """Asks to stop once so many views are done."""

    def __init__(self, views: int):
        self.left = views

    def say(self, text: str) -> None:
        self.left -= text.startswith("view ")

    def stop(self) -> str | None:
        return "enough" if self.left <= 0 else None


class AfterEpochs(ProgressListener):
    """Asks to stop once so many epochs are done."""

    def __init__(self, epochs: int):
        self.left = epochs

    def epoch(self, row) -> None:
        self.left -= 1

    def stop(self) -> str | None:
        return "enough" if self.left <= 0 else None


class Said(ProgressListener):
    """Keeps the lines that a run says."""

    def __init__(self):
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
