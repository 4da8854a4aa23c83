import pytest
import torch
from hypothesis import settings

# One thread: sums are then added in one order, and parallel test runs do not fight for cores.
torch.set_num_threads(1)

settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
