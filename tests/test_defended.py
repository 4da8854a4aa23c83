"""The trial of defences: closed forms, known draws used again, resumption, planted bugs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from defences import (
    REVERSE,
    both,
    coin,
    cut,
    defended,
    images,
    keyhole,
    lock,
    noisy,
    plane,
    rounding,
    trial,
)
from killing import killed_at
from torch import Tensor, nn

from advrad.attacks import BALLS, autoattack
from advrad.attacks.recipes import RECIPES, Recipe
from advrad.errors import BlindAttackError, DataError, UsageError
from advrad.evaluate import defence_rows
from advrad.evaluate.defence_attacks import NAMES, Attack, Found, attack
from advrad.evaluate.defence_modes import MODES, Defence, attacker
from advrad.evaluate.defence_report import finding, markdown, notes, table, write_trial
from advrad.evaluate.defence_trial import Examples, Trial
from advrad.evaluate.defended import defend
from advrad.evaluate.robustness import derived
from advrad.evaluate.sections import percent
from advrad.noise import Draws, Noise, PerImage

Result = dict[str, Any]


def value(result: Result, mode: str, figure: str = "average", of: str = "robust") -> float:
    [row] = [row for row in result["rows"] if row["mode"] == mode]
    found: float = row[of][figure]["value"]
    return found


def timeless(value: Any) -> Any:
    """The same without what a clock says."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not k.startswith("seconds")}
        return {k: timeless(v) for k, v in kept.items()}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def rows_of(out: Path) -> Any:
    return timeless([json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()])


class TestClosedForms:
    @pytest.mark.parametrize("attack", ["fgsm", "pgd"])
    def test_a_plane_alone_falls_where_the_l1_norm_says(self, attack: str) -> None:
        classifier = plane()
        examples, eps = images(classifier, 40), 0.02
        result = defend(defended(None, classifier), examples, trial(attacks=[attack], eps=[eps]))
        with torch.no_grad():
            height = examples.x.flatten(1) @ classifier.weight - classifier.bound
        standing = height.abs() > eps * classifier.weight.abs().sum()
        assert 0 < standing.float().mean() < 1
        assert value(result, "full") == pytest.approx(float(standing.float().mean()))

    def test_a_coin_that_is_tossed_again(self) -> None:
        classifier, grey = keyhole()
        asked = trial(modes=["full", "resubmission"], draws=8, resubmit=30, attacks=["fgsm"])
        result = defend(defended(coin(0.9), classifier), grey, asked)
        [full, again] = result["rows"]
        assert (full["draws"], again["draws"]) == (8, 30)
        tosses = np.array(
            [
                Draws(derived(0, "purify/judge"), grey.ids)(k)(grey.x, 3)[:, 0, 0, 0].numpy()
                for k in range(30)
            ]
        )
        right = tosses <= float(torch.special.ndtri(torch.tensor(0.9)))
        assert full["robust"]["average"]["value"] == pytest.approx(right[:8].mean())
        assert again["robust"]["worst"]["value"] == right.all(0).mean()
        assert again["clean"]["worst"] == again["robust"]["worst"], "the attack has no part in it"
        assert again["robust"]["worst"]["value"] < full["robust"]["worst"]["value"]

    def test_an_image_that_is_wrong_without_an_attack_is_left_alone(self) -> None:
        classifier = plane()
        examples = images(classifier)
        wrong = Examples(examples.x, 1 - examples.labels, examples.ids)
        result = defend(defended(None, classifier), wrong, trial())
        assert value(result, "full") == 0
        assert result["clean"][0]["accuracy"]["average"]["value"] == 0


EXPECTED = {
    3: {"full": 1, "dw_forward": 0, "dw_reverse": 1, "dw_both": 0},
    REVERSE: {"full": 1, "dw_forward": 1, "dw_reverse": 0, "dw_both": 0},
}


