"""Personal data is gone from a text before anything is done with it; what is no personal data stays."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from personalign.synthesis.scrubbing import names_pattern, scrub, scrubbed, without_placeholders

NAMES = names_pattern(
    ["홍길동", "박준호 팀장", "이준", "Anna Kim", "엄마", "남궁민수", "지수"], hide=["한빛물산", "Spot"]
)

# where only a part is private, it stands in «»
GONE = """
phone: 010-1234-5678 | 01012345678 | 010 1234 5678 | 010.1234.5678 | 010ㅡ1234ㅡ5678 | ０１０-１２３４-５６７８ | +82 10-1234-5678
phone: +82-(0)10-1234-5678 | (010) 1234-5678 | 016-234-5678 | 02-123-4567 | 031 1234 5678 | 070-1234-5678 | 1588-1234
phone: 1234-5678 | 공일공 일이삼사 오육칠팔 | +1 (202) 555-0143 | 202-555-0143 | +44 20 7946 0018 | 020 7946 0018
email: gildong@naver.com | Hong.Gil+dong@mail.example.co.kr
link: https://open.kakao.com/o/sAbCdE | http://example.com/?id=3 | www.example.org | naver.me/xy12 | blog.naver.com/gildong
link: EXAMPLE.COM | bit.ly/3abc | tg://user?id=123456789
registration: 900101-1234567 | 900101 1234567 | 9001011234567 | 900101-1****** | 123-45-6789 | M12345678
card: 1234-5678-9012-3456 | 1234 5678 9012 3456 | 1234567890123456 | 3782-822463-10005
account: 123456-04-789012 | 110-123-456789 | 3333012345678 | 123 456 789012 | GB29 NWBK 6016 1331 9268 19
account: DE89370400440532013000
address: 서울시 마포구 양화로 45 2층 | 서울특별시 강남구 테헤란로 152 강남빌딩 3층 301호 | 경기도 성남시 분당구 판교역로 235
address: 제주시 애월읍 애월리 1234-5번지 | 부산 해운대구 우동 1411 | 101동 1203호 | 래미안아파트 103동 | 양화로 45번길 12
address: 221B Baker Street | 14 Elm Street, Apt 4 | 1600 Pennsylvania Ave
handle: 카톡 아이디 «abc_123» | 카카오톡 ID: «hong77» | 카톡아이디는 «hong77» | kakao id «hong77» | 인스타: «gil.dong»
handle: 아이디 «yujin_design» | discord: «gil#1234»
secret: 비번 «1234» | 비밀번호는 «hb2024!» | 현관 비번은 «5678*» | 인증번호 «482913» | password: «hunter2» | door code is «4471#»
name: 홍길동 | «길동»이 | 홍 길동 | 박준호 | 준호 | 박준호 팀장 | 남궁민수 | 민수 | Anna | anna kim | ANNA | 한빛물산 | Spot
name: @«gildong» | @«길동» | «김영수» 씨 | «최민지»님 | Mr «Patel» | Dr. «Ada Lovelace»
"""
PRIVATE = [
    (kind, text.strip())
    for kind, texts in (line.split(": ", 1) for line in GONE.strip().splitlines())
    for text in texts.split(" | ")
] + [("phone", "010\n1234\n5678"), ("phone", "010\u200b-1234-5678")]

STAYS = (
    """
