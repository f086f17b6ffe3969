"""Jobs that come with the package."""

from importlib import resources
from pathlib import Path

from .schema import suggest


def templates() -> list[str]:
    """Names of the jobs that come with the package."""
    folder = resources.files("jaxptycho.jobs") / "templates"
    names = (entry.name for entry in folder.iterdir())
    return sorted(Path(name).stem for name in names if name.endswith(".toml"))


def template_text(name: str) -> str:
    """The job file of a template."""
    if name not in templates():
        raise ValueError(f"no template is called {name}; {suggest(name, templates())}")
    file = resources.files("jaxptycho.jobs") / "templates" / f"{name}.toml"
    return file.read_text(encoding="utf-8")
