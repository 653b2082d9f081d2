"""Checks on our own type inventory: form, counts, balance of length and of wording."""

import collections
import itertools
import json
import re
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[1] / "src" / "personalign" / "evaluation" / "inventory.jsonl"
AXES = ("EI", "NS", "TF", "JP")
LANGS = ("en", "ko")
LINES = PATH.read_text(encoding="utf-8").splitlines()
ITEMS = [json.loads(line) for line in LINES]
BY_AXIS = {axis: [item for item in ITEMS if item["axis"] == axis] for axis in AXES}

FORBIDDEN_EN = re.compile(
    r"\b(?:intro|extro|extra)ver\w*|\bintuit\w*|\bsensing\b|\bthinking type|\bfeeling type"
    r"|\bjudging\b|\bperceiving\b|\bmbti\b|\bpersonalit\w*|\btypes?\b",
    re.IGNORECASE,
)
FORBIDDEN_KO = re.compile("내향|외향|직관|감각|사고형|감정형|판단|인식|성격|유형|엠비티아이|MBTI", re.IGNORECASE)

STOP_EN = set(
    """a about after again all an and another any are as ask at away be before by can come could
    day do each for from get give go goes happens have how i in into is it its keep let look make
    me my myself next no not now of off on one or other others out over own put see so some
    somebody someone something take than that the their them then there they this three through
    time to two up us want wants was we were what when where whether which while who whoever whom
    will with would you your yours first old new has had made might right deal handle respond
    react proceed""".split()
)


def words(text):
    return re.findall(r"[a-z]+(?:['-][a-z]+)*", text.lower())


def stem(word):
    word = word.removesuffix("'s")
    for end in ("ing", "ed", "es", "s"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            return word[: -len(end)]
    return word


def content_en(*texts):
    return {stem(w) for t in texts for w in words(t) if w not in STOP_EN}


def content_ko(*texts):
    """First two syllables of each longer Korean word, a rough stem."""
    skip = {"어떻", "무엇", "어떤", "하나", "그다", "그것", "먼저", "다음", "반응", "보이", "처리"}
    return {w[:2] for t in texts for w in re.findall("[가-힣]{2,}", t)} - skip


def length(text, lang):
    return len(text.split()) if lang == "en" else len(re.findall("[가-힣]", text))


def option_texts(item, lang):
    return [item["options"][pole][lang] for pole in item["axis"]]


def all_texts(item, lang):
    return item["question"][lang] + option_texts(item, lang)


def test_file_is_plain_utf8_jsonl():
    for line, item in zip(LINES, ITEMS, strict=True):
        assert line == json.dumps(item, ensure_ascii=False)


def test_counts_and_ids():
    assert {item["axis"] for item in ITEMS} == set(AXES)
    for axis, items in BY_AXIS.items():
        assert len(items) >= 15
        assert [i["id"] for i in items] == [f"{axis}-{n:02d}" for n in range(1, len(items) + 1)]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_form(item):
    assert list(item) == ["id", "axis", "question", "options"]
    assert list(item["question"]) == list(LANGS)
    assert list(item["options"]) == list(item["axis"]), "poles out of order"
    for pole in item["axis"]:
        assert list(item["options"][pole]) == list(LANGS)
    for lang in LANGS:
        paraphrases = item["question"][lang]
        assert len(paraphrases) == 3
        assert len({re.sub(r"\W", "", q).lower() for q in paraphrases}) == 3
        for q in paraphrases:
            assert q.endswith("?")
        for text in all_texts(item, lang):
            assert text == " ".join(text.split())
    for q in item["question"]["en"]:
        assert 8 <= length(q, "en") <= 22, q
    for option in option_texts(item, "en"):
        assert option.startswith("I ") and option.endswith(".")
        assert 8 <= length(option, "en") <= 18, option
    for text in all_texts(item, "en"):
        assert text.isascii(), text
    for text in all_texts(item, "ko"):
        assert not re.search("[A-Za-z]", text), text
        for sentence in re.split(r"(?<=[.?])\s+", text):
            assert re.search(r"요[.?]$", sentence), f"not polite style: {sentence}"


@pytest.mark.parametrize("lang", LANGS)
def test_options_have_the_same_length(lang):
    for axis, items in BY_AXIS.items():
        totals = [0, 0]
        signs = set()
        for item in items:
            a, b = (length(t, lang) for t in option_texts(item, lang))
            assert abs(a - b) <= 0.15 * min(a, b), (item["id"], lang, a, b)
            totals[0] += a
            totals[1] += b
            signs.add((a > b) - (a < b))
        assert abs(totals[0] - totals[1]) <= 0.01 * min(totals), (axis, lang, totals)
        assert {-1, 1} <= signs, f"{axis} {lang}: differences of length all lean one way"


@pytest.mark.parametrize("lang", LANGS)
def test_no_duplicate_texts(lang):
    options = [t for item in ITEMS for t in option_texts(item, lang)]
    questions = [q for item in ITEMS for q in item["question"][lang]]
    assert len(options) == len(set(options))
    assert len(questions) == len(set(questions))


def test_no_forbidden_words():
    for item in ITEMS:
        for text in all_texts(item, "en"):
            assert not FORBIDDEN_EN.search(text), (item["id"], text)
        for text in all_texts(item, "ko"):
            assert not FORBIDDEN_KO.search(text), (item["id"], text)


@pytest.mark.parametrize("lang", LANGS)
def test_paraphrases_differ_in_wording(lang):
    for item in ITEMS:
        for p, q in itertools.combinations(item["question"][lang], 2):
            a, b = set(re.findall(r"\w+", p.lower())), set(re.findall(r"\w+", q.lower()))
            assert len(a & b) <= 0.75 * min(len(a), len(b)), (item["id"], p, q)


@pytest.mark.parametrize("lang", LANGS)
def test_scenes_are_distinct(lang):
    content = content_en if lang == "en" else content_ko
    whole = {i["id"]: content(*all_texts(i, lang)) for i in ITEMS}
    scene = {i["id"]: content(*i["question"][lang]) for i in ITEMS}
    for kind in (whole, scene):
        for (i, a), (j, b) in itertools.combinations(kind.items(), 2):
            shared = a & b
            assert len(shared) <= 0.5 * min(len(a), len(b)), (i, j, shared)


@pytest.mark.parametrize("lang", LANGS)
def test_no_word_gives_the_pole_away(lang):
    """No content word stands in more than a third of one pole's options, and not the other's."""
    content = content_en if lang == "en" else content_ko
    for axis, items in BY_AXIS.items():
        counts = [collections.Counter(), collections.Counter()]
        for item in items:
            for counter, text in zip(counts, option_texts(item, lang), strict=True):
                counter.update(content(text))
        for one, other in (counts, counts[::-1]):
            for word, n in one.items():
                assert n - other[word] <= len(items) / 3, (axis, lang, word, n, other[word])
