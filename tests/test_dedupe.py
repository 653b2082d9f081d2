"""Near copies: ROUGE-L as `rouge_score` has it, Alpaca's rule in order, and nothing above the threshold missed."""

import json
import logging
import sys
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.datasets import dedupe as dedupe_module
from personalign.datasets import similarity as similarity_module
from personalign.datasets.dedupe import Match, dedupe
from personalign.datasets.similarity import encode, f_measure, neighbours, rouge_l, tokens
from personalign.dedupe_command import Dedupe
from personalign.dedupe_command import dedupe as command
from personalign.errors import UserError
from personalign.options import parse

# --- ROUGE-L


@pytest.mark.parametrize(
    ("one", "other", "f"),
    [
        ("police killed the gunman", "police kill the gunman", 3 / 4),  # Lin 2004, section 3.1
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("police killed the gunman", "the gunman police killed", 2 / 4),
        ("testing one two", "testing", 1 / 2),  # from the tests of rouge_score
        ("testing one two", "two one", 2 / 5),
        ("Explain gravity.", "explain GRAVITY", 1.0),
        ("one two", "three", 0.0),
        ("one two", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_rouge_l_of_known_pairs(one, other, f):
    assert rouge_l(one, other) == pytest.approx(f, abs=1e-15)
    assert rouge_l(one, other) == rouge_l(other, one)


def test_an_f_of_exactly_the_threshold_rounds_as_in_rouge_score():
    """F is .7 in all three; rouge_score rounds two of them up, so that Alpaca drops those, and so must we."""
    plain = [2 * (7 / n) * (7 / m) / (7 / n + 7 / m) for m, n in ((10, 10), (8, 12), (7, 13))]
    assert [float(f_measure(7, m, n)) for m, n in ((10, 10), (8, 12), (7, 13))] == plain
    assert max(plain) > 0.7 >= min(plain), "or this test says nothing"


def test_english_tokens_are_those_of_rouge_score():
    text = "Don't stop: it's 5°C at the café_2 (ﬁne)!"
    assert tokens(text, "en") == ["don", "t", "stop", "it", "s", "5", "c", "at", "the", "caf", "2", "ne"]
    assert tokens(text, "ko") == tokens(text, "en")


def test_korean_is_compared_by_syllable():
    assert tokens("GPT로 시를 써 줘 ㅋㅋㅋ", "ko") == ["gpt", "로", "시", "를", "써", "줘", "ㅋㅋㅋ"]
    assert tokens("GPT로 시를 써 줘", "en") == ["gpt"]


def test_hangul_taken_apart_is_the_same_text():
    import unicodedata

    text = "회의에서 발표를 망쳤어요"
    assert rouge_l(unicodedata.normalize("NFD", text), text) == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("다음 문장을 영어로 번역하세요", "다음 문장을 영어로 번역해 줘"),
        ("비 오는 날에 듣기 좋은 노래를 추천해 주세요", "비 오는 날 듣기 좋은 노래 추천해줘"),
        ("면접에서 자기소개를 어떻게 시작하면 좋을까?", "면접에서 자기소개는 어떻게 시작하는 게 좋을까요?"),
        ("고양이가 밥을 안 먹어요. 어떻게 해야 하나요?", "고양이가 밥을 먹지 않아요. 어떻게 하면 되나요?"),
    ],
)
def test_korean_near_copies_differ_in_endings_and_are_found(one, other):
    assert rouge_l(one, other) > 0.7


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("다음 문장을 영어로 번역하세요", "다음 문단을 세 문장으로 요약하세요"),
        ("비 오는 날에 듣기 좋은 노래를 추천해 주세요", "겨울에 혼자 읽기 좋은 소설을 추천해 주세요"),
        ("회의에서 발표를 망쳤을 때 어떻게 하면 좋을까요?", "친구와 다퉜을 때 어떻게 하면 좋을까요?"),
    ],
)
def test_korean_questions_of_one_form_about_other_things_are_kept(one, other):
    assert rouge_l(one, other) < 0.7


# --- the rule


def plain_lcs(left, right):
    """The table of rouge_score."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def plain_f(left, right):
    """rouge_score's _score_lcs and fmeasure, line for line."""
    if not left or not right:
        return 0.0
    lcs = plain_lcs(left, right)
    precision, recall = lcs / len(right), lcs / len(left)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def plain_dedupe(texts, against, threshold, language="en"):
    """Alpaca's filter: (kept with their scores against all before, dropped with the most similar)."""
    everything = [tokens(text, language) for text in [*against, *texts]]
    rows, kept, dropped = list(range(len(against))), {}, {}
    for row in range(len(against), len(everything)):
        scores = [plain_f(everything[row], everything[other]) for other in rows]
        if scores and max(scores) > threshold:
            dropped[row - len(against)] = (rows[scores.index(max(scores))], max(scores))
        else:
            kept[row - len(against)] = (scores, list(rows))
            rows.append(row)
    return kept, dropped


