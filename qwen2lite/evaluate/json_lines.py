"""Examinations as files: one question a line, in JSON, as the published ones come."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Asked = TypeVar("Asked")


def read_json_lines(path: str | Path, make: Callable[[dict[str, Any]], Asked]) -> list[Asked]:
    """What each line holds; empty lines are left out.

    Args:
        path: a file in UTF-8.
        make: of a line's fields; it raises ValueError, KeyError or TypeError for wrong ones.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no JSON object or has wrong fields, and which; or no line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; name one of questions, one a line")
    try:
        # Windows' Notepad may put a byte order mark first, which JSON doesn't know.
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); convert the file") from None
    found = []
    # Not splitlines(): a question may hold U+2028 or U+0085, which are line breaks to Python only.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise ValueError(f"a line must be an object in braces, got {line.strip()[:40]!r}")
            found.append(make(fields))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from None
        except KeyError as error:
            has = ", ".join(map(repr, fields)) or "none"
            raise ValueError(
                f"{path}, line {number}: there is no field {error}; it has {has}"
            ) from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not found:
        raise ValueError(f"{path} holds no question; it needs one a line")
    return found
