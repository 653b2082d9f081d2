"""Sampled answers come from the model's own distribution, and each from random numbers of its own."""

from functools import cache

import pytest
import torch
from scipy import stats

from padded import VOCABULARY, adapted
from personalign.models import adapter_disabled, rollout
from personalign.models.rollout import rollouts
from personalign.trees import logprobs, prompt_with_answers
from tiny import ARCHITECTURES, tiny_model

models = cache(lambda architecture: adapted(architecture, fused=True))
ENDS = list(range(5, 15))


def prompts() -> list[list[int]]:
    """Of different lengths; some longer than a sliding window of 8."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in (3, 17, 9, 25, 12)]


def sample(model, given=None, k: int = 3, **options):
    return rollouts(
        model,
        prompts() if given is None else given,
        k,
        **({"max_new_tokens": 20, "end_ids": ENDS, "pad_id": 0, "seed": 3, "cache_tokens": 10**6} | options),
    )


def ids(found) -> list[list[list[int]]]:
    return [[answer.ids for answer in answers] for answers in found]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probabilities_are_those_of_the_tree(architecture):
    """What a token was drawn with is what training will say of it: caches, windows, padding and positions are right."""
    model = models(architecture)
    found = sample(model)
    trees = [
        prompt_with_answers(prompt, [answer.ids for answer in answers])
        for prompt, answers in zip(prompts(), found, strict=True)
    ]
    for answers, scored in zip(found, logprobs(model, trees), strict=True):
        for answer, values in zip(answers, scored, strict=True):
            torch.testing.assert_close(torch.tensor(answer.logprobs), values, rtol=0, atol=1e-4)
    lengths = {len(answer.ids) for answers in found for answer in answers}
    assert len(lengths) > 2  # some have left the batch while others went on


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_answer_does_not_depend_on_its_company(architecture):
    """One prompt after another or all at once, alone or with siblings, before and after others have left the batch."""
    model = models(architecture)
    together = ids(sample(model))
    assert ids(sample(model, cache_tokens=1)) == together
    assert [[answers[0]] for answers in together] == ids(sample(model, k=1))
    assert ids(sample(model, prompts()[:2])) == together[:2]
    shorter = ids(sample(model, max_new_tokens=4))
    assert shorter == [[answer[:4] for answer in answers] for answers in together]


def test_answers_are_the_seeds():
    model = models("llama")
    assert ids(sample(model)) == ids(sample(model))
    assert ids(sample(model)) != ids(sample(model, seed=4))
    torch.manual_seed(1)  # nothing is drawn from the state that others share
    before = torch.get_rng_state()
    sample(model)
    assert torch.equal(torch.get_rng_state(), before)
    same = sample(model, [prompts()[0]] * 2, k=4)
    assert len({tuple(answer.ids) for answers in same for answer in answers}) == 8  # one prompt twice: eight answers


def test_answers_end_with_an_end_token_or_are_cut_off():
    answers = [answer for each in sample(models("llama"), k=8) for answer in each]
    assert {answer.ended for answer in answers} == {True, False}
    for answer in answers:
        assert (answer.ids[-1] in ENDS) == answer.ended
        assert not set(answer.ids[:-1]) & set(ENDS)
        assert len(answer.ids) == 20 or answer.ended
        assert len(answer.ids) == len(answer.logprobs) == len(answer.entropies)


def test_the_first_token_is_drawn_from_the_softmax():
    """A chi-square test over 4000 draws from a vocabulary of 12; a temperature of 1.3 would fail it."""
    model = tiny_model("llama", 12)
    prompt = [1, 2, 3]
    drawn = rollouts(model, [prompt], 4000, max_new_tokens=1, end_ids=[0], pad_id=0, cache_tokens=10**6)[0]
    counts = torch.bincount(torch.tensor([answer.ids[0] for answer in drawn]), minlength=12)
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1].double()

    def chance(temperature: float) -> float:
        expected = (logits / temperature).softmax(-1) * 4000
        common = expected >= 5
        seen, awaited = (torch.cat([x[common].double(), x[~common].sum()[None].double()]) for x in (counts, expected))
        return float(stats.chisquare(seen.numpy(), awaited.numpy()).pvalue)

    assert chance(1.0) > 0.01
    assert chance(1.3) < 1e-6
    exact = -(logits.softmax(-1) * logits.log_softmax(-1)).sum()
    assert drawn[0].entropies[0] == pytest.approx(float(exact), abs=1e-4)


@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0, 0.0], [3.0, float("-inf"), 3.0, float("-inf")]])
def test_draws_fall_where_the_probabilities_sum_up_to_them(logits):
    """At the very ends and on the borders; a token of probability 0 is never drawn."""
    draws = torch.tensor([0.0, 0.25, 0.4999, 0.5, 0.75, 1 - 2**-53], dtype=torch.float64)
    tokens, chosen, entropies = rollout._draw(torch.tensor([logits] * 6), draws, 1.0)
    even = logits[1] == 0.0
    assert tokens.tolist() == ([0, 1, 1, 2, 3, 3] if even else [0, 0, 0, 2, 2, 2])
    torch.testing.assert_close(chosen.exp(), torch.full((6,), 0.25 if even else 0.5))
    torch.testing.assert_close(entropies.exp(), torch.full((6,), 4.0 if even else 2.0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_those_of_generate(architecture):
    model = models(architecture)
    for prompt, answers in zip(prompts(), sample(model, k=1, temperature=0.0), strict=True):
        plain = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=ENDS,
            pad_token_id=0,
        )
        assert answers[0].ids == plain[0, len(prompt) :].tolist()


def test_the_active_adapter_answers_in_eval_mode_and_the_mode_is_left_as_it_was():
    model = models("llama")
    model.train()
    try:
        adapter = ids(sample(model))
        assert model.training
        with adapter_disabled(model):
            assert ids(sample(model)) != adapter
    finally:
        model.eval()
    assert ids(sample(model)) == adapter


def test_the_cache_stays_within_its_budget(monkeypatch):
    """Tokens under way, of prompts and answers, whenever more than one prompt runs."""
    sizes = []
    plain = rollout._answers

    def noted(model, given, k, draws, *rest):
        sizes.append((len(given), k * len(given) * (max(map(len, given)) + draws.shape[1])))
        return plain(model, given, k, draws, *rest)

    monkeypatch.setattr(rollout, "_answers", noted)
    sample(models("llama"), cache_tokens=200)
    assert sum(count for count, _ in sizes) == 5 and any(count > 1 for count, _ in sizes)
    assert all(tokens <= 200 or count == 1 for count, tokens in sizes)


def test_no_prompts_no_answers():
    assert sample(models("llama"), []) == []
