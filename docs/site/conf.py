"""The course as a web site (`make site`): README, lessons with their outputs, docs. Nothing is run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = html_title = "qwen2lite"
root_doc = "README"
extensions = ["myst_nb", "pages", "formulas"]
include_patterns = ["README.md", "notebooks/*.ipynb", "docs/**.md", "data/README.md"]
exclude_patterns = [".*", "build", "site", "work", "my_qwen2"]  # large, and no page is in them

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "drawn"
nb_execution_mode = "off"
nb_output_stderr = "remove"  # bars of progress

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_search_summary = False  # a browser reads no second page from a folder
html_copy_source = html_use_index = html_show_copyright = False
pygments_style, pygments_dark_style = "a11y-light", "github-dark"
# The lessons' cards and bubbles ask for JupyterLab's colours.
_COLOURS = {
    "jp-content-font-color1": "var(--color-foreground-primary)",
    "jp-ui-font-color1": "var(--color-foreground-primary)",
    "jp-ui-font-color2": "var(--color-foreground-secondary)",
}
html_theme_options = {
    "light_css_variables": _COLOURS
    | {"jp-error-color1": "#c62828", "jp-success-color1": "#2e7d32"},
    "dark_css_variables": _COLOURS | {"jp-error-color1": "#ef7070", "jp-success-color1": "#81c784"},
}
