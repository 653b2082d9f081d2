"""A set that repeats itself is found out, from the row where it begins; one that does not is left alone."""

import csv
import json
import random
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.cli import COMMANDS
from personalign.datasets.contamination import Item, copies, read_items, run_length
from personalign.datasets.diversity import Sample, diversity, read_samples
from personalign.datasets.growth import LEAST, Growth, collapse, curve, earlier, growth
from personalign.datasets.similarity import rouge_l
from personalign.datasets.topics import script, top_words, words
from personalign.diversity_command import Diversity
from personalign.diversity_command import diversity as command
from personalign.errors import UserError
from personalign.evaluation.diversity_report import diversity_table, headline, write_diversity
from personalign.evaluation.views import labels

SYLLABLES = "가나다라마바사아자차카타파하고노도로모보소오조초코토포호구누두루무부수우주추쿠투푸후기니디리미비시이지치"


def sentences(n, seed=0, korean=False):
    """Sentences that have nothing in common but chance."""
    draw = random.Random(seed)
    letters = SYLLABLES * 8 if korean else "abcdefghijklmnopqrstuvwxyz"
    size = 2 if korean else 4
    return [" ".join("".join(draw.choices(letters, k=size)) for _ in range(9)) for _ in range(n)]


def collapsing(fresh=100, stale=200, seed=0, korean=False):
    """Polaris' set: `fresh` questions, and then one of them again and again with a word changed."""
    texts, draw = sentences(fresh, seed, korean), random.Random(seed)
    for other in sentences(stale, seed + 1, korean):
        old = draw.choice(texts[:fresh]).split()
        old[draw.randrange(9)] = other.split()[0]
        texts.append(" ".join(old))
    return texts


def samples(texts, persona="p", answers=()):
    answers = [*answers, *[""] * (len(texts) - len(answers))]
    rows = zip(texts, answers, strict=True)
    return [
        Sample(f"{persona}.jsonl:{at}", persona, text, answer, tuple(filter(None, (text, answer))))
        for at, (text, answer) in enumerate(rows, 1)
    ]


# Repetition as a set grows


@given(st.lists(st.sampled_from("the cat sat on a mat 오늘 날씨가 좋다".split()), max_size=6).map(" ".join), st.data())
@settings(deadline=None, max_examples=40)
def test_every_text_is_compared_with_all_before_it_and_no_other(text, data):
    texts = [text, *data.draw(st.lists(st.sampled_from([text, "the cat", "날씨가 좋다", "", "!?"]), max_size=5))]
    for at, scores in enumerate(earlier(texts)):
        assert scores.tolist() == [rouge_l(texts[at], other) for other in texts[:at]]


