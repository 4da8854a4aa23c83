"""The command line's frame: exit codes, messages, JSON, signals, progress."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.main import get_command

import advrad
from advrad.cli import app, main
from advrad.commands import boundary
from advrad.commands.doctor import REQUIREMENT
from advrad.commands.options import Debug, Json
from advrad.commands.output import columns, print_json
from advrad.commands.progress import Lines
from advrad.errors import DataError, ImageError, MissingExtraError, ModelError, ResourceError


def verbs(command: Any = None, name: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    command = command or get_command(app)
    subs = getattr(command, "commands", None)
    if subs is None:
        yield " ".join(name), command
    for sub in subs or ():
        yield from verbs(subs[sub], (*name, sub))


@pytest.mark.parametrize(("name", "command"), list(verbs()), ids=lambda v: str(v))
def test_every_verb_is_described_and_takes_json_and_debug(name: str, command: Any) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--debug"} <= options
    assert command.help
    assert all(p.help for p in command.params if p.param_type_name == "option")


class TestExplain:
    @pytest.mark.parametrize(
        ("error", "code", "words"),
        [
            (DataError("no images in x: add some"), 3, "no images in x: add some"),
            (ImageError(Path("a.png"), "truncated"), 3, "a.png: truncated"),
            (MissingExtraError("brick", "data"), 2, "pip install 'advrad[data]'"),
            (ModelError("damaged"), 4, "damaged"),
            (ResourceError("port taken"), 5, "port taken"),
            (MemoryError(), 5, "--batch-size"),
            (torch.OutOfMemoryError("CUDA out of memory. Tried"), 5, "--set size="),
            (RuntimeError("not enough memory: you tried"), 5, "--set widths="),
            (OSError(errno.ENOSPC, "No space left on device", "x"), 5, "make room"),
            (OSError(errno.ENOMEM, "Cannot allocate memory"), 5, "--set batch="),
            (Exception("Error: I/O error: No space left on device (os error 28)"), 5, "make room"),
            (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 3, "/root/x: Perm"),
            (RuntimeError("shapes differ\nC++ stack"), 1, "RuntimeError: shapes differ\n"),
            (ZeroDivisionError("by zero"), 1, "--debug"),
            (KeyboardInterrupt(), 130, "stopped"),
            (boundary.Stopped(signal.SIGINT), 130, "SIGINT"),
            (boundary.Stopped(signal.SIGTERM), 143, "SIGTERM"),
        ],
        ids=str,
    )
    def test_exit_codes_and_messages(self, error: BaseException, code: int, words: str) -> None:
        failure = boundary.explain(error)
        assert failure.exit_code == code
        assert words in failure.message

    def test_what_torch_really_says_without_memory(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 50)
        assert boundary.explain(caught.value).exit_code == 5

    def test_what_numpy_really_says_without_memory(self) -> None:
        with pytest.raises(MemoryError) as caught:
            np.empty(1 << 50)
        assert boundary.explain(caught.value).exit_code == 5

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_what_a_full_disk_really_says(self) -> None:
        with pytest.raises(OSError, match="No space") as caught, Path("/dev/full").open("wb") as f:
            f.write(b"x" * 100_000)
        assert boundary.explain(caught.value).exit_code == 5


def run(work: Callable[[], object], *options: str) -> int:
    """Runs a verb that does `work`."""
    toy = typer.Typer(rich_markup_mode=None)

    @toy.command()
    def verb(json: Json = False, debug: Debug = False) -> None:
        work()

    return boundary.run(get_command(toy), options)


def fail() -> None:
    raise DataError("nothing there: put something there")


class TestRun:
    def test_success(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(lambda: print("done")) == 0
        assert capsys.readouterr() == ("done\n", "")

    def test_an_error_is_a_line_on_standard_error(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(fail) == 3
        assert capsys.readouterr() == ("", "advrad: nothing there: put something there\n")

    def test_with_json_it_is_one_object_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(fail, "--json") == 3
        out, err = capsys.readouterr()
        error = {
            "kind": "DataError",
            "exit_code": 3,
            "message": "nothing there: put something there",
        }
        assert json.loads(out) == {"error": error}
        assert "nothing there" in err

    def test_debug_shows_the_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(fail, "--debug") == 3
        assert "Traceback" in capsys.readouterr().err

    def test_a_negative_verdict_says_nothing_more(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def negative() -> None:
            print_json({"ok": False})
            raise typer.Exit(1)

        assert run(negative, "--json") == 1
        assert capsys.readouterr() == ('{"ok": false}\n', "")

    def test_signal_handlers_and_logging_are_put_back(self) -> None:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        run(fail)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

    def test_logs_go_to_standard_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        import logging

        assert run(lambda: logging.getLogger("advrad.images").info("alpha dropped")) == 0
        assert capsys.readouterr() == ("", "alpha dropped\n")


class TestUsage:
    def test_no_words_show_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        assert "doctor" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["dcotor"], "Did you mean 'doctor'?"),
            (["data"], "advrad data --help"),
            (["data", "chck", "x"], "Did you mean 'check'?"),
            (["data", "check", "hazelnut_toy", "--layuot", "mvtec"], "--layout"),
            (["data", "check"], "ROOT"),
            (["data", "check", "hazelnut_toy", "--split-seed", "many"], "--split-seed"),
            (["data", "check", "hazelnut-toy"], "did you mean hazelnut_toy?"),
            (["data", "fetch", "mvtec"], "known names are"),
        ],
        ids=" ".join,
    )
    def test_wrong_usage_is_2_and_says_what_to_do(
        self, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert expected in err
        assert main([*words, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 2

    def test_words_after_two_dashes_are_no_options(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["data", "check", "--", "--json"]) == 2
        assert capsys.readouterr().out == ""


class TestData:
    def test_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "list", "--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
        assert rows["hazelnut_toy"]["ready"]
        assert main(["data", "list"]) == 0
        assert all(name in capsys.readouterr().out for name in [*rows][:1])

    def test_fetch(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "fetch", "hazelnut_toy", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (Path(found["folder"]) / "train" / "good").is_dir()

    def test_check(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "check", "hazelnut_toy", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["counts"] == {"train": 28, "test good": 6, "test defect colour": 17}
        assert found["ok"]

    def test_check_of_a_damaged_folder(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "good").mkdir()
        (tmp_path / "good" / "a.png").write_bytes(b"")
        assert main(["data", "check", str(tmp_path), "--json"]) == 3
        assert "a.png" in capsys.readouterr().out
        assert main(["data", "check", str(tmp_path)]) == 3
        assert "a.png" in capsys.readouterr().out

    def test_check_of_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "check", str(tmp_path / "none")]) == 3
        assert main(["data", "check", str(tmp_path)]) == 3
        assert capsys.readouterr().out == ""


class TestDoctor:
    def test_record(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["torch"]["version"] == torch.__version__
        assert record["machine"]["cores"] >= 1
        assert record["problems"] == []

    def test_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor"]) == 0
        assert torch.__version__ in capsys.readouterr().out

    def test_a_broken_torch_is_a_problem_and_not_a_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        assert main(["doctor"]) == 1
        assert "torch cannot be imported" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("torch>=2.7", ("torch", None)),
            ('matplotlib>=3.9; extra == "report"', ("matplotlib", "report")),
            ("scikit-image>=0.25 ; extra == 'data'", ("scikit-image", "data")),
        ],
    )
    def test_requirements_are_read(self, line: str, expected: tuple[str, str | None]) -> None:
        match = REQUIREMENT.match(line)
        assert match
        assert match.groups() == expected


class TestOutput:
    def test_json_knows_no_nan(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_json(
            {
                "nan": float("nan"),
                "inf": [float("inf"), -float("inf")],
                "path": Path("a/b"),
                "tensor": torch.tensor([1.0, float("nan")]),
                "count": np.int64(3),
                "score": np.float32("inf"),
                "pair": (1, True),
            }
        )
        assert json.loads(capsys.readouterr().out) == {
            "nan": None,
            "inf": [None, None],
            "path": "a/b",
            "tensor": [1.0, None],
            "count": 3,
            "score": None,
            "pair": [1, True],
        }

    def test_json_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_json({"a": "two\nlines"})
        assert capsys.readouterr().out.count("\n") == 1

    def test_what_is_no_json_is_refused(self) -> None:
        with pytest.raises(TypeError, match="object has no place"):
            print_json({"a": object()})

    def test_columns(self) -> None:
        assert columns([("a", "bb", None), ("ccc", "d", "long one")]) == (
            "a    bb  -\nccc  d   long one"
        )


class TestProgress:
    def test_a_line_every_ten_seconds_with_the_time_left(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = 0.0
        lines = Lines("training", clock=lambda: now)
        for done in range(1, 101):
            now = done / 2
            lines(done, 100, "loss 0.1")
        told = capsys.readouterr().err.splitlines()
        assert told == [
            "training: 20 of 100 (20 %), 40 s left, loss 0.1",
            "training: 40 of 100 (40 %), 30 s left, loss 0.1",
            "training: 60 of 100 (60 %), 20 s left, loss 0.1",
            "training: 80 of 100 (80 %), 10 s left, loss 0.1",
            "training: 100 of 100 (100 %), 0 s left, loss 0.1",
        ]

    def test_a_resumed_run_is_not_thought_fast(self, capsys: pytest.CaptureFixture[str]) -> None:
        now = 0.0
        lines = Lines("training", clock=lambda: now)
        lines(900, 1000)
        now = 10.0
        lines(910, 1000)
        assert capsys.readouterr().err == "training: 910 of 1000 (91 %), 90 s left\n".replace(
            "90 s", "2 min"
        )


SAVING = """
import sys, time, typer
from pathlib import Path
from typer.main import get_command
from advrad.commands.boundary import run
from advrad.commands.options import Json

