"""Explorer of the tokenizer: what the same six sentences cost in 27 languages, by pattern."""

import json
from collections.abc import Iterable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import regex

from qwen2lite.learn.mutants.qwen_tokenizer import digits_in_threes, letters_and_marks
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.text.bpe import merge_word, printable_bytes
from qwen2lite.text.pretokenize import PATTERN, normalise
from qwen2lite.text.vocabulary import Vocabulary

# The file has every language's own name for itself, in letters that few plots have.
_ENGLISH = {
    "en": "English", "de": "German", "nl": "Dutch", "sv": "Swedish", "fr": "French",
    "es": "Spanish", "pt": "Portuguese", "it": "Italian", "pl": "Polish", "cs": "Czech",
    "hu": "Hungarian", "fi": "Finnish", "tr": "Turkish", "id": "Indonesian", "vi": "Vietnamese",
    "ru": "Russian", "uk": "Ukrainian", "el": "Greek", "ar": "Arabic", "fa": "Persian",
    "he": "Hebrew", "hi": "Hindi", "bn": "Bengali", "th": "Thai", "ja": "Japanese",
    "ko": "Korean", "zh": "Chinese",
}  # fmt: skip

PATTERNS = {
    "Qwen2's own": PATTERN,
    "digits in threes, as in GPT-4": digits_in_threes(),
    "marks count as letters": letters_and_marks(),
}
"""Ways to cut a text into words. The merges are Qwen2's in all of them."""


def read_languages() -> dict[str, list[str]]:
    """The sentences of data/languages.jsonl, the same six in every language."""
    text = (REPOSITORY / "data" / "languages.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return {_ENGLISH.get(row["language"], row["name"]): row["sentences"] for row in rows}


def count_tokens(vocabulary: Vocabulary, texts: Iterable[str], pattern: str = PATTERN) -> int:
    """Tokens that texts cost when they are cut by a pattern and merged by a vocabulary."""
    order = {byte: token for token, byte in enumerate(printable_bytes())}
    words = (word for text in texts for word in regex.findall(pattern, normalise(text)))
    return sum(len(merge_word([order[b] for b in w.encode()], vocabulary.merges)) for w in words)


def relative_cost(
    vocabulary: Vocabulary, languages: Mapping[str, Sequence[str]], pattern: str = PATTERN
) -> dict[str, float]:
    """Each language's tokens over those of English with Qwen2's own pattern, the dearest last."""
    english = count_tokens(vocabulary, languages["English"])
    cost = {
        name: count_tokens(vocabulary, texts, pattern) / english
        for name, texts in languages.items()
    }
    return dict(sorted(cost.items(), key=lambda item: item[1]))


def draw_languages(
    vocabulary: Vocabulary,
    languages: Mapping[str, Sequence[str]],
    pattern: str = "Qwen2's own",
) -> None:
    """A bar a language: how many tokens its sentences cost, as a multiple of English.

    Args:
        vocabulary: the tokenizer's.
        languages: sentences of the same meaning; English has to be among them.
        pattern: a name in `PATTERNS`. A line on each bar marks what Qwen2's own costs.
    """
    cost = relative_cost(vocabulary, languages, PATTERNS[pattern])
    own = relative_cost(vocabulary, languages)
    rows = range(len(cost))
    plt.figure(figsize=(7, 5.4), layout="constrained")
    colours = ["C1" if abs(cost[name] - own[name]) > 1e-9 else "C0" for name in cost]
    plt.barh(rows, list(cost.values()), color=colours, height=0.7)
    plt.scatter([own[name] for name in cost], rows, marker="|", color="black", s=70, zorder=3)
    plt.axvline(1, color="gray", lw=0.8)
    plt.yticks(rows, list(cost), fontsize=8)
    plt.ylim(-0.6, len(cost) - 0.4)
    plt.xlabel(f"tokens for the same sentences, English = 1; words cut by: {pattern}")
    cheapest, dearest = next(iter(cost)), list(cost)[-1]
    plt.title(
        f"What English says in one token costs {dearest} {cost[dearest]:.1f}, "
        f"{cheapest} {cost[cheapest]:.2f}",
        fontsize=11,
    )
    plt.show()


def explore_languages(vocabulary: Vocabulary, languages: Mapping[str, Sequence[str]]) -> None:
    """Choose a pattern, and all sentences or one: the bars of all languages.

    Args:
        vocabulary: the tokenizer's.
        languages: see `draw_languages`.
    """

    def draw(pattern: str, sentence: int) -> None:
        chosen = slice(None) if sentence < 0 else slice(sentence, sentence + 1)
        few = {name: texts[chosen] for name, texts in languages.items()}
        draw_languages(vocabulary, few, pattern)

    options = [("all", -1), *((text, i) for i, text in enumerate(languages["English"]))]
    ipywidgets.interact(
        draw,
        pattern=ipywidgets.Dropdown(options=list(PATTERNS), description="pattern"),
        sentence=ipywidgets.Dropdown(
            options=options,
            value=-1,
            description="sentence",
            layout=ipywidgets.Layout(width="40em"),
        ),
    )
