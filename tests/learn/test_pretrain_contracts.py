"""The contracts of lesson 43 accept every right answer and tell wrong ones in a clear sentence."""

import copy
import math
from collections import defaultdict
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from qwen2lite.learn.disk import Disk, PowerCut
from qwen2lite.train.gradients import accumulate
from qwen2lite.train.loss import next_token_loss
from tests.learn.verdict import verdict


def loss_by_gather(logits, targets):
    asked = targets != -100
    logp = logits.float().log_softmax(-1)
    picked = logp.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(picked * asked).sum() / max(int(asked.sum()), 1)


def loss_by_logsumexp(logits, targets):
    rows, wanted = logits[targets != -100].float(), targets[targets != -100]
    if not len(wanted):
        return logits.float().sum() * 0
    return (rows.logsumexp(-1) - rows[torch.arange(len(rows)), wanted]).mean()


def loss_by_kernel(logits, targets):
    if (targets == -100).all():
        return torch.zeros((), requires_grad=True)
    return F.cross_entropy(logits.float().transpose(1, 2), targets)


def accumulate_by_sums(objective, batches):
    """Adds up sums, and divides the gradient afterwards."""
    total, counted = 0.0, 0
    for ids, targets in batches:
        count = int((targets != -100).sum())
        loss = objective(ids, targets) * count
        loss.backward()
        total, counted = total + loss.detach(), counted + count
    for parameter in objective.parameters():
        parameter.grad /= counted
    return total / counted


def accumulate_by_grad(objective, batches):
    """With torch.autograd.grad, and nothing for a batch without targets."""
    batches = [b for b in batches if (b[1] != -100).any()]
    total = sum(int((targets != -100).sum()) for _, targets in batches)
    parameters, mean = list(objective.parameters()), torch.tensor(0.0)
    for batch in batches:
        share = int((batch[1] != -100).sum()) / total
        loss = objective(*batch)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g * share if p.grad is None else p.grad + g * share
        mean += loss.item() * share
    return mean


def step_with_torch(objective, batches, optimizer, learning_rate, max_norm):
    optimizer.zero_grad()
    for group in optimizer.param_groups:
        group.update(lr=learning_rate)
    loss = accumulate(objective, batches)
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), max_norm)
    if not (loss.isfinite() and norm.isfinite()):
        raise ValueError("broken")
    optimizer.step()
    optimizer.zero_grad()
    return loss


def step_that_clears_first(objective, batches, optimizer, learning_rate, max_norm):
    for parameter in objective.parameters():
        parameter.grad = None
    loss = float(accumulate_by_sums(objective, batches))
    try:
        torch.nn.utils.clip_grad_norm_(objective.parameters(), max_norm, error_if_nonfinite=True)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    optimizer.param_groups[0]["lr"] = learning_rate
    optimizer.step()
    return loss


def step_by_norms(objective, batches, optimizer, learning_rate, max_norm):
    optimizer.param_groups[0]["lr"] = learning_rate
    loss = accumulate_by_grad(objective, batches)
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in objective.parameters()))
    if math.isnan(norm) or math.isinf(norm) or math.isnan(loss):
        raise ValueError(norm)
    for parameter in objective.parameters():
        parameter.grad *= min(1, max_norm / norm)
    optimizer.step()
    objective.zero_grad()
    return loss.item()


def snapshot_by_deepcopy(model, optimizer, loader):
    return copy.deepcopy(
        {
            "random": torch.get_rng_state(),
            "loader": loader.state_dict(),
            "optimizer": optimizer.state_dict(),
            "model": model.state_dict(),
        }
    )


def snapshot_by_copies(model, optimizer, loader):
    twin, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    place = dict(loader.state_dict())
    chance = torch.random.get_rng_state()
    return {"model": twin.state_dict(), "optimizer": state, "loader": place, "random": chance}


def snapshot_by_bytes(model, optimizer, loader):
    import io

    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, means = torch.load(file, weights_only=True)
    rest = {"loader": loader.state_dict(), "random": torch.get_rng_state()}
    return {"model": weights, "optimizer": means, **rest}


def save_aside(disk, name, content):
    disk.write("aside", content)
    disk.sync("aside")
    disk.rename("aside", name)


def save_after_sweeping(disk, name, content):
    part = f".{name}"
    for left_over in [n for n in disk.names() if n != name]:
        disk.delete(left_over)
    disk.write(part, content)
    disk.sync(part)
    disk.rename(part, name)
    disk.sync(name)


def save_twice(disk, name, content):
    """Longer than need be, but there is always a whole one under the name."""
    for part in ("one", "two"):
        disk.write(part, content)
        disk.sync(part)
        disk.rename(part, name)


