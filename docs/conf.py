"""Configuration of the documentation: ``sphinx-build -W docs docs/_build``."""

import skae

project = "skae"
author = "skae developers"
copyright = "2026, skae developers"
version = release = skae.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.extlinks", "numpydoc", "sphinx_gallery.gen_gallery"]
default_role = "literal"
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
numpydoc_show_class_members = False
sphinx_gallery_conf = {"examples_dirs": "../examples", "gallery_dirs": "auto_examples"}
