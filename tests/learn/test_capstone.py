"""A report says whose the code is and how far it is right, and no part that is broken ends it."""

import hashlib
import re

import pytest
import torch

from qwen2lite import Parts, Qwen2
from qwen2lite.__main__ import main
from qwen2lite.learn import contract, my_parts
from qwen2lite.learn.doctor import Diagnosis
from qwen2lite.learn.keep import with_parts
from qwen2lite.learn.mutants.attention import queries_at_the_start
from qwen2lite.learn.mutants.gqa import NoBias
from qwen2lite.learn.mutants.mlp import BranchesSwapped
from qwen2lite.learn.report import _Said, _table, write_report
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.model.norm import RMSNorm
from qwen2lite.weights import sources

TINY = REPOSITORY / "data" / "qwen2-tiny"
NORM = """import torch

from qwen2lite.model.norm import RMSNorm


class norm(RMSNorm):
    def forward(self, x_BTD):
        return super().forward({})
"""


@pytest.fixture
def keep_norm(home):
    """Puts a file into my_qwen2 as `keep` would, or as somebody changed it by hand."""

    def put(reads):
        (home / "my_qwen2").mkdir(exist_ok=True)
        path = home / "my_qwen2" / "norm.py"
        path.write_text(NORM.format(reads), encoding="utf-8")
        return path

    return put


@pytest.fixture
def briefly(monkeypatch):
    """A report of few tokens whose doctor has no patients, for what has to do with neither."""
    monkeypatch.setattr("qwen2lite.learn.report.doctor", lambda *_: Diagnosis(7))
    monkeypatch.setattr("qwen2lite.learn.report._WRITTEN", 2)


def section(page, name):
    return page.split(f"## {name}\n")[1].split("\n## ")[0]


class MyNorm(RMSNorm):
    """Right, and not the package's."""


class Raises(RMSNorm):
    def forward(self, x_BTD):
        raise RuntimeError("sizes don't match")


class NotANumber(RMSNorm):
    def forward(self, x_BTD):
        return super().forward(x_BTD) * float("nan")


def test_a_right_part_is_reported_with_all_that_another_can_test(keep_norm, home):
    kept = keep_norm("x_BTD")
    path = write_report(TINY, prompt="What is up? ## Not a heading")
    assert path.parent == home and path.suffix == ".md"
    page = path.read_text(encoding="utf-8")
    assert "1 of 8 parts" in section(page, "Whose code")
    assert section(page, "What the doctor says").count("✓ Your parts and the reference agree") == 2
    beside = section(page, "Beside the reference")
    assert float(re.search(r"128 tokens of text \| (\S+) \|", beside)[1]) == 0
    assert re.search(r"the same \| all \d+ \|", beside)
    assert beside.count("tokens/s") == 2
    asked, mine, reference = re.findall(r"^    (.+)$", section(page, "What it answers"), re.M)
    assert asked == "What is up? ## Not a heading" and mine and reference == "the same"
    for file in (kept, TINY / "model.safetensors"):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert f"    {digest}  {file.name}" in page
    assert f"torch {torch.__version__}" in section(page, "The machine")
    own = re.findall(r"^- (.+):$", section(page, "In my own words"), re.M)
    assert len(own) == 3


def test_the_difference_is_measured_and_the_tokens_are_counted():
    wrong = Parts(mlp=BranchesSwapped)
    page = write_report(TINY, wrong).read_text(encoding="utf-8")
    beside = section(page, "Beside the reference")
    assert float(re.search(r"128 tokens of text \| (\S+) \|", beside)[1]) > 0.1
    assert section(page, "What the doctor says").count("silu is on the wrong branch") == 2
    assert "from a notebook" in section(page, "The files")


def test_a_bug_of_the_cache_shows_in_the_tokens_and_not_in_the_logits():
    page = write_report(TINY, Parts(attend=queries_at_the_start)).read_text(encoding="utf-8")
    beside = section(page, "Beside the reference")
    off = float(re.search(r"128 tokens of text \| (\S+) \|", beside)[1])
    same, of = map(int, re.search(r"the first (\d+) of (\d+)", beside).groups())
    assert off < 1e-3 and 0 < same < of
    said = section(page, "What it answers")
    _, mine, reference = re.findall(r"^    (.+)$", said, re.M)
    assert "the roof" in reference and "the roof" not in mine
    assert reference.endswith("a song."), "where the model ends it"


