"""`instruct`: tasks like those that are shown, questions about words, questions to posts; what is left out, and why."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.clients import Answer, Limits, Usage
from personalign.datasets import lint_file, read_conversations
from personalign.datasets.similarity import rouge_l
from personalign.errors import UserError
from personalign.synthesis.filters import KEYWORDS, unfit
from personalign.synthesis.instruct import Instruct, make_instruct
from personalign.synthesis.instruct_inputs import Post, nearest, read_posts, read_seeds, read_words
from scripted import Scripted, said, scripted_job

RECORDED = {
    language: yaml.safe_load((Path(__file__).parent / f"recorded/instruct.{language}.yaml").read_text(encoding="utf-8"))
    for language in ("en", "ko")
}


def recorded(language):
    """A model that answers from tests/recorded, whatever it is asked of that."""
    known = RECORDED[language]

    def answers(request):
        name, text = request.prompt.split(".")[0], said(request)
        if name == "instruct":
            return known["tasks"][request.draw]
        if name == "instruct_words":
            return next(questions for word, questions in known["words"].items() if word in text)
        if name == "instruct_titles":
            return known["titles"]
        asked = [line.split(": ", 1)[1] for line in text.splitlines() if re.match(r"(Question|질문) \d+: ", line)]
        found = [
            {"number": number, "answer": known["answers"][question], "found": question not in known["unsure"]}
            for number, question in enumerate(asked, 1)
        ]
        return json.dumps({"answers": found}, ensure_ascii=False)

    return Scripted(answers)


def quarantined(folder):
    return [json.loads(line) for line in (folder / "instruct.quarantine.jsonl").read_text("utf-8").splitlines()]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# --- tasks like those that are shown ---


@pytest.mark.parametrize("language", ["en", "ko"])
def test_tasks_of_recorded_answers_are_kept_but_for_those_that_need_more_than_text(tmp_path, language):
    with scripted_job(tmp_path, recorded(language), language=language) as job:
        rows = make_instruct(job, Instruct(count=9))
    assert len(rows) == 9
    (left_out,) = quarantined(tmp_path)
    assert left_out["reason"] == {"en": "keyword: Draw", "ko": "keyword: 사진"}[language] and left_out["output"]
    assert {row["prompt_id"] for row in rows} == {f"instruct.{language}@1"} and {row["model"] for row in rows} == {
        "local:scripted"
    }
    assert [row["requests"] for row in rows] == [[1]] * 5 + [[2]] * 4
    assert all(len(row["source"]) == 3 and row["source"][0].startswith(f"seeds.{language}.jsonl:") for row in rows)
    assert all(len(row["most_similar_instructions"]) == 10 and 0 < row["avg_similarity_score"] < 0.7 for row in rows)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_file_is_an_alpaca_file_without_a_bad_row(tmp_path, language):
    with scripted_job(tmp_path, recorded(language), language=language) as job:
        make_instruct(job, Instruct(count=9))
    report, code = lint_file(tmp_path / "instruct.jsonl")
    assert code == 0 and "instruction, input, output" in report.format()
    first = read_conversations(tmp_path / "instruct.jsonl")[0]
    assert [message["role"] for message in first.messages] == ["user", "assistant"]


def task(instruction, output="Yes.", given=""):
    return {"instruction": instruction, "input": given, "output": output}


def telling(*batches):
    """A model that gives these tasks, call after call, and then nothing of use."""
    return Scripted(
        lambda request: json.dumps({"tasks": batches[request.draw]}) if request.draw < len(batches) else "no"
    )


LONDON = "What is the quickest way from London to Bath?"
SOUP = "How much salt belongs into a pot of soup?"
BULB = "Why do light bulbs break when they are switched on?"


def test_another_round_is_asked_for_what_was_left_out_and_differs_from_what_was_kept(tmp_path):
    first = [task(LONDON), task("What is the quickest way from London to Leeds?")]
    model = telling(first, [task(LONDON.replace("quickest", "cheapest")), task(SOUP)])
    with scripted_job(tmp_path, model) as job:
        rows = make_instruct(job, Instruct(count=2, batch=2))
    assert [row["instruction"] for row in rows] == [LONDON, SOUP]
    assert [row["reason"].split(" with ")[0] for row in quarantined(tmp_path)] == [
        "repeats another: rouge-l 0.889",
        "repeats another: rouge-l 0.889",
    ]
    assert len(model.asked) == 2


def test_neighbours_and_mean_similarity_are_those_that_alpaca_keeps(tmp_path):
    seeds = jsonl(tmp_path / "seeds.jsonl", [task(SOUP), task(LONDON)])
    with scripted_job(tmp_path, telling([task("How much salt is in a pot of tea?"), task(BULB)])) as job:
        rows = make_instruct(job, Instruct(count=2, batch=2, seeds=seeds))
    before = [SOUP, LONDON]
    for row in rows:
        expected = {text: rouge_l(row["instruction"], text, "en") for text in before}
        assert row["most_similar_instructions"] == pytest.approx(expected, abs=1e-4)
        assert list(row["most_similar_instructions"].values()) == sorted(
            row["most_similar_instructions"].values(), reverse=True
        )
        assert row["avg_similarity_score"] == pytest.approx(sum(expected.values()) / len(before), abs=1e-4)
        before.append(row["instruction"])


def test_a_seed_is_not_given_back_as_a_task_of_its_own(tmp_path):
    seed = read_seeds(None, "en")[12]
    with scripted_job(tmp_path, telling([seed, task(BULB)])) as job:
        rows = make_instruct(job, Instruct(count=2, rounds=1))
    assert [row["instruction"] for row in rows] == [BULB]


def test_what_call_n_is_shown_depends_on_n_and_the_seed_alone(tmp_path):
    def shown(seed, count):
        model = telling()
        with scripted_job(tmp_path / f"{seed}-{count}", model, seed=seed) as job:
            make_instruct(job, Instruct(count=count))
        # what is no answer in form is asked for again: the first of each pair
        return {request.draw: said(request) for request in model.asked if "repair" not in request.prompt}

    few, many, other = shown(0, 10), shown(0, 30), shown(1, 10)
    assert len(few) == 2 and len(many) == 6 and few.items() <= many.items() and other[0] != few[0]


def test_tasks_of_earlier_rounds_are_shown_where_that_is_wanted(tmp_path):
    model = telling([task(BULB), task(BULB)], [task(SOUP)])
    with scripted_job(tmp_path, model) as job:
        make_instruct(job, Instruct(count=2, batch=2, made=1))
    assert BULB not in said(model.asked[0]) and BULB in said(model.asked[1])


def test_a_model_that_gives_nothing_is_asked_for_one_round_only_and_all_is_accounted_for(tmp_path, capsys):
    model = telling()
    with scripted_job(tmp_path, model) as job:
        assert make_instruct(job, Instruct(count=20)) == []
        answered = sum(row["answered"] for row in job.book.spending())
    assert (tmp_path / "instruct.jsonl").read_text() == ""
    assert [row["reason"].split(":")[0] for row in quarantined(tmp_path)] == ["twice not in form"] * 4
    assert sorted(number for row in quarantined(tmp_path) for number in row["requests"]) == list(range(1, answered + 1))
    shown = capsys.readouterr().err
    assert "instruct: 0 of the 20 that are wanted" in shown and "4 set apart" in shown


def test_tasks_without_output_or_with_numbers_for_text_are_decided_one_by_one(tmp_path):
    batch = [task(SOUP, output=None), {"instruction": LONDON}, task(BULB, output=42), task(7, "x")]
    with scripted_job(tmp_path, telling(batch)) as job:
        (row,) = make_instruct(job, Instruct(count=4, batch=4, rounds=1))
    assert row["output"] == "42"
    assert [row["reason"] for row in quarantined(tmp_path)] == ["no output", "no output", "too short: 1 words"]


def test_what_the_provider_withholds_is_set_apart_with_that_reason(tmp_path):
    model = Scripted(lambda request: Answer("", "filter", Usage(10, 0)))
    with scripted_job(tmp_path, model) as job:
        make_instruct(job, Instruct(count=5))
    assert [row["reason"] for row in quarantined(tmp_path)] == ["withheld by the provider's content filter"]


def test_a_rerun_asks_nothing_and_writes_the_same_bytes(tmp_path):
    def run():
        model = recorded("ko")
        with scripted_job(tmp_path, model, language="ko", limits=Limits(concurrency=2)) as job:
            make_instruct(job, Instruct(count=9))
        return len(model.asked), *((tmp_path / f"instruct{end}.jsonl").read_bytes() for end in ("", ".quarantine"))

    first, again = run(), run()
    assert first[0] == 2 and again[0] == 0 and first[1:] == again[1:]


def test_embeddings_leave_out_what_repeats_another_in_meaning(tmp_path, monkeypatch):
    seen = []

    def embed(texts, model):
        seen.append(model)
        return [[1.0, 0.0] if "soup" in text else [0.0, 1.0] for text in texts]

    monkeypatch.setattr("personalign.synthesis.instruct.embed", embed)
    seeds = jsonl(tmp_path / "seeds.jsonl", [task("Tell me how a violin is tuned.")])
    with scripted_job(tmp_path, telling([task(BULB), task(SOUP)])) as job:
        settings = Instruct(count=2, batch=2, rounds=1, seeds=seeds, embeddings="some/encoder")
        (row,) = make_instruct(job, settings)
    assert seen == ["some/encoder"] and row["instruction"] == SOUP
    assert [row["reason"] for row in quarantined(tmp_path)] == [
        "repeats another: cosine 1.000 with 'Tell me how a violin is tuned.'"
    ]


# --- questions about words ---


def test_questions_about_a_word_are_answered_by_the_model_ten_a_call(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("\nsourdough\n", encoding="utf-8")
    model = recorded("en")
    with scripted_job(tmp_path, model) as job:
        rows = make_instruct(job, Instruct(count=9, words=words, questions=10))
    assert [request.prompt for request in model.asked] == ["instruct_words.en@1", "instruct_answers.en@1"]
    assert len(rows) == 9 and {row["source"] for row in rows} == {f"{words}:2"} and rows[0]["requests"] == [1, 2]
    assert [row["instruction"] for row in rows if not row["found"]] == RECORDED["en"]["unsure"]
    (twice,) = quarantined(tmp_path)
    assert twice["instruction"] == "What is sourdough starter made out of?" and "rouge-l" in twice["reason"]
    assert lint_file(tmp_path / "instruct.jsonl")[1] == 0


def test_words_come_in_turn_and_what_was_asked_about_one_is_not_asked_again(tmp_path):
    model = Scripted(
        lambda request: json.dumps({"questions": [f"Why is number {len(said(request))} of {request.draw} odd?"]})
    )
    (tmp_path / "words.txt").write_text("tea\r\nrain\ntea\n", encoding="utf-8")
    with scripted_job(tmp_path, model) as job:
        make_instruct(job, Instruct(count=50, words=tmp_path / "words.txt", rounds=2, similar=0.99))
    asked = [said(request) for request in model.asked if request.prompt.startswith("instruct_words.en@1")]
    assert ["subject: tea" in text for text in asked] == [True, False, True, False]
    assert ["asked already" in text for text in asked] == [False, False, True, True]


def test_with_posts_a_question_is_answered_from_the_nearest(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("sourdough", encoding="utf-8")
    posts = jsonl(
        tmp_path / "posts.jsonl",
        [
            {"title": "Bicycle lamps", "text": "Dynamos last, batteries do not."},
            {
                "title": "Sourdough for beginners",
                "text": "The starter lives on flour and water. Bakers cut patterns with a razor.",
            },
        ],
    )
    model = recorded("en")
    with scripted_job(tmp_path, model) as job:
        rows = make_instruct(job, Instruct(count=9, words=words, questions=10, posts=posts))
    assert {row["post"] for row in rows} == {f"{posts}:2"} and "Dynamos" not in said(model.asked[1])
    assert len(rows) == 9


# --- questions to posts ---


def test_titles_become_questions_unless_they_are_private_or_ask_nothing_and_posts_answer_them(tmp_path):
    given = RECORDED["ko"]["posts"]
    posts = jsonl(tmp_path / "posts.jsonl", [{"title": title, "text": text} for title, text in given])
    model = recorded("ko")
    with scripted_job(tmp_path, model, language="ko") as job:
        rows = make_instruct(job, Instruct(posts=posts))
    assert len(model.asked) == 2 and len(rows) == 8
    left_out = quarantined(tmp_path)
    assert [(row["reason"], row["source"]) for row in left_out] == [
        ("title is private", f"{posts}:3"),
        ("title is no_question", f"{posts}:5"),
    ]
    assert len(rows) + len(left_out) == len(given)
    assert [row["instruction"] for row in rows if not row["found"]] == RECORDED["ko"]["unsure"]
    assert all(row["source"] == row["post"] for row in rows) and rows[0]["prompt_id"] == "instruct_answers.ko@1"
    assert "302호" in said(model.asked[0]) and "302호" not in said(model.asked[1])
    assert lint_file(tmp_path / "instruct.jsonl")[1] == 0


def test_the_topic_is_named_where_there_is_one(tmp_path):
    model = Scripted(lambda request: "no")
    posts = jsonl(tmp_path / "posts.jsonl", [{"title": "Lamps", "text": "They shine."}])
    with scripted_job(tmp_path, model) as job:
        make_instruct(job, Instruct(posts=posts, topic="bicycles"))
        make_instruct(job, Instruct(posts=posts))
    with_topic, without = (said(request) for request in model.asked if "repair" not in request.prompt)
    assert "nothing to do with bicycles" in with_topic and "off_topic" not in without


def test_every_title_ends_as_a_row_or_in_the_quarantine(tmp_path):
    posts = jsonl(tmp_path / "posts.jsonl", [{"title": f"Post {n}", "text": f"Text {n}."} for n in range(25)])

    def answers(request):
        if request.prompt.startswith("instruct_titles"):
            titles = request.messages[1]["content"]
            if "Post 12" in titles:
                return "I cannot."
            number = int(re.search(r"Post (\d+)", titles)[1])
            asked = [
                {"number": n, "verdict": "ok", "question": f"What about {number + n} {'xyz'[n % 3]} {n}?"}
                for n in range(1, 10)
            ]
            return json.dumps({"questions": asked})
        return json.dumps({"answers": [{"number": n, "answer": "So.", "found": True} for n in range(1, 8)]})

    with scripted_job(tmp_path, Scripted(answers)) as job:
        rows = make_instruct(job, Instruct(posts=posts, similar=0.99))
    left_out = quarantined(tmp_path)
    sources = [row["source"] for row in rows + left_out]
    assert sorted(sources) == sorted(f"{posts}:{n}" for n in range(1, 26))
    reasons = {row["reason"].split(":")[0] for row in left_out}
    assert {"twice not in form", "title left out by the model", "question left without an answer"} <= reasons


def test_a_long_post_is_given_to_the_end_of_a_sentence():
    post = Post("Title", "One two three. " * 20, "x:1")
    assert post.excerpt(100) == "Title\n\n" + ("One two three. " * 6).strip() + " ..."
    assert Post("Title", "x" * 300, "x:1").excerpt(100) == "Title\n\n" + "x" * 100 + " ..."
    assert Post("Title", "Short.", "x:1").excerpt(100) == "Title\n\nShort."


def test_the_nearest_post_shares_the_rarest_terms_whatever_the_particles():
    posts = [
        Post("김치찌개 끓이기", "돼지고기를 볶다가 물을 붓는다.", "1"),
        Post("된장찌개", "물을 붓고 된장을 푼다.", "2"),
    ]
    found = nearest(["된장은 언제 풀어요?", "김치찌개에 고기는 언제 넣어요?", "What about ships?"], posts)
    assert [post and post.source for post in found] == ["2", "1", None]


# --- files ---


def test_bad_files_are_named_with_row_and_field(tmp_path):
    posts = jsonl(tmp_path / "posts.jsonl", [{"title": "Lamps"}, {"title": " ", "text": "x"}])
    with pytest.raises(
        UserError, match=r"posts.jsonl:1: `text` is missing or no text; (.|\n)*posts.jsonl:2: `title` is missing"
    ):
        read_posts(posts)
    with pytest.raises(UserError, match=r"seeds.jsonl:1: `output` is missing"):
        read_seeds(jsonl(tmp_path / "seeds.jsonl", [{"instruction": "Do."}]), "en")
    (tmp_path / "words.txt").write_text("\n \n")
    with pytest.raises(UserError, match="words.txt: holds no word; write"):
        read_words(tmp_path / "words.txt")
    with pytest.raises(UserError, match="missing.txt: cannot be read"):
        read_words(tmp_path / "missing.txt")


@pytest.mark.parametrize("language", ["en", "ko"])
def test_our_seeds_pass_our_own_filters_and_do_not_repeat_each_other(language):
    seeds = read_seeds(None, language)
    assert len(seeds) == 40 and {True, False} == {seed["classification"] for seed in seeds}
    assert [unfit(seed["instruction"], language) for seed in seeds] == [None] * 40
    texts = [seed["instruction"] for seed in seeds]
    assert max(rouge_l(one, other, language) for at, one in enumerate(texts) for other in texts[:at]) <= 0.7
    assert all(seed["output"].strip() for seed in seeds)


# --- filters ---


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Name a fruit", "too short: 3 words"),
        ("Name a red fruit", None),
        ("word " * 151, "too long: 151 words"),
        ("Plot the sales of this year", "keyword: Plot"),
        ("Tell me the plot's turning point", "keyword: plot"),
        ("Explain mapping to a beginner please", None),
        ("Write a program that sorts names", "asks for a program"),
        ("- Tell me a joke", "starts with '-'"),
        ("“Quote” this sentence for me", "starts with '“'"),
        ("   ", "empty"),
    ],
)
def test_english_instructions_are_filtered_as_alpaca_does(instruction, reason):
    assert unfit(instruction, "en") == reason


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("시 한 편 써 줘", None),
        ("자기소개서 써줘", None),
        ("써 줘", "too short: 2 letters"),
        ("'눈이 높다'는 무슨 뜻이야?", None),
        ("「봄봄」의 줄거리를 알려 줘", None),
        ("3월에 심는 채소를 추천해 주세요", None),
        ("- 목록을 만들어 줘", "starts with '-'"),
        ("아래 사진을 보고 설명해 줘", "keyword: 사진"),
        ("동네 사진관에 보낼 문자를 써 줘", None),
        ("그림자가 생기는 까닭은 뭐야?", None),
        ("PPT file을 정리해 줘", "keyword: file"),
        ("고양이를 그려 주세요", "keyword: 그려 주세요"),
        ("이름을 정렬하는 프로그램을 작성하세요", "asks for a program"),
        ("Tell me how to make kimchi", "not in Korean"),
    ],
)
def test_korean_instructions_are_filtered_but_not_for_being_korean(instruction, reason):
    assert unfit(instruction, "ko") == reason


@settings(deadline=None)
@given(st.text())
def test_whatever_a_model_writes_gets_a_verdict_and_what_passes_is_fit(text):
    for language in ("en", "ko"):
        if (reason := unfit(text, language)) is not None:
            assert reason
        else:
            assert text.strip()[0].isascii() or language == "ko"


@settings(deadline=None)
@given(st.lists(st.sampled_from("가나다라마바사아자차카타파하"), min_size=5, max_size=40))
def test_no_korean_is_left_out_for_its_script(letters):
    assert unfit("".join(letters), "ko") is None


@settings(deadline=None)
@given(st.sampled_from(KEYWORDS))
def test_every_keyword_is_found_alone_and_in_capitals(keyword):
    language = "en" if keyword.isascii() else "ko"
    text = f"{'Please do tell me' if language == 'en' else '이것 좀 부탁해요'} {keyword.upper()}"
    assert unfit(text, language) == f"keyword: {keyword.upper()}"
