"""What a reward model makes of two answers, token by token, and which faults it sees, drawn."""

import random
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.align.pairs import FAULTS, Pair, pairs
from qwen2lite.align.reward import RewardModel, to_the_end
from qwen2lite.learn.widgets.chat import shown_tokens
from qwen2lite.learn.widgets.colours import BLUE, GREEN, GREY, ORANGE
from qwen2lite.text.chat import encode_chat
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.world import ATTRIBUTES, Person


def draw_rewards(
    model: RewardModel, tokenizer: Qwen2Tokenizer, pair: Pair, title: str = ""
) -> None:
    """What stands in the row of rewards at each token of two answers, and the two that are read.

    Up to where the answers part, the lines are one: nothing there has seen what comes.

    Args:
        model: gives the rewards.
        tokenizer: the model's.
        pair: its two answers are compared.
        title: in place of one that says which wins.
    """
    rows = [to_the_end(tokenizer, talk) for talk in pair.conversations]
    start = len(encode_chat(tokenizer, pair.prompt)) - 1  # the line end before the answer
    _, panel = plt.subplots(figsize=(9, 3.2), layout="constrained")
    read = []
    looks = ((BLUE, "o-", "better answer"), (ORANGE, "s--", "worse answer"))
    for ids, (colour, line, label) in zip(rows, looks, strict=True):
        with torch.inference_mode():
            rewards = model(torch.tensor([ids], device=model.device))[0, start:, 0].tolist()
        places = range(len(rewards))
        panel.plot(places, rewards, line, color=colour, label=label, markersize=4)
        panel.plot(places[-1], rewards[-1], line[0], color=colour, markersize=11, fillstyle="none")
        read.append(rewards[-1])
    panel.set_xticks(*_ticks([_texts(tokenizer, ids[start:]) for ids in rows]), fontsize=8)
    panel.set_xlabel("token of the better answer; below it the worse one's, where it is another")
    panel.set_ylabel("reward")
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, -5), max(high, 5))  # the same from pair to pair, mostly
    chance = torch.tensor(read[0] - read[1]).sigmoid()
    found = (
        f"{read[0]:.2f} for the better, {read[1]:.2f} for the worse: preferred with {chance:.0%}"
    )
    panel.set_title(title or found)
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    plt.show()


def _texts(tokenizer: Qwen2Tokenizer, ids: Sequence[int]) -> list[str]:
    return [token.text.replace("\n", "⏎") for token in shown_tokens(tokenizer, ids)]


def _ticks(tokens: Sequence[Sequence[str]]) -> tuple[range, list[str]]:
    """One label a place, with two lines where the two answers have two tokens."""
    length = max(map(len, tokens))
    better, worse = ([*side, *[""] * (length - len(side))] for side in tokens)
    both = zip(better, worse, strict=True)
    return range(length), [a if a == b else f"{a}\n{b}" for a, b in both]


def explore_rewards(
    model: RewardModel, tokenizer: Qwen2Tokenizer, persons: Sequence[Person]
) -> None:
    """Choose what is wrong with the worse answer, the fact, and the person: `draw_rewards` of it."""
    by_name = {person.name: person for person in persons}

    def draw(fault: str, fact: str, person: str) -> None:
        made = pairs([by_name[person]], random.Random(0), FAULTS[fault])
        pair = made[ATTRIBUTES.index(fact)]
        # What is printed first clears the old picture before the new one is drawn.
        draw_rewards(model, tokenizer, pair)
        print("better:", pair.chosen, "  worse:", pair.rejected)

    ipywidgets.interact(draw, fault=list(FAULTS), fact=list(ATTRIBUTES), person=list(by_name))


def draw_judges(shares: Mapping[str, Mapping[str, float]], title: str) -> None:
    """How often each of several judges finds the better answer better, fault by fault.

    Args:
        shares: of each judge by name, the share from 0 to 1 for each fault; all have the same faults.
        title: the finding.
    """
    faults = list(next(iter(shares.values())))
    width = 0.8 / len(shares)
    figure, panel = plt.subplots(figsize=(9, 3.4), layout="constrained")
    for place, (name, found) in enumerate(shares.items()):
        heights = [100 * found[fault] for fault in faults]
        colour = (BLUE, ORANGE, GREEN, GREY)[place % 4]
        at = [x + width * place for x in range(len(faults))]
        panel.bar(at, heights, 0.94 * width, color=colour, label=name)
        for x, height in zip(at, heights, strict=True):
            panel.text(x, 4, f"{height:.3g}", color="white", ha="center")
    panel.axhline(50, color=GREY, linestyle=":", label="a coin")
    panel.set_xticks([x + width * (len(shares) - 1) / 2 for x in range(len(faults))], faults)
    panel.set_xlabel("what is wrong with the worse answer")
    panel.set_ylabel("pairs judged rightly, %")
    panel.set_ylim(0, 105)
    panel.set_title(title)
    figure.legend(loc="outside lower center", ncols=len(shares) + 1)
    plt.show()
