"""Measurements that take long: each finished one goes into a file at once, and is never made again."""

import json
from pathlib import Path
from typing import Any


class Finished:
    """A file of finished measurements, one JSON object a line; several runs may share it.

    A last line that was cut off in writing is taken out of it.

    Args:
        file: made when the first measurement is kept.

    Raises:
        ValueError: a file that holds something else.
    """

    def __init__(self, file: str | Path):
        self.path = Path(file)
        self._found: dict[frozenset[Any], Any] = {}
        if not self.path.is_file():
            return
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        try:
            for line in whole.splitlines():
                measured = json.loads(line)
                found = measured.pop("found")
                self._found[frozenset(measured.items())] = found
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.path} doesn't hold finished measurements ({error!r}); name another file"
            ) from None

    def get(self, **measured: str | float) -> Any:
        """What was found for these settings, or None."""
        return self._found.get(frozenset(measured.items()))

    def keep(self, found: Any, **measured: str | float) -> None:
        """Writes what was found for these settings into the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({**measured, "found": found}) + "\n")
        self._found[frozenset(measured.items())] = found