def test_blocks_make_no_difference():
    texts = sentences(300)
    rows = list(earlier(texts))
    assert [len(row) for row in rows] == list(range(300))
    for at in (1, 127, 128, 129, 299):
        assert rows[at][at // 2] == rouge_l(texts[at], texts[at // 2])


def test_the_nearest_earlier_text_is_found_with_its_place():
    found = growth(["one two three", "four five six", "one two four", "four five six"])
    assert found.place.tolist()[1:] == [0, 0, 1]
    assert found.nearest.tolist() == [0, 0, pytest.approx(2 / 3), 1]
    assert found.average[3] == pytest.approx((0 + 1 + 1 / 3) / 3)


def test_clusters_are_single_link_so_a_text_between_two_joins_them():
    ends, between = ["a b c d e f g h", "e f g h i j k l"], "c d e f g h i j"
    assert growth(ends, 0.7).cluster.tolist() == [0, 1]
    assert growth([*ends, between], 0.7).cluster.tolist() == [0, 0, 0]
    assert growth([*ends, between], 0.76).cluster.tolist() == [0, 1, 2]


@pytest.mark.parametrize("korean", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fresh", [20, 100, 333])
def test_a_collapse_is_found_at_the_row_where_it_begins(fresh, seed, korean):
    found = growth(collapsing(fresh, 100, seed, korean))
    stretch = collapse(found.nearest > 0.7)
    assert (stretch.start, stretch.end) == (fresh, fresh + 100)
    assert stretch.repeats == 1 and stretch.before == 0


@pytest.mark.parametrize("korean", [False, True])
def test_a_set_that_goes_on_saying_something_new_does_not_collapse(korean):
    found = growth(sentences(1000, korean=korean))
    assert collapse(found.nearest > 0.7) is None
    assert curve(found)[-1]["nearest"] < 0.5


def test_repeats_that_are_strewn_over_the_set_are_no_collapse():
    """Nor is a set in which every third row repeats: it is said to repeat itself, but nowhere does it begin to."""
    draw = random.Random(1)
    for _ in range(20):
        assert collapse([draw.random() < 0.3 for _ in range(5000)]) is None


def test_a_stretch_may_end_and_the_set_go_on():
    flags = [False] * 50 + [True, True, False] * 40 + [False] * 60
    stretch = collapse(flags)
    assert (stretch.start, stretch.end) == (50, 169)  # the last row of the stretch is its last repeat
    assert stretch.repeats == pytest.approx(80 / 119)


def test_nineteen_repeats_are_too_few_and_twenty_are_enough():
    assert collapse([False] * 5 + [True] * (LEAST - 1)) is None
    assert collapse([False] * 5 + [True] * LEAST).start == 5


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=6))
@settings(deadline=None)
def test_the_stretch_is_the_one_with_the_largest_excess_of_repeats(runs):
    flags = [flag for flag, length in runs for _ in range(length)]
    sums = [0, *np.cumsum([1 if flag else -1 for flag in flags])]
    best = max((sums[b] - sums[a] for b in range(len(sums)) for a in range(b)), default=0)
    stretch = collapse(flags)
    if best < LEAST:
        assert stretch is None
    else:
        inside = flags[stretch.start : stretch.end]
        assert 2 * sum(inside) - len(inside) == best
        assert inside[0] and inside[-1]


@pytest.mark.parametrize("n", [2, 9, 200, 201, 5000, 300_000])
def test_the_curve_has_at_most_forty_points_and_covers_every_row_after_the_first(n):
    flat = np.full(n, 0.25)
    points = curve(Growth(flat, flat, flat, flat))
    assert len(points) <= 40 and points[-1]["row"] == n
    assert {point["nearest"] for point in points} == {0.25}


# Words and scripts


def test_words_are_those_of_rouge_in_english_and_eojeols_without_particles_in_korean():
    assert words("Don't STOP, it's 3 o'clock!") == ["don", "t", "stop", "it", "s", "3", "o", "clock"]
    assert words("회사에서 동료를 만났다. 회사는 바쁘다") == ["회사", "동료", "만났다", "회사", "바쁘다"]
    assert words("나는 집에 간다") == ["나는", "집에", "간다"]  # two syllables are left alone
    assert words("각") == words("\u1100\u1161\u11a8")  # as some systems store it


def test_the_words_that_stand_out_are_what_a_persona_talks_about():
    found = top_words(
        {
            "cook": ["I like the soup with salt", "You should put salt in the soup", "The soup is good"],
            "sailor": ["I like the wind on the sea", "You should fear the wind", "The sea is good"],
        }
    )
    assert found["cook"] == [("salt", pytest.approx(2 / 3)), ("soup", 1)]  # 2/3 ln(6/2) and 3/3 ln(6/3)
    assert {word for word, _ in found["sailor"]} == {"wind", "sea"}


def test_korean_words_that_stand_out_are_nouns_without_their_particles():
    found = top_words(
        {
            "구직자": ["면접에서 또 떨어졌어요", "면접이 너무 무서워요", "면접은 정말 싫어요 고양이가"],
            "농부": ["고양이가 밭에서 자요", "고양이를 봤어요 너무 좋아요", "감자밭에서 고양이가 자요"],
        }
    )
    assert [word for word, _ in found["구직자"]] == ["면접"]
    assert [word for word, _ in found["농부"]] == ["고양이"]  # 이 belongs to the word: no 고양 is seen


