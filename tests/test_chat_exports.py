"""Exported chats: the same talk as every app and language writes it reads the same."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.errors import UserError
from personalign.synthesis.chat_exports import Chat, read_chats

# what each of these says, with a photo and somebody's coming left out
TALK = [
    ("김하늘", "내일 몇 시에 볼까?", datetime(2024, 5, 3, 14, 22)),
    ("나래", "두 시 어때: 너무 일러?\n역 앞에서 보자", datetime(2024, 5, 3, 14, 23)),
    ("김하늘", "좋아 ㅋㅋ", datetime(2024, 5, 4, 0, 5)),
]

PC_KO = """\ufeff김하늘 님과 카카오톡 대화
저장한 날짜 : 2024-05-05 14:22:10

--------------- 2024년 5월 3일 금요일 ---------------
[김하늘] [오후 2:22] 내일 몇 시에 볼까?
[나래] [오후 2:23] 두 시 어때: 너무 일러?
역 앞에서 보자
[나래] [오후 2:23] 사진 3장
--------------- 2024년 5월 4일 토요일 ---------------
최유진님이 들어왔습니다.
[김하늘] [오전 12:05] 좋아 ㅋㅋ
"""
PC_EN = """KakaoTalk Chats with 김하늘
Date Saved : 2024-05-05 14:22:10

--------------- Friday, May 3, 2024 ---------------
[김하늘] [2:22 PM] 내일 몇 시에 볼까?
[나래] [2:23 PM] 두 시 어때: 너무 일러?

역 앞에서 보자
[나래] [2:23 PM] Photo
--------------- Saturday, May 4, 2024 ---------------
최유진 joined this chatroom.
[김하늘] [12:05 AM] 좋아 ㅋㅋ
"""
ANDROID_KO = """김하늘 님과 카카오톡 대화
저장한 날짜 : 2024년 5월 5일 오후 2:22


2024년 5월 3일 오후 2:22
2024년 5월 3일 오후 2:22, 김하늘 : 내일 몇 시에 볼까?
2024년 5월 3일 오후 2:23, 나래 : 두 시 어때: 너무 일러?
역 앞에서 보자
2024년 5월 3일 오후 2:23, 나래 : 사진

2024년 5월 4일 오전 12:05
2024년 5월 4일 오전 12:05, 최유진님이 들어왔습니다.
2024년 5월 4일 오전 12:05, 김하늘 : 좋아 ㅋㅋ
"""
ANDROID_EN = """KakaoTalk Chats with 김하늘
Date Saved : May 5, 2024 at 2:22\u202fPM


May 3, 2024 at 2:22\u202fPM
May 3, 2024 at 2:22\u202fPM, 김하늘 : 내일 몇 시에 볼까?
May 3, 2024 at 2:23\u202fPM, 나래 : 두 시 어때: 너무 일러?
역 앞에서 보자
May 3, 2024 at 2:23\u202fPM, 나래 : Photos 3

May 4, 2024 at 12:05\u202fAM
May 4, 2024 at 12:05\u202fAM, 최유진 joined this chatroom.
May 4, 2024 at 12:05\u202fAM, 김하늘 : 좋아 ㅋㅋ
"""
OLD_ANDROID_EN = ANDROID_EN.replace(" at ", ", ").replace("\u202f", " ")
IPHONE_KO = """Talk_2024.5.5 14:22-1.txt
저장한 날짜 : 2024. 5. 5. 오후 2:22



2024년 5월 3일 금요일
2024. 5. 3. 오후 2:22, 김하늘 : 내일 몇 시에 볼까?
2024. 5. 3. 오후 2:23, 나래 : 두 시 어때: 너무 일러?
역 앞에서 보자
2024. 5. 3. 오후 2:23, 나래 : 이모티콘

2024년 5월 4일 토요일
2024. 5. 4. 오전 12:05: 최유진님이 들어왔습니다.
2024. 5. 4. 오전 12:05, 김하늘 : 좋아 ㅋㅋ
"""
IPHONE_24_HOURS = IPHONE_KO.replace("오후 2:2", "14:2").replace("오전 12:05", "0:05")
IPHONE_EN = """KakaoTalk Chats with 김하늘
Date Saved : 5 May 2024 at 14:22

Friday, May 3, 2024
3 May 2024 at 14:22, 김하늘 : 내일 몇 시에 볼까?
3 May 2024 at 14:23, 나래 : 두 시 어때: 너무 일러?
역 앞에서 보자
3 May 2024 at 14:23, 나래 : Emoticon

