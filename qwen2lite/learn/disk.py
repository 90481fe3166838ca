"""A pretended disk whose power can be cut: it keeps what a real one promises, and no more."""


class PowerCut(Exception):
    """The power went off in the middle of an operation."""


class Disk:
    """Files by name. A name is kept at once, a content only when it is synced.

    That is the worst that usual file systems may do: what was written waits in memory for seconds,
    and a rename may be on the disk before the content of the file that it names.

    Args:
        files: what is there, safely, at the beginning.
        power: operations until it goes off, in the middle of the next one; None never.
    """

    def __init__(self, files: dict[str, str], power: int | None = None):
        self.power = power
        self._seen = dict(files)
        self._safe = dict(files)

    def write(self, name: str, content: str) -> None:
        """Writes a file from its beginning. What it held before is gone with the first letter."""
        self._safe[name] = ""
        self._seen[name] = content[: len(content) // 2]
        self._use_power()
        self._seen[name] = content

    def sync(self, name: str) -> None:
        """Waits until the content of a file is on the disk."""
        self._use_power()
        self._safe[name] = self._seen[name]

    def rename(self, old: str, new: str) -> None:
        """Gives a file another name, in place of the one that had it. All at once, or not at all."""
        self._use_power()
        for files in (self._seen, self._safe):
            files[new] = files.pop(old)

    def delete(self, name: str) -> None:
        """Removes a file."""
        self._use_power()
        for files in (self._seen, self._safe):
            del files[name]

    def read(self, name: str) -> str:
        """The content of a file."""
        return self._seen[name]

    def names(self) -> list[str]:
        """Of all files."""
        return sorted(self._seen)

    def after_a_power_cut(self) -> dict[str, str]:
        """What would be found if the power went off now. A content that isn't safe is empty."""
        return dict(self._safe)

    def _use_power(self) -> None:
        if self.power is not None:
            self.power -= 1
            if self.power < 0:
                raise PowerCut
