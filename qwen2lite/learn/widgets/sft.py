"""Explorers of fine-tuning: which tokens are learnt, and what models that were taught answer."""

import random
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.align.questions import question, sentence, value
from qwen2lite.align.sft import Learnt, answer_targets
from qwen2lite.infer.generate import generate
from qwen2lite.learn.widgets.bubbles import draw_conversation
from qwen2lite.learn.widgets.chat import draw_line, lines_of, page, shown_tokens
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.chat import Message, encode_chat
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.loss import IGNORED
from qwen2lite.train.world import ATTRIBUTES, Person

LEARNT, READ = "#f3b562", "#e9ecef"


def draw_learnt(tokenizer: Qwen2Tokenizer, learnt: Learnt, title: str = "") -> None:
    """Every token of a conversation in a box, orange where it is learnt from the ones before it.

    Args:
        tokenizer: the model's.
        learnt: from `answer_targets`, or with other targets.
        title: in place of one that counts.
    """
    ids, targets = learnt
    # Targets stand where the token is to be written; a reader looks at the token itself.
    is_learnt = [False, *(target != IGNORED for target in targets[:-1])]
    lines = list(lines_of(shown_tokens(tokenizer, ids)))
    panel, place = page(len(lines)), 0
    for row, line in enumerate(lines):
        here = is_learnt[place : place + len(line)]
        draw_line(panel, line, -row, [LEARNT if learns else READ for learns in here])
        place += len(line)
    counted = f"{sum(is_learnt)} of {len(ids)} tokens are learnt (orange), the others only read"
    panel.text(0, 1.25, title or counted, fontsize=11)
    plt.show()


def targets_of(
    tokenizer: Qwen2Tokenizer, messages: Sequence[Message], what: str = "answers"
) -> Learnt:
    """A conversation with more or less of it learnt.

    Args:
        tokenizer: the model's.
        messages: of the conversation.
        what: "answers", as the package has it; "answers, not their end", without `<|im_end|>`; or
            "everything", as in pre-training.
    """
    ids, targets = answer_targets(tokenizer, messages)
    if what == "everything":
        return ids, [*ids[1:], IGNORED]
    if what == "answers, not their end":
        end = tokenizer.special_tokens["<|im_end|>"]
        return ids, [IGNORED if target == end else target for target in targets]
    return ids, targets


def explore_learnt(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> None:
    """Choose what is learnt, and write an answer of your own: the picture of `draw_learnt`."""

    def draw(what: str, says: str) -> None:
        talk = [*messages[:-1], {"role": "assistant", "content": says}]
        draw_learnt(tokenizer, targets_of(tokenizer, talk, what))

    ipywidgets.interact(
        draw,
        what=ipywidgets.Dropdown(
            options=["answers", "answers, not their end", "everything"], description="learnt"
        ),
        says=ipywidgets.Text(
            value=messages[-1]["content"], description="answer", continuous_update=False
        ),
    )


def explore_answers(
    models: Mapping[str, Qwen2], tokenizer: Qwen2Tokenizer, persons: Sequence[Person]
) -> None:
    """Ask one of several models for a fact of a person, and see the whole answer.

    Args:
        models: by name, in evaluation mode; the one chosen at first is the first.
        tokenizer: of all of them.
        persons: who can be asked about.
    """
    by_name = {person.name: person for person in persons}

    def ask(model: str, person: str, fact: str) -> None:
        asked = question(by_name[person], fact, random.Random(0))
        ids = encode_chat(tokenizer, asked)
        answer = "".join(generate(models[model], tokenizer, ids, max_new_tokens=40))
        draw_conversation([*asked[1:], {"role": "assistant", "content": answer}])
        right = answer in (sentence(by_name[person], fact), value(by_name[person], fact))
        print("right" if right else f"wrong; right is: {sentence(by_name[person], fact)}")

    ipywidgets.interact(ask, model=list(models), person=list(by_name), fact=list(ATTRIBUTES))