Saturday, May 4, 2024
4 May 2024 at 00:05: 최유진 joined this chatroom.
4 May 2024 at 00:05, 김하늘 : 좋아 ㅋㅋ
"""
MAC_CSV = """\ufeffDate,User,Message
2024-05-03 14:22:00,"김하늘","내일 몇 시에 볼까?"
2024-05-03 14:23:00,"나래","두 시 어때: 너무 일러?
역 앞에서 보자"
2024-05-03 14:23:00,"나래","동영상"
2024-05-04 00:05:00,"최유진","최유진님이 들어왔습니다."
2024-05-04 00:05:00,"김하늘","좋아 ㅋㅋ"
"""
TELEGRAM: dict = {
    "name": "김하늘", "type": "personal_chat", "id": 4815162342,
    "messages": [
        {"id": 11, "type": "message", "date": "2024-05-03T14:22:00", "date_unixtime": "1714713720",
         "from": "김하늘", "from_id": "user1", "text": "내일 몇 시에 볼까?",
         "text_entities": [{"type": "plain", "text": "내일 몇 시에 볼까?"}]},
        {"id": 12, "type": "message", "date": "2024-05-03T14:23:00", "from": "나래", "from_id": "user2",
         "text": ["두 시 어때: ", {"type": "bold", "text": "너무"}, " 일러?\n역 앞에서 보자"]},
        {"id": 13, "type": "message", "date": "2024-05-03T14:23:00", "from": "나래",
         "photo": "photos/1.jpg", "text": ""},
        {"id": 14, "type": "service", "date": "2024-05-04T00:05:00", "actor": "나래",
         "action": "invite_members", "members": ["최유진"], "text": ""},
        {"id": 15, "type": "message", "date": "2024-05-04T00:05:00", "from": "김하늘", "from_id": "user1", "text": "좋아 ㅋㅋ"},
    ],
}  # fmt: skip
PLAIN = """옮겨 적은 대화

