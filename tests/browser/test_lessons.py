"""The lessons as a learner meets them: copied to a folder, opened in JupyterLab, run, touched.

QWEN2LITE_LESSONS says which: "smoke" (three of them, the default), "all", or "changed", which adds to
the three those that a commit of the last day touched.
"""

import os
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from qwen2lite.learn.work import sync
from tests.browser.lab import MINUTE, OpenNotebook, browser, server

pytestmark = pytest.mark.browser
expect.set_options(timeout=MINUTE)

ROOT = Path(__file__).parents[2]
SMOKE = {
    "notebooks/00_start_here.ipynb",
    "notebooks/22_rope.ipynb",
    "exercises/22_rope.ipynb",
}


def chosen() -> list[str]:
    which = os.environ.get("QWEN2LITE_LESSONS", "smoke")
    assert which in ("smoke", "changed", "all"), f"QWEN2LITE_LESSONS is {which!r}"
    pages = {f"{path.parent.name}/{path.name}" for folder in ("notebooks", "exercises")
             for path in (ROOT / folder).glob("*.ipynb")}  # fmt: skip
    if which == "all":
        return sorted(pages)
    return sorted(SMOKE | (pages & changed() if which == "changed" else set()))


def changed() -> set[str]:
    command = ["git", "log", "--since=1.day", "--name-only", "--format="]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split())


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


@pytest.mark.parametrize("path", chosen())
def test_a_notebook_runs_to_its_end_and_its_explorers_move(path, chrome, lab):
    notebook = OpenNotebook(chrome, lab.format(path))
    cells = notebook.run_all()
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    errors = [o["evalue"] for c in cells for o in c["outputs"] if o["output_type"] == "error"]
    assert not errors
    assert notebook.outputs("img").count() or "exercises" in path
    assert not notebook.page.get_by_text("Error displaying widget").count()
    explorers = notebook.outputs(".widget-interact")
    for number in range(explorers.count()):
        notebook.touch(explorers.nth(number))
    assert not notebook.strangers, "it asked another machine for something"
    assert not notebook.complaints, "the browser's console complains"
    notebook.close()


def test_moving_a_slider_draws_another_picture(chrome, lab):
    notebook = OpenNotebook(chrome, lab.format("notebooks/22_rope.ipynb"))
    notebook.run_all()
    explorer = notebook.outputs(".widget-interact").first
    before = explorer.locator("img").first.get_attribute("src")
    value = notebook.touch(explorer)
    assert value and explorer.locator("img").first.get_attribute("src") != before


@pytest.mark.real
def test_an_answer_of_the_chat_grows_stops_and_is_no_html(chrome, lab, real_tokenizer):
    notebook = OpenNotebook(chrome, lab.format("notebooks/00_start_here.ipynb"))
    notebook.run_all()
    chat = notebook.outputs(".qwen2lite-chat")
    field, status = chat.locator("input[type=text]"), chat.get_by_text("tokens read")
    send, stop = (chat.get_by_role("button", name=name) for name in ("Send", "Stop"))
    notebook.watch_answers(chat)
    field.fill("Count from one to a hundred, in words.")
    send.click()
    lengths = notebook.lengths_seen(different=3)
    assert lengths[0] < lengths[-1]
    stop.click()
    expect(status).to_contain_text("stopped")
    expect(stop).to_be_disabled()
    field.fill("What is <b>bold</b>?")
    field.press("Enter")
    said = chat.locator(".qwen2lite-user .qwen2lite-text").last
    expect(said).to_have_text("What is <b>bold</b>?")
    assert not notebook.strangers and not notebook.complaints
    notebook.close()
