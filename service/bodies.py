"""How many bytes of uploads are in memory together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import Overloaded


class Bodies:
    """Counts the bytes of bodies as they come, and refuses those for which there is no room.

    Each body has a limit of its own; many clients that send theirs slowly would fill the memory all the same.

    Args:
        most: bytes. A body that comes alone is taken, however large.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """What takes so many more bytes, for as long as the block lasts.

        Raises:
            Overloaded: in the block, if there is no room.
        """
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self._held > mine and self._held + count > self._most:
                raise Overloaded(
                    f"uploads of {self._held} bytes are in memory, of at most {self._most}; send it again in a moment",
                    retry_after=1,
                )
            self._held += count
            mine += count

        try:
            yield take
        finally:
            self._held -= mine
