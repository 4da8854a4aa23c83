"""The demo: the whole way, on photographs that come with advrad.

It trains on good hazelnuts, tests on good and stained ones, and writes one report. Interrupted, it
goes on where it stopped; finished, it begins again.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import store
from ..data import Dataset, load
from ..detectors import Progress
from ..errors import ModelError, OtherTrainingError, UsageError
from ..files import write_json
from ..model import Model
from ..model import load as load_model
from .clean import Evaluation, evaluate
from .evaluation_report import add_evaluation
from .report import Report
from .rows import RESULT, ROWS, SETTINGS
from .sections import add_settings, footer, seconds_in_words
from .summary import finding
from .training import Training, train
from .training_report import add_training, settings_of

DATA = "hazelnut_toy"
DEMO: dict[str, Any] = {"steps": 170, "levels": [1, 400]}  # settings of AdvRAD
PAGE = "report.html"
CHECKPOINT = Path("training") / "checkpoint.safetensors"
tell = logging.getLogger("advrad").info


@dataclass(frozen=True)
class Demo:
    """What is asked of the demo; `settings` go before its own."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"
    batch: int = 16


def demo(
    out: Path,
    wanted: Demo = Demo(),
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Trains into OUT/model, evaluates into OUT, writes OUT/result.json and OUT/report.html.

    Returns the evaluation's result with `finding`, `training` and `seconds` in all.
    """
    start = time.monotonic()
    _refuse_foreign(out)
    if (out / PAGE).exists():
        tell(f"{out} holds a finished demo: it is made again")
        _clear(out)
    dataset = load(DATA)
    model = _model(dataset, out / "model", wanted, report)
    asked = Evaluation(wanted.seed, wanted.batch, wanted.device)
    found = evaluate(
        model, dataset, out, asked, lambda done, total: report(Progress("testing", done, total))
    )
    sentence = finding(found, "stained hazelnuts", "good ones")
    page = _report(model, dataset, out, sentence, wanted.device)
    spent = time.monotonic() - start
    result = found | {
        "finding": sentence,
        "training": model.about["training"],
        "seconds": spent,
    }
    write_json(out / RESULT, result)
    page.text(f"The whole demo took {seconds_in_words(spent)}.")
    add_settings(page, {"training": settings_of(model), "evaluation": found["settings"]})
    page.write(out / PAGE)
    return result


def _model(
    dataset: Dataset, folder: Path, wanted: Demo, report: Callable[[Progress], None]
) -> Model:
    """The demo's model: loaded where its training was finished, resumed where it was not."""
    if (folder / store.MANIFEST).exists():
        tell(f"{folder} is trained already: the test goes on")
        return load_model(folder)
    resume = (folder / CHECKPOINT).exists()
    asked = Training(
        settings=DEMO | dict(wanted.settings),
        seed=wanted.seed,
        resume=resume,
        device=wanted.device,
        batch=wanted.batch,
    )
    try:
        return train(dataset, folder, asked, report)
    except (ModelError, OtherTrainingError) as error:
        if not resume:
            raise
        tell(f"the interrupted training cannot go on ({error}): it begins anew")
        shutil.rmtree(folder)
        return _model(dataset, folder, wanted, report)


def _report(model: Model, dataset: Dataset, out: Path, sentence: str, device: str) -> Report:
    page = Report("advrad demo: hazelnuts", sentence, footer(model))
    page.text(
        f"AdvRAD, a diffusion model, has seen {len(model.seen['train'])} photographs of good "
        "hazelnuts and none with a stain. What it cannot rebuild, it reports."
    )
    add_evaluation(page, model, dataset, out, device)
    add_training(page, model, out / "model")
    return page


def _refuse_foreign(out: Path) -> None:
    """A folder with results of something else is not ours to empty."""
    ours = {"model", RESULT, ROWS, SETTINGS, PAGE, ".maps"}
    if out.is_dir():
        strange = sorted(path.name for path in out.iterdir() if path.name not in ours)
        if strange:
            raise UsageError(
                f"{out} holds other files ({', '.join(strange[:3])}): choose another --out"
            )
    elif out.exists():
        raise UsageError(f"{out} is a file: expected a folder, which may be new")


def _clear(out: Path) -> None:
    """The report goes last: a clearing that is interrupted is begun again."""
    shutil.rmtree(out / "model", ignore_errors=True)
    for name in (RESULT, ROWS, SETTINGS, PAGE):
        (out / name).unlink(missing_ok=True)
