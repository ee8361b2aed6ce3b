"""How Sphinx builds these pages: `./run docs`."""

from __future__ import annotations

import harness

project = "nft-harness"
author = "the nft-harness authors"
release = harness.__version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "nft-harness"
html_show_copyright = False

# A link to a heading is one that the page has: `[…](scenarios.md#the-file)`.
myst_heading_anchors = 4
nitpicky = True
