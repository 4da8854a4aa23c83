"""The demo: the whole way, on photographs that come with advrad.

It trains on good hazelnuts, tests on good and stained ones, attacks some of them beside a plain
autoencoder, certifies what no attack can do to them, and writes one report. Interrupted, it goes
on where it stopped; finished, it begins again.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
from .demo_certificate import FOLDER as CERTIFICATE
from .demo_certificate import add_certified, certify_one
from .demo_certificate import sentence as sentence_certified
from .demo_robustness import FOLDER, IMAGES, add_robustness, attack_both
from .demo_robustness import sentence as sentence_of
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
AUTOENCODER: dict[str, Any] = {"steps": 150}
CHECKPOINT = Path("training") / "checkpoint.safetensors"
Result = dict[str, Any]
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
) -> Result:
    """Trains into OUT/model, evaluates into OUT, writes OUT/result.json and OUT/report.html.

    An autoencoder is trained into OUT/autoencoder, both are attacked in OUT/robustness, and AdvRAD
    is certified in OUT/certificate. Returns the evaluation's result with `robustness` (an attack's
    result for each detector), `certificate`, `finding`, `training` and `seconds` in all.
    """
    start = time.monotonic()
    _refuse_foreign(out)
    if _finished(out):
        tell(f"{out} holds a finished demo: it is made again")
        _clear(out)
    dataset = load(DATA)
    model = _model(dataset, out / "model", _training(wanted), report)
    asked = Evaluation(wanted.seed, wanted.batch, wanted.device)
    found = evaluate(
        model, dataset, out, asked, lambda done, total: report(Progress("testing", done, total))
    )
    models = {"advrad": model, "autoencoder": _rival(dataset, out, model, wanted, report)}
    few = replace(asked, limit=IMAGES)
    attacked = attack_both(models, dataset, out, few, report)
    certified = certify_one(model, dataset, out, few, report)
    result = found | {
        "robustness": attacked,
        "certificate": certified,
        "finding": _sentences(found, attacked, certified),
        "training": model.about["training"],
    }
    page = _report(models, dataset, out, result)
    result["seconds"] = time.monotonic() - start
    write_json(out / RESULT, result)
    _add_end(page, model, result)
    page.write(out / PAGE)
    return result


def _sentences(found: Result, attacked: Result, certified: Result) -> str:
    tested = finding(found, "stained hazelnuts", "good ones")
    return f"{tested} {sentence_of(attacked)} {sentence_certified(certified)}"


def _training(wanted: Demo) -> Training:
    return Training(
        settings=DEMO | dict(wanted.settings),
        seed=wanted.seed,
        device=wanted.device,
        batch=wanted.batch,
    )


def _rival(
    dataset: Dataset,
    out: Path,
    model: Model,
    wanted: Demo,
    report: Callable[[Progress], None],
) -> Model:
    """The autoencoder, on images of the same size: a radius means nothing without it."""
    settings = AUTOENCODER | {"size": model.preprocess.size, "channels": model.preprocess.channels}
    asked = replace(_training(wanted), detector="autoencoder", settings=settings)
    return _model(dataset, out / "autoencoder", asked, report)


def _model(
    dataset: Dataset, folder: Path, asked: Training, report: Callable[[Progress], None]
) -> Model:
    """A model: loaded where its training was finished, resumed where it was not."""
    if (folder / store.MANIFEST).exists():
        tell(f"{folder} is trained already: the test goes on")
        return load_model(folder)
    resume = (folder / CHECKPOINT).exists()
    try:
        return train(dataset, folder, replace(asked, resume=resume), report)
    except (ModelError, OtherTrainingError) as error:
        if not resume:
            raise
        tell(f"the interrupted training cannot go on ({error}): it begins anew")
        shutil.rmtree(folder)
        return _model(dataset, folder, asked, report)


def _report(models: Mapping[str, Model], dataset: Dataset, out: Path, result: Result) -> Report:
    model, attacked = models["advrad"], result["robustness"]
    device = attacked["advrad"]["settings"]["device"]
    page = Report("advrad demo: hazelnuts", result["finding"], footer(model))
    page.text(
        f"AdvRAD, a diffusion model, has seen {len(model.seen['train'])} photographs of good "
        "hazelnuts and none with a stain. What it cannot rebuild, it reports."
    )
    add_evaluation(page, model, dataset, out, device)
    add_robustness(page, models, dataset, out, attacked, device)
    add_certified(page, model, dataset, out, result["certificate"])
    add_training(page, model, out / "model")
    return page


def _add_end(page: Report, model: Model, result: Result) -> None:
    page.text(f"The whole demo took {seconds_in_words(result['seconds'])}.")
    certificate = result["certificate"]["settings"]["certificate"]
    settings = {"training": settings_of(model), "evaluation": result["settings"]}
    add_settings(page, settings | {"certificate": certificate})


def _refuse_foreign(out: Path) -> None:
    """A folder with results of something else is not ours to empty."""
    ours = {"model", "autoencoder", FOLDER, CERTIFICATE, RESULT, ROWS, SETTINGS, PAGE, ".maps"}
    if out.is_dir():
        strange = sorted(path.name for path in out.iterdir() if path.name not in ours)
        if strange:
            raise UsageError(
                f"{out} holds other files ({', '.join(strange[:3])}): choose another --out"
            )
    elif out.exists():
        raise UsageError(f"{out} is a file: expected a folder, which may be new")
    if (out / PAGE).exists() and not _finished(out):
        raise UsageError(f"{out / PAGE} is no report of a demo: choose another --out")


def _finished(out: Path) -> bool:
    """Whether the folder's result and report are those of a demo."""
    try:
        return (out / PAGE).exists() and "finding" in dict(json.loads((out / RESULT).read_text()))
    except (OSError, TypeError, ValueError):
        return False


def _clear(out: Path) -> None:
    """The report goes before what tells that it is ours: an interrupted clearing begins again."""
    for name in ("model", "autoencoder", FOLDER, CERTIFICATE):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (ROWS, PAGE, RESULT, SETTINGS):
        (out / name).unlink(missing_ok=True)
