"""The course as a web site: built once, then read as a browser would, without a network."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
TEX = re.compile(r"\$|\\[(\[]|\\(frac|sum|sqrt|text|cdot)\b")
LOADED = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs/site", "-d"]
    done = subprocess.run(
        [*command, folder / "build", ".", folder / "site"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@functools.cache
def read(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(page: Path) -> set[str]:
    return {tag["id"] for tag in read(page).find_all(id=True)} | {""}


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def lesson_pages(site: Path):
    """Each lesson with its page."""
    for path in LESSONS:
        lesson = nbformat.read(path, as_version=4)
        yield path.stem, lesson, read(site / "notebooks" / f"{path.stem}.html")


def outputs(lesson, kind: str) -> list:
    cells = (cell for cell in lesson.cells if cell.cell_type == "code")
    found = [output for cell in cells for output in cell.outputs]
    return [output for output in found if kind in output.get("data", {})]


def prose(lesson) -> str:
    cells = [cell.source for cell in lesson.cells if cell.cell_type == "markdown"]
    return re.sub(r"```.*?```|`[^`]+`", "", "\n\n".join(cells), flags=re.DOTALL)


def test_every_lesson_has_a_page_with_its_title(site):
    for stem, lesson, page in lesson_pages(site):
        title = re.match("# (.*)", lesson.cells[0].source)[1]
        assert page.h1.get_text().removesuffix("¶").replace("’", "'") == title, stem


def test_the_side_bar_has_all_lessons_in_order_and_a_caption_for_each_part(site):
    bar = read(site / "index.html").find(class_="sidebar-tree")
    linked = [link["href"] for link in bar.find_all("a")]
    assert linked[: len(LESSONS)] == [f"notebooks/{path.stem}.html" for path in LESSONS]
    captions = [caption.get_text() for caption in bar.find_all("p", class_="caption")]
    assert [caption[0] for caption in captions[:10]] == list("0123456789")
    documents = {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert documents < set(linked)


def test_nothing_is_loaded_from_another_host(site):
    for path in pages(site):
        for tag in read(path).find_all(list(LOADED)):
            address = tag.get(LOADED[tag.name], "")
            assert not urlsplit(address).netloc, (path.name, address)
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?\s*(https?:)?//", text), path.name


def test_every_link_leads_somewhere(site):
    followed = 0
    for path in pages(site):
        for tag in read(path).find_all(["a", *LOADED]):
            address = urlsplit(tag.get("href") or tag.get("src") or "")
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.is_file(), (path.name, str(tag)[:200])
            if target.suffix == ".html":
                assert unquote(address.fragment) in anchors(target), (path.name, str(tag)[:200])
            followed += 1
    assert followed > 1000


def test_a_lesson_offers_its_exercise(site):
    for stem, _, page in lesson_pages(site):
        exercise = ROOT / "exercises" / f"{stem}.ipynb"
        offered = page.find_all("a", class_="download")
        assert len(offered) == exercise.exists(), stem
        for link in offered:
            copy = site / "notebooks" / link["href"]
            assert copy.read_bytes() == exercise.read_bytes(), stem
            assert "for JupyterLab" in link.next_sibling, stem


def test_an_explorer_is_a_sentence_and_a_figure_a_figure(site):
    for stem, lesson, page in lesson_pages(site):
        widgets = [output["data"]["text/plain"] for output in outputs(lesson, WIDGET)]
        moved = [plain for plain in widgets if "%|" not in plain]
        assert len(page.find_all(class_="explorer")) == len(moved), stem
        assert len(page.article.find_all("img")) == len(outputs(lesson, "image/png")), stem


def test_no_page_shows_what_went_wrong(site):
    for path in pages(site):
        assert "interactive(children" not in path.read_text(encoding="utf-8"), path.name
        assert not read(path).find(class_=["system-message", "problematic"]), path.name


def test_formulas_are_drawn_and_none_is_left_as_tex(site):
    drawn = 0
    for stem, lesson, page in lesson_pages(site):
        text = prose(lesson)
        assert len(page.find_all("div", class_="formula")) == text.count("$$") // 2, stem
        formulas = page.find_all(class_="formula")
        assert all(formula.svg.find("path") for formula in formulas), stem
        drawn += len(formulas)
        shown = [
            str(text)
            for text in page.article.find_all(string=TEX)
            if not text.find_parent(["pre", "code"]) and not text.find_parent(class_="cell_output")
        ]
        assert not shown, stem
    assert drawn > 300
