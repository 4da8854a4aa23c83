"""Tests against anomalib, in an environment of their own: `make test-anomalib`.

A torchvision built for CUDA cannot be imported beside a torch built for the CPU: two operators are
missing, which no model here uses. They are declared, and it can.
"""

from importlib.util import find_spec

import torch

if find_spec("anomalib") is None:
    collect_ignore_glob = ["*"]
else:
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
