"""Both sides under attack, against closed forms."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import SIDE, Fake, bright, pictures
from torch import Tensor
from toys import tiny

from advrad.attacks.ball import L2, Ball, Linf
from advrad.attacks.objective import Stacked
from advrad.attacks.strongest import SUITES, Cost, Part, Suite
from advrad.detectors.base import Anomaly
from advrad.errors import BlindAttackError, UsageError
from advrad.evaluate.robustness import Assault, derived
from advrad.evaluate.views import rungs, views
from advrad.noise import Draws, Noise, PerImage, fresh

WEIGHT = torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
X, DEFECT, IDS = pictures(6)
SIGN = torch.tensor([-1.0 if each else 1.0 for each in DEFECT])
EPS = 0.01


class Linear(Fake):
    """<w, x>, plus `loud` times a draw, with a weight that draws move by the share `shaken`."""

    def __init__(self, draws: int = 0, loud: float = 0.0, shaken: float = 0.0) -> None:
        super().__init__(bright, draws)
        self.loud, self.shaken = loud, shaken
        self.asked: list[Noise] = []

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        self.asked.append(noise)
        weight = WEIGHT * (1 + self.shaken * noise(x, 0)) if self.shaken else WEIGHT
        values = weight * x
        score = values.flatten(1).sum(1)
        if self.loud:
            score = score + self.loud * noise(x[:, :, :1, :1], 1).flatten(1)[:, 0]
        return Anomaly(score, score[:, None, None].expand(-1, SIDE, SIDE))


def assault(detector: Fake, ball: Ball | None = None, **settings: Any) -> Assault:
    suite = Suite((Part("pgd", "score", 1, {"steps": 20}),))
    return Assault(detector.eval(), ball or Linf(EPS), suite, **settings)


@pytest.mark.parametrize(
    ("ball", "gain"),
    [(Linf(EPS), EPS * WEIGHT.abs().sum()), (L2(0.1), 0.1 * WEIGHT.norm())],
    ids=["linf", "l2"],
)
def test_each_side_moves_by_the_best_there_is(ball: Ball, gain: Tensor) -> None:
    """Good images rise and defects fall, each by eps times the dual norm of the weight."""
    found = assault(Linear(), ball)(X, DEFECT, IDS)
    moved = found.scores.attacked - found.scores.clean
    torch.testing.assert_close(moved, SIGN * gain, rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_reaches_it(name: str) -> None:
    suite = SUITES[name]
    small = tuple(
        replace(p, settings=dict(p.settings) | ({"queries": 50} if p.attack == "square" else {}))
        for p in suite.parts
        if p.view == "exact"
    )
    if not small:
        return
    found = replace(assault(Linear()), suite=replace(suite, parts=small))(X, DEFECT, IDS)
    gain = (SIGN * (found.scores.attacked - found.scores.clean)) / (EPS * WEIGHT.abs().sum())
    assert float(gain.min()) > 0.999


def test_the_worst_of_all_parts_is_kept_image_by_image() -> None:
    weak = Part("pgd", "score", 1, {"steps": 1, "size": 1e-3})
    suite = Suite(
        (weak, Part("pgd", "score", 1, {"steps": 20}), Part("square", settings={"queries": 3}))
    )
    found = replace(assault(Linear()), suite=suite)(X, DEFECT, IDS)
    harm = torch.stack([SIGN * scores for scores in found.parts.values()])
    torch.testing.assert_close(SIGN * found.scores.attacked, harm.amax(0))
    assert len(found.parts) == 3


def test_an_attack_that_does_no_harm_leaves_the_image() -> None:
    """A part that makes things worse for the attacker is not taken."""

    class Backwards(Linear):
        def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
            value = super().forward(x, noise, draws)
            turned = value.score - 2 * (value.score - value.score.detach())
            return Anomaly(turned, value.map)

    part = Part("pgd", "score", 1, {"steps": 3, "keep": "last"})
    found = replace(assault(Backwards()), suite=Suite((part, part)))(X, DEFECT, IDS)
    assert torch.equal(found.x, X)
    assert found.by == ["clean"] * len(X)


def test_the_evaluation_s_noise_has_no_part_in_the_attack() -> None:
    detector = Linear(draws=1, loud=0.1)
    steps = assault(detector, seed=3)
    steps(X, DEFECT, IDS)
    evaluation = PerImage(3, IDS)(X, 1)[0]
    seen = [noise for noise in detector.asked if isinstance(noise, Stacked)]
    assert len(seen) == 20 + 1 + 2 * 2  # two looks of 4 draws, two draws of 6 images at once
    for noise in seen:
        drawn = noise(X.repeat(len(noise.noises), 1, 1, 1), 1)
        assert not any(torch.allclose(each, evaluation) for each in drawn[:: len(X)])
    first = {float(noise(X.repeat(len(noise.noises), 1, 1, 1), 1)[0, 0, 0, 0]) for noise in seen}
    assert len(first) == len(seen) - 2, "draws of its own each, but the two looks share theirs"


def test_scores_are_those_of_the_plain_evaluation() -> None:
    detector = Linear(draws=1, loud=0.5)
    found = assault(detector, seed=7)(X, DEFECT, IDS)
    torch.testing.assert_close(found.scores.clean, detector(X, PerImage(7, IDS)).score)
    torch.testing.assert_close(found.scores.attacked, detector(found.x, PerImage(7, IDS)).score)


def test_whoever_knows_the_draw_gets_all_of_its_gradient() -> None:
    """|w (1 + n)| summed, where the others get |w|: n is the evaluation's draw."""
    detector = Linear(draws=1, shaken=2.0)
    suite = Suite((Part("pgd", "score", 16, {"steps": 20}),), known=20)
    found = replace(assault(detector, seed=5), suite=suite)(X, DEFECT, IDS)
    weight = WEIGHT * (1 + 2 * PerImage(5, IDS)(X, 0))
    best = EPS * weight.abs().flatten(1).sum(1)
    assert found.known is not None
    moved = SIGN * (found.known.attacked - found.known.clean)
    torch.testing.assert_close(moved, best, rtol=5e-3, atol=0)
    others = SIGN * (found.scores.attacked - found.scores.clean)
    assert bool((others < 0.8 * best).all())


