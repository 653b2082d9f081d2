"""Losses: pure functions over log-probabilities. A faster path may change how those are made, never these formulas."""

import math
from typing import Literal

import torch
from torch.nn.functional import logsigmoid, relu


def sft_loss(logprobs: torch.Tensor, tokens: int) -> torch.Tensor:
    """Negative log-likelihood of the counted tokens [n], summed, over the `tokens` of the whole optimiser step.

    Dividing by the step's tokens and not by the row's keeps every token's weight the same however the step is packed.
    """
    return -logprobs.sum() / tokens


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float,
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid",
    label_smoothing: float = 0.0,
    lengths: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Loss of each pair [n] from summed log-probabilities [n] of its answers under policy and reference.

    sigmoid: -(1 - e) log s(h) - e log s(-h) with h = beta (log-ratio of chosen - log-ratio of rejected), Rafailov et al.
    2023, eq. 7, with e = label_smoothing (Mitchell 2023); hinge: max(0, 1 - h) (Zhao et al. 2023); ipo: (m - 1/(2 beta))^2
    with m the difference of the log-ratios *a token* (Azar et al. 2023, averaged over `lengths` as TRL does).
    """
    up, down = chosen - reference_chosen, rejected - reference_rejected
    if loss == "ipo":
        if lengths is None:
            raise ValueError("ipo averages over tokens: it needs the answers' lengths")
        return (up / lengths[0] - down / lengths[1] - 1 / (2 * beta)) ** 2
    h = beta * (up - down)
    if loss == "hinge":
        return relu(1 - h)
    return -(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)


def reward_loss(rewards: torch.Tensor, *, centering: float = 0.0) -> torch.Tensor:
    """Loss of one group of answers to a prompt from their rewards [k], k >= 2, the best answer first.

    Mean of -log s(r_i - r_j) over the k(k-1)/2 pairs, i better than j (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1), so
    that a group counts once however many answers it has. `centering` adds that many times the mean of (r_i + r_j)^2, which
    holds rewards near zero: the first term leaves their sum open (Eisenstein et al. 2023).
    """
    better, worse = torch.triu_indices(len(rewards), len(rewards), 1, device=rewards.device)
    if not len(better):
        raise ValueError("a group needs at least two answers: one alone is better than none")
    loss = -logsigmoid(rewards[better] - rewards[worse]).mean()
    return loss + centering * (rewards[better] + rewards[worse]).square().mean() if centering else loss


def ppo_policy_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, clip: float, tokens: int
) -> torch.Tensor:
    """PPO's clipped loss of sampled tokens [n], summed, over the `tokens` of the whole optimiser step.

    -min(ratio A, cut(ratio, 1 - clip, 1 + clip) A) with ratio = policy / old policy (Schulman et al. 2017, eq. 7).
    """
    ratio = (logprobs - old_logprobs).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).sum() / tokens


def ppo_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip: float, tokens: int
) -> torch.Tensor:
    """Half the squared error of the values before tokens [n], summed, over the `tokens` of the whole optimiser step.

    Each the larger of its own and that of the value cut to within `clip` of the old one, as in OpenAI's PPO2.
    """
    cut = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (cut - returns).square()).sum() / tokens


def learning_rate_factor(step: int, steps: int, warmup: float, schedule: str) -> float:
    """Share of the peak learning rate at optimiser step `step` (from 0) of `steps`: a pure function, so resume needs no state."""
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done
