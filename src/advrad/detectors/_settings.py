"""AdvRAD's settings: two presets, and what is possible."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..checks import at_least, one_of, plain, share, typed
from ..data.shapes import MIN_SIDE
from ..diffusion import SCHEDULES, EpsDenoiser, Recipe, Schedule, UNet
from ..diffusion.augment import ALL as VIEWS
from ..errors import UsageError
from ..scoring import SCORES

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "size": 256,
        "depth": (100,),
        "shots": 1,
        "draws": 1,
        "score": "paper",
        "top": 0.0,
        "schedule": "linear",
        "patch": 1,
        "widths": (128, 128, 256, 256, 512, 512),
        "blocks": 2,
        "attention": (16,),
        "levels": (1, 1000),
        "steps": 30_000,
        "batch": 2,
        "rate": 1e-4,
        "warmup": 0,
        "decay": False,
        "average": 0.9999,
        "clip": 0.0,
        "augment": (),
        "precision": "float32",
        "carried": 0.0,
    },
    "fast": {
        "size": 128,
        "depth": None,
        "shots": 1,
        "draws": 2,
        "score": "deviation",
        "top": 0.01,
        "schedule": "linear",
        "patch": 2,
        "widths": (64, 96, 128, 128),
        "blocks": 1,
        "attention": (),
        "levels": (1, 400),
        "steps": 1000,
        "batch": 16,
        "rate": 5e-4,
        "warmup": 50,
        "decay": True,
        "average": 0.995,
        "clip": 1.0,
        "augment": ("flips",),
        "precision": "bfloat16",
        "carried": 0.0,
    },
}

DEPTHS = (25, 50, 100, 200, 300)  # from which a depth that is not given is chosen
TWO = "expected two numbers, 1 <= low <= high <= 1000"
RUNGS = 3  # as many of them, next to each other, at most

TRAINED = (
    "size",
    "schedule",
    "patch",
    "widths",
    "blocks",
    "attention",
    "levels",
    "steps",
    "batch",
    "rate",
    "warmup",
    "decay",
    "average",
    "clip",
    "augment",
    "precision",
)  # what the weights depend on; the others can change without training anew


@dataclass(frozen=True)
class Settings:
    """A preset with what was given instead; the meanings are those of AdvRAD's arguments."""

    size: int
    depth: tuple[int, ...] | None
    shots: int
    draws: int
    score: str
    top: float
    schedule: str
    patch: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    levels: tuple[int, int]
    steps: int
    batch: int
    rate: float
    warmup: int
    decay: bool
    average: float
    clip: float
    augment: tuple[str, ...]
    precision: str
    carried: float


def depths_of(settings: Settings) -> list[int]:
    """The depths to choose from: those that the training covers and the shots allow."""
    (low, high), first = settings.levels, carried_level(settings)
    return [depth for depth in DEPTHS if max(low, settings.shots, first) <= depth <= high]


def carried_level(settings: Settings) -> int:
    """The level of the noise that the images carry, 0 where they carry none.

    Raises UsageError where no level has so much.
    """
    if not settings.carried:
        return 0
    try:
        return SCHEDULES[settings.schedule]().level(2 * settings.carried)
    except ValueError as error:
        raise UsageError(f"carried={settings.carried:g}: {error}") from error


def ladders(settings: Settings) -> list[list[int]]:
    """What is chosen among where no depth is given: every row of neighbouring depths.

    The longest first, since several depths see what one overlooks, and the mildest of a length
    first, since it leaves most of a good image as it is.
    """
    depths = depths_of(settings)
    return [
        depths[start : start + length]
        for length in range(min(RUNGS, len(depths)), 0, -1)
        for start in range(len(depths) - length + 1)
    ]


DEEP = 3  # times the noise of the image that `deep` goes to


def under_noise(
    schedule: Schedule, sigma: float, scoring: str, depth: int, deepest: int = 1000
) -> dict[str, Any]:
    """The settings under which images with Gaussian noise sigma, in the [0, 1] scale, are scored.

    `plain` scores a noisy image as any other, at `depth`. `matched` takes it for what it is, at
    the level whose noise is nearest to sigma, and puts nothing in. `coarse` is `matched` without
    the finest scale, where most of the noise is. `deep` puts in what is missing to `DEEP` times
    the noise, or to the level `deepest` where that is less, and averages over more: of the map
    without the finest scale it takes the fifth with the largest deviation.
    """
    if scoring == "plain":
        return {"draws": 1, "depth": depth}
    if scoring == "deep":
        most = schedule.sigma(min(deepest, schedule.steps))
        total = schedule.nearest(min(2 * DEEP * sigma, most))
        depth = max(total, schedule.level(2 * sigma))
        settings = {"draws": 1, "depth": depth, "shots": 1, "carried": sigma}
        return settings | {"score": "coarse", "top": 0.2}
    level = schedule.nearest(2 * sigma)
    matched = {"draws": 1, "depth": level, "shots": 1, "carried": schedule.sigma(level) / 2}
    return matched | ({"score": "coarse"} if scoring == "coarse" else {})


