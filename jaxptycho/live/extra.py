"""Packages of the extra `[live]`, named in one sentence where they are missing."""

from importlib import import_module
from types import ModuleType


def require_extra(module: str, purpose: str) -> ModuleType:
    """A module of the extra; ValueError that names it where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise ValueError(
            f"{purpose} requires {module.partition('.')[0]}, which is not installed; "
            "pip install 'jaxptycho[live]'"
        ) from None
