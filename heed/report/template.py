"""Filling the templates of the report's pages: everything is escaped that is not marked as safe."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files as package_files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

# HTML has no place for these: control characters, and halves of surrogate pairs, which no encoding can write.
UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def fill(template: str, content: Mapping[str, object]) -> str:
    """Return a page, given the name of its template and what stands in it."""
    page = _environment().get_template(template).render({**content, "style": Markup(_resource("style.css"))})
    return UNWRITABLE.sub("\ufffd", page)


@cache
def _environment() -> Environment:
    loader = FunctionLoader(_resource)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _resource(name: str) -> str:
    return package_files("heed.report").joinpath(name).read_text(encoding="utf-8")
