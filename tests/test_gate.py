"""The gate before PPO: what a reward model must show on held-out pairs, and what it must not be mistaken for."""

import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from personalign.errors import UserError
from personalign.evaluation.gate import gate_rows, read_gate, require_gate, reward_gate, write_gate
from personalign.evaluation.gate_report import gate_figure, gate_table
from personalign.statistics import calibration_error, pearson, spearman


def drawn(reward, pairs=200, seed=0, longer=0.5):
    """Held-out pairs, two of each prompt, chosen the longer one in that share; `reward(quality, tokens, noise)` scores.

    Quality is 1 for chosen and 0 for rejected answers, noise is normal.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for at in range(pairs):
        short, long = sorted(int(length) for length in generator.choice(np.arange(20, 80), 2, replace=False))
        tokens = (long, short) if generator.random() < longer else (short, long)
        chosen, rejected = (reward(1 - side, tokens[side], generator.normal()) for side in (0, 1))
        row = {"prompt": f"q{at // 2}", "chosen": chosen, "rejected": rejected}
        rows.append(row | {"chosen_tokens": tokens[0], "rejected_tokens": tokens[1]})
    return rows


def good(quality, tokens, noise):
    return 2 * quality + noise


def length(quality, tokens, noise):
    return 0.125 * tokens


def shortness(quality, tokens, noise):
    return -0.125 * tokens


def chance(quality, tokens, noise):
    return noise


# The verdict


@pytest.mark.parametrize("longer", [0.3, 0.5, 0.7])
def test_good_rewards_that_do_not_look_at_length_pass(longer):
    gate = reward_gate(drawn(good, longer=longer))
    assert gate["passes"] and gate["difference"]["low"] > 0
    assert gate["accuracy"]["low"] > 0.85
    assert abs(gate["correlation"]["pearson"]) < (0.15 if longer == 0.5 else 0.5)
    assert gate["matched"]["low"] > 0.5


@pytest.mark.parametrize("reward", [length, shortness])
@pytest.mark.parametrize("longer", [0.1, 0.5, 0.9])
def test_a_reward_that_is_length_fails_whichever_way_the_data_lean(reward, longer):
    """A model that has learned "the shorter one" of data whose chosen answers are short is no better than its opposite."""
    gate = reward_gate(drawn(reward, longer=longer))
    assert not gate["passes"] and gate["difference"]["value"] <= 0
    assert abs(gate["correlation"]["pearson"]) == pytest.approx(1)
    assert abs(gate["correlation"]["within_spearman"]) == pytest.approx(1)
    assert abs(gate["slope"]["value"]) == pytest.approx(0.125)
    assert gate["length"]["rule"] == ("longer" if longer >= 0.5 else "shorter")


@pytest.mark.parametrize("seed", range(5))
def test_random_rewards_fail(seed):
    gate = reward_gate(drawn(chance, seed=seed), seed=seed)
    assert not gate["passes"] and "not certainly better than a coin" in gate["why"]


def test_good_rewards_fail_where_length_alone_would_do():
    """All chosen answers are the longer ones: such pairs cannot tell the two apart."""
    gate = reward_gate(drawn(good, longer=1.0))
    assert gate["accuracy"]["low"] > 0.8 and not gate["passes"]
    assert "the rule that the longer answer wins 1.000: the difference of" in gate["why"]


def test_a_constant_reward_fails_since_a_tie_is_no_success():
    gate = reward_gate(drawn(lambda *_: 3.0))
    assert gate["accuracy"]["value"] == 0 and not gate["passes"]
    assert gate["correlation"]["pearson"] is None and gate["calibration"]["ece"] == 0  # it claims one half, and has it


def test_few_prompts_pass_nothing():
    rows = [row | {"prompt": str(at % 9)} for at, row in enumerate(drawn(good))]
    gate = reward_gate(rows)
    assert gate["prompts"] == 9 and not gate["passes"] and "only 9 held-out prompts, and 10 are needed" in gate["why"]
    assert reward_gate([row | {"prompt": str(at % 10)} for at, row in enumerate(rows)])["passes"]
    alone = reward_gate(rows[:1])  # nothing to draw from, and still an answer
    assert not alone["passes"] and alone["difference"]["low"] is None and gate_table(alone) and gate_figure(alone)


def test_better_than_the_length_rule_is_not_enough_where_a_coin_may_do_as_well():
    """Twenty-five of forty right, the rule's twenty among them: surely better than the rule, not surely than a coin."""
    rows = [pair_of(*((2, 1) if at < 20 else (1, 2)), right=at < 25, at=at) for at in range(40)]
    gate = reward_gate(rows)
    assert gate["difference"]["low"] > 0 and gate["accuracy"]["low"] < 0.5
    assert not gate["passes"] and "not certainly better than a coin" in gate["why"]


