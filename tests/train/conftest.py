"""A model so small that a test trains it in a second, and something to read."""

import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch

from qwen2lite import Qwen2, Qwen2Config
from qwen2lite.train.loader import Loader
from qwen2lite.train.settings import TrainSettings
from tests.conftest import one_thread

EOS = 0
CONFIG = Qwen2Config(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
    initializer_range=0.1,
    eos_token_id=EOS,
)
SETTINGS = TrainSettings(
    steps=12,
    sequence_length=11,
    batch_size=3,
    warmup_steps=4,
    learning_rate=1e-2,
    device="cpu",
    cores=1,
    log_every=1,
    checkpoint_every=4,
    keep_checkpoints=10,
)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture
def small():
    """Makes a tiny model: the same weights each time, with biases and norms that aren't trivial."""

    def make(parts=None, seed=0, **changes) -> Qwen2:
        torch.manual_seed(seed)
        model = Qwen2(dataclasses.replace(CONFIG, **changes), parts)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
        return model

    return make


@pytest.fixture
def plan():
    """Makes settings that suit the tiny model."""
    return lambda **changes: dataclasses.replace(SETTINGS, **changes)


@pytest.fixture
def reader():
    """Makes a loader of a corpus with a pattern to learn: from most tokens the next one follows."""

    def make(settings=SETTINGS, tokens=600) -> Loader:
        chance = np.random.default_rng(0)
        ids = [1]
        for noise in chance.random(tokens - 1):
            ids.append(EOS if noise < 0.1 else (ids[-1] * 7 + 3) % CONFIG.vocab_size)
        ids = np.array(ids, dtype=np.uint16)
        return Loader(ids, settings.sequence_length, settings.batch_size, settings.seed)

    return make


@pytest.fixture
def some_batches(reader, plan):
    """Gives the first few batches."""
    return lambda number, **changes: list(islice(reader(plan(**changes)), number))
