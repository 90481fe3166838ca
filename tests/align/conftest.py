"""The tokenizer of the course's tiny model."""

import pytest

from qwen2lite import Qwen2Tokenizer
from tests.align.tiny import TINY


@pytest.fixture(scope="session")
def tokenizer() -> Qwen2Tokenizer:
    return Qwen2Tokenizer.from_pretrained(TINY)