def test_answers_of_equal_length_are_a_coin_to_the_length_rule():
    rows = [row | {"chosen_tokens": 30, "rejected_tokens": 30} for row in drawn(good)]
    gate = reward_gate(rows)
    assert gate["length"]["longer"]["value"] == 0.5 and gate["passes"]
    assert gate["slope"] == {"value": None, "low": None, "high": None}
    assert gate["matched"]["n"] == len(rows)


def test_pairs_of_one_prompt_are_drawn_together():
    """Two hundred copies of twelve prompts say no more than the twelve."""
    rows = drawn(lambda quality, tokens, noise: 0.6 * quality + noise, pairs=12)
    copies = [row | {"prompt": str(at)} for at, row in enumerate(rows) for _ in range(20)]
    once = reward_gate([row | {"prompt": str(at)} for at, row in enumerate(rows)])
    again = reward_gate(copies)
    for name in ("accuracy", "difference", "slope"):
        assert again[name] == pytest.approx(once[name])
    apart = reward_gate([row | {"prompt": str(at)} for at, row in enumerate(copies)])
    assert apart["accuracy"]["high"] - apart["accuracy"]["low"] < 0.5 * (
        once["accuracy"]["high"] - once["accuracy"]["low"]
    )


# The numbers


def test_a_rankings_pairs_are_all_of_them_the_better_answer_chosen():
    rows = gate_rows("q", [3.0, 2.0, 2.5], [10, 20, 30])
    assert [(row["chosen"], row["rejected"]) for row in rows] == [(3.0, 2.0), (3.0, 2.5), (2.0, 2.5)]
    assert [(row["chosen_tokens"], row["rejected_tokens"]) for row in rows] == [(10, 20), (10, 30), (20, 30)]
    assert {row["prompt"] for row in rows} == {"q"}


