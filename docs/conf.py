"""The documentation: `sphinx-build -W docs OUT`."""

import re
import sys
from pathlib import Path

JOINED = "\\ "  # marks stand beside other signs only if so escaped
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import job_keys  # noqa: E402

project = "jaxptycho"
author = "the authors of jaxptycho"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = "jaxptycho"
exclude_patterns = ["README.md"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository beside docs/
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False

(HERE / "reference" / "job_keys.md").write_text(job_keys.job_keys(), encoding="utf-8")


def plain_text(app, what, name, obj, options, lines):
    """Docstrings of the package are plain text in which only `code` is marked."""
    if lines and lines[0].startswith(f"{name.rpartition('.')[2]}("):
        lines.clear()  # a signature that a dataclass invents
    parts = re.split(r"(`[^`]+`)", "\n".join(lines))
    marked = (
        f"{JOINED}`{part}`{JOINED}" if part.startswith("`") else re.sub(r"([*|_\\])", r"\\\1", part)
        for part in parts
    )
    text = re.sub(rf"(?<=\s){re.escape(JOINED)}|^{re.escape(JOINED)}", "", "".join(marked))
    lines[:] = text.split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", plain_text)
