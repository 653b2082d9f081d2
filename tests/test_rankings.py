"""Rankings: the forms in which people keep them, what is wrong with one, and the loss that learns from them."""

import json
import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.cli import main
from personalign.conversation import answer_ids, prompt_ids
from personalign.datasets import (
    Conversation,
    Pair,
    Ranking,
    chosen_conversation,
    expand,
    lint,
    read,
    read_conversations,
    read_pairs,
    read_rankings,
    show,
    show_row,
    size,
    split,
)
from personalign.errors import UserError
from personalign.training.examples import pair_trees, ranking_trees
from personalign.training.objectives import reward_loss
from personalign.trees import pack
from test_datasets_readers import assistant, user, write
from tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()


def ranking(*best_first, prompt="Hi", source="x:1"):
    return Ranking([user(prompt)], list(best_first), list(range(len(best_first))), source)


FORMS = {
    "completions and ranks": {"prompt": "Hi", "completions": ["so-so", "good", "bad"], "ranks": [1, 0, 2]},
    "ranks from one": {"prompt": "Hi", "completions": ["so-so", "good", "bad"], "ranks": [2, 1, 3]},
    "messages": {
        "prompt": [user("Hi")],
        "completions": [[assistant("so-so")], [assistant("good")], [assistant("bad")]],
        "ranks": [1, 0, 2],
    },
    # ranking[i] is the rank of completion_i and the lowest is the best, as KoChatGPT's own training reads it
    "numbered": {
        "prompt": "Hi", "completion_0": "so-so", "completion_1": "good", "completion_2": "bad", "ranking": [1, 0, 2],
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".parquet"])
def test_rankings_are_read_from_every_form(tmp_path, form, ending):
    path = write(tmp_path / f"data{ending}", [FORMS[form]])
    (found,) = read_rankings(path)
    assert (found.prompt, found.source) == ([user("Hi")], f"{path}:1")
    assert found.completions == ["so-so", "good", "bad"] and found.best_first == ["good", "so-so", "bad"]
    assert read(path).kind == "rankings"


@pytest.mark.parametrize("form", ["completions and ranks", "numbered"])
def test_a_csv_cell_holds_a_list_as_json(tmp_path, form):
    row = {field: json.dumps(value) if isinstance(value, list) else value for field, value in FORMS[form].items()}
    (found,) = read_rankings(write(tmp_path / "data.csv", [row]))
    assert found.best_first == ["good", "so-so", "bad"]


def test_a_row_may_have_fewer_answers_than_the_file_has_columns(tmp_path):
    short = {"prompt": "Ho", "completion_0": "no", "completion_1": "yes", "completion_2": None, "ranking": [1, 0]}
    for ending in (".jsonl", ".csv"):
        rows = [FORMS["numbered"], short]
        if ending == ".csv":
            rows = [row | {"ranking": json.dumps(row["ranking"])} for row in rows]
        found = read_rankings(write(tmp_path / f"data{ending}", rows))
        assert [each.best_first for each in found] == [["good", "so-so", "bad"], ["yes", "no"]]


def test_columns_are_mapped_and_errors_use_their_names(tmp_path):
    from_one = {"completion_0": "completion_1", "completion_1": "completion_2", "prompt": "q"}
    row = {"q": "Hi", "completion_1": "no", "completion_2": "yes", "ranking": [1, 0]}
    assert read_rankings(write(tmp_path / "a.jsonl", [row]), columns=from_one)[0].best_first == ["yes", "no"]
    named = {"completions": "answers", "ranks": "places"}
    path = write(tmp_path / "b.jsonl", [{"prompt": "Hi", "answers": ["a", " "], "places": [0, 1]}])
    with pytest.raises(UserError, match=r"b.jsonl:1: `answers\[1\]` is empty"):
        read_rankings(path, columns=named)