def test_a_logit_that_is_too_low_counts_as_one_that_is_too_high():
    low, right = _Said(torch.full((2, 3), -2.0)), _Said(torch.zeros(2, 3))
    assert "2 tokens of text | 2 |" in _table(low, right)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (Parts(norm=Raises), "RuntimeError: sizes don't match"),
        (Parts(attention=NoBias), "q_proj.bias"),
    ],
)
def test_what_raises_is_reported(parts, says):
    page = write_report(TINY, parts).read_text(encoding="utf-8")
    assert says in section(page, "Beside the reference")
    assert "✗" in section(page, "What the doctor says")
    assert "## What it answers" not in page and "## In my own words" in page


@pytest.mark.usefixtures("briefly")
def test_not_a_number_is_reported():
    page = write_report(TINY, Parts(norm=NotANumber)).read_text(encoding="utf-8")
    assert "128 tokens of text | nan |" in section(page, "Beside the reference")


def test_a_part_that_comes_to_no_end_is_not_run(monkeypatch):
    monkeypatch.setattr(contract, "TIME_LIMIT", 0.2)

    def endless(q, k, v, mask=None):
        while True:
            q = q + 0

    page = write_report(TINY, Parts(attend=endless)).read_text(encoding="utf-8")
    assert "A loop in it never ends" in page and "no model was run with it" in page
    assert "## Beside the reference" not in page


@pytest.mark.usefixtures("briefly")
def test_an_earlier_report_is_never_overwritten(tmp_path, monkeypatch):
    class Now:
        @staticmethod
        def now():
            return Now()

        def __format__(self, _):
            return "now"

    monkeypatch.setattr("qwen2lite.learn.report.datetime", Now)
    folder = tmp_path / "to" / "hand in"
    paths = [write_report(TINY, Parts(norm=MyNorm), folder)]
    paths[0].write_text("mine", encoding="utf-8")
    paths += [write_report(TINY, Parts(norm=MyNorm), folder) for _ in range(2)]
    assert [path.name for path in paths] == ["report-now.md", "report-now-2.md", "report-now-3.md"]
    assert paths[0].read_text(encoding="utf-8") == "mine"
    assert sorted(folder.iterdir()) == sorted(paths)


@pytest.mark.usefixtures("briefly")
def test_the_tiny_model_stands_in_and_the_report_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path / "empty"))
    assert sources.default_model() is None
    page = write_report(parts=Parts(norm=MyNorm)).read_text(encoding="utf-8")
    assert "No real weights were fetched: the tiny model" in page
    asked_for = write_report(TINY, Parts(norm=MyNorm)).read_text(encoding="utf-8")
    assert "No real weights" not in asked_for and "those of qwen2-tiny" in asked_for


def test_without_a_part_there_is_nothing_to_report(home):
    with pytest.raises(ValueError, match=r"no part of yours is kept yet.*keep\(\.\.\.\)"):
        write_report(TINY)
    with pytest.raises(ValueError, match="no part of yours"):
        write_report(TINY, Parts())
    assert not list(home.rglob("*.md"))


def test_a_file_that_cant_be_loaded_is_named(keep_norm, home):
    keep_norm("x_BTD +")
    with pytest.raises(ValueError, match=r"norm\.py, line 8"):
        write_report(TINY)
    assert not list(home.glob("*.md"))


@pytest.mark.parametrize(
    ("model", "prompt", "error"),
    [
        (TINY, " ", "write a question"),
        (TINY, "word " * 300, "context"),
        ("no-such-model", "Hello", "no-such-model"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(model, prompt, error, home):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        write_report(model, Parts(norm=MyNorm), prompt=prompt)
    assert not list(home.glob("*.md"))


def test_the_command_writes_one_and_says_where(keep_norm, home, capsys):
    assert main(["report", "--model", str(TINY)]) == 2
    assert "no part of yours is kept yet" in capsys.readouterr().err
    keep_norm("x_BTD - x_BTD.mean(-1, keepdim=True)")
    assert main(["report", "--model", str(TINY)]) == 0
    [path] = home.glob("*.md")
    assert capsys.readouterr().out.strip() == str(path)
    assert "layer 0, input_layernorm" in path.read_text(encoding="utf-8")


def test_other_parts_share_the_weights(keep_norm):
    keep_norm("2 * x_BTD")
    model = Qwen2.from_pretrained(TINY, torch.float32, "cpu")
    other = with_parts(model, my_parts())
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(one.data_ptr() == another.data_ptr() for one, another in pairs)
    assert type(other.model.norm) is other.parts.norm is not RMSNorm
    assert not other.training
    with pytest.raises(RuntimeError, match=r"q_proj\.bias"):
        with_parts(model, Parts(attention=NoBias))