def untrained(settings: Settings, channels: int) -> EpsDenoiser:
    """The denoiser that the settings describe, with weights drawn by torch."""
    sides = [settings.size // settings.patch // 2**i for i in range(len(settings.widths))]
    attention = [sides.index(side) for side in settings.attention]
    network = UNet(channels, settings.widths, settings.blocks, attention, settings.patch)
    return EpsDenoiser(network, SCHEDULES[settings.schedule](), settings.precision)


def recipe(settings: Settings) -> Recipe:
    """How it is trained."""
    s = settings
    return Recipe(s.steps, s.rate, s.warmup, s.decay, s.average, s.clip)


def resolve(preset: str, given: Mapping[str, Any]) -> Settings:
    """The preset's values with those that are given and not None in their place.

    Raises UsageError for a value that is not possible, with the range that is.
    """
    one_of("preset", preset, PRESETS)
    one_of("channels", given.get("channels", 3), (1, 3))
    known = {field.name for field in fields(Settings)}
    values = PRESETS[preset] | {
        name: plain(value) for name, value in given.items() if name in known and value is not None
    }
    if isinstance(values["depth"], int):
        values["depth"] = (values["depth"],)
    return checked(values)


def checked(values: Mapping[str, Any]) -> Settings:
    """The values as settings. Raises UsageError for one that is not possible."""
    levels = values["levels"]
    if not isinstance(levels, Sequence) or len(levels) != 2:
        raise UsageError(f"levels={levels}: {TWO}")
    settings = typed(Settings, values)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    one_of("score", settings.score, SCORES)
    one_of("schedule", settings.schedule, SCHEDULES)
    one_of("precision", settings.precision, ("float32", "bfloat16"))
    for name in settings.augment:
        one_of("augment", name, VIEWS)
    for name in ("size", "shots", "draws", "patch", "blocks", "steps", "batch"):
        at_least(name, getattr(settings, name), 1)
    if not settings.widths or min(settings.widths) < 4 or any(w % 2 for w in settings.widths):
        raise UsageError(f"widths={settings.widths}: expected even numbers from 4 on, one a level")
    if not 1 <= settings.levels[0] <= settings.levels[1] <= 1000:
        raise UsageError(f"levels={settings.levels}: {TWO}")
    for name in ("rate", "warmup", "clip", "carried"):
        at_least(name, getattr(settings, name), 0)
    share("top", settings.top)
    if not 0 <= settings.average < 1:
        raise UsageError(
            f"average={settings.average}: expected a share from 0 up to, not including, 1"
        )
    _check_size(settings)
    _check_depth(settings)


def _check_size(settings: Settings) -> None:
    multiple = settings.patch * 2 ** (len(settings.widths) - 1)
    if settings.size % multiple:
        raise UsageError(
            f"size={settings.size}: with patch={settings.patch} and {len(settings.widths)} widths "
            f"it must be a multiple of {multiple}"
        )
    sides = [settings.size // settings.patch // 2**level for level in range(len(settings.widths))]
    for side in settings.attention:
        one_of("attention", side, sides)


def _check_depth(settings: Settings) -> None:
    if settings.depth == ():
        raise UsageError("depth=[]: expected one depth or more, or none to have it chosen")
    if settings.depth is None and not depths_of(settings):
        raise UsageError(
            f"levels={settings.levels} with shots={settings.shots}: none of "
            f"{', '.join(map(str, DEPTHS))} is among them to be chosen; give a depth"
        )
    if settings.depth is None and settings.size < MIN_SIDE:
        raise UsageError(
            f"size={settings.size}: a depth is chosen on injected defects, which need {MIN_SIDE} "
            "px or more; give a depth"
        )
    depths, first = settings.depth or (), carried_level(settings)
    if len(set(depths)) < len(depths):
        raise UsageError(f"depth={list(depths)}: each depth counts once")
    for depth in depths:
        if not settings.shots <= depth <= 1000:
            raise UsageError(
                f"depth={depth} with shots={settings.shots}: expected 1 <= shots <= depth <= 1000"
            )
        if depth < first:
            raise UsageError(
                f"depth={depth} with carried={settings.carried:g}: expected {first} or deeper, "
                "whose noise is that of the images"
            )