[2024-05-03 14:22] 김하늘: 내일 몇 시에 볼까?
2024-05-03 14:23:00 나래: 두 시 어때: 너무 일러?
역 앞에서 보자
나래: 사진
2024-05-04T00:05 김하늘 : 좋아 ㅋㅋ
"""
FORMS = {
    "pc, korean": ("a.txt", PC_KO), "pc, english": ("a.txt", PC_EN), "android, korean": ("a.txt", ANDROID_KO),
    "android, english": ("a.txt", ANDROID_EN), "old android, english": ("a.txt", OLD_ANDROID_EN),
    "iphone, korean": ("a.txt", IPHONE_KO),
    "iphone, 24 hours": ("a.txt", IPHONE_24_HOURS), "iphone, english": ("a.txt", IPHONE_EN), "mac": ("a.csv", MAC_CSV),
    "telegram": ("result.json", json.dumps(TELEGRAM, ensure_ascii=False)),
    "telegram, all chats": ("result.json", json.dumps({"chats": {"list": [TELEGRAM]}})), "plain": ("a.txt", PLAIN),
}  # fmt: skip


def chat(folder: Path, name: str, text: str | bytes) -> Chat:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (found,) = read_chats(path)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_same_talk_reads_the_same(form, ends, tmp_path):
    name, text = FORMS[form]
    found = chat(tmp_path, name, text if name.endswith("json") else text.replace("\n", ends))
    assert [(said.name, said.text, said.time) for said in found.said] == TALK
    assert found.left_out["photos, files, stickers and calls"] == 1
    if form != "plain":
        assert found.left_out["events"] == 1
        assert {"김하늘", "나래", "최유진"} <= found.names, "who came has to be scrubbed, too"


def test_a_message_has_its_place(tmp_path):
    assert [said.number for said in chat(tmp_path, "a.txt", PC_KO).said] == [5, 6, 11]
    assert [said.number for said in chat(tmp_path, "a.csv", MAC_CSV).said] == [1, 2, 5]
    assert [said.number for said in chat(tmp_path, "a.json", FORMS["telegram"][1]).said] == [11, 12, 15]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_old_versions_wrote_other_encodings(encoding, tmp_path):
    found = chat(tmp_path, "a.txt", PC_KO.lstrip("\ufeff").encode(encoding))
    assert [said.text for said in found.said] == [text for _, text, _ in TALK]


def test_the_names_of_rooms_and_of_those_who_never_speak_are_kept(tmp_path):
    lines = [
        "등산 모임 7 님과 카카오톡 대화", "저장한 날짜 : 2024-05-05 14:22:10", "",
        "--------------- 2024년 5월 3일 금요일 ---------------",
        "나래님이 김철수님과 이영희님을 초대했습니다.", "[나래] [오후 2:22] 안녕",
    ]  # fmt: skip
    found = chat(tmp_path, "a.txt", "\n".join(lines))
    assert found.titles == {"등산 모임"} and found.names == {"나래", "김철수", "이영희"}
    found = chat(tmp_path, "a.txt", "김철수, 이영희 님과 카카오톡 대화\n\n2024년 5월 3일 오후 2:22, 회원님 : 안녕\n")
    assert {"김철수", "이영희"} <= found.names
    group = TELEGRAM | {"name": "Hiking", "type": "private_group"}
    assert chat(tmp_path, "a.json", json.dumps(group)).titles == {"Hiking"}


def test_names_may_hold_brackets_and_commas(tmp_path):
    found = chat(tmp_path, "a.txt", PC_KO.replace("[나래]", "[[디자인] 나래, 3팀]"))
    assert found.said[1].name == "[디자인] 나래, 3팀"


def test_others_words_are_not_the_speakers(tmp_path):
    forwarded = {
        "id": 16,
        "type": "message",
        "date": "2024-05-04T00:06:00",
        "from": "김하늘",
        "forwarded_from": "뉴스",
        "text": "속보입니다",
    }
    found = chat(tmp_path, "a.json", json.dumps(TELEGRAM | {"messages": [*TELEGRAM["messages"], forwarded]}))
    assert len(found.said) == 3 and found.left_out["forwarded, others' words"] == 1 and "뉴스" in found.names


@pytest.mark.parametrize(
    "text",
    [
        "팀장님이 회의 취소했습니다",
        "손님이 나갔습니다",
        "나는 괜찮은데\n사장님이 오늘 못 오신다고 했습니다.",
        "언제였지\n2024년 5월 1일",
    ],
)
def test_talk_about_people_and_days_is_no_event(text, tmp_path):
    """Lines that look like those of the app itself, within a message."""
    found = chat(tmp_path, "a.txt", PC_KO.replace("좋아 ㅋㅋ", text) + "[나래] [오전 12:06] 응\n")
    assert [(said.text, said.time) for said in found.said[2:]] == [
        (text, datetime(2024, 5, 4, 0, 5)), ("응", datetime(2024, 5, 4, 0, 6))
    ]  # fmt: skip
    assert found.left_out["events"] == 1


def test_who_was_sent_away_is_named(tmp_path):
    text = PC_KO.replace("최유진님이 들어왔습니다.", "채팅방 관리자가 최유진님을 내보냈습니다.")
    assert chat(tmp_path, "a.txt", text).names == {"김하늘", "나래", "최유진"}


NOBODY = """사진|사진 12장|동영상|이모티콘|(이모티콘)|음성메시지|파일: 견적서.xlsx|보이스톡 해요|페이스톡 통화시간 3:21
삭제된 메시지입니다.|지도: 마포구청|Photo|Photos 4|4 photos|Video|Emoticon|File: a.pdf|Voice Call 3:21
This message was deleted.|d41d8cd98f00b204e9800998ecf8427e.jpg""".replace("\n", "|").split("|")


@pytest.mark.parametrize("text", NOBODY)
def test_what_is_nobodys_words_is_left_out(text, tmp_path):
    found = chat(
        tmp_path, "a.csv", f'Date,User,Message\n2024-05-03 14:22:00,"나","{text}"\n2024-05-03 14:22:00,"나","응"\n'
    )
    assert [said.text for said in found.said] == ["응"] and found.left_out.total() == 1


@pytest.mark.parametrize(
    "text", ["사진 봤어?", "파일 보냈어", "Photo of the day?", "이모티콘 귀엽다", "지도 보고 가", "동영상 찍자"]
)
def test_talk_about_photos_is_talk(text, tmp_path):
    assert chat(tmp_path, "a.csv", f"Date,User,Message\n2024-05-03 14:22:00,나,{text}\n").said[0].text == text


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "그냥 메모\n아무 말이나\n", "a.txt: holds no message that can be read"),
        ("a.txt", "", "holds no message"),
        ("a.txt", b"\x81\x20\xff\xff\x00", "a.txt: is neither UTF-8 nor CP949"),
        ("a.csv", "name,text\na,b\n", "a.csv: its first line is not Date,User,Message"),
        ("a.csv", "Date,User,Message\n2024-05-03 14:22:00\n", "a.csv: holds no message"),
        ("a.json", '{"messages": [', "a.json: is not valid JSON"),
        ("a.json", "[1, 2]", "a.json: holds no message"),
        ("a.json", '{"chats": {"list": [{"messages": [{"type": "service"}, 3]}]}}', "a.json: holds no message"),
    ],
)
def test_files_that_are_no_export_are_refused(name, text, said, tmp_path):
    with pytest.raises(UserError, match=said):
        chat(tmp_path, name, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read"):
        read_chats(tmp_path / "nowhere.txt")


words = st.text(st.sampled_from("가나다 ㅋabc.!?:,[]()12"), min_size=1, max_size=20).map(str.strip).filter(bool)
names = st.sampled_from(["나래", "김하늘", "Anna K.", "[3팀] 민수", "엄마♥"])


@settings(deadline=None)
@given(st.lists(st.tuples(names, words), min_size=1, max_size=8))
def test_whatever_is_said_is_read_back(tmp_path_factory, talk):
    lines = [f"[{name}] [오후 2:22] 음 {text}" for name, text in talk]
    day = "--------------- 2024년 5월 3일 금요일 ---------------"
    found = chat(tmp_path_factory.getbasetemp(), "a.txt", "\n".join([day, *lines]))
    assert [(said.name, said.text) for said in found.said] == [(name, f"음 {text}") for name, text in talk]


def test_a_date_that_is_none_costs_the_message_its_time_and_nothing_else(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("2024-02-30 25:61, Kim: hello\n2024-02-28 12:01, Lee: hi\n", encoding="utf-8")
    (chat,) = read_chats(path)
    assert [(each.name, each.text) for each in chat.said] == [("Kim", "hello"), ("Lee", "hi")]
    assert chat.said[0].time is None and chat.said[1].time is not None
