"""Wrong answers to the measurement of the exercise 23_attention."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def with_the_first_query(weights_NTS: Tensor) -> Tensor:
    """The first query is counted too. It sees only itself, so its share is always 1 and says
    nothing: leave its row out."""
    return weights_NTS[:, :, 0].mean()


def of_the_first_query(weights_NTS: Tensor) -> Tensor:
    """Rows and columns are swapped: this is what the first token looks at. A row is a query, a
    column a key; wanted is column 0."""
    return weights_NTS[:, 0, 1:].mean()


def of_one_head(weights_NTS: Tensor) -> Tensor:
    """Only the first head is looked at."""
    return weights_NTS[0, 1:, 0].mean()


def of_the_last_query(weights_NTS: Tensor) -> Tensor:
    """Only the last query is looked at."""
    return weights_NTS[:, -1, 0].mean()


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "first_token_share": (
        with_the_first_query,
        of_the_first_query,
        of_one_head,
        of_the_last_query,
    ),
}
"""The wrong versions of each task."""
