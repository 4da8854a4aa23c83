"""Generators behind purifiers: trained, fine-tuned, stored; interrupted and refused."""

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from purifying import classifier
from torch import Tensor, nn
from toys import good

from advrad.data.labelled import Part
from advrad.diffusion import EpsDenoiser, Linear, Recipe
from advrad.diffusion.batches import Batches
from advrad.diffusion.loss import noise_error
from advrad.diffusion.run import Progress, Run
from advrad.errors import DataError, ModelError, OtherTrainingError, UsageError
from advrad.networks.wgan import Players
from advrad.noise import Fixed, Noise
from advrad.purifiers import adbm, defensegan, diffdefense, diffpure, training
from advrad.purifiers._settings import METHODS
from advrad.purifiers.adbm import ADBM
from advrad.purifiers.addt import ADDT
from advrad.purifiers.diffdefense import Ramp
from advrad.purifiers.stored import WGAN, Diffusion, Generative, load
from advrad.purifiers.training import (
    Finetuning,
    Learning,
    Playing,
    finetune,
    train_diffusion,
    train_wgan,
)

SHAPE = (1, 16, 16)
SMALL = Diffusion(SHAPE, widths=(8, 8), patch=2)
PUBLISHED = Diffusion(SHAPE, widths=(8, 8), schedule="ramp", levels=100, centred=False)
LEARNING = Learning(steps=8, batch=4, rate=1e-2)
PLAYING = Playing(steps=9, batch=4, turns=2)
GUIDE = classifier()
TUNING = Finetuning(passes=18, batch=4, rounds=1)


def part(count: int = 12) -> Part:
    """Discs of some brightness, and their class of four."""
    images = (255 * good(count)).round().to(torch.uint8)
    return Part(images, torch.arange(count) % 4)


def diffusion(run: Run = Run()) -> Generative:  # noqa: B008
    return train_diffusion(part(), SMALL, LEARNING, run)


def gan(run: Run = Run()) -> Generative:  # noqa: B008
    return train_wgan(part(), WGAN(SHAPE, latent=4, width=2), PLAYING, run)


def tuned(run: Run = Run(), method: str = "addt") -> Generative:  # noqa: B008
    wanted = replace(TUNING, method=method)
    return finetune(fresh_diffusion(), part(), classifier(), wanted, run)


def fresh_diffusion() -> Generative:
    torch.manual_seed(5)
    return Generative(SMALL.build().eval().requires_grad_(False), SMALL)


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- trainings ---


def test_a_diffusion_model_learns_its_images() -> None:
    losses: list[float] = []
    run = Run(report=lambda progress: losses.append(progress.loss or 0.0))
    wanted = Learning(steps=60, batch=4, rate=1e-2, average=0.9)
    found = train_diffusion(part(), SMALL, wanted, run)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert found.denoiser.schedule == Linear()
    assert not any(p.requires_grad for p in found.network.parameters())
    assert not found.network.training


def test_a_wgan_s_players_take_turns() -> None:
    """With two turns of the critic the generator moves at every third step, and not before."""
    wanted, weights = replace(PLAYING, average=0.0), []
    for steps in range(2, 7):
        found = train_wgan(part(), WGAN(SHAPE, 4, 2), replace(wanted, steps=steps))
        weights.append(found.network)
    changed = [not same(one, other) for one, other in pairwise(weights)]
    assert changed == [True, False, False, True]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_from_the_weights_and_leaves_the_given_ones(method: str) -> None:
    before, after = fresh_diffusion(), tuned(method=method)
    assert same(before.network, fresh_diffusion().network)
    assert not same(before.network, after.network)
    assert [t["method"] for t in after.trainings] == [method]
    assert all(bool(p.isfinite().all()) for p in after.network.parameters())


def test_the_control_costs_as_much_as_what_it_is_compared_with() -> None:
    """A pass is one forward and one backward of the network for each image of a batch."""
    for method, searched, steps in (
        ("addt", 5, 1000), ("adbm", 3, 1500), ("clean", 0, 6000), ("unranked", 5, 1000),
    ):  # fmt: skip
        wanted = Finetuning(method)
        assert (wanted.searched, wanted.steps) == (searched, steps)
        assert counted(method) == searched + 1


