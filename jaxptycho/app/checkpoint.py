"""Checkpoints: all that a run needs to go on as if nothing had happened.

Arrays lie in an HDF5 file, the rest in a JSON file of the same name, which is written last: a
checkpoint without it was cut short and does not count.
"""

import json
from pathlib import Path

from ..io.drafts import drafted
from ..io.results import load_state, save_state
from .loop import Loop, Progress, Row

KEPT = 2


def write_checkpoint(folder: Path, progress: Progress) -> None:
    """A new checkpoint in `folder`; the last two are kept."""
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch_{len(progress.history):05d}_batch_{len(progress.losses):05d}.json"
    save_state(path.with_suffix(".h5"), {"model": progress.model, "state": progress.state}, overwrite=True)
    rest = {name: getattr(progress, name) for name in ("stage", "epoch", "losses", "seconds", "history")}
    with drafted(path, overwrite=True) as draft:
        draft.write_text(json.dumps(rest), encoding="utf-8")
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink()
        old.with_suffix(".h5").unlink(missing_ok=True)


def read_checkpoint(folder: Path, loop: Loop) -> Progress:
    """The last checkpoint in `folder`, or the beginning if there is none yet."""
    complete = sorted(folder.glob("*.json"))
    if not complete:
        return Progress(loop.first_model())
    rest = json.loads(complete[-1].read_text(encoding="utf-8"))
    rest["history"] = [Row(*row) for row in rest["history"]]
    rest["losses"] = [tuple(pair) for pair in rest["losses"]]
    model = loop.first_model(rest["stage"])
    like = {"model": model, "state": loop.first_state(rest["stage"], model)}
    return Progress(**load_state(complete[-1].with_suffix(".h5"), like), **rest)