2024-05-03 14:22에 보자 | 5월 3일 오후 2시 30분 | 3,000,000원이면 10개월 할부 | 2023-2024년 시즌 | 앞으로 3시간, 실제로 2명
그대로 2개 | 1.5리터에서 2리터 | 100 200 300 | 5km 42분 10초 | 엄마가 팀장님 만났대 | 고객님 선생님 어머님 이사장님
해야지 가야 해 나야 나이가 준비 | 수지 말고 지우 | 카톡 pc버전 써 | 라인 타고 갔어 | 아이디어 좋다 | 비번 까먹었어 | banana
Kimchi and Annapolis | spotless | 3 out of 5 places | I was 3 minutes late | version 2.10.3 | ㅋㅋㅋㅋ ㅠㅠ ^^ | 1+1 행사 9900원
오후 2:22 | e.g. this | 12-3시 사이
""".replace("\n", " | ")
    .strip(" |")
    .split(" | ")
)


@pytest.mark.parametrize(("kind", "text"), PRIVATE)
def test_personal_data_are_gone_wherever_they_stand(kind, text):
    private = re.findall("«(.*?)»", text) or [text]
    for frame in ("{}", "내 거 {} 이야", "({})", "see {}, ok?", "아까 그 {}.", "{}로 해\n응"):
        found = scrub(frame.format(re.sub("[«»]", "", text)), NAMES, "ko")
        left = without_placeholders(found)
        assert found != left, "a mark stands in its place"
        assert not [word for whole in private for word in re.findall(r"[^\W_]{2,}", whole) if word in left], found


@pytest.mark.parametrize("text", STAYS)
def test_what_is_no_personal_data_stays(text):
    assert scrub(text, NAMES, "ko") == text


def test_each_kind_has_its_mark_in_both_languages():
    text = "홍길동 010-1234-5678 a@example.com https://example.com 900101-1234567 1234-5678-9012-3456 123456-04-789012"
    assert scrub(text, NAMES, "ko") == "[이름] [전화번호] [이메일] [링크] [주민번호] [카드번호] [계좌번호]"
    marks = "[name] [phone number] [e-mail] [link] [id number] [card number] [account number]"
    assert scrub(text, NAMES, "en") == marks
    assert scrubbed([marks, marks])["[link]"] == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("길동아 밥 먹었어?", "[이름]아 밥 먹었어?"),
        ("우리길동이가 그랬대", "우리[이름]이가 그랬대"),
        ("야길동아", "야[이름]아"),
        ("길동이한테 물어봐", "[이름]이한테 물어봐"),
        ("준아, 준이가 준비했대", "[이름]아, [이름]이가 준비했대"),
        ("준호 팀장님이랑 팀장님", "[이름] 팀장님이랑 팀장님"),
        ("Anna's dog", "[이름]'s dog"),
    ],
)
def test_a_name_is_found_with_what_korean_puts_after_it(text, found):
    assert scrub(text, NAMES, "ko") == found


def test_names_written_as_separate_letters_are_the_same_names():
    assert scrub("\u1100\u1175\u11af\u1103\u1169\u11bc\u110b\u1175", NAMES, "ko") == "[이름]이"


def test_nobody_is_called_mum_or_nothing():
    pattern = names_pattern(["엄마", "팀장님", "회원님", "(알 수 없음)", "A", "Mom", "", "🦊"])
    for text in ("엄마 팀장님 회원님 A Mom", "여우 🦊 알 수 없음"):
        assert scrub(text, pattern, "ko") == text


texts = st.text(st.sampled_from("홍길동아이준호 0123456789-.@:/한글abcXYZ[]\n이름전화번호"), max_size=60) | st.text(
    max_size=40
)


@settings(deadline=None)
@given(texts)
@example("준호@00")
def test_scrubbing_twice_changes_nothing(text):
    once = scrub(text, NAMES, "ko")
    assert scrub(once, NAMES, "ko") == once


@settings(deadline=None)
@given(
    st.text(st.sampled_from("가나다 abc.,\n!?"), max_size=20),
    st.integers(0, 99999999),
    st.sampled_from("- .") | st.just(""),
)
def test_no_mobile_number_survives_whatever_stands_around_it(around, number, between):
    digits = f"{number:08d}"
    found = scrub(f"{around} 010{between}{digits[:4]}{between}{digits[4:]} {around}", NAMES, "ko")
    assert not re.search(r"\d", found) and "[전화번호]" in found


@settings(deadline=None)
@given(
    st.sampled_from(["홍길동", "남궁민수", "한빛물산"]), st.text(st.sampled_from("가나다이은는 !?~ㅋㅠ"), max_size=8)
)
def test_no_full_name_survives_whatever_stands_around_it(name, around):
    assert name not in scrub(around + name + around, NAMES, "ko")
