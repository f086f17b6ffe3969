"""What the peer scripts share: arguments, two CPU threads, one JSON line, and a stand-in for torchvision."""

import argparse
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import resource
import statistics
import sys
import types


def arguments(description, **defaults):
    """Parsed command line; pins the process to `--threads` cores and sends all chatter to stderr.

    Call it before importing the peer package: thread pools read the limits when they start.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("dataset")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--modes", type=int, default=defaults.get("modes", 1))
    parser.add_argument("--slices", type=int, default=defaults.get("slices", 1))
    parser.add_argument("--batch", type=int, default=defaults["batch"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GB",
        help="what the process may take before it fails, on a CPU",
    )
    for flag, help_text in defaults.get("flags", {}).items():
        parser.add_argument(flag, action="store_true", help=help_text)
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error(
            "--epochs must be 2 or more: the first one holds compilation and is reported apart"
        )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    if args.memory:  # else a batch that does not fit takes the whole machine with it
        most = int(args.memory * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    os.environ.setdefault("MPLBACKEND", "agg")
    args.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return args


def wavelength(voltage_kv):
    """Relativistic wavelength [Å]."""
    energy = voltage_kv * 1e3
    return 12.2643 / (energy * (1 + 0.978476e-6 * energy)) ** 0.5


def report(args, package, seconds, losses):
    """Writes the JSON line: `seconds` and `losses` hold one number per epoch."""
    if len(seconds) != args.epochs or len(losses) != args.epochs:
        sys.exit(
            f"{args.epochs} epochs wanted, {len(seconds)} timed, {len(losses)} losses: the package's hooks have changed"
        )
    line = {
        "package": package,
        "version": importlib.metadata.version(package),
        "dataset": os.path.basename(args.dataset),
        "modes": args.modes,
        "slices": args.slices,
        "batch": args.batch,
        "epochs": args.epochs,
        "seconds_per_epoch_median": statistics.median(seconds[1:]),
        "seconds_first_epoch": seconds[0],
        "loss_first": float(losses[0]),
        "loss_last": float(losses[-1]),
        "peak_bytes": 1024
        * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,  # of the host, on Linux
    }
    print(json.dumps(line), file=args.stdout, flush=True)


def stand_in_for_torchvision():
    """Where torchvision is missing, lets `import torchvision…gaussian_blur` pass; calling it raises.

    Two packages import its Gaussian blur and nothing else; no setting used here blurs.
    """
    if importlib.util.find_spec("torchvision") is not None:
        return

    def absent(*_, **__):
        raise NotImplementedError(
            "this setting needs torchvision's Gaussian blur: install torchvision"
        )

    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        module.GaussianBlur = module.gaussian_blur = absent
        sys.modules[name] = module


def stand_in_for_ptyrad_figures():
    """On Python 3.11 lets PtyRAD import without its figures, whose file uses the f-strings of Python 3.12.

    The script saves no figures, and the package draws none inside an epoch.
    """
    if sys.version_info >= (3, 12):
        return
    for name in ("ptyrad.plotting", "ptyrad.plotting.basic", "ptyrad.plotting.model"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        module.plot_pos_grouping = module.plot_summary = lambda *_, **__: None
        sys.modules[name] = module
