"""`advrad purify`: train, fine-tune, apply, evaluate; resumption; everything that is bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts import run
from test_fetched import idx

from advrad import classifiers
from advrad.cli import main
from advrad.commands import purify_train
from advrad.data.idx import IDX
from advrad.errors import UsageError
from advrad.evaluate import defence_words as words_of
from advrad.evaluate.defence_apply import MARK
from advrad.images import read, software, write_png
from advrad.purifiers import stored

Capture = pytest.CaptureFixture[str]
SHORT = ["--set", "steps=6", "--set", "batch=8"]
QUICK = ["--steps", "2", "--eot", "2", "--draws", "3", "--limit", "6", "--no-health"]
DIFFPURE = "diffpure depth=40 shots=2"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of three classes of 8 px, a classifier, a diffusion model, a fine-tuned one, a WGAN."""
    folder = tmp_path_factory.mktemp("purify")
    source = np.random.default_rng(0)
    (folder / "toys").mkdir()
    for part, count in (("train", 60), ("test", 12)):
        labels = np.arange(count, dtype=np.uint8) % 3
        pixels = source.integers(0, 60, (count, 8, 8), dtype=np.uint8)
        for i, label in enumerate(labels):
            pixels[i, 2 * label : 2 * label + 3] += 150
        for kind, array in (("images", pixels), ("labels", labels)):
            (folder / "toys" / IDX[f"{part}-{kind}"]).write_bytes(idx(array))
    net = ["--network", "wrn", "--set", "depth=10", "--set", "width=1", "--set", "rate=0.01"]
    steps = ["--set", "steps=30", "--set", "batch=16"]
    toys, made = str(folder / "toys"), [str(folder / n) for n in ("c", "d", "t", "g")]
    small = ["--set", "widths=8,16", *SHORT]
    wgan = ["--kind", "wgan", "--set", "latent=4", "--set", "width=2", *SHORT]
    assert main(["purify", "train-classifier", toys, made[0], *net, *steps]) == 0
    assert main(["purify", "train-diffusion", toys, made[1], *small]) == 0
    tuned = ["--classifier", made[0], "--set", "passes=12", "--set", "batch=4"]
    assert main(["purify", "finetune", made[1], toys, made[2], *tuned]) == 0
    assert main(["purify", "train-diffusion", toys, made[3], *wgan]) == 0
    return folder


def evaluated(capsys: Capture, home: Path, *more: object) -> Any:
    words = ["purify", "evaluate", home / "c", home / "toys", *QUICK, *more]
    return run(capsys, *words)


