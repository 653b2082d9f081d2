"""`imitate`: from chat exports (invented, in the apps' manner) to a persona and rows; nothing private leaves the file."""

import json
import re
from pathlib import Path

import pytest

from personalign.datasets import lint_file, read_conversations
from personalign.errors import UserError
from personalign.personas import Persona
from personalign.synthesis.imitate import CONSENT, Imitate, make_imitate
from scripted import Scripted, said, scripted_job

HERE = Path(__file__).parent / "recorded"
# a provider's manner: a sentence before, fences, and a name that it should not know
BOSS = """이 사람의 메시지를 정리해 보았습니다.

```json
{
  "name": "무뚝뚝한 팀장",
  "description": "아랫사람을 챙기면서도 생색은 내지 않는 팀장. 김하나 씨 같은 팀원에게 숫자와 결론을 먼저 따지는 사람",
  "traits": ["무뚝뚝함", "책임감", "배려", "간결함", "솔직함", "꼼꼼함", "무뚝뚝함"],
  "speaking_style": "짧은 존댓말을 두세 번에 나누어 보내고, '봅시다', '갑시다'처럼 권하는 말로 끝내며, 웃음은 ㅋㅋ 정도로만"
}
```"""
SISTER = """{"name": "The dramatic sister", "description": "a younger sister who turns every errand into theatre",
"traits": ["dramatic", "affectionate", "quick", "self-mocking",], "speaking_style": "in lower case, in short bursts, with mock
solemnity"}"""
SECRETS = {
    "boss.ko.txt": """박준호 준호 이서연 서연 최유진 유진 김민재 민재 010-2345-6789 2345 seoyeon.lee@example.com 양화로
123456-04-789012 789012 drive.example.com 9fK2 hb2024 yujin_design 960315-2345678 960315""".split(),
    "sister.en.txt": """Hannah Brooks Maisie Patel Elm 7946 0018 4471 maisie.brooks@example.org 4929 9012 tickets.example.com
hbrooks""".split(),
}
SPEAKER = {"boss.ko.txt": "박준호 팀장", "sister.en.txt": "Maisie"}
LANGUAGE = {"boss.ko.txt": "ko", "sister.en.txt": "en"}


