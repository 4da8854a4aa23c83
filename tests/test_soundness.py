"""No attack inside the radius breaks a certificate: small models of real photographs."""

from pathlib import Path

import pytest
import torch

from advrad import metrics
from advrad.certify import certified_auroc
from advrad.data import Dataset, load
from advrad.evaluate import Evaluation, Training, train
from advrad.evaluate.challenge import Challenge, challenge
from advrad.evaluate.clean import test_images as images_of
from advrad.evaluate.smoothed import Smoothed, Way, measured
from advrad.model import Model

SETTINGS = {"size": 32, "widths": [16, 32], "steps": 120, "depth": 50, "batch": 8}
SIGMA, RADIUS, ALPHA = 0.12, 0.1, 1e-3


def small(dataset: Dataset, folder: Path) -> Model:
    return train(dataset, folder, Training(settings=SETTINGS, limit=60))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hazelnut_toy", "elpv-mono"])
def test_every_image_of_a_run_keeps_its_certificate_under_attack(
    name: str, tmp_path: Path
) -> None:
    dataset = load(name)
    model = small(dataset, tmp_path / "model")
    images = images_of(model, dataset, Evaluation(limit=12))
    way = Way(SIGMA, 500, "matched")
    smoothed = Smoothed(measured(model, dataset, way, "cpu"), way, model.calibration)
    around = [smoothed.draws(images[i], images.ids[i], 64) for i in range(len(images))]
    bounds = [found.bounds(RADIUS / SIGMA, ALPHA / len(images)) for found in around]
    answers = challenge(
        smoothed,
        [images[i] for i in range(len(images))],
        images.ids,
        images.labels,
        Challenge(RADIUS, steps=10, draws=4, samples=4000),
    )
    for answer, bound in zip(answers, bounds, strict=True):
        assert answer.moved <= RADIUS * (1 + 1e-5)
        assert not answer.violates(bound)
    moved = [
        (float(found.median) - float(answer.attacked.median)) * (1 if bad else -1)
        for found, answer, bad in zip(around, answers, images.labels, strict=True)
    ]
    assert sum(moved) / len(moved) > 0  # the attack does something
    defect = torch.tensor(images.labels)
    low, high = (torch.stack(ends) for ends in zip(*bounds, strict=True))
    certified = certified_auroc(low[defect].numpy(), high[~defect].numpy())
    clean = [float(found.median) for found in around]
    attacked = [float(answer.attacked.median) for answer in answers]
    area = metrics.auroc(attacked, images.labels)
    assert certified is not None
    assert area is not None
    assert certified <= area
    whole = metrics.interval(metrics.auroc, clean, images.labels)
    assert whole is None or area <= whole[1]
