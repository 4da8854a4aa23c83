"""Which device a verb computes on."""


def resolve(name: str | None) -> str:
    """The device asked for, or the fastest found; UsageError for one that is not here."""
    import torch

    from ..allocator import keep_freed_memory
    from ..errors import UsageError

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    device = name or ("cuda" if count else "cpu")
    if device not in known:
        raise UsageError(f"device {device!r}: expected one of {', '.join(known)}")
    if device == "cpu":
        keep_freed_memory()
    return device
