"""The doctor names the part that is wrong, whatever case brings it to light, and no right one."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from qwen2lite import Parts
from qwen2lite.learn import contract
from qwen2lite.learn.doctor import doctor
from qwen2lite.model.attention import attend
from qwen2lite.model.norm import RMSNorm
from tests.learn.test_contracts import MUTANTS, rope_by_matrices, rope_by_roll

PARTS = {field.name for field in fields(Parts)}
OF_THE_MODEL = [param for param in MUTANTS if param.values[0] in PARTS]


@pytest.mark.parametrize(("part", "mutant"), OF_THE_MODEL)
def test_every_mutant_is_found_at_its_place_with_its_cause(part, mutant):
    found = doctor(replace(Parts(), **{part: mutant}))
    assert found.part == part, str(found)
    assert found.cause == " ".join(mutant.__doc__.split())
    assert found.place in str(found) and found.case in str(found)


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"attend": attend},
        {"apply_rope": rope_by_matrices},
        {"apply_rope": rope_by_roll, "attend": attend},
    ],
)
def test_right_parts_are_healthy_however_they_are_written(right):
    found = doctor(Parts(**right))
    assert found.healthy and found.places > 100
    assert "agree at all" in str(found)


class Drops(RMSNorm):
    def forward(self, x_BTD):
        return nn.functional.dropout(super().forward(x_BTD), 0.5, self.training)


def test_parts_are_looked_at_as_they_answer_and_not_as_they_train():
    found = doctor(Parts(norm=Drops))
    assert found.case == "beside the model" and found.places > 300


def test_a_model_without_weights_is_built_at_once():
    """The first random number asked of the meta device costs two seconds of imports."""
    code = """
import sys
from qwen2lite import CONFIGS, Parts
from qwen2lite.learn.keep import without_weights
model = without_weights(CONFIGS["qwen2-0.5b"], Parts())
assert model.device.type == "meta" and not model.training
assert "sympy" not in sys.modules, "a second or more"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class OtherNames(nn.Module):
    def __init__(self, size, width):
        super().__init__()
        self.gate = nn.Linear(size, width, bias=False)


def test_weights_of_other_names_are_named():
    found = doctor(Parts(mlp=OtherNames))
    assert found.part == "mlp" and "layers.0.mlp" in found.difference


class Raises(RMSNorm):
    def forward(self, x_BTD):
        raise RuntimeError("sizes don't match")


def test_a_part_that_raises_is_named():
    found = doctor(Parts(norm=Raises))
    assert found.part == "norm" and "sizes don't match" in found.difference


def far_away(positions_T, frequencies_R):
    angles_TR = positions_T.clamp(max=1000)[:, None] * frequencies_R
    angles_TH = torch.cat((angles_TR, angles_TR), dim=-1)
    return angles_TH.cos(), angles_TH.sin()


def test_what_is_wrong_far_into_a_text_only_is_found_there():
    found = doctor(Parts(rotary_tables=far_away))
    assert found.part == "rotary_tables" and "2,304" in found.case


def test_an_endless_part_is_named_by_its_check(monkeypatch):
    monkeypatch.setattr(contract, "TIME_LIMIT", 0.2)

    def endless(q, k, v, mask=None):
        while True:
            q = q + 0

    found = doctor(Parts(attend=endless))
    assert found.part == "attend" and "before any model" in str(found)
    assert "A loop in it never ends" in found.cause and "still running" in str(found)
