"""What is installed, and what importing costs."""

import importlib.util
import subprocess
import sys
import time

HEAVY = ("torch", "scipy", "matplotlib", "PIL", "numpy")
LIMIT = 0.5  # seconds


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_torchvision_is_not_installed() -> None:
    """A torchvision built against another torch breaks both it and whatever probes for it."""
    assert importlib.util.find_spec("torchvision") is None


def test_importing_the_package_imports_nothing_heavy() -> None:
    done = python(f"import advrad, sys; print([n for n in {HEAVY} if n in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_help_imports_nothing_heavy() -> None:
    done = python(
        "import sys\nfrom advrad.cli import main\n"
        "code = main(['--help'])\n"
        f"print(code, [n for n in {HEAVY} if n in sys.modules])"
    )
    assert done.stdout.strip().endswith("0 []"), done.stdout + done.stderr


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = python("import sys\nfrom advrad.cli import main\nsys.exit(main(['--help']))")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < LIMIT, f"--help takes {min(seconds):.2f} s, at most {LIMIT} s expected"
