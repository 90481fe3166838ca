"""Shares from sizes, a law that finds itself again, and the mixture where it is lowest."""

import math

import numpy as np
import pytest

from qwen2lite.train.mixing import MixingLaw, choose, epochs, shares_from_sizes

SHARES = [(0.9, 0.1), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.1, 0.9)]


def test_shares_by_hand():
    assert shares_from_sizes({"a": 9, "b": 1}) == {"a": 0.9, "b": 0.1}
    assert shares_from_sizes({"a": 9, "b": 1}, 0.5) == {"a": 0.75, "b": 0.25}
    assert shares_from_sizes({"a": 9, "b": 1}, 0.0) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(("sizes", "power"), [({}, 1), ({"a": 0}, 1), ({"a": 1}, 1.5)])
def test_sizes_without_sense_are_refused(sizes, power):
    with pytest.raises(ValueError, match="above 0 and power from 0 to 1"):
        shares_from_sizes(sizes, power)


def test_epochs_by_hand():
    assert epochs({"a": 3, "b": 1}, {"a": 60, "b": 5}, 40) == {"a": 0.5, "b": 2.0}


def test_a_law_is_found_again_in_what_follows_it():
    true = MixingLaw(0.7, (-2.0, 1.0))
    found = MixingLaw.fit(SHARES, [true(shares) for shares in SHARES])
    assert found.floor == pytest.approx(0.7, abs=0.01)
    for shares in ((0.6, 0.4), (0.33, 0.67)):
        assert found(shares) == pytest.approx(true(shares), abs=0.003)


def test_a_law_of_three_sources_and_some_noise():
    true = MixingLaw(1.0, (-3.0, 0.5, -0.5))
    chance = np.random.default_rng(0)
    runs = chance.dirichlet((1, 1, 1), size=20)
    losses = [true(run) + 0.01 * chance.standard_normal() for run in runs]
    found = MixingLaw.fit(runs, losses)
    assert max(abs(found(run) - true(run)) for run in runs) < 0.03
    assert np.argmin(found.slopes) == 0


def test_a_law_is_the_papers_with_the_factor_in_the_slopes():
    k, t = 3.0, (-2.0, 0.4)
    law = MixingLaw(1.0, tuple(math.log(k) + slope for slope in t))
    for shares in SHARES:
        paper = 1.0 + k * math.exp(sum(a * b for a, b in zip(t, shares, strict=True)))
        assert law(shares) == pytest.approx(paper)


def test_too_few_runs_would_fit_anything_and_are_refused():
    with pytest.raises(ValueError, match="has 3 numbers, and there are 2 runs"):
        MixingLaw.fit(SHARES[:2], [1.0, 2.0])


def test_the_chosen_mixture_is_where_the_slopes_cancel():
    laws = [MixingLaw(1.0, (-4.0, 0.0)), MixingLaw(2.0, (0.0, -4.0))]
    assert choose(laws, (1, 1)) == (0.5, 0.5)
    # exp(-4x)·4·w = exp(-4(1 - x))·4·(1 - w): x = 1/2 + ln(w / (1 - w)) / 8
    assert choose(laws, (0.8, 0.2))[0] == pytest.approx(0.5 + math.log(4) / 8, abs=0.01)


def test_a_choice_among_three_is_a_mixture():
    laws = [MixingLaw(0.0, tuple(-3.0 * (i == j) for j in range(3))) for i in range(3)]
    shares = choose(laws, (1, 1, 1), parts=30)
    assert shares == pytest.approx((1 / 3, 1 / 3, 1 / 3)) and sum(shares) == pytest.approx(1)
