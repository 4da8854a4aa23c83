"""AnoDDPM: where its noise goes, what its chain is, what it learns, and what it refuses."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fits import gone_on
from holding import held
from parts import run
from torch import Tensor, nn
from toys import SETTINGS, good, names, same

from advrad import detectors, scoring, store
from advrad.detectors import AnoDDPM, Run
from advrad.detectors._settings import PRESETS
from advrad.diffusion import EpsDenoiser, Linear, reconstruct
from advrad.diffusion.batches import Batches
from advrad.diffusion.simplex import Simplex
from advrad.errors import ModelError, UsageError
from advrad.metrics import auroc
from advrad.noise import AROUND, Fixed, Noise, PerImage, Split, fresh, out, redraw

TRAIN, TEST = good(10), good(3, seed=1)
NOISE = PerImage(9, names(3))
COLOUR = {"octaves": 4, "persistence": 0.8, "frequency": 2**-6}
TINY = ["--detector=anoddpm", "--set=size=16", "--set=widths=4,8", "--set=patch=1"]
TINY += ["--set=steps=4", "--set=precision=float32", "--set=batch=4", "--set=draws=1"]
TINY += ["--set=shots=2", "--set=octaves=3", "--device=cpu"]


def tiny(**settings: Any) -> AnoDDPM:
    return AnoDDPM(**SETTINGS["anoddpm"] | settings)


@pytest.fixture(scope="module")
def fitted() -> AnoDDPM:
    """Not to be changed."""
    return tiny().fit(TRAIN, Run(seed=4))


class Heard(nn.Module):
    """A network that says nothing and remembers what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []

    def forward(self, x_t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(x_t.detach())
        return 0 * x_t + self.idle, 0 * x_t


def hearing(**settings: Any) -> tuple[AnoDDPM, Heard]:
    """A fitted detector with such a network; nothing was typical."""
    detector, network = tiny(**settings), Heard()
    detector.denoiser = EpsDenoiser(network, Linear())
    detector.typical, detector.spread = torch.zeros(2, 1, 16, 16)
    return detector, network


def measured(detector: AnoDDPM, **settings: Any) -> AnoDDPM:
    return detector.variant(**settings).measure(TRAIN, Run(seed=4))


# --- the noise ---


def test_what_is_put_in_is_simplex_noise_of_the_level() -> None:
    detector, network = hearing(shots=1, draws=1, depth=50)
    with torch.no_grad():
        detector(TEST, NOISE)
    a_k = Linear().alpha_bar(50)
    eps = Simplex(NOISE, **COLOUR)(TEST, 50)
    expected = math.sqrt(a_k) * (2 * TEST - 1) + math.sqrt(1 - a_k) * eps
    [seen] = network.seen
    torch.testing.assert_close(seen, expected)


def test_the_way_back_draws_white_noise_and_the_way_in_is_asked_once() -> None:
    """The steps that are asked for, and with how many numbers an image."""
    asked: list[tuple[int, tuple[int, ...]]] = []

    def noise(like: Tensor, step: int) -> Tensor:
        asked.append((step, tuple(like.shape[1:])))
        return fresh(like, step)

    detector, _ = hearing(shots=3, draws=1, depth=60)
    with torch.no_grad():
        detector(TEST, noise)
    (first, numbers), *rest = asked
    assert first == 60
    assert len(numbers) == 1
    assert rest == [(out(40), (1, 16, 16)), (out(20), (1, 16, 16))]


@pytest.mark.parametrize("shots", [1, 4, 50])
def test_the_reconstruction_is_the_core_s_under_that_noise(fitted: AnoDDPM, shots: int) -> None:
    noise = Split(Simplex(NOISE, **COLOUR), NOISE)
    with torch.no_grad():
        found = measured(fitted, shots=shots).reconstruction(TEST, NOISE)
        rebuilt = reconstruct(fitted.denoiser, 2 * TEST - 1, 50, shots, noise)
    torch.testing.assert_close(found, (rebuilt + 1) / 2)


def test_a_step_of_training_is_shown_simplex_noise_and_pays_for_its_square() -> None:
    """Of a network that says nothing the loss is the noise's own power."""
    detector, network = hearing(levels=[7, 7], augment=[])
    images = TRAIN[:4]
    detector._denoiser = lambda: EpsDenoiser(network, Linear())  # type: ignore[method-assign]
    told: list[float] = []
    run_ = Run(seed=4, report=lambda p: told.append(p.loss) if p.stage == "training" else None)
    detector.fit(images, run_)
    x, source = Batches(images, 4, (), seed=4).draw(1)
    torch.randint(7, 8, (4,), generator=source)
    white = lambda like, step: torch.randn(like.shape, generator=source)
    eps = Simplex(white, **COLOUR)(x, 0)
    a_t = Linear().alpha_bar(7)
    expected = math.sqrt(a_t) * (2 * x - 1) + math.sqrt(1 - a_t) * eps
    torch.testing.assert_close(network.seen[0], expected)
    assert told[0] == pytest.approx(float(eps.square().mean()), rel=1e-5)


# --- the chain and its gradient ---


def slope(detector: AnoDDPM, x: Tensor, noise: Noise = NOISE) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(detector(x, noise).score.sum(), x)[0]


def test_the_gradient_of_a_long_chain_is_that_of_the_chain_kept_in_memory(
    fitted: AnoDDPM,
) -> None:
    detector = measured(fitted, shots=40, depth=200, draws=1)
    x = TEST.clone().requires_grad_()
    noise = Split(Simplex(NOISE, **COLOUR), NOISE)
    rebuilt = (reconstruct(detector.denoiser, 2 * x - 1, 200, 40, noise) + 1) / 2
    gap = scoring.SCORES["deviation"].views(x - rebuilt)
    found = scoring.normalised(gap, detector.typical, detector.spread)
    (expected,) = torch.autograd.grad(scoring.aggregate(found, 0.01).sum(), x)
    assert expected.abs().amax((1, 2, 3)).min() > 0
    torch.testing.assert_close(slope(detector, TEST), expected)


def test_a_long_chain_keeps_no_more_than_the_images_on_its_way(fitted: AnoDDPM) -> None:
    """What lies between two passes: some images' worth a step, whatever the network is."""

    def kept(shots: int) -> int:
        detector = fitted.variant(shots=shots, draws=1)
        return held(lambda x: detector.reconstruction(x, NOISE), TEST)

    image = TEST.numel() * TEST.element_size()
    assert (kept(40) - kept(2)) / 38 < 4 * image
    assert kept(1) > 50 * image  # one pass of the network, which one-shot keeps


def test_every_draw_and_every_shot_has_its_part_in_the_gradient(fitted: AnoDDPM) -> None:
    found = [
        slope(measured(fitted, shots=shots, draws=draws), TEST)
        for shots, draws in ((1, 1), (2, 1), (2, 2))
    ]
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


# --- the score ---


def test_the_score_is_the_mean_over_draws_judged_as_advrad_s(fitted: AnoDDPM) -> None:
    with torch.no_grad():
        gaps = [TEST - fitted.reconstruction(TEST, redraw(NOISE, draw)) for draw in range(2)]
        found = torch.stack([scoring.filtered(gap) for gap in gaps]).mean(0)
        expected = scoring.normalised(found, fitted.typical, fitted.spread)
        anomaly, beside = fitted.examine(TEST, NOISE)
    torch.testing.assert_close(anomaly.map, expected)
    torch.testing.assert_close(anomaly.score, scoring.aggregate(expected, 0.01))
    error = torch.stack(gaps).mean(0).square().mean(1)  # of the mean reconstruction
    torch.testing.assert_close(beside["error"], error.amax((1, 2)))


@pytest.mark.parametrize("score", scoring.SCORES)
def test_what_good_images_show_is_measured_image_by_image(fitted: AnoDDPM, score: str) -> None:
    detector, errors = measured(fitted, score=score), []
    for i in range(len(TRAIN)):
        noise = PerImage(4, [f"good-{i}"])
        with torch.no_grad():
            rebuilt = [fitted.reconstruction(TRAIN[i : i + 1], redraw(noise, d)) for d in (0, 1)]
        views = [scoring.SCORES[score].views(TRAIN[i : i + 1] - r)[0] for r in rebuilt]
        errors.append(torch.stack(views).mean(0))
    found = torch.stack(errors).double()
    close = {"rtol": 1e-4, "atol": 1e-6, "check_dtype": False}
    torch.testing.assert_close(detector.typical, found.mean(0), **close)
    torch.testing.assert_close(detector.spread, found.std(0, correction=0), **close)


def test_draws_are_averaged_and_one_may_be_asked_for(fitted: AnoDDPM) -> None:
    assert fitted.draws_taken == 2
    with torch.no_grad():
        two, one = fitted(TEST, NOISE), fitted(TEST, NOISE, draws=1)
        again = measured(fitted, draws=1)
        again.typical, again.spread = fitted.typical, fitted.spread
        assert all(map(torch.equal, one, again(TEST, NOISE)))
    assert not torch.equal(two.score, one.score)


def discs(count: int, seed: int) -> Tensor:
    """All the same but for their grain."""
    grain = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return (good(40).mean(0) + 0.02 * grain).clamp(0, 1)


def test_trained_it_sees_defects() -> None:
    settings = {"steps": 150, "rate": 3e-3, "average": 0.95, "widths": [16, 32], "depth": 100}
    detector = tiny(**settings, augment=[]).fit(discs(20, 0), Run(seed=0))
    broken = discs(12, 8)
    broken[..., 6:10, 6:10] = 0.1
    test = torch.cat([discs(12, 7), broken])
    with torch.no_grad():
        score = detector(test, PerImage(1, names(24))).score
    assert auroc(score.tolist(), [False] * 12 + [True] * 12) > 0.9


def test_under_noise_the_same_denoiser_is_measured_again(fitted: AnoDDPM) -> None:
    sigma = 0.02  # so little that noisy images stay in [0, 1]
    noisy = fitted.under_noise(TRAIN, Run(seed=4), sigma=sigma)
    state, other = fitted.denoiser.state_dict(), noisy.denoiser.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)
    assert noisy.draws_taken == 1
    around = PerImage(4, [f"good-{i}" for i in range(len(TRAIN))])(TRAIN, AROUND)
    expected = fitted.variant(draws=1).measure(TRAIN + sigma * around, Run(seed=4))
    torch.testing.assert_close(noisy.typical, expected.typical)
    torch.testing.assert_close(noisy.spread, expected.spread)
    assert not torch.allclose(noisy.typical, measured(fitted, draws=1).typical)


