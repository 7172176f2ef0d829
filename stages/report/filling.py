"""Pages from templates."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent


def fill(template: str, **values: Any) -> str:
    """The template with these values in it, every text escaped; one that it asks for and isn't there is an error."""
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, TEMPLATES.parent / "tools"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(values).lstrip()
