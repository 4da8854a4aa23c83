"""Models of anomalib as detectors: their own raw scores, and a gradient that an attack can use."""

import functools
import warnings
from pathlib import Path
from typing import Any

import fitted
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from advrad.adapters import ModuleDetector, from_anomalib
from advrad.attacks import Linf, pgd
from advrad.attacks.gradient import value_and_gradient
from advrad.errors import BlindAttackError, ModelError, UsageError
from advrad.metrics import auroc

MODELS = list(fitted.FITTED)
BLIND = {"Patchcore", "Padim", "Cfa", "ReverseDistillation", "Cflow"}  # as they are shipped
HALF = {"Stfpm"}
UNTRAINED = {"ReverseDistillation", "Cflow"}  # too little to tell a defect by
EPS = Linf(8 / 255)


@functools.cache
def model_of(name: str) -> Any:
    """A fitted model, once."""
    torch.manual_seed(0)
    return fitted.FITTED[name]()


def closed(detector: ModuleDetector) -> ModuleDetector:
    """The same detector as the model is shipped: whatever cuts its gradient does."""
    inner = detector.module.module
    return ModuleDetector(inner, detector.pick, size=detector.size, alone=detector.alone)


def gradient(detector: ModuleDetector, x: Tensor) -> Tensor:
    return value_and_gradient(lambda x: detector(x).score, x).gradient


@torch.no_grad()
def scores(detector: ModuleDetector, x: Tensor) -> Tensor:
    return detector(x).score


def attacked(detector: ModuleDetector, x: Tensor, sign: Tensor) -> Tensor:
    """What raises sign times the score."""
    return pgd(lambda z: sign * detector(z).score, x, EPS, steps=20)


def both() -> tuple[Tensor, Tensor]:
    """Good and defective images (8, 3, H, W); +1 for those to be raised, -1 for the others."""
    good, defective = fitted.judged()
    return torch.cat([good, defective]), torch.tensor([1.0] * 4 + [-1.0] * 4)


@pytest.mark.parametrize("name", MODELS)
def test_the_score_is_the_model_s_own_raw_one(name: str) -> None:
    model, (x, sign) = model_of(name), both()
    detector = from_anomalib(model)
    assert detector.input_size == fitted.SIZE
    alone = [model.model(part) for part in model.pre_processor.transform(x).split(1)]
    own = torch.cat([output.pred_score.flatten() for output in alone])
    torch.testing.assert_close(scores(detector, x), own.detach())
    maps = torch.cat([output.anomaly_map.reshape(1, *x.shape[-2:]) for output in alone])
    torch.testing.assert_close(detector(x).map.detach(), maps.detach())
    if name not in UNTRAINED:
        assert auroc(own.tolist(), (sign < 0).tolist()) == 1


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_the_slope_of_the_score(name: str) -> None:
    x, _ = both()
    detector = from_anomalib(model_of(name))
    slope = gradient(detector, x)
    length = slope.flatten(1).norm(dim=1)
    assert (length > 0).all()
    step = 3e-3 * slope / length[:, None, None, None]
    rise = (scores(detector, x + step) - scores(detector, x - step)) / 6e-3
    # kinks of a ReLU, of a pooling and of a maximum leave a few images off
    assert ((rise / length - 1).abs() < 0.03).float().mean() >= 0.6


@pytest.mark.parametrize("name", MODELS)
def test_as_it_is_shipped_its_gradient_is_missing_half_or_the_same(name: str) -> None:
    x, _ = both()
    detector = from_anomalib(model_of(name))
    if name in BLIND:
        with pytest.raises(BlindAttackError):
            gradient(closed(detector), x)
        return
    likeness = F.cosine_similarity(
        gradient(detector, x).flatten(1), gradient(closed(detector), x).flatten(1)
    )
    assert (likeness < 0.6).all() if name in HALF else (likeness > 0.999).all()
    assert (detector.module.found.cuts > 0) == (name in HALF)


@pytest.mark.parametrize("name", MODELS)
def test_an_attack_raises_good_images_and_lowers_defects(name: str) -> None:
    x, sign = both()
    detector = from_anomalib(model_of(name))
    clean, after = scores(detector, x), scores(detector, attacked(detector, x, sign))
    chance = scores(detector, EPS.project(x + EPS.random(x).sign() * EPS.radius, x))
    gain, luck = sign * (after - clean), sign * (chance - clean)
    assert (gain > 0).all()
    assert gain.mean() > 3 * luck.abs().mean()
    if name not in UNTRAINED:
        assert auroc(clean.tolist(), (sign < 0).tolist()) == 1
        assert auroc(after.tolist(), (sign < 0).tolist()) < 0.1


def test_half_a_gradient_makes_a_weaker_attack() -> None:
    x, sign = both()
    detector = from_anomalib(model_of("Stfpm"))
    gains = [
        sign * (scores(detector, attacked(way, x, sign)) - scores(detector, x))
        for way in (detector, closed(detector))
    ]
    assert gains[0].mean() > 1.2 * gains[1].mean()


def test_a_patch_of_the_memory_has_a_finite_gradient_and_is_counted() -> None:
    x = fitted.images()  # all their patches are in the memory
    detector = from_anomalib(model_of("Patchcore"))
    assert gradient(detector, x).isfinite().all()
    assert detector.module.found.zero_roots > 0


def test_the_displayed_score_is_clamped_and_the_raw_one_is_not() -> None:
    x, _ = both()
    model = model_of("Padim")
    after = model.post_processor
    after.register_buffer("_image_threshold", torch.tensor(4.0))
    after.register_buffer("image_min", torch.tensor(2.0))
    after.register_buffer("image_max", torch.tensor(4.5))
    shown = model(x).pred_score.flatten()
    assert (shown[4:] == 1).all()  # where an attack would find no gradient
    assert (scores(from_anomalib(model), x)[4:] > 4.5).all()


def test_the_inner_model_and_another_size_of_the_images() -> None:
    model, (x, _) = model_of("Padim"), both()
    inner = from_anomalib(model.model, size=fitted.SIZE)
    prepared = model.pre_processor.transform(x)
    torch.testing.assert_close(
        scores(inner, prepared), scores(from_anomalib(model), x), rtol=1e-4, atol=1e-4
    )
    large = from_anomalib(model, size=2 * fitted.SIZE)
    assert gradient(large, F.interpolate(x, scale_factor=2)).shape[-1] == 2 * fitted.SIZE
    assert large(x).map.shape[-1] == 2 * fitted.SIZE


@pytest.mark.parametrize("name", ["Patchcore", "Padim"])
def test_a_checkpoint_is_the_model_again(name: str, tmp_path: Path) -> None:
    path, (x, _) = written(name, tmp_path), both()
    again = from_anomalib(path, name)
    assert torch.equal(scores(again, x), scores(from_anomalib(model_of(name)), x))


def test_a_checkpoint_of_another_class_is_told(tmp_path: Path) -> None:
    path = written("Padim", tmp_path)
    for kind in (None, "Nothing", "ImageVisualizer"):
        with pytest.raises(UsageError, match=r"such as kind='Patchcore'; given: "):
            from_anomalib(path, kind)
    with pytest.raises(ModelError, match=r"is no checkpoint of Patchcore"):
        from_anomalib(path, "Patchcore")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"is no checkpoint of Padim"):
        from_anomalib(path, "Padim")


def written(name: str, folder: Path) -> Path:
    """A checkpoint as the engine writes it."""
    from lightning import Trainer

    path = folder / "model.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(model_of(name))
        trainer.save_checkpoint(path)
    return path