def test_correlations_and_the_slope_are_scipys():
    rows = drawn(lambda quality, tokens, noise: quality + 0.03 * tokens + 0.5 * noise, longer=0.7)
    tokens = np.array([[row["chosen_tokens"], row["rejected_tokens"]] for row in rows], dtype=float)
    rewards = np.array([[row["chosen"], row["rejected"]] for row in rows])
    gate = reward_gate(rows)
    found = gate["correlation"]
    assert found["pearson"] == pytest.approx(stats.pearsonr(tokens.ravel(), rewards.ravel())[0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(tokens.ravel(), rewards.ravel())[0])
    centred = [(each - each.mean(axis=1, keepdims=True)).ravel() for each in (tokens, rewards)]
    assert found["within_pearson"] == pytest.approx(stats.pearsonr(*centred)[0])
    assert found["within_spearman"] == pytest.approx(stats.spearmanr(*centred)[0])
    assert gate["slope"]["value"] == pytest.approx(stats.linregress(*centred).slope)
    assert gate["rewards"] == pytest.approx(
        {
            "mean": rewards.mean(),
            "std": rewards.std(ddof=1),
            "chosen": rewards[:, 0].mean(),
            "rejected": rewards[:, 1].mean(),
        }
    )


def test_what_a_prompt_adds_to_all_its_answers_is_not_in_the_slope():
    rows = drawn(lambda quality, tokens, noise: 0.05 * tokens)
    shifted = [row | {"chosen": row["chosen"] + at, "rejected": row["rejected"] + at} for at, row in enumerate(rows)]
    gate = reward_gate(shifted)
    assert gate["slope"] == pytest.approx({"value": 0.05, "low": 0.05, "high": 0.05})
    assert gate["correlation"]["within_pearson"] == pytest.approx(1) and gate["correlation"]["pearson"] < 0.2


def test_the_interval_of_the_slope_holds_the_true_one():
    gate = reward_gate(drawn(lambda quality, tokens, noise: 0.02 * tokens + noise))
    assert gate["slope"]["low"] < 0.02 < gate["slope"]["high"] and gate["slope"]["low"] > 0


def pair_of(chosen_tokens, rejected_tokens, right, at):
    rewards = {"chosen": 1.0, "rejected": 0.0} if right else {"chosen": 0.0, "rejected": 1.0}
    return rewards | {"prompt": str(at), "chosen_tokens": chosen_tokens, "rejected_tokens": rejected_tokens}


def test_matched_pairs_differ_by_a_tenth_of_the_longer_answer():
    near = [pair_of(100, 90, at % 2 == 0, at) for at in range(30)]  # exactly a tenth
    far = [pair_of(100, 89, True, at) for at in range(30, 90)]
    matched = reward_gate(near + far)["matched"]
    assert (matched["k"], matched["n"], matched["rate"], matched["within"]) == (15, 30, 0.5, 0.1)
    assert (matched["low"], matched["high"]) == pytest.approx((0.3315, 0.6685), abs=1e-4)  # Wilson


def test_where_few_pairs_match_the_nearest_quarter_is_taken():
    rows = [pair_of(100 + at, 50, at < 10, at) for at in range(40)]
    matched = reward_gate(rows)["matched"]
    assert (matched["k"], matched["n"], matched["within"]) == (10, 10, pytest.approx(59 / 109))
    matched = reward_gate(rows[:20] + [pair_of(100, 100, True, f"n{at}") for at in range(19)])["matched"]
    assert (matched["n"], matched["within"]) == (19, 0.1)  # nineteen match, which is more than a quarter


def test_the_calibration_error_is_that_computed_by_hand():
    """Margins of log 3 (confidence 3/4), three of four right: calibrated; of log 9 (9/10), half right: off by .4."""
    rewards = [math.log(3)] * 3 + [-math.log(3)] + [math.log(9), -math.log(9)]
    rows = [
        {"prompt": str(at), "chosen": each, "rejected": 0.0, "chosen_tokens": 3, "rejected_tokens": 4}
        for at, each in enumerate(rewards)
    ]
    found = reward_gate(rows)["calibration"]
    assert found["ece"] == pytest.approx(2 / 6 * 0.4)
    assert [(each["n"], each["accuracy"]) for each in found["bins"]] == [(4, 0.75), (2, 0.5)]
    assert [each["confidence"] for each in found["bins"]] == pytest.approx([0.75, 0.9])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(1, 99), st.integers(1, 99)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_the_pairs_the_numbers_keep_their_bounds(tuples):
    fields = ("prompt", "chosen", "rejected", "chosen_tokens", "rejected_tokens")
    gate = reward_gate([dict(zip(fields, each, strict=True)) for each in tuples])
    assert json.loads(json.dumps(gate, allow_nan=False)) == gate
    shares = [gate["accuracy"], gate["length"]["longer"], gate["length"]["accuracy"]]
    for each in [*shares, gate["difference"]]:
        assert (0 if each is not gate["difference"] else -1) <= each["value"] <= 1
        if each["low"] is not None:
            assert -1 <= each["low"] <= each["value"] <= each["high"] <= 1
    assert gate["length"]["accuracy"]["value"] >= 0.5
    assert gate["difference"]["value"] == pytest.approx(shares[0]["value"] - shares[2]["value"])
    assert all(each is None or -1 <= each <= 1 for each in gate["correlation"].values())
    assert 0 <= gate["calibration"]["ece"] <= 1
    assert sum(each["n"] for each in gate["calibration"]["bins"]) == gate["pairs"] == len(tuples)
    assert min(len(tuples), math.ceil(len(tuples) / 4)) <= gate["matched"]["n"] <= len(tuples)
    if gate["passes"]:
        assert gate["accuracy"]["low"] > 0.5 and gate["difference"]["low"] > 0 and gate["prompts"] >= 10


def test_without_pairs_or_with_a_reward_that_is_no_number_there_is_no_verdict():
    with pytest.raises(UserError, match="there are none; set data.held_out"):
        reward_gate([])
    rows = drawn(good, pairs=20)
    for bad in (math.nan, math.inf):
        with pytest.raises(UserError, match="no finite number"):
            reward_gate([*rows, rows[0] | {"chosen": bad}])


# What is written, and what is required


def test_what_is_written_is_read_again(tmp_path):
    gate = reward_gate(drawn(good))
    write_gate(tmp_path / "reward", gate)
    assert read_gate(tmp_path / "reward") == gate | {"weights": "missing"}
    assert {path.name for path in (tmp_path / "reward").iterdir()} == {"gate.json", "gate.md", "gate.svg"}
    assert read_gate(tmp_path) is None
    assert require_gate(tmp_path / "reward") == gate | {"weights": "missing"}


def test_ppo_is_refused_with_both_accuracies_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match="has not been judged .*--ignore-gate"):
        require_gate(tmp_path)
    assert require_gate(tmp_path, ignore=True) is None
    gate = reward_gate(drawn(length, longer=0.7))
    write_gate(tmp_path, gate)
    with pytest.raises(UserError, match="--ignore-gate") as error:
        require_gate(tmp_path)
    shares = [f"{gate[name]['value']:.3f}" for name in ("accuracy",)] + [f"{gate['length']['accuracy']['value']:.3f}"]
    assert all(share in str(error.value) for share in shares) and str(tmp_path) in str(error.value)
    assert require_gate(tmp_path, ignore=True) == gate | {"weights": "missing"}


