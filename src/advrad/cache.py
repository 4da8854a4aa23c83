"""Where what was fetched or converted once is kept: `$ADVRAD_CACHE`, or the user's own cache."""

import os
from pathlib import Path


def folder() -> Path:
    """`$ADVRAD_CACHE`, else `$XDG_CACHE_HOME/advrad`, else `~/.cache/advrad`; it may not exist."""
    own = os.environ.get("ADVRAD_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "advrad"
