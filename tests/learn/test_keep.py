"""The learner's own package: nothing lost, nothing kept that is wrong, and files that run alone."""

import dataclasses
import re

import pytest
import torch

import qwen2lite
from qwen2lite.learn import keep, my_parts, receipt
from qwen2lite.learn.check import contracts
from qwen2lite.learn.keep import learner_home
from qwen2lite.learn.mutants.rope import interleaved
from qwen2lite.learn.source import own_source
from qwen2lite.model.attention import attend
from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.qwen2 import Parts, Qwen2
from qwen2lite.model.rope import apply_rope

ROPE = '''
import torch
from torch import Tensor

def turn(a, b, cos, sin):
    return a * cos - b * sin, b * cos + a * sin

def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns."""
    first, second = x.chunk(HALVES, dim=-1)
    pairs = cos.shape[-1] // HALVES
    cos, sin = cos[:, :pairs].to(x.dtype), sin[:, :pairs].to(x.dtype)
    return torch.cat(turn(first, second, cos, sin), dim=-1)

HALVES = 2
'''

NORM = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

class MyNorm(Scale):
    def __init__(self, size, eps=1e-6):
        super().__init__(size)
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        root = (wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return self.weight * (wide / root).to(x.dtype)
"""


def files(home):
    return sorted(p.relative_to(home).as_posix() for p in home.rglob("*.py"))


def test_a_part_is_kept_with_what_it_uses_and_runs_on_its_own(cell, home, capsys):
    keep(cell(ROPE).apply_rope)
    assert files(home) == ["my_qwen2/__init__.py", "my_qwen2/apply_rope.py"]
    text = (home / "my_qwen2" / "apply_rope.py").read_text(encoding="utf-8")
    assert "import torch\n" in text and "from torch import Tensor\n" in text
    assert "HALVES = 2\n" in text
    assert text.index("def turn") < text.index("def apply_rope")
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert "apply_rope is kept in" in capsys.readouterr().out
    vector = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    cos, sin = torch.tensor([[0.0, 1.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    assert my_parts().apply_rope(vector, cos, sin).flatten().tolist() == [-3, 2, 1, 4]


def test_kept_parts_run_in_a_whole_model(cell):
    keep(cell(ROPE).apply_rope, norm=cell(NORM).MyNorm)
    sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2}
    config = Qwen2Config(num_attention_heads=3, num_key_value_heads=1, **sizes)
    reference, mine = Qwen2(config), Qwen2(config, my_parts())
    mine.load_state_dict(reference.state_dict())
    ids_BT = torch.tensor([[3, 1, 4, 1, 5]])
    assert type(mine.model.norm).__module__ == "my_qwen2.norm"
    assert torch.allclose(mine(ids_BT), reference(ids_BT), atol=1e-6, rtol=0)


def test_a_folder_that_is_not_there_yet_is_made(cell, home, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_HOME", str(home / "not" / "yet"))
    keep(cell(ROPE).apply_rope)
    assert files(home / "not" / "yet") == ["my_qwen2/__init__.py", "my_qwen2/apply_rope.py"]


def test_the_same_source_is_stored_once(cell, home, capsys):
    keep(cell(ROPE).apply_rope)
    keep(cell(ROPE).apply_rope)
    assert files(home) == ["my_qwen2/__init__.py", "my_qwen2/apply_rope.py"]
    assert "kept already" in capsys.readouterr().out


def test_an_earlier_version_is_never_lost(cell, home):
    path, old = home / "my_qwen2" / "apply_rope.py", home / "my_qwen2" / "old"
    versions = []
    for number in range(4):
        keep(cell(ROPE.replace("Turns.", f"Turns, version {number}.")).apply_rope)
        versions.append(path.read_text(encoding="utf-8"))
    path.write_text(versions[-1] + "# edited by hand\n", encoding="utf-8")
    keep(cell(ROPE).apply_rope)
    copies = [p.read_text(encoding="utf-8") for p in old.iterdir()]
    assert sorted(copies) == sorted([*versions[:3], versions[3] + "# edited by hand\n"])
    stamp = r"apply_rope-\d{4}-\d\d-\d\d-\d{6}(-\d+)?\.py"
    assert all(re.fullmatch(stamp, p.name) for p in old.iterdir())


def test_what_fails_is_refused_and_the_kept_version_stays(cell, home, capsys):
    keep(cell(ROPE).apply_rope)
    before = (home / "my_qwen2" / "apply_rope.py").read_text(encoding="utf-8")
    keep(apply_rope=interleaved)
    shown = capsys.readouterr().out
    assert "interleaved layout" in shown and "is not kept" in shown
    assert (home / "my_qwen2" / "apply_rope.py").read_text(encoding="utf-8") == before
    assert files(home) == ["my_qwen2/__init__.py", "my_qwen2/apply_rope.py"]


@pytest.mark.parametrize("parts", [{"apply_rope": apply_rope}, {"attend": attend}])
def test_the_packages_own_is_refused(parts, home, capsys):
    keep(**parts)
    assert "package's own" in capsys.readouterr().out
    assert not files(home)


@pytest.mark.parametrize("part", [interleaved, apply_rope])
def test_strict_refuses_loudly(part, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_STRICT", "1")
    with pytest.raises(AssertionError, match="not kept"):
        keep(apply_rope=part)


def test_nothing_is_stored_while_a_teacher_grades(cell, home, monkeypatch, capsys):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    keep(cell(ROPE).apply_rope)
    assert "Nothing is kept" in capsys.readouterr().out
    assert not files(home)


def test_what_only_works_in_the_notebook_changes_nothing(cell, home):
    text = "from os import environ\n" + ROPE.replace(
        '"""Turns."""', 'if __name__ != "notebook_for_tests":\n        return None'
    )
    with pytest.raises(ValueError, match="nothing was changed"):
        keep(cell(text).apply_rope)
    assert not any(p.name.startswith("apply_rope") for p in home.rglob("*"))


def test_names_of_parts(cell, home):
    my_rope = cell(ROPE.replace("def apply_rope", "def my_rope")).my_rope
    with pytest.raises(ValueError, match=r"no part is called my_rope.*keep\(apply_rope=my_rope\)"):
        keep(my_rope)
    keep(apply_rope=my_rope)
    assert my_parts().apply_rope.__name__ == "my_rope"
    norm = cell(NORM.replace("MyNorm", "RMSNorm")).RMSNorm
    keep(norm)
    assert my_parts().norm.__name__ == "RMSNorm"
    assert my_parts().norm is not RMSNorm
    keep(cell(NORM.replace("MyNorm", "norm")).norm)
    assert my_parts().norm.__name__ == "norm"


def test_every_part_can_be_checked_and_so_be_kept():
    assert set(vars(Parts())) <= contracts().keys()


@pytest.mark.parametrize(
    ("parts", "said"), [({}, "nothing"), ({"rope": apply_rope}, "can't keep rope")]
)
def test_what_is_no_part(parts, said):
    with pytest.raises(ValueError, match=said):
        keep(**parts)


def test_two_things_of_one_name_are_refused(cell):
    module = cell(
        ROPE + "\ndef my_rope(x, cos, sin):\n    return apply_rope(x, cos, sin).clone()\n"
    )
    with pytest.raises(ValueError, match="something else called apply_rope"):
        keep(apply_rope=module.my_rope)


def test_without_anything_kept_all_is_reference(home):
    assert my_parts() == Parts()
    everything = len(dataclasses.fields(Parts))
    assert str(receipt(my_parts())).startswith(f"0 of {everything} parts")


def test_the_receipt_counts_what_ran(cell):
    keep(cell(ROPE).apply_rope)
    note = receipt(my_parts(), CONFIGS["qwen2-0.5b"])
    assert note.yours == ("apply_rope",)
    assert str(note).splitlines()[0] == "1 of 8 parts of this answer ran on your code"
    assert "route" not in note.reference
    assert "route" in receipt(my_parts(), CONFIGS["qwen2-57b-a14b"]).reference
    assert receipt(Parts(attend=attend)).yours == ()
    assert receipt(Parts(apply_rope=interleaved)).yours == ("apply_rope",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def apply_rope(:\n    pass\n", r"apply_rope\.py, line 1: "),
        ("import torch\n\nx = 1 / 0\n", r"apply_rope\.py, line 3: ZeroDivisionError"),
        ("def another():\n    pass\n", r"apply_rope\.py defines no apply_rope"),
        ("import no_such_module\n", r"apply_rope\.py, line 1: ModuleNotFoundError"),
    ],
)
def test_a_broken_file_is_named_with_its_line(home, text, said):
    (home / "my_qwen2").mkdir()
    (home / "my_qwen2" / "apply_rope.py").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        my_parts()


def test_other_files_of_the_learner_are_left_alone(home, cell):
    (home / "my_qwen2").mkdir()
    (home / "my_qwen2" / "__init__.py").write_text("mine = 1\n", encoding="utf-8")
    (home / "my_qwen2" / "notes.py").write_text("not python at all\n", encoding="utf-8")
    keep(cell(ROPE).apply_rope)
    assert receipt(my_parts()).yours == ("apply_rope",)
    assert (home / "my_qwen2" / "__init__.py").read_text(encoding="utf-8") == "mine = 1\n"


def test_a_kept_part_shows_the_text_that_runs(home, cell):
    for number in range(2):
        keep(cell(ROPE.replace("Turns.", f"Turns, version {number}.")).apply_rope)
        assert f"version {number}" in own_source(my_parts().apply_rope)


@pytest.mark.parametrize("is_checkout", [True, False])
def test_the_home_folder(monkeypatch, tmp_path, is_checkout):
    monkeypatch.delenv("QWEN2LITE_HOME")
    place, here = tmp_path / "place", tmp_path / "here"
    for folder in (place, here):
        folder.mkdir()
    if is_checkout:
        (place / "pyproject.toml").touch()
    monkeypatch.setattr(qwen2lite, "__file__", str(place / "qwen2lite" / "__init__.py"))
    monkeypatch.chdir(here)
    assert learner_home() == (place if is_checkout else here) / "work"


def test_a_file_in_another_encoding_is_named_and_can_be_replaced(home, cell):
    path = home / "my_qwen2" / "apply_rope.py"
    path.parent.mkdir()
    path.write_bytes("# für mich\n".encode("latin-1"))
    with pytest.raises(ValueError, match="apply_rope.py is not UTF-8 .*save it as UTF-8"):
        my_parts()
    keep(cell(ROPE).apply_rope)
    assert my_parts().apply_rope.__name__ == "apply_rope"
    assert len(list((path.parent / "old").iterdir())) == 1
