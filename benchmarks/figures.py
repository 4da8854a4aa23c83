"""The figures that the other benchmarks have written, in rows for people.

A part is a list of rows: what was measured, the result, what was asked for, the command.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advrad.evaluate.certified_figures import floored
from advrad.evaluate.defence_report import tables
from advrad.evaluate.health import in_words

HERE = Path(__file__).parent
DEMO = "at most 240, and 120 more each for attack and certificate"
ACCURACY = (
    "elpv-mono",
    "autoencoder-elpv-mono",
    "elpv-poly",
    "brick",
    "weave",
    "ridges",
    "speckle",
    "autoencoder-hazelnut_toy",
)


def _demo() -> list[list[str]]:
    record = _read("demo")
    if record is None:
        return []
    f, command = record["figures"], f"`{record['command']}`"
    runs = f["seconds"]
    return [
        ["hazelnut demo, whole, seconds", _range(runs), DEMO, command],
        ["hazelnut image AUROC", f"{f['image_auroc']:.3f}", "0.99", command],
        ["hazelnut pixel AUROC", f"{f['pixel_auroc']:.3f}", "0.95", command],
        *(
            [f"hazelnut under attack, {name}: {_threat(found)}", _robust(found), "", command]
            for name, found in f.get("robustness", {}).items()
        ),
        *_certificate(f.get("certificate"), command),
    ]


def _certificate(found: dict[str, Any] | None, command: str) -> list[list[str]]:
    """Certified AUROC of the demo at each radius, and what it costs."""
    if found is None:
        return []
    images = found["images"]
    label = (
        f"hazelnut certified, sigma {found['sigma']:g}, {found['scoring']}, "
        f"n = {found['samples']}, {images['good']} good and {images['defect']} defective"
    )
    areas = [
        f"{floored(area)} at l2 {radius}"
        for radius, area in found["certified_auroc"].items()
        if area is not None
    ]
    told = f"{found['smoothed_auroc']:.3f} smoothed, {', '.join(areas)}"
    seconds = "hazelnut demo, its certificate, seconds"
    return [
        [label, told, "", command],
        [seconds, f"{found['seconds']:.0f}", "at most 120", command],
    ]


ASKED = {"elpv-mono": "0.97, mean of 3 seeds", "elpv-poly": "0.85"}


BESIDE = {
    "image_auroc_paper": "the paper's exact score, first depth, one draw",
    "image_auroc_error": "its largest plain error",
}


def _accuracy() -> list[list[str]]:
    rows = []
    for name in ACCURACY:
        record = _read(f"accuracy-{name}")
        if record is None:
            continue
        f, command = record["figures"], f"`{record['command']}`"
        seeds = len(f["runs"])
        rows.append(
            [
                f"{name} image AUROC, {seeds} seed{'s' * (seeds > 1)}, "
                f"{f['runs'][0]['steps']} steps",
                _mean(f["image_auroc"]),
                ASKED.get(name, ""),
                command,
            ]
        )
        rows += [
            [f"{name}, {told}", _mean(f[key]), "", command]
            for key, told in BESIDE.items()
            if key in f
        ]
        rows += _choice(name, f["runs"][0], command)
    return rows


def _choice(name: str, run: dict[str, Any], command: str) -> list[list[str]]:
    """What the choice of the depth without labels costs against the best one with them."""
    ladder = run.get("image_auroc_by_depth")
    if not ladder:
        return []
    best = max(ladder, key=lambda depth: ladder[depth])
    taken = " + ".join(map(str, run["choice"]["depth"]))
    cost = ladder[best] - run["image_auroc"]
    exact = run["image_auroc_float32"] - run["image_auroc"]
    return [
        [f"{name}, float32 minus bfloat16", f"{exact:+.4f}", "within 0.005", command],
        [
            f"{name}, cost of depth {taken}, chosen without labels (best one with them: {best})",
            f"{cost:+.3f}",
            "at most 0.01",
            command,
        ],
    ]


def _robustness() -> list[list[str]]:
    """AUROC under attack; a suspect figure never stands without that word."""
    rows = []
    for path in sorted((HERE / "results").glob("robustness-*.json")):
        record = json.loads(path.read_text())
        f, command = record["figures"], f"`{record['command']}`"
        for name, found in f["found"].items():
            told = found | {"suite": f["suite"], "eps": f["eps"], "norm": f["norm"]}
            told |= {"health": found["health"]["verdict"], "not_run": found["health"]["not_run"]}
            label = f"{f['data']} under attack, {WHOSE[name]}: {_threat(told)}"
            rows.append([label, _robust(told), "", command])
    return rows


WHOSE = {"ours": "as it comes", "paper": "the paper's score at depth 100, one draw"}


def _threat(found: dict[str, Any]) -> str:
    images = found["images"]
    return (
        f"{found['norm']} {255 * found['eps']:.3g}/255, suite `{found['suite']}`, "
        f"{images['good']} good and {images['defect']} defective"
    )


def _robust(found: dict[str, Any]) -> str:
    low, high = found["robust_auroc_ci"]
    health = in_words({"verdict": found["health"], "not_run": found["not_run"]})
    return (
        f"{found['clean_auroc']:.3f} clean, {found['robust_auroc']:.3f} ({low:.2f} to {high:.2f}) "
        f"attacked, {health}"
    )


def _suites() -> list[list[str]]:
    """What dearer suites find beyond cheaper ones, on the same images."""
    rows = []
    for path in sorted((HERE / "results").glob("suites-*.json")):
        record = json.loads(path.read_text())
        f, command = record["figures"], f"`{record['command']}`"
        images = f"{f['good']} good and {f['defect']} defective"
        for pair, found in f["beyond"].items():
            one, other = (name.partition("-")[0] for name in pair.split(" over "))
            told = (
                f"{found['ratio']:.2f} times the harm, more on {found['more']} of "
                f"{found['images']} images"
            )
            label = f"{f['data']}, `{one}` beside `{other}` on the same {images}"
            rows.append([label, told, "", command])
    return rows


def _sensitivity() -> list[list[str]]:
    """The papers' sweeps: depth against clean and robust AUROC, shots against AUROC and time."""
    rows = []
    for path in sorted((HERE / "results").glob("sensitivity-*.json")):
        record = json.loads(path.read_text())
        f, command = record["figures"], f"`{record['command']}`"
        asked = f["asked"]
        threat = f"{asked['data']}, 64 px, {asked['images']} images, the paper's score"
        rows += [
            [f"{threat}, depth {depth}, suite `{asked['suite']}`", _robust(found), "", command]
            for depth, found in f["depth"].items()
        ]
        rows += [
            [
                f"{threat}, depth {asked['shots']['depth']}, {shots} shots",
                f"{found['image_auroc']:.3f}, {1000 * found['seconds_per_image']:.0f} ms an image",
                "",
                command,
            ]
            for shots, found in f["shots"].items()
        ]
    return rows


