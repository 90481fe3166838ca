r"""Which language is a text in? Its script says so at once, or its runs of letters do.

Eleven of the 29 languages that Qwen2 names are the only one among them in their script. The others
share one, and each has runs of its own: "sch" is German, "ção" Portuguese. How common each run is,
is counted in a language's names for countries, languages and months, which CLDR (the library
`babel`) has for every language: nothing to download. Names can't tell Malay from Indonesian, nor
Cebuano from Filipino: here each pair goes by its second name.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import regex

from qwen2lite.train.pieces import BUCKETS, character_buckets
from qwen2lite.train.words import normalise

UNKNOWN = "und"
"""BCP 47's code for a language that could not be determined."""

SCRIPTS = {
    "ja": r"\p{Hiragana}\p{Katakana}",
    "zh": r"\p{Han}",
    "ko": r"\p{Hangul}",
    "th": r"\p{Thai}",
    "lo": r"\p{Lao}",
    "my": r"\p{Myanmar}",
    "km": r"\p{Khmer}",
    "he": r"\p{Hebrew}",
    "hi": r"\p{Devanagari}",
    "bn": r"\p{Bengali}",
    "ru": r"\p{Cyrillic}",
}
"""Languages that are taken for the only one in their script."""

SHARED = (
    *("en", "de", "fr", "es", "pt", "it", "nl", "cs", "pl", "tr", "vi", "id", "fil"),
    *("ar", "fa", "ur"),
)
"""Languages told apart by runs of letters: 13 in Latin, 3 in Arabic letters."""

_KINDS = {**SCRIPTS, "shared": r"\p{Latin}\p{Arabic}", UNKNOWN: r"\p{L}"}
_SCRIPT_RUN = regex.compile("|".join(f"(?P<{kind}>[{signs}]+)" for kind, signs in _KINDS.items()))
_KANA = 0.05  # of the signs of a Japanese text at least; a Chinese one may quote a few
_UNSEEN = 0.01  # counted for a run that was never seen; low, since most runs never are
_ENOUGH = 2000  # characters at the beginning of a text that are looked at


def cldr_names(language: str) -> list[str]:
    """The names that a language has for things everywhere, from CLDR: 1,000 to 2,000 of them.

    Raises:
        ModuleNotFoundError: `babel` is not installed.
        ValueError: CLDR doesn't know the language.
    """
    try:
        import babel
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the names of countries and languages come with the library `babel`: pip install babel"
        ) from None
    try:
        locale = babel.Locale.parse(language)
    except (babel.UnknownLocaleError, ValueError):
        raise ValueError(f"CLDR has no language {language!r}; give a code such as 'pt'") from None
    tables = (
        *(locale.languages, locale.territories, locale.scripts, locale.currencies, locale.variants),
        *(locale.months, locale.days, locale.quarters, locale.eras, locale.day_periods),
        *(locale.time_zones, locale.meta_zones),
    )
    return list(dict.fromkeys(name for table in tables for name in _strings(table)))


class LanguageIdentifier:
    r"""The script first; then naive Bayes, the language in which the runs are likeliest together.

    $\arg\max_l \sum_r \log p(r \mid l)$ over the runs r of one to four letters of the text, where
    $p(r \mid l)$ is the share of r among the runs of the samples.
    A language that it has no samples of is taken for a relative, Swedish for German.

    Args:
        samples: texts for each language of a shared script; None takes CLDR's names for `SHARED`,
            which counts for a second or two.

    Raises:
        ValueError: no samples at all, or none of a language.

    Source: Cavnar, Trenkle, N-gram-based text categorization, 1994; as naive Bayes: Lui, Baldwin,
    langid.py, ACL 2012.
    """

    def __init__(self, samples: Mapping[str, Iterable[str]] | None = None):
        if samples is None:
            samples = {language: cldr_names(language) for language in SHARED}
        samples = {language: list(texts) for language, texts in samples.items()}
        missing = [language for language, texts in samples.items() if not texts]
        if missing or not samples:
            raise ValueError(
                f"no samples of {', '.join(missing) or 'any language'}; give some texts"
            )
        self.languages = list(samples)
        counts = np.stack([_counts(texts) for texts in samples.values()]) + _UNSEEN
        self.log_shares = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)

    def __call__(self, text: str) -> str:
        """The code of the language; `UNKNOWN` for no letters, or letters of another script."""
        text = normalise(text[:_ENOUGH])
        signs: Counter[str] = Counter()
        for run in _SCRIPT_RUN.finditer(text):
            signs[run.lastgroup or UNKNOWN] += len(run[0])
        if signs["ja"] > _KANA * (signs["ja"] + signs["zh"]):
            signs["ja"] += signs.pop("zh", 0)
        kind = max(signs, key=signs.__getitem__, default=UNKNOWN)
        if kind != "shared":
            return kind
        evidence = self.log_shares[:, character_buckets(_letters(text))].sum(axis=1)
        return self.languages[int(evidence.argmax())]


def _letters(text: str) -> str:
    return regex.sub(r"[^\p{L}\p{M}]+", " ", text).strip()


def _counts(texts: Iterable[str]) -> np.ndarray:
    buckets = [character_buckets(_letters(normalise(text))) for text in texts]
    return np.bincount(np.concatenate(buckets), minlength=BUCKETS)


def _strings(table: str | Mapping) -> Iterable[str]:
    if isinstance(table, str):
        yield table
    elif hasattr(table, "values"):
        for value in table.values():
            yield from _strings(value)