def small_blocks():
    """Blocks of a few texts, so that few texts fill many."""
    return patch.multiple(dedupe_module, BLOCK=4, GROUP=3), patch.object(similarity_module, "BLOCK", 3)


def same(texts, against, threshold, most=3):
    """Assert that ours is Alpaca's, scores included, in whole and in small blocks."""
    expected = plain_dedupe(texts, against, threshold)
    check(*expected, dedupe(texts, against, threshold=threshold, language="en", most=most), most)
    one, other = small_blocks()
    with one, other:
        check(*expected, dedupe(texts, against, threshold=threshold, language="en", most=most), most)


def check(kept, dropped, found, most):
    assert {row: (match.index, match.score) for row, match in found.dropped.items()} == dropped
    assert list(found.kept) == list(kept)
    for row, (scores, rows) in kept.items():
        near = found.kept[row]
        order = sorted(range(len(rows)), key=lambda at: (-scores[at], at))[:most]
        assert near.nearest == tuple((rows[at], scores[at]) for at in order)
        assert near.mean == (pytest.approx(sum(scores) / len(scores), abs=1e-12) if scores else None)


WORDS = st.sampled_from("a b c d e f g h".split())
TEXT = st.lists(WORDS, max_size=14).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(TEXT, max_size=25), st.lists(TEXT, max_size=5), st.floats(0.05, 0.95) | st.sampled_from([0.5, 0.7, 0.8])
)
def test_exactly_the_plain_definition(texts, against, threshold):
    same(texts, against, threshold)


@st.composite
def near_copies(draw):
    """Long texts of rare words and changed copies of them, whose F lies around .7."""
    rare = [f"w{at}" for at in range(60)]
    texts = []
    for _ in range(draw(st.integers(1, 4))):
        text = draw(st.lists(st.sampled_from(rare), min_size=1, max_size=40))
        texts.append(text)
        for _ in range(draw(st.integers(1, 4))):
            low, high = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
            texts.append(text[:low] + draw(st.lists(st.sampled_from(rare), max_size=high - low + 3)) + text[high:])
    return [" ".join(text) for text in draw(st.permutations(texts))]


@settings(max_examples=100, deadline=None)
@given(near_copies(), st.sampled_from([0.3, 0.6, 0.7, 0.9]))
def test_exactly_the_plain_definition_where_it_is_close(texts, threshold):
    same(texts, [], threshold)


@settings(max_examples=60, deadline=None)
@given(near_copies(), st.integers(0, 20))
def test_in_parts_the_same_is_kept_as_at_once(texts, cut):
    whole = list(dedupe(texts, most=0).kept)
    first = list(dedupe(texts[:cut], most=0).kept)
    second = dedupe(texts[cut:], [texts[at] for at in first], most=0)
    assert first + [at + cut for at in second.kept] == whole


def test_the_order_decides_which_of_a_chain_stay():
    one, two, three = "a b c d e f g h", "a b c d e f y z", "a b c d w x y z"
    assert rouge_l(one, two) > 0.7 and rouge_l(two, three) > 0.7 and rouge_l(one, three) < 0.7
    assert list(dedupe([one, two, three]).kept) == [0, 2]
    assert list(dedupe([two, one, three]).kept) == [0]
    assert dedupe([two, one, three]).dropped[1] == Match(0, 0.75, "rouge-l")


def test_a_dropped_text_drops_none_itself():
    texts = ["a b c d e f g h", "a b c d e f y z", "a b c d w x y z"]
    assert dedupe(texts).dropped.keys() == {1}, "the third is near the second only, which is not there any more"


def test_texts_kept_earlier_are_not_judged():
    found = dedupe(["c d"], against=["a b", "a b"])
    assert list(found.kept) == [0] and found.kept[0].mean == 0.0
    assert dedupe(["a b"], against=["x", "a b", "a b"]).dropped == {0: Match(1, 1.0, "rouge-l")}


def test_what_rouge_sees_nothing_in_is_kept_and_named():
    found = dedupe(["안녕하세요", "안녕하세요", "?!", "hello"], language="en")
    assert list(found.kept) == [0, 1, 2, 3] and found.without_tokens == [0, 1, 2]
    assert list(dedupe(["안녕하세요", "안녕하세요", "?!", "hello"]).kept) == [0, 2, 3]


def test_the_first_text_has_no_neighbours():
    near = dedupe(["a b", "c d"]).kept[0]
    assert (near.nearest, near.mean) == ((), None)


