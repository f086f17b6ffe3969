"""Every benchmark in one go within a time, what matters most first: `all.txt` and `all.json` in a folder.

    python benchmarks/all.py OUT [--minutes 9] [--quick] [--only NAME]… [--data FOLDER] [--peer NAME=PYTHON]…

Wants nothing but Python with the package's dependencies: the package need not be installed, and peers and tests whose
packages are missing say so. Every benchmark is a process of its own, after one another, and has its share of the time at
most; what does not end is stopped and named. FOLDER holds the measured data of `bench_epoch`; peers as for
`bench_packages`. With a GPU the sizes are those published.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from common import HERE, machine

ROOT = HERE.parent


class Job(NamedTuple):
    """A command, and the seconds that it may take."""

    command: list[str]
    seconds: float
    missing: str = ""  # a package that it wants and that is not here


def missing(*packages: str) -> str:
    """The first of the packages that is not installed, or nothing."""
    return next((name for name in packages if importlib.util.find_spec(name) is None), "")


def jobs(args) -> dict[str, Job]:
    """All that is run, in order."""
    device = "cuda" if gpus() else "cpu"
    peers = [f"--peer={peer}" for peer in args.peer]
    names = (
        "kernels/test_pallas_multislice",
        *(f"physics/test_{n}" for n in ("windows", "checkpointed", "waves")),
    )
    tests = [f"tests/{name}.py" for name in names]
    pytest = [
        sys.executable,
        *["-m", "pytest", "-q", "-W", "ignore::DeprecationWarning", "-p", "no:cacheprovider"],
    ]

    def bench(name, seconds, *options, full=(), wants=()):
        chosen = [*options, "--quick"] if args.quick else [*options, *full]
        return Job(
            [sys.executable, str(HERE / f"bench_{name}.py"), *chosen], seconds, missing(*wants)
        )

    shapes = [f"--shape=12,6,{batch}" for batch in (16, 1024, 128)]
    cases = [f"--case=64,128,{slices},{modes}" for slices, modes in ((10, 4), (1, 4), (6, 12))]
    forms = ["--form=torch", "--form=tuned, micro", "--rounds=3"]
    budget = f"--budget={0.5 if args.quick else 2.5}"
    found = {
        "fused": bench("fused", 130, "--rounds=3"),
        "packages": bench("packages", 220, f"--device={device}", budget, *peers, full=shapes),
        "step": bench("step", 80, *forms, full=cases),
        "tilts": bench("tilts", 90, "--rounds=3"),
        "memory": bench("memory", 60, full=["--case=32 128 50 4"]),
        "limits": bench("limits", 90, *peers),
        "precision": bench("precision", 40),
        "loader": bench("loader", 60),
        "scaling": bench("scaling", 240),
        "tests": Job([*pytest, *tests], 120, missing("pytest", "beartype")),
        "lecture": bench("lecture", 60, wants=("torch",)),
        "start": bench("start", 60),
        "acquisition": bench("acquisition", 60, full=["--seeds=2"]),
        "simulate": bench("simulate", 90, wants=("abtem", "ase")),
    }
    if args.data:
        found["epoch"] = bench("epoch", 120, str(args.data.resolve()), *peers)
    return found


def gpus() -> int:
    """How many GPUs JAX sees, asked in a process of its own, whose memory is free again afterwards."""
    script = "import jax; print(len(jax.devices()) if jax.default_backend() == 'gpu' else 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return int(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else 0


def run(job: Job, name: str, left: float, folder: Path) -> dict:
    """What a command printed and wrote, how long it took, and how it ended."""
    if job.missing:
        return {"ended": f"not run, {job.missing} is not installed", "seconds": 0.0, "said": ""}
    if left < 5:
        return {"ended": "not run, the time is up", "seconds": 0.0, "said": ""}
    file, start = folder / f"{name}.json", time.monotonic()
    command = job.command + ([] if name == "tests" else ["--json", str(file)])
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45", "PYTHONUNBUFFERED": "1"} | os.environ
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=said, stderr=said, text=True, start_new_session=True
        )
        try:
            code = process.wait(min(job.seconds, left))
            ended = "ended" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {min(job.seconds, left):.0f} s"
        finally:
            stop(process)
        said.seek(0)
        text = said.read()
    figures = json.loads(file.read_text()) if file.exists() else None
    return {"ended": ended, "seconds": time.monotonic() - start, "said": text, "figures": figures}


def stop(process: subprocess.Popen) -> None:
    """Ends a process and those that it started."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that everything runs"
    )
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = jobs(args)
    unknown = sorted(set(args.only or ()) - set(wanted))
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; known are {', '.join(wanted)}")
    found = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        (args.out / "all.txt").open("w", encoding="utf-8") as log,
    ):
        for name, job in wanted.items():
            if args.only and name not in args.only:
                continue
            found[name] = run(job, name, end - time.monotonic(), Path(folder))
            line = f"== {name}: {found[name]['ended']}, {found[name]['seconds']:.0f} s"
            print(line, found[name]["said"], sep="\n", file=log, flush=True)
            print(line, flush=True)
            (args.out / "all.json").write_text(
                json.dumps(machine() | {"benchmarks": found}, indent=1), encoding="utf-8"
            )


if __name__ == "__main__":
    main()
