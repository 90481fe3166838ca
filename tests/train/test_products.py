"""oneDNN's products and their gradients against PyTorch's own, alone and in an objective."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite import CONFIGS, Qwen2
from qwen2lite.model import device
from qwen2lite.train import products
from qwen2lite.train.loss import NextToken
from qwen2lite.train.products import onednn_is_faster, use_fastest_products

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="not checked: this PyTorch has no oneDNN"
)
SHAPE = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2,
}  # fmt: skip


def objective() -> NextToken:
    torch.manual_seed(0)
    return NextToken(Qwen2(replace(CONFIGS["qwen2-0.5b"], **SHAPE, initializer_range=0.2)))


@pytest.fixture
def onednn(monkeypatch):
    """oneDNN's products whatever this processor is faster with."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)


@pytest.mark.parametrize("shape", [(7, 48), (3, 5, 48)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_layer_and_its_gradients_are_linears(shape, with_bias, onednn):
    layer, x = nn.Linear(48, 31, bias=with_bias), torch.randn(shape, requires_grad=True)
    plain = F.linear(x, layer.weight, layer.bias)
    inputs = [x, *layer.parameters()]
    want = torch.autograd.grad(plain.square().sum(), inputs)
    use_fastest_products(layer)
    got = layer(x)
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(torch.autograd.grad(got.square().sum(), inputs), want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_loss_and_gradients_of_a_model_stay(compiled, onednn):
    ids_BT = torch.randint(0, 97, (2, 19), generator=torch.Generator().manual_seed(0))
    found = []
    for own in (False, True):
        one = objective()
        if own:
            use_fastest_products(one)
            assert one.product is products.onednn_product
        if own and compiled:
            one.compile()
        loss = one(ids_BT[:, :-1], ids_BT[:, 1:])
        loss.backward()
        found.append({"loss": loss.detach(), **{n: p.grad for n, p in one.named_parameters()}})
    assert found[0].keys() == found[1].keys()
    for name, want in found[0].items():
        torch.testing.assert_close(found[1][name], want, rtol=1e-4, atol=1e-6, msg=name)


def test_a_copy_of_a_changed_model_has_layers_of_its_own(onednn):
    one = objective()
    use_fastest_products(one)
    two = copy.deepcopy(one)
    nn.init.zeros_(two.model.model.layers[0].mlp.down_proj.weight)
    x_BTD = torch.randn(1, 3, 48)
    assert not two.model.model.layers[0].mlp(x_BTD).any()
    assert one.model.model.layers[0].mlp(x_BTD).any()


def test_where_it_is_no_faster_or_not_there_nothing_changes(monkeypatch):
    def missing(a, b):
        raise AttributeError("no such operation")

    monkeypatch.setattr(products, "onednn_product", missing)
    threads = torch.get_num_threads()
    assert onednn_is_faster.__wrapped__() is False
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    one = objective()
    use_fastest_products(one)
    assert all("forward" not in vars(module) for module in one.modules())


def test_it_is_taken_only_where_it_is_clearly_faster(monkeypatch):
    seconds = {products.product: 1.4, products.onednn_product: 1.0}
    monkeypatch.setattr(device, "_seconds", lambda run: seconds[run.func])
    assert onednn_is_faster.__wrapped__() is False
    seconds[products.product] = 1.6
    assert onednn_is_faster.__wrapped__() is True
