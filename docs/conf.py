"""How the documentation is built: uv run --extra docs sphinx-build -W --keep-going -b html docs docs/_build/html"""

import dataclasses
import inspect
import itertools
import os
import pathlib
import re
import sys
import typing
from importlib import metadata
from typing import Any

DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
typing.GENERATING_DOCUMENTATION = "jaxgen"  # jaxtyping then prints shapes; before jaxgen is imported

import pages  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.pycode import ModuleAnalyzer  # noqa: E402

pages.write(DOCS)

project = "jaxgen"
version = release = metadata.version("jaxgen")
project_copyright = ""
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

highlight_language = "text"  # blocks without a language are commands and folders
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are kept with what they computed
nb_ipywidgets_js = {}  # nothing is read from a network

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "member-order": "bysource",
    "special-members": "__call__",
}
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_title = f"jaxgen {version}"
html_static_path = ["_static"]
html_css_files = ["jaxgen.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_dark_style = "github-dark"

# What Python says of members that have no docstring of their own.
EMPTY = ("Call self as a function.", "Alias for field number", "Returns a new object replacing")


def skip(app: Sphinx, what: str, name: str, member: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out methods without a docstring, which their Protocol has; calls of nets stay, for their shapes."""
    if what == "class" and inspect.isfunction(member) and name != "__call__":
        return True if (member.__doc__ or EMPTY[0]).startswith(EMPTY) else None
    return None


def signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str | None, returns: str
) -> tuple[str, None] | None:
    """Leave the arguments of classes to their fields, which are listed with types and defaults."""
    own = "__init__" in vars(obj) and not getattr(obj, "_is_protocol", False) if what == "class" else True
    if arguments and (not own or dataclasses.is_dataclass(obj)):
        return "", None
    return None


def docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring, plain text with `names` and indented formulas, into reStructuredText."""
    text = "\n".join(lines).strip("\n")
    text = "" if text.startswith(EMPTY) else text
    lines[:] = [*"\n\n".join(map(_paragraph, text.split("\n\n"))).split("\n"), ""]


def _paragraph(text: str) -> str:
    """Escape what has a meaning in reStructuredText; lines that are indented by four, or all, are a literal block."""
    rows = text.split("\n")
    indent = "  " if all(row.startswith("  ") for row in rows) else "    "
    parts = []
    for literal, group in itertools.groupby(rows, lambda row: row.startswith(indent)):
        block = "\n".join(group)
        parts.append(f"::\n\n{block}" if literal else _escaped(block))
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(f"`{part}`" if part[:1] == "`" else re.sub(r"([*|\\]|_\b)", r"\\\1", part) for part in parts)


def comments(app: Sphinx) -> None:
    """Let the comment behind a field or a type alias be its description."""
    for name in pages.modules():
        analyzer = ModuleAnalyzer.for_module(name)
        analyzer.analyze()
        for key, text in pages.comments(name).items():
            analyzer.attr_docs.setdefault(key, [text, ""])


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", comments)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", docstring)
