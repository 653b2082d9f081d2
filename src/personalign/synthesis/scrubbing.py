"""Personal data out of what people said, before anything is done with it.

Names of everybody whom an export names (with the given name of a Korean one, and what is called after it), phone numbers,
e-mail and web addresses, postal addresses, resident registration, card and account numbers, messenger ids, passwords. In
doubt a word too many goes: what a text means is seldom in a number. Names of people who are only spoken of are found
where 씨 or 님 follows or Mr stands before them; others have to be given (`hide`). Scrubbing twice changes nothing.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

PLACEHOLDERS = {
    "name": {"en": "[name]", "ko": "[이름]"},
    "phone": {"en": "[phone number]", "ko": "[전화번호]"},
    "email": {"en": "[e-mail]", "ko": "[이메일]"},
    "link": {"en": "[link]", "ko": "[링크]"},
    "address": {"en": "[address]", "ko": "[주소]"},
    "registration": {"en": "[id number]", "ko": "[주민번호]"},
    "card": {"en": "[card number]", "ko": "[카드번호]"},
    "account": {"en": "[account number]", "ko": "[계좌번호]"},
    "handle": {"en": "[user id]", "ko": "[아이디]"},
    "secret": {"en": "[password]", "ko": "[비밀번호]"},
}
HELD = re.compile("|".join(re.escape(text) for kind in PLACEHOLDERS.values() for text in kind.values()))
NEVER = re.compile(r"(?!)")

TOP = "com|net|org|info|io|me|app|gg|dev|ly|tv|co|ai|xyz|shop|site|online|link|page|kr|jp|cn|us|uk|de|fr|to|be|gl|im|am"
REGION = "서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|제주|충청?[남북]도?|전라?[남북]도?|경상?[남북]도?"
HOUSE = "아파트|빌라|오피스텔|빌딩|타워|맨션"
UNIT = rf"(?:[ ,]*(?:[가-힣A-Za-z0-9]{{1,15}}(?:{HOUSE}))?(?:\s*\d{{1,4}}동)?(?:\s*\d{{1,3}}층)?(?:\s*\d{{1,4}}호)?)"
STREET = "[Ss]treet|[Aa]venue|[Rr]oad|[Bb]oulevard|[Ll]ane|St|Ave|Rd|Blvd|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Terrace"
SAID_DIGIT = "[공영일이삼사오육칠팔구]"
MESSENGER = (
    "카카오톡|카톡|카카오|인스타그램|인스타|텔레그램|텔레|라인|디스코드|디코|페북|트위터|"
    "kakao ?talk|kakao|katalk|instagram|insta|telegram|line|discord|snapchat|snap|wechat"
)
WORD_FOR_ID = r"(?:아이디|계정|[iI][dD]|handle|user ?name)"

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE if kind in ("link", "email", "handle", "secret") else 0))
    for kind, pattern in (
        ("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"),
        ("link", r"(?:https?|ftp|kakaotalk|tg)://[^\s<>\"']+|\bwww\.[^\s<>\"']+"),
        ("link", rf"(?<![\w.@-])(?:[a-z0-9][a-z0-9-]*\.)+(?:{TOP})(?![a-z0-9-])(?:[/?#][^\s<>\"']*)?"),
        ("registration", r"(?<!\d)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\s?[-–]?\s?[1-8](?:\d{6}|[*●xX]{6})(?![\d*])"),
        ("registration", r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)|(?<![A-Za-z0-9])[A-Z]\d{3}[A-Z0-9]\d{4}(?![A-Za-z0-9])"),
        ("card", r"(?<!\d)(?:\d{4}[\s–-]?){3}\d{4}(?!\d)|(?<!\d)3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?!\d)"),
        ("account", r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])"),
        ("phone", r"(?:\+82[ .-]?\(?0?\)?|(?<!\d)\(?0)1[016-9]\)?[\s.–ㅡ~-]?\d{3,4}[\s.–ㅡ~-]?\d{4}(?!\d)"),
        ("phone", r"(?<!\d)\(?0(?:2|[3-7]\d|80)\)?[ .–ㅡ~-]?\d{3,4}[ .–ㅡ~-]?\d{4}(?!\d)"),
        ("phone", r"(?<!\d)\(?0\d{2,4}\)?[ -]\d{3,4}[ -]?\d{3,4}(?!\d)"),
        ("phone", r"(?<![\w+])\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,5}(?!\d)"),
        ("phone", r"(?<![\d-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\d-])|(?<![\d-])1[5689]\d{2}[ -]\d{4}(?![\d-])"),
        ("phone", r"(?<![\d-])(?!(?:19|20)\d{2}-(?:19|20)\d{2})\d{3,4}-\d{4}(?![\d-])"),
        ("phone", rf"공일[공영일]\s?-?\s?{SAID_DIGIT}{{3,4}}\s?-?\s?{SAID_DIGIT}{{4}}"),
        ("account", r"(?<!\d)\d(?:[-.–]?\d){8,}(?!\d)|(?<!\d)(?=(?: ?\d){10})\d{3,6}(?: \d{2,6}){2,3}(?!\d)"),
        (
            "address",
            rf"(?:(?:{REGION})(?:특별시|광역시|특별자치시|특별자치도|도|시)?\s*)?"
            rf"[가-힣]{{1,6}}[시군구]\s+(?:[가-힣]{{1,6}}[구읍면]\s+)?"
            rf"[가-힣0-9]{{1,12}}(?:로|길|동|가|리|읍|면)(?:\s?\d+번?길)?\s*\d+(?:-\d+)?(?:번지)?{UNIT}",
        ),
        ("address", r"[가-힣]{1,10}(?:로|길)\s?\d+(?:-\d+)?(?:번길\s?\d+(?:-\d+)?|,?\s*(?:\d+동\s*)?\d+[층호])"),
        ("address", rf"\d{{2,4}}동\s?\d{{2,4}}호|[가-힣A-Za-z0-9]{{2,15}}(?:{HOUSE})\s*\d{{1,4}}동(?:\s*\d{{1,4}}호)?"),
        (
            "address",
            rf"(?<!\d)\d{{1,5}}[A-Za-z]?\s+(?:[NSEW]\.?\s+)?(?:[A-Za-z][A-Za-z'.]+\s+){{1,3}}?(?:{STREET})(?![A-Za-z])\.?"
            r"(?:,?\s+(?:Apt|Apartment|Unit|Flat|Suite|apt|unit|flat)\.?\s*#?\w+)?",
        ),
        (
            "handle",
            rf"(?:{MESSENGER})\s*(?:{WORD_FOR_ID}\s*(?:은|는|이|가|is|:|=|：)?|[:=：])\s*@?(?P<value>[A-Za-z0-9][A-Za-z0-9._-]{{2,29}}(?:#\d{{4}})?)",
        ),
        ("handle", rf"(?<![A-Za-z]){WORD_FOR_ID}\s*(?:은|는|is|:|=|：)\s*@?(?P<value>[A-Za-z0-9][A-Za-z0-9._-]{{3,29}})"),
        ("handle", r"(?:아이디|계정)\s*@?(?P<value>[A-Za-z][A-Za-z0-9._-]{3,29})"),
        (
            "secret",
            r"(?:비밀번호|비번|패스워드|암호|인증번호|인증코드|password|passwd|passcode|\bpw\b|\bpin\b|\botp\b"
            r"|(?:verification|door|entry|access|gate) ?code|현관 ?번호)"
            r"\D{0,6}?(?P<value>(?=[!-~]*\d)[!-~]{4,})",
        ),
        ("name", r"(?<![\w@])@(?P<value>[\w.가-힣]{2,30})"),
    )
)  # fmt: skip

SURNAMES = (
    "김이박최정강조윤장임한오서신권황안송전홍유고문양손배백허남심노하곽성차주우구민진"
    "엄채원천방공현함변염여추도소석선설마길연"
)
LONG_SURNAMES = ("남궁", "황보", "제갈", "선우", "독고", "사공", "서문")
TITLES = """팀장 과장 차장 부장 대리 사원 주임 실장 이사 상무 전무 대표 사장 회장 원장 소장 선생 교수 박사 선배 후배 매니저 기사
간호사 반장 총무""".split()
KIN = """엄마 아빠 어머니 아버지 어머님 아버님 할머니 할아버지 형 누나 언니 오빠 동생 이모 삼촌 고모 고모부 이모부 남편 아내
와이프 여보 자기 아들 딸""".split()
NOT_NAMES = {
    *TITLES, *KIN, *(f"{word}님" for word in TITLES), *"친구 가족 우리 우리집 회원님 나 알수없음 없음".split(),
    "알 수 없음", "(알 수 없음)",
    *"me you user assistant mom dad mum mother father boss wife husband mr mrs ms dr de van von la the and of my team".split(),
    *"group chat friend unknown deleted account".split(),
}  # fmt: skip
WORDS_NOT_NAMES = (
    "이사장 조교수 고객 주인 전문의 공무원 방문자 진행자 여행자 지원자 이용자 신청자 주문자 구매자 한국인 소비자"
)
# somebody who is only spoken of: 김영수 씨, Mr Patel
SPOKEN_OF = re.compile(
    r"(?<![A-Za-z])(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof)\b\.?\s+(?P<value>[A-Z][a-zA-Z'-]+(?:\s[A-Z][a-zA-Z'-]+)?)"
    rf"|(?<![가-힣])(?!{WORDS_NOT_NAMES.replace(' ', '|')})(?P<value_ko>[{SURNAMES}][가-힣]{{2}})(?=\s?(?:씨|님|군|양))"
)


def plain(text: str) -> str:
    """NFC, full-width letters and digits as ASCII, no invisible characters within words: else a number hides behind them."""
    text = unicodedata.normalize("NFC", text).translate({0x200B: None, 0x2060: None, 0xFEFF: None, 0xAD: None})
    return re.sub("[！-～]", lambda match: chr(ord(match[0]) - 0xFEE0), text)


def names_pattern(names: Iterable[str], hide: Iterable[str] = ()) -> re.Pattern[str]:
    """What to look for in place of these people's names: the whole, its words, and the given name of a Korean one.

    Titles and kinship (팀장님, 엄마) are no names. `hide` are words of the user's own, taken as they are.
    """
    forms: dict[str, str] = {}  # what is looked for -> its expression
    for word in hide:
        if word := plain(word).strip():
            forms[word] = _bounded(word)
    for name in names:
        name = plain(name).strip()
        words = [word for word in re.split(r"[\W\d_]+", name) if word]
        capital = [word for word in words if word[0].isupper() or word[0] >= "가"]
        for word in [name, *(capital or words)]:  # "Anna at work" is Anna
            if len(word) < 2 or word.lower() in NOT_NAMES or not re.search(r"\w", word):
                continue
            forms[word] = _bounded(word)
            if re.fullmatch(r"[가-힣]+", word):
                forms |= _korean(word)
    longest = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(forms[form] for form in longest), re.IGNORECASE) if forms else NEVER


def _korean(word: str) -> dict[str, str]:
    """홍길동: with a gap, and the given name alone; 이준: 준아, 준이; 홍길동팀장님: without the title."""
    bare = re.sub(rf"(?:{'|'.join(TITLES + KIN)})?(?:님|씨|쌤)?$", "", word)
    forms = {bare: _bounded(bare)} if len(bare) >= 2 and bare not in NOT_NAMES else {}
    surname = 2 if bare[:2] in LONG_SURNAMES and len(bare) > 2 else 1 if bare[:1] in SURNAMES and bare else 0
    given = bare[surname:] if surname and len(bare) - surname <= 3 else ""
    if len(given) >= 2:
        forms[f"{bare[:surname]} {given}"] = rf"{bare[:surname]}\s{given}"
        forms[given] = _bounded(given)
    elif given and (ord(given) - 0xAC00) % 28:  # ends in a consonant: 준아 is nobody's verb, as 해야 is
        forms[f"{given}아"] = rf"(?<![가-힣]){given}(?=[아이](?![가-힣]{{2}})|씨)"
    return forms


def _bounded(word: str) -> str:
    """A short Korean name stands at a word's beginning (particles follow it), a Latin one alone; a long one anywhere."""
    found = re.escape(word)
    if re.fullmatch(r"[가-힣]{2}", word):
        return rf"(?:(?<![가-힣])|(?<=우리)|(?<=울)|(?<=야)){found}"
    before = r"(?<![A-Za-z0-9])" if re.match(r"[A-Za-z0-9]", word) else ""
    after = r"(?![A-Za-z0-9])" if re.search(r"[A-Za-z0-9]$", word) else ""
    return before + found + after


