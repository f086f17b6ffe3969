"""The verb `fetch`: data to try, by name."""

from pathlib import Path
from typing import Annotated

import typer

from .errors import tidy
from .options import Debug, Out


@tidy
def fetch_data(
    name: Annotated[str, typer.Argument(help="A name of `jaxptycho list data`.")],
    out: Out = None,
    registry: Annotated[
        Path | None, typer.Option(help="TOML file with names, addresses and hashes of yours.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Simulate or download a small measurement to try, with its licence and a job that suits it."""
    from ..jobs.fetch import fetch

    file, entry = fetch(name, out, registry)
    print(f"wrote {file}: {entry.about} ({entry.licence})")
    template = f" --template {entry.template}" if entry.template else ""
    print(f"next: jaxptycho new {file}{template}")
