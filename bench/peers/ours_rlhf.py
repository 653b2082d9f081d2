"""personalign's SFT, PPO and sampling as `ppo_memory.py` measures them, each in a process of its own.

    ours_rlhf.py start --model DIR --folder F     # an adapter (F/start) and a reward model (F/reward), a step each
    ours_rlhf.py ppo --model DIR --folder F       # from both, so that policy, reference, reward and value are adapters
    ours_rlhf.py sft --model DIR --folder F --step-tokens 1200 --row-tokens 900
    ours_rlhf.py sample --model DIR --folder F    # our rollouts and transformers' `generate`, in turns

Each prints one JSON line. The text is the bundled English situations.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from protocol import memory_mb

NEVER = 1 << 20  # steps between checkpoints, tokens of the longest example


def main() -> None:
    """Do what is asked and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "sft", "ppo", "sample"])
    parser.add_argument("--model", required=True, help="model folder (safetensors)")
    parser.add_argument("--folder", required=True, type=Path, help="folder of the runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=8, help="ppo: to an iteration; sample: at once")
    parser.add_argument("--answers", type=int, default=4, help="to a prompt")
    parser.add_argument("--new-tokens", type=int, default=64, help="longest answer")
    parser.add_argument("--steps", type=int, default=2, help="ppo: iterations; sft: steps; sample: rounds")
    parser.add_argument("--step-tokens", type=int, default=1200, help="sft: tokens to an optimiser step, about")
    parser.add_argument("--row-tokens", type=int, default=1024, help="tokens in one forward pass, at most")
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ["PERSONALIGN_HOME"] = str(args.folder / "home")
    import torch

    from personalign.models import load_model

    torch.set_num_threads(args.threads)
    model, tokenizer = load_model(args.model, precision="bf16", device="cpu")
    result = {"start": start, "sft": sft, "ppo": ppo, "sample": sample}[args.what](args, model, tokenizer)
    print(json.dumps(result), flush=True)


def situations() -> list[Any]:
    """Bundled pairs, of one axis: every prompt once."""
    from personalign.datasets import type_pairs

    return type_pairs("E", "en", "train")


def conversations() -> list[Any]:
    """The same as conversations with the chosen answer."""
    from personalign.datasets import Conversation

    return [
        Conversation([*pair.prompt, {"role": "assistant", "content": pair.chosen}], pair.source)
        for pair in situations()
    ]


def start(args: argparse.Namespace, model: Any, tokenizer: Any) -> dict[str, Any]:
    """An adapter and a reward model, each trained for one step."""
    from personalign.datasets import Ranking
    from personalign.models import fingerprint
    from personalign.training.methods import Job, train_reward, train_sft
    from personalign.training.settings import RewardSettings, SftSettings

    base = fingerprint(args.model)
    settings = {"batch": 1, "max_steps": 1, "checkpoint_every": NEVER}
    talks = conversations()[:1]
    train_sft(model, tokenizer, [Job("start", talks, [], SftSettings(**settings), args.folder / "start")], base=base)
    pair = situations()[0]
    rankings = [Ranking(pair.prompt, [pair.chosen, pair.rejected], [1, 2], pair.source)]
    job = Job("reward", rankings, [], RewardSettings(**settings), args.folder / "reward")
    train_reward(model, tokenizer, [job], base=base)
    return {}


def sft(args: argparse.Namespace, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Steps of SFT on as many conversations as make `step_tokens`."""
    from personalign.models import fingerprint
    from personalign.training.examples import conversation_trees
    from personalign.training.methods import Job, train_sft
    from personalign.training.settings import SftSettings

    talks = conversations()
    trees, _ = conversation_trees(tokenizer, talks, NEVER, "refuse")
    batch = max(1, round(args.step_tokens * len(trees) / sum(map(len, trees))))
    settings = SftSettings(
        batch=batch, max_steps=args.steps, epochs=1000, row_tokens=args.row_tokens, checkpoint_every=NEVER
    )
    job = Job("sft", talks, [], settings, args.folder / "sft")
    return measured(model, args.steps, lambda: train_sft(model, tokenizer, [job], base=fingerprint(args.model)))


def ppo(args: argparse.Namespace, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Iterations of PPO from the adapter and the reward model that `start` wrote."""
    from personalign.models import fingerprint
    from personalign.training.methods import Job
    from personalign.training.rlhf import train_ppo
    from personalign.training.settings import PpoSettings

    settings = PpoSettings(
        start=str(args.folder / "start" / "adapter"),
        steps=args.steps,
        batch=args.prompts,
        answers=args.answers,
        max_new_tokens=args.new_tokens,
        row_tokens=args.row_tokens,
        kl_stop=None,  # every update is made
        checkpoint_every=NEVER,
    )
    job = Job("ppo", [pair.prompt for pair in situations()], [], settings, args.folder / "ppo")
    reward, base = args.folder / "reward" / "adapter", fingerprint(args.model)
    updates = args.steps * settings.ppo_epochs * -(-args.prompts // settings.minibatch)
    # each update goes through the policy and through the value model
    return measured(model, 2 * updates, lambda: train_ppo(model, tokenizer, job, reward, base=base))


def measured(model: Any, steps: int, training: Callable[[], Any]) -> dict[str, Any]:
    """Run `training`: time, peak memory, tokens of the fullest pass with gradients, and of a step of `steps`."""
    import torch

    lengths: list[int] = []

    def note(_module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            lengths.append(keywords["input_ids"].shape[1])

    model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    loaded, began = memory_mb("VmRSS"), time.perf_counter()
    training()
    return {
        "seconds": time.perf_counter() - began,
        "loaded_mb": loaded,
        "peak_mb": memory_mb("VmHWM"),
        "fullest_pass": max(lengths),
        "step_tokens": round(sum(lengths) / steps),
    }


def sample(args: argparse.Namespace, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Answers by our rollouts and by `generate`, the same model, adapter, prompts and distribution; (tokens, seconds)."""
    import torch
    from transformers import GenerationConfig

    from personalign.conversation import end_ids, prompt_ids
    from personalign.models import load_adapter, use_adapter
    from personalign.models.rollout import rollouts

    model = load_adapter(model, args.folder / "start" / "adapter")
    use_adapter(model, "default")
    prompts = [prompt_ids(tokenizer, pair.prompt) for pair in situations()]
    ends, pad = list(end_ids(tokenizer)), tokenizer.pad_token_id

    def ours(batch: Sequence[list[int]], new_tokens: int, seed: int) -> int:
        answers = rollouts(
            model,
            batch,
            args.answers,
            max_new_tokens=new_tokens,
            end_ids=ends,
            pad_id=pad,
            seed=seed,
            cache_tokens=NEVER,
        )
        return sum(len(answer.ids) for each in answers for answer in each)

    def generate(batch: Sequence[list[int]], new_tokens: int, seed: int) -> int:
        torch.manual_seed(seed)
        longest = max(map(len, batch))
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in batch])
        seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
        config = GenerationConfig(
            do_sample=True, temperature=1.0, top_p=1.0, top_k=0, num_return_sequences=args.answers,
            max_new_tokens=new_tokens, eos_token_id=ends, pad_token_id=pad,
        )  # fmt: skip
        with torch.no_grad():
            made = model.generate(input_ids=ids, attention_mask=seen, generation_config=config)[:, longest:]
        over = torch.isin(made, torch.tensor(ends)).int()
        return int((over.cumsum(1) - over == 0).sum())  # up to the first end token, with it

    arms = {"ours": ours, "generate": generate}
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in arms}
    for arm in arms.values():
        arm(prompts[:1], 2, 0)  # warm-up
    for turn in range(args.steps):
        batch = [prompts[(turn * args.prompts + at) % len(prompts)] for at in range(args.prompts)]
        for name in list(arms) if turn % 2 == 0 else list(arms)[::-1]:
            began = time.perf_counter()
            tokens = arms[name](batch, args.new_tokens, turn)
            found[name].append((tokens, time.perf_counter() - began))
    return dict(found)


if __name__ == "__main__":
    main()
