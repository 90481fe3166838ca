"""The learnt filter learns what the examples show, and only that."""

import math
import random
from itertools import islice

import numpy as np
import pytest
import torch

from qwen2lite.train.classifier import QualityClassifier
from qwen2lite.train.corpus import Document, docstrings
from qwen2lite.train.damage import DAMAGES
from qwen2lite.train.pieces import BUCKETS, word_buckets
from qwen2lite.train.quality import faults

SEEN = ("boilerplate", "mojibake", "shuffled_words")


def test_the_score_is_the_mean_weight_through_a_sigmoid():
    weights = torch.zeros(BUCKETS, 1)
    weights[word_buckets("good", (1,))] = 3.0
    weights[word_buckets("bad", (1,))] = -1.0
    classifier = QualityClassifier(weights, lambda text: word_buckets(text, (1,)))
    scores = classifier.score(["good", "good bad", "good other", "Bad!", "other", "!"])
    expected = [1 / (1 + math.exp(-mean)) for mean in (3, 1, 1.5, -1, 0, 0)]
    assert np.allclose(scores, expected, atol=1e-6)


def test_weights_move_only_where_examples_have_pieces():
    classifier = QualityClassifier.fit(["a b"], ["c d"], pieces=word_buckets)
    touched = {*word_buckets("a b").tolist(), *word_buckets("c d").tolist()}
    assert set(classifier.weights[:, 0].nonzero()[:, 0].tolist()) == touched
    assert (classifier.weights[word_buckets("a b")] > 0).all()
    assert (classifier.weights[word_buckets("c d")] < 0).all()


def test_ten_bad_ones_to_a_good_one_do_not_decide():
    """Without the balance everything would lean to the larger class."""
    classifier = QualityClassifier.fit(["x good"] * 10, ["x bad"] * 100, pieces=word_buckets)
    assert abs(classifier.score(["x"])[0] - 0.5) < 0.1


def test_the_seed_decides():
    good, bad = [f"good {n}" for n in range(90)], [f"bad {n}" for n in range(90)]
    one, two, other = (QualityClassifier.fit(good, bad, seed=seed).weights for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.fixture(scope="module")
def prose():
    texts = (document.text for document in islice(docstrings(), 3000))
    return [text for text in texts if not faults(text)][:900]


@pytest.fixture(scope="module")
def classifier(prose):
    rng, sound = random.Random(0), prose[::2]
    bad = [DAMAGES[damage](text, rng) for text in sound for damage in SEEN]
    return QualityClassifier.fit(sound, bad)


@pytest.mark.parametrize(
    ("damage", "least"), [("boilerplate", 0.95), ("mojibake", 0.85), ("shuffled_words", 0.45)]
)
def test_recall_on_texts_it_never_saw(prose, classifier, damage, least):
    rng = random.Random(1)
    spoilt = [DAMAGES[damage](text, rng) for text in prose[1::2]]
    assert (classifier.score(spoilt) < 0.5).mean() > least


def test_sound_texts_it_never_saw_are_kept(prose, classifier):
    assert (classifier.score(prose[1::2]) >= 0.5).mean() > 0.8


def test_it_ranks(prose, classifier):
    """The area under the curve: how often a sound text scores above a spoilt one."""
    rng = random.Random(2)
    spoilt = [DAMAGES[rng.choice(SEEN)](text, rng) for text in prose[1::2]]
    good, bad = classifier.score(prose[1::2]), classifier.score(spoilt)
    assert (good[:, None] > bad).mean() > 0.93


def test_shuffled_labels_teach_nothing(prose):
    """The wrong version: were the test texts known to it, this one would score them right too."""
    rng, sound = random.Random(3), prose[:400:2]
    both = [*sound, *(DAMAGES["mojibake"](text, rng) for text in sound)]
    rng.shuffle(both)
    classifier = QualityClassifier.fit(both[: len(sound)], both[len(sound) :])
    good = classifier.score(prose[1:400:2])
    bad = classifier.score([DAMAGES["mojibake"](text, rng) for text in prose[1:400:2]])
    assert 0.2 < (good[:, None] > bad).mean() < 0.8


def test_a_stream_passes():
    classifier = QualityClassifier.fit(["fine words"] * 5, ["ugly noise"] * 5)
    documents = [Document(text, "s") for text in ("fine words", "ugly noise")]
    assert list(classifier.keep(documents)) == documents[:1]
    assert list(classifier.keep(documents, least=0.0)) == documents


@pytest.mark.parametrize(("good", "bad"), [([], ["a"]), (["a"], [])])
def test_it_takes_both_kinds(good, bad):
    with pytest.raises(ValueError, match="it takes both"):
        QualityClassifier.fit(good, bad)