def test_a_verdict_holds_for_the_weights_that_were_judged(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"judged")
    write_gate(tmp_path, reward_gate(drawn(good)))
    assert require_gate(tmp_path)["passes"]
    (tmp_path / "adapter_model.safetensors").write_bytes(b"another")
    with pytest.raises(UserError, match="gate.json: this verdict is on other weights"):
        require_gate(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"passes": true}'])
def test_a_file_that_is_no_verdict_is_named(tmp_path, text):
    (tmp_path / "gate.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="gate.json: .*judge"):
        require_gate(tmp_path)


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("reward", [good, length, chance])
def test_the_table_is_in_both_languages(reward, language):
    gate = reward_gate(drawn(reward))
    text = gate_table(gate, language)
    verdict = {"en": ("Does not pass", "Passes"), "ko": ("통과하지 못함", "통과")}[language][gate["passes"]]
    assert text.startswith(f"**{verdict}**: ") and "{" not in text
    assert text.count("\n|") == 12 and f"{gate['accuracy']['value']:.3f}" in text
    assert bool(re.search("[가-힣]", text)) == (language == "ko")


@pytest.mark.parametrize("width", [328, 760])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_figure_shows_every_bin_and_every_answer(language, width):
    gate = reward_gate(drawn(good, pairs=60))
    drawing = gate_figure(gate, language, width)
    root = ElementTree.fromstring(drawing)
    assert float(root.attrib["width"]) == width
    title = {"en": "Does it reward length?", "ko": "길이에 보상하는가"}[language]
    assert title in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    uses = re.findall(r"<use [^>]*var\(--arm(\d)", drawing)
    # in the legend one of each
    assert (uses.count("1"), uses.count("2")) == (len(gate["calibration"]["bins"]) + 60 + 1, 60 + 1)
    assert gate_figure(gate, language, width) == drawing


def test_the_figure_of_many_pairs_keeps_some():
    assert len(reward_gate(drawn(good, pairs=1001))["points"]) == 400


# The statistics


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30))
def test_correlations_agree_with_scipy_ties_included(pairs):
    x, y = zip(*pairs, strict=True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(pearson(x, y)) and math.isnan(spearman(x, y))
    else:
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


def test_a_correlation_needs_two_values_of_each_item():
    with pytest.raises(ValueError, match="shapes"):
        pearson([1, 2], [1, 2, 3])
    assert math.isnan(pearson([1], [2]))
    assert pearson([0, 1e-200, 2e-200], [0, 1, 2]) == pytest.approx(1)


def test_calibration_by_hand():
    """Of four at .6 one is right, of one at exactly .5 none; a bin holds its upper edge."""
    error, bins = calibration_error([0.6, 0.6, 0.6, 0.6, 0.5], [1, 0, 0, 0, 0], [0, 0.5, 1])
    assert error == pytest.approx(4 / 5 * 0.35 + 1 / 5 * 0.5)
    assert bins == [
        {"low": 0.0, "high": 0.5, "n": 1, "confidence": 0.5, "accuracy": 0.0},
        {"low": 0.5, "high": 1.0, "n": 4, "confidence": pytest.approx(0.6), "accuracy": 0.25},
    ]
    assert calibration_error([0.0], [0], [0, 1])[1][0]["n"] == 1  # the first bin holds its lower edge, too
    with pytest.raises(ValueError, match="outside 0.5 to 1.0"):
        calibration_error([0.4], [1], [0.5, 1])
    with pytest.raises(ValueError, match="a confidence and an outcome"):
        calibration_error([], [], [0, 1])
