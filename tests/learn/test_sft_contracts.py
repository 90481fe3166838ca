"""The contracts of lesson 71's tasks accept every right answer and tell wrong ones clearly."""

import math

import pytest
import torch
import torch.nn.functional as F

from qwen2lite.align import sft
from qwen2lite.learn.mutants import sft as mutants
from qwen2lite.learn.mutants import sft_tasks
from qwen2lite.text.chat import default_system, encode_chat, with_system
from qwen2lite.train.loss import IGNORED, next_token_loss
from tests.learn.verdict import verdict


def share_by_count(targets):
    return 1 - list(targets).count(IGNORED) / len(targets)


def share_by_tensor(targets):
    return torch.tensor(targets).ne(IGNORED).float().mean()


def targets_by_the_package(tokenizer, messages, system=None):
    return sft.answer_targets(tokenizer, messages, system)


def targets_by_prompts(tokenizer, messages, system=None):
    """Each answer goes behind what a chat up to it would be."""
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("no answer")
    newline, ids, learnt = tokenizer.encode("\n"), [], set()
    prompt = default_system(tokenizer) if system is None else system
    for message in with_system(messages, prompt):
        if message["role"] == "assistant":
            ids += tokenizer.encode("<|im_start|>assistant\n")
            answer = [
                *tokenizer.encode(message["content"], "none"),
                *tokenizer.encode("<|im_end|>"),
            ]
            learnt |= set(range(len(ids), len(ids) + len(answer)))
            ids += answer + newline
        else:
            closed = encode_chat(tokenizer, [{"role": "system", "content": ""}, message], "", False)
            ids += closed[
                len(encode_chat(tokenizer, [{"role": "system", "content": ""}], "", False)) :
            ]
            if message["role"] == "system":
                ids = encode_chat(tokenizer, [message], "", False)
    return ids, [ids[i + 1] if i + 1 in learnt else IGNORED for i in range(len(ids))]


def targets_in_one_pass(tokenizer, messages, system=None):
    """Written down one place early from the beginning; given back as a list of two tuples."""
    special = tokenizer.special_tokens
    if messages[0]["role"] != "system":
        said = default_system(tokenizer) if system is None else system
        messages = [{"role": "system", "content": said}, *messages]
    ids, targets = [], []

    def write(tokens, learn=False):
        ids.extend(tokens)
        targets.extend(tokens if learn else [IGNORED] * len(tokens))

    for role, content in (message.values() for message in messages):
        write([special["<|im_start|>"]])
        if role == "assistant":
            write(tokenizer.encode(role + "\n", "none"))
            write(tokenizer.encode(content, set()), True)
            write([special["<|im_end|>"]], True)
        else:
            write(tokenizer.encode(f"{role}\n{content}", "none"))
            write([special["<|im_end|>"]])
        write(tokenizer.encode("\n"))
    if set(targets) == {IGNORED}:
        raise ValueError("nothing to learn")
    return [tuple(ids), (*targets[1:], IGNORED)]


def rows_by_slices(lengths, room):
    rows, begin = [], 0
    while begin < len(lengths):
        end = begin + 1
        while end < len(lengths) and sum(lengths[begin : end + 1]) + end + 1 - begin <= room:
            end += 1
        rows.append(tuple(range(begin, end)))
        begin = end
    return rows


def rows_by_what_is_left(lengths, room):
    rows, left = [], 0
    for number, length in enumerate(lengths):
        if length >= left:
            rows, left = [*rows, []], room
        rows[-1].append(number)
        left -= length + 1
    return rows


def rows_kept_at_the_end(lengths, room):
    rows, row = [], []
    for number in range(len(lengths)):
        if sum(lengths[n] + 1 for n in [*row, number]) > room:
            rows.append(row)
            row = []
        row = [*row, number]
    return (*rows, row)


def loss_by_the_package(logits_TV, targets_T):
    return next_token_loss(logits_TV[None], targets_T[None])


