"""What differs between a page of the site and its file in the repository."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

PARTS = (
    *("Start", "Text", "Model", "Weights and inference", "Training", "Long context", "Experts"),
    *("Alignment and evaluation", "Speed", "Capstone"),
)
WIDGET = "application/vnd.jupyter.widget-view+json"
PROGRESS = re.compile(r"\d%\|")
LINK = re.compile(r"\]\(([\w./-]+)\)")  # to a file: an address has a colon


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", put_aside, priority=900)  # after MyST-NB has its configuration
    app.connect("source-read", adapt)
    app.connect("build-finished", open_at_the_readme)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def put_aside(app: Sphinx) -> None:
    """MyST-NB's working files go where Sphinx's are, not beside the site."""
    aside = str(Path(app.doctreedir) / "notebooks")
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=aside)


def adapt(app: Sphinx, page: str, source: list[str]) -> None:
    here = Path(app.env.doc2path(page)).parent

    def follow(link: re.Match[str]) -> str:
        """A file that is no page is offered for download."""
        target = here / link[1]
        if not target.is_file() or app.project.path2doc(target.resolve()) in app.project.docnames:
            return link[0]
        note = " (a download, for JupyterLab)" if target.suffix == ".ipynb" else ""
        return f"](path:{link[1]}){note}"

    source[0] = LINK.sub(follow, source[0])
    if page.startswith("notebooks/"):
        source[0] = json.dumps(without_widgets(json.loads(source[0]), page))
    if page == app.config.root_doc:
        source[0] += contents(Path(app.srcdir))


def without_widgets(lesson: dict[str, Any], page: str) -> dict[str, Any]:
    """A widget needs a kernel: in its place stands what to do. A bar of progress just goes."""
    for cell in lesson["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None):
                output["data"] = {"text/html": instead("".join(data["text/plain"]), page)}
    return lesson


def instead(plain: str, page: str) -> str:
    if PROGRESS.search(plain):
        return ""
    use = "use the sliders and menus" if plain.startswith("interactive(") else "talk with the model"
    return f"<p class='explorer'>Open {page}.ipynb in JupyterLab to {use}.</p>"


def contents(root: Path) -> str:
    """The side bar. A part of the course is a digit, the first of its lessons' names."""
    parts = {f"{n} {part}": f"notebooks/{n}*.ipynb" for n, part in enumerate(PARTS)}
    parts |= {"Documents": "docs/*.md", "Data": "data/*.md", "Decisions": "docs/decisions/*.md"}
    lines = []
    for caption, pattern in parts.items():
        pages = (path.relative_to(root).with_suffix("") for path in sorted(root.glob(pattern)))
        lines += ["", "```{toctree}", ":hidden:", f":caption: {caption}", ""]
        lines += [*(page.as_posix() for page in pages), "```"]
    return "\n".join(lines)


def open_at_the_readme(app: Sphinx, failure: Exception | None) -> None:
    if not failure:
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")
