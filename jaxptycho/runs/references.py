"""Kinds that a job names as `module:function`, from the job's own folder or installed."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any


def is_reference(kind: str) -> bool:
    """True if a kind is `module:function` and no name of a registry."""
    return ":" in kind


def absolute(reference: str, folder: Path) -> str:
    """The reference with the path of its module, where a file of `folder` is that module.

    `blobs:make` becomes `/path/of/the/job/blobs.py:make`, so that a run finds it from elsewhere.
    """
    module, _, name = reference.rpartition(":")
    file = folder / (module if module.endswith(".py") else f"{module.replace('.', '/')}.py")
    return f"{file.resolve()}:{name}" if file.exists() else reference


def resolve(reference: str) -> Callable[..., Any]:
    """The function or class of `module:name` or `/path/module.py:name`; names may have dots."""
    module, _, name = reference.rpartition(":")
    if not module or not name:
        raise ValueError(f"{reference!r} is no reference; give module:function, as in blobs:make")
    try:
        found = reduce(getattr, name.split("."), _imported(module))
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{reference} cannot be imported ({error}); put {module}.py beside the job, or "
            "install its package"
        ) from error
    except AttributeError as error:
        raise ValueError(
            f"{module} holds no {name}; name a function or class that it has"
        ) from error
    if not callable(found):
        raise ValueError(f"{reference} is a {type(found).__name__}; name a function or class")
    return found


def _imported(module: str):
    if not module.endswith(".py"):
        return importlib.import_module(module)
    path = Path(module)
    known = sys.modules.get(path.stem)
    if known is not None and _same_file(known, path):
        return known
    if known is not None:
        raise ValueError(f"{path} has the name of the module {path.stem}; give the file another")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ValueError(f"{path} does not exist; the job names it as a kind")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return loaded


def _same_file(module, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path.resolve()