toy = typer.Typer(rich_markup_mode=None)

@toy.command()
def verb(json: Json = False) -> None:
    try:
        Path("ready").touch()
        time.sleep(30)
    finally:
        Path("saving").touch()
        time.sleep(0.5)
        Path("saved").touch()

sys.exit(run(get_command(toy), sys.argv[1:]))
"""


def wait_for(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} never came"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_first(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SAVING, "--json"],
        cwd=tmp_path,
        env=absolute_path(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(tmp_path / "ready")
        process.send_signal(number)
        wait_for(tmp_path / "saving")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert (tmp_path / "saved").exists()
    assert json.loads(out)["error"]["exit_code"] == code
    assert err == f"advrad: stopped by {number.name}\n"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    code = """
        import sys, typer
        from typer.main import get_command
        from advrad.commands.boundary import run
        toy = typer.Typer(rich_markup_mode=None)
        toy.command()(lambda: print("x" * 1_000_000))
        sys.exit(run(get_command(toy), []))
    """
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=write,
        stderr=subprocess.PIPE,
        env=absolute_path(),
        check=False,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 141  # as a program that SIGPIPE ends, which is no verdict


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--json"], []])
def test_standard_output_on_a_full_disk_is_a_matter_of_resources(words: list[str]) -> None:
    command = [sys.executable, "-m", "advrad", "data", "list", *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=absolute_path(), check=False
        )
    assert done.returncode == 5
    assert b"make room" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("seed", [2**64, 2**63])
def test_a_seed_that_torch_cannot_take_is_refused_with_the_range(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "hazelnut_toy", "nowhere", f"--seed={seed}"]) == 2
    assert f"less than or equal to {2**63 - 1}" in capsys.readouterr().err


def absolute_path() -> dict[str, str]:
    """The environment, with a relative PYTHONPATH made absolute."""
    found = os.environ.get("PYTHONPATH", "")
    parts = [str(Path(part).resolve()) for part in found.split(os.pathsep) if part]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}


def test_a_bar_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from advrad.commands.progress import progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress("training") as tell:
        tell(3, 4, "loss 0.1")
    assert "3/4" in screen.getvalue()


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"advrad {advrad.__version__}\n"


def test_a_read_only_file_system_is_a_matter_of_resources() -> None:
    failure = boundary.explain(OSError(errno.EROFS, "Read-only file system", "out/report.html"))
    assert failure.exit_code == 5
    assert "out/report.html" in failure.message
    assert "choose another folder" in failure.message
