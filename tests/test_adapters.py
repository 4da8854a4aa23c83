"""Other people's modules as detectors: same numbers, honest gradients, reproducible draws."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from toys import good, names

from advrad.adapters import Found, ModuleDetector, Opened, from_anomalib
from advrad.attacks.gradient import value_and_gradient
from advrad.attacks.objective import eot, log_sum_exp, top_mean
from advrad.detectors import Anomaly
from advrad.errors import BlindAttackError, ModelError, UsageError
from advrad.evaluate.scores import scored
from advrad.noise import Draws, Fixed, PerImage


class Linear(nn.Module):
    """A score that is linear in the image, and a map that sums up to it."""

    def __init__(self, channels: int = 1, size: int = 8) -> None:
        super().__init__()
        weight = torch.randn(channels, size, size, generator=torch.Generator().manual_seed(3))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        places = (x * self.weight).sum(1)
        return places.sum((1, 2)), places


class Drawing(nn.Module):
    """The mean of the image plus a number drawn from torch's own generator."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3)) * (1 + torch.randn(()))


def mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))


def gradient(detector: Any, x: Tensor) -> Tensor:
    return value_and_gradient(lambda x: detector(x).score, x).gradient


def test_scores_maps_and_gradients_are_those_of_the_module() -> None:
    module, x = Linear(), good(3, 1, 8)
    detector = ModuleDetector(module, size=8, channels=1)
    anomaly = detector(x)
    assert isinstance(anomaly, Anomaly)
    torch.testing.assert_close(anomaly, Anomaly(*module(x)), rtol=0, atol=0)
    assert torch.equal(gradient(detector, x), module.weight.expand_as(x))


def test_the_images_become_of_the_module_s_size_and_channels() -> None:
    seen = []
    detector = ModuleDetector(lambda x: (seen.append(x), mean(x))[1], size=8, channels=3)
    score = detector(torch.full((2, 1, 20, 12), 0.25)).score
    assert seen[0].shape == (2, 3, 8, 8)
    torch.testing.assert_close(score, torch.full((2,), 0.25))


def test_without_a_map_every_pixel_has_the_score_and_smooth_maxima_equal_it() -> None:
    x = good(3, 1, 8)
    score, places = ModuleDetector(mean, size=8, channels=1)(x)
    assert torch.equal(places, score[:, None, None].expand(3, 8, 8))
    torch.testing.assert_close(log_sum_exp(places), score)
    torch.testing.assert_close(top_mean(places), score)


def test_a_coarse_map_is_enlarged_and_keeps_its_range() -> None:
    coarse = torch.tensor([[[[-3.0, 5.0], [0.0, 7.0]]]])
    detector = ModuleDetector(lambda x: (mean(x), coarse), size=8, channels=1)
    places = detector(torch.zeros(1, 1, 8, 8)).map
    assert places.shape == (1, 8, 8)
    corners = places[0, [0, 0, 7, 7], [0, 7, 0, 7]].tolist()
    assert corners == [-3.0, 5.0, 0.0, 7.0]


def test_the_score_is_picked_out_of_whatever_is_returned() -> None:
    x = good(2, 1, 8)
    detector = ModuleDetector(
        lambda x: {"logits": torch.stack([-mean(x), mean(x)], 1), "heat": x},
        lambda output: (output["logits"][:, 1], output["heat"]),
        size=8,
        channels=1,
    )
    torch.testing.assert_close(detector(x), Anomaly(mean(x), x[:, 0]))


