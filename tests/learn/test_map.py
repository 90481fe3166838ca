"""The maps of the model and of training, as a lesson prints them."""

import json
import re
from pathlib import Path

import pytest

from qwen2lite.learn.map import show_map


def test_before_all_lessons_nothing_is_built(capsys):
    show_map()
    drawn = capsys.readouterr().out
    assert "□ 22 │  │ RoPE" in drawn
    assert not {"■", "▶"} & set(drawn)


def test_a_lesson_stands_between_what_is_built_and_what_is_to_come(capsys):
    show_map(lesson=22)
    lines = capsys.readouterr().out.splitlines()
    [here] = [line for line in lines if "◀ this lesson" in line]
    assert here.startswith(" ▶ 22") and "RoPE" in here
    assert any(line.startswith(" ■ 21") for line in lines)
    assert any(line.startswith(" □ 23") for line in lines)


@pytest.mark.parametrize(
    "lesson", sorted((Path(__file__).parents[2] / "notebooks").glob("[1-3]*.ipynb"))
)
def test_every_lesson_about_the_model_is_on_the_map(lesson, capsys):
    number = int(lesson.name[:2])
    show_map(number)
    drawn = capsys.readouterr().out
    assert "▶" in drawn or number >= 32  # weights, cache and batching change no step


def test_the_lessons_about_training_have_a_map_of_their_own(capsys):
    show_map(lesson=43)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "documents" and "RoPE" not in "".join(lines)
    here = [line.split("│")[-1].split()[0] for line in lines if "◀ this lesson" in line]
    assert here == ["loss", "gradient", "checkpoint"]
    assert " ■ 31 │  │ model" in lines and " □ 44 │  │ mean over processes" in lines


@pytest.mark.parametrize("lesson", range(41, 46))
def test_every_lesson_about_training_is_on_the_map(lesson, capsys):
    show_map(lesson)
    assert "◀ this lesson" in capsys.readouterr().out


@pytest.mark.parametrize("lesson", (61, 62, 63))
def test_the_lessons_about_experts_have_a_map_of_their_own(lesson, capsys):
    show_map(lesson)
    drawn = capsys.readouterr().out
    assert drawn.splitlines()[0].strip() == "a trained dense model" and "◀ this lesson" in drawn


@pytest.mark.parametrize("lesson", range(71, 76))
def test_the_lessons_about_alignment_have_a_map_of_their_own(lesson, capsys):
    show_map(lesson)
    drawn = capsys.readouterr().out
    assert drawn.splitlines()[0].strip() == "conversations" and "◀ this lesson" in drawn


@pytest.mark.parametrize("lesson", (81, 82, 83, 84, 85))
def test_the_lessons_about_use_have_a_map_of_their_own(lesson, capsys):
    show_map(lesson)
    drawn = capsys.readouterr().out
    assert drawn.splitlines()[-1].strip() == "answers, here and elsewhere"
    assert "◀ this lesson" in drawn


@pytest.mark.parametrize("lesson", (0, 39, 50, 90))
def test_the_other_lessons_show_the_map_of_the_model(lesson, capsys):
    show_map(lesson)
    assert capsys.readouterr().out.splitlines()[0].strip() == "text"


@pytest.mark.parametrize(
    "page", sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem
)
def test_the_map_that_a_page_keeps_is_as_it_is_drawn_now(page, capsys):
    """nbval would say so too, after ten minutes."""
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        asked = re.search(r"^show_map\((?:lesson=)?(\d*)\)", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "code" and asked:
            show_map(int(asked[1] or 0))
            kept = "".join("".join(output.get("text", "")) for output in cell["outputs"])
            assert kept == capsys.readouterr().out
