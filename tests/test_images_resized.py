"""One way to resize, to change channels, and to read masks, and what holds of each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from samples import COLOUR, DEEP, GREY, RNG, expected, save

from advrad.errors import DataError, ModelError, UsageError
from advrad.images import Preprocess, read, resize, to_channels


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(40, 64), (7, 5), (33, 8)])
def test_a_constant_stays_constant(level: float, shape: tuple[int, int]) -> None:
    small = resize(torch.full((3, *shape), level), 16)
    torch.testing.assert_close(small, torch.full((3, 16, 16), level))
    assert small.max() <= 1


def test_halving_weighs_by_the_triangle() -> None:
    x = torch.rand(2, 3, 12, 12)
    weights = torch.tensor([1.0, 3, 3, 1]) / 8  # a triangle of twice the step, at +-0.5, +-1.5
    rows = torch.stack([(x[..., 2 * i + 1 : 2 * i + 5, :] * weights[:, None]).sum(-2)
                        for i in range(4)], -2)  # fmt: skip
    inner = torch.stack([(rows[..., 2 * j + 1 : 2 * j + 5] * weights).sum(-1)
                         for j in range(4)], -1)  # fmt: skip
    torch.testing.assert_close(resize(x, 6)[..., 1:-1, 1:-1], inner)


def test_halving_blocks_keeps_their_mean() -> None:
    ramp = torch.linspace(0, 1, 16).expand(1, 16, 16)
    means = ramp.unfold(1, 2, 2).unfold(2, 2, 2).mean((-1, -2))
    torch.testing.assert_close(resize(ramp, 8)[..., 1:-1], means[..., 1:-1])


def test_fine_stripes_become_grey_and_do_not_alias() -> None:
    stripes = (torch.arange(120) % 2).float().expand(1, 120, 120)
    assert (resize(stripes, 12) - 0.5).abs().max() < 0.06


def test_resizing_agrees_with_pillow(tmp_path: Path) -> None:
    levels = RNG.random((37, 53)).astype(np.float32)
    pillow = Image.fromarray(levels).resize((16, 16), Image.Resampling.BILINEAR)
    torch.testing.assert_close(
        resize(torch.from_numpy(levels)[None], 16)[0],
        torch.from_numpy(np.array(pillow)),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("shape", [(20, 30), (9, 4), (16, 16)])
def test_an_image_does_not_depend_on_its_batch(shape: tuple[int, int]) -> None:
    batch = torch.rand(5, 3, *shape)
    together = resize(batch, 16)
    assert together.shape == (5, 3, 16, 16)
    for alone, x in zip(together, batch, strict=True):
        assert torch.equal(resize(x, 16), alone)
        assert torch.equal(resize(x[None, None], 16)[0, 0], alone)
    if shape == (16, 16):
        assert torch.equal(together, batch)


def test_gradients_pass_white_pixels() -> None:
    x = torch.ones(1, 3, 21, 33, requires_grad=True)
    to_channels(resize(x, 8), 1).sum().backward()
    assert x.grad is not None
    assert x.grad.min() > 0
    torch.testing.assert_close(x.grad.sum(), torch.tensor(64.0))


def test_channels_are_copied_and_weighed() -> None:
    grey = torch.rand(2, 1, 4, 4)
    colour = to_channels(grey, 3)
    assert torch.equal(colour, grey.expand(2, 3, 4, 4))
    torch.testing.assert_close(to_channels(colour, 1), grey)
    assert to_channels(torch.ones(3, 4, 4), 1).max() == 1
    assert to_channels(grey, 1) is grey
    with pytest.raises(UsageError, match="from 2 to 3"):
        to_channels(torch.rand(2, 4, 4), 3)


def test_grey_is_the_grey_of_pillow() -> None:
    pillow = np.array(Image.fromarray(COLOUR).convert("L"))
    assert (to_channels(expected(COLOUR), 1) - expected(pillow)).abs().max() < 1.01 / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("array", [GREY, COLOUR, DEEP], ids=["grey", "colour", "deep"])
def test_preprocessing_delivers_its_shape(
    tmp_path: Path, array: np.ndarray, channels: int
) -> None:
    path = save(tmp_path / "x.png", array)
    x = Preprocess(size=4, channels=channels)(path)
    assert x.shape == (channels, 4, 4)
    assert x.is_contiguous()
    torch.testing.assert_close(x, to_channels(resize(read(path), 4), channels))


def test_preprocessing_survives_its_dictionary() -> None:
    preprocess = Preprocess(96, 3)
    assert Preprocess.from_dict(preprocess.as_dict()) == preprocess
    wrong = [{}, {"size": 96}, {"size": "96"}, {"resize": "nearest"}, {"crop": 3}]
    for change in wrong:
        values = {**preprocess.as_dict(), **change} if change else {}
        if values != preprocess.as_dict():
            with pytest.raises(ModelError, match="preprocessing is"):
                Preprocess.from_dict(values)


@pytest.mark.parametrize(("size", "channels"), [(0, 1), (-3, 3), (8, 2), (8, 4)])
def test_an_impossible_preprocessing_is_refused(size: int, channels: int) -> None:
    with pytest.raises(UsageError, match="cannot be delivered"):
        Preprocess(size, channels)


def test_a_mask_is_half_covered(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:20, :20] = 255
    small = Preprocess(4, 1).mask(save(tmp_path / "m.png", mask), (40, 60))
    assert small.dtype == torch.bool
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[:2, :1] = True  # columns of 15: the second holds a third of the defect
    assert torch.equal(small, wanted)


@pytest.mark.parametrize("white", [1, 3, 100, 255])
def test_a_mask_may_hold_labels(tmp_path: Path, white: int) -> None:
    mask = (GREY > 127).astype(np.uint8) * white
    assert torch.equal(
        Preprocess(5, 1).mask(save(tmp_path / "m.png", mask[:, :5]), (5, 5)),
        torch.from_numpy(mask[:, :5] > 0),
    )


def test_faint_traces_around_a_lossy_mask_are_no_defect(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 5:11] = 255
    small = Preprocess(16, 1).mask(save(tmp_path / "m.jpg", mask, quality=60), (16, 16))
    assert torch.equal(small, torch.from_numpy(mask > 0))


def test_an_empty_mask_is_empty(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((9, 9), np.uint8))
    assert not Preprocess(4, 1).mask(path, (9, 9)).any()


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", GREY)
    with pytest.raises(DataError, match=r"m\.png has 7 x 5 pixels, its image y\.png 5 x 7"):
        Preprocess(4, 1).mask(path, (7, 5), of=Path("y.png"))
