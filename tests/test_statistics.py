"""What a report's numbers rest on: each statistic against a published value, its laws, the coverage it promises."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.statistics import (
    bootstrap,
    bootstrap_distribution,
    cronbach_alpha,
    crossed_bootstrap,
    crossed_distribution,
    distinct_n,
    holm,
    mcnemar,
    paired_difference,
    wilson,
)

numbers = st.floats(-100, 100, allow_nan=False)
samples = st.lists(numbers, min_size=2, max_size=12)


def coverage(draw, interval, truth=0.0, trials=600):
    """Share of seeded trials whose interval holds the truth."""
    generator = np.random.default_rng(20)
    held = [interval(*draw(generator), seed=trial) for trial in range(trials)]
    return float(np.mean([low <= truth <= high for _, low, high in held]))


# The bootstrap


@pytest.mark.parametrize("count", [6, 18, 60])
def test_ninety_five_percent_intervals_hold_the_truth_about_95_percent_of_the_time(count):
    held = coverage(lambda g: (g.normal(size=count),), lambda x, seed: bootstrap(x, resamples=1000, seed=seed))
    assert 0.92 <= held <= 0.98


def test_the_plain_percentile_interval_would_be_too_narrow_at_six_items():
    def plain(values, seed):
        drawn = bootstrap_distribution(values, resamples=1000, seed=seed)
        return (0, *np.quantile(drawn, [0.025, 0.975]))

    assert coverage(lambda g: (g.normal(size=6),), plain) < 0.91


def clustered(generator):
    """Twelve sources of five items each; items of a source share most of their noise."""
    return (np.repeat(generator.normal(size=12), 5) + 0.2 * generator.normal(size=60),)


def test_items_that_share_a_source_need_clusters():
    source = np.repeat(np.arange(12), 5).tolist()
    assert coverage(clustered, lambda x, seed: bootstrap(x, clusters=source, resamples=1000, seed=seed)) >= 0.91
    assert coverage(clustered, lambda x, seed: bootstrap(x, resamples=1000, seed=seed)) < 0.75


def test_every_item_its_own_cluster_is_no_clustering():
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    assert bootstrap(values, clusters=list("abcdef")) == bootstrap(values)


def test_the_fast_mean_draws_what_the_general_statistic_draws():
    values, source = np.random.default_rng(1).normal(size=20), [at // 3 for at in range(20)]
    slow = bootstrap_distribution(values, lambda drawn: drawn.mean(), source, resamples=50)
    np.testing.assert_allclose(bootstrap_distribution(values, np.mean, source, resamples=50), slow)


def test_drawing_in_chunks_changes_nothing(monkeypatch):
    values = np.random.default_rng(2).normal(size=10)
    whole = bootstrap_distribution(values, resamples=100)
    monkeypatch.setattr("personalign.statistics.resampling.CHUNK", 70)
    np.testing.assert_array_equal(bootstrap_distribution(values, resamples=100), whole)


def test_agrees_with_scipys_percentile_interval():
    from scipy import stats

    values = np.random.default_rng(3).normal(size=200)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    ours = bootstrap(values, resamples=4000)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


@given(samples, numbers, st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_intervals_move_and_stretch_with_the_values(values, shift, scale):
    at = np.array(bootstrap(values, resamples=200))
    moved = bootstrap(np.array(values) * scale + shift, resamples=200)
    np.testing.assert_allclose(moved, at * scale + shift, atol=1e-6)


@given(samples)
@settings(deadline=None, max_examples=40)
def test_a_difference_from_itself_is_exactly_zero(values):
    assert paired_difference(values, values, resamples=50) == (0, 0, 0)


def test_pairing_by_item_cancels_what_the_items_share():
    generator = np.random.default_rng(4)
    item = generator.normal(scale=5, size=40)
    base, adapter = item + generator.normal(scale=0.1, size=40), item + 0.5 + generator.normal(scale=0.1, size=40)
    difference = paired_difference(adapter, base)
    assert difference.low > 0.4 and difference.high < 0.6
    shuffled = paired_difference(adapter, generator.permutation(base))
    assert shuffled.low < 0 < shuffled.high


def test_medians_have_intervals_too():
    assert bootstrap([1.0, 2.0, 3.0, 4.0, 1000.0], np.median).value == 3


def test_same_seed_same_interval_other_seed_another():
    values = np.random.default_rng(5).normal(size=15)
    assert bootstrap(values, seed=7) == bootstrap(values, seed=7) != bootstrap(values, seed=8)


def test_one_item_has_a_value_and_no_interval():
    assert bootstrap([2.0]).value == 2
    assert all(math.isnan(limit) for limit in bootstrap([2.0])[1:])
    assert math.isnan(bootstrap([2.0, 3.0], clusters=["same", "same"]).low)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], 3.0])
def test_missing_values_are_refused_and_not_averaged_over(values):
    with pytest.raises(ValueError):
        bootstrap(values)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="same items"):
        paired_difference([1, 2], [1])
    with pytest.raises(ValueError, match="3 values but 2 clusters"):
        bootstrap([1, 2, 3], clusters=["a", "b"])


# Items and training seeds


def crossed(items, seeds, by_item, by_seed, noise):
    """Draws of [items, seeds] around 0: what is an item's own, what is a seed's own, and what is of neither."""
    return lambda g: (
        by_item * g.normal(size=(items, 1))
        + by_seed * g.normal(size=(1, seeds))
        + noise * g.normal(size=(items, seeds)),
    )


def crossed_interval(values, seed):
    return crossed_bootstrap(values, resamples=500, seed=seed)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("by_item", "by_seed", "noise"), [(1, 0, 0.3), (1, 0.3, 0.3), (1, 1, 0.3), (0.1, 1, 0.1)])
def test_with_few_seeds_intervals_hold_the_truth_about_95_percent_of_the_time_or_more(seeds, by_item, by_seed, noise):
    assert coverage(crossed(18, seeds, by_item, by_seed, noise), crossed_interval) >= 0.92


def test_more_seeds_than_items_hold_it_too():
    assert coverage(crossed(3, 8, 1, 1, 0.3), crossed_interval) >= 0.92


def test_items_alone_or_the_plain_pigeonhole_would_be_too_narrow():
    def items_alone(values, seed):
        return bootstrap(values.mean(axis=1), resamples=500, seed=seed)

    def plain(values, seed):
        return (0, *np.quantile(crossed_distribution(values, 500, seed, seed), [0.025, 0.975]))

    draw = crossed(18, 3, 1, 1, 0.3)
    assert coverage(draw, items_alone, trials=300) < 0.75
    assert coverage(draw, plain, trials=300) < 0.9


@given(samples, st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_one_seed_gives_exactly_the_bootstrap_of_its_items(values, seed):
    clusters = [at // 2 for at in range(len(values))]
    column = np.array(values)[:, None]
    same = {"resamples": 100, "seed": seed}
    np.testing.assert_equal(crossed_bootstrap(column, **same), bootstrap(values, **same))
    np.testing.assert_equal(crossed_bootstrap(column, clusters, **same), bootstrap(values, clusters=clusters, **same))
    np.testing.assert_array_equal(crossed_distribution(column, **same), bootstrap_distribution(values, **same))


def test_seeds_that_agree_leave_the_interval_of_one():
    values = np.random.default_rng(8).normal(size=20)
    agreed = crossed_bootstrap(np.tile(values[:, None], 3))
    np.testing.assert_allclose(agreed, bootstrap(values), rtol=1e-12)


def test_seeds_that_disagree_widen_it_also_where_items_come_in_clusters():
    values, source = np.random.default_rng(9).normal(size=20), [at // 2 for at in range(20)]
    apart = values[:, None] + np.array([-0.5, 0.0, 0.5])
    for clusters in (None, source):
        wide, narrow = crossed_bootstrap(apart, clusters), bootstrap(values, clusters=clusters)
        assert wide.value == pytest.approx(narrow.value)
        # three seeds with a standard deviation of .5: t(2) s / sqrt(3) = 1.24 of their own
        assert (wide.high - wide.low) / 2 > 1.2 > narrow.high - narrow.low


def test_every_draw_is_of_rows_and_of_columns():
    """The plain way: draw indices, index the matrix, take its mean."""
    values = np.random.default_rng(10).normal(size=(7, 3))
    rows, columns = np.random.default_rng(4), np.random.default_rng([6, 3])
    drawn_rows, drawn_columns = rows.integers(7, size=(40, 7)), columns.integers(3, size=(40, 3))
    plain = [values[np.ix_(r, c)].mean() for r, c in zip(drawn_rows, drawn_columns, strict=True)]
    np.testing.assert_allclose(crossed_distribution(values, 40, seed=4, column_seed=6), plain)


def test_seeds_without_a_second_item_have_no_interval():
    assert crossed_bootstrap([[1.0, 3.0]]).value == 2
    assert math.isnan(crossed_bootstrap([[1.0, 3.0]]).low)
    with pytest.raises(ValueError, match="items, seeds"):
        crossed_bootstrap([1.0, 2.0])


# Proportions


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_newcombes_table(k, n, low, high):
    assert wilson(k, n) == pytest.approx((k / n, low, high), abs=5e-5)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_stays_in_the_unit_interval_holds_its_value_and_is_symmetric(share):
    k, n = share
    value, low, high = wilson(k, n)
    assert 0 <= low <= value <= high <= 1
    mirrored = wilson(n - k, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - high, 1 - low))


def test_wilson_without_any_items_says_anything_is_possible():
    assert math.isnan(wilson(0, 0).value) and wilson(0, 0)[1:] == (0, 1)
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson(3, 2)


def outcomes(both, only_a, only_b, neither):
    pairs = [(1, 1)] * both + [(1, 0)] * only_a + [(0, 1)] * only_b + [(0, 0)] * neither
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    from scipy.stats import binomtest

    assert mcnemar(*outcomes(30, 12, 3, 5)) == pytest.approx(binomtest(3, 15).pvalue)
    assert mcnemar(*outcomes(0, 12, 3, 0)) == mcnemar(*outcomes(30, 12, 3, 5))
    assert mcnemar(*outcomes(9, 4, 4, 9)) == 1
    assert mcnemar(*outcomes(9, 0, 0, 9)) == 1
    with pytest.raises(ValueError, match="same items"):
        mcnemar([1], [1, 0])


def test_holm_on_four_p_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_keeps_the_order_and_lies_between_the_raw_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, new in zip(p_values, adjusted, strict=True):
        assert p <= new <= min(1, p * len(p_values)) + 1e-12
    ranked = [new for _, new in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


# Reliability and diversity


def test_cronbachs_alpha_by_hand():
    # Column variances 5/3, 5/3; row sums 2, 5, 7, 10 -> hand: k/(k-1) (1 - within/total).
    matrix = [[1, 1], [2, 3], [3, 4], [4, 6]]
    within = np.var([1, 2, 3, 4], ddof=1) + np.var([1, 3, 4, 6], ddof=1)
    assert cronbach_alpha(matrix) == pytest.approx(2 * (1 - within / np.var([2, 5, 7, 10], ddof=1)))


def test_items_in_step_are_perfectly_consistent_and_noise_is_not():
    assert cronbach_alpha([[1, 1, 1], [2, 2, 2], [5, 5, 5]]) == pytest.approx(1)
    noise = np.random.default_rng(6).normal(size=(4000, 5))
    assert cronbach_alpha(noise) == pytest.approx(0, abs=0.1)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=6))
def test_alpha_is_at_most_one_or_not_a_number(matrix):
    alpha = cronbach_alpha(matrix)
    assert math.isnan(alpha) or alpha <= 1 + 1e-9


@pytest.mark.parametrize("matrix", [[[1, 2, 3]], [[1], [2]], [[1, 5], [2, 5]], [[1, 2], [2, 1]], [[0.1, 0.2]] * 2])
def test_alpha_says_nothing_where_nothing_varies(matrix):
    assert math.isnan(cronbach_alpha(matrix))


def test_alpha_wants_a_matrix():
    with pytest.raises(ValueError, match="presentations, items"):
        cronbach_alpha([1, 2, 3])


def test_distinct_n_counts_each_n_gram_once_and_never_across_texts():
    assert distinct_n(["a b a b"], 1) == 2 / 4
    assert distinct_n(["a b a b"], 2) == 2 / 3
    assert distinct_n(["a b", "a b"], 2) == 1 / 2
    assert distinct_n(["오늘은 집에 있을래요", "오늘은 나가요"], 1) == 4 / 5
    assert math.isnan(distinct_n(["word"], 2))
