"""Where caches live."""

from pathlib import Path

import pytest

from personalign import home as module
from personalign.home import home


def test_the_variable_decides(monkeypatch, tmp_path):
    monkeypatch.setenv("PERSONALIGN_HOME", str(tmp_path / "here"))
    assert home() == tmp_path / "here"


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", "cache/personalign"), ("darwin", "Library/Caches/personalign"), ("win32", "local/personalign")],
)
def test_else_the_platforms_cache_folder(monkeypatch, tmp_path, platform, expected):
    monkeypatch.delenv("PERSONALIGN_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(module.sys, "platform", platform)
    assert home() == tmp_path / expected
