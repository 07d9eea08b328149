"""Sphinx's settings; `tools.site` writes the sources and gives what differs from build to build."""

import re

import latex2mathml.converter
from docutils import nodes

project = "Explainable speech emotion recognition"
html_title = project
author = "The SER companion authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
html_theme = "furo"
html_css_files = ["style.css"]
html_static_path = ["assets/style.css"]
html_extra_path = ["../files"]  # copied as they are
exclude_patterns = ["notebooks/source/*"]  # to be downloaded
html_favicon = "assets/icon.svg"
templates_path = ["templates"]

# pages and notebooks: markup inside a text is shown, not obeyed
myst_enable_extensions = ["dollarmath", "strikethrough"]
myst_disable_syntax = ["html_block", "html_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "off"
nb_merge_streams = True
suppress_warnings = ["myst.strikethrough", "mystnb.unknown_mime_type"]

# the package
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
    "ignore-module-all": True,
    "exclude-members": "set_fit_request, set_transform_request",  # scikit-learn's own
}
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # of Keras, in another markup
autodoc_preserve_defaults = True
add_module_names = False
default_role = "py:obj"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# opened from a folder, where a page may fetch nothing
html_show_search_summary = False
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "navigation_with_keys": False,  # the explorer has keys of its own
    "light_css_variables": {"color-brand-primary": "#0b5d8a", "color-brand-content": "#0b5d8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
}


def formula(tex: str, display: str) -> str:
    """TeX as MathML, which browsers draw themselves: no script and no fonts are loaded."""
    return latex2mathml.converter.convert(tex, display=display)


def write_inline(translator, node):
    translator.body.append(formula(node.astext(), "inline"))
    raise nodes.SkipNode


def write_block(translator, node):
    translator.body.append(formula(node.astext(), "block"))
    raise nodes.SkipNode


def escape(app, what, name, documented, options, lines):
    """Take what docstrings say of |x|, *axes and names_ as it stands: backticks are all their markup."""
    lines[:] = [re.sub(r"[|*]|(?<=\w)_(?=[^\w`]|$)", r"\\\g<0>", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", escape, priority=100)  # before numpydoc
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))


html_math_renderer = "mathml"
