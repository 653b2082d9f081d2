"""Base models (embedded, local, hub), adapters on them, and text from them.

Names are imported when they are first used: to find a model or its fingerprint needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personalign.models.adapters import (
        adapter_disabled,
        adapter_parameters,
        add_adapter,
        check_origin,
        load_adapter,
        load_head,
        save_adapter,
        use_adapter,
    )
    from personalign.models.base import choose_device, choose_precision, load_model
    from personalign.models.embedded import EMBEDDED, accept_terms
    from personalign.models.folders import fingerprint, resolve
    from personalign.models.generation import generate, stream
    from personalign.models.lora import Part, routed

__all__ = [
    "EMBEDDED",
    "Part",
    "accept_terms",
    "adapter_disabled",
    "adapter_parameters",
    "add_adapter",
    "check_origin",
    "choose_device",
    "choose_precision",
    "fingerprint",
    "generate",
    "load_adapter",
    "load_head",
    "load_model",
    "resolve",
    "routed",
    "save_adapter",
    "stream",
    "use_adapter",
]

_MODULES = {
    "adapters": (
        "adapter_disabled",
        "adapter_parameters",
        "add_adapter",
        "check_origin",
        "load_adapter",
        "load_head",
        "save_adapter",
        "use_adapter",
    ),
    "base": ("choose_device", "choose_precision", "load_model"),
    "embedded": ("EMBEDDED", "accept_terms"),
    "folders": ("fingerprint", "resolve"),
    "generation": ("generate", "stream"),
    "lora": ("Part", "routed"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
