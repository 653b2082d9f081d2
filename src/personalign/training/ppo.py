"""Proximal policy optimisation: sample answers, score them, improve policy and value model on them, and again.

Policy, reference, reward and value model are adapters of one frozen base (roles.py) and go through it one after another,
row by row, so that memory stays near that of supervised training. An iteration is a pure function of seed, step, weights,
optimiser and two small records (`Ppo.state`): nothing else has to survive a kill.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from personalign.models import use_adapter
from personalign.models.rollout import Rollout, rollouts
from personalign.training.advantages import (
    Moments,
    explained_variance,
    gae,
    k3,
    next_coefficient,
    token_rewards,
    whiten,
    with_scores,
)
from personalign.training.learner import Learner
from personalign.training.objectives import ppo_policy_loss, ppo_value_loss
from personalign.training.parallel import Processes
from personalign.training.roles import Roles, row_policy, row_values, through
from personalign.training.settings import PpoSettings
from personalign.trees import Row, Tree, pack, prompt_with_answers


@dataclass(frozen=True)
class Experience:
    """An iteration's answers, one tree a prompt, and of each tree what is known of its answers' tokens [tokens]."""

    trees: Sequence[Tree]
    old: Sequence[torch.Tensor]  # log-probabilities under the policy that wrote them
    values: Sequence[torch.Tensor]
    advantages: Sequence[torch.Tensor]
    returns: Sequence[torch.Tensor]


class Ppo:
    """What goes on from one iteration to the next: the KL coefficient, and mean and deviation of all scores so far.

    `prompts` are token ids, the assistant's turn opened; `end_ids` end an answer.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        roles: Roles,
        settings: PpoSettings,
        *,
        end_ids: Sequence[int],
        pad_id: int,
    ):
        self.model, self.prompts, self.roles, self.settings = model, prompts, roles, settings
        self.end_ids, self.pad_id = end_ids, pad_id
        self.coefficient, self.moments = settings.kl, Moments()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep, as plain numbers."""
        return {"coefficient": self.coefficient, "moments": list(self.moments)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.coefficient, self.moments = state["coefficient"], Moments(*state["moments"])

    def iteration(self, learner: Learner, processes: Processes) -> dict[str, float]:
        """Iteration number `learner.step`: sample, score, and steps of the groups "policy" and "value"; what to report.

        Several processes share the prompts to be answered and the rows to be scored and learned from.
        """
        model, settings, step = self.model, self.settings, learner.step
        started = time.monotonic()
        model.eval()
        prompts = [self.prompts[index] for index in draw(len(self.prompts), settings, step)]
        use_adapter(model, self.roles.policy)
        own = processes.share(range(len(prompts)))
        answers = rollouts(
            model,
            [prompts[index] for index in own],
            settings.answers,
            max_new_tokens=settings.max_new_tokens,
            end_ids=self.end_ids,
            pad_id=self.pad_id,
            seed=settings.seed * 1_000_003 + step,
            cache_tokens=settings.cache_tokens,
            numbers=own,
        )
        every = processes.union(dict(zip(own, answers, strict=True)))
        sampled = [every[index] for index in range(len(prompts))]
        seconds = time.monotonic() - started
        experience, metrics = self._experience(step, prompts, sampled, processes)
        if settings.gradient_checkpointing:
            model.train()  # transformers recomputes in no other mode
        if settings.kl_bound is not None and metrics["kl"] > settings.kl_bound:
            learner.stop(f"KL of whole answers {metrics['kl']:.1f}, over kl_bound {settings.kl_bound}")
        else:
            metrics |= self._improve(learner, experience, processes)
        if settings.kl_target is not None:
            self.coefficient = next_coefficient(
                self.coefficient, metrics["kl"], settings.kl_target, settings.kl_horizon
            )
        tokens = sum(len(answer.ids) for answers in sampled for answer in answers)
        learner.tokens += tokens
        return {name: round(value, 6) for name, value in metrics.items()} | {
            "rollout_tokens_per_second": round(tokens / seconds, 1),
            "tokens_per_second": round(tokens / (time.monotonic() - started), 1),
        }

    def _experience(
        self,
        step: int,
        prompts: Sequence[Sequence[int]],
        sampled: Sequence[Sequence[Rollout]],
        processes: Processes,
    ) -> tuple[Experience, dict[str, float]]:
        """Score the answers in every way the update needs; and the figures that describe them."""
        settings = self.settings
        trees = [
            prompt_with_answers(prompt, [answer.ids for answer in answers])
            for prompt, answers in zip(prompts, sampled, strict=True)
        ]
        answers = [answer for each in sampled for answer in each]
        lengths, ended = [len(answer.ids) for answer in answers], [answer.ended for answer in answers]
        own = processes.share(range(len(trees)))
        scored = processes.union(dict(zip(own, self.roles.scores([trees[index] for index in own]), strict=True)))
        scores = torch.tensor([score for index in range(len(trees)) for score in scored[index]], dtype=torch.float32)
        self.moments = with_scores(self.moments, scores.tolist())
        rewards = self.moments.normalised(scores, settings.normalise_reward)
        old, reference, values = self._columns(step, trees, processes)
        every = token_rewards(
            rewards, old, reference, lengths, ended,
            coefficient=self.coefficient, missing_end_penalty=settings.missing_end_penalty,
        )  # fmt: skip
        advantages, returns = gae(every, values, lengths, settings.gamma, settings.lam)
        used = whiten(advantages) if settings.whiten else advantages
        sizes = [sum(len(answer.ids) for answer in each) for each in sampled]
        kl = k3(old, reference)
        entropies = [entropy for answer in answers for entropy in answer.entropies]
        return Experience(trees, *(column.split(sizes) for column in (old, values, used, returns))), {
            "score": float(scores.mean()),
            "score_deviation": float(scores.std(correction=0)),
            "reward": float(rewards.mean()),
            "kl": float(kl.sum()) / len(answers),  # of a whole answer
            "kl_token": float(kl.mean()),
            "kl_coefficient": self.coefficient,
            "entropy": sum(entropies) / len(entropies),  # exact: of the distributions that the tokens were drawn from
            "length": sum(lengths) / len(lengths),
            "ended": sum(ended) / len(ended),
            "explained_variance": explained_variance(values, returns),
        }

    @torch.no_grad()
    def _columns(
        self, step: int, trees: Sequence[Tree], processes: Processes
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probabilities under policy and reference, and values, of all trees' tokens, tree after tree (on the CPU).

        In the rows of the update's first passes, where the same arithmetic makes the first ratios exactly 1.
        """
        model, roles = self.model, self.roles
        found: dict[int, tuple[torch.Tensor, ...]] = {}
        minibatches = self._minibatches(step, 0, len(trees))
        for row, indices in processes.share([each for members in minibatches for each in self._rows(trees, members)]):
            with through(model, roles.policy):
                old = row_policy(model, row)
            with through(model, roles.reference):
                reference = row_policy(model, row)
            with through(model, roles.value):
                values = row_values(model, row, roles.value_head)
            sizes = [sum(len(tree.nodes[node].ids) for node in tree.counted) for tree in row.trees]
            columns = [column.cpu().split(sizes) for column in (old, reference, values)]
            found |= dict(zip(indices, zip(*columns, strict=True), strict=True))
        found = processes.union(found)
        old, reference, values = (torch.cat([found[index][at] for index in range(len(trees))]) for at in range(3))
        return old, reference, values

    def _improve(self, learner: Learner, experience: Experience, processes: Processes) -> dict[str, float]:
        """Passes over the answers: for each minibatch a step of the policy, then of the value model; means to report.

        Where the policy has already moved further than `kl_stop` from the one that wrote the answers, no step follows.
        """
        settings, sums, updates = self.settings, Counter[str](), 0
        for epoch in range(settings.ppo_epochs):
            for members in self._minibatches(learner.step, epoch, len(experience.trees)):
                rows = self._rows(experience.trees, members)
                tokens = sum(len(row.target) for row, _ in rows)
                own = processes.share(rows)
                (moved,) = processes.add([self._policy_pass(learner, experience, own, tokens)])
                _require_number(learner, moved["policy_loss"])
                if settings.kl_stop is not None and moved["update_kl"] > settings.kl_stop:
                    learner.optimizers["policy"].zero_grad(set_to_none=True)
                    return _means(sums, updates)
                sums.update(moved | _apply(learner, "policy", processes))
                (valued,) = processes.add([self._value_pass(learner, experience, own, tokens)])
                _require_number(learner, valued["value_loss"])
                sums.update(valued | {"value_gradient_norm": _apply(learner, "value", processes)["gradient_norm"]})
                updates += 1
        return _means(sums, updates)

    def _policy_pass(
        self, learner: Learner, experience: Experience, rows: Sequence[tuple[Row, list[int]]], tokens: int
    ) -> dict[str, float]:
        """Gradients of the policy loss of some rows of a minibatch of so many tokens, and their part in its figures.

        These are the loss, the share of ratios that are cut, and the KL from the policy that wrote the answers.
        """
        sums, clip = {"policy_loss": 0.0, "clip_fraction": 0.0, "update_kl": 0.0}, self.settings.clip_policy
        for row, indices in rows:
            with through(self.model, self.roles.policy):
                logprobs = row_policy(self.model, row)
                old, advantages = (_of(c, indices).to(logprobs) for c in (experience.old, experience.advantages))
                loss = ppo_policy_loss(logprobs, old, advantages, clip, tokens)
                _backward(learner, loss)
            new = logprobs.detach()
            sums["policy_loss"] += float(loss.detach())
            sums["clip_fraction"] += float(((new - old).exp() - 1).abs().gt(clip).sum()) / tokens
            sums["update_kl"] += float(k3(old, new).sum()) / tokens
        return sums

    def _value_pass(
        self, learner: Learner, experience: Experience, rows: Sequence[tuple[Row, list[int]]], tokens: int
    ) -> dict[str, float]:
        """The same of the value loss."""
        total = 0.0
        for row, indices in rows:
            with through(self.model, self.roles.value):
                values = row_values(self.model, row, self.roles.value_head)
                old, returns = (_of(c, indices).to(values) for c in (experience.values, experience.returns))
                loss = ppo_value_loss(values, old, returns, self.settings.clip_value, tokens)
                _backward(learner, loss)
            total += float(loss.detach())
        return {"value_loss": total}

    def _minibatches(self, step: int, epoch: int, count: int) -> list[list[int]]:
        """Which trees make each optimiser step of a pass: a pure function of seed, step and pass."""
        order = np.random.default_rng([self.settings.seed % 2**63, step, epoch]).permutation(count).tolist()
        return [order[at : at + self.settings.minibatch] for at in range(0, count, self.settings.minibatch)]

    def _rows(self, trees: Sequence[Tree], members: Sequence[int]) -> list[tuple[Row, list[int]]]:
        """These trees as rows, and which of them each row holds, in its order."""
        rows = pack([trees[index] for index in members], self.settings.row_tokens)
        return [(row, [members[at] for at in dict.fromkeys(at for at, _ in row.answers)]) for row in rows]