def test_resubmission_takes_the_worst_of_its_draws() -> None:
    detector = Linear(draws=1, loud=0.5)
    suite = Suite((Part("pgd", "score", 1, {"steps": 5}),), resubmit=7)
    found = replace(assault(detector, seed=5), suite=suite)(X, DEFECT, IDS)
    noises = Draws(derived(5, "resubmit"), IDS)
    for x, given in ((X, 0), (found.x, 1)):
        drawn = torch.stack([detector(x, noises(k)).score for k in range(7)])
        worst = torch.where(SIGN > 0, drawn.amax(0), drawn.amin(0))
        assert found.resubmitted is not None
        torch.testing.assert_close(found.resubmitted[given], worst)


def test_without_draws_there_is_nothing_to_know_or_to_resubmit() -> None:
    suite = replace(SUITES["strong"], parts=(Part("pgd", "score", 1, {"steps": 2}),))
    found = replace(assault(Linear()), suite=suite)(X, DEFECT, IDS)
    assert found.known is None
    assert found.resubmitted is None


def test_a_radius_of_zero_is_the_clean_row() -> None:
    steps = assault(Linear(), Linf(0))
    found = steps(X, DEFECT, IDS)
    assert torch.equal(found.x, X)
    assert torch.equal(found.scores.clean, found.scores.attacked)
    assert steps.cost == Cost(0, 1)


def test_the_source_s_images_are_tried() -> None:
    """Transfer from the detector itself, where the suite has nothing else that works."""
    suite = Suite((Part("transfer", "score", settings={"steps": 20}),))
    found = replace(assault(Linear()), suite=suite, source=Linear().eval())(X, DEFECT, IDS)
    gain = SIGN * (found.scores.attacked - found.scores.clean)
    assert float(gain.min()) > 0.99 * EPS * float(WEIGHT.abs().sum())


def test_a_detector_that_cuts_its_gradient_is_refused() -> None:
    with pytest.raises(BlindAttackError, match="no_grad"):
        assault(Fake(lambda x: bright(x.detach())))(X, DEFECT, IDS)


def test_an_image_s_result_does_not_depend_on_its_batch() -> None:
    steps = assault(Linear(draws=1, shaken=0.5), seed=2)
    whole = steps(X, DEFECT, IDS)
    alone = [steps(X[i : i + 1], DEFECT[i : i + 1], IDS[i : i + 1]) for i in range(len(X))]
    torch.testing.assert_close(whole.x, torch.cat([found.x for found in alone]))


# --- AdvRAD's parts and views ---


def fitted(**settings: Any) -> Any:
    detector = tiny(**settings)
    x, defect, _ = pictures(20, seed=4)
    return detector.fit([x[i] for i in range(20) if not defect[i]]).eval()


def test_the_rungs_average_to_the_detector_s_map() -> None:
    detector = fitted(depth=[30, 60, 90], draws=1)
    parts = rungs(detector)
    assert [part.depths for part in parts] == [[30], [60], [90]]
    noise = PerImage(0, IDS)
    with torch.no_grad():
        maps = torch.stack([part(X, noise).map for part in parts]).mean(0)
        torch.testing.assert_close(maps, detector(X, noise).map)
    assert detector.depths == [30, 60, 90]


def test_the_rungs_of_a_score_with_two_views() -> None:
    detector = fitted(depth=[30, 60], draws=1, score="signed")
    noise = PerImage(0, IDS)
    with torch.no_grad():
        maps = torch.stack([part(X, noise).map for part in rungs(detector)]).mean(0)
        torch.testing.assert_close(maps, detector(X, noise).map)


def test_a_single_depth_is_its_own_rung() -> None:
    detector = fitted()
    assert rungs(detector) == [detector]
    assert rungs(Linear())[0].draws_taken == 0


def test_views_have_the_same_scores_and_other_gradients() -> None:
    detector = fitted(score="paper", top=0.0, draws=1)
    noise = PerImage(0, IDS)
    gradients = {}
    for name, view in {"exact": detector, **views(detector)}.items():
        x = X.clone().requires_grad_()
        score = view(x, noise).score
        torch.testing.assert_close(score, detector(X, noise).score)
        (gradients[name],) = torch.autograd.grad(score.sum(), x)
    held, turned = gradients["reconstruction constant"], gradients["input constant"]
    torch.testing.assert_close(held, -turned)
    assert not torch.allclose(held, gradients["exact"])
    assert float(held.abs().max()) > 0


def test_a_detector_without_reconstructions_has_no_views() -> None:
    assert not views(Linear())
    with pytest.raises(UsageError, match="reconstruction constant"):
        replace(assault(Linear()), suite=SUITES["paper-bpda"])(X, DEFECT, IDS)