class TestWhoKnowsTheNoise:
    """The lock opens for who knows its noise, and nearly never for anybody else."""

    @staticmethod
    def opened(step: int, **more: Any) -> dict[str, float]:
        classifier, grey = keyhole()
        modes = list(EXPECTED[step])
        asked = trial(modes=modes, attacks=["fgsm"], eot=1, eps=[0.1], **more)
        [other] = {3, REVERSE} - {step}
        result = defend(defended(both(lock(step), other), classifier), grey, asked)
        return {mode: value(result, mode, "one_shot") for mode in modes}

    @pytest.mark.parametrize("step", EXPECTED)
    def test_known_draws_are_used_again_and_others_never(self, step: int) -> None:
        assert self.opened(step) == EXPECTED[step]

    @pytest.mark.parametrize("step", EXPECTED)
    def test_an_evaluation_that_reuses_the_attacks_draws_is_caught(
        self, step: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            defence_rows,
            "evaluation",
            lambda mode, seed, ids: attacker(mode, seed, ids, "full/fgsm"),
        )
        assert self.opened(step)["full"] == 0, "so the test above fails"

    @pytest.mark.parametrize("step", EXPECTED)
    def test_a_known_draw_that_is_drawn_anew_is_caught(
        self, step: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest = defence_rows.evaluation
        monkeypatch.setattr(
            defence_rows, "evaluation", lambda mode, seed, ids: honest(mode, seed + 1, ids)
        )
        assert self.opened(step) != EXPECTED[step]

    def test_the_classes_are_those_of_the_known_noise(self, tmp_path: Path) -> None:
        classifier = plane()
        examples, purify = images(classifier), noisy(0.2)
        asked = trial(modes=["dw_both"], eps=[0.01])
        result = defend(defended(purify, classifier), examples, asked, tmp_path)
        known = PerImage(derived(0, "purify/known"), examples.ids)
        clean, attacked = rows_of(tmp_path)[12:24], rows_of(tmp_path)[24:]
        with torch.no_grad():
            expected = classifier(purify(examples.x, known)).argmax(1)
        assert [row["classes"] for row in clean] == expected[:, None].tolist()
        for place, row in enumerate(attacked):
            x = torch.from_numpy(np.load(tmp_path / "attacked" / f"{row['index']}.npy"))[None]
            one = PerImage(derived(0, "purify/known"), examples.ids[place : place + 1])
            assert row["classes"] == [int(classifier(purify(x, one)).argmax())]
        assert {row["draws"] for row in result["rows"]} == {1}

    def test_one_draw_makes_every_figure_of_dw_both_the_same(self) -> None:
        classifier = plane()
        asked = trial(modes=["dw_both"], eps=[0.01])
        [row] = defend(defended(noisy(0.2), classifier), images(classifier), asked)["rows"]
        assert len({each["value"] for each in row["robust"].values()}) == 1
        assert row["known_draw"]


class TestRuns:
    def asked(self, **more: Any) -> Trial:
        return trial(modes=["full", "resubmission", "dw_both"], eps=[0.01], batch=5, **more)

    def test_neither_the_batch_nor_a_second_run_changes_anything(self, tmp_path: Path) -> None:
        classifier = plane()
        examples, tried = images(classifier), defended(noisy(), classifier)
        outs = [tmp_path / name for name in ("five", "twelve", "again")]
        for out, batch in zip(outs, (5, 12, 5), strict=True):
            asked = trial(modes=["full", "dw_both"], eps=[0.01], batch=batch)
            defend(tried, examples, asked, out)
        assert rows_of(outs[0]) == rows_of(outs[2])
        for one, other in zip(rows_of(outs[0]), rows_of(outs[1]), strict=True):
            assert one["classes"] == other["classes"]
            assert one.get("size") == pytest.approx(other.get("size"), abs=1e-6)

    @pytest.mark.parametrize("operation", [9, 40, 95])
    def test_a_run_that_was_killed_ends_as_one_that_was_not(
        self, operation: int, tmp_path: Path
    ) -> None:
        classifier = plane()
        examples, tried = images(classifier), defended(noisy(), classifier)
        whole = defend(tried, examples, self.asked(), tmp_path / "whole")

        def run() -> Result:
            return defend(tried, examples, self.asked(), tmp_path / "killed")

        assert killed_at(operation, run)
        assert not (tmp_path / "killed" / "result.json").exists()
        assert timeless(run()) == timeless(whole)
        assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")

    def test_what_is_there_is_not_done_again(self, tmp_path: Path) -> None:
        classifier, calls = plane(), []

        def purify(x: Tensor, noise: Noise) -> Tensor:
            calls.append(len(x))
            return noisy()(x, noise)

        examples, tried = images(classifier), defended(purify, classifier)
        defend(tried, examples, self.asked(), tmp_path)
        first = sum(calls)
        calls.clear()
        defend(tried, examples, self.asked(), tmp_path)
        looked = sum(calls)  # whether it draws, and whether it has a gradient
        assert looked < first / 4
        (tmp_path / "attacked" / "30.npy").unlink()
        calls.clear()
        again = defend(tried, examples, self.asked(), tmp_path)
        assert looked < sum(calls) < first / 2, "the batch whose image is gone"
        assert len(again["rows"]) == 3

    def test_other_settings_are_refused(self, tmp_path: Path) -> None:
        classifier = plane()
        examples = images(classifier)
        defend(defended(noisy(), classifier), examples, self.asked(), tmp_path)
        with pytest.raises(UsageError, match="other settings \\(seed\\)"):
            defend(defended(noisy(), classifier), examples, self.asked(seed=1), tmp_path)
        with pytest.raises(UsageError, match="defences"):
            defend(defended(noisy(), plane(1)), images(plane(), 12), self.asked(), tmp_path)
        with pytest.raises(UsageError, match="content"):
            defend(
                defended(noisy(), classifier), images(classifier, seed=2), self.asked(), tmp_path
            )

    def test_another_purifier_in_the_same_folder_is_refused(self, tmp_path: Path) -> None:
        """By what it answers, where nobody says what it is made of."""
        classifier = plane()
        examples, asked = images(classifier), trial(eps=[0.01])
        first = defend(defended(noisy(0.01), classifier), examples, asked, tmp_path)
        with pytest.raises(UsageError, match="other settings \\(defences\\)"):
            defend(defended(noisy(0.5), classifier), examples, asked, tmp_path)
        with pytest.raises(UsageError, match="other settings \\(defences\\)"):
            defend(
                defended(noisy(0.01), classifier, coarse=noisy(0.02)), examples, asked, tmp_path
            )

        def rounded(x: Tensor, noise: Noise) -> Tensor:
            return noisy(0.01)(x, noise) * (1 + 1e-7)

        again = defend(defended(rounded, classifier), examples, asked, tmp_path)
        assert timeless(again) == timeless(first), "other hardware is no other purifier"

    def test_what_a_purifier_is_said_to_be_made_of_is_believed(self, tmp_path: Path) -> None:
        classifier = plane()
        tried = defended(noisy(), classifier, settings=(("noise", 0.05),))
        defend(tried, images(classifier), trial(eps=[0.01]), tmp_path)
        written = json.loads((tmp_path / "settings.json").read_text())["defences"]["toy"]
        assert set(written) == {"noise", "weights"}

    @pytest.mark.parametrize("left", [b"no image", b"", None])
    def test_a_damaged_attacked_image_is_made_again(
        self, left: bytes | None, tmp_path: Path
    ) -> None:
        classifier = plane()
        examples, tried = images(classifier), defended(noisy(), classifier)
        whole = defend(tried, examples, self.asked(), tmp_path)
        kept = tmp_path / "attacked" / "30.npy"  # of full, by which resubmission goes
        before = kept.read_bytes()
        kept.write_bytes(before[:-4] if left is None else left)
        (tmp_path / "images.jsonl").write_text(
            "".join(
                line
                for line in (tmp_path / "images.jsonl").read_text().splitlines(keepends=True)
                if json.loads(line)["mode"] != "resubmission"
            )
        )
        assert timeless(defend(tried, examples, self.asked(), tmp_path)) == timeless(whole)
        assert kept.read_bytes() == before

    @pytest.mark.parametrize("mode", ["transfer", "surrogate"])
    def test_a_suite_that_looks_at_something_else_has_no_figure_of_the_defence(
        self, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A purifier that leaves nothing of the attack, and a classifier that falls to it."""
        monkeypatch.setitem(autoattack.SUITES, "autoattack-rand", ("fgsm", "pgd"))
        classifier = plane()
        examples = images(classifier)

        def neutral(x: Tensor, noise: Noise) -> Tensor:
            return examples.x[: len(x)] + 0 * x

        asked = trial(modes=[mode, "bpda"], attacks=["autoattack-rand"], eps=[0.2])
        tried = defended(neutral, classifier, coarse=lambda x, noise: x)
        rows = {row["mode"]: row for row in defend(tried, examples, asked)["rows"]}
        assert rows[mode]["robust"]["average"]["value"] == 1
        assert "fixed_autoattack" not in rows[mode]
        assert "looks" not in rows[mode]
        assert rows["bpda"]["fixed_autoattack"]["value"] == 1, "its answers are the defence's"

    def test_resubmission_takes_the_images_of_full(self, tmp_path: Path) -> None:
        """With and without `full` beside it, the images that are handed in again are the same."""
        classifier = plane()
        examples, tried = images(classifier), defended(noisy(), classifier)
        both = defend(tried, examples, trial(modes=["full", "resubmission"]))
        alone = defend(tried, examples, trial(modes=["resubmission"]))
        assert timeless(both["rows"][1]) == timeless(alone["rows"][0])

    def test_progress_reaches_its_end(self) -> None:
        classifier, told = plane(), []
        defend(
            defended(noisy(), classifier),
            images(classifier),
            trial(health=True, attacks=["pgd", "fgsm"]),
            report=lambda done, total: told.append((done, total)),
        )
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1][0] == told[-1][1] > 0

    def test_a_suite_keeps_its_own_figure_beside_the_fresh_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(autoattack.SUITES, "autoattack-rand", ("fgsm", "pgd"))
        monkeypatch.setitem(RECIPES, "pgd", Recipe("pgd", "cross-entropy", settings={"steps": 2}))
        classifier = plane()
        asked = trial(attacks=["autoattack-rand"], eps=[0.02])
        [row] = defend(defended(noisy(), classifier), images(classifier), asked)["rows"]
        assert row["looks"] == autoattack.EVALUATIONS
        [alone] = defend(defended(None, classifier), images(classifier), asked)["rows"]
        [known] = defend(
            defended(noisy(), classifier), images(classifier), replace(asked, modes=["dw_both"])
        )["rows"]
        assert (alone["looks"], known["looks"]) == (1, 1), "as nothing is drawn"
        assert 0 <= row["fixed_autoattack"]["value"] <= row["clean"]["average"]["value"] + 0.1
        assert 0 < row["robust"]["average"]["value"] < 1


class TestWhatIsDrawn:
    """Asked, and not guessed from a few answers."""

    def left_out(self, purify: Any) -> set[str]:
        classifier = plane()
        modes = ["full", "dw_forward", "dw_reverse", "dw_both"]
        result = defend(
            defended(purify, classifier),
            images(classifier, 4),
            trial(modes=modes, attacks=["fgsm"]),
        )
        draws = {row["mode"]: row["draws"] for row in result["rows"]}
        assert all(draws[mode] == 1 for mode in draws if mode == "dw_both")
        assert draws.get("full") == (3 if result["clean"][0]["stochastic"] else 1)
        self.drawn, self.draws = result["clean"][0]["drawn"], draws
        return {each["mode"] for each in result["left_out"]}

    def test_a_rare_draw_is_one(self) -> None:
        def rare(x: Tensor, noise: Noise) -> Tensor:
            return torch.where(noise(x, 3)[:, :1, :1, :1] > 5, 1 - x, x)

        assert self.left_out(rare) == {"dw_reverse"}
        assert self.drawn == {"put_in": True, "on_the_way_out": False}

    def test_nothing_on_the_way_out(self) -> None:
        """Who knows the noise put in knows all of it."""
        assert self.left_out(lambda x, noise: x + 0.05 * noise(x, 3)) == {"dw_reverse"}
        assert self.draws["dw_forward"] == 1

    def test_nothing_put_in(self) -> None:
        assert self.left_out(lambda x, noise: x + 0.05 * noise(x, REVERSE)) == {"dw_forward"}
        assert self.draws["dw_reverse"] == 1

    def test_both_and_neither(self) -> None:
        assert self.left_out(noisy()) == set()
        assert self.draws == {"full": 3, "dw_forward": 3, "dw_reverse": 3, "dw_both": 1}
        assert self.left_out(lambda x, noise: x / 2) == {"dw_forward", "dw_reverse", "dw_both"}

    def test_one_that_draws_by_itself_counts_as_drawing_all(self) -> None:
        assert self.left_out(lambda x, noise: x + 0.05 * torch.randn_like(x)) == set()


class TestHealth:
    def examined(self, purify: Any, modes: list[str], **more: Any) -> Result:
        classifier = plane()
        asked = trial(modes=modes, eps=[0.02], health=True, steps=8, **more)
        result = defend(defended(purify, classifier), images(classifier, 16), asked)
        return {row["mode"]: row["health"] for row in result["rows"]}

    def test_an_honest_defence_is_sound(self) -> None:
        found = self.examined(noisy(), ["transfer", "full", "dw_both"])
        assert {found[mode]["verdict"] for mode in ("full", "dw_both")} == {"sound"}
        assert found["transfer"]["verdict"] == "not checked", "against nothing else"
        assert found["full"]["not_run"] == []
        assert set(found["transfer"]["not_run"]) >= {"weaker", "black_box", "steps", "floor"}

    def test_a_rounding_purifier_is_suspect_and_not_by_bpda(self) -> None:
        found = self.examined(rounding(), ["bpda", "full"])
        failed = {n for n, c in found["full"]["checks"].items() if c["status"] == "failed"}
        assert {"gradient_nonzero", "weaker", "floor"} <= failed
        assert found["bpda"]["verdict"] == "not checked"
        assert any("bpda" in reason for reason in found["full"]["reasons"])

    def test_a_shattered_gradient_is_suspect_though_it_is_there(self) -> None:
        found = self.examined(rounding(64, slope=1e-4), ["transfer", "full"])["full"]
        assert found["checks"]["gradient_nonzero"]["status"] == "passed"
        assert found["checks"]["weaker"]["status"] == "failed"
        assert found["verdict"] == "suspect"

    def test_an_attack_that_has_not_arrived_is_suspect(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Planes 0.012 away, and two steps of 0.005; four would do."""
        settings = {"steps": 2, "size": 0.005, "start": "zero"}
        monkeypatch.setitem(RECIPES, "pgd", Recipe("pgd", "cross-entropy", settings=settings))
        classifier = plane()
        side = torch.tensor([1.0, -1.0]).repeat(8)[:, None]
        x = (0.5 + 0.012 * side * classifier.weight.detach().sign()).reshape(16, 1, 8, 8)
        near = Examples(x, (side[:, 0] > 0).long(), [str(i) for i in range(16)])
        asked = trial(eps=[0.03], health=True, steps=2)
        [row] = defend(defended(None, classifier), near, asked)["rows"]
        assert row["robust"]["average"]["value"] == 1
        assert row["health"]["checks"]["steps"]["status"] == "failed"

    def test_draws_of_unequal_number_are_not_held_against_each_other(self) -> None:
        """A coin is right for most images of one draw, and for a share of each image of many."""
        classifier, _ = keyhole()
        grey = Examples(
            torch.full((60, 1, 8, 8), 0.5), torch.zeros(60).long(), [str(i) for i in range(60)]
        )
        asked = trial(modes=["full", "dw_both"], attacks=["fgsm"], draws=10, health=True)
        rows = defend(defended(coin(0.8), classifier), grey, asked)["rows"]
        assert rows[1]["health"]["checks"]["weaker"]["status"] == "passed"

    def test_a_purifier_without_gradient_is_refused_and_bpda_suggested(self) -> None:
        with pytest.raises(BlindAttackError, match="mode bpda"):
            self.examined(cut, ["full"])
        assert self.examined(cut, ["bpda"])["bpda"]["verdict"] == "not checked"

    def test_a_purifier_that_draws_by_itself_is_suspect(self) -> None:
        def restless(x: Tensor, noise: Noise) -> Tensor:
            return x + 0.05 * torch.randn_like(x)

        found = self.examined(restless, ["dw_both"])["dw_both"]
        assert found["checks"]["repeatable"]["status"] == "failed"

    def test_square_alone_needs_no_gradient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(RECIPES, "square", Recipe("square", settings={"queries": 30}))
        classifier = plane()
        asked = trial(attacks=["square"], health=True, eps=[0.02])
        [row] = defend(defended(cut, classifier), images(classifier, 6), asked)["rows"]
        assert row["health"]["checks"]["gradient_present"]["status"] == "not_run"

    def test_a_planted_attack_outside_its_ball_is_suspect(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            Attack, "__call__", lambda self, victim, x, ball: Found((x + 0.1).clamp(0, 1))
        )
        found = self.examined(None, ["full"])["full"]
        assert found["checks"]["inside_ball"]["status"] == "failed"


class TestRefused:
    def test_probabilities(self) -> None:
        soft = nn.Sequential(plane(), nn.Softmax(1))
        with pytest.raises(UsageError, match="remove the softmax"):
            defend(defended(None, soft), images(plane()), trial())

    def test_images_of_another_size_and_range(self) -> None:
        wide = Examples(torch.rand(3, 1, 8, 9), torch.zeros(3, dtype=torch.long), list("abc"))
        with pytest.raises(UsageError, match="1 x 8 x 9"):
            defend(defended(None, plane()), wide, trial())
        with pytest.raises(UsageError, match="expects them in \\[0, 1\\]"):
            Examples(2 * torch.ones(3, 1, 8, 8), torch.zeros(3, dtype=torch.long), list("abc"))

    def test_labels_that_the_classifier_does_not_know(self) -> None:
        x = images(plane()).x
        strange = Examples(x, torch.full((12,), 7), [str(i) for i in range(12)])
        with pytest.raises(DataError, match="labels from 7 to 7"):
            defend(defended(None, plane()), strange, trial())
        with pytest.raises(DataError, match="one label and one id"):
            Examples(x, torch.zeros(3, dtype=torch.long), ["a"])

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"modes": ["fool"]}, "mode 'fool'"),
            ({"attacks": ["pgdd"]}, "attack 'pgdd'"),
            ({"norm": "l7"}, "norm 'l7'"),
            ({"eps": [0.0]}, "radius above 0"),
            ({"eps": [float("nan")]}, "radius above 0"),
            ({"modes": []}, "one or more"),
            ({"modes": ["full", "full"]}, "each once"),
            ({"draws": 0}, "draws 0"),
            ({"steps": 0}, "steps 0"),
        ],
    )
    def test_what_cannot_be_asked(self, asked: dict[str, Any], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            trial(**asked)

    def test_a_surrogate_that_no_defence_has(self) -> None:
        with pytest.raises(UsageError, match="surrogate"):
            defend(defended(noisy(), plane()), images(plane()), trial(modes=["surrogate"]))

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"attacks": ["fgsm", "apgd-dlr"]}, "2 classes: expected 3"),
            ({"attacks": ["fgsm", "autoattack-standard"]}, "2 classes: expected 4"),
            ({"attacks": ["fgsm", "deepfool"], "norm": "l1"}, "deepfool has no step for l1"),
        ],
    )
    def test_an_impossible_attack_before_any_other_is_run(
        self, asked: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match=words):
            defend(defended(None, plane()), images(plane()), trial(**asked), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
    def test_every_possible_attack_is_let_through(self, norm: str) -> None:
        ball, left = BALLS[norm](0.5), {"deepfool"} if norm == "l1" else set()
        for name in set(NAMES) - left:
            attack(name, ball, 2).check(ball, (3, 8, 8), 10)

    @pytest.mark.parametrize(
        ("purify", "words"),
        [
            (lambda x, noise: x[:, :, :4], "shape \\(4, 1, 4, 8\\)"),
            (lambda x, noise: x[:1], "shape \\(1, 1, 8, 8\\)"),
            (lambda x, noise: x.detach().numpy(), "returned ndarray"),
            (lambda x, noise: (255 * x).long(), "torch.int64"),
            (lambda x, noise: None, "returned NoneType"),
        ],
    )
    @pytest.mark.parametrize("coarse", [False, True])
    def test_a_purifier_that_returns_no_such_images(
        self, purify: Any, words: str, coarse: bool
    ) -> None:
        first, second = (noisy(), purify) if coarse else (purify, None)
        with pytest.raises(UsageError, match=words):
            defend(defended(first, plane(), coarse=second), images(plane()), trial())

    def test_no_defence(self) -> None:
        with pytest.raises(UsageError, match="no defence"):
            defend({}, images(plane()), trial())


def test_logits_that_are_no_numbers_are_wrong_and_told() -> None:
    def breaking(x: Tensor, noise: Noise) -> Tensor:
        return torch.where(x < 0.29, torch.nan, x)

    classifier = plane()
    asked = trial(eps=[0.1], attacks=["fgsm"])
    result = defend(defended(breaking, classifier), images(classifier), asked)
    [row] = result["rows"]
    assert row["lost"] > 0
    assert row["robust"]["average"]["value"] <= 1 - row["lost"] / 12
    assert any("no numbers" in note for note in notes(result))


def test_the_tables_say_what_was_found(tmp_path: Path) -> None:
    classifier = plane()
    tried = {
        "none": Defence(classifier),
        "noise": Defence(classifier, noisy()),
        "steps": Defence(classifier, rounding()),
    }
    modes = ["bpda", "full", "dw_both"]
    asked = trial(modes=modes, health=True, eps=[0.02, 8 / 255])
    result = defend(tried, images(classifier), asked, tmp_path)
    assert {(row["defence"], row["mode"]) for row in result["rows"]} == {
        ("none", "full"),
        *(("noise", mode) for mode in modes),
        ("steps", "bpda"),
        ("steps", "full"),
    }
    assert {(each["defence"], each["mode"]) for each in result["left_out"]} == {
        ("none", "bpda"),
        ("none", "dw_both"),
        ("steps", "dw_both"),
    }
    page = write_trial(result, tmp_path).read_text()
    text = markdown(result)
    for words in ("linf 8/255", "linf 0.02", "suspect", "not run", "dw_both", "worst of N"):
        assert words in page
        assert words in text
    assert "differentiates the purifier itself" in page
    assert finding(result) in text
    assert len(table(result)) == 1 + len(result["rows"])
    assert (tmp_path / "table.md").read_text() == text
    for row in result["modes"]:
        own = [
            r for r in result["rows"] if all(r[k] == row[k] for k in ("defence", "mode", "eps"))
        ]
        least = min(r["robust"]["average"]["value"] for r in own)
        assert row["fixed_autoattack"]["value"] <= least + 1e-12
    assert finding(result).count("%") == 6
    assert {MODES[row["mode"]].known for row in result["rows"] if row["known_draw"]} == {True}


@pytest.mark.parametrize(("gain", "told"), [(1.0, False), (3.0, True)])
def test_purified_images_beyond_their_range_are_told(gain: float, told: bool) -> None:
    classifier = plane()
    tried = defended(lambda x, noise: gain * x, classifier)
    result = defend(tried, images(classifier), trial(attacks=["fgsm"]))
    assert any("outside [0, 1]" in note for note in notes(result)) is told
    assert result["clean"][0]["purified"]["high"] == pytest.approx(0.7 * gain, abs=0.02 * gain)


def test_handing_in_again_is_told_by_its_worst_draw() -> None:
    """A coin: 0.9 of the draws, and of thirty draws hardly ever every one."""
    classifier, grey = keyhole()
    asked = trial(modes=["full", "resubmission"], draws=8, resubmit=30, attacks=["fgsm"])
    result = defend(defended(coin(0.9), classifier), grey, asked)
    worst = result["rows"][1]["robust"]["worst"]["value"]
    assert worst < min(row["robust"]["average"]["value"] for row in result["rows"])
    said = f"{percent(worst)} against resubmission, fgsm (the worst of 30 draws; "
    assert said in finding(result)


def test_a_weak_attack_alone_is_not_told_as_sound() -> None:
    classifier = plane()
    asked = trial(modes=["transfer"], health=True, eps=[0.01])
    result = defend(defended(noisy(), classifier), images(classifier, 6), asked)
    assert [each["health"]["verdict"] for each in result["rows"]] == ["not checked"]
    assert [each["health"]["verdict"] for each in result["modes"]] == ["not checked"]
    assert "(not checked) against transfer" in finding(result)