# --- training ---


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_a_fit_that_was_stopped_goes_on_bit_by_bit(
    fitted: AnoDDPM, tmp_path: Path, stop: int
) -> None:
    assert same(gone_on(tiny, TRAIN, tmp_path, stop), fitted)


@pytest.mark.parametrize(
    "changed",
    [{"rate": 1e-3}, {"octaves": 3}, {"persistence": 0.5}, {"frequency": 2**-5}],
    ids=str,
)
def test_another_training_is_not_resumed(tmp_path: Path, changed: dict[str, Any]) -> None:
    tiny().fit(TRAIN, Run(seed=4, folder=tmp_path))
    with pytest.raises(UsageError, match=f"other settings or other images.*{next(iter(changed))}"):
        tiny(**changed).fit(TRAIN, Run(seed=4, folder=tmp_path, resume=True))


def test_how_it_scores_may_change_when_a_training_is_resumed(tmp_path: Path) -> None:
    tiny().fit(TRAIN, Run(seed=4, folder=tmp_path))
    settings = {"shots": 1, "depth": 30, "score": "signed", "draws": 1}
    again = tiny(**settings).fit(TRAIN, Run(seed=4, folder=tmp_path, resume=True))
    assert same(again, tiny(**settings).fit(TRAIN, Run(seed=4)))


