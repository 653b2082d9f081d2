"""Base models (embedded, local, hub), adapters on them, and text from them."""

from personalign.models.adapters import adapter_disabled, add_adapter, load_adapter, save_adapter
from personalign.models.base import choose_device, choose_precision, fingerprint, load_model, resolve
from personalign.models.embedded import EMBEDDED, accept_terms
from personalign.models.generation import generate, stream

__all__ = [
    "EMBEDDED", "accept_terms", "adapter_disabled", "add_adapter", "choose_device", "choose_precision", "fingerprint",
    "generate", "load_adapter", "load_model", "resolve", "save_adapter", "stream",
]
