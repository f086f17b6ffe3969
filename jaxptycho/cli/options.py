"""Options and arguments that several verbs of the command line share."""

from pathlib import Path
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder or file to write; never overwritten.")
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the job, such as step.0.epochs=5."
    ),
]
Known = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Give what the file does not, by the keys of a job: data.voltage_kv=300, "
        "probe.semiangle_mrad=21, scan.step_angstrom=0.4.",
    ),
]
Given = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Give what the file of a camera does not, such as step_angstrom=0.4.",
    ),
]
Again = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run if the folder is one, changed by --set only."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print values for scripts, and nothing else.")]
RunFile = Annotated[
    Path,
    typer.Argument(
        metavar="JOB.toml|FILE", help="A job, or a measurement, which is calibrated first."
    ),
]
JobFile = Annotated[
    Path, typer.Argument(metavar="JOB.toml", help="A job; `jaxptycho new` writes one.")
]
