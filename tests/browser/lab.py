"""A real JupyterLab on a learner's folder, and a notebook open in a real Chromium."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as TookTooLong

# Without them Chromium refuses to run as root, as CI does, and looks up its maker's hosts.
FLAGS = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync"
)
PANEL = "window.jupyterapp.shell.currentWidget"
ALL_COUNTED = (
    f"() => {PANEL}.content.model.toJSON().cells"
    ".every(cell => cell.cell_type !== 'code' || cell.execution_count !== null)"
)
MINUTE = 60_000


def chromium() -> str:
    """Its path. CI fails without it; elsewhere its absence is shown."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("QWEN2LITE_CHROMIUM") or next(filter(None, map(shutil.which, names)), "")
    if not found:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(
            f"not checked: none of {', '.join(names)} is installed, nor named by QWEN2LITE_CHROMIUM"
        )
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    path = chromium()
    with sync_playwright() as playwright:
        flags = [f"--{flag}" for flag in FLAGS.split()]
        yield playwright.chromium.launch(executable_path=path, args=flags)


@contextmanager
def server(work: Path, aside: Path) -> Iterator[str]:
    """JupyterLab on the folder `work`, its settings in `aside`; yields its address with a place for
    the notebook's path."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    names = ["CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR"]
    places = {f"JUPYTER{'' if n.startswith('LAB') else '_'}{n}": str(aside / n) for n in names}
    environment = {**os.environ, **places, "IPYTHONDIR": str(aside), "QWEN2LITE_HOME": str(work)}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
        *(f"--ServerApp.root_dir={work}", "--expose-app-in-browser", "--LabApp.news_url="),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    _no_news(aside / "LAB_SETTINGS_DIR")
    with (aside / "server.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _await_answer(process, f"http://127.0.0.1:{port}/api/status?token={token}", log.name)
            yield f"http://127.0.0.1:{port}/doc/tree/{{}}?reset&token={token}"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:  # seen on a busy machine, every notebook closed
                process.kill()


def _no_news(settings: Path) -> None:
    folder = settings / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    values = json.dumps({"fetchNews": "false", "checkForUpdates": False})
    (folder / "notification.jupyterlab-settings").write_text(values, encoding="utf-8")


def _await_answer(process: subprocess.Popen, address: str, log: str) -> None:
    for _ in range(300):
        assert process.poll() is None, Path(log).read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab didn't answer: {Path(log).read_text(encoding='utf-8')}")


class OpenNotebook:
    """A notebook in the browser.

    Args:
        browser: Chromium.
        address: of the notebook.
    """

    def __init__(self, browser: Browser, address: str):
        self.page: Page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.strangers: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", self._note)
        self.page.on("console", self._listen)
        self.page.goto(address)
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=2 * MINUTE)
        # The toolbar says idle before there is a kernel, and what is run then is dropped.
        status = f"{PANEL}?.sessionContext?.kernelDisplayStatus === 'idle'"
        self.page.wait_for_function(f"() => {status}", timeout=2 * MINUTE, polling=200)

    def _note(self, request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")):
            self.strangers.append(request.url)

    def _listen(self, message) -> None:
        # A file that a server hasn't got is looked for and done without: settings, translations.
        if (
            message.type == "error"
            and "the server responded with a status of 404" not in message.text
        ):
            self.complaints.append(message.text)

    def run_all(self) -> list[dict]:
        """Runs every cell and returns the code cells as the notebook now has them."""
        self.page.set_default_timeout(5 * MINUTE)
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        # On a busy machine the command may end before the last cells have their numbers.
        with suppress(TookTooLong):
            self.page.wait_for_function(ALL_COUNTED, timeout=MINUTE)
        cells = self.page.evaluate(f"() => JSON.stringify({PANEL}.content.model.toJSON().cells)")
        return [cell for cell in json.loads(cells) if cell["cell_type"] == "code"]

    def close(self) -> None:
        """Ends the kernel, which may hold a model, and closes the page."""
        self.page.evaluate(f"() => {PANEL}.sessionContext.shutdown()")
        self.page.close()

    def outputs(self, selector: str) -> Locator:
        """What matches in the cells' outputs; their sources hold the same words."""
        return self.page.locator(f".jp-OutputArea-output {selector}")

    def touch(self, explorer: Locator) -> str:
        """Moves the first control of an explorer and waits until what it shows is another.

        Returns:
            What the control says now.
        """
        output = explorer.locator(".jp-OutputArea, .widget-output").last
        before = output.inner_html()
        slider, menu, box = (
            explorer.locator(kind) for kind in (".noUi-handle", "select", "input[type=checkbox]")
        )
        if slider.count():
            slider = slider.first
            at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
            slider.press("ArrowLeft" if at_end else "ArrowRight")
            value = slider.get_attribute("aria-valuetext") or ""
        elif menu.count():
            menu.first.select_option(index=1)
            value = menu.first.input_value()
        else:
            box.first.click()
            value = str(box.first.is_checked())
        self.page.wait_for_function(
            "([shown, before]) => !shown.isConnected || shown.innerHTML !== before",
            arg=[output.element_handle(), before],
        )
        return value

    def watch_answers(self, chat: Locator) -> None:
        """From now on the page itself notes each length that an unfinished answer of a chat has."""
        chat.evaluate(
            """chat => {
                window.lengths = [];
                new MutationObserver(() => {
                    const text = [...chat.querySelectorAll('.qwen2lite-assistant .qwen2lite-text')]
                        .at(-1)?.textContent;
                    if (text?.endsWith('▍') && text.length > 1) window.lengths.push(text.length - 1);
                }).observe(chat, {childList: true, subtree: true, characterData: true});
            }"""
        )

    def lengths_seen(self, different: int) -> list[int]:
        """Waits until an answer was seen in so many different lengths, and returns all of them."""
        self.page.wait_for_function("count => new Set(window.lengths).size >= count", arg=different)
        return self.page.evaluate("() => window.lengths")
