"""From scores of answers to advantages of tokens: PPO's arithmetic, without a model.

The tokens of several answers lie end to end in flat tensors [tokens]; `lengths` are the answers' numbers of tokens.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence


def k1(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """log policy - log reference of each sampled token [n]: unbiased for KL(policy || reference), of either sign."""
    return logprobs - reference


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """exp(d) - 1 - d with d = log reference - log policy of each sampled token [n]: unbiased for the same, never negative.

    Schulman, "Approximating KL divergence" (2020).
    """
    d = reference - logprobs
    return (torch.expm1(d) - d).clamp_min(0)  # rounding alone could take it below


def token_rewards(
    scores: torch.Tensor,
    logprobs: torch.Tensor,
    reference: torch.Tensor,
    lengths: Sequence[int],
    ended: Sequence[bool],
    *,
    coefficient: float,
    missing_end_penalty: float = 0.0,
) -> torch.Tensor:
    """Reward of each token [tokens]: -coefficient * k1, and on an answer's last token its score as well.

    `scores` is [answers], `logprobs` and `reference` are [tokens] (Ziegler et al. 2019, eq. 2). An answer that did not
    end with an end token loses `missing_end_penalty` there.
    """
    rewards = -coefficient * k1(logprobs, reference)
    last = torch.tensor(lengths, device=rewards.device).cumsum(0) - 1
    missing = 1 - torch.tensor(ended, device=rewards.device).to(scores)
    return rewards.index_add(0, last, (scores - missing_end_penalty * missing).to(rewards))


def gae(
    rewards: torch.Tensor, values: torch.Tensor, lengths: Sequence[int], gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns [tokens] from rewards and values [tokens], each answer by itself (Schulman et al. 2016).

    values[t] is that of the state before token t; after the last token nothing follows, and its value is 0:
    A[t] = r[t] + gamma V[t+1] - V[t] + gamma lam A[t+1], and the return is A[t] + V[t].
    """
    r, v = (pad_sequence(list(x.split(list(lengths))), batch_first=True) for x in (rewards, values))  # zeros at the end
    deltas = r + gamma * torch.cat([v[:, 1:], torch.zeros_like(v[:, :1])], 1) - v
    advantages = torch.zeros_like(deltas)
    following = torch.zeros_like(deltas[:, 0])
    for t in reversed(range(deltas.shape[1])):
        following = advantages[:, t] = deltas[:, t] + gamma * lam * following
    kept = torch.arange(deltas.shape[1])[None] < torch.tensor(lengths)[:, None]
    found = advantages[kept.to(advantages.device)]
    return found, found + values


def whiten(values: torch.Tensor) -> torch.Tensor:
    """Values [n] with mean 0 and variance 1; all zeros where they are (nearly) all the same, rather than noise blown up."""
    if len(values) < 2:
        return torch.zeros_like(values)
    centred = values - values.mean()
    deviation = centred.square().mean().sqrt()
    if deviation <= 1e-6 * values.abs().max():
        return torch.zeros_like(values)
    return centred / deviation


class Moments(NamedTuple):
    """How many numbers there were, their mean, and the sum of squared distances from it (Welford 1962)."""

    number: float = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation; 1 where the numbers do not differ, so that one may divide by it."""
        found = (self.squares / self.number) ** 0.5 if self.number else 0.0
        return found if found > 1e-6 * abs(self.mean) else 1.0

    def normalised(self, scores: torch.Tensor, how: Literal["off", "scale", "standardise"]) -> torch.Tensor:
        """Scores [n] as they are, over the deviation (scale), or less the mean over the deviation (standardise)."""
        if how == "off":
            return scores
        return (scores - (self.mean if how == "standardise" else 0.0)) / self.deviation


def with_scores(moments: Moments, scores: Sequence[float]) -> Moments:
    """The moments of what there was before together with these scores."""
    number, mean, squares = moments
    for score in scores:
        number += 1
        distance = score - mean
        mean += distance / number
        squares += distance * (score - mean)
    return Moments(number, mean, squares)


def next_coefficient(coefficient: float, kl: float, target: float, horizon: float) -> float:
    """The KL coefficient of the next iteration: higher where `kl` was over `target`, lower where under.

    coefficient * (1 + e / horizon) with e = kl / target - 1 cut to +-0.2 (Ziegler et al. 2019, section 2.2, where the
    horizon is 10 iterations).
    """
    return coefficient * (1 + min(max(kl / target - 1, -0.2), 0.2) / horizon)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over all tokens [n]; 0 where the returns do not differ."""
    spread = float(returns.var(correction=0))
    return 1 - float((returns - values).var(correction=0)) / spread if spread > 0 else 0.0
