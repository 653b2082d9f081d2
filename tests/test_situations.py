"""`situations`: made in rounds, each new one unlike all before it, from seeds or from the user's own material."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.clients import Answer
from personalign.datasets import everyday
from personalign.datasets.similarity import rouge_l
from personalign.errors import UserError
from personalign.synthesis.material import page_text, passages
from personalign.synthesis.situations import Situations, make_situations, read_situations
from scripted import Scripted, scripted_job

RECORDED = Path(__file__).parent / "recorded"
PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>Allotments</title><style>p {color: red}</style></head>
<body><header>Logo</header><nav><ul><li>Home<li>About</ul></nav>
<main><h1>A year on the allotment</h1><p>In <b>March</b> the neighbours &amp; I dig.<br>Someone always
forgets the&nbsp;spade.</p><script>if (1 < 2) { track("<p>no</p>") }</script>
<ul><li>Tomatoes</li><li>Beans</li></ul><p>Then it rains.</p></main><footer>Imprint</footer></body></html>"""


def made(folder: Path, client: Scripted, language: str = "en", **settings) -> list[dict]:
    with scripted_job(folder, client, language=language) as job:
        return make_situations(job, Situations(**settings), [])


def quarantined(folder: Path) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "situations.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def fresh(request) -> str:
    """Five situations that share few words with any other."""
    names = [f"{request.draw}x{each}" for each in range(5)]
    return json.dumps({"situations": [f"Meeting a{name} and b{name} at the c{name} market" for name in names]})


def test_rounds_go_on_until_there_are_enough_and_each_shows_what_the_earlier_ones_kept(tmp_path, capsys):
    client = Scripted(fresh)
    rows = made(tmp_path, client, count=20, batch=5, calls=2)
    assert len(rows) >= 20 and [row["round"] for row in rows] == sorted(row["round"] for row in rows)
    assert len({row["situation"] for row in rows}) == len(rows)
    later = "\n".join(request.messages[1]["content"] for request in client.asked[2:])
    assert any(row["situation"] in later for row in rows if row["round"] == 1)
    assert "Write 5 more" in later and "round 2:" in capsys.readouterr().err
    assert (
        rows[0]["requests"] == [1]
        and rows[0]["source"] == "seeds"
        and rows[0]["prompt_id"].startswith("situations.en@")
    )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_of_recorded_answers_nine_in_ten_are_kept_and_what_repeats_is_set_apart(tmp_path, language):
    recorded = yaml.safe_load((RECORDED / f"situations.{language}.yaml").read_text(encoding="utf-8"))
    client = Scripted(lambda request: recorded[request.draw])
    rows = made(tmp_path, client, language, count=20, rounds=1)
    (repeated,) = quarantined(tmp_path)
    assert len(rows) == 19 and len(client.asked) == 2  # none had to be asked to mend its form
    assert repeated["reason"].startswith("too close to an earlier one") and repeated["requests"] == [2]
    assert not any(row["situation"][0].isdigit() for row in rows)


def test_what_comes_too_close_to_a_seed_to_the_bundled_data_or_to_each_other_is_set_apart(tmp_path):
    seed, held_out = read_situations(None, "en")[0], everyday("en", "held_out")[0].text
    new = "Repairing a sailing boat with a grumpy uncle"
    other = "Judging a pie contest in the village"
    texts = [seed + " again", held_out, new, new.replace("a grumpy", "my grumpy"), other]
    client = Scripted(lambda request: json.dumps({"situations": texts}))
    rows = made(tmp_path, client, count=20)
    assert [row["situation"] for row in rows] == [new, other]
    apart = quarantined(tmp_path)
    assert len(apart) == 3 + 5 * (len(client.asked) - 1)
    assert all(row["reason"].startswith("too close to an earlier one") for row in apart)
    assert rows[1]["similarity"] >= round(rouge_l(other, new), 3)  # to the nearest, whichever it is
    assert len({row["round"] for row in rows}) == 1  # the later ones brought nothing


def test_korean_near_copies_are_found_by_syllables(tmp_path):
    first, other = "빵집 앞에서 옛 담임 선생님을 우연히 만났을 때", "보일러가 멈춘 겨울밤에 집주인과 통화할 때"
    texts = [first, first.replace("선생님을", "선생님과"), other]
    client = Scripted(lambda request: json.dumps({"situations": texts}, ensure_ascii=False))
    rows = made(tmp_path, client, "ko", count=10)
    assert [row["situation"] for row in rows] == [first, other]
    assert rows[0]["prompt_id"].startswith("situations.ko@")


def test_marks_of_a_list_come_off_and_what_is_no_situation_is_set_apart(tmp_path):
    texts = [
        "1. Painting the fence with a neighbour",
        "- *Feeding ducks* in the pouring rain",
        "Hm",
        "x" * 400,
        "우산 없이 비 오는 날 마중 나가기",
    ]
    rows = made(tmp_path, Scripted(lambda request: json.dumps(texts, ensure_ascii=False)), count=2)
    assert [row["situation"] for row in rows] == [
        "Painting the fence with a neighbour",
        "Feeding ducks in the pouring rain",
    ]
    assert [row["reason"].split(":")[0] for row in quarantined(tmp_path)[:3]] == [
        "too short for a situation", "too long for a situation", "not in the language",
    ]  # fmt: skip


