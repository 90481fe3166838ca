"""The map of the model, as a lesson prints it."""

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