# --- settings ---


def test_its_training_is_advrad_s_and_depth_and_noise_are_the_paper_s() -> None:
    """Equal budgets: only what the two methods differ in differs."""
    parameters = inspect.signature(AnoDDPM).parameters
    ours = {name: parameter.default for name, parameter in parameters.items()}
    theirs = PRESETS["fast"] | {"depth": 250, "shots": 5, "octaves": 6, "persistence": 0.8}
    theirs |= {"frequency": 1 / 64, "channels": 3}
    del theirs["carried"]
    assert ours == theirs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": 2}, "channels=2: expected one of 1, 3"),
        ({"size": 18}, "size=18: with patch=2 and 2 widths it must be a multiple of 4"),
        ({"size": "wide"}, "size=wide: input should be a valid integer"),
        ({"shots": 51}, "depth=50 with shots=51: expected 1 <= shots <= depth"),
        ({"shots": 0}, "shots=0: expected 1 or more"),
        ({"depth": 1001}, "depth=1001 with shots=3: expected"),
        ({"depth": None}, "depth="),
        ({"draws": 0}, "draws=0: expected 1 or more"),
        ({"octaves": 0}, "octaves=0: expected 1 or more"),
        ({"octaves": 2.5}, r"octaves=2\.5: input should be a valid integer"),
        ({"octaves": 8}, "frequency=0.015625 with octaves=8: expected the last octave's"),
        ({"frequency": 0.0}, "frequency=0 with octaves=4: expected the last octave's.*above 0"),
        ({"frequency": math.nan}, "frequency=nan with octaves=4"),
        ({"persistence": 1.5}, r"persistence=1\.5: expected a share between 0 and 1"),
        ({"score": "best"}, "score=best: expected one of paper"),
        ({"top": -0.1}, r"top=-0\.1: expected a share between 0 and 1"),
        ({"widths": [5]}, r"widths=\(5,\): expected even numbers"),
        ({"levels": [1]}, r"levels=\[1\]: expected two numbers"),
        ({"precision": "float16"}, "precision=float16: expected one of float32, bfloat16"),
        ({"augment": ["shear"]}, "augment=shear: expected one of flips"),
    ],
)
def test_an_impossible_setting_is_refused_with_what_is_possible(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        tiny(**settings)


@pytest.mark.parametrize("name", ["typical", "spread"])
def test_learnt_maps_of_another_shape_or_half_of_them_are_refused(name: str) -> None:
    files = tiny(steps=1, shots=1, draws=1).fit(TRAIN).files()
    state = store.read_tensors(files)
    less = {key: value for key, value in state.items() if key != name}
    for changed in (less, state | {name: state[name][:, 1:]}):
        with pytest.raises(ModelError, match="do not fit"):
            detectors.restore(files | {"model.safetensors": store.tensors(changed)})


def test_a_fixed_noise_gives_all_images_the_same_field(fitted: AnoDDPM) -> None:
    with torch.no_grad():
        found = fitted(TEST[:1].expand(3, -1, -1, -1), Fixed(0)).score
    torch.testing.assert_close(found, found[:1].expand(3))


# --- through the command line ---


def test_the_verbs_take_it_as_any_detector(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out_ = tmp_path / "model", tmp_path / "out"
    code, made, _ = run(capsys, "train", parts, model, *TINY)
    assert code == 0
    assert made["settings"]["detector_settings"]["octaves"] == 3
    assert "AnoDDPM" in (model / "README.md").read_text()
    code, result, _ = run(capsys, "evaluate", model, parts, "--out", out_)
    assert code == 0
    assert 0 <= result["beside"]["error"]["image_auroc"] <= 1
    assert "reconstruction of" in (out_ / "report.html").read_text()