def counted(method: str) -> int:
    """Calls of the network in one step."""
    given, calls = fresh_diffusion(), []
    given.network.register_forward_pre_hook(lambda *_: None)
    given.denoiser.network.register_forward_pre_hook(lambda *_: calls.append(1))
    one = Finetuning(method, passes=6, batch=2)
    one = replace(one, passes=one.searched + 1)
    finetune(given, part(), classifier(), one)
    return len(calls)


def test_a_step_of_addt_is_its_loss_on_images_and_their_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, seen = part(), []
    own = ADDT.error

    def watched(self: ADDT, x: Tensor, labels: Tensor, t: Tensor, noise: object) -> Tensor:
        seen.append((x, labels, t))
        return own(self, x, labels, t, noise)

    monkeypatch.setattr(ADDT, "error", watched)
    finetune(fresh_diffusion(), data, classifier(), replace(TUNING, passes=2))
    x, labels, t = seen[0]
    for image, label in zip(x, labels, strict=True):
        match = [i for i in range(len(data)) if torch.allclose(2 * data[i] - 1, image)]
        assert int(label) in {int(data.labels[i]) for i in match}
    assert x.min() >= -1
    assert ((t >= 1) & (t <= 1000)).all()


def test_a_step_of_adbm_is_below_its_one_top_and_in_the_ball_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[ADBM, Tensor, Tensor]] = []
    own = ADBM.error

    def watched(
        self: ADBM, x: Tensor, labels: Tensor, t: Tensor, top: Tensor, noise: Noise
    ) -> Tensor:
        seen.append((self, t, top))
        return own(self, x, labels, t, top, noise)

    monkeypatch.setattr(ADBM, "error", watched)
    wanted = Finetuning("adbm", passes=60, batch=8, rounds=1, eps=0.07)
    finetune(fresh_diffusion(), part(), classifier(), wanted)
    methods, levels, tops = zip(*seen, strict=True)
    assert {(method.eps, method.rounds) for method in methods} == {(0.07, 1)}
    assert all(bool((top == top[0]).all()) for top in tops)
    drawn_tops = torch.stack(tops)[:, 0]
    assert 100 <= drawn_tops.min() < 125
    assert 175 < drawn_tops.max() <= 200
    shares = torch.stack(levels) / torch.stack(tops)
    assert all(bool((t >= 1).all()) for t in levels)
    assert 0 < shares.min() < 0.1
    assert 0.9 < shares.max() <= 1
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.08)