def bigrams_by_loops(train, text, vocab_size):
    total = 0.0
    for a, b in pairwise(text):
        after = [train[i + 1] for i in range(len(train) - 1) if train[i] == a]
        total += math.log2((len(after) + vocab_size) / (after.count(b) + 1))
    return 2 ** (total / (len(text) - 1))


def bigrams_by_table(train, text, vocab_size):
    counts = torch.ones(vocab_size, vocab_size, dtype=torch.double)
    for a, b in pairwise(train):
        counts[a, b] += 1
    p = counts / counts.sum(-1, keepdim=True)
    return float(p[text[:-1], text[1:]].log().mean().neg().exp())


def bigrams_by_product(train, text, vocab_size):
    seen = defaultdict(list)
    for place, token in enumerate(train[:-1]):
        seen[token].append(train[place + 1])
    product = 1.0
    for a, b in pairwise(text):
        product *= (seen[a].count(b) + 1) / (len(seen[a]) + vocab_size)
    return product ** (-1 / (len(text) - 1))


RIGHT = {
    "next_token_loss": (loss_by_gather, loss_by_logsumexp, loss_by_kernel),
    "accumulate": (accumulate_by_sums, accumulate_by_grad, lambda o, b: accumulate(o, b)),
    "training_step": (step_with_torch, step_that_clears_first, step_by_norms),
    "snapshot": (snapshot_by_deepcopy, snapshot_by_copies, snapshot_by_bytes),
    "mended_save": (save_aside, save_after_sweeping, save_twice),
    "bigram_perplexity": (bigrams_by_loops, bigrams_by_table, bigrams_by_product),
}


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name, parts in RIGHT.items() for part in parts]
)
def test_right_answers_pass_however_they_are_written(name, part):
    result = verdict(name, part)
    assert result.state == "right", result


def test_the_packages_own_loss_is_right():
    held = verdict("next_token_loss", next_token_loss)
    assert held.state == "right" and "not your work" in held.note


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("next_token_loss", lambda s, t: 1.0, "returned a float, and a tensor"),
        ("next_token_loss", lambda s, t: loss_by_gather(s, t).detach(), "stops the gradient"),
        ("next_token_loss", lambda s, t: loss_by_gather(s, t) + 1, "1.3863, and yours is 2.3863"),
        ("accumulate", lambda o, b: torch.tensor(3.0), "no parameter has a gradient"),
        ("accumulate", lambda o, b: None, "returned None"),
        ("accumulate", lambda o, b: 3.0, "returned 3.0; the mean loss"),
        ("training_step", lambda *_: "done", "returned 'done'; the loss"),
        ("training_step", lambda o, b, *_: accumulate(o, b).item(), "yours are 3, 1, 3, 1"),
        ("snapshot", lambda m, o, loader: m.state_dict(), "a dict with loader, model"),
        (
            "snapshot",
            lambda *run: snapshot_by_copies(*run) | {"random": torch.tensor(1.0)},
            "can't be loaded",
        ),
        ("mended_save", lambda disk, name, content: None, "'the weights of step 100'; wanted"),
        ("mended_save", lambda d, n, c: [d.write(x, c) for x in (n, "b")], "there is b when all"),
        ("mended_save", lambda disk, name, content: disk.read("part"), "KeyError"),
        ("bigram_perplexity", lambda train, text, size: None, "returned None"),
        ("bigram_perplexity", lambda train, text, size: "2", "a number was wanted"),
        ("bigram_perplexity", lambda train, text, size: 3, "is 2.3333, and yours is 3.0000"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result


def test_a_check_leaves_the_learners_random_numbers_alone():
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    verdict("snapshot", snapshot_by_deepcopy)
    assert torch.equal(torch.rand(2), want)


def test_a_pretended_disk_keeps_what_was_synced_and_every_name():
    disk = Disk({"a": "old"})
    disk.write("b", "new")
    assert disk.read("b") == "new" and disk.after_a_power_cut() == {"a": "old", "b": ""}
    disk.rename("b", "a")
    assert disk.names() == ["a"] and disk.after_a_power_cut() == {"a": ""}
    disk.sync("a")
    assert disk.after_a_power_cut() == {"a": "new"}
    disk.delete("a")
    assert disk.names() == []


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_power_goes_off_in_the_middle_of_an_operation(power):
    disk = Disk({"a": "old"}, power)
    with pytest.raises(PowerCut):
        save_aside(disk, "a", "new text")
    assert disk.after_a_power_cut()["a"] == "old"
    assert power or disk.read("aside") == "new "
