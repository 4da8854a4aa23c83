"""Any torch module that maps images to scores, as a detector to be attacked and certified."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ..detectors import Anomaly, Detector, Images, Run
from ..detectors.base import PLAIN
from ..errors import UsageError
from ..noise import Noise, fresh, redraw
from ..scoring import enlarge


def _as_it_is(output: Any) -> Any:
    return output


class ModuleDetector(Detector):
    """A detector that somebody else has trained.

    Arguments:
        module: maps images (B, C, H, W) in [0, 1] to a raw score (B,), higher is more anomalous,
            or to a pair of scores and a map. Any callable will do; a `torch.nn.Module` is put in
            eval mode. It must not cut the gradient: `Opened(module)` sees to that.
        pick: takes the score, or the pair, out of whatever the module returns.
        size: the side of the images that it gets.
        channels: theirs, 1 or 3.
        draws: over how many runs a score is averaged, where the module draws random numbers from
            torch's own generator; 0 where it draws none.
        alone: whether the module gets one image at a time, because what it says of one depends on
            the others of the batch.

    A map is (B, h, w) or (B, 1, h, w) and is enlarged to the image. Where there is none, every
    pixel gets the image's score: whatever smooth maximum an attack climbs, it climbs the score.

    A module that draws gets one image at a time, under a seed that comes from the noise of that
    image: its scores can be reproduced, and do not depend on the batch.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Any],
        pick: Callable[[Any], Any] = _as_it_is,
        *,
        size: int,
        channels: int = 3,
        draws: int = 0,
        alone: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (("size", size, 1), ("draws", draws, 0)):
            if value < least:
                raise UsageError(f"{name} {value}: expected a whole number of at least {least}")
        if channels not in (1, 3):
            raise UsageError(f"channels {channels}: expected 1 or 3")
        self.module, self.pick = module, pick
        self.size, self.channels, self.draws, self.alone = size, channels, draws, alone
        self.eval()

    def fit(self, images: Images, run: Run = PLAIN) -> Self:
        """Raises UsageError: what is wrapped has been trained by its own means."""
        raise UsageError(
            f"{self.kind} is attacked and certified as it is: train it by its own means, then "
            "wrap it"
        )

    def forward(self, x: Tensor, noise: Noise = fresh, draws: int | None = None) -> Anomaly:
        """Scores a batch. Raises UsageError where the module returns anything but scores."""
        x = self.seen(x)
        if self.draws:
            count = self.draws if draws is None else draws
            drawn = [self._drawn(x, redraw(noise, number)) for number in range(count)]
            return Anomaly(*(torch.stack(part).mean(0) for part in zip(*drawn, strict=True)))
        return self._anomalies(x.split(1)) if self.alone else self._anomaly(x)

    @property
    def kind(self) -> str:
        """What is wrapped, for people."""
        return str(getattr(self.module, "kind", type(self.module).__name__))

    @property
    def params(self) -> dict[str, Any]:
        """What describes it in a result; no model can be made of it again."""
        own = ("size", "channels", "draws", "alone")
        return {"module": self.kind} | {name: getattr(self, name) for name in own}

    @property
    def draws_taken(self) -> int:
        return self.draws

    def files(self) -> dict[str, bytes]:
        """Raises UsageError: code that is not this library's is not kept in a model folder."""
        raise UsageError(
            f"{self.kind} cannot be saved as a model folder: keep it by its own means, and wrap "
            "it again"
        )

    def _drawn(self, x: Tensor, noise: Noise) -> Anomaly:
        """One draw, image by image, under seeds made of the bits of the noise."""
        seeds = noise(x[:, :1, :1, :1], 0).float().flatten().cpu().view(torch.int32).tolist()
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            return self._anomalies(x.split(1), seeds)

    def _anomalies(self, images: Sequence[Tensor], seeds: Sequence[int] = ()) -> Anomaly:
        """Each image (1, C, H, W) by itself, under its seed if there are any."""
        found = []
        for number, image in enumerate(images):
            if seeds:
                torch.manual_seed(seeds[number] % 2**32)
            found.append(self._anomaly(image))
        return Anomaly(*(torch.cat(part) for part in zip(*found, strict=True)))

    def _anomaly(self, x: Tensor) -> Anomaly:
        given = self.pick(self._output(x))
        score, places = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        batch, side = len(x), x.shape[-2:]
        if not (_is_float(score) and score.shape == (batch,)):
            raise self._wrong(score, "scores", f"floats {(batch,)}")
        if places is None:
            return Anomaly(score.float(), score.float()[:, None, None].expand(batch, *side))
        if _is_float(places) and places.ndim == 4 and places.shape[1] == 1:
            places = places[:, 0]
        if not (_is_float(places) and places.ndim == 3 and len(places) == batch):
            raise self._wrong(places, "a map", f"floats {(batch, *side)}")
        places = places.float()
        if places.shape[-2:] != side:
            places = enlarge(places[:, None], side)[:, 0]
        return Anomaly(score.float(), places)

    def _output(self, x: Tensor) -> Any:
        try:
            return self.module(x)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UsageError(
                f"{self.kind} failed on images {tuple(x.shape)}: {error}. It gets {self.channels} "
                f"channels at {self.size} x {self.size}: give the size and channels that it was "
                "trained for, or wrap it so that it takes these"
            ) from error

    def _wrong(self, given: Any, what: str, expected: str) -> UsageError:
        if isinstance(given, Tensor):
            shown = f"{given.dtype} of shape {tuple(given.shape)}"
        else:
            shown = f"a {type(given).__name__}"
        return UsageError(
            f"{self.kind} returned {shown} as {what}: expected {expected}, one for each image. "
            "Say where it is in what the module returns, for example pick=lambda output: "
            "output[:, 0], or pick=lambda output: (output.score, output.map)"
        )


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
