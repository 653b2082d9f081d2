"""Where a base model lies, and what it is by content. Needs no torch: a run that is done must not load it."""

import hashlib
import re
from pathlib import Path

from personalign.errors import UserError
from personalign.models.embedded import EMBEDDED, embedded_folder

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WANTED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]
CODE = ["*.py"]  # fetched, and run only where the recipe says trust_remote_code


def resolve(name: str) -> Path:
    """Local folder of the base `name`: an embedded model, an existing folder, or a hub id (fetched into the hub's cache).

    Raises:
        UserError: an unknown name, a path that climbs (`../`), a folder without config or without safetensors.
    """
    if name in EMBEDDED:
        return embedded_folder(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"--model {name}: no config.json in this folder; give the folder that save_pretrained wrote."
            )
        if not list(folder.glob("*.safetensors")):
            raise UserError(
                f"--model {name}: no weights (*.safetensors) in this folder; other formats can run code when read "
                "and are refused: convert them once with save_pretrained."
            )
        return folder
    if ".." in name or not HUB_ID.fullmatch(name):
        raise UserError(
            f"--model {name}: neither an embedded model ({', '.join(EMBEDDED)}) nor a folder here nor a hub id (org/name)."
        )
    from huggingface_hub import snapshot_download

    try:
        fetched = Path(snapshot_download(name, allow_patterns=WANTED_FILES + CODE))
    except Exception as error:  # the hub's errors are of many kinds; each ends in the same two remedies
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--model {name}: the hub did not give it ({first}). Check the name, the network and, for a gated model, "
            "`hf auth login`; or give a local folder."
        ) from error
    if not list(fetched.glob("*.safetensors")):
        raise UserError(f"--model {name}: it has no safetensors weights, and other formats are refused.")
    return fetched


def fingerprint(name: str) -> str:
    """SHA-256 (16 hex digits) over the content of the base's config, tokenizer, template and weights."""
    digest = hashlib.sha256()
    for path in sorted(resolve(name).iterdir()):
        if path.suffix in {".safetensors", ".json", ".jinja", ".model"}:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
