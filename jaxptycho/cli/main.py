"""Command line: `jaxptycho demo | new | run | resume | calibrate | inspect | convert | validate |
compare | halves | export | tune | fetch | list | live | watch | camera | acquire | tracking`.
"""

import json
import sys
import warnings
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .acquisition_verbs import acquire, tracking
from .errors import tidy
from .fetch import fetch_data
from .lists import list_names
from .live_verbs import live_pictures, simulated_camera, watch
from .options import Again, AsJson, Debug, Given, JobFile, Known, Out, RunFile, Settings
from .output import EXIT_CODES, EXPLAINS_LITTLE, EXPLAINS_NOTHING, print_table, run_listener, tell
from .tune import tune_job

app = typer.Typer(
    name="jaxptycho",
    help="Differentiable electron ptychography in JAX: from measured counts to a specimen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class By(Enum):
    """Division of the data into halves."""

    positions = "positions"
    counts = "counts"


def _print_version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        print(f"jaxptycho {version('jaxptycho')}")
        raise typer.Exit
    return asked


@app.callback()
@tidy
def together(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(envvar="JAX_COORDINATOR_ADDRESS", help="Address of process 0, host:port."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            envvar="JAX_NUM_PROCESSES", help="Number of processes (detected under srun and mpirun)."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(envvar="JAX_PROCESS_ID", help="Number of this process, from 0.")
    ] = None,
) -> None:
    """Differentiable electron ptychography in JAX: from measured counts to a reconstructed
    specimen.
    """
    from ..distributed.multihost import join

    join(coordinator, processes, rank)


@app.command()
@tidy
def demo(out: Out = None, debug: Debug = False) -> None:
    """Simulate a small specimen of two layers, reconstruct it and compare."""
    from .demo import run_demo

    run_demo(out or Path("jaxptycho-demo"))


@app.command()
@tidy
def new(
    file: Annotated[
        Path,
        typer.Argument(
            help="Measurement (native HDF5, CXI or of a camera), or phantom to simulate."
        ),
    ],
    out: Out = None,
    template: Annotated[
        str | None, typer.Option(help="Start from a job that suited similar data.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a commented job: for a file, with its metadata filled in, or to simulate a phantom."""
    from ..jobs.new import new_job, new_simulation
    from ..simulate.phantoms import PHANTOMS

    target = out or Path(f"{file.stem}.toml")
    phantom = str(file) in PHANTOMS and template is None
    if template is None and str(file) not in PHANTOMS and not file.exists():
        near = get_close_matches(str(file).lower(), PHANTOMS, 1, 0.55)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"{file} is neither a file nor a phantom; {hint}phantoms are "
            f"{', '.join(sorted(PHANTOMS))}"
        )
    text = new_simulation(str(file), target) if phantom else new_job(file, target, template)
    with target.open("x", encoding="utf-8") as written:
        written.write(text)
    remarks = text.count("\n# warning: ")
    doubts = f"; the calibration's doubts ({remarks}) are at its head" if remarks else ""
    print(f"wrote {target}{doubts}; edit it, then: jaxptycho run {target}")


@app.command()
@tidy
def run(
    job: RunFile,
    out: Out = None,
    settings: Settings = [],  # noqa: B006
    resume: Again = False,
    debug: Debug = False,
) -> None:
    """Run the steps of a job, into a new folder; of a file that it calibrates, without a job."""
    from ..distributed.multihost import all_processes
    from ..jobs import runner
    from ..jobs.changes import warn_of_differences
    from ..jobs.reading import is_job, read_job

    if not is_job(job):
        from .calibrate import reconstruct_file

        tell(reconstruct_file(job, out or Path(job.stem), settings))
        return
    wanted = read_job(job, settings)
    folder = out or Path(wanted.run.out or job.stem)
    if resume and not all_processes(not (folder / "run.toml").exists()):
        warn_of_differences(wanted, folder, settings)
        tell(runner.resume(folder, run_listener(), settings=settings))
        return
    tell(runner.start(wanted, folder, run_listener()))


@app.command("calibrate")
@tidy
def calibrate_file(
    file: Annotated[Path, typer.Argument(help="A measurement.")],
    out: Out = None,
    settings: Known = [],  # noqa: B006
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure camera, optics and orientation of a scan, with errors; pictures in a new folder."""
    from .calibrate import run_calibrate

    run_calibrate(file, out, settings, as_json)


@app.command("resume")
@tidy
def resume_run(
    run: Annotated[Path, typer.Argument(help="The folder of an interrupted run.")],
    settings: Settings = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Go on with an interrupted run, to the result that it would have had, or further: --set
    step.0.epochs=+20.
    """
    from ..jobs.runner import resume as continued

    tell(continued(run, run_listener(), settings=settings))


@app.command()
@tidy
def inspect(
    file: Annotated[
        Path | None, typer.Argument(help="A dataset, a result, a run or a job.")
    ] = None,
    given: Given = [],  # noqa: B006
    system: Annotated[
        bool, typer.Option("--system", help="Devices, memory, kernels in use and versions.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Report what a file holds and what looks wrong with it, or what this system computes with."""
    if file is None and not system:
        raise ValueError(
            "inspect came without a file; give a dataset, result, run or job, or --system"
        )
    tables = {}
    if system:
        from .system import describe_system

        tables["this system"] = describe_system()
    if file is not None:
        from ..jobs.describe import describe
        from .given import given_values

        tables[str(file)] = describe(file, given_values(given))
    if as_json:
        print(json.dumps(tables, indent=1, ensure_ascii=False))
        return
    for title, rows in tables.items():
        print_table(rows, title)


@app.command("convert")
@tidy
def convert_file(
    file: Annotated[Path, typer.Argument(metavar="IN", help="The file of a camera, or CXI.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT.h5", help="A native dataset; never overwritten.")
    ],
    given: Given = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Write a measurement as a native dataset, block by block; started again, it continues."""
    from .convert import run_convert
    from .given import given_values

    run_convert(file, out, given_values(given))


@app.command()
@tidy
def validate(job: JobFile, settings: Settings = [], debug: Debug = False) -> None:  # noqa: B006
    """Check a job against its data without computing, and estimate the memory."""
    from ..jobs.describe import check_job
    from ..jobs.reading import read_job

    print_table(check_job(read_job(job, settings)), f"{job} is valid")


@app.command()
@tidy
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A result or a run.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="B", help="Another of the same specimen.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="The simulated file that they were made from.")
    ] = None,
    out: Out = None,
    debug: Debug = False,
) -> None:
    """Say how well two results agree, or how near they come to the truth."""
    from ..reports.compare import compare_results
    from ..reports.evaluate import evaluate_results
    from ..runs.folder import refuse_existing

    results = [path for path in (first, second) if path is not None]
    title = " and ".join(map(str, results))
    if truth is not None:
        if out is not None:
            refuse_existing(out)
        print_table(evaluate_results(results, truth, out), f"{title} against {truth}")
    elif second is None:
        raise ValueError(
            f"{first} cannot be compared with nothing; give another result, or --truth FILE"
        )
    else:
        print_table(compare_results(first, second, out), title)


@app.command()
@tidy
def halves(
    job: JobFile,
    out: Out = None,
    settings: Settings = [],  # noqa: B006
    by: Annotated[
        By,
        typer.Option(help="Every second shot of a checkerboard, or half of every shot's quanta."),
    ] = By.positions,
    debug: Debug = False,
) -> None:
    """Reconstruct two halves of the data separately: Fourier ring or shell correlation and
    resolution.
    """
    from ..jobs.halves import compare_halves
    from ..jobs.reading import read_job
    from ..runs.progress import screen_listener

    folder = out or Path(f"{job.stem}-halves")
    rows = compare_halves(read_job(job, settings), folder, by.value, screen_listener)
    print_table(rows, f"two halves, in {folder}")


@app.command("export")
@tidy
def export_result(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A result or a run.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Ends in .mrc, .ome.tif, .tif (ImageJ), .hspy, .emd, .zarr, .npy or .png; in .xyz "
            "or .cif for atoms.",
        ),
    ],
    elements: Annotated[str, typer.Option(help="Elements to trace in a volume: Pt,Al,O.")] = "",
    threshold: Annotated[
        float | None, typer.Option(help="Potential in V from which a peak is an atom.")
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            help="phase, amplitude or absorption; probe, probe_amplitude or probe_phase; patterns, "
            "as predicted."
        ),
    ] = "phase",
    full: Annotated[
        bool, typer.Option("--full", help="All of the specimen, not only the scanned area.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write specimen, probe, patterns or atoms of a result for other programs, with pixels and
    places in Å; never overwrites.
    """
    from ..io.exports import export as write_export
    from ..runs.folder import load_result

    model = load_result(result)
    names = [name.strip() for name in elements.split(",") if name.strip()]
    print(f"wrote {file}: {write_export(model, file, names, threshold, what, not full)}")


app.command("tune")(tune_job)
app.command("fetch")(fetch_data)
app.command("list")(list_names)
app.command("live")(live_pictures)
app.command("watch")(watch)
app.command("camera")(simulated_camera)
app.command("acquire")(acquire)
app.command("tracking")(tracking)


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main() -> None:
    """The entry point: JAX is set up before it computes anything."""
    import jax
    import platformdirs

    from ..distributed.multihost import none_left_waiting
    from ..distributed.sharding import one_device_per_core

    one_device_per_core()
    jax.config.update(
        "jax_compilation_cache_dir", str(platformdirs.user_cache_path("jaxptycho") / "compiled")
    )
    # many small programs make a slow start
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    warnings.showwarning = _warn
    with none_left_waiting(orderly=(0, EXPLAINS_NOTHING, EXPLAINS_LITTLE, *EXIT_CODES.values())):
        app()
