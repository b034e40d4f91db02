"""The site's configuration for Sphinx. `nox -s docs` builds the site without a network; warnings are errors there.

The API pages are made from the docstrings of the installed package, which are completed when it is imported.
"""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import roles
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import fastkl

MODULES = ("fastkl", "fastkl.capi", "fastkl.compat.scipy", "fastkl.compat.sklearn", "fastkl.compat.torch")
PUBLIC = {f"{module}.{name}" for module in MODULES for name in import_module(module).__all__}
SITE = "https://fastkl.github.io/fastkl/"

project = "fastkl"
author = "fastkl developers"
project_copyright = "fastkl developers, BSD-3-Clause licence"
version = release = fastkl.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build", "plots"]
templates_path = ["_templates"]
nitpicky = True
smartquotes = False

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 4

# A page a public name. The types of parameters are in the docstrings, written out; the annotations have aliases.
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "backticks"

html_theme = "pydata_sphinx_theme"
html_title = f"fastkl {version}"
html_baseurl = SITE
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "fastkl"},
    "github_url": "https://github.com/fastkl/fastkl",
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
html_sidebars = {"index": []}


class CommandHelp(SphinxDirective):
    """The arguments of a command of fastkl, as it prints them for --help: `{command-help} score`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a list of arguments for each of the groups, below its title."""
        verb = self.arguments[0]
        environment = os.environ | {"COLUMNS": "1000", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
        command = [sys.executable, "-P", "-m", "fastkl", verb, "--help"]
        text = subprocess.run(command, env=environment, check=True, capture_output=True, encoding="utf-8").stdout
        found: list[nodes.Node] = []
        for line in re.sub(r"\n {4,}", "  ", text).splitlines()[1:]:  # An argument has a line; the first is the usage.
            argument = re.fullmatch(r"  (\S.*?)  +(\S.*)", line)
            if argument and not isinstance(found[-1], nodes.definition_list):
                found.append(nodes.definition_list())
            if argument:
                name = nodes.make_id(f"{verb} {argument[1].split()[0]}")
                term = nodes.term("", "", nodes.literal("", argument[1]), ids=[name])
                found[-1] += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", argument[2])))
            elif line.endswith(":"):
                found.append(nodes.rubric("", line[0].upper() + line[1:-1]))
            elif line:
                found.append(nodes.paragraph("", f"{line.strip()}."))
        return found


def draw(_: Sphinx) -> None:
    """Draw the pictures."""
    sys.path.insert(0, str(Path(__file__).parent / "plots"))
    import_module("draw").draw_all()


def backticks(name, rawtext, text, lineno, inliner, options=None, content=()):
    """Single backticks in a docstring: a public name is a link to its page, and all else is code."""
    module = inliner.document.settings.env.ref_context.get("py:module", "fastkl")
    for full in f"{module}.{text}", f"fastkl.{text}", text:
        if full in PUBLIC:
            role, _ = roles.role("py:obj", inliner.language, lineno, inliner.reporter)
            return role("py:obj", rawtext, f"{text} <{full}>", lineno, inliner, options or {}, content)
    return [nodes.literal(rawtext, text)], []


def bars(_: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make bars in docstrings those of absolute values, not of substitutions."""
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else line.replace("|", r"\|") for line in lines]


def own_pages(app: Sphinx, path: Path, _: str, content: list[str]) -> None:
    """Make the README's addresses of the site links to its pages, and leave out its badges, which load pictures."""
    if path.name != "README.md":
        return

    def page(match: re.Match[str]) -> str:
        name = match[1] or "index"
        return f"]({name}{'.md' if Path(app.srcdir, f'{name}.md').exists() else '.rst'}"

    text = re.sub(r"^\[!\[.*\n", "", content[0], flags=re.MULTILINE)
    content[0] = re.sub(rf"\]\({SITE}(?:([\w./-]*)\.html)?", page, text)


def setup(app: Sphinx) -> None:
    """Add what only this site has."""
    roles.register_local_role("backticks", backticks)
    app.add_directive("command-help", CommandHelp)
    app.connect("builder-inited", draw)
    app.connect("include-read", own_pages)
    app.connect("autodoc-process-docstring", bars, priority=600)  # after numpydoc
