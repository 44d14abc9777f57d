"""The documentation site: pages in Markdown, API pages from docstrings, tables of settings from the dataclasses."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from tables import fill  # noqa: E402

import rltrain  # noqa: E402

project = "rltrain"
author = "The rltrain developers"
copyright = "The rltrain developers, MIT license"
version = release = re.sub(r"\+.*", "", rltrain.__version__)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures link where there is a page, and only there

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
default_role = "literal"
smartquotes_action = "D"  # dashes; quotes stay straight, as in code

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"rltrain {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp"


def escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let a docstring's shapes, (N, *O), stand as they are."""
    lines[:] = [re.sub(r"(?<![`*\\])\*(?=[A-Z])", r"\\*", line) for line in lines]


def write_math(translator: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers show by themselves: no script, nothing from the network."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def write_math_block(translator: Any, node: Any) -> None:
    """Write a formula on lines of its own."""
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Put tables where pages ask for them with a comment; formulas as MathML."""
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, fill(source[0])))
    app.connect("autodoc-process-docstring", escape, priority=100)  # before napoleon
    app.add_html_math_renderer("mathml", (write_math, None), (write_math_block, None))