def test_equally_near_neighbours_come_in_their_order():
    (near,) = neighbours(encode([["a"], ["x"], ["a"], ["a", "a"]], {}), start=3, most=2)
    assert [at for at, _ in near.nearest] == [0, 2]
    assert near.mean == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)


def test_neighbours_of_many_are_those_of_a_full_sort():
    rng = np.random.default_rng(2)
    texts = encode([list(map(str, rng.integers(0, 6, size=rng.integers(0, 9)))) for _ in range(900)], {})
    for start, near in zip(range(890, 900), neighbours(texts, 890, most=10), strict=True):
        scores = np.array([plain_f(texts[start], other) for other in texts[:start]])
        order = np.argsort(-scores, kind="stable")[:10]
        assert near.nearest == tuple((at, scores[at]) for at in order.tolist())
        assert near.mean == pytest.approx(scores.mean(), abs=1e-12)


def test_many_blocks_are_as_one():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 40, size=rng.integers(1, 12)))) for _ in range(300)]
    same(texts, texts[:7], 0.6, most=10)


def test_more_different_words_than_fit_two_bytes_are_told_apart():
    first = [f"n{at}" for at in range(70_000)]
    found = dedupe([" ".join(first[at : at + 700]) for at in range(0, 70_000, 700)] + ["n69999 n69998"], most=0)
    assert len(found.kept) == 101


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1, 7])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(UserError, match="threshold is"):
        dedupe(["a"], threshold=threshold)


# --- embeddings


def test_cosine_drops_what_rouge_keeps():
    texts, vectors = ["a", "b", "a", "c"], [[1, 0], [3, 0.1], [0, 1], [-1, 0]]
    found = dedupe(texts, vectors=vectors)
    assert found.dropped[1].measure == "cosine" and found.dropped[1].index == 0
    assert found.dropped[1].score == pytest.approx(3 / np.hypot(3, 0.1))
    assert found.dropped[2] == Match(0, 1.0, "rouge-l")
    assert list(found.kept) == [0, 3]


