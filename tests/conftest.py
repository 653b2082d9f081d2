"""Every test has an empty cache of its own, and the torch threads that CI has."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as own:  # a test that undoes its own patches keeps this one
        if "real_home" not in request.fixturenames:
            own.setenv("PERSONALIGN_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def real_home() -> Path:
    """The user's own cache, where the embedded models are (fetched on first use)."""
    from personalign.home import home

    return home()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama that reads bytes, saved as people save models."""
    from tiny import byte_tokenizer, tiny_model

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = byte_tokenizer("chatml")
    tiny_model("llama", len(tokenizer), max_position_embeddings=4096).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