def scrub(text: str, names: re.Pattern[str] = NEVER, language: str = "en") -> str:
    """The text with placeholders such as [phone number] ([전화번호]) in place of personal data."""
    text = plain(text)
    while (less := _once(text, names, language)) != text:  # what stood beside something scrubbed may now stand alone
        text = less
    return text


def _once(text: str, names: re.Pattern[str], language: str) -> str:
    for kind, pattern in (*PATTERNS, ("name", names), ("name", SPOKEN_OF)):
        held, rest = HELD.findall(text), HELD.split(text)
        mark = PLACEHOLDERS[kind][language]
        rest = [pattern.sub(lambda match, mark=mark: _replaced(match, mark), part) for part in rest]  # type: ignore[misc]
        text = "".join(part + mark for part, mark in zip(rest, [*held, ""], strict=True))
    return text


def _replaced(match: re.Match[str], mark: str) -> str:
    """The mark in place of the match, or of its group `value` where it has one."""
    value = next((name for name, found in match.groupdict().items() if found is not None), None)
    if value is None:
        return mark
    start, end = match.start(value) - match.start(), match.end(value) - match.start()
    return match[0][:start] + mark + match[0][end:]


def without_placeholders(text: str) -> str:
    """What is left of a scrubbed text beside what was taken out."""
    return HELD.sub("", text)


def scrubbed(texts: Iterable[str]) -> Counter[str]:
    """How often each placeholder stands in these texts."""
    return Counter(mark for text in texts for mark in HELD.findall(text))