def _purification() -> list[list[str]]:
    """A detector behind DiffPure at every depth, and AdvRAD with the same denoiser."""
    rows = []
    for path in sorted((HERE / "results").glob("purification-*.json")):
        record = json.loads(path.read_text())
        f, command = record["figures"], f"`{record['command']}`"
        asked = f["asked"]
        where = f"{asked['data']}, {asked['size']} px, {_threat(asked | f['advrad'])}"
        for depth, found in f["depth"].items():
            before = f"behind DiffPure, depth {depth}" if int(depth) else "alone"
            label = f"{where}: {asked['detector']} {before}"
            rows.append([label, _robust(found), "", command])
        rows.append([f"{where}: AdvRAD, the same denoiser", _robust(f["advrad"]), "", command])
    return rows


def grids() -> list[str]:
    """The tables of each grid, under a heading of its own."""
    told = []
    for path in sorted((HERE / "results").glob("grid-*.json")):
        record = json.loads(path.read_text())
        f = record["figures"]
        tables = f["tables"].replace("## ", "### ").split("\n", 1)[1].strip()
        time = "" if f["seconds"] is None else f", {f['seconds'] / 60:.0f} minutes in one go"
        left = f"; {f['not_run']} tasks not run" if f.get("not_run") else ""
        more = f" and {n} of which no time is kept" if (n := f.get("not_timed")) else ""
        told.append(
            f"## Grid: {f['name']}\n\n`{record['command']}`: "
            f"{f['seconds_of_tasks'] / 60:.0f} minutes of tasks{more}{time}{left}.\n\n{tables}"
        )
    return told


