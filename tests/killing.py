"""Processes that die at a chosen file operation, as kill -9 would have it."""

import os
import signal
import sys
import warnings
from collections.abc import Callable

# What Python reports before it touches a file: https://docs.python.org/3/library/audit_events.html
OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}


def killed_at(operation: int, work: Callable[[], None]) -> bool:
    """Runs `work` in a fork that is killed before its file operation number `operation`, from 0.

    Returns whether it was killed; False means that it had come to its end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fork computes nothing, so threads do not matter
        child = os.fork()
    if not child:
        _die_at(operation)
        try:
            work()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _die_at(operation: int) -> None:
    left = [operation]

    def hook(event: str, _: object) -> None:
        if event in OPERATIONS:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)
