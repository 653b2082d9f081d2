"""tree_of: prompts with common beginnings become one tree that reads, path by path, like the prompts themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.trees import tree_of

tokens = st.lists(st.integers(0, 2), max_size=6)  # three tokens only: prefixes are shared all the time
answers = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), min_size=1, max_size=3)


@given(st.lists(st.tuples(tokens.map(lambda ids: [7, *ids]), answers), min_size=1, max_size=6))
def test_every_answer_stands_under_its_own_prompt_in_the_order_given(prompts):
    tree = tree_of(prompts)
    paths = []
    for index in tree.counted:
        *above, last = tree.path(index)
        paths.append(([token for node in above for token in tree.nodes[node].ids], list(tree.nodes[last].ids)))
    assert paths == [(prompt, answer) for prompt, own in prompts for answer in own]


@given(st.lists(st.tuples(tokens.map(lambda ids: [7, *ids]), answers), min_size=1, max_size=6))
def test_nothing_that_prompts_share_stands_twice(prompts):
    tree = tree_of(prompts)
    distinct_prefixes = {tuple(prompt[:end]) for prompt, _ in prompts for end in range(1, len(prompt) + 1)}
    assert len(tree) == len(distinct_prefixes) + sum(len(answer) for _, own in prompts for answer in own)


def test_a_prompt_may_be_the_beginning_of_another():
    tree = tree_of([([1, 2, 3], [[9]]), ([1, 2], [[8]])])
    assert [list(node.ids) for node in tree.nodes] == [[1, 2], [3], [9], [8]]
    assert [node.parent for node in tree.nodes] == [None, 0, 1, 0]


def test_prompts_with_nothing_in_common_and_empty_answers_are_refused():
    with pytest.raises(ValueError, match="at least one token"):
        tree_of([([1], [[9]]), ([2], [[9]])])
    with pytest.raises(ValueError, match="at least one token"):
        tree_of([([1], [[]])])
