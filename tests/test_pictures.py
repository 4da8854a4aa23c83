"""Colours that mean the same everywhere, and lines that hide nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from advrad.errors import UsageError
from advrad.evaluate.pictures import INFERNO, colour_bar, heat, outline, overlay, thumbnail
from advrad.images import read


def decoded(png: bytes, folder: Path) -> Tensor:
    (folder / "picture.png").write_bytes(png)
    return read(folder / "picture.png")


def test_the_ends_of_the_scale_have_the_ends_of_the_table() -> None:
    colours = heat(torch.tensor([[-5.0, 2.0, 4.0, 9.0]]), 2.0, 4.0)
    first, last = torch.tensor(INFERNO[0]) / 255, torch.tensor(INFERNO[-1]) / 255
    torch.testing.assert_close(colours[:, 0].T, torch.stack([first, first, last, last]))


def test_a_value_has_one_colour_whatever_else_is_in_the_map() -> None:
    calm, wild = torch.tensor([[0.3, 0.2]]), torch.tensor([[0.3, 50.0]])
    assert torch.equal(heat(calm, 0, 1)[:, 0, 0], heat(wild, 0, 1)[:, 0, 0])


def test_lightness_rises_evenly() -> None:
    """CIE L* of the table (gamma 2.2, near black too coarse) climbs by 5 to 8 at every step."""
    linear = (np.array(INFERNO) / 255) ** 2.2
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = np.diff(lightness)[2:]
    assert (steps > 5).all()
    assert (steps < 8).all()


def test_colours_equal_matplotlibs_inferno() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    shares = np.linspace(0, 1, 256)
    expected = matplotlib.colormaps["inferno"](shares)[:, :3].T
    ours = heat(torch.from_numpy(shares)[None], 0, 1)[:, 0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=0.03)


def test_a_pixel_that_is_no_number_is_shown_at_its_worst() -> None:
    colours = heat(torch.tensor([[float("nan"), float("inf"), float("-inf")]]), 0, 1)
    top = torch.tensor(INFERNO[-1]) / 255
    torch.testing.assert_close(colours[:, 0, 0], top)
    torch.testing.assert_close(colours[:, 0, 1], top)
    torch.testing.assert_close(colours[:, 0, 2], torch.tensor(INFERNO[0]) / 255)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_scale_without_extent_is_refused(low: float, high: float) -> None:
    with pytest.raises(UsageError, match="low < high"):
        heat(torch.zeros(2, 2), low, high)


@pytest.mark.parametrize("channels", [1, 3])
def test_overlay_blends_grey_and_colour(channels: int) -> None:
    image, anomaly = torch.rand(channels, 5, 7), torch.rand(5, 7)
    grey = image.mean(0).expand(3, -1, -1)
    torch.testing.assert_close(overlay(image, anomaly, 0, 1, opacity=0.0), grey)
    torch.testing.assert_close(overlay(image, anomaly, 0, 1, opacity=1.0), heat(anomaly, 0, 1))
    half = overlay(image, anomaly, 0, 1, opacity=0.5)
    torch.testing.assert_close(half, (grey + heat(anomaly, 0, 1)) / 2)


def test_the_outline_hides_nothing_of_the_defect() -> None:
    image, mask = torch.rand(1, 9, 9), torch.zeros(9, 9, dtype=torch.bool)
    mask[3:6, 3:6] = True
    drawn = outline(image, mask)
    changed = (drawn != image).any(0)
    ring = torch.zeros(9, 9, dtype=torch.bool)
    ring[2:7, 2:7] = True
    assert torch.equal(changed, ring & ~mask)
    assert torch.equal(outline(image, torch.zeros_like(mask)), image.expand(3, -1, -1))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 64, 32), (64, 32)), ((1, 1000, 500), (256, 128)), ((3, 300, 5000), (15, 256))],
)
def test_thumbnails_keep_their_shape_and_are_never_enlarged(
    shape: tuple[int, ...], expected: tuple[int, int], tmp_path: Path
) -> None:
    small = decoded(thumbnail(torch.full(shape, 0.5)), tmp_path)
    assert small.shape == (shape[0], *expected)
    torch.testing.assert_close(small, torch.full_like(small, 0.5), atol=1 / 255, rtol=0)


def test_the_colour_bar_runs_from_low_to_high(tmp_path: Path) -> None:
    bar = decoded(colour_bar(), tmp_path)
    expected = heat(torch.linspace(0, 1, bar.shape[2])[None], 0, 1).expand_as(bar)
    torch.testing.assert_close(bar, expected, atol=1 / 255, rtol=0)
