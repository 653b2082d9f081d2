"""The rows of the before/after report: what policy and reference answer to held-out prompts, and what all four roles say."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalign.conversation import Message, end_ids, prompt_ids
from personalign.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = 200
"""At most so many are answered, evenly spaced through those held out."""


def before_after_rows(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Message]],
    *,
    policy: Path,
    reference: Path | None,
    reward: Path,
    max_new_tokens: int,
    max_length: int,
    row_tokens: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row a prompt, as `before_after_summary` wants them: both answers with rewards, lengths, KL and perplexities.

    `model` is the bare base; `policy`, `reference` (None: the base itself) and `reward` are adapter folders. Answers are
    drawn at temperature 1 from the whole distribution, as in training, with the same random numbers before and after.
    A prompt that leaves no room for an answer within `max_length` is left out.
    """
    import torch

    from personalign.models import adapter_disabled, load_adapter, load_head, use_adapter
    from personalign.models.rollout import rollouts
    from personalign.training.advantages import k3
    from personalign.training.rewards import rewards_of
    from personalign.training.roles import row_policy, through
    from personalign.trees import pack, prompt_with_answers

    head = load_head(reward)
    if head is None:
        raise UserError(f"{reward}: no reward model there; give the adapter folder that `train reward` wrote.")
    asked = [(prompt, prompt_ids(tokenizer, list(prompt))) for prompt in _spaced(prompts)]
    asked = [(prompt, ids) for prompt, ids in asked if len(ids) + max_new_tokens <= max_length]
    model = load_adapter(model, policy, name="policy")
    model = load_adapter(model, reward, name="reward")
    if reference is not None:
        model = load_adapter(model, reference, name="reference")
    head = head.to(model.get_input_embeddings().weight.device)

    def answers() -> list[Any]:
        found = rollouts(
            model, [ids for _, ids in asked], 1, max_new_tokens=max_new_tokens, end_ids=end_ids(tokenizer),
            pad_id=tokenizer.pad_token_id, seed=seed,
        )  # fmt: skip
        return [each for (each,) in found]

    use_adapter(model, "policy")
    after = answers()
    if reference is None:
        with adapter_disabled(model):
            before = answers()
    else:
        use_adapter(model, "reference")
        before = answers()

    trees = [
        prompt_with_answers(ids, [old.ids, new.ids]) for (_, ids), old, new in zip(asked, before, after, strict=True)
    ]
    rewards = rewards_of(model, trees, "reward", head, row_tokens)
    rows = []
    for at, ((prompt, _), tree, old, new) in enumerate(zip(asked, trees, before, after, strict=True)):
        (row,) = pack([tree], len(tree))
        with torch.no_grad():
            logprobs = {}
            for role, adapter in (
                ("policy", "policy"),
                ("reference", "reference" if reference else None),
                ("base", None),
            ):
                with through(model, adapter):
                    logprobs[role] = row_policy(model, row).float().cpu().split([len(old.ids), len(new.ids)])
        found = {
            "prompt": prompt[-1]["content"],
            "kl": float(k3(logprobs["policy"][1], logprobs["reference"][1]).sum()),
        }
        for side, which, answer in (("before", 0, old), ("after", 1, new)):
            found |= {
                side: str(tokenizer.decode(answer.ids, skip_special_tokens=True)).strip(),
                f"reward_{side}": rewards[at][which],
                f"tokens_{side}": len(answer.ids),
                f"perplexity_{side}": math.exp(-float(logprobs["base"][which].mean())),
                f"ended_{side}": answer.ended,
            }
        rows.append(found)
    return rows


def _spaced(prompts: Sequence[Sequence[Message]]) -> list[Sequence[Message]]:
    count = min(PROMPTS, len(prompts))
    return [prompts[at * len(prompts) // count] for at in range(count)]