def defences() -> list[str]:
    """The tables of the trials of defences, under a heading of its own for each part."""
    told = []
    for path in sorted((HERE / "results").glob("defences-*.json")):
        record = json.loads(path.read_text())
        f = record["figures"]
        part = path.stem.partition("-")[2]
        told.append(
            f"## Defences of classifiers: {part}\n\n`{record['command']}`, "
            f"l_inf {_in_levels(f['eps'])}. Trained: "
            f"{'; '.join(map(_of_model, f['models'].items()))}."
        )
        for name, trial in f["trials"].items():
            taken = [
                f"{each['defence']} {each['seconds_per_image']:.3g}" for each in trial["clean"]
            ]
            told.append(
                f"### {name}, {trial['images']} images\n\nSeconds for a clean image: "
                f"{'; '.join(taken)}.\n\n{tables(trial).strip()}"
            )
        if over := f.get("over_control"):
            more = [
                f"{name} {100 * each['value']:+.1f} ({100 * each['low']:+.1f} to "
                f"{100 * each['high']:+.1f})"
                for name, each in over.items()
            ]
            told.append(
                "Points above the control under PGD, same images, 95 % bootstrap intervals: "
                f"{'; '.join(more)}."
            )
        if whole := f.get("whole"):
            right = [
                f"{name} {each['value']:.0%} ({each['low']:.0%} to {each['high']:.0%})"
                for name, each in whole["clean"].items()
            ]
            told.append(
                f"The chain of {whole['shots']} steps without an attack, one draw, right: "
                f"{'; '.join(right)}."
            )
    return told


def _in_levels(eps: float) -> str:
    """A radius as people write it: 8/255, or 0.1."""
    levels = round(255 * eps, 6)
    return f"{levels:g}/255" if levels.is_integer() else f"{eps:g}"


def _of_model(named: tuple[str, dict[str, Any]]) -> str:
    """How good a classifier is, and how long a training took."""
    name, about = named
    if "test_accuracy" in about:
        accuracy, taken = about["test_accuracy"], about["cost"]["training_seconds"]
        told = f"{accuracy['value']:.2%} ({accuracy['low']:.2%} to {accuracy['high']:.2%}) right, "
    else:
        told, taken = "", about["trainings"][-1]["training_seconds"]
    return f"`{name}` {told}{taken / 60:.0f} minutes"


def _certificates() -> list[list[str]]:
    """Smoothed and certified AUROC, a row for each sigma and scoring."""
    rows = []
    for path in sorted((HERE / "results").glob("certificates-*.json")):
        record = json.loads(path.read_text())
        f, command = record["figures"], f"`{record['command']}`"
        side, images = f["settings"]["height"], f["images"]
        for row in f["rows"]:
            areas = [
                f"{floored(area)} at l2 {radius}" if area is not None else needs(row, radius)
                for radius, area in row["certified_auroc"].items()
            ]
            whose = "" if f["detector"] == "advrad" else f"{f['detector']}, "
            label = (
                f"{f['data']} certified, {whose}{side} px, sigma {row['sigma']:g}, "
                f"{row['scoring']}, n = {row['samples']:,}, {images['good']} good and "
                f"{images['defect']} defective"
            )
            told = f"{row['smoothed_auroc']:.3f} smoothed, {', '.join(areas)}"
            aim = "" if whose or f["data"] != "elpv-mono" else "0.80 at 0.2 with some sigma"
            rows.append([label, told, aim, command])
    return rows


def needs(row: dict[str, Any], radius: str) -> str:
    """What a radius without a figure would need."""
    samples = row["needed"][radius]
    return f"n/a at {radius} ({'n > 1e9' if samples is None else f'n = {samples:,}'} needed)"