def test_the_players_have_the_penalty_and_the_recipe_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Adam with 0.5 and 0.9 at a rate that neither warms up nor falls, and nothing clipped."""
    penalties, recipes = [], []
    own, learnt = Players.critic_loss, training.learn

    def watched(self: Players, x: Tensor, z: Tensor, share: Tensor, weight: float) -> Tensor:
        penalties.append(weight)
        assert z.shape == (4, 4)
        assert ((share >= 0) & (share <= 1)).all()
        assert float(share.max() - share.min()) > 0
        return own(self, x, z, share, weight)

    def recorded(module: nn.Module, loss: object, recipe: Recipe, *others: Any) -> Any:
        recipes.append(recipe)
        return learnt(module, loss, recipe, *others)

    monkeypatch.setattr(Players, "critic_loss", watched)
    monkeypatch.setattr(training, "learn", recorded)
    wanted = replace(PLAYING, penalty=7.5, rate=3e-4, average=0.5)
    train_wgan(part(), WGAN(SHAPE, latent=4, width=2), wanted)
    assert penalties == [7.5] * 6
    expected = Recipe(9, 3e-4, average=0.5, clip=0.0, momenta=(0.5, 0.9))
    assert recipes == [expected]


def test_a_diffusion_model_s_rate_warms_up_and_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes, learnt = [], training.learn

    def recorded(module: nn.Module, loss: object, recipe: Recipe, *others: Any) -> Any:
        recipes.append(recipe)
        return learnt(module, loss, replace(recipe, steps=1), *others)

    monkeypatch.setattr(training, "learn", recorded)
    train_diffusion(part(), SMALL, Learning(steps=50, batch=4, rate=2e-3, average=0.9))
    tuning = Finetuning("clean", passes=5000, batch=4, rate=1e-4, average=0.8)
    finetune(fresh_diffusion(), part(), None, tuning)
    assert recipes == [
        Recipe(50, 2e-3, warmup=5, decay=True, average=0.9),
        Recipe(5000, 1e-4, warmup=100, decay=True, average=0.8),
    ]


def test_the_guide_is_not_changed_and_gets_no_gradient() -> None:
    phi = classifier().requires_grad_(True).train()
    before = {name: value.clone() for name, value in phi.state_dict().items()}
    finetune(fresh_diffusion(), part(), phi, TUNING)
    assert all(torch.equal(before[name], value) for name, value in phi.state_dict().items())
    assert all(p.grad is None for p in phi.parameters())
    assert phi.training


# --- interrupted ---


class Stop(BaseException):
    """Ctrl-C."""


def interrupted(train: Callable[[Run], Generative], folder: Path, at: int) -> None:
    def report(progress: Progress) -> None:
        if progress.done == at:
            raise Stop

    with contextlib.suppress(Stop):
        train(Run(seed=2, folder=folder, report=report))


@pytest.mark.parametrize("train", [diffusion, gan, tuned])
@pytest.mark.parametrize("at", [1, 3, 7])
def test_a_training_that_is_interrupted_goes_on_bit_by_bit(
    train: Callable[[Run], Generative], at: int, tmp_path: Path
) -> None:
    expected = train(Run(seed=2))
    interrupted(train, tmp_path, at)
    seen: list[int] = []
    run = Run(seed=2, folder=tmp_path, resume=True, report=lambda p: seen.append(p.done))
    found = train(run)
    assert seen[0] == at + 1
    assert same(found.network, expected.network)


def test_another_training_s_checkpoint_is_refused(tmp_path: Path) -> None:
    interrupted(diffusion, tmp_path, 3)
    run = Run(seed=2, folder=tmp_path, resume=True)
    with pytest.raises(OtherTrainingError, match="rate"):
        train_diffusion(part(), SMALL, replace(LEARNING, rate=1e-3), run)
    with pytest.raises(OtherTrainingError, match="images"):
        train_diffusion(part(9), SMALL, LEARNING, run)
    with pytest.raises(OtherTrainingError, match="method"):
        finetune(fresh_diffusion(), part(), classifier(), TUNING, run)


def other_labels() -> Part:
    """The same images, of other classes."""
    return Part(part().images, (part().labels + 1) % 4)


def another_diffusion() -> Generative:
    """Built as `fresh_diffusion` is, with the same history and other weights."""
    torch.manual_seed(6)
    return Generative(SMALL.build().eval().requires_grad_(False), SMALL)


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("guide", lambda run: finetune(fresh_diffusion(), part(), classifier(1), TUNING, run)),
        ("labels", lambda run: finetune(fresh_diffusion(), other_labels(), GUIDE, TUNING, run)),
        ("weights", lambda run: finetune(another_diffusion(), part(), GUIDE, TUNING, run)),
    ],
)
def test_a_fine_tuning_with_another_guide_other_labels_or_weights_is_another(
    what: str, make: Callable[[Run], Generative], tmp_path: Path
) -> None:
    interrupted(tuned, tmp_path, 3)
    with pytest.raises(OtherTrainingError, match=f"Changed: {what}$"):
        make(Run(seed=2, folder=tmp_path, resume=True))


# --- stored ---


@pytest.mark.parametrize("make", [diffusion, gan, tuned])
def test_what_is_stored_comes_back(make: Callable[[], Generative], tmp_path: Path) -> None:
    one = make()
    one.save(tmp_path)
    other = load(tmp_path)
    assert same(one.network, other.network)
    assert other.made == one.made
    assert other.kind == one.kind
    assert other.shape == SHAPE
    assert [t["method"] for t in other.trainings] == [t["method"] for t in one.trainings]
    assert other.trainings[-1]["training_seconds"] >= 0
    assert not any(p.requires_grad for p in other.network.parameters())
    assert "| method |" in (tmp_path / "README.md").read_text()


def test_a_fine_tuning_of_what_was_stored_tells_both_trainings(tmp_path: Path) -> None:
    diffusion().save(tmp_path)
    found = finetune(load(tmp_path), part(), None, replace(TUNING, method="clean"))
    found.save(tmp_path)
    assert [t["method"] for t in load(tmp_path).trainings] == ["diffusion", "clean"]


def test_stored_generators_stand_behind_purifiers(tmp_path: Path) -> None:
    diffusion().save(tmp_path / "diffusion")
    gan().save(tmp_path / "gan")
    model, other = load(tmp_path / "diffusion"), load(tmp_path / "gan")
    x = torch.stack([part()[i] for i in range(2)])
    for purify in (
        diffpure(model.denoiser, 40, 2), adbm(model.denoiser, 40, 2),
        diffdefense(model.denoiser, 2, 2, steps=3, schedule="respaced"),
        defensegan(other.generator, 2, 2),
    ):  # fmt: skip
        assert purify(x, Fixed(0)).shape == x.shape
    with pytest.raises(UsageError, match="Defense-GAN alone"):
        other.denoiser  # noqa: B018
    with pytest.raises(UsageError, match="needs a WGAN"):
        model.generator  # noqa: B018


def test_the_schedule_of_diffdefense_s_program_can_be_trained_and_stored(tmp_path: Path) -> None:
    train_diffusion(part(), PUBLISHED, replace(LEARNING, steps=2)).save(tmp_path)
    found = load(tmp_path)
    assert found.denoiser.schedule == Ramp(100)
    assert not found.denoiser.centred
    assert diffdefense(found.denoiser, 2, 2)(part()[0][None], Fixed(0)).shape == (1, *SHAPE)
    with pytest.raises(UsageError, match="a fine-tuning needs a model of images in"):
        finetune(found, part(), classifier(), TUNING)


def test_a_generator_stored_before_there_was_a_choice_is_centred(tmp_path: Path) -> None:
    fresh_diffusion().save(tmp_path)
    params = asdict(SMALL)
    del params["centred"]
    rewritten(tmp_path, generator="diffusion", params=params)
    assert load(tmp_path).denoiser.centred


@pytest.mark.parametrize("made", [SMALL, PUBLISHED])
def test_a_network_learns_images_in_the_range_that_was_asked_for(
    made: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in [-1, 1], the other in [0, 1]; an untrained one answers 0 to either."""
    seen: list[Tensor] = []

    def watched(denoiser: EpsDenoiser, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        seen.append(x)
        return noise_error(denoiser, x, t, eps)

    monkeypatch.setattr(training, "noise_error", watched)
    train_diffusion(part(), made, Learning(steps=1, batch=6), Run(seed=4))
    x, _ = Batches(part(), 6, (), seed=4).draw(1)
    assert torch.equal(seen[0], 2 * x - 1 if made is SMALL else x)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "about.json"])
