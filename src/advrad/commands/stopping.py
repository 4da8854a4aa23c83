"""Stopping a long run between two steps, so that what it saves is of one piece.

Within `stopping`, Ctrl-C and SIGTERM only leave a note; the run asks for it with the check it is
given, whenever its state is whole. A second Ctrl-C does not wait for that.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from .boundary import Stopped, handling


@contextlib.contextmanager
def stopping(hint: str | Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Yields a check that raises Stopped, with `hint` on how to go on, once a signal has come.

    A hint that depends on what is there by then is given as a function.

    Before the first check there is nothing to save, and a signal stops at once. A signal after
    the last check counts when the block ends.
    """
    asked: list[int] = []
    begun = threading.Event()

    def words() -> str:
        return hint if isinstance(hint, str) else hint()

    def check() -> None:
        begun.set()
        if asked:
            raise Stopped(asked[0], words())

    def ask(number: int, frame: FrameType | None) -> None:
        again = bool(asked)
        asked.append(number)
        if not begun.is_set() or (again and number == signal.SIGINT):
            raise Stopped(number, words())

    with handling(ask):
        yield check
    if asked:
        raise Stopped(asked[0], words())
