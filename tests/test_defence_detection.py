"""Attacks that a purifier's error gives away, and one that hides from it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from defences import defended, images, noisy, plane, trial
from torch import Tensor, nn

from advrad.attacks import Linf, eot, pgd
from advrad.attacks.classification import Victim, unseen
from advrad.attacks.recipes import Recipe, run
from advrad.errors import UsageError
from advrad.evaluate import defence_health
from advrad.evaluate.defence_detection import detection, louder, threshold
from advrad.evaluate.defence_modes import MODES, Defence, evaluation, watched
from advrad.evaluate.defence_report import markdown, table
from advrad.evaluate.defended import defend
from advrad.noise import Fixed, Noise, fresh
from advrad.purifiers.detect import look

EPS = 0.1


def pulled(x: Tensor, noise: Noise = fresh) -> Tensor:
    """A purifier whose error is the squared distance from 0.5, a quarter of it."""
    return (x + 0.5) / 2


def row(error: float | None, *, label: int = 0, answer: int = 0, size: float = 0.1) -> Any:
    return {"error": error, "label": label, "classes": [answer, 9], "size": size}


def test_the_share_of_pairs_in_order_and_of_what_misleads_below_the_threshold() -> None:
    clean = [row(number / 100) for number in range(1, 21)]  # 0.01 to 0.20
    attacked = [
        row(0.195, answer=1),  # below the threshold, and wrong
        row(0.05),  # below, and right
        row(0.5, answer=1),  # wrong, and seen
        row(0.19, answer=1),  # on the threshold, which no alarm is
        row(0.9, answer=1, size=0.0),  # as it came
    ]
    found = detection(clean, attacked)
    assert found is not None
    assert found["threshold"] == 0.19
    assert found["false_alarms"] == pytest.approx(1 / 20)
    assert found["images"] == 4
    pairs = 19 + 4.5 + 20 + 18.5
    assert found["auroc"]["value"] == pytest.approx(pairs / 80)
    assert found["unnoticed"]["value"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 40, 100])
def test_at_most_one_in_twenty_clean_images_is_an_alarm(count: int) -> None:
    scores = torch.randperm(count, generator=torch.Generator().manual_seed(0)).double().numpy()
    limit = threshold(scores)
    assert (scores > limit).mean() <= 0.05
    lower = scores[scores < limit]
    assert not len(lower) or (scores > lower.max()).mean() > 0.05


@pytest.mark.parametrize(
    ("clean", "attacked"),
    [
        ([row(None)], [row(None)]),
        ([row(0.1)], [row(0.1, size=0.0)]),
        ([row(0.1)], [row(None)]),  # of a run that kept some
        ([{"label": 0, "classes": [0]}], [row(0.1)]),  # of a run that kept no scores
    ],
)
def test_without_scores_or_changes_nothing_is_said(clean: list[Any], attacked: list[Any]) -> None:
    assert detection(clean, attacked) is None


@pytest.mark.parametrize("mode", ["full", "surrogate", "dw_both"])
def test_who_differentiates_a_purifier_differentiates_its_score(mode: str) -> None:
    classifier, x = plane(), images(plane()).x.requires_grad_()
    looked = watched(MODES[mode], Defence(classifier, pulled, pulled))
    assert looked is not None
    logits, score = looked(x, Fixed(0))
    torch.testing.assert_close(logits, classifier(pulled(x)))
    (slope,) = torch.autograd.grad(score.sum(), x)
    torch.testing.assert_close(slope, (x.detach() - 0.5) / 2 / 64)


def test_the_identity_s_gradient_takes_the_purified_image_as_a_constant() -> None:
    classifier, x = plane(), images(plane()).x.requires_grad_()
    looked = watched(MODES["bpda"], Defence(classifier, pulled))
    assert looked is not None
    logits, score = looked(x, Fixed(0))
    purified, expected = look(pulled, x.detach(), Fixed(0))
    torch.testing.assert_close(score, expected)
    (slope,) = torch.autograd.grad(score.sum(), x, retain_graph=True)
    torch.testing.assert_close(slope, 2 * (x.detach() - purified) / 64)
    (slope,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), x)
    torch.testing.assert_close(slope[0].flatten(), classifier.weight.detach())


def test_who_does_not_see_the_purifier_sees_no_score() -> None:
    assert watched(MODES["transfer"], Defence(plane(), pulled)) is None
    assert watched(MODES["full"], Defence(plane())) is None


class Two(nn.Module):
    """The first pixel against 0.5; all others are idle."""

    def forward(self, x: Tensor) -> Tensor:
        height = x[:, 0, 0, 0] - 0.5
        return torch.stack([-height, height], 1)


def test_the_best_image_that_hides_moves_what_decides_and_nothing_else() -> None:
    """The score is the distance of all pixels from their place: idle ones stay there."""
    still = torch.full((1, 1, 4, 4), 0.45)

    def seen(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        return Two()(x), (x - still).square().flatten(1).mean(1)

    label = torch.tensor([0])
    victim = Victim(lambda x, noise: Two()(x), label, Fixed, False, 2, seen)
    recipe = Recipe("pgd", "cross-entropy", settings={"steps": 60}, unseen=1.0)
    change = (run(recipe, victim, still, Linf(EPS)) - still).flatten()
    assert 0.05 < change[0] < 0.07  # just over the boundary: the smallest score that misleads
    assert change[1:].abs().max() < 0.02
    loud = (run(Recipe("pgd", "cross-entropy"), victim, still, Linf(EPS)) - still).flatten()
    assert loud[0] == pytest.approx(EPS, abs=1e-3)


def test_without_weight_nothing_is_hidden() -> None:
    x, label = images(plane()).x, images(plane()).labels

    def seen(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        return plane()(x), x.square().flatten(1).sum(1)

    plain = Victim(lambda x, noise: plane()(x), label, Fixed, False, 2)
    watched_too = Victim(plain.classify, label, Fixed, False, 2, seen)
    recipe = Recipe("pgd", "cross-entropy")
    expected = run(recipe, plain, x, Linf(EPS))
    assert torch.equal(run(recipe, watched_too, x, Linf(EPS)), expected)
    hiding = Recipe("pgd", "cross-entropy", unseen=50.0)
    assert torch.equal(run(hiding, plain, x, Linf(EPS)), expected)  # nobody watches
    assert not torch.equal(run(hiding, watched_too, x, Linf(EPS)), expected)


@pytest.mark.parametrize(
    "asked", [{"unseen": -1.0}, {"unseen": math.nan}, {"attack": "fab"}, {"targets": 2}]
)
def test_what_cannot_hide_is_refused(asked: dict[str, Any]) -> None:
    loss = "dlr" if "targets" in asked else "margin"
    with pytest.raises(UsageError, match="unseen="):
        Recipe(**({"attack": "pgd", "loss": loss, "unseen": 1.0} | asked))


def test_a_trial_tells_how_well_attacks_are_seen_and_one_that_hides_is_seen_less() -> None:
    classifier = plane()
    some = {"none": Defence(classifier), "pulled": Defence(classifier, pulled)}
    asked = trial(attacks=["pgd", "pgd-unseen"], eps=[EPS], weight=300.0, steps=30)
    result = defend(some, images(classifier, 24), asked)
    found = {(row["defence"], row["attack"]): row for row in result["rows"]}
    assert found["none", "pgd"]["detection"] is None
    loud = found["pulled", "pgd"]["detection"]
    hidden = found["pulled", "pgd-unseen"]["detection"]
    assert loud["images"] == 24
    assert hidden["auroc"]["value"] < loud["auroc"]["value"] - 0.1
    assert hidden["unnoticed"]["value"] >= loud["unnoticed"]["value"]
    lines = table(result)
    assert lines[0][-3:] == ["detection AUROC", "unnoticed", "health"]
    assert lines[1][-3:-1] == ["n/a", "n/a"]
    assert f"{loud['auroc']['value']:.3f} (" in markdown(result)


def test_what_hides_is_not_held_against_attacks_that_need_not() -> None:
    classifier = plane()
    some = {"pulled": Defence(classifier, pulled)}
    asked = trial(
        modes=["transfer", "full"],
        attacks=["pgd-unseen", "square"],
        eps=[EPS],
        weight=1e4,
        health=True,
    )
    result = defend(some, images(classifier), asked)
    [own] = [r for r in result["rows"] if (r["mode"], r["attack"]) == ("full", "pgd-unseen")]
    checks = own["health"]["checks"]
    for name in ("weaker", "black_box", "steps"):
        assert checks[name]["status"] == "not_run", name
    assert own["health"]["verdict"] != "suspect"


def test_a_table_without_purifiers_has_no_such_columns() -> None:
    classifier = plane()
    result = defend({"none": Defence(classifier)}, images(classifier), trial(eps=[EPS]))
    assert "unnoticed" not in table(result)[0]


def test_a_random_defence_is_seen_by_the_evaluation_s_first_draw() -> None:
    classifier, purify = plane(), noisy(0.2)
    tested, asked = images(classifier), trial(eps=[EPS])
    result = defend(defended(purify, classifier), tested, asked)
    noise = evaluation(MODES["full"], asked.seed, tested.ids)(0)
    usual = look(purify, tested.x, noise)[1].sort().values
    assert result["rows"][0]["detection"]["threshold"] == pytest.approx(float(usual[-1]))


def test_ranks_of_what_hides_do_not_follow_the_loss() -> None:
    """PGD keeps an image that misleads and is quiet before one that misleads by more."""

    def seen(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        return Two()(x), (x - 0.49).square().flatten(1).mean(1)

    x = torch.full((1, 1, 4, 4), 0.49)
    objective = eot(unseen(seen, torch.tensor([0]), 0.0), 1, lambda k: Fixed(k))
    found = pgd(objective, x, Linf(EPS), steps=10, keep="best", start="zero")
    assert 0 < float(found[0, 0, 0, 0]) - 0.5 < 0.05


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_weight_is_refused(weight: float) -> None:
    with pytest.raises(UsageError, match="weight"):
        trial(weight=weight)


def test_a_score_that_is_no_number_is_an_alarm() -> None:
    clean = [row(number / 100) for number in range(1, 21)]
    found = detection(clean, [row("lost", answer=1), row(0.05, answer=1)])  # type: ignore[arg-type]
    assert found is not None
    assert found["lost"] == 1
    assert found["unnoticed"]["value"] == 0.5
    assert found["auroc"]["value"] == pytest.approx((20 + 4.5) / 40)
    some = detection([*clean[:-1], row("lost")], [row(0.05, answer=1)])  # type: ignore[arg-type]
    assert some is not None
    assert (some["threshold"], some["false_alarms"]) == (0.19, 1 / 20)


def test_against_a_defence_that_draws_it_keeps_the_quietest_too() -> None:
    """The last iterate of what only walks is seen by its error where a kept one is not."""
    classifier = plane()

    def random(x: Tensor, noise: Noise) -> Tensor:
        return pulled(x) + 0.02 * noise(x, 1)

    asked = trial(attacks=["pgd", "pgd-unseen"], eps=[0.15], eot=4, draws=4, steps=20, health=True)
    result = defend(defended(random, classifier), images(classifier, 24), asked)
    loud, hidden = (row["detection"] for row in result["rows"])
    assert hidden["unnoticed"]["value"] >= loud["unnoticed"]["value"] + 0.2
    assert hidden["auroc"]["value"] < loud["auroc"]["value"]
    health = result["rows"][1]["health"]
    assert health["checks"]["hidden"]["status"] == "passed"
    assert health["checks"]["weaker"]["status"] == "not_run"
    assert health["verdict"] == "not checked"  # to be noticed less proves nothing of its harm
    assert "hidden" not in result["rows"][0]["health"]["checks"]


def test_what_hides_worse_than_what_does_not_is_told() -> None:
    """Tables are true where an attack is noticed or does not mislead."""
    seen, unseen_ones = np.ones((1, 24), dtype=bool), np.zeros((1, 24), dtype=bool)
    assert louder(seen, unseen_ones, 0.025).status == "failed"
    assert louder(unseen_ones, seen, 0.025).status == "passed"
    assert louder(seen, seen, 0.025).status == "passed"
    assert louder(None, seen, 0.025).status == "not_run"


def test_without_plain_pgd_what_hides_is_not_checked() -> None:
    classifier = plane()
    some = {"none": Defence(classifier), "pulled": Defence(classifier, pulled)}
    asked = trial(attacks=["pgd-unseen"], eps=[EPS], health=True)
    result = defend(some, images(classifier), asked)
    verdicts = {row["defence"]: row["health"]["verdict"] for row in result["rows"]}
    assert verdicts["pulled"] == "not checked"
    assert verdicts["none"] == "sound"  # there it is pgd


def test_a_figure_of_what_hides_worse_is_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the plain walk had been the one that hides."""
    classifier = plane()
    some = {"pulled": Defence(classifier, pulled)}
    asked = trial(attacks=["pgd", "pgd-unseen"], eps=[EPS], weight=300.0, steps=30, health=True)
    plain = defence_health.louder
    swapped = lambda ours, theirs, tail: plain(theirs, ours, tail)
    monkeypatch.setattr(defence_health, "louder", swapped)
    result = defend(some, images(classifier, 24), asked)
    health = result["rows"][1]["health"]
    assert (health["verdict"], health["checks"]["hidden"]["status"]) == ("suspect", "failed")
    assert "misleads unnoticed" in health["reasons"][0]