def test_a_word_that_every_row_holds_says_nothing():
    assert top_words({"p": ["tea now", "tea later", "tea"]}) == {"p": []}


@pytest.mark.parametrize(
    ("text", "hangul", "latin"),
    [("안녕 hi!", 0.5, 0.5), ("ㅋㅋㅋ", 1, 0), ("Größe 3", 0, 1), ("你好", 0, 0), ("12", 0, 0)],
)
def test_the_script_of_a_text_is_that_of_its_letters(text, hangul, latin):
    assert script(text) == (hangul, latin)


# The whole set


def test_numbers_of_a_set():
    rows = samples(["What is tea?", "What is tea?", "오늘 뭐 먹지?"], "a", ["A drink.", "A plant.", "밥과 rice"])
    found = diversity([*rows, *samples(["Who are you?"], "b", ["Me."])])
    assert found["rows"] == 4 and list(found["parts"]) == ["prompt", "answer"]
    prompts = found["parts"]["prompt"]
    assert (prompts["texts"], prompts["identical"], prompts["repeats"]) == (4, 1, 0.5)
    assert prompts["clusters"]["sizes"] == {"1": 2, "2": 1}
    assert prompts["clusters"]["largest"] == [
        {"rows": 2, "persona": "a", "text": "What is tea?", "source": "a.jsonl:1"}
    ]
    assert prompts["language"]["texts"] == {"ko": 1, "en": 3, "mixed": 0, "other": 0}
    assert found["parts"]["answer"]["language"]["texts"]["mixed"] == 1
    assert prompts["length"]["words"]["median"] == 3 and sum(prompts["length"]["words"]["counts"]) == 4
    assert [(each["name"], each["rows"]) for each in found["personas"]["each"]] == [("a", 3), ("b", 1)]
    assert found["personas"]["evenness"] == pytest.approx(0.8113, abs=1e-4)  # entropy of 3:1 in bits
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_personas_that_answer_the_same_prompts_do_not_repeat_each_other():
    texts = sentences(60)
    found = diversity([*samples(texts, "a"), *samples(texts, "b")])
    assert found["parts"]["prompt"]["repeats"] == 0
    assert (
        diversity([*samples(texts, "a"), *samples(texts, "a")])["parts"]["prompt"]["growth"][0]["collapse"]["row"] == 61
    )


def test_prompts_that_are_used_again_word_for_word_may_be_meant_so_and_the_report_says_it():
    again = diversity(samples(sentences(60) * 2))
    assert again["parts"]["prompt"]["growth"][0]["collapse"]["verbatim"] == 1
    said = labels("en")["div_verbatim"].format(part="prompts")
    assert said in diversity_table(again) and said not in diversity_table(diversity(samples(collapsing())))


def test_personas_are_compared_after_equally_many_words():
    chatty = ["one two three four five"] * 4
    found = diversity([*samples([""] * 4, "a", chatty), *samples([""], "b", ["one two three four five"])])
    assert found["personas"]["words_compared"] == 5
    assert [each["distinct_2"] for each in found["personas"]["each"]] == [1, 1]


def test_they_are_compared_over_the_whole_of_the_set_and_not_over_its_beginning():
    calm, grumpy = sentences(40, 8), sentences(40, 9) + ["and the same words all over again"] * 160
    found = diversity([*samples([""] * 40, "a", calm), *samples([""] * 200, "b", grumpy)])
    fresh, stale = (each["distinct_2"] for each in found["personas"]["each"])
    assert fresh > 0.95 and stale < 0.6


def test_texts_without_latin_or_hangul_are_counted_as_not_compared():
    found = diversity(samples(["你好", "你好", "Hello there"]))
    assert found["parts"]["prompt"]["uncompared"] == 2
    assert labels("en")["div_uncompared"].format(part="prompts", n=2) in diversity_table(found)