def test_a_pair_is_a_ranking_of_two(tmp_path):
    path = write(tmp_path / "pairs.jsonl", [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    assert read_rankings(path) == [Ranking([user("Hi")], ["yes", "no"], [0, 1], f"{path}:1")]
    path = write(tmp_path / "two.json", [{"instruction": "Hi", "output": ["quiet", "loud"]}])
    assert read_rankings(path, prefer=1)[0].best_first == ["loud", "quiet"]
    with pytest.raises(UserError, match="says of no answer that it is preferred"):
        read_rankings(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_ranking_is_read_as_all_its_pairs_and_as_its_best_answer(tmp_path, form):
    path = write(tmp_path / "data.jsonl", [FORMS[form]])
    two = [("good", "so-so"), ("good", "bad"), ("so-so", "bad")]
    assert read_pairs(path) == [Pair([user("Hi")], *each, f"{path}:1") for each in two]
    best = Conversation([user("Hi"), assistant("good")], f"{path}:1")
    assert read_conversations(path) == [best]
    assert chosen_conversation(read_rankings(path)[0]) == best


def test_conversations_are_no_rankings(tmp_path):
    path = write(tmp_path / "chat.jsonl", [{"prompt": "Hi", "completion": "yes"}])
    with pytest.raises(UserError, match="cannot be read as rankings"):
        read_rankings(path)


@given(st.permutations(range(5)), st.integers(2, 5), st.integers(0, 1))
def test_every_pair_of_a_ranking_has_the_lower_rank_chosen(order, count, first):
    ranks = [rank + first for rank in order if rank < count]
    pairs = expand(Ranking([user("Hi")], [f"rank {rank}" for rank in ranks], ranks, "x:1"))
    wanted = [(f"rank {a}", f"rank {b}") for a, b in combinations(sorted(ranks), 2)]
    assert [(pair.chosen, pair.rejected) for pair in pairs] == wanted
    assert len(pairs) == count * (count - 1) // 2


def numbered(ranking, *texts, **more):
    return {"prompt": "Hi"} | {f"completion_{at}": text for at, text in enumerate(texts)} | {"ranking": ranking} | more


BAD = {
    "tie": (
        numbered([1, 0, 1], "a", "b", "c"),
        "`ranking` has a tie: completions 0 and 2 (rank 1); give each completion a rank of its own, or leave one",
    ),
    "missing completion": (
        {"prompt": "Hi", "completion_0": "a", "completion_2": "c", "ranking": [0, 1, 2]},
        "`completion_1` is missing; add it",
    ),
    "null completion": (numbered([0, 1, 2], "a", None, "c"), "`completion_1` is missing; add it"),
    "empty completion": (numbered([0, 1, 2], "a", "", "c"), "`completion_1` is empty; write the text"),
    "blank completion": (numbered([0, 1], "a", " \n"), "`completion_1` is empty; write the text"),
    "missing last completion": (numbered([0, 1, 2], "a", "b"), "`completion_2` is missing; add it"),
    "missing first completion": (numbered([0, 1], None, "b"), "`completion_0` is missing; add it"),
    "short ranking": (numbered([1, 0], "a", "b", "c"), "`ranking` has 2 ranks for 3 completions; give every completion"),
    "no permutation": (
        numbered([0, 2, 5], "a", "b", "c"),
        "`ranking` is [0, 2, 5], no permutation; number the completions 0 to 2 or 1 to 3, the lowest for the best",
    ),
    "from two": (numbered([2, 3], "a", "b"), "`ranking` is [2, 3], no permutation"),
    "one completion": (numbered([0], "a"), "`ranking` ranks fewer than two completions; add another completion"),
    "a word": (numbered(["first", 0], "a", "b"), "`ranking[0]` is 'first', not a whole number; write the rank"),
    "yes and no": (numbered([True, False], "a", "b"), "`ranking[0]` is True, not a whole number"),
    "a half": (numbered([0, 0.5], "a", "b"), "`ranking[1]` is 0.5, not a whole number"),
    "no ranking": (numbered(None, "a", "b"), "`ranking` is missing; add it"),
    "no list": (numbered("1, 0", "a", "b"), "`ranking` is no list of ranks; write one rank for each completion"),
    "no prompt": (numbered([0, 1], "a", "b", prompt=None), "`prompt` is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_ranking_is_named_with_line_field_and_remedy(tmp_path, kind, capsys):
    row, message = BAD[kind]
    path = write(tmp_path / "bad.jsonl", [numbered([0, 1], "a", "b"), row, numbered([0, 1], "c", "d")])
    (problem,) = read(path).problems
    assert str(problem).startswith(f"{path}:2: {message}")
    for reader in (read_rankings, read_pairs, read_conversations):
        with pytest.raises(UserError, match="bad.jsonl:2"):
            reader(path)
    assert main(["data", "lint", str(path)]) == 2
    assert message in capsys.readouterr().out


LISTED = {
    "tie": ({"completions": ["a", "b"], "ranks": [1, 1]}, "`ranks` has a tie: completions 0 and 1 (rank 1)"),
    "null": ({"completions": ["a", None], "ranks": [0, 1]}, "`completions[1]` is missing; add it"),
    "number": ({"completions": ["a", 3], "ranks": [0, 1]}, "`completions[1]` is of type int, not text"),
    "length": ({"completions": ["a", "b"], "ranks": [0, 1, 2]}, "`ranks` has 3 ranks for 2 completions"),
    "one": ({"completions": ["a"], "ranks": [0]}, "`ranks` ranks fewer than two completions"),
    "none": ({"completions": [], "ranks": []}, "`completions` is no list of answers"),
    "no ranks": ({"completions": ["a", "b"]}, "`ranks` is missing"),
}


@pytest.mark.parametrize("kind", LISTED)
def test_a_bad_list_of_completions_is_named_too(tmp_path, kind):
    row, message = LISTED[kind]
    good = {"prompt": "Hi", "completions": ["a", "b"], "ranks": [0, 1]}
    path = write(tmp_path / "bad.jsonl", [good, {"prompt": "Hi"} | row])
    assert [str(problem) for problem in read(path).problems][0].startswith(f"{path}:2: {message}")
    assert len(read(path).rows) == 1


# Splits, lint, show


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=30), st.floats(0.05, 0.9))
def test_a_split_keeps_the_rankings_of_a_prompt_together(prompts, share):
    rows = [ranking("a", f"b{at}", prompt=f"q{prompt}", source=f"x:{at}") for at, prompt in enumerate(prompts)]
    if len(set(prompts)) > 1:
        train, held_out = split(rows, share)
        assert train and held_out and sorted(train + held_out, key=rows.index) == rows
        assert not {str(row.prompt) for row in train} & {str(row.prompt) for row in held_out}


def test_lint_says_how_often_the_longest_answer_is_ranked_first():
    rows = [ranking("longest", "x", "y", prompt=f"q{at}") for at in range(30)]
    rows += [ranking("x", "longest", "y", prompt=f"r{at}") for at in range(10)]
    rows.append(ranking("xx", "yy", "z"))
    report = lint(rows)
    bias = report.length_bias
    assert bias is not None and bias.longer_wins is not None and bias.biased
    assert (bias.longer_wins.value, bias.chance, bias.equal) == (0.75, pytest.approx(1 / 3), 1)
    text = report.format()
    assert "best longest in 73.2%, equal in 1" in text
    assert (
        "longest wins  0.750 accurate (95 % interval 0.598 to 0.858; by chance 0.333): "
        "LENGTH BIAS: the longest answer tends to be the best" in text
    )
    thirds = [
        ranking(*(("long", "x", "y")[at:] + ("long", "x", "y")[:at]), prompt=f"q{at}{n}")
        for at in range(3)
        for n in range(9)
    ]
    assert "no sign of length bias" in lint(thirds).format()
    never = [ranking("x", "y", "longest", prompt=f"q{at}") for at in range(30)]
    assert "the longest answer tends not to be the best" in lint(never).format()


def test_lint_finds_repeated_rankings_whatever_the_order_of_their_completions():
    twice = Ranking([user("Hi")], ["b", "a"], [1, 0], "x:2")
    report = lint([ranking("a", "b"), twice, ranking("a", "c", source="x:3"), ranking("d", "d", "e", source="x:4")])
    assert report.duplicates == [("x:2", "x:1")] and report.same_prompt == 2
    assert report.identical == ["x:4"] and "identical     1 rankings hold an answer twice: x:4" in report.format()


def test_a_ranking_made_in_memory_is_checked_too():
    report = lint([Ranking([user("Hi")], ["a", "b"], [0, 0], "x:1"), Ranking([user("Hi")], ["a", "b"], [0], "x:2")])
    assert [problem.field for problem in report.problems] == ["ranks", "ranks"] and report.exit_code == 2


def test_the_longest_answer_decides_whether_a_ranking_fits():
    prompt = len(prompt_ids(TOKENIZER, [user("Hi")]))
    one = size(ranking("a", "abc", "ab"), TOKENIZER)
    assert (one.prompt, one.answers, one.total) == (prompt, (2, 4, 3), prompt + 4)
    assert lint([ranking("a", "abc")], TOKENIZER, max_length=prompt + 3).truncated == ["x:1"]
    assert "leaves no room" in str(lint([ranking("a", "abc")], TOKENIZER, max_length=prompt).problems[0])


def test_show_names_the_ranks_best_first(tmp_path):
    text = show(Ranking([user("Hi")], ["no", "yes"], [2, 1], "x:1"), TOKENIZER)
    assert text.index("-- rank 1 of 2: 4 tokens, 4 counted\n[y][e][s][<|im_end|>]") < text.index("-- rank 2 of 2")
    path = write(tmp_path / "data.jsonl", [FORMS["numbered"]])
    assert "-- rank 3 of 3" in show_row(path, 1, TOKENIZER)
    assert show_row(path, 1, TOKENIZER, kind="pairs").count("-- chosen") == 3


# Training


def test_a_tree_holds_the_prompt_once_and_the_answers_best_first():
    (tree,), counts = ranking_trees(
        TOKENIZER, [Ranking([user("Hi")], ["b", "a", "c"], [2, 1, 3], "x:1")], 100, "refuse"
    )
    assert list(tree.nodes[0].ids) == prompt_ids(TOKENIZER, [user("Hi")])
    wanted = [answer_ids(TOKENIZER, [user("Hi")], text) for text in "abc"]
    assert [list(tree.nodes[node].ids) for node in tree.counted] == wanted
    assert {tree.nodes[node].parent for node in tree.counted} == {0}
    assert counts == {"dropped": 0, "truncated": 0}


def test_a_ranking_beyond_max_length_is_treated_as_a_pair_is():
    prompt = len(prompt_ids(TOKENIZER, [user("Hi")]))
    rows = [ranking("a", "b"), ranking("a", "long answer", "b", source="x:2")]
    trees, counts = ranking_trees(TOKENIZER, rows, prompt + 5, "truncate")
    assert [[len(tree.nodes[node].ids) for node in tree.counted] for tree in trees] == [[2, 2], [2, 5, 2]]
    assert counts == {"dropped": 0, "truncated": 1}
    assert ranking_trees(TOKENIZER, rows, prompt + 5, "drop")[1] == {"dropped": 1, "truncated": 0}
    with pytest.raises(UserError, match="x:2: prompt and answer take"):
        ranking_trees(TOKENIZER, rows, prompt + 5, "refuse")
    with pytest.raises(UserError, match="x:1: its prompt takes"):
        ranking_trees(TOKENIZER, rows, prompt, "truncate")
    pairs = [Pair(row.prompt, *row.best_first, row.source) for row in rows[:1]]
    assert pair_trees(TOKENIZER, pairs, 100, "refuse") == ranking_trees(TOKENIZER, rows[:1], 100, "refuse")


def plain_loss(rewards, centering=0.0):
    """Equation 1 of Ouyang et al. 2022, pair by pair."""
    terms = []
    for i in range(len(rewards)):
        for j in range(i + 1, len(rewards)):
            terms.append(math.log1p(math.exp(rewards[j] - rewards[i])) + centering * (rewards[i] + rewards[j]) ** 2)
    return sum(terms) / len(terms)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=7), st.sampled_from([0.0, 0.01, 1.0]))
def test_the_reward_loss_is_the_mean_over_all_pairs(rewards, centering):
    loss = reward_loss(torch.tensor(rewards, dtype=torch.float64), centering=centering)
    assert float(loss) == pytest.approx(plain_loss(rewards, centering), rel=1e-9, abs=1e-12)


def test_the_reward_loss_falls_with_order_and_not_with_level():
    rewards = torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64)
    assert float(reward_loss(rewards)) < math.log(2) < float(reward_loss(rewards.flip(0)))
    assert float(reward_loss(rewards + 5)) == pytest.approx(float(reward_loss(rewards)))
    assert float(reward_loss(rewards + 5, centering=0.1)) > float(reward_loss(rewards, centering=0.1))
    assert float(reward_loss(torch.zeros(4))) == pytest.approx(math.log(2))  # a group counts once, whatever its size
    assert torch.isfinite(reward_loss(torch.tensor([-1e4, 1e4])))
    with pytest.raises(ValueError, match="at least two"):
        reward_loss(torch.zeros(1))


def test_the_gradient_of_the_reward_loss_lifts_the_best_and_lowers_the_worst():
    rewards = torch.zeros(3, requires_grad=True)
    reward_loss(rewards).backward()
    # of three pairs the best is better in two and the worst worse in two: sigmoid(0) times -2/3, 0, 2/3
    assert rewards.grad is not None and rewards.grad.tolist() == pytest.approx([-1 / 3, 0, 1 / 3])


def test_in_a_row_the_answers_stand_group_by_group_best_first():
    rows = [ranking("best", "mid", "worst"), ranking("yes", "no", prompt="Ho", source="x:2")]
    trees, _ = ranking_trees(TOKENIZER, rows, 100, "refuse")
    (row,) = pack(trees, 1000)
    sizes = [len(tree.counted) for tree in row.trees]
    assert sizes == [3, 2]
    assert row.answers == [(tree, node) for tree, of in enumerate(trees) for node in of.counted]
