"""The loss and its gradient against F.cross_entropy, in chunks of any size; documents don't leak."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.train import loss as loss_module
from qwen2lite.train.loader import document_mask, document_numbers
from qwen2lite.train.loss import IGNORED, NextToken, _ChunkedLoss, next_token_loss

EOS = 0


def plain(x_XD, weight_VD, targets_X):
    """What PyTorch makes of it, with all scores at once."""
    return F.cross_entropy(x_XD @ weight_VD.T, targets_X, ignore_index=IGNORED)


def chunked(x_XD, weight_VD, targets_X):
    return _ChunkedLoss.apply(x_XD, weight_VD, targets_X, True)


def some(rows, size, vocabulary, ignored, dtype=torch.float64, seed=0):
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, size, generator=chance, dtype=torch.float64).to(dtype)
    weight = torch.randn(vocabulary, size, generator=chance, dtype=torch.float64).to(dtype)
    targets = torch.randint(vocabulary, (rows,), generator=chance)
    targets[torch.randperm(rows, generator=chance)[:ignored]] = IGNORED
    return x.requires_grad_(), weight.requires_grad_(), targets


def agree(mine, theirs, inputs, **tolerance):
    """Both losses, and the gradients of three times each: what comes from above counts too."""
    x, weight, targets = inputs
    losses = [function(x, weight, targets) for function in (mine, theirs)]
    torch.testing.assert_close(*losses, **tolerance)
    grads = [torch.autograd.grad(3 * loss, (x, weight)) for loss in losses]
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, **tolerance)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 13),
    size=st.integers(1, 7),
    vocabulary=st.integers(2, 11),
    ignored=st.integers(0, 12),
    chunk=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_loss_and_gradients_are_cross_entropys(rows, size, vocabulary, ignored, chunk, seed):
    inputs = some(rows, size, vocabulary, min(ignored, rows - 1), seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loss_module.CHUNK_NUMBERS, "cpu", chunk)
        agree(chunked, plain, inputs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rows", [1, 6, 7, 8, 14, 15])
def test_at_the_borders_of_chunks_in_float32(rows, monkeypatch):
    monkeypatch.setitem(loss_module.CHUNK_NUMBERS, "cpu", 7 * 31)  # seven rows
    agree(chunked, plain, some(rows, 5, 31, rows // 3, torch.float32), rtol=2e-6, atol=2e-6)


def test_autograd_agrees_with_differences():
    x, weight, targets = some(5, 3, 4, 2)
    assert torch.autograd.gradcheck(lambda x, w: chunked(x, w, targets), (x, weight))


def mean_of_all_rows(x, weight, targets):
    return plain(x, weight, targets) * (targets != IGNORED).sum() / len(targets)


def ignored_is_the_last_token(x, weight, targets):
    return F.cross_entropy(x @ weight.T, targets % len(weight))


def last_chunk_dropped(x, weight, targets):
    return plain(x[:8], weight, targets[:8])


@pytest.mark.parametrize("bug", [mean_of_all_rows, ignored_is_the_last_token, last_chunk_dropped])
def test_a_loss_with_a_bug_is_caught(bug):
    with pytest.raises(AssertionError):
        agree(bug, plain, some(11, 5, 9, 4), rtol=1e-3, atol=1e-3)


def test_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]))
    targets = torch.tensor([[0, IGNORED, 2]])
    wanted = -(torch.tensor(0.5).log() + torch.tensor(0.6).log()) / 2
    torch.testing.assert_close(next_token_loss(logits, targets), wanted)


def test_without_a_target_the_loss_is_zero_and_so_is_its_gradient():
    x, weight, targets = some(4, 3, 5, 4)
    for function in (chunked, lambda x, w, t: next_token_loss((x @ w.T)[None], t[None])):
        loss = function(x, weight, targets)
        grads = torch.autograd.grad(loss, (x, weight))
        assert loss.item() == 0 and not any(grad.any() for grad in grads)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ignored", [0, 5])
def test_the_objective_is_the_models_loss(tied, ignored, small, some_batches):
    model = small(tie_word_embeddings=tied)
    ((ids, targets),) = some_batches(1)
    targets = targets.clone()
    targets.flatten()[:ignored] = IGNORED
    grads = []
    for function in (NextToken(model), lambda i, t: next_token_loss(model(i), t)):
        model.zero_grad()
        loss = function(ids, targets)
        loss.backward()
        grads.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(grad.any() for grad in grads[0])
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(NextToken(model)(ids, targets), grads[0][0])


def test_in_bfloat16_it_is_as_near_as_bfloat16_is(small, some_batches):
    model, ((ids, targets),) = small(), some_batches(1)
    results = []
    for enabled in (True, False):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = NextToken(model)(ids, targets)
        loss.backward()
        results.append((loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (rough, rough_grad), (exact, exact_grad) = results
    assert rough.dtype == torch.float32, "the sum over the vocabulary is exact"
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    # bfloat16 keeps 8 bits: 2⁻⁸ = 0.4 % a product, and a few layers of them.
    assert 0 < abs(float(rough - exact)) < 0.02 * float(exact)
    distance = (rough_grad - exact_grad).norm() / exact_grad.norm()
    assert 1e-4 < float(distance) < 0.05


def other_documents_change_nothing(objective):
    """The last document is asked, and tokens of the others are changed, ends left where they are."""
    ids = torch.tensor([[5, 9, EOS, 7, 8, 11, EOS, 20, 21, 22]])
    targets = torch.full_like(ids, IGNORED)
    targets[0, 7:9] = ids[0, 8:]
    loss = objective(ids, targets)
    for place, token in [(0, 33), (1, 34), (4, 35), (5, 36)]:
        other = ids.clone()
        other[0, place] = token
        torch.testing.assert_close(objective(other, targets), loss, rtol=1e-6, atol=0)
    other = ids.clone()
    other[0, 7] = 37
    assert abs((objective(other, targets) - loss).item()) > 1e-4, "its own document counts"


def test_no_token_looks_into_another_document(small):
    model = small()
    other_documents_change_nothing(NextToken(model, EOS))
    with pytest.raises(AssertionError, match="not close"):
        other_documents_change_nothing(NextToken(model))


@pytest.mark.parametrize("leak", ["the end belongs to the next", "the first token looks back"])
def test_a_mask_that_leaks_is_caught(leak, small, monkeypatch):
    def mask(documents_BT):
        good = document_mask(documents_BT)
        if leak == "the first token looks back":
            starts = documents_BT.diff(prepend=documents_BT[:, :1]) > 0
            good = good | (starts[:, None, :, None] & torch.ones_like(good).tril())
        return good

    def numbers(ids_BT, eos):
        shift = leak == "the end belongs to the next"
        return document_numbers(ids_BT, 7 if shift else eos)

    monkeypatch.setattr(loss_module, "document_mask", mask)
    monkeypatch.setattr(loss_module, "document_numbers", numbers)
    with pytest.raises(AssertionError, match="not close"):
        other_documents_change_nothing(NextToken(small(), EOS))


def test_the_masked_loss_is_that_of_each_document_by_itself(small):
    model = small()
    documents = [[5, 9, EOS], [7, 8, 11, EOS], [20, 21, 22]]
    ids = torch.tensor([[token for document in documents for token in document]])
    targets = torch.cat((ids[:, 1:], torch.tensor([[EOS]])), dim=1)
    losses, start = [], 0
    for document in documents:
        logits = model(torch.tensor([document]))[0]
        wanted = targets[0, start : start + len(document)]
        losses.append(F.cross_entropy(logits, wanted, reduction="none"))
        start += len(document)
    # Rotary attention sees only distances, so each may begin at any position.
    torch.testing.assert_close(
        NextToken(model, EOS)(ids, targets), torch.cat(losses).mean(), rtol=1e-5, atol=1e-6
    )
