"""`--set name=value`: words become the values they mean, or are refused with the way out."""

from typing import Any

import pytest

from advrad.commands.settings import parse, settings
from advrad.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("1e-4", 1e-4),
        ("true", True),
        ("null", None),
        ("8,16", [8, 16]),
        ("8, 16", [8, 16]),
        ("[8]", [8]),
        ("[]", []),
        ("flips", "flips"),
        ("flips,rotations", ["flips", "rotations"]),
        ("", ""),
        ("NaN", "NaN"),
        ('"8"', "8"),
    ],
)
def test_a_value_is_json_or_a_list_or_a_word(text: str, value: Any) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_values_take_the_type_of_the_argument() -> None:
    words = ["widths=8,16", "augment=flips", "rate=1", "decay=false", "size=32", "clip=null"]
    assert settings("AdvRAD", words) == {
        "widths": [8, 16],
        "augment": ["flips"],
        "rate": 1.0,
        "decay": False,
        "size": 32,
        "clip": None,
    }


def test_the_last_of_two_counts() -> None:
    assert settings("advrad", ["size=32", "size=64"]) == {"size": 64}


@pytest.mark.parametrize(
    ("detector", "word", "said"),
    [
        ("advrad", "size", "expected name=value"),
        ("advrad", "dept=3", "did you mean depth?"),
        ("advrad", "self=3", "unknown setting"),
        ("advrad", "size=big", "integer"),
        ("advrad", "size=1.5", "integer"),
        ("advrad", "size=true", "integer"),
        ("advrad", "rate=NaN", "number"),
        ("advrad", "decay=2", "boolean"),
        ("advrda", "size=3", "did you mean advrad?"),
    ],
)
def test_what_does_not_fit_is_refused(detector: str, word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        settings(detector, [word])
