"""Where personalign keeps what it fetches and computes once."""

import os
import sys
from pathlib import Path


def home() -> Path:
    """The folder under which every cache lives: `PERSONALIGN_HOME`, or `personalign` in the platform's user cache
    folder.

    The folder is not created here; whoever writes below it does that.
    """
    if chosen := os.environ.get("PERSONALIGN_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "personalign"
