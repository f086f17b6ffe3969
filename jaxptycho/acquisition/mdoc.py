"""Metadata of tilt series (.mdoc of SerialEM), as AreTomo, Warp, IMOD and RELION read them.

Header, titles and one section per image, all values as text: what is read is written unchanged.
Format: bio3d.colorado.edu/SerialEM/hlp/html/about_formats.htm
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..io.atomic_write import atomic_path

SECTION = re.compile(r"^\[(ZValue|FrameSet) = (.*?)\]\s*$")
TITLE = re.compile(r"^\[(T = .*?)\]\s*$")
PAIR = re.compile(r"^(\w+) = ?(.*?)\s*$")
TIMES = ("%d-%b-%Y %H:%M:%S", "%d-%b-%y %H:%M:%S", "%Y-%m-%d %H:%M:%S")  # of `DateTime`


@dataclass(frozen=True)
class Mdoc:
    """Keys of the series, titles (`T = …`), and the keys of every image, in the order of the file.

    The number of an image is its key `ZValue`.
    """

    header: dict[str, str] = field(default_factory=dict)
    titles: tuple[str, ...] = ()
    images: tuple[dict[str, str], ...] = ()

    def numbers(self, key: str, count: int = 1) -> Float[np.ndarray, "image {count}"]:
        """Values of a key with `count` numbers, NaN in images that lack it."""
        rows = [_numbers(image.get(key, ""), count) for image in self.images]
        return np.array(rows, float).reshape(-1, count)

    def seconds(self) -> Float[np.ndarray, " image"]:
        """Times of all images after the earliest [s], NaN where none was recorded."""
        times = [_time(image.get("DateTime", "")) for image in self.images]
        known = [time for time in times if time is not None]
        return np.array(
            [np.nan if time is None else (time - min(known)).total_seconds() for time in times]
        )


def read_mdoc(path: str | Path) -> Mdoc:
    """Read an `.mdoc`. ValueError if it has no image."""
    mdoc = parse_mdoc(Path(path).read_text(encoding="utf-8", errors="replace"))
    if not mdoc.images:
        raise ValueError(
            f"{path} has no image; a text file with sections [ZValue = n], each with a key "
            "TiltAngle, is required"
        )
    return mdoc


def parse_mdoc(text: str) -> Mdoc:
    """Metadata of the text of an `.mdoc`; lines that are no `key = value` are left out."""
    header: dict[str, str] = {}
    titles: list[str] = []
    images: list[dict[str, str]] = []
    for line in text.splitlines():
        if section := SECTION.match(line):
            images.append({section[1]: section[2]})
        elif title := TITLE.match(line):
            titles.append(title[1])
        elif pair := PAIR.match(line):
            (images[-1] if images else header)[pair[1]] = pair[2]
    return Mdoc(header, tuple(titles), tuple(images))


def mdoc_text(mdoc: Mdoc) -> str:
    """Text of an `.mdoc`, which `parse_mdoc` reads as the same."""
    blocks = [list(_lines(mdoc.header)), *([f"[{title}]"] for title in mdoc.titles)]
    for image in mdoc.images:
        (kind, number), *rest = image.items()
        blocks.append([f"[{kind} = {number}]", *_lines(dict(rest))])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def write_mdoc(path: str | Path, mdoc: Mdoc) -> None:
    """Write an `.mdoc`, replacing an earlier one of the same series as a whole."""
    with atomic_path(path, overwrite=True) as draft:
        draft.write_text(mdoc_text(mdoc), encoding="utf-8")


def date_time(time: datetime) -> str:
    """Time as the value of `DateTime`: 01-Dec-2026  14:05:09."""
    return time.strftime("%d-%b-%Y  %H:%M:%S")


def _lines(pairs: Mapping[str, str]) -> Iterator[str]:
    return (f"{key} = {value}" for key, value in pairs.items())


def _numbers(text: str, count: int) -> list[float]:
    """As many numbers as are required, or NaN."""
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    return values if len(values) == count else [np.nan] * count


def _time(text: str) -> datetime | None:
    for form in TIMES:
        try:
            return datetime.strptime(" ".join(text.split()), form)
        except ValueError:
            continue
    return None
