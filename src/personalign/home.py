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


def move_caches() -> None:
    """Have the libraries' caches follow `PERSONALIGN_HOME`, where it is set and theirs are not. Before they are imported."""
    if os.environ.get("PERSONALIGN_HOME"):
        os.environ.setdefault("HF_HOME", str(home() / "huggingface"))
        os.environ.setdefault("MPLCONFIGDIR", str(home() / "matplotlib"))
