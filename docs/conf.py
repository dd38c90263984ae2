"""Configuration of the documentation: ``sphinx-build -W docs docs/_build``."""

import importlib.util

import skae

project = "skae"
author = "skae developers"
copyright = "2026, skae developers"
version = release = skae.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.extlinks",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
default_role = "literal"
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "skae"
html_static_path = ["_static"]
html_css_files = ["skae.css"]
html_sidebars = dict.fromkeys(("index", "api", "benchmarks", "architecture"), [])
html_theme_options = {
    "secondary_sidebar_items": {"**": ["page-toc"], "index": [], "benchmarks": []},
    "navbar_align": "left",
    "footer_end": [],
}
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
numpydoc_show_class_members = False
# The package of the series does not allow the newest releases of others: without it, its example is shown, but not run.
RUN = "plot_" if importlib.util.find_spec("aeon") else "plot_(?!series)"
# The page of computation times would fetch its table from the network.
sphinx_gallery_conf = {
    "filename_pattern": RUN,
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "write_computation_times": False,
    "parallel": 2,
    # Not by length, which would leave the longest for the end, alone.
    "within_subsection_order": "FileNameSortKey",
}
