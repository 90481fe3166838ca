"""Where parts are given to others, in chunks and among experts, the doctor blames the right one."""

import pytest
import torch
from torch import nn

from qwen2lite import Parts
from qwen2lite.learn.doctor import doctor
from qwen2lite.model.dca import DualChunkAttention
from qwen2lite.model.moe import MixtureOfExperts
from tests.learn import test_long_contracts, test_moe_contracts
from tests.learn.test_long_contracts import attended_row_by_row
from tests.learn.test_moe_contracts import LayerInBatches, NoExperts, routed_by_sorting

IN_A_MODEL = [
    {name: part}
    for name, part in [*test_long_contracts.RIGHT, *test_moe_contracts.RIGHT]
    if name in vars(Parts())
]
IN_A_MODEL += [{"route": routed_by_sorting, "moe": LayerInBatches}]


@pytest.mark.parametrize("right", IN_A_MODEL, ids=lambda right: "-".join(right))
def test_right_parts_are_healthy_however_they_are_written(right):
    found = doctor(Parts(**right))
    assert found.healthy, found


def test_the_doctor_blames_who_gave_a_part_what_it_got():
    """apply_rope is the package's own, and it is in its answer that a wrong layer shows first."""

    class TooLoud(DualChunkAttention):
        def _growth(self, length, q_BNTH):
            return 2 * super()._growth(length, q_BNTH)

    found = doctor(Parts(dca=TooLoud))
    assert found.part == "dca" and found.place == "layer 0, apply_rope"


def test_the_doctor_finds_the_wrong_one_of_two():
    """A right dca_attend of the learner's own merges in pieces of its own, and they are wrong."""

    def averaged(mixed, lse):
        return torch.stack(tuple(mixed)).mean(0)

    found = doctor(Parts(dca_attend=attended_row_by_row, merge_pieces=averaged))
    assert found.part == "merge_pieces" and "The pieces are averaged" in found.cause


class RaisesInChunks(DualChunkAttention):
    def forward(self, x_BTD, *rest):
        raise RuntimeError("sizes don't match")


def test_a_layer_in_chunks_that_raises_is_named():
    found = doctor(Parts(dca=RaisesInChunks))
    assert found.part == "dca" and "in dual chunks" in found.case
    assert "sizes don't match" in found.difference


def test_weights_of_other_names_in_chunks_are_named():
    found = doctor(Parts(dca=lambda config, *_: nn.Linear(config.hidden_size, 3)))
    assert found.part == "dca" and found.place == "the weights"


class LooksElsewhere(MixtureOfExperts):
    """Asks the router about twice the vector."""

    def forward(self, x_BTD):
        x_XD = x_BTD.flatten(0, 1)
        weights, chosen = self.route(self.gate(2 * x_XD), 2, self.norm_topk_prob)
        shared = self.shared_expert_gate(x_BTD).sigmoid() * self.shared_expert(x_BTD)
        return self.experts(x_XD, weights, chosen).view_as(x_BTD) + shared


def test_the_doctor_sees_the_routers_scores():
    found = doctor(Parts(moe=LooksElsewhere))
    assert found.place == "layer 0, mlp.gate" and found.part == "moe"
    assert found.case == "a model with experts"


def test_the_doctor_blames_the_layer_for_what_the_packages_route_was_given():
    class Doubled(MixtureOfExperts):
        def forward(self, x_BTD):
            self.num_experts_per_tok = 3
            return super().forward(x_BTD)

    found = doctor(Parts(moe=Doubled))
    assert found.place == "layer 0, route" and found.part == "moe"


def test_weights_of_other_names_are_named():
    found = doctor(Parts(moe=NoExperts))
    assert found.part == "moe" and ".mlp." in found.difference


def test_a_wrong_route_beside_a_right_layer_is_named():
    def forgotten(logits, number, norm):
        return routed_by_sorting(logits, number, True)

    found = doctor(Parts(moe=LayerInBatches, route=forgotten))
    assert found.place == "layer 0, route" and found.part == "route"
    assert "come to 1" in found.cause
