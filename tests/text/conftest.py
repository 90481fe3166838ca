"""text/ has no tensors, so there are no shapes to watch; watching every call would cost minutes."""

import pytest


@pytest.fixture(autouse=True)
def _shape_suffixes_are_true():
    """In place of the fixture of that name in tests/conftest.py."""