def test_a_model_that_gives_nothing_ends_after_two_rounds_and_says_so(tmp_path, capsys):
    client = Scripted(lambda request: "blah")
    assert made(tmp_path, client, count=30) == []
    assert len(client.asked) == 12  # twice three requests for ten, and their repairs
    told = capsys.readouterr().err
    assert "situations: 0 of the 30 wanted" in told and "6 x twice not in form" in told
    assert all(row["text"] == "blah" and len(row["requests"]) == 2 for row in quarantined(tmp_path))


def test_of_a_long_job_two_requests_come_first_and_tell_what_it_will_cost(tmp_path, capsys):
    client = Scripted(fresh)
    rows = made(tmp_path, client, count=100, batch=5)
    assert sum(row["round"] == 1 for row in rows) == 10  # of two requests
    assert "situations: 20 items; after 2 of them the whole is estimated at about" in capsys.readouterr().err


def test_a_killed_run_goes_on_from_the_ledger_and_writes_the_same_file(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    made(whole, Scripted(fresh), count=30, batch=5, calls=2)

    def breaks(request) -> str | Answer:
        if request.draw == 3:
            raise KeyboardInterrupt
        return fresh(request)

    with pytest.raises(KeyboardInterrupt):
        made(cut, Scripted(breaks), count=30, batch=5, calls=2)
    client = Scripted(fresh)
    made(cut, client, count=30, batch=5, calls=2)
    assert min(request.draw for request in client.asked) == 2 or min(request.draw for request in client.asked) == 3

    def content(folder: Path) -> list[dict]:
        lines = (folder / "situations.jsonl").read_text(encoding="utf-8").splitlines()
        return [{key: value for key, value in json.loads(line).items() if key != "requests"} for line in lines]

    assert content(cut) == content(whole)


def test_seeds_may_be_ours_a_list_or_rows(tmp_path):
    assert len(read_situations(None, "ko")) >= 30 and len(read_situations(None, "en")) >= 30
    (tmp_path / "mine.txt").write_text("1. At the zoo\n\n- At the zoo\nOn a boat\n", encoding="utf-8")
    assert read_situations(tmp_path / "mine.txt", "en") == ["At the zoo", "On a boat"]
    (tmp_path / "mine.jsonl").write_text('{"situation": "At the zoo"}\n{"situation": 3}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.jsonl:2: `situation` is missing"):
        read_situations(tmp_path / "mine.jsonl", "en")
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no situations"):
        read_situations(tmp_path / "none.txt", "en")
    with pytest.raises(UserError, match="cannot be read"):
        read_situations(tmp_path / "missing.txt", "en")


def test_material_is_shown_passage_by_passage_and_named_in_the_rows(tmp_path):
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("My first day at the mill.\n\nThe river rose at night.", encoding="utf-8")
    client = Scripted(fresh)
    rows = made(tmp_path / "run", client, count=10, batch=5, material=[tmp_path / "page.html", tmp_path / "notes.txt"])
    asked = [request.messages[1]["content"] for request in client.asked]
    assert "A year on the allotment" in asked[0] and "My first day at the mill." in asked[1]
    assert {row["source"] for row in rows} == {"page.html, passage 1", "notes.txt, passage 1"}


# material ------------------------------------------------------------------------------------------------------------


def test_the_text_of_a_page_is_what_a_reader_reads():
    assert page_text(PAGE) == (
        "A year on the allotment\n\nIn March the neighbours & I dig.\nSomeone always forgets the spade.\n\n"
        "Tomatoes\n\nBeans\n\nThen it rains."
    )


def test_a_page_that_leaves_its_head_or_menu_open_loses_no_text():
    assert page_text("<head><title>x<body><p>One<p>Two") == "One\n\nTwo"
    assert page_text("<nav><a>Menu<main>Text</main>") == "Text"


def test_old_korean_pages_and_texts_are_read_in_their_encoding(tmp_path):
    text = "오래된 게시판의 글입니다."
    (tmp_path / "old.html").write_bytes(f'<meta charset="euc-kr"><p>{text}</p>'.encode("cp949"))
    (tmp_path / "old.txt").write_bytes(text.encode("cp949"))
    (tmp_path / "new.md").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [piece.text for piece in passages([tmp_path])] == [text] * 3


def test_material_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "empty.html").write_text("<script>1</script>")
    (tmp_path / "blob.txt").write_bytes(b"\xff\xff\xff")
    (tmp_path / "nothing").mkdir()
    for name, match in [
        ("empty.html", "holds no text"),
        ("blob.txt", "neither UTF-8 nor Korean"),
        ("missing.txt", "cannot be read"),
        ("book.pdf", "unknown kind of material"),
        ("nothing", "holds no .txt"),
    ]:
        with pytest.raises(UserError, match=match):
            passages([tmp_path / name])


SENTENCES = st.lists(st.sampled_from(["abc", "de f.", "ghi! ", "j" * 70]), min_size=1, max_size=12).map(" ".join)


@settings(deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=4), st.integers(50, 300))
def test_passages_are_short_enough_and_lose_nothing(tmp_path_factory, paragraphs, length):
    path = tmp_path_factory.mktemp("material") / "x.txt"
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    pieces = [piece.text for piece in passages([path], length)]
    assert all(0 < len(piece) <= length for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join("".join(paragraphs).split())