def test_texts_that_come_close_without_repeating_are_told_apart_from_repeats():
    """Four of nine words changed: ROUGE-L is 5/9."""
    texts, draw = sentences(80), random.Random(2)
    for other in sentences(60, 4):
        old = draw.choice(texts[:80]).split()
        for at in draw.sample(range(9), 4):
            old[at] = other.split()[at]
        texts.append(" ".join(old))
    found = diversity(samples(texts))
    assert found["parts"]["prompt"]["repeats"] < 0.1
    assert (
        headline(found) == "From row 81 on, 100% of the new prompts come close to an earlier one (ROUGE-L above 0.50)."
    )


def test_a_row_alone_is_too_few_to_say_anything():
    found = diversity(samples(["Hello?"]))
    assert found["parts"]["prompt"]["repeats"] is None
    assert headline(found) == "Too few rows to say whether the data repeats itself."


# Rows of files


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_every_form_gives_what_is_asked_and_what_is_answered(tmp_path):
    pair = {"prompt": "Hi?", "chosen": "Yes!", "rejected": "No."}
    chat = [("user", "Hi?"), ("assistant", "Yo."), ("user", "And?"), ("assistant", "So.")]
    chat = {"messages": [{"role": role, "content": text} for role, text in chat], "persona": {"name": "Mo"}}
    ranked = {"prompt": "Hi?", "completion_0": "worse", "completion_1": "best", "ranking": [1, 0], "persona": "Al"}
    files = [
        write(tmp_path / name, [row]) for name, row in (("ENFP.jsonl", pair), ("b.jsonl", chat), ("c.jsonl", ranked))
    ]
    files.append(write(tmp_path / "d.jsonl", [{"instruction": "Say", "input": "it"}, {"instruction": None}]))
    found, problems = read_samples(files)
    assert [(each.persona, each.prompt, each.answer) for each in found] == [
        ("ENFP", "Hi?", "Yes!"),
        ("Mo", "Hi?\nAnd?", "Yo.\nSo."),
        ("Al", "Hi?", "best"),
        ("d", "Say\n\nit", ""),
    ]
    assert found[0].messages == ("Hi?", "Yes!", "No.") and found[0].source == f"{files[0]}:1"
    assert [problem.source for problem in problems] == [f"{files[3]}:2"]


def test_a_file_without_prompts_is_refused_with_its_columns(tmp_path):
    with pytest.raises(UserError, match="colour"):
        read_samples([write(tmp_path / "x.jsonl", [{"colour": "red"}])])


# Copies of a benchmark's items

LONG = "Jordan forgot the birthday of a close friend and went sailing on the lake instead that day"


def test_items_are_read_from_the_forms_of_the_benchmarks(tmp_path):
    social = {"context": LONG, "question": "How would Jordan feel afterwards?", "answerA": "sorry", "label": "1"}
    assert [item.text for item in read_items(write(tmp_path / "social.jsonl", [social]))] == [
        f"{LONG} How would Jordan feel afterwards?"
    ]
    turns = {"question_id": 81, "turns": ["Write a poem about a lake.", "Now write it without any vowel."]}
    assert [item.text for item in read_items(write(tmp_path / "mt.jsonl", [turns]))] == turns["turns"]
    emotions = tmp_path / "emotions.json"
    emotions.write_text(json.dumps({"1": {"prompt": LONG}, "7b": {"prompt": "What does Kim feel at the end?"}}))
    assert [item.source for item in read_items(emotions)] == [f"{emotions}:1", f"{emotions}:7b"]
    table = tmp_path / "safe.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "prompt", "note"], ["1", "How do I kill a running process?", "a" * 99]])
    assert [(item.text, item.source) for item in read_items(table)] == [
        ("How do I kill a running process?", f"{table}:1")
    ]
    with pytest.raises(UserError, match="holds no text of 5 words"):
        read_items(write(tmp_path / "short.jsonl", [{"prompt": "Why?"}]))