def test_one_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    fresh_diffusion().save(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        load(tmp_path)


def rewritten(folder: Path, **config: object) -> Path:
    """The stored generator with another configuration, under a valid manifest."""
    from advrad import store

    files = store.read(folder)
    files["config.json"] = json.dumps(config).encode()
    store.replace(folder, files)
    return folder


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"detector": "advrad"}, "holds a detector of defects, no generator"),
        ({"classifier": "a"}, "holds a classifier, no generator"),
        ({"generator": "vae"}, "holds another model"),
        ({"generator": "diffusion"}, "builds no generator"),
        ({"generator": "diffusion", "params": {"shape": [1, 16]}}, "builds no generator"),
        ({"generator": "diffusion", "params": {"shape": [1, 16, 16], "x": 1}}, "no generator"),
        ({"generator": "diffusion", "params": {"shape": [1, 16, 16]}}, "do not fit config"),
    ],
)
def test_what_is_no_generator_is_said_to_be_none(
    tmp_path: Path, config: dict[str, object], words: str
) -> None:
    fresh_diffusion().save(tmp_path)
    with pytest.raises(ModelError, match=words):
        load(rewritten(tmp_path, **config))


def test_an_unfinished_folder_and_none_at_all_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no generator: expected a folder"):
        load(tmp_path / "none")
    (tmp_path / "training").mkdir()
    with pytest.raises(ModelError, match=r"no finished generator.*--resume"):
        load(tmp_path)