def _soundness() -> list[list[str]]:
    rows = []
    for path in sorted((HERE / "results").glob("soundness-*.json")):
        record = json.loads(path.read_text())
        f = record["figures"]
        label = (
            f"{f['data']}, {f['size']} px, {f['images']} certificates attacked, "
            f"sigma {f['sigma']:g}, l2 "
            f"{f['radius']:g}: violations"
        )
        told = (
            f"{f['violations']} ({f['caught_if_bounds_were_for']['no radius']} if the bounds left "
            f"the radius out); AUROC {f['certified_auroc']:.3f} certified, "
            f"{f['attacked_auroc']:.3f} attacked, {f['smoothed_auroc']:.3f} smoothed"
        )
        rows.append([label, told, "0", f"`{record['command']}`"])
    return rows


def _certify() -> list[list[str]]:
    record = _read("certify")
    if record is None:
        return []
    f, command = record["figures"], f"`{record['command']}`"
    return [
        [f"seconds for {f['samples']:,} draws of an image, 64 px", _spread(f["seconds"]),
         "at most 5", command],
        ["the same to bare scores", _spread(f["to_scoring_alone"]), "", command],
        ["the same to passes of the denoiser", _spread(f["to_bare_forward_passes"]),
         "at most 1.05", command],
    ]  # fmt: skip


def _attack() -> list[list[str]]:
    record = _read("attack")
    if record is None:
        return []
    f, command = record["figures"], f"`{record['command']}`"
    held = ", ".join(f"{value:.0f} for {draws}" for draws, value in f["mib_above_start"].items())
    return [
        [
            "gradient evaluations a second of PGD, against a bare loop's",
            _spread(f["rate_of_pgd_to_bare_loop"]),
            "at least 0.9",
            command,
        ],
        ["MiB that one evaluation holds, by draws of EOT", held, "does not grow", command],
    ]


def _speed() -> list[list[str]]:
    record = _read("speed")
    if record is None:
        return []
    rows, command = [], f"`{record['command']}`"
    for precision, value in record["figures"]["prediction_ms_per_image"].items():
        asked = "at most 30" if precision == "bfloat16" else ""
        label = f"ms an image, 128 px, one depth, one draw, batch of 16, {precision}"
        rows.append([label, _spread(value), asked, command])
    whole = record["figures"]["prediction_ms_per_image_preset"]
    rows.append(["ms an image as it comes: 3 depths, 2 draws", _spread(whole), "", command])
    for precision, value in record["figures"]["training_seconds_per_step_of_16"].items():
        rows.append([f"seconds a training step of 16, {precision}", _spread(value), "", command])
    return rows


def _memory() -> list[list[str]]:
    record = _read("memory")
    if record is None:
        return []
    f, command = record["figures"], f"`{record['command']}`"
    most = max(f["gib_above_after_training"], f["gib_above_after_evaluation"])
    label = f"GiB for {f['images']:,} images, training and evaluation"
    return [[label, f"{most:.2f}", "at most 1.5", command]]


def _chain() -> list[list[str]]:
    record = _read("chain")
    if record is None:
        return []
    f, command = record["figures"], f"`{record['command']}`"
    steps = f"gradient through {f['shots']} steps of a U-Net, 32 px"
    times = f["to_forward_and_backward_of_each_step"]
    least = f"{_spread(times)}, {f['of_the_least_times']:.3g} of the least times"
    return [
        [
            f"image tensors held by the {steps}, beyond those of 3 steps",
            f"{f['image_tensors_beyond_3_steps']:.0f}",
            f"at most {f['shots']}",
            command,
        ],
        [f"time of the {steps}, to that of their passes", least, "at most 1.5", command],
    ]


def _read(name: str) -> dict[str, Any] | None:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _mean(value: dict[str, float | None]) -> str:
    return f"{value['mean']:.3f}" + (f" ± {value['sd']:.3f}" if value["sd"] is not None else "")


def _spread(value: dict[str, float]) -> str:
    return f"{value['median']:.3g} ({value['least']:.3g} to {value['most']:.3g})"


def _range(values: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


PARTS: dict[str, list[Callable[[], list[list[str]]]]] = {
    "The demo": [_demo],
    "Accuracy": [_accuracy],
    "Under attack": [_robustness, _suites, _sensitivity, _purification],
    "Certified": [_certificates, _soundness],
    "Time and memory": [_speed, _attack, _certify, _memory, _chain],
}