def test_the_run_that_must_be_shared_is_as_long_as_gpt3s_rule_says():
    assert run_length([["w"] * 40] * 20) == 13
    assert run_length([["w"] * 10] * 20) == 10
    assert run_length([["w"] * 6] * 20) == 8
    assert run_length([["가나"] * 40] * 20) == 8


def found_in(message, *items):
    return copies([("data:1", [message])], [Item(text, f"bench:{at}") for at, text in enumerate(items, 1)])


def test_a_row_that_holds_thirteen_words_of_an_item_in_a_row_is_named():
    shared = " ".join(LONG.split()[3:16])
    (copy,) = found_in(f"Somebody once told me: {shared.upper()}! What now, dear friend of mine?", LONG)
    assert (copy.row, copy.item, copy.shared) == ("data:1", "bench:1", shared)
    assert copy.score == pytest.approx(rouge_l(copy.text, copy.item_text))
    assert found_in(f"Somebody once told me: {' '.join(LONG.split()[3:15])}, and nothing else at all.", LONG) == []


def test_a_short_item_counts_where_all_of_it_is_said():
    item = "How do I kill a process?"
    (copy,) = found_in("My computer hangs and I am late for work. How do I kill a process? Please help me.", item)
    assert copy.shared == "how do i kill a process" and copy.score < 0.8
    assert found_in("My computer hangs and I am late for work. How do I kill a mouse? Please help me.", item) == []


def test_a_row_that_nearly_equals_an_item_is_named_though_no_run_is_shared():
    (copy,) = found_in(LONG.replace("close friend", "dear pal").replace("lake", "sea"), LONG)
    assert copy.shared == "" and copy.score >= 0.8


def test_korean_items_are_found_with_other_particles():
    item = "민수는 회사에서 동료의 실수를 덮어 주었고 나중에 그 일로 크게 혼났다 민수의 기분은 어떨까"
    (copy,) = found_in(
        "민수가 회사에서 동료 실수를 덮어 주었고 나중에 그 일로 크게 혼났다. 민수는 어떤 기분일까?", item
    )
    assert copy.shared and copy.score > 0.7
    assert found_in("회사에서 실수를 했는데 어떻게 말해야 할까요? 내일 출근하기가 무서워요.", item) == []


def test_the_instructions_of_a_benchmark_are_not_its_items():
    """Twelve items that begin alike: a row with that beginning copies none of them."""
    opening = "Read the dialogue below with care and say what each of the two people must be feeling at its end"
    items = [f"{opening}: {body}" for body in sentences(12)]
    assert found_in(f"{opening}, please, for my homework of this week, which is due tomorrow morning", *items) == []
    assert [copy.item for copy in found_in(items[4], *items)] == ["bench:5"]


def test_the_set_says_which_rows_and_how_many():
    texts = sentences(30)
    texts[11] = LONG
    rows = samples(texts)
    items = {"bench.csv": [Item(LONG, "bench.csv:3"), Item(sentences(1, 9)[0], "bench.csv:4")]}
    found = diversity(rows, items)
    assert found["against"]["files"] == [{"file": "bench.csv", "items": 2, "rows": 1, "items_found": 1}]
    assert [(copy["row"], copy["item"]) for copy in found["against"]["copies"]] == [("p.jsonl:12", "bench.csv:3")]
    assert headline(found) == "Items of a benchmark are in this data (1 of 30 rows)."
    assert re.search(r"\| p.jsonl:12 +\| bench.csv:3 +\| 1.00 +\| jordan forgot the birthday", diversity_table(found))
    assert diversity(rows)["against"] is None


# The report


