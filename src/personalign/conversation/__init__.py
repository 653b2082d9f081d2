"""Messages, chat templates, and which tokens count. No model lives here.

Everything is rendered by the tokenizer's own chat template, in the sandbox in which transformers runs it.
"""

from personalign.conversation.messages import Message, validate
from personalign.conversation.templates import BUNDLED, preflight, render, use_template
from personalign.conversation.tokens import (
    answer_ids,
    conversation_sequences,
    conversation_tokens,
    end_ids,
    prompt_ids,
)

__all__ = [
    "BUNDLED",
    "Message",
    "answer_ids",
    "conversation_sequences",
    "conversation_tokens",
    "end_ids",
    "preflight",
    "prompt_ids",
    "render",
    "use_template",
    "validate",
]