# --- refused ---


def test_images_that_cannot_be_learnt_are_refused_by_number() -> None:
    for images, words in (
        (torch.zeros(0, 1, 16, 16), "no images"),
        (torch.full((2, 1, 16, 16), 2.0), r"image 0 is .* from 2 to 2"),
        (torch.zeros(2, 16, 16), r"image 0 is torch.float32 \(16, 16\)"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), "image 0 is torch.uint8"),
    ):
        with pytest.raises(DataError, match=words):
            train_diffusion(images, SMALL, LEARNING)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Diffusion((1, 16, 16), widths=(8, 8, 8, 8, 8, 8)), "multiples of 32"),
        (Diffusion((1, 16, 16), widths=()), "widths"),
        (Diffusion((1, 16, 16), widths=(7, 8)), "even numbers"),
        (Diffusion((1, 16, 16), schedule="steep"), "linear, cosine"),
        (Diffusion((1, 32, 32), widths=(8, 8)), "for a generator of 1 x 32 x 32"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(made: Diffusion, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        train_diffusion(part(), made, LEARNING)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (replace(TUNING, method="magic"), "addt, adbm, clean"),
        (replace(TUNING, passes=1), "passes=1: expected 2 or more"),
        (replace(TUNING, batch=0), "batch=0"),
        (replace(TUNING, rounds=-1), "rounds"),
        (replace(TUNING, views=("upside",)), "views"),
        (replace(TUNING, eps=8.0), "eps=8.0: expected above 0 and at most 1"),
        (replace(TUNING, eps=-1.0), "eps=-1.0: expected above 0"),
        (replace(TUNING, eps=0.0), "eps=0.0: expected above 0"),
        (replace(TUNING, eps=math.nan), "eps=nan: expected above 0"),
        (replace(TUNING, average=-1.0), "average=-1.0: expected a share"),
        (replace(TUNING, average=1.5), "average=1.5: expected a share"),
    ],
)
def test_fine_tunings_that_cannot_be_are_refused(wanted: Finetuning, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        finetune(fresh_diffusion(), part(), classifier(), wanted)


@pytest.mark.parametrize("average", [-1.0, 1.5, math.nan])
def test_an_average_that_is_no_share_is_refused_in_every_training(average: float) -> None:
    with pytest.raises(UsageError, match=r"average=.*expected a share"):
        train_diffusion(part(), SMALL, replace(LEARNING, average=average))
    with pytest.raises(UsageError, match=r"average=.*expected a share"):
        train_wgan(part(), WGAN(SHAPE), replace(PLAYING, average=average))


def test_a_guide_that_is_missing_or_returns_probabilities_is_refused() -> None:
    with pytest.raises(UsageError, match="guided by a classifier: give one"):
        finetune(fresh_diffusion(), part(), None, TUNING)
    with pytest.raises(UsageError, match=r"a label of 3, .* knows 2 classes"):
        finetune(fresh_diffusion(), part(), classifier(classes=2), TUNING)
    soft = nn.Sequential(classifier(), nn.Softmax(1))
    with pytest.raises(UsageError, match="probabilities"):
        finetune(fresh_diffusion(), part(), soft, TUNING)


def test_a_wgan_cannot_be_fine_tuned() -> None:
    with pytest.raises(UsageError, match="this is a WGAN"):
        finetune(gan(), part(), classifier(), TUNING)


def test_the_control_is_the_plain_loss() -> None:
    """Its first step by hand: the step's images, any level of the schedule, Gaussian noise."""
    losses: list[float] = []
    run = Run(seed=4, report=lambda progress: losses.append(progress.loss or 0.0))
    before = diffusion()
    finetune(before, part(), None, replace(TUNING, method="clean", passes=1, batch=6), run)
    x, source = Batches(part(), 6, (), seed=4).draw(1)
    t = torch.randint(1, 1001, (6,), generator=source)
    eps = torch.randn(x.shape, generator=source)
    expected = noise_error(before.denoiser, 2 * x - 1, t, eps).mean()
    assert losses == [pytest.approx(expected.item(), rel=1e-5)]