def made(folder: Path, file: str | Path = "boss.ko.txt", answer: str = BOSS, people=(), **settings):
    """(rows, quarantine, client) of the recorded chat, or of a file."""
    path = HERE / file if isinstance(file, str) else file
    client = Scripted(lambda request: answer)
    given = {"chats": (path,), "speaker": SPEAKER.get(str(file), "나"), "consent": True} | settings
    with scripted_job(folder / "run", client, language=LANGUAGE.get(str(file), "ko")) as job:
        rows = make_imitate(job, Imitate(**given), people)
    apart = (folder / "run" / "imitate.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return rows, [json.loads(line) for line in apart], client


def export(folder: Path, *talk: tuple[str, str, str]) -> Path:
    """(clock, name, text) as a Mac writes it."""
    path = folder / "chat.csv"
    path.write_text(
        "Date,User,Message\n" + "".join(f'2024-05-03 {clock}:00,"{name}","{text}"\n' for clock, name, text in talk),
        encoding="utf-8",
    )
    return path


def messages(row: dict) -> list[str]:
    return [message["content"] for message in row["messages"]]


def test_without_consent_nothing_is_read(tmp_path):
    for language in ("en", "ko"):
        with scripted_job(tmp_path, Scripted(lambda request: BOSS), language=language) as job:
            with pytest.raises(UserError, match=re.escape(CONSENT[language])) as error:
                make_imitate(job, Imitate(chats=(tmp_path / "nowhere.txt",), speaker="나"), ())
        assert "--consent" in str(error.value) and "`consent: true`" in str(error.value)
    assert CONSENT["en"] in (Imitate.model_fields["consent"].description or ""), "the help says what it means"


@pytest.mark.parametrize(("file", "answer"), [("boss.ko.txt", BOSS), ("sister.en.txt", SISTER)])
def test_recorded_chats_become_a_persona_and_rows(file, answer, tmp_path):
    rows, apart, client = made(tmp_path, file, answer, replies=1)
    lost = [row for row in apart if "nothing but laughter" in row["reason"]]
    assert len(rows) >= 20 and lost and len(rows) / (len(rows) + len(lost)) >= 0.9, "of what was answered"
    assert all("answer" in row["reason"] for row in apart if row not in lost)
    learned = read_conversations(tmp_path / "run" / "imitate.jsonl")
    assert [[m["role"] for m in each.messages] for each in learned] == [["user", "assistant"]] * len(rows)
    assert lint_file(tmp_path / "run" / "imitate.jsonl")[1] == 0
    person = Persona.from_yaml(tmp_path / "run" / "persona.yaml")
    assert person.language == LANGUAGE[file] and len(person.examples) == 4
    assert {row["persona"] for row in rows} == {person.name}
    spoken = {tuple(messages(row)) for row in rows}
    assert all((each.user, each.assistant) in spoken for each in person.examples), "examples are what was really said"
    assert len(client.asked) == 1 and "[" not in "".join(each.user + each.assistant for each in person.examples)


@pytest.mark.parametrize(("file", "answer"), [("boss.ko.txt", BOSS), ("sister.en.txt", SISTER)])
def test_nothing_private_is_sent_or_written_anywhere(file, answer, tmp_path, capsys):
    """Neither in rows, quarantine and persona, nor in the ledger with all that was sent, nor on the screen."""
    _, _, client = made(tmp_path, file, answer)
    seen = {path.name: path.read_bytes().decode(errors="replace") for path in (tmp_path / "run").iterdir()}
    assert {"ledger.sqlite", "imitate.jsonl", "imitate.quarantine.jsonl", "persona.yaml"} <= set(seen)
    seen |= {"screen": capsys.readouterr().err, "sent": "\n".join(said(request) for request in client.asked)}
    assert len(seen["sent"]) > 500
    raw = (HERE / file).read_text(encoding="utf-8")
    for secret in SECRETS[file]:
        assert secret in raw, "else the test would look for nothing"
        assert not [place for place, text in seen.items() if secret in text], secret
    assert not [place for place, text in seen.items() if file in text], "files are called after people"


def test_what_the_model_says_is_scrubbed_too(tmp_path):
    made(tmp_path)
    person = Persona.from_yaml(tmp_path / "run" / "persona.yaml")
    assert person.name == "무뚝뚝한 팀장" and "김하나" not in person.description and "[이름] 씨" in person.description
    assert person.traits.count("무뚝뚝함") == 1


def test_messages_become_turns_and_a_silence_begins_anew(tmp_path):
    talk = """09:00 나 다들 일어났어? | 09:01 민수 응 | 09:01 하늘 나도 | 09:02 나 밥은 | 09:03 나 먹었어? | 09:59 민수 이제 먹어
10:05 나 맛있게 먹어 | 12:00 하늘 뭐 해? | 12:01 나 일하지 | 12:02 하늘 그래"""
    path = export(tmp_path, *(tuple(each.split(maxsplit=2)) for each in talk.replace("\n", " | ").split(" | ")))
    rows, apart, _ = made(tmp_path, path)
    assert [messages(row) for row in rows] == [
        ["응\n나도", "밥은\n먹었어?", "이제 먹어", "맛있게 먹어"],
        ["뭐 해?", "일하지"],
    ]
    assert [row["source"] for row in rows] == ["chat-1:2", "chat-1:8"]
    assert [(row["reason"], row["text"]) for row in apart] == [
        ("opens a conversation, answers nothing", "다들 일어났어?"),
        ("was not answered", "그래"),
    ]
    rows, _, _ = made(tmp_path, path, pause=30, replies=1)
    assert [messages(row) for row in rows] == [
        ["응\n나도", "밥은\n먹었어?"],
        ["이제 먹어", "맛있게 먹어"],
        ["뭐 해?", "일하지"],
    ]


def test_a_number_sent_in_three_messages_is_a_number(tmp_path):
    path = export(
        tmp_path,
        ("09:00", "민수", "번호 뭐야"),
        ("09:01", "나", "010"),
        ("09:01", "나", "1234"),
        ("09:01", "나", "5678이야"),
    )
    rows, _, _ = made(tmp_path, path)
    assert messages(rows[0]) == ["번호 뭐야", "[전화번호]이야"]


def test_laughter_alone_teaches_nothing(tmp_path):
    path = export(tmp_path, ("09:00", "민수", "그래서 망했어"), ("09:01", "나", "ㅋㅋㅋㅋ ㅠㅠ"))
    rows, apart, client = made(tmp_path, path)
    assert not rows and apart[0]["reason"] == "nothing but laughter or scrubbed words" and not client.asked


def test_more_words_can_be_hidden(tmp_path):
    path = export(tmp_path, ("09:00", "민수", "한빛물산 다니는 뽀삐 엄마 알아?"), ("09:01", "나", "응, 뽀삐 귀엽지"))
    rows, _, _ = made(tmp_path, path, hide=("한빛물산", "뽀삐"))
    assert messages(rows[0]) == ["[이름] 다니는 [이름] 엄마 알아?", "응, [이름] 귀엽지"]


def test_several_files_are_one_person_and_a_name_from_one_is_hidden_in_all(tmp_path):
    (tmp_path / "b").mkdir()
    first = export(tmp_path, ("09:00", "정민수", "밥 먹자"), ("09:01", "나", "좋아 어디서"))
    second = export(tmp_path / "b", ("09:00", "하늘", "누구랑 있어?"), ("09:01", "나", "민수랑 있어"))
    rows, _, _ = made(tmp_path, first, chats=(first, second))
    assert [(row["source"], messages(row)[1]) for row in rows] == [
        ("chat-1:1", "좋아 어디서"),
        ("chat-2:1", "[이름]랑 있어"),
    ]


def test_a_speaker_who_is_not_there_is_refused_and_those_who_are_named(tmp_path):
    with pytest.raises(UserError, match=r"'박팀장' says nothing .* 박준호 팀장 \(\d+ messages\)"):
        made(tmp_path, speaker="박팀장")


def test_a_model_without_a_description_costs_the_persona_not_the_rows(tmp_path, capsys):
    rows, apart, _ = made(tmp_path, answer="I am I am I am", people=[Persona(name="팀장", description="팀장")])
    assert rows and {row["persona"] for row in rows} == {"팀장"}
    assert not (tmp_path / "run" / "persona.yaml").exists()
    assert apart[0]["reason"].startswith("no description of the speaker: twice not in form")
    assert "no persona.yaml" in capsys.readouterr().err


def test_a_rerun_pays_for_nothing_and_writes_the_same(tmp_path):
    made(tmp_path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("[ip]*.*l")}
    assert len(files) == 3
    _, _, client = made(tmp_path, answer="nobody should ask")
    assert not client.asked
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("[ip]*.*l")} == files
