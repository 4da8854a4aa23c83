"""What the documents show is true: their Python runs, their commands and options exist.

The ```python blocks of a page run one after the other in an empty folder and share their names.
A block that trains stands under `<!-- slow -->`, and it and what follows it run with the slow
tests.
"""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

from advrad.cli import app

HOME = Path(__file__).parent.parent
PAGES = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))]
FENCE = re.compile(r"(<!-- slow -->\s*\n)?```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
VERBS = re.compile(r"`advrad ([a-z][^`]*)`")


class Block(NamedTuple):
    slow: bool
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(bool(mark), language, text) for mark, language, text in FENCE.findall(page)]


def commands(page: str) -> list[list[str]]:
    """Every `advrad` command of a page's shell blocks, in words after `advrad`."""
    shell = [b.text for b in blocks(page) if b.language in ("console", "sh", "bash")]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [w[1:] for w in words if w and w[0].rpartition("/")[2] == "advrad"]


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command, by the command line's own tables."""
    command: Any = get_command(app)
    names = [w for w in words if not w.startswith("-")]
    while getattr(command, "commands", None) and names:
        name = names.pop(0)
        if name not in command.commands:
            return f"there is no verb {name!r} in: advrad {' '.join(words)}"
        command = command.commands[name]
    known = {opt for p in command.params for opt in p.opts} | {"--help"}
    given = {w.partition("=")[0] for w in words if w.startswith("-")}
    unknown = given - known
    return f"no option {sorted(unknown)} in: advrad {' '.join(words)}" if unknown else None


def run(page: Path, chosen: list[Block]) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for number, block in enumerate(chosen, 1):
        exec(compile(block.text, f"{page.name}, python block {number}", "exec"), names)


def python_blocks(page: Path) -> list[Block]:
    return [b for b in blocks(page.read_text()) if b.language == "python"]


def slow(page: Path) -> bool:
    return any(b.slow for b in python_blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_python_of_a_page_compiles_and_its_quick_part_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = python_blocks(page)
    for block in found:
        compile(block.text, page.name, "exec")
    first = next((i for i, b in enumerate(found) if b.slow), len(found))
    run(page, found[:first])


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if slow(p)], ids=lambda p: p.name)
def test_the_whole_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, python_blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    complaints = [c for words in commands(page.read_text()) if (c := complaint(words))]
    assert not complaints


def test_every_verb_is_on_the_page_of_the_command_line() -> None:
    page = (HOME / "docs" / "command-line.md").read_text()
    shown = {tuple(words) for text in VERBS.findall(page) if (words := text.split())}
    top: Any = get_command(app)
    for name, command in top.commands.items():
        for sub in getattr(command, "commands", None) or [None]:
            words = (name,) if sub is None else (name, sub)
            assert any(s[: len(words)] == words for s in shown), f"{words} is not documented"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_planted_mistakes_are_found() -> None:
    page = "```console\n$ advrad frobnicate x\n$ advrad doctor --loud\n$ advrad doctor --json\n```"
    first, second, third = map(complaint, commands(page))
    assert "frobnicate" in str(first)
    assert "--loud" in str(second)
    assert third is None
    marked = blocks("<!-- slow -->\n```python\nx = 1\n```\n\n```python\ny = 2\n```")
    assert [b.slow for b in marked] == [True, False]
