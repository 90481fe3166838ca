"""What a learner sees of a check, and when it raises."""

import random

import pytest
import torch
from torch import nn

from qwen2lite.learn import check
from qwen2lite.learn.check import Report, examine, is_strict
from qwen2lite.learn.mutants.rope import interleaved
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.rope import apply_rope, rotary_tables
from tests.learn.verdict import verdict


def unwritten(*inputs):
    raise NotImplementedError


def raiser(*inputs):
    raise ValueError("<b>no & no</b>")


def test_a_wrong_part_is_shown_and_does_not_raise(capsys):
    assert check(apply_rope=interleaved) is None
    shown = capsys.readouterr().out
    assert "✗ apply_rope: wrong" in shown
    assert "✓ same shape and dtype as its input" in shown
    assert "into [-3, 2, 1, 4]; apply_rope made it [-2, 1, 3, 4]." in shown
    assert "→ Every two neighbours are turned together" in shown


@pytest.mark.parametrize(
    "setting", [("NBGRADER_EXECUTION", "autograde"), ("QWEN2LITE_STRICT", "1")]
)
@pytest.mark.parametrize("part", [interleaved, unwritten, apply_rope])
def test_strict_raises_the_same_message(monkeypatch, capsys, setting, part):
    monkeypatch.setenv(*setting)
    with pytest.raises(AssertionError) as raised:
        check(apply_rope=part)
    assert str(raised.value) in capsys.readouterr().out


def test_strict_lets_what_is_right_pass(monkeypatch):
    monkeypatch.setenv("QWEN2LITE_STRICT", "1")
    assert is_strict()

    def mine(x, cos, sin):
        return apply_rope(x, cos, sin)

    check(apply_rope=mine)


def test_strict_is_one_and_not_zero(monkeypatch):
    monkeypatch.setenv("QWEN2LITE_STRICT", "0")
    assert not is_strict()


def test_several_parts_make_one_report():
    report = examine(apply_rope=unwritten, rotary_tables=rotary_tables)
    assert [r.state for r in report.results] == ["not written yet", "right"]
    assert not report.passed
    assert not Report((report.results[0],)).passed
    assert Report((report.results[1],)).passed


def test_the_card_shows_a_learners_words_as_text():
    card = examine(apply_rope=raiser)._repr_html_()
    assert "<b>no" not in card
    assert "&lt;b&gt;no &amp; no&lt;/b&gt;" in card
    assert card.count("<div") == card.count("</div>")


@pytest.mark.parametrize("parts", [{}, {"rope": apply_rope}])
def test_an_unknown_part_is_an_error(parts):
    with pytest.raises(ValueError, match="check"):
        examine(**parts)


def test_an_answer_in_the_functions_place_is_told_from_a_function():
    wrong = verdict("apply_rope", 3).wrong
    assert "is of type int; the function itself is wanted, without ()" in wrong


def test_what_pytorch_says_is_passed_on():
    class Misspelt(RMSNorm):
        forward = nn.Module.forward

    result = verdict("norm", Misspelt)
    assert 'Module [Misspelt] is missing the required "forward" function' in result.note

    def rotary_frequencies(head_dim, rope_theta):
        return (torch.arange(head_dim // 2).to("meta") / head_dim).cpu()

    result = verdict("rotary_frequencies", rotary_frequencies)
    assert result.state == "wrong" and "NotImplementedError: Cannot copy out of" in result.wrong


def test_the_librarys_own_line_is_not_shown_for_the_learners():
    def apply_rope(x, cos, sin):
        return random.sample([], 3)

    wrong = verdict("apply_rope", apply_rope).wrong
    assert "Sample larger" in wrong and "in the line `return random.sample([], 3)`" in wrong