def draw(count: int, settings: PpoSettings, step: int) -> list[int]:
    """Which of `count` prompts iteration `step` takes: pass after pass over all of them, each in an order of its own.

    A pure function of seed and step.
    """
    places = range(step * settings.batch, (step + 1) * settings.batch)
    orders = {
        each: np.random.default_rng([settings.seed % 2**63, each]).permutation(count)
        if settings.shuffle
        else range(count)
        for each in {place // count for place in places}
    }
    return [int(orders[place // count][place % count]) for place in places]


def _of(column: Sequence[torch.Tensor], indices: Sequence[int]) -> torch.Tensor:
    """The tokens of these trees, one after another."""
    return torch.cat([column[index] for index in indices])


def _backward(learner: Learner, loss: torch.Tensor) -> None:
    (learner.scaler.scale(loss) if learner.scaler is not None else loss).backward()  # type: ignore[no-untyped-call]


def _require_number(learner: Learner, loss: float) -> None:
    if not math.isfinite(loss):
        learner.refuse(loss)


def _apply(learner: Learner, group: str, processes: Processes) -> dict[str, float]:
    """A step of one group's optimiser by the gradients of all processes."""
    processes.add_gradients(list(learner.groups[group].values()))
    return learner.apply(group)


def _means(sums: Counter[str], updates: int) -> dict[str, float]:
    """Means over the updates (at least one: before the first the policy has not moved), and how many there were."""
    return {name: value / updates for name, value in sums.items()} | {"updates": updates}
