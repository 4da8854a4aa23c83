"""Signals: a run ends between two steps, says how to go on, and goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parts import TINY, run

from advrad.cli import main
from advrad.commands.boundary import Stopped
from advrad.commands.stopping import stopping
from advrad.diffusion.log import TrainingLog

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
SIGNALLED = """
import os, sys
import advrad.diffusion.log as log
from advrad.cli import main
from advrad.diffusion.checkpoint import Checkpoint

step, number, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
add = log.TrainingLog.add

def signalling(self, at):
    add(self, at)
    if at.number == step:
        os.kill(os.getpid(), number)

log.TrainingLog.add = signalling
Checkpoint.due = lambda self: number == 9
sys.exit(main(words))
"""


def signalled(step: int, number: int, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own that gets the signal when it has made that step."""
    source = str(Path(__file__).parent.parent / "src")
    return subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(step), str(int(number)), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_training_that_was_stopped_goes_on_bit_by_bit(
    number: signal.Signals, code: int, parts: Path, trained: Path, tmp_path: Path
) -> None:
    words = ["train", str(parts), str(tmp_path / "m"), *TINY]
    done = signalled(3, number, *words)
    assert done.returncode == code, done.stderr
    assert f"stopped by {number.name}; what was learnt is kept" in done.stderr
    assert "--resume" in done.stderr
    assert len((tmp_path / "m" / "training" / "log.jsonl").read_text().splitlines()) == 3
    assert main(words) == 2
    assert main([*words, "--resume"]) == 0
    assert weights(tmp_path / "m") == weights(trained)


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_goes_on_bit_by_bit(
    parts: Path, trained: Path, tmp_path: Path
) -> None:
    words = ["train", str(parts), str(tmp_path / "m"), *TINY, "--resume"]
    for step in (1, 2, 4, 5):
        done = signalled(step, signal.SIGKILL, *words)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert main(words) == 0
    assert weights(tmp_path / "m") == weights(trained)


def test_another_training_is_not_gone_on_with(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["train", str(parts), str(tmp_path / "m"), *TINY]
    add = TrainingLog.add

    def signalling(self: TrainingLog, step: Any) -> None:
        add(self, step)
        if step.number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingLog, "add", signalling)
    assert main(words) == 143
    monkeypatch.undo()
    capsys.readouterr()
    code, record, _ = run(capsys, *words, "--resume", "--set=rate=0.1")
    assert code == 2
    assert "rate" in record["error"]["message"]
    assert main([*words, "--resume"]) == 0


class TestStopping:
    def test_between_two_checks_a_signal_waits(self) -> None:
        seen: list[str] = []

        def work(check: Check) -> None:
            check()
            send(signal.SIGTERM)
            seen.append("the step is made to its end")
            check()
            seen.append("never")

        stopped = stopped_in(work, "go on")
        assert seen == ["the step is made to its end"]
        assert stopped.exit_code == 143
        assert str(stopped) == "stopped by SIGTERM; go on"

    def test_before_the_first_check_it_stops_at_once(self) -> None:
        def work(check: Check) -> None:
            send(signal.SIGINT)
            pytest.fail("went on")

        assert stopped_in(work).exit_code == 130

    def test_a_second_interrupt_stops_at_once_and_a_second_term_does_not(self) -> None:
        seen: list[str] = []

        def work(check: Check) -> None:
            check()
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            seen.append("saving")
            send(signal.SIGINT)
            seen.append("never")

        assert stopped_in(work).exit_code == 130
        assert seen == ["saving"]

    def test_a_signal_after_the_last_check_counts_at_the_end(self) -> None:
        def work(check: Check) -> None:
            check()
            send(signal.SIGTERM)

        assert stopped_in(work).exit_code == 143

    def test_handlers_are_put_back(self) -> None:
        before = [signal.getsignal(number) for number, _ in SIGNALS]
        with stopping(""):
            assert [signal.getsignal(number) for number, _ in SIGNALS] != before
        assert [signal.getsignal(number) for number, _ in SIGNALS] == before

    def test_what_the_process_ignores_stays_ignored(self) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with stopping("") as check:
                os.kill(os.getpid(), signal.SIGINT)
                check()
        finally:
            signal.signal(signal.SIGINT, before)


Check = Callable[[], None]


def stopped_in(work: Callable[[Check], None], hint: str = "") -> Stopped:
    """What is raised when `work` runs within `stopping`."""
    with pytest.raises(Stopped) as caught:  # noqa: SIM117
        with stopping(hint) as check:
            work(check)
    return caught.value


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()
