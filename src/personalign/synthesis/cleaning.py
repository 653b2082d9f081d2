"""Speech without what language models put around it: stage directions, leading fillers, markdown, quotation marks.

LAPD removed `*chuckles*` and a leading "Hey,", "Hmm,", "Well,", "Wow," or "Ah,": where every answer begins in the same way, a
model learns that before anything else. The same is done here for Korean, and no more than that is taken away: an
*emphasised* word stays, and so does an aside (about this long).
"""

import re
import unicodedata

FILLERS = {
    "en": r"hey there|hey|h+m+|m{2,}|well|wow|whoa|a+h+|o+h+|aw+|u+m+|u+h+|huh|(?:ha){2,}|heh",
    "ko": r"음+|으음+|흠+|흐음+|아+|어+|오+|와+|우와+|와우|헉|헐|허허+|하하+|호호+|글쎄요?|저기요?|있잖아요?|[ㅋㅎ]{2,}",
}
_FILLER = re.compile(rf"(?:{'|'.join(FILLERS.values())})(?:\s*[,，.…!?~]+(?=\D)|\s*[–—]|\s+-(?=\s))\s*", re.IGNORECASE)

# what people do while they speak, as models note it: with -s or -ing, and those that are stage directions with -s only
_ACTS = (
    "beam|blush|chuckl|clap|frown|gasp|gestur|giggl|grin|groan|hesitat|laugh|mutter|nod|paus|scoff|shrug|sigh|smil|smirk|snort|"
    "whisper|wink|yawn"
)
_ACTS_S = (
    "adjust|cheer|clear|cross|exhal|glanc|hug|inhal|lean|look|pat|ponder|rais|roll|rub|scratch|shak|sip|stare|tak|think|tilt|"
    "turn|wav"
)
_MANNER = "cheerfully|excitedly|gently|hesitantly|nervously|quietly|softly|thoughtfully|warmly|with a"
_ACT = re.compile(
    rf"(?:(?:{_MANNER})\b|(?:\w+ly )?(?:(?:{_ACTS})\w{{0,2}}(?:ing|e?s)|(?:{_ACTS_S})\w?e?s)\b)", re.IGNORECASE
)
_ACT_KO = re.compile(
    r"(?:^(?:큰\s|작은\s|긴\s|깊은\s)?(?:웃음|한숨|미소|침묵|박수|눈웃음|헛웃음|쓴웃음)|끄덕|절레절레|머뭇머뭇|긁적긁적|"
    r"며|면서|듯이?|\s채|다가|(?:웃는|쉰|끄덕인|젓는|숙인|멈춘|가리킨)다)[.…]?$"
)
_SPAN = re.compile(
    r"(?<![*\w])\*(?=\S)(?P<star>[^*\n]{1,120}?)(?<=\S)\*(?!\*)|(?<![_\w])_(?=\S)(?P<line>[^_\n]{1,120}?)(?<=\S)_(?![_\w])"
    r"|[(（](?P<round>[^()（）\n]{1,80})[)）]|\[(?P<square>[^\[\]\n]{1,80})\]"
)
_PAIRS = {'"': '"', "“": "”", "'": "'", "‘": "’", "「": "」", "『": "』", "«": "»"}
_MACHINE = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model)\b|\bi(?:'m| am) (?:just )?an? (?:ai|language model)\b"
    r"|(?:AI|인공지능|언어 ?모델)(?: 언어 ?모델)?(?:로서|이기 때문에|이라서|입니다|이에요)",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """What is said, on one line: without stage directions, leading fillers, markdown, and quotes around the whole.

    A text that is nothing else ("Wow!") keeps its fillers. Cleaning a clean text changes nothing.
    """
    first = text.strip()[:1]
    while (cleaned := _once(text)) != text:  # quotes may hide a filler, a filler a stage direction
        text = cleaned
    return text if text[:1] == first else text[:1].upper() + text[1:]


def speaks(text: str, language: str) -> bool:
    """Whether a text is in the language, as far as its letters tell; a text of fewer than ten letters is in any."""
    letters = [letter for letter in text if letter.isalpha()]
    hangul = sum("가" <= letter <= "힣" or "ㄱ" <= letter <= "ㆎ" for letter in letters)
    return len(letters) < 10 or (hangul / len(letters) > 0.3) == (language == "ko")


def machine(text: str) -> bool:
    """Whether somebody who should be a person speaks as a language model."""
    return _MACHINE.search(text) is not None


def _once(text: str) -> str:
    text = unicodedata.normalize("NFC", text).replace("\ufeff", "")
    text = re.sub(r"\*\*(.+?)\*\*|__(.+?)__", lambda found: found[1] or found[2], text)
    text = _SPAN.sub(lambda found: _unstaged(found, text), text)
    text = " ".join(re.sub(r"(?m)^\s*(?:```\w*|#{1,6}\s|[-–—*_]{3,}\s*$)", " ", text).split())
    text = re.sub(r"(?<=\w) (?=[,.!?](?:\s|$))", "", text)  # where a stage direction stood before it
    text = re.sub(r"^[,.;:~]\s+", "", text)
    closing = _PAIRS.get(text[:1])
    if closing and len(text) > 2 and text.endswith(closing) and closing not in text[1:-1]:
        text = text[1:-1].strip()
    rest = _FILLER.match(text)
    if rest and any(letter.isalnum() for letter in text[rest.end() :]):
        text = text[rest.end() :]
    return text


def _unstaged(found: re.Match[str], text: str) -> str:
    """Nothing in place of a stage direction; an emphasised word without its marks; brackets as they are."""
    inner = next(filter(None, found.groups())).strip()
    emphasis = found["star"] is not None or found["line"] is not None
    before, after = text[: found.start()].rstrip(), text[found.end() :].lstrip()
    begins = not before or before[-1] in '.!?…"”*)\n~'
    korean = any("가" <= letter <= "힣" for letter in inner)
    act = (_ACT_KO.search(inner) if korean else _ACT.match(inner)) is not None and len(inner.split()) <= 12
    if emphasis and begins and len(inner.split()) > 1 and not act:
        # a sentence begins: with a small letter, or with Korean that no particle follows, it is not part of what is said
        act = inner.endswith((".", "고", "다")) and (not after or after[0].isupper() or korean)
        act = act or (inner[0].islower() and (not after or not after[0].islower()))
    return " " if act else inner if emphasis else found[0]
