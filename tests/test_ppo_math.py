"""PPO's arithmetic, each formula against a plain loop over tokens on drawn numbers."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.training.advantages import (
    Moments,
    explained_variance,
    gae,
    k1,
    k3,
    next_coefficient,
    token_rewards,
    whiten,
    with_scores,
)
from personalign.training.objectives import ppo_policy_loss, ppo_value_loss

drawn = settings(max_examples=60, derandomize=True, deadline=None, database=None)
numbers = st.floats(-4, 4, width=32)
answers = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=9), min_size=1, max_size=6)
tokens = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=20)


def flat(lists) -> torch.Tensor:
    return torch.tensor([value for each in lists for value in each], dtype=torch.float64)


def column(rows, at: int) -> torch.Tensor:
    return torch.tensor([row[at] for row in rows], dtype=torch.float64)


@drawn
@given(answers, st.floats(0.5, 1), st.floats(0, 1))
def test_gae_equals_its_recursion_answer_by_answer(found, gamma, lam):
    advantages, returns = gae(
        flat([r for r, _ in answer] for answer in found),
        flat([v for _, v in answer] for answer in found),
        list(map(len, found)),
        gamma,
        lam,
    )
    expected = []
    for answer in found:
        following, value_after, backwards = 0.0, 0.0, []
        for reward, value in reversed(answer):
            following = reward + gamma * value_after - value + gamma * lam * following
            value_after = value
            backwards.append(following)
        expected += backwards[::-1]
    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(returns, advantages + column([row for answer in found for row in answer], 1))


@drawn
@given(answers)
def test_with_lambda_1_and_no_discount_the_return_is_the_sum_of_what_is_still_to_come(found):
    rewards, values = (flat([row[at] for row in answer] for answer in found) for at in (0, 1))
    _, returns = gae(rewards, values, list(map(len, found)), 1.0, 1.0)
    to_come = [sum(reward for reward, _ in answer[at:]) for answer in found for at in range(len(answer))]
    torch.testing.assert_close(returns, torch.tensor(to_come, dtype=torch.float64))


@drawn
@given(tokens, st.floats(0.05, 0.5))
def test_the_policy_loss_equals_a_loop_over_tokens(found, clip):
    expected = 0.0
    for new, old, advantage in found:
        ratio = math.exp(new - old)
        expected -= min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)
    loss = ppo_policy_loss(column(found, 0), column(found, 1), column(found, 2), clip, 7)
    assert float(loss) == pytest.approx(expected / 7, rel=1e-6, abs=1e-9)


@drawn
@given(tokens, st.floats(0.05, 0.5))
def test_the_value_loss_equals_a_loop_over_tokens(found, clip):
    expected = 0.0
    for value, old, target in found:
        cut = min(max(value, old - clip), old + clip)
        expected += 0.5 * max((value - target) ** 2, (cut - target) ** 2)
    loss = ppo_value_loss(column(found, 0), column(found, 1), column(found, 2), clip, 7)
    assert float(loss) == pytest.approx(expected / 7, rel=1e-6, abs=1e-9)


def test_beyond_the_clip_a_token_pulls_no_further_and_always_back():
    """The gradient at ratio 1.5 under a clip of .2: none where it was to rise, all of it where it was to fall."""
    for advantage, slope in ((1.0, 0.0), (-1.0, 1.5)):
        new = torch.tensor([math.log(1.5)], requires_grad=True)
        ppo_policy_loss(new, torch.zeros(1), torch.tensor([advantage]), 0.2, 1).backward()
        assert float(new.grad) == pytest.approx(slope)


def test_losses_do_not_depend_on_how_a_step_is_cut_into_rows():
    new, old, advantages = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    for loss in (ppo_policy_loss, ppo_value_loss):
        whole = loss(new, old, advantages, 0.2, 12)
        parts = sum(loss(new[part], old[part], advantages[part], 0.2, 12) for part in (slice(5), slice(5, 12)))
        torch.testing.assert_close(parts, whole)


@drawn
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_both_kl_estimators_have_the_kl_as_their_mean_and_k3_is_never_negative(weights, random):
    """The mean over the policy's own distribution, summed out exactly."""
    policy = torch.tensor(weights, dtype=torch.float64)
    reference = torch.tensor([random.uniform(0.01, 1) for _ in weights], dtype=torch.float64)
    policy, reference = policy / policy.sum(), reference / reference.sum()
    exact = (policy * (policy / reference).log()).sum()
    torch.testing.assert_close((policy * k1(policy.log(), reference.log())).sum(), exact)
    torch.testing.assert_close((policy * k3(policy.log(), reference.log())).sum(), exact)
    assert (k3(policy.log(), reference.log()) >= 0).all()
    assert (k3(policy.log().float(), policy.log().float() + 1e-7) >= 0).all()  # nor by rounding
    assert (k3(policy.log(), policy.log()) == 0).all()