def test_cosine_follows_the_same_order_over_many_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(400, 3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(dedupe_module, "BLOCK", 64)
    kept = list(range(10))
    for row in range(10, 400):
        if (unit[kept] @ unit[row]).max() <= 0.97:
            kept.append(row)
    words = [f"w{at}" for at in range(400)]
    found = dedupe(words[10:], words[:10], vectors=vectors, cosine=0.97, most=0)
    assert [at + 10 for at in found.kept] == kept[10:] and len(kept) < 300


def test_every_text_needs_a_vector():
    with pytest.raises(ValueError, match="one vector for each of 2"):
        dedupe(["a"], ["b"], vectors=[[1.0, 0.0]])


def test_without_the_package_a_sentence_says_what_to_do(monkeypatch):
    from personalign.datasets.embeddings import embed

    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(UserError, match="not installed; pip install 'personalign\\[embeddings\\]'"):
        embed(["a"])


def test_the_packaged_model_refuses_korean_which_it_does_not_know():
    from personalign.datasets.embeddings import embed

    with pytest.raises(UserError, match="English only"):
        embed(["비가 와요", "추워요", "rain"])


def test_the_packaged_model_knows_a_paraphrase():
    from personalign.datasets.embeddings import embed

    before = logging.getLogger().handlers[:], logging.getLogger().level

    vectors = embed(["How do I cook rice?", "How can I cook rice?", "Name a planet."])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.9 > unit[0] @ unit[2]
    assert (logging.getLogger().handlers, logging.getLogger().level) == before


def test_any_encoder_embeds_each_text_as_it_would_alone(tmp_path, tiny_encoder):
    from personalign.datasets.embeddings import embed

    texts = ["a long question about the rain and about tea", "tea?", "비가 와요"]
    together = embed(texts, str(tiny_encoder))
    assert together.shape == (3, 32)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(embed([text], str(tiny_encoder))[0], vector, atol=1e-5)
    with pytest.raises(UserError, match="^--embeddings nowhere: neither"):
        embed(texts, "nowhere")


@pytest.fixture
def tiny_encoder(tmp_path):
    """A random BERT that reads bytes."""
    import torch
    from transformers import BertConfig, BertModel

    from tiny import byte_tokenizer

    torch.manual_seed(0)
    tokenizer = byte_tokenizer("chatml")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


# --- the command


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(*words):
    command(parse(Dedupe, list(words), prog="personalign data dedupe"))


def test_the_command_writes_what_is_kept_and_what_is_dropped(tmp_path, capsys):
    rows = [
        {"instruction": "Name three planets of the sun.", "input": "", "output": "Mars, Venus, Earth"},
        {"instruction": "Write a poem.", "output": "..."},
        {"instruction": "Name three planets of our sun!", "output": "Mars"},
    ]
    file = write(tmp_path / "alpaca.jsonl", rows)
    run(file)
    kept, dropped = read(tmp_path / "alpaca.deduped.jsonl"), read(tmp_path / "alpaca.deduped.dropped.jsonl")
    assert [row["instruction"] for row in kept] == ["Name three planets of the sun.", "Write a poem."]
    assert kept[1].items() >= rows[1].items()
    assert kept[1]["most_similar"] == [{"source": f"{file}:1", "score": 0.0}] and kept[1]["mean_similarity"] == 0.0
    (row,) = dropped
    assert row["source_row"] == f"{file}:3" and row["output"] == "Mars"
    assert row["repeats"] == {
        "source": f"{file}:1", "text": rows[0]["instruction"], "score": pytest.approx(5 / 6), "measure": "rouge-l"
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "kept          2" in shown and "1 (1 by ROUGE-L above 0.7)" in shown and "0.83  Name three" in shown


def test_kept_rows_are_a_dataset_that_lint_passes(tmp_path):
    from personalign.datasets import lint_file

    rows = [{"prompt": f"What about {what}?", "chosen": "Yes!", "rejected": "No."} for what in ("tea", "rain")]
    run(write(tmp_path / "pairs.jsonl", rows), "--output", str(tmp_path / "kept.jsonl"), "--threshold", "0.9")
    report, code = lint_file(tmp_path / "kept.jsonl")
    assert (code, report.rows) == (0, 2)


def test_new_files_against_kept_ones(tmp_path, capsys):
    old = write(tmp_path / "old.jsonl", [{"prompt": "주말에 뭐 할까요?"}])
    one = write(tmp_path / "one.jsonl", [{"prompt": "주말에는 뭐 할까요?"}, {"prompt": "점심 메뉴 추천해 주세요"}])
    two = write(tmp_path / "two.jsonl", [{"messages": [
        {"role": "user", "content": "점심 메뉴 추천해 줘"}, {"role": "assistant", "content": "국수요."}]}])  # fmt: skip
    out = tmp_path / "out.jsonl"
    run(one, two, "--against", old, "--output", str(out), "--neighbours", "0")
    assert read(out) == [{"prompt": "점심 메뉴 추천해 주세요"}]
    assert [row["repeats"]["source"] for row in read(tmp_path / "out.dropped.jsonl")] == [f"{old}:1", f"{one}:2"]
    assert "3 and 1 kept earlier" in capsys.readouterr().out


def test_another_column_may_be_compared(tmp_path):
    rows = [{"prompt": "Hi", "chosen": "Good morning to you"}, {"prompt": "Ho", "chosen": "good morning to you!"}]
    file = write(tmp_path / "pairs.jsonl", [row | {"rejected": "no"} for row in rows])
    run(file, "--field", "chosen")
    assert [row["prompt"] for row in read(tmp_path / "pairs.deduped.jsonl")] == ["Hi"]
    run(file)
    assert len(read(tmp_path / "pairs.deduped.jsonl")) == 2
    with pytest.raises(UserError, match="--field title: there is no such column; there are prompt, chosen, rejected"):
        run(file, "--field", "title")


def test_a_row_that_cannot_be_read_is_named(tmp_path):
    file = write(tmp_path / "bad.jsonl", [{"prompt": "a"}, {"prompt": " "}, {"prompt": None}])
    with pytest.raises(UserError, match=r"bad.jsonl:2: `prompt` is empty(.|\n)*bad.jsonl:3"):
        run(file)
    file = write(tmp_path / "posts.jsonl", [{"title": "a"}])
    with pytest.raises(UserError, match="choose one with --field"):
        run(file)


def test_no_file_that_is_read_is_written_over(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"prompt": "a"}])
    for words in ([file, "--output", file], [file, "--against", str(tmp_path / "b.dropped.jsonl"), "--output",
                                             str(tmp_path / "b.jsonl")]):  # fmt: skip
        with pytest.raises(UserError, match="would be written over"):
            run(*words)
    assert read(tmp_path / "a.jsonl") == [{"prompt": "a"}]


def test_english_words_alone_find_nothing_in_korean_and_say_so(tmp_path, capsys):
    file = write(tmp_path / "ko.jsonl", [{"prompt": "안녕하세요"}, {"prompt": "안녕하세요"}])
    run(file, "--language", "en")
    assert len(read(tmp_path / "ko.deduped.jsonl")) == 2
    assert "2 hold nothing that ROUGE-L compares" in capsys.readouterr().out
