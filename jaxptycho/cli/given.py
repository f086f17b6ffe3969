"""Values that options `--set KEY=VALUE` give beside the file of a camera."""

from collections.abc import Sequence
from typing import Any

from ..io.readers.completion import PLACES
from ..jobs.reading import setting_value

OF_JOBS = {place: name for name, place in PLACES.items()}  # keys of a job and of `read`


def given_values(settings: Sequence[str]) -> dict[str, Any]:
    """Keywords of `read` from texts KEY=VALUE, with values as in TOML, or plain text.

    A key may also be that of a job, such as scan.shape.
    """
    known = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"--set {setting}: KEY=VALUE is expected, as in step_angstrom=0.4")
        known[OF_JOBS.get(name, name.removeprefix("data."))] = setting_value(text.strip())
    return known
