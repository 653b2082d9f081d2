"""What makes an instruction unfit for a text model: Stanford Alpaca's rules, and what stands for them in Korean.

Alpaca drops what has at most 3 or more than 150 words, one of its keywords, "Write a program" at the start, or begins with
punctuation or a character that is not ASCII. The last would drop all Korean, and its words are fewer and longer: Korean is
measured in letters at the lower end, may begin with what it quotes, and has keywords of its own, found with their particles.
"""

import re
import string
from collections.abc import Sequence
from functools import cache

KEYWORDS = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot", "go to",
    "video", "audio", "music", "flowchart", "diagram",
    "이미지", "사진", "그림", "그래프", "도표", "순서도", "다이어그램", "파일", "동영상", "영상", "비디오", "오디오",
    "녹음", "그려 줘", "그려줘", "그려 주세요", "그려주세요", "그려 보세요", "그리시오",
)  # fmt: skip
WORDS = (4, 150)  # at least, at most
LETTERS = 5  # of a Korean instruction, at least, without spaces: 시 한 편 써 줘
HANGUL = re.compile("[가-힣]")
OPENING = "\"'“‘「『《〈<(["  # a Korean instruction often begins with what it is about
PARTICLES = (
    "(?:들)?(?:을|를|이|가|은|는|의|에|에서|에는|에도|으로|로|으로는|로는|와|과|하고|도|만|까지|부터|이나|나|처럼|이랑|랑|보다|마다|"
    "라는|이라는|입니다|이다|이에요|예요|인데|인가요|인지)?"
)
PROGRAM = re.compile(r"^write a program|프로그램을 ?(작성|만들|짜)", re.IGNORECASE)


def unfit(instruction: str, language: str, keywords: Sequence[str] = KEYWORDS) -> str | None:
    """Why an instruction is not for a text model in this language ("keyword: image"), or None."""
    text = instruction.strip()
    if not text:
        return "empty"
    words, letters = len(text.split()), len("".join(text.split()))
    korean = HANGUL.search(text) is not None
    if language == "ko" and not korean:
        return "not in Korean"
    if (letters < LETTERS) if korean else (words < WORDS[0]):
        return f"too short: {letters} letters" if korean else f"too short: {words} words"
    if words > WORDS[1]:
        return f"too long: {words} words"
    if language == "ko":
        if not (text[0].isalnum() or text[0] in OPENING):
            return f"starts with {text[0]!r}"
    elif text[0] in string.punctuation or not text[0].isascii():
        return f"starts with {text[0]!r}"
    if PROGRAM.search(text):
        return "asks for a program"
    found = _finder(tuple(keywords)).search(text) if keywords else None
    return f"keyword: {found[1]}" if found else None


@cache
def _finder(keywords: tuple[str, ...]) -> re.Pattern[str]:
    """Finds a keyword as a word of its own: no part of a longer one (사진관, mapping), but with a Korean particle (사진을)."""
    longest_first = sorted(keywords, key=len, reverse=True)
    words = "|".join(re.escape(word) for word in longest_first)
    return re.compile(rf"(?<![A-Za-z0-9_가-힣])({words})(?![A-Za-z0-9_]){PARTICLES}(?![가-힣])", re.IGNORECASE)
