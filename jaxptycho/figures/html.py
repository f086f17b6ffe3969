"""Tables and figures as HTML, for notebooks."""

import base64
import html
import io
from collections.abc import Mapping

from matplotlib.figure import Figure


def html_of(content: Mapping[str, str] | str, figure: Figure | None = None) -> str:
    """Table of names and values, or text, with a figure below."""
    if isinstance(content, str):
        text = f"<pre>{html.escape(content)}</pre>"
    else:
        pairs = ((html.escape(name), html.escape(value)) for name, value in content.items())
        rows = (f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in pairs)
        text = f"<table>{''.join(rows)}</table>"
    return text if figure is None else text + image_of(figure)


def image_of(figure: Figure) -> str:
    """Figure as an image element."""
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=100)
        encoded = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{encoded}"/>'
