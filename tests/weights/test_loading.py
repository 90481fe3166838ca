"""Config, weights and parts that don't belong together: each misfit is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from qwen2lite import Qwen2
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.qwen2 import Parts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": 3}, r"has no model\.layers\.2\..* asks for"),
        ({"num_hidden_layers": 1}, r"has no model\.layers\.1\..*which the checkpoint holds \(and"),
        ({"vocab_size": 72}, r"embed_tokens\.weight has shape \[71, 32\].*wants \[72, 32\]"),
        ({"intermediate_size": 41}, r"mlp\.\w+\.weight has shape .*SwiGLU wants \[41, 32\]"),
        ({"hidden_size": 64}, r"has shape \[71, 32\]"),
        ({"num_key_value_heads": 4}, r"k_proj\.weight has shape \[16, 32\].*wants \[32, 32\]"),
        ({"num_key_value_heads": 3}, "can't share"),
        ({"num_attention_heads": 5}, "does not divide"),
        ({"tie_word_embeddings": False}, r"has no lm_head\.weight \[71, 32\]"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"vocab_size": None}, "the config has no vocab_size"),
    ],
)
def test_a_config_that_contradicts_its_weights(changes, says, hf_folder):
    path = hf_folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        Qwen2.from_pretrained(hf_folder, device="cpu")


def edit(folder, **changes: torch.Tensor | None) -> None:
    """Replaces tensors; None takes one out."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | {name.replace("__", "."): t for name, t in changes.items()}
    kept = {name: t.clone() for name, t in tensors.items() if t is not None}
    path.unlink()
    save_file(kept, path, metadata={"format": "pt"})


def test_a_checkpoint_without_one_tensor(hf_folder):
    edit(hf_folder, model__norm__weight=None)
    with pytest.raises(ValueError, match=r"has no model\.norm\.weight \[32\], which RMSNorm asks"):
        Qwen2.from_pretrained(hf_folder, device="cpu")


def test_a_checkpoint_with_one_tensor_too_many(hf_folder):
    edit(hf_folder, model__norm__bias=torch.ones(32))
    with pytest.raises(ValueError, match=r"RMSNorm has no model\.norm\.bias \[32\], .* holds$"):
        Qwen2.from_pretrained(hf_folder, device="cpu")


def test_a_tied_checkpoint_that_stores_its_matrix_twice_is_fine(hf_folder):
    plain = Qwen2.from_pretrained(hf_folder, dtype=torch.float32, device="cpu")
    edit(hf_folder, lm_head__weight=plain.model.embed_tokens.weight.detach())
    twice = Qwen2.from_pretrained(hf_folder, dtype=torch.float32, device="cpu")
    ids_BT = torch.arange(9)[None]
    assert torch.equal(plain(ids_BT), twice(ids_BT))


def test_a_tied_output_layer_with_numbers_of_its_own_is_refused(hf_folder):
    plain = Qwen2.from_pretrained(hf_folder, dtype=torch.float32, device="cpu")
    head_VD = plain.model.embed_tokens.weight.detach().clone()
    head_VD[70, 31] += 0.25
    edit(hf_folder, lm_head__weight=head_VD)
    with pytest.raises(ValueError, match="set tie_word_embeddings to false"):
        Qwen2.from_pretrained(hf_folder, device="cpu")


class ForgotDown(SwiGLU):
    """A learner's MLP that lacks one of its matrices."""

    def __init__(self, size: int, width: int):
        super().__init__(size, width)
        del self.down_proj


class ExtraBias(RMSNorm):
    """A learner's norm with a parameter that no checkpoint has."""

    def __init__(self, size: int, eps: float):
        super().__init__(size, eps)
        self.bias = nn.Parameter(torch.zeros(size))


class Transposed(SwiGLU):
    """A learner's MLP whose first matrix lies on its side."""

    def __init__(self, size: int, width: int):
        super().__init__(size, width)
        self.gate_proj = nn.Linear(width, size, bias=False)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (Parts(mlp=ForgotDown), r"ForgotDown has no model\.layers\.0\.mlp\.down_proj\.weight"),
        (Parts(norm=ExtraBias), r"has no model\.layers\.0\.\w+\.bias \[32\], which ExtraBias asks"),
        (Parts(mlp=Transposed), r"gate_proj.* \[40, 32\] .* Transposed wants \[32, 40\]"),
    ],
)
def test_a_learners_part_with_other_parameters_is_named(parts, says, hf_folder):
    with pytest.raises(ValueError, match=says):
        Qwen2.from_pretrained(hf_folder, device="cpu", parts=parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_parameter_has_the_dtype_that_was_asked_for(dtype, hf_folder):
    model = Qwen2.from_pretrained(hf_folder, dtype=dtype, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert not model.training
