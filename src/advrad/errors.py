"""What can go wrong, as one tree; each branch knows the exit code of the command line.

AdvradError                 1
├── UsageError              2   an unknown verb, option, setting or name
│   ├── MissingExtraError       a name that needs an optional package
│   └── OtherTrainingError      a checkpoint of a training with other settings
├── DataError               3   missing, empty, unreadable or contradictory data
│   ├── ImageError              one file that is no usable image
│   └── LeakError               a test image that the model has seen
├── ModelError              4   a missing, damaged or foreign model
│   ├── DivergedError           a training whose loss is no longer a number
│   └── BlindAttackError        a detector whose gradient an attack cannot see
└── ResourceError           5   memory, disk, port

A message says what was given, what was expected, and what to do.
"""

from pathlib import Path


class AdvradError(Exception):
    """Anything that advrad refuses on purpose."""

    exit_code = 1


class UsageError(AdvradError):
    """The request itself is wrong."""

    exit_code = 2


class MissingExtraError(UsageError):
    """An optional package is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra [{extra}], which is not installed: "
            f"run  pip install 'advrad[{extra}]', or in a clone  pip install -e '.[{extra}]'"
        )


class OtherTrainingError(UsageError):
    """A checkpoint that belongs to a training with other settings or other images."""


class DataError(AdvradError):
    """The data cannot be used as given."""

    exit_code = 3


class ImageError(DataError):
    """One file that is no usable image."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class LeakError(DataError):
    """A test image that the model was trained, tuned or calibrated on."""


class ModelError(AdvradError):
    """A model that cannot be used."""

    exit_code = 4


class DivergedError(ModelError):
    """A training whose loss is no longer a finite number."""


class BlindAttackError(ModelError):
    """The objective gives no usable gradient, so an attack by gradients would prove nothing."""


class ResourceError(AdvradError):
    """Memory, disk or another resource has run out."""

    exit_code = 5