@pytest.fixture(scope="module", params=["en", "ko"])
def written(request, tmp_path_factory):
    language, folder = request.param, tmp_path_factory.mktemp("report")
    texts = collapsing(korean=language == "ko")
    answers = [*sentences(299, 5), "<script>alert('|')</script> " + LONG]
    against = {"bench.csv": [Item(LONG, "bench.csv:3")]}
    summary = diversity(samples(texts, answers=answers), against)
    return language, summary, folder, write_diversity(summary, folder, language)


def test_the_headline_names_the_row_where_it_begins(written):
    language, summary, folder, _ = written
    said = {
        "en": "From row 101 on, 100% of the new prompts repeat an earlier one.",
        "ko": "101번째 행부터 새 질문의 100%가 앞의 것을 되풀이합니다.",
    }[language]
    assert headline(summary, language) == said
    for file in ("diversity.md", "diversity.html"):
        text = (folder / file).read_text(encoding="utf-8")
        assert said in text and "p.jsonl:101" in text
    assert said in diversity_table(summary, language)


def test_the_figure_shows_the_row_too(written):
    language, _, folder, _ = written
    text = (folder / "figures" / "div_growth.svg").read_text(encoding="utf-8")
    assert labels(language)["div_growth_from"].format(row=101) in text


def test_the_report_is_a_page_the_markdown_the_numbers_and_figures(written):
    language, summary, folder, paths = written
    names = ["diversity.json", "diversity.md", "diversity.html"]
    names += [f"figures/div_{name}.svg" for name in ("growth", "clusters", "lengths", "personas")]
    assert paths == [folder / name for name in names]
    assert json.loads(paths[0].read_text(encoding="utf-8")) == summary
    for figure in paths[3:]:
        ElementTree.parse(figure)
    text = paths[2].read_text(encoding="utf-8")
    assert f'<html lang="{language}">' in text and "{" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_texts_of_others_stay_text(written):
    _, _, folder, _ = written
    page = (folder / "diversity.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert LONG in (folder / "diversity.md").read_text(encoding="utf-8")


def test_several_personas_are_named_where_they_collapse(tmp_path):
    found = diversity([*samples(sentences(150, 3), "calm"), *samples(collapsing(40, 60), "grumpy")])
    assert headline(found) == "From row 41 of grumpy on, 100% of the new prompts repeat an earlier one."
    assert "grumpy: 41번째 행부터" in headline(found, "ko")
    write_diversity(found, tmp_path)
    assert "calm" in (tmp_path / "figures" / "div_growth.svg").read_text(encoding="utf-8")


def test_a_set_without_a_fault_is_said_to_have_none():
    text = diversity_table(diversity(samples(sentences(200))))
    assert text.startswith("No collapse: of the prompts, 0% repeat an earlier one.")
    assert "--against" in text


def test_rows_that_cannot_be_read_are_counted_and_the_first_is_named(tmp_path, capsys):
    path = write(tmp_path / "x.jsonl", [{"prompt": text} for text in sentences(5)] + [{"prompt": ""}])
    command(Diversity(files=(path,)))
    shown = capsys.readouterr().out
    assert f"not counted here: 1; the first: {path}:6: `prompt` is empty" in shown


def test_the_command_prints_and_writes(tmp_path, capsys):
    rows = [{"prompt": text, "completion": LONG if at == 7 else "Yes."} for at, text in enumerate(collapsing(50, 50))]
    data, bench = write(tmp_path / "d.jsonl", rows), write(tmp_path / "bench.jsonl", [{"question": LONG}])
    command(Diversity(files=(data,), against=(bench,), language="ko", output=str(tmp_path / "out")))
    shown = capsys.readouterr().out
    assert "51번째 행부터" in shown and str(tmp_path / "out" / "diversity.html") in shown
    assert f"{bench}: 문항 1개 가운데 1개가" in shown
    with pytest.raises(UserError, match="No row can be read"):
        command(Diversity(files=(write(tmp_path / "bad.jsonl", [{"prompt": 3}]),)))


def test_the_command_is_in_the_table():
    assert COMMANDS["data diversity"][0] == "personalign.diversity_command:diversity"