def loss_of_the_asked(logits_TV, targets_T):
    asked_T = targets_T != IGNORED
    if not asked_T.any():
        return torch.tensor(0.0)
    logp_XV = logits_TV[asked_T].float().log_softmax(-1)
    return -logp_XV.gather(1, targets_T[asked_T, None]).mean()


def loss_by_loop(logits_TV, targets_T):
    losses = []
    for logits_V, target in zip(logits_TV.float(), targets_T.tolist(), strict=True):
        if target != IGNORED:
            losses.append(logits_V.logsumexp(0) - logits_V[target])
    return sum(losses) / len(losses) if losses else torch.zeros(())


def mean_by_tensors(losses, counts):
    losses, counts = torch.tensor(losses), torch.tensor(counts)
    return (losses @ counts.float()) / counts.sum()


def mean_of_everybody(losses, counts):
    each = [loss for loss, count in zip(losses, counts, strict=True) for _ in range(count)]
    return math.fsum(each) / len(each)


RIGHT = [
    ("share_learnt", share_by_count),
    ("share_learnt", share_by_tensor),
    ("share_learnt", lambda targets: len([t for t in targets if t != -100]) / len(targets)),
    ("answer_targets", targets_by_the_package),
    ("answer_targets", targets_by_prompts),
    ("answer_targets", targets_in_one_pass),
    ("fill_rows", rows_by_slices),
    ("fill_rows", rows_by_what_is_left),
    ("fill_rows", rows_kept_at_the_end),
    ("asked_loss", loss_by_the_package),
    ("asked_loss", loss_of_the_asked),
    ("asked_loss", loss_by_loop),
    ("mended_mean", lambda x, n: sum(a * b for a, b in zip(x, n, strict=True)) / sum(n)),
    ("mended_mean", mean_by_tensors),
    ("mended_mean", mean_of_everybody),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def the_whole_turn(tokenizer, messages, system=None):
    """Learns all of the assistant's turns. None of the mutants gives the same."""
    pieces = mutants.pieces_of(tokenizer, messages, system)
    return mutants.learnt_of(pieces, lambda piece: piece.role == "assistant")


def ends_by_their_id(tokenizer, messages, system=None):
    """Learns answers, and the ends and starts of all turns."""
    ids, targets = sft.answer_targets(tokenizer, messages, system)
    control = set(tokenizer.special_tokens.values())
    after = [*ids[1:], IGNORED]
    return ids, [b if b in control else a for a, b in zip(targets, after, strict=True)]


def believes_the_assistant(tokenizer, messages, system=None):
    pieces = mutants.pieces_of(tokenizer, messages, system)
    believed = mutants.pieces_of(tokenizer, messages, system, allowed="all")
    return mutants.learnt_of(
        [b if b.role == "assistant" else a for a, b in zip(pieces, believed, strict=True)]
    )


def system_put_in(tokenizer, messages, system=None):
    if messages[0]["role"] != "system":
        said = default_system(tokenizer) if system is None else system
        messages.insert(0, {"role": "system", "content": said})
    return sft.answer_targets(tokenizer, messages, system)


def careless(tokenizer, messages, system=None):
    """Without an answer it finds no last one."""
    [message for message in messages if message["role"] == "assistant"][-1]
    return sft.answer_targets(tokenizer, messages, system)


@pytest.mark.parametrize(
    ("part", "said", "why"),
    [
        (
            the_whole_turn,
            "<|im_start|>, in the header of the assistant's turn, is",
            "header of the",
        ),
        (ends_by_their_id, "<|im_end|>, at the end of the system's turn, is learnt", "other turns"),
        (believes_the_assistant, "is <|im_start|>, and '<' was wanted, in what the assistant", ""),
        (system_put_in, "The list of messages was changed", "makes a new one"),
        (careless, "raised IndexError, and should raise a ValueError", ""),
        (lambda t, m, s: sft.answer_targets(t, m, s)[::-1], "ids[0] is -100 (no token)", ""),
        (lambda t, m, s: ([1], [1]), "<|im_start|> was wanted", ""),
        (lambda t, m, s: ([], []), "31 ids and as many targets were wanted; there are 0", ""),
        (lambda t, m, s: sft.answer_targets(t, m, s)[1], "two lists of whole numbers", ""),
        (lambda t, m, s: torch.zeros(2, 3), "returned float32 [2, 3]; two lists", ""),
        (lambda t, m, s: ([1.5], [2]), "returned ([1.5], [2]); two lists of whole", ""),
        (lambda t, m, s: None, "returned None", "`return`"),
        (lambda t, m: None, "TypeError", ""),
    ],
)
def test_which_token_is_wrong_is_told(part, said, why):
    result = verdict("answer_targets", part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong
    assert why in result.reason, result.reason


def test_a_target_behind_the_last_token_is_told():
    def round_the_corner(tokenizer, messages, system):
        ids, targets = sft.answer_targets(tokenizer, messages, system)
        return ids, [*targets[:-1], ids[0]]

    said = verdict("answer_targets", round_the_corner).wrong
    assert "targets[30] asks for <|im_start|>, and after '\\n', which is ids[30], nothing" in said


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("share_learnt", lambda targets: targets, "returned list; one number was wanted"),
        ("share_learnt", lambda targets: True, "returned True; one number"),
        ("share_learnt", lambda targets: math.nan, "0.25 is learnt, and yours is nan"),
        ("share_learnt", lambda targets: 25, "0.25 is learnt, and yours is 25"),
        ("fill_rows", lambda lengths, room: 3, "returned 3; a list of rows"),
        ("fill_rows", lambda lengths, room: [0, 1], "returned [0, 1]; a list of rows"),
        ("fill_rows", lambda lengths, room: [[0.5]], "returned [[0.5]]; a list of rows"),
        ("fill_rows", lambda lengths, room: iter([]), "list_iterator; a list of rows"),
        ("fill_rows", lambda lengths, room: [], "hold [], and [[0, 1], [2], [3]] was wanted"),
        ("asked_loss", lambda x, t: 1.5, "returned a float, and a tensor float32 []"),
        ("asked_loss", lambda x, t: x.sum(-1), "returned float32 [2], and float32 []"),
        ("asked_loss", lambda x, t: loss_by_loop(x, t).double(), "returned float64 []"),
        ("asked_loss", lambda x, t: loss_by_loop(x.detach(), t), "stops the gradient"),
        ("asked_loss", lambda x, t: loss_by_loop(x, t.clamp_(0)), "changed a tensor"),
        ("asked_loss", lambda x, t: 2 * loss_by_loop(x, t), "is 1.3863, and yours is 2.7726"),
        ("mended_mean", lambda x, n: x, "returned list; one number"),
        ("mended_mean", lambda x, n: 7, "is 1.25, and yours is 7"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


@pytest.mark.parametrize("in_float32", [True, False])
def test_a_loss_in_16_bits_is_known_in_another_hand(in_float32):
    def narrow(logits_TV, targets_T):
        asked = max(1, int((targets_T != IGNORED).sum()))
        loss = F.cross_entropy(logits_TV, targets_T, ignore_index=IGNORED, reduction="sum") / asked
        return loss.float() if in_float32 else loss

    assert "turn the logits into float32" in verdict("asked_loss", narrow).reason


@pytest.mark.parametrize("name", sorted(mutants.MUTANTS | sft_tasks.MUTANTS))
def test_a_mistake_that_nobody_foresaw_gets_no_reason(name):
    """Better none than another one's."""

    def odd(*inputs):
        return {"fill_rows": [[7]], "answer_targets": ([7], [7])}.get(name, torch.tensor(7.0))

    result = verdict(name, odd)
    assert (result.state, result.reason) == ("wrong", "")
