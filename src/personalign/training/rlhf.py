"""PPO as a method: from prompts and a reward model's folder to a trained policy in a run's folder."""

import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from personalign.conversation import Message, end_ids, prompt_ids
from personalign.errors import UserError
from personalign.models import add_adapter, check_origin, load_adapter, load_head, save_adapter
from personalign.training.budget import fit_memory
from personalign.training.folder import finished
from personalign.training.learner import Learner
from personalign.training.loop import train
from personalign.training.methods import Job, base_precision, folder_hash, run_digest, template_hash, trained
from personalign.training.parallel import Processes
from personalign.training.ppo import Ppo
from personalign.training.rewards import rewards_of
from personalign.training.roles import Roles
from personalign.training.settings import PpoSettings
from personalign.training.trackers import require_trackers
from personalign.trees import prompt_with_answers


def train_ppo(
    model: Any,
    tokenizer: Any,
    job: Job,
    reward: Path,
    *,
    base: str,
    model_name: str | None = None,
) -> dict[str, Any]:
    """Train a policy on the job's prompts (`rows`: messages that end with the user's turn) against the reward model there.

    The policy starts from the adapter `settings.start`, which is then the reference too; else both are the base. The
    value model starts as the reward model with a head of zeros: before it has learned anything it says nothing, so that
    without rewards the policy stays where it was, bit for bit.

    Returns the run's summary (see loop.train). Raises UserError for no prompts, prompts that leave no room for an
    answer, a folder that holds no reward model, and one of another base or template.
    """
    settings: PpoSettings = job.settings
    prompts, dropped = fitting_prompts(tokenizer, job.rows, settings)
    trees = [prompt_with_answers(prompt, []) for prompt in prompts]
    named = run_digest(f"ppo {folder_hash(str(reward))}", base, settings, trees)
    done = finished(job.folder, named)
    if done is not None:
        return done
    require_trackers(settings.trackers)
    template = template_hash(tokenizer)
    head = load_head(reward)
    if head is None:
        raise UserError(f"--reward {reward}: no reward model there; give the adapter folder that `train reward` wrote.")
    check_origin(reward, base, template)
    if settings.start is not None:
        check_origin(settings.start, base, template)
        model = load_adapter(model, settings.start, name="policy", trainable=True)
        model = load_adapter(model, settings.start, name="reference")
    else:
        lora = settings.lora
        model = add_adapter(
            model, name="policy", rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=settings.seed,
            base=model_name,
        )  # fmt: skip
    model = load_adapter(model, reward, name="reward")
    model = load_adapter(model, reward, name="value", trainable=True)
    longest = max(map(len, prompts)) + settings.answers * settings.max_new_tokens
    settings = settings.model_copy(update=fit_memory(model, settings, longest=longest))
    head = head.to(model.get_input_embeddings().weight.device)
    value_head = deepcopy(head)
    torch.nn.init.zeros_(value_head.weight)
    roles = Roles(
        policy="policy",
        reference="reference" if settings.start is not None else None,
        value="value",
        value_head=value_head,
        scores=lambda trees: rewards_of(model, trees, "reward", head, settings.row_tokens),
    )
    ppo = Ppo(model, prompts, roles, settings, end_ids=end_ids(tokenizer), pad_id=tokenizer.pad_token_id)
    origin = {"base": base, "name": model_name, "template": template, "method": "ppo"}
    value = {f"value.{name}": parameter for name, parameter in trained(model, "value", value_head).items()}
    learner = Learner(
        "policy",
        {"policy": trained(model, "policy"), "value": value},
        settings,
        job.folder,
        named,
        save=lambda folder: save_adapter(model, folder, "policy", origin=origin),
        trees=trees,
        steps=settings.steps,
        rates={"value": settings.value_learning_rate},
        facts={"method": "ppo", "name": job.name, "dropped": dropped, "reward": folder_hash(str(reward))},
        fp16=base_precision(model) == torch.float16,
    )
    learner.state, learner.load_state = ppo.state, ppo.load_state

    def step(learners: Sequence[Learner], processes: Processes) -> dict[str, dict[str, float]]:
        if processes.sharded:
            raise UserError(
                "train ppo: under FSDP every process would have to sample answers of the same length; launch with DDP "
                "(--multi_gpu), where each holds the base whole."
            )
        return {learner.name: ppo.iteration(learner, processes)}

    return train(model, [learner], step)[0]


def fitting_prompts(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], settings: PpoSettings
) -> tuple[list[list[int]], int]:
    """Token ids of the prompts that leave `max_new_tokens` within `max_length`, and how many did not (too_long: refuse).

    Raises UserError where there are none, or where one does not fit and is not to be dropped.
    """
    if not conversations:
        raise UserError("no prompts to answer: the file is empty, or all of it is held out; give some.")
    prompts = [prompt_ids(tokenizer, list(messages)) for messages in conversations]
    room = settings.max_length - settings.max_new_tokens
    fitting = [prompt for prompt in prompts if len(prompt) <= room]
    dropped = len(prompts) - len(fitting)
    if dropped and (settings.too_long == "refuse" or not fitting):
        raise UserError(
            f"{dropped} of {len(prompts)} prompts leave no room for {settings.max_new_tokens} new tokens within max_length "
            f"{settings.max_length}; raise max_length or lower max_new_tokens."
        )
    if dropped:
        print(f"over max_length {settings.max_length}: {dropped} prompts dropped", file=sys.stderr)
    return fitting, dropped