WRONG = {
    "a column": (lambda x: mean(x)[:, None], r"float32 of shape \(2, 1\) as scores: .*\(2,\)"),
    "one number": (lambda x: x.mean(), r"shape \(\) as scores"),
    "a map alone": (lambda x: x[:, 0], r"shape \(2, 8, 8\) as scores"),
    "whole numbers": (lambda x: mean(x).long(), r"int64 of shape \(2,\) as scores"),
    "no tensor": (lambda x: mean(x).tolist(), "a list as scores"),
    "nothing": (lambda x: None, "a NoneType as scores"),
    "a flat map": (lambda x: (mean(x), x.flatten(1)), r"\(2, 64\) as a map: .*\(2, 8, 8\)"),
    "a map of others": (lambda x: (mean(x), x[:1, 0]), r"shape \(1, 8, 8\) as a map"),
    "a map of colours": (lambda x: (mean(x), x.repeat(1, 3, 1, 1)), r"\(2, 3, 8, 8\) as a map"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_shape_is_told_with_the_expected_one(case: str) -> None:
    module, told = WRONG[case]
    with pytest.raises(UsageError, match=told):
        ModuleDetector(module, size=8, channels=1)(good(2, 1, 8))


@pytest.mark.parametrize(
    "settings", [{"size": 0}, {"size": 8, "channels": 2}, {"size": 8, "draws": -1}]
)
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected"):
        ModuleDetector(mean, **settings)


def test_it_is_neither_fitted_nor_saved(tmp_path: Path) -> None:
    detector = ModuleDetector(Linear(), size=8, channels=1)
    with pytest.raises(UsageError, match="Linear is attacked and certified as it is"):
        detector.fit(good(2, 1, 8))
    with pytest.raises(UsageError, match="Linear cannot be saved"):
        detector.save(tmp_path / "model")
    assert detector.params == {
        "module": "Linear",
        "size": 8,
        "channels": 1,
        "draws": 0,
        "alone": False,
    }


def test_a_module_is_put_in_eval_mode() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
    detector = ModuleDetector(module.train(), size=8, channels=1)
    x = good(2, 1, 8)
    assert torch.equal(detector(x).score, detector(x).score)


class Held:
    """Images with names, as the library scores them."""

    def __init__(self, tensors: Tensor) -> None:
        self.tensors, self.ids = tensors, names(len(tensors))

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, index: int, /) -> Tensor:
        return self.tensors[index]


@pytest.mark.parametrize("draws", [0, 3])
def test_the_library_scores_it_like_any_detector_whatever_the_batch(draws: int) -> None:
    module = Drawing() if draws else Linear()
    detector = ModuleDetector(module, size=8, channels=1, draws=draws)
    held = Held(good(5, 1, 8))
    whole, single = ([found.score for found in scored(detector, held, 7, n)] for n in (5, 1))
    assert whole == pytest.approx(single, rel=1e-6)


def test_draws_come_from_the_noise_and_are_averaged() -> None:
    x = good(4, 1, 8)
    detector = ModuleDetector(Drawing(), size=8, channels=1, draws=2)
    noise = PerImage(5, names(4))
    assert detector.draws_taken == 2
    assert torch.equal(detector(x, noise).score, detector(x, noise).score)
    assert not torch.equal(detector(x).score, detector(x).score)
    assert not torch.equal(detector(x, PerImage(6, names(4))).score, detector(x, noise).score)
    factors = detector(x, noise, draws=1).score / mean(x)
    assert len(set(factors.tolist())) == 4  # an image's draw is its own
    shared = detector(x, Fixed(1), draws=1).score / mean(x)
    torch.testing.assert_close(shared, shared[:1].expand(4))
    many = detector(x, noise, draws=400).score / mean(x)
    assert (many - 1).abs().max() < 4 / 20  # four standard errors


def test_a_draw_leaves_the_generator_of_the_caller_alone() -> None:
    detector = ModuleDetector(Drawing(), size=8, channels=1, draws=2)
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    detector(good(2, 1, 8), Fixed(4))
    assert torch.equal(torch.randn(3), expected)


def test_the_expectation_over_draws_has_the_gradient_of_the_same_draws() -> None:
    x, ids = good(2, 1, 8), names(2)
    detector = ModuleDetector(Drawing(), size=8, channels=1, draws=2)
    noises = Draws(3, ids)
    drawn = lambda x, noise: detector(x, noise, draws=1).score
    found = value_and_gradient(eot(drawn, 4, noises), x)
    singly = [value_and_gradient(lambda x, k=k: drawn(x, noises(k)), x) for k in range(4)]
    torch.testing.assert_close(found.climb, torch.stack([s.climb for s in singly]).mean(0))
    torch.testing.assert_close(found.gradient, torch.stack([s.gradient for s in singly]).mean(0))


def test_a_score_that_depends_on_the_batch_is_taken_alone() -> None:
    module = lambda x: mean(x) - mean(x).max()
    x = good(3, 1, 8)
    detector = ModuleDetector(module, size=8, channels=1, alone=True)
    assert torch.equal(detector(x).score, torch.zeros(3))
    assert not torch.equal(ModuleDetector(module, size=8, channels=1)(x).score, torch.zeros(3))


def under_no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x.square()
    return mean(y)


@torch.no_grad()
def decorated(x: Tensor) -> Tensor:
    return mean(x.square())


def switched(x: Tensor) -> Tensor:
    with torch.set_grad_enabled(False):
        return mean(x.square())


@torch.inference_mode()
def inferred(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x.square()
    return mean(y)


def detached(x: Tensor) -> Tensor:
    return mean(x.square().detach())


def detached_in_place(x: Tensor) -> Tensor:
    return mean(x.square().detach_())


def with_an_array(x: Tensor) -> Tensor:
    y = x.square()
    return mean(y.detach()) + 0 * float(y.detach().numpy().max())


CUTS = [
    under_no_grad,
    decorated,
    switched,
    inferred,
    detached,
    detached_in_place,
    with_an_array,
]


@pytest.mark.parametrize("module", CUTS)
def test_a_cut_gradient_is_opened_and_no_value_changes(module: Any) -> None:
    x = good(3, 1, 8)
    with pytest.raises(BlindAttackError):
        gradient(ModuleDetector(module, size=8, channels=1), x)
    opened = Opened(module)
    detector = ModuleDetector(opened, size=8, channels=1)
    found = value_and_gradient(lambda x: detector(x).score, x)
    assert torch.equal(found.climb, mean(x.square()))
    torch.testing.assert_close(found.gradient, 2 * x / 64)
    assert opened.found.cuts >= 1
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_half_a_gradient_becomes_the_whole() -> None:
    def half(x: Tensor) -> Tensor:
        with torch.no_grad():
            teacher = 3 * x
        return mean(teacher * x)

    x = good(3, 1, 8)
    closed = ModuleDetector(half, size=8, channels=1)
    opened = ModuleDetector(Opened(half), size=8, channels=1)
    torch.testing.assert_close(gradient(closed, x), 3 * x / 64)
    torch.testing.assert_close(gradient(opened, x), 6 * x / 64)


def test_whoever_wants_no_gradient_gets_none_and_nothing_is_counted() -> None:
    module = Opened(under_no_grad)
    x = good(2, 1, 8).requires_grad_()
    with torch.no_grad():
        assert not module(x).requires_grad
    with torch.inference_mode():
        assert module(x).is_inference()
    assert module.found == Found()


def test_parameters_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
    module[1].bias.requires_grad_(False)
    gradient(ModuleDetector(Opened(module), size=8, channels=1), good(2, 1, 8))
    assert [p.requires_grad for p in module.parameters()] == [True, False]
    assert all(p.grad is None for p in module.parameters())


def distance(root: Any) -> Any:
    """The distance of each image to the first one that is seen, by a root of one's own."""
    memory: list[Tensor] = []

    def score(x: Tensor) -> Tensor:
        memory[:] = memory or [x[:1].detach().clone()]
        return root((x - memory[0]).square().sum((1, 2, 3)))

    return score


ROOTS = {
    "torch.sqrt": torch.sqrt,
    "sqrt": lambda y: y.sqrt(),
    "sqrt_": lambda y: y.sqrt_(),
    "torch.sqrt_": lambda y: torch.sqrt_(y),
    "power": lambda y: y**0.5,
    "pow": lambda y: y.pow(0.5),
    "torch.pow": lambda y: torch.pow(y, 0.5),
}


@pytest.mark.parametrize("root", ROOTS)
def test_a_distance_of_zero_has_the_gradient_zero_and_is_counted(root: str) -> None:
    x = good(3, 1, 8)
    module = distance(ROOTS[root])
    z = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(module(z).sum(), z)
    assert plain[0].isnan().all()
    assert plain[1:].isfinite().all()
    opened = Opened(module)
    found = value_and_gradient(opened, x)
    torch.testing.assert_close(found.gradient[1:], plain[1:])
    assert torch.equal(found.gradient[0], torch.zeros(1, 8, 8))
    assert torch.equal(found.climb, module(x))
    assert opened.found.zero_roots == 1


class Inference(NamedTuple):
    """As anomalib's torch models return it."""

    pred_score: Any = None
    anomaly_map: Any = None


class Network(nn.Module):
    """A memory of one image, a backbone under no_grad; as anomalib has them."""

    def __init__(self, score: bool = True) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Inference:
        with torch.no_grad():
            places = x.mean(1, keepdim=True)
        score = places.amax((-2, -1)) if self.score else None  # (B, 1)
        return Inference(score, places)


class Whole(nn.Module):
    """A model of anomalib, as far as the adapter looks at it: its displayed score is clamped."""

    def __init__(self, size: tuple[int, int] | None = (8, 8), **settings: Any) -> None:
        super().__init__()
        self.model = Network(**settings)
        self.pre_processor = SimpleNamespace(transform=lambda x: 10 * x - 2)
        self.input_size = size

    def forward(self, x: Tensor) -> Inference:
        raw = self.model(self.pre_processor.transform(x))
        return Inference(raw.pred_score.clamp(0, 1), raw.anomaly_map.clamp(0, 1))


@pytest.mark.parametrize("score", [True, False])
def test_the_raw_score_of_an_anomalib_model_is_taken_with_its_pre_processing(score: bool) -> None:
    x = good(3, 3, 8)
    detector = from_anomalib(Whole(score=score))
    anomaly = detector(x)
    torch.testing.assert_close(anomaly.map, 10 * x.mean(1) - 2)
    torch.testing.assert_close(anomaly.score, anomaly.map.flatten(1).amax(1))
    assert (anomaly.score > 1).any()
    assert (gradient(detector, x).flatten(1).abs().sum(1) > 0).all()
    assert detector.module.found.cuts == 2
    assert detector.params["module"] == "Whole"
    assert detector.input_size == 8


def test_an_inner_model_gets_the_images_as_they_are() -> None:
    x = good(3, 3, 8)
    torch.testing.assert_close(from_anomalib(Network(), size=8)(x).map, x.mean(1))


def test_what_is_no_anomalib_model_is_told() -> None:
    with pytest.raises(UsageError, match="int: expected a model of anomalib"):
        from_anomalib(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no square size \(None\): say size=256"):
        from_anomalib(Whole(size=None))
    with pytest.raises(UsageError, match=r"no square size \(\(8, 16\)\)"):
        from_anomalib(Whole(size=(8, 16)))
    with pytest.raises(UsageError, match="returned a Tensor: expected anomalib's InferenceBatch"):
        from_anomalib(nn.Identity(), size=8)(good(1, 3, 8))


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a pickle, which may run any code"):
        from_anomalib(tmp_path / "model.pt", "Padim")
    with pytest.raises(ModelError, match="there is no such checkpoint"):
        from_anomalib(tmp_path / "model.ckpt", "Padim")


def test_a_checkpoint_needs_anomalib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anomalib", None)
    path = tmp_path / "model.ckpt"
    path.touch()
    with pytest.raises(UsageError, match=r"cannot be imported here .* pip install anomalib"):
        from_anomalib(str(path), "Padim")


def test_the_room_does_not_import_anomalib() -> None:
    code = "import sys, advrad.adapters; print({'anomalib', 'torchvision'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_a_module_that_takes_other_images_is_named() -> None:
    """What it says itself, and what it was given."""
    module = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
    with pytest.raises(UsageError, match=r"Sequential failed on images \(2, 1, 16, 16\).*size"):
        ModuleDetector(module, size=16, channels=1)(torch.rand(2, 1, 16, 16))
