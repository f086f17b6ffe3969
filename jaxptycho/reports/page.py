"""Pages for a browser, each one file with all pictures in it."""

import base64
import html
from collections.abc import Iterable, Mapping
from pathlib import Path

STYLE = """body { font-family: sans-serif; margin: 2em; max-width: 75em }
th { text-align: left; font-weight: normal; padding-right: 2em; vertical-align: top }
td { padding-right: 2em } img { max-width: 100% } .warning { color: #a00 }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto }"""


def page(title: str, *parts: str) -> str:
    """Page of a title and parts of HTML."""
    head = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title>\n<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
    )
    return "\n".join((head, *(part for part in parts if part), "</body></html>"))


def heading(text: str) -> str:
    """Heading of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraphs(lines: Iterable[str], warning: bool = False) -> str:
    """A paragraph of each line, in red for a `warning`."""
    opening = '<p class="warning">' if warning else "<p>"
    return "\n".join(f"{opening}{html.escape(line)}</p>" for line in lines)


def html_rows(rows: Mapping[str, str | tuple[str, ...]]) -> str:
    """Table of a name and one or several values in each row."""
    cells = (
        (name, (values,) if isinstance(values, str) else values) for name, values in rows.items()
    )
    made = (
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(value)}</td>" for value in values)
        + "</tr>"
        for name, values in cells
    )
    return f"<table>{''.join(made)}</table>"


def fold_away(title: str, text: str) -> str:
    """Text as it is written, which a click on its title shows."""
    return (
        f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"
    )


def picture_of(path: Path) -> str:
    """The PNG file `path` as an image."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(path.stem)}"/>'
