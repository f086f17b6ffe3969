"""Data to try: small sets simulated on the spot, and public archives, by name from a registry.

The registry is a TOML file with a table for each name: `about`, `licence`, the `template` of a job
that suits it, and either `simulate` (the keys of a step), or `url` and `sha256` (a file that pooch
downloads, checks and keeps), or `page` (where people find it).
"""

import shutil
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from .mistakes import mistake_sentence
from .schema import Section, key, suggest
from .simulation import run_simulation
from .steps.simulate import SimulateStep

REGISTRY = "data_to_try.toml"


class Entry(Section):
    """One set of data of a registry."""

    about: str = key("what it is")
    licence: str = key("licence, with whom to name")
    file: str = key("name of its file")
    template: str | None = key("job that suits it", None)
    simulate: dict[str, Any] | None = key("keys of a step `simulate`", None)
    url: str | None = key("address of the file", None)
    sha256: str | None = key("hash of the file", None)
    page: str | None = key("page where it is found", None)

    @model_validator(mode="after")
    def _from_one_place(self):
        if sum(place is not None for place in (self.simulate, self.url, self.page)) != 1:
            raise ValueError("one of simulate, url and page is required")
        if (self.url is None) != (self.sha256 is None):
            raise ValueError("url and sha256 belong together")
        return self


def registry(path: Path | None = None) -> dict[str, Entry]:
    """Entries of a registry by name, by default those of the package."""
    own = resources.files("jaxptycho.jobs") / REGISTRY
    text = (own if path is None else path).read_text(encoding="utf-8")
    try:
        tables = tomllib.loads(text)
        return {name: Entry.model_validate(table) for name, table in tables.items()}
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}; give a registry") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {mistake_sentence(error.errors()[0], Entry)}") from None


def fetch(
    name: str,
    target: Path | None = None,
    registered: Path | None = None,
    progress: Callable[[float], None] = lambda patterns: None,
) -> tuple[Path, Entry]:
    """Write the data of a name to `target`, by default the file of its entry; return both.

    Raises ValueError for an unknown name, and for data that have to be downloaded by hand.
    """
    known = registry(registered)
    if name not in known:
        raise ValueError(f"no data are called {name}; {suggest(name, known)}")
    entry = known[name]
    target = Path(entry.file) if target is None else target
    if target.exists():
        raise FileExistsError(17, "File exists", str(target))
    if entry.page is not None:
        raise ValueError(f"{name} is found at {entry.page} ({entry.licence}); download it there")
    if entry.simulate is not None:
        step = SimulateStep.model_validate({"kind": "simulate"} | entry.simulate)
        run_simulation(step, target, progress)
    else:
        shutil.copy(_downloaded(entry), target)
    return target, entry


def _downloaded(entry: Entry) -> str:
    """File of an archive in the cache, checked."""
    try:
        import pooch
    except ImportError:
        raise ValueError(
            f"{entry.url} is downloaded by pooch, which is not installed: pip install "
            "'jaxptycho[fetch]'"
        ) from None
    assert entry.url is not None  # as an entry requires
    try:
        return pooch.retrieve(
            entry.url, f"sha256:{entry.sha256}", entry.file, pooch.os_cache("jaxptycho")
        )
    except OSError as error:  # of requests: no network, no such file
        line = " ".join(str(error).split())
        raise ValueError(f"{entry.url} could not be downloaded ({line}); try again") from None
