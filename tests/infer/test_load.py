"""Names of number formats, and what they load."""

import subprocess
import sys

import pytest
import torch

from qwen2lite import Parts, Qwen2
from qwen2lite.infer.compile import CompiledQwen2
from qwen2lite.infer.load import form, load, weight_bytes
from qwen2lite.infer.packed import PackedQwen2
from qwen2lite.infer.products import TileLinear
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.model.mlp import SwiGLU

TINY = REPOSITORY / "data" / "qwen2-tiny"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN2LITE_CACHE", str(tmp_path))


@pytest.mark.parametrize("kind", ["float32", "int8", "int4"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_format_is_what_is_loaded(kind, compiled):
    model = load(TINY, kind, "cpu", compiled)
    assert form(model) == kind + ", compiled" * compiled
    assert isinstance(model, CompiledQwen2) == compiled


class OwnMLP(SwiGLU):
    """As a learner writes one."""


def test_own_parts_run_as_they_were_written():
    model = load(TINY, "bfloat16", "cpu", parts=Parts(mlp=OwnMLP))
    assert isinstance(model.model.layers[0].mlp, OwnMLP)
    assert model.dtype == torch.bfloat16


def test_what_does_not_go_together_says_so():
    with pytest.raises(ValueError, match=r"weights come as auto, .*, int4, not as 'int3'"):
        load(TINY, "int3")
    with pytest.raises(ValueError, match="int4 weights run on a CPU .* not with your own parts"):
        load(TINY, "int4", "cpu", parts=Parts())


def test_loading_brings_no_compiler_along():
    """Dynamo takes a second to import, half of the time to a first token."""
    program = (
        "import sys, qwen2lite.infer.load, qwen2lite.infer.ahead, qwen2lite.train.loop\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="not checked: this processor's PyTorch has no FBGEMM",
)
def test_weights_are_counted_in_tiles_too():
    model = Qwen2.from_pretrained(TINY, torch.bfloat16, "cpu")
    assert weight_bytes(model) == 2 * sum(weight.numel() for weight in model.parameters())
    # Tiles are float16, their biases float32; the tied output layer is packed beside the embedding.
    head = model.output_weight_VD.numel()
    assert weight_bytes(PackedQwen2(model, TileLinear)) > weight_bytes(model) + 2 * head
    assert weight_bytes(model, model) == weight_bytes(model)
