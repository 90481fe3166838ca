"""The lessons as a learner meets them: copied to a folder, opened in JupyterLab, run, touched."""

import pytest

from qwen2lite.learn.work import sync
from tests.browser.lab import OpenNotebook, browser, server

pytestmark = pytest.mark.browser

NOTEBOOKS = (
    "notebooks/00_start_here.ipynb",
    "notebooks/22_rope.ipynb",
    "exercises/22_rope.ipynb",
)


@pytest.fixture(scope="module")
def chrome():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def lab(chrome, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    sync(work)
    with server(work, tmp_path_factory.mktemp("settings")) as address:
        yield address


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_notebook_runs_to_its_end_without_the_network(path, chrome, lab):
    notebook = OpenNotebook(chrome, lab.format(path))
    cells = notebook.run_all()
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    errors = [o["evalue"] for c in cells for o in c["outputs"] if o["output_type"] == "error"]
    assert not errors
    assert notebook.outputs("img").count() or "exercises" in path
    assert not notebook.page.get_by_text("Error displaying widget").count()
    assert not notebook.strangers


def test_moving_a_slider_draws_another_picture(chrome, lab):
    notebook = OpenNotebook(chrome, lab.format("notebooks/22_rope.ipynb"))
    notebook.run_all()
    picture = notebook.outputs(".widget-interact img, .jupyter-widgets img").first
    before = picture.get_attribute("src")
    handle = notebook.outputs(".widget-slider .noUi-handle").first
    value = handle.get_attribute("aria-valuetext")
    handle.press("ArrowRight")
    notebook.page.wait_for_function(
        "([picture, before]) => picture.isConnected ? picture.src !== before : true",
        arg=[picture.element_handle(), before],
    )
    assert handle.get_attribute("aria-valuetext") != value
    assert notebook.outputs(".jupyter-widgets img").first.get_attribute("src") != before