class TestTrain:
    def test_what_was_trained_can_be_loaded(self, home: Path) -> None:
        classifier = classifiers.load(home / "c")
        assert (classifier.classes, classifier.shape) == (3, (1, 8, 8))
        assert classifiers.about(home / "c")["test_accuracy"]["value"] > 0.6
        assert stored.load(home / "d").kind == "diffusion"
        assert stored.load(home / "g").kind == "wgan"
        assert [t["method"] for t in stored.load(home / "t").trainings] == ["diffusion", "addt"]
        assert stored.load(home / "t").trainings[1]["data"] == "toys"

    def test_the_record(self, home: Path, tmp_path: Path, capsys: Capture) -> None:
        settings = ["--loss", "pgd", "--set", "eps=0.1", "--set", "attack=1", *SHORT]
        words = [home / "toys", tmp_path / "c", "--network", "wrn", "--set", "depth=10"]
        code, record, _ = run(
            capsys, "purify", "train-classifier", *words, "--set", "width=1", *settings
        )
        assert code == 0
        assert record["loss"] == "pgd"
        assert record["test_images"] == 12
        assert (tmp_path / "c" / "training" / "checkpoint.safetensors").exists()

    def test_an_unfinished_training_goes_on(self, home: Path, tmp_path: Path) -> None:
        words = ["purify", "train-diffusion", str(home / "toys"), str(tmp_path / "d")]
        words += ["--set", "widths=8,16", *SHORT]
        shutil.copytree(home / "d" / "training", tmp_path / "d" / "training")
        assert main(words) == 2, "it is said to --resume or to --overwrite"
        assert main([*words, "--resume"]) == 0
        one, other = (
            stored.load(each).network.state_dict() for each in (home / "d", tmp_path / "d")
        )
        assert all(torch.equal(one[name], other[name]) for name in one)

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (["--network", "z"], 2, "unknown classifier"),
            (["--loss", "hinge"], 2, "loss=hinge"),
            (["--loss", "trades"], 2, "set eps"),
            (["--set", "steps"], 2, "expected name=value"),
            (["--set", "steps=x"], 2, "steps=x"),
            (["--set", "colour=3"], 2, "unknown setting 'colour'; there are shape"),
            (["--set", "eps=8/255"], 2, "loss=natural makes no use of eps"),
            (["--loss", "fgsm", "--set", "eps=1/9", "--set", "attack=3"], 2, "no use of attack"),
            (["--loss", "pgd", "--set", "eps=1/9", "--set", "beta=3"], 2, "no use of beta"),
            (["--loss", "pgd", "--set", "eps=8/0"], 2, "a division by zero"),
        ],
    )
    def test_bad_settings_of_a_classifier(
        self, words: list[str], code: int, told: str, home: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        given = ["purify", "train-classifier", home / "toys", tmp_path / "new", *words]
        found, record, _ = run(capsys, *given)
        assert found == code
        assert told in record["error"]["message"]

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--kind", "vae"], "kind 'vae'"),
            (["--set", "colour=3"], "unknown setting 'colour'"),
            (["--set", "schedule=odd"], "schedule=odd"),
        ],
    )
    def test_bad_settings_of_a_generator(
        self, words: list[str], told: str, home: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        given = ["purify", "train-diffusion", home / "toys", tmp_path / "new", *words]
        code, record, _ = run(capsys, *given)
        assert code == 2
        assert told in record["error"]["message"]

    def test_a_folder_that_is_taken(self, home: Path, capsys: Capture) -> None:
        code, record, _ = run(capsys, "purify", "train-classifier", home / "toys", home / "c")
        assert code == 2
        assert "already holds a model" in record["error"]["message"]

    def test_data_that_are_not_there(self, tmp_path: Path, capsys: Capture) -> None:
        code, _, _ = run(capsys, "purify", "train-classifier", "./nowhere", tmp_path / "c")
        assert code == 3
        code, record, _ = run(capsys, "purify", "train-classifier", "minst", tmp_path / "c")
        assert code == 2
        assert "did you mean mnist" in record["error"]["message"]

    def test_bad_input_to_finetune(self, home: Path, tmp_path: Path, capsys: Capture) -> None:
        finetune = ["purify", "finetune"]
        code, record, _ = run(capsys, *finetune, home / "d", home / "toys", tmp_path / "a")
        assert (code, "guided by a classifier" in record["error"]["message"]) == (2, True)
        code, record, _ = run(capsys, *finetune, home / "c", home / "toys", tmp_path / "b")
        assert (code, "a classifier, no generator" in record["error"]["message"]) == (4, True)
        given = [home / "g", home / "toys", tmp_path / "e", "--method", "clean"]
        code, record, _ = run(capsys, *finetune, *given)
        assert (code, "WGAN" in record["error"]["message"]) == (2, True)

    def test_settings_are_plain_values(self) -> None:
        words = ["steps=3", "widths=8,16", "views=mirrors", "eps=8/255"]
        found = purify_train.settings(words)
        assert found == {"steps": 3, "widths": [8, 16], "views": "mirrors", "eps": 8 / 255}


class TestApply:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        source = torch.Generator().manual_seed(0)
        for name in ("one", "two", "deep/three"):
            write_png(tmp_path / "in" / f"{name}.png", torch.rand(1, 8, 8, generator=source))
        return tmp_path / "in"

    def applied(self, capsys: Capture, home: Path, paths: list[Path], *more: object) -> Any:
        return run(capsys, "purify", "apply", home / "d", *paths, *more)

    def test_images_keep_their_names_and_the_noise_is_told(
        self, home: Path, pictures: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        out = tmp_path / "out"
        given = ["--out", out, "--purifier", DIFFPURE, "--seed", 1]
        code, record, err = self.applied(capsys, home, [pictures], *given)
        assert code == 0
        assert {Path(row["purified"]).relative_to(out).as_posix() for row in record["images"]} == {
            "one.png",
            "two.png",
            "deep/three.png",
        }
        noise = stored.load(home / "d").denoiser.schedule.sigma(40) / 2
        assert record["settings"]["noise"] == pytest.approx(noise)
        assert f"noise of {noise:.3g} for images in [0, 1]" in err
        for row in record["images"]:
            moved = (read(Path(row["purified"])) - read(Path(row["path"]))).abs()
            assert float(moved.max()) == pytest.approx(row["largest_change"], abs=1 / 255)
            assert software(Path(row["purified"])) == MARK

    def test_a_seed_makes_it_repeatable_and_without_one_it_is_not(
        self, home: Path, pictures: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        def once(name: str, *more: object) -> torch.Tensor:
            self.applied(capsys, home, [pictures], "--out", tmp_path / name, *more)
            return read(tmp_path / name / "one.png")

        seeded = [
            once(name, "--seed", 3, "--batch-size", size) for name, size in (("a", 1), ("b", 3))
        ]
        assert torch.equal(*seeded)
        assert not torch.equal(once("c"), once("d"))

    def test_what_is_there_is_replaced_only_where_this_command_wrote_it(
        self, home: Path, pictures: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        out = tmp_path / "out"
        assert self.applied(capsys, home, [pictures], "--out", out)[0] == 0
        assert self.applied(capsys, home, [pictures], "--out", out)[0] == 0
        write_png(out / "one.png", torch.zeros(1, 8, 8))
        code, record, _ = self.applied(capsys, home, [pictures], "--out", out)
        assert (code, "not written by this command" in record["error"]["message"]) == (2, True)
        code, record, _ = self.applied(capsys, home, [pictures], "--out", pictures / "out")
        assert (code, "lies in" in record["error"]["message"]) == (2, True)

    def test_two_images_of_one_name(
        self, home: Path, pictures: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        shutil.copy(pictures / "one.png", tmp_path / "one.png")
        paths = [pictures / "one.png", tmp_path / "one.png"]
        code, record, _ = self.applied(capsys, home, paths, "--out", tmp_path / "out")
        assert (code, "would both be written" in record["error"]["message"]) == (2, True)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("diffpure depth=0", "noise of 0"),
            ("diffpure depth=1001", "beyond the schedule"),
            ("sde time=1.5", "beyond the schedule"),
            ("sde time=0", "noise of 0"),
            ("diffpure depth=5 shots=9", "shots"),
            ("diffpure", "needs depth="),
            ("diffpur depth=5", "did you mean diffpure"),
            ("diffpure dept=5", "did you mean depth"),
            ("diffpure depth=much", "depth=much"),
            ("diffpure depth", "expected name=value"),
            ("diffpure depth=5 step=leap", "step=leap"),
            ("none", "none leaves images as they are"),
            ("agdm", "guide=DIR"),
            ("defensegan", "needs a WGAN"),
            ("'", "expected a name and settings"),
            ("", "purifier '': expected a name and settings; there are none"),
            ("diffpure depth=5 label=", "label=: expected a name"),
            ("denoised sigma=0.25", "carry Gaussian noise already"),
        ],
    )
    def test_purifiers_that_cannot_be(
        self, words: str, told: str, home: Path, pictures: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        given = ["--out", tmp_path / "out", "--purifier", words]
        code, record, _ = self.applied(capsys, home, [pictures], *given)
        assert code == 2
        assert told in record["error"]["message"]
        assert not (tmp_path / "out").exists()

    def test_images_of_another_size(self, home: Path, tmp_path: Path, capsys: Capture) -> None:
        write_png(tmp_path / "wide.png", torch.rand(1, 8, 9))
        code, record, _ = self.applied(
            capsys, home, [tmp_path / "wide.png"], "--out", tmp_path / "out"
        )
        assert code == 3
        assert "9 x 8 pixels" in record["error"]["message"]

    def test_a_wgan_purifies_too(
        self, home: Path, pictures: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        words = ["--purifier", "defensegan iterations=2 restarts=2", "--out", tmp_path / "out"]
        code, record, _ = run(capsys, "purify", "apply", home / "g", pictures, *words)
        assert code == 0
        assert record["settings"]["noise"] is None


class TestEvaluate:
    def test_the_record(self, home: Path, tmp_path: Path, capsys: Capture) -> None:
        given = ["--purifier", "none", "--purifier", f"{DIFFPURE} coarse.shots=1 label=plain"]
        given += ["--purifier", f"{DIFFPURE} generator={home / 't'} label=addt"]
        modes = ["--mode", "full", "--mode", "dw_both", "--mode", "bpda"]
        words = [*given, *modes, "--generator", home / "d", "--out", tmp_path / "a"]
        code, record, err = evaluated(capsys, home, *words)
        assert code == 0
        assert json.loads((tmp_path / "a" / "result.json").read_text()) == record
        assert [each["defence"] for each in record["clean"]] == ["none", "plain", "addt"]
        assert len(record["rows"]) == 1 + 3 + 3
        assert "plain: noise of" in err
        made = record["settings"]["defences"]
        assert made["plain"]["generator"] != made["addt"]["generator"]
        assert record["images"] == 6
        assert (tmp_path / "a" / "report.html").exists()

    def test_people_get_the_table(self, home: Path, tmp_path: Path, capsys: Capture) -> None:
        words = ["purify", "evaluate", home / "c", home / "toys", *QUICK, "--eps", "0.1"]
        assert (
            main([*map(str, words), "--attack", "fgsm", "--mode", "full", "--mode", "bpda"]) == 0
        )
        out = capsys.readouterr().out
        header = out.splitlines()[0]
        assert "one shot" in header
        assert "worst of N" not in header  # of one draw all figures are one
        assert "linf 0.1" in out
        assert "none, bpda: not run" in out

    def test_the_same_command_goes_on(self, home: Path, tmp_path: Path, capsys: Capture) -> None:
        words = ["--purifier", DIFFPURE, "--generator", home / "d", "--out", tmp_path / "a"]
        first = evaluated(capsys, home, *words)[1]
        lines = (tmp_path / "a" / "images.jsonl").read_text().splitlines()
        (tmp_path / "a" / "images.jsonl").write_text("\n".join(lines[:8]) + '\n{"inde')
        (tmp_path / "a" / "result.json").unlink()
        again = evaluated(capsys, home, *words)[1]
        assert again["rows"][0]["robust"] == first["rows"][0]["robust"]
        code, record, _ = evaluated(capsys, home, *words, "--seed", "4")
        assert (code, "other settings (seed)" in record["error"]["message"]) == (2, True)

    def test_another_classifier_behind_one_of_them(self, home: Path, capsys: Capture) -> None:
        given = ["--purifier", "none", "--purifier", f"none classifier={home / 'c'} label=other"]
        code, record, _ = evaluated(capsys, home, *given, "--attack", "fgsm")
        assert code == 0
        assert record["rows"][0]["robust"] == record["rows"][1]["robust"]

    @pytest.mark.parametrize(
        ("more", "code", "told"),
        [
            (["--mode", "white"], 2, "mode 'white'"),
            (["--attack", "pgdd"], 2, "attack 'pgdd'"),
            (["--eps", "0"], 2, "radius above 0"),
            (["--eps", "x"], 2, "--eps 'x'"),
            (["--eps", "2"], 2, "eps"),
            (["--purifier", DIFFPURE], 2, "--generator"),
            (["--purifier", "none", "--purifier", "none"], 2, "two have one name"),
            (["--purifier", f"{DIFFPURE} generator=./nowhere"], 4, "nowhere"),
            (["--device", "cuda:9"], 2, "device"),
        ],
    )
    def test_bad_input(
        self, more: list[str], code: int, told: str, home: Path, capsys: Capture
    ) -> None:
        found, record, _ = evaluated(capsys, home, *more)
        assert found == code
        assert told in record["error"]["message"]

    def test_models_and_data_that_do_not_fit(
        self, home: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        code, record, _ = run(capsys, "purify", "evaluate", home / "d", home / "toys")
        assert (code, "holds a generator, no cl" in record["error"]["message"]) == (4, True)
        code, record, _ = run(capsys, "purify", "evaluate", home / "c", "nowhere")
        assert code == 2
        (tmp_path / "wide").mkdir()
        for part in ("train", "test"):
            pixels, labels = np.zeros((6, 8, 12), np.uint8), np.arange(6, dtype=np.uint8) % 3
            for kind, array in (("images", pixels), ("labels", labels)):
                (tmp_path / "wide" / IDX[f"{part}-{kind}"]).write_bytes(idx(array))
        code, record, _ = run(capsys, "purify", "evaluate", home / "c", tmp_path / "wide", *QUICK)
        assert (code, "1 x 8 x 12" in record["error"]["message"]) == (2, True)


class TestWords:
    def test_words(self) -> None:
        found = words_of.read("diffpure depth=40 shots=2 coarse.shots=1 label=mine step=ddim")
        assert (found.name, found.label) == ("diffpure", "mine")
        assert found.settings == {"depth": 40, "shots": 2, "step": "ddim"}
        assert found.coarse == {"shots": 1}
        assert words_of.read("none").label == "none"

    def test_the_coarser_purifier_differs_in_what_was_said(self, home: Path) -> None:
        wanted = words_of.read(f"{DIFFPURE} coarse.shots=1", home / "d")
        classifier = classifiers.load(home / "c")
        defence = words_of.defence(wanted, classifier)
        same = words_of.made(words_of.read("diffpure depth=40 shots=1", home / "d"), classifier)
        x = torch.rand(2, 1, 8, 8)
        noise = lambda like, step: torch.full_like(like, 0.1 * step)
        assert defence.coarse is not None
        assert same is not None
        assert torch.equal(defence.coarse(x, noise), same(x, noise))
        assert defence.purify is not None
        assert not torch.equal(defence.purify(x, noise), same(x, noise))

    @pytest.mark.parametrize(
        ("words", "level"), [("sde time=0.1", 100), ("diffpure depth=70", 70), ("gdmp", 36)]
    )
    def test_the_noise_that_is_meant(self, words: str, level: int, home: Path) -> None:
        schedule = stored.load(home / "d").denoiser.schedule
        found = words_of.meant(words_of.read(words, home / "d"))
        assert found == pytest.approx(schedule.sigma(level) / 2)

    @pytest.mark.parametrize("kind", ["generator", "guide"])
    def test_models_of_images_of_another_size(
        self, kind: str, home: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        made = stored.Diffusion((1, 16, 16), (8, 16))
        stored.Generative(made.build(), made).save(tmp_path / "generator")
        large = {"shape": [1, 16, 16], "classes": 3, "depth": 10, "width": 1}
        classifiers.save(tmp_path / "guide", classifiers.build("wrn", large))
        words = f"agdm generator={home / 'd'} {kind}={tmp_path / kind} label=toy"
        code, record, _ = evaluated(capsys, home, "--purifier", words)
        assert code == 2
        told = record["error"]["message"]
        assert "is for images of 1 x 16 x 16, and the classifier's are 1 x 8 x 8" in told

    def test_every_purifier_can_be_asked_for_by_its_name(self, home: Path) -> None:
        needed = {"diffpure": "depth=5", "diffdefense": "schedule=respaced"}
        assert set(words_of.NAMES) == {"none", *words_of.ALL} - {"denoised"}
        for name in words_of.NAMES[1:]:
            wanted = words_of.read(
                f"{name} {needed.get(name, '')}", home / ("g" if name == "defensegan" else "d")
            )
            assert words_of.made(wanted, classifiers.load(home / "c")) is not None

    def test_an_unknown_folder_setting_is_told(self) -> None:
        with pytest.raises(UsageError, match="there are"):
            words_of.read("none depth=3")


def certified(capsys: Capture, home: Path, *more: object) -> Any:
    words = ["purify", "certify", home / "c", home / "toys", "--samples", "30", "--alpha", "0.05"]
    code, record, _ = run(capsys, *words, "--limit", "3", *more)
    assert code == 0
    return record


def test_classes_are_certified_with_a_denoiser_and_without(
    capsys: Capture, home: Path, tmp_path: Path
) -> None:
    plain = certified(capsys, home, "--sigma", "0.1")
    assert (plain["images"], plain["denoised"]) == (3, False)
    more = ["--generator", home / "d", "--sigma", "0.1", "--sigma", "0.2", "--radius", "0.05"]
    found = certified(capsys, home, *more, "--out", tmp_path / "out")
    assert found["denoised"]
    assert [row["sigma"] for row in found["rows"]] == [0.1, 0.2]
    assert list(found["rows"][0]["certified"]) == ["0.05"]
    before = (tmp_path / "out" / "images.jsonl").read_text()
    assert certified(capsys, home, *more, "--out", tmp_path / "out")["rows"] == found["rows"]
    assert (tmp_path / "out" / "images.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--generator", "g"], "Defense-GAN alone"),
        (["--sigma", "90"], "noise of 90"),
        (["--samples", "0"], "--samples"),
        (["--alpha", "0.7"], "alpha 0.7"),
    ],
)
def test_what_cannot_be_certified_is_refused(
    capsys: Capture, home: Path, more: list[str], told: str
) -> None:
    more = [str(home / each) if len(each) == 1 else each for each in more]
    if "90" in more:
        more += ["--generator", str(home / "d")]
    words = ["purify", "certify", str(home / "c"), str(home / "toys"), "--limit", "3", *more]
    assert main(words) == 2
    assert told in capsys.readouterr().err
