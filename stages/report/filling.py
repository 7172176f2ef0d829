"""Pages and cards from templates."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

TEMPLATES = Path(__file__).parent


def fill(template: str, **values: Any) -> str:
    """The template with these values in it; one that it asks for and isn't there is an error.

    In HTML every text is escaped. In Markdown the filter `cell` keeps a text in its cell of a table.
    """
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, TEMPLATES.parent / "tools"]),
        autoescape=select_autoescape(disabled_extensions=("md.jinja",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["cell"] = cell
    return environment.get_template(template).render(values).lstrip()


def cell(value: Any) -> str:
    """A text that is neither markup nor the end of a cell."""
    return " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
