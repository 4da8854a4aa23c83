"""Where every error of the command line ends: a message, an exit code, no traceback.

The message says what was given, what was expected, and what to do; `--debug` adds the traceback,
and with `--json` standard output still gets exactly one object, {"error": {...}}. Ctrl-C and
SIGTERM become an exception, so that whatever runs can save its state on the way out.
"""

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import typer

from ..errors import AdvradError
from .output import print_json

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
LOWER = (
    "lower what is held at once with --batch-size (a training: --set batch=), or the model itself "
    "with --set size= and --set widths="
)


class Stopped(KeyboardInterrupt):
    """The process was asked to end, by Ctrl-C or by SIGTERM; `hint` says how to go on."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{hint and f'; {hint}'}")
        self.exit_code = 128 + number


class Failure(NamedTuple):
    """What the user is told of an error."""

    kind: str
    message: str
    exit_code: int


def run(command: Any, words: Sequence[str]) -> int:
    """Runs typer's command on the words of the command line and returns the exit code."""
    words = list(words)
    options = words[: words.index("--")] if "--" in words else words
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    with _logging_to_stderr(), handling(_stop):
        try:
            with command.make_context("advrad", list(words)) as context:
                command.invoke(context)
            sys.stdout.flush()
        except typer.Exit as done:
            return done.exit_code
        except BrokenPipeError:
            return _quiet()
        except BaseException as error:
            if "--debug" in options:
                traceback.print_exc()
            return _tell(explain(error), as_json="--json" in options)
    return 0


def explain(error: BaseException) -> Failure:
    """The message and the exit code of any exception."""
    for recognise in RECOGNISED:
        if failure := recognise(error):
            return failure
    message = f"{type(error).__name__}: {_first_line(error)}"
    hint = "advrad did not expect this: run the command again with --debug to see where it arose"
    return Failure(type(error).__name__, f"{message}\n{hint}", 1)


def _refused(error: BaseException) -> Failure | None:
    if isinstance(error, (AdvradError, Stopped)):
        return Failure(type(error).__name__, str(error), error.exit_code)
    return Failure("Stopped", "stopped", 130) if isinstance(error, KeyboardInterrupt) else None


def _misused(error: BaseException) -> Failure | None:
    """typer's own errors: an unknown verb or option, a missing or malformed value."""
    if not isinstance(error, typer.TyperException):
        return None
    context = getattr(error, "ctx", None)
    hint = f"\nTry '{context.command_path} --help'." if context else ""
    return Failure("UsageError", f"{error.format_message()}{hint}", error.exit_code)


def _exhausted(error: BaseException) -> Failure | None:
    """Memory or disk; torch and safetensors have only their words to tell it by."""
    text = str(error).lower()
    code = error.errno if isinstance(error, OSError) else None
    memory = isinstance(error, MemoryError) or code == errno.ENOMEM
    if memory or (isinstance(error, RuntimeError) and any(word in text for word in OUT_OF_MEMORY)):
        return Failure("ResourceError", f"out of memory ({_first_line(error)}): {LOWER}", 5)
    if code == errno.EROFS and isinstance(error, OSError):
        message = f"{error.filename}: the file system is read-only; choose another folder"
        return Failure("ResourceError", message, 5)
    if code in FULL or "no space left on device" in text:
        message = f"{_first_line(error)}: make room or choose another folder, then run it again"
        return Failure("ResourceError", message, 5)
    return None


def _unreadable(error: BaseException) -> Failure | None:
    if isinstance(error, OSError) and error.filename is not None:
        return Failure("DataError", f"{error.filename}: {error.strerror}", 3)
    return None


RECOGNISED: tuple[Callable[[BaseException], Failure | None], ...] = (
    _refused,
    _misused,
    _exhausted,
    _unreadable,
)


def _tell(failure: Failure, as_json: bool) -> int:
    print(f"advrad: {failure.message}", file=sys.stderr)
    kind, message, exit_code = failure
    try:
        if as_json:
            print_json({"error": {"kind": kind, "message": message, "exit_code": exit_code}})
        sys.stdout.flush()
    except OSError:  # no reader, or a full disk
        _quiet()
    return failure.exit_code


def _quiet() -> int:
    """Standard output takes no more; the interpreter's last flush must not complain.

    Returns the exit code of a program that SIGPIPE ended, which is no verdict.
    """
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    logger, handler = logging.getLogger("advrad"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Gives SIGINT and SIGTERM to the handler; what was ignored before stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _stop(number: int, frame: FrameType | None) -> None:
    """Raises Stopped; a second SIGTERM cannot interrupt the saving."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped(number)
