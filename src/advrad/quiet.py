"""A package whose warnings are not shown while any thread is inside: our errors tell instead."""

import threading
import warnings


class Quiet:
    """A context for `package`, a pattern as `PIL`."""

    def __init__(self, package: str) -> None:
        self._module = rf"{package}\."
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=self._module)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)