@drawn
@given(answers, st.floats(0, 1), st.floats(0, 3))
def test_token_rewards_are_the_kl_penalty_and_the_score_at_the_end(found, coefficient, penalty):
    scores = [float(at) for at in range(len(found))]
    ended = [at % 2 == 0 for at in range(len(found))]
    rewards = token_rewards(
        torch.tensor(scores),
        flat([row[0] for row in answer] for answer in found),
        flat([row[1] for row in answer] for answer in found),
        list(map(len, found)),
        ended,
        coefficient=coefficient,
        missing_end_penalty=penalty,
    )
    expected = []
    for answer, score, end in zip(found, scores, ended, strict=True):
        own = [-coefficient * (policy - reference) for policy, reference in answer]
        own[-1] += score - (0 if end else penalty)
        expected += own
    torch.testing.assert_close(rewards, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@drawn
@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=30))
def test_whitening_gives_mean_0_and_variance_1_or_nothing_at_all(values):
    found = whiten(torch.tensor(values, dtype=torch.float64))
    if statistics.pstdev(values) > 1e-5 * max(map(abs, values)):
        assert float(found.mean()) == pytest.approx(0, abs=1e-6)
        assert float(found.var(correction=0)) == pytest.approx(1, rel=1e-6)
    elif len(set(values)) == 1:
        assert (found == 0).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e4])
def test_equal_values_are_not_blown_up_to_noise(value):
    """1000 equal numbers have a mean that is a rounding error off."""
    assert (whiten(torch.full((1000,), value)) == 0).all()
    moments = with_scores(Moments(), [value] * 1000)
    assert moments.deviation == 1
    assert (moments.normalised(torch.full((3,), value), "standardise").abs() < 1e-8 * max(1, abs(value))).all()


@drawn
@given(st.lists(st.lists(st.floats(-50, 50, width=32), max_size=6), min_size=1, max_size=6))
def test_running_moments_equal_those_of_all_scores_at_once(batches):
    moments = Moments()
    for batch in batches:
        moments = with_scores(Moments(*list(moments)), batch)  # as from a checkpoint
    scores = [score for batch in batches for score in batch]
    assert moments.number == len(scores)
    if scores and statistics.pstdev(scores) > 1e-3:
        deviation = statistics.pstdev(scores)
        assert moments.mean == pytest.approx(statistics.fmean(scores), abs=1e-9)
        assert moments.deviation == pytest.approx(deviation)
        some = torch.tensor(scores, dtype=torch.float64)
        torch.testing.assert_close(moments.normalised(some, "scale"), some / deviation)
        torch.testing.assert_close(moments.normalised(some, "standardise"), (some - some.mean()) / deviation)
        assert torch.equal(moments.normalised(some, "off"), some)


@drawn
@given(st.floats(0.001, 1), st.floats(0, 100), st.floats(0.1, 20))
def test_the_kl_coefficient_goes_towards_the_target_in_small_steps(coefficient, kl, target):
    found = next_coefficient(coefficient, kl, target, 10)
    error = min(0.2, max(-0.2, (kl - target) / target))
    assert found == pytest.approx(coefficient * (1 + error / 10))
    assert abs(found / coefficient - 1) <= 0.02 + 1e-9
    assert (found > coefficient) == (error > 1e-12) or abs(error) < 1e-9


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 4.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.zeros(3), returns) == 0  # no better than no values at all
    assert explained_variance(-returns, returns) < 0
    assert explained_variance(returns, torch.ones(3)) == 0  # nothing to explain
