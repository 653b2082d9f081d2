"""The words of texts, Korean ones without their particles, their script, and which words say what texts are about."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]|(?:(?![\u3040-\u30ff\u4e00-\u9fff])[^\W_])+")  # Chinese by character
PARTICLES = (
    "에서는 에서도 에게서 으로는 으로도 이라는 이라고 이라도 까지는 까지도 부터는 한테는 에서 에게 에는 에도 으로 로는 로도 "
    "까지 부터 처럼 보다 마다 조차 마저 밖에 한테 께서 이나 이랑 하고 라는 라고 라도 은 는 이 가 을 를 에 의 도 로 와 과 만 랑 나"
).split()
# the shortest stem of two syllables or more, and so the longest particle
INFLECTED = re.compile(rf"([가-힣]{{2,}}?)({'|'.join(PARTICLES)})")
# function words only: what a text is about is never among them
STOP = frozenset(
    "a about after again all also always am an and any anything are as at be because been before being both but by can "
    "could did do does doing don done down each else even ever every everything few for from get go going good got had "
    "has have having he her here him his how i if in into is isn it its just know let like ll m make many maybe me might "
    "more most much must my need never no not nothing now of off on one only or other our out over own perhaps quite re "
    "really right s same say see she should so some someone something still such sure t take than that the their them "
    "then there these they thing things think this those though through to too up us use ve very want was way we well "
    "were what when where which while who why will with without won would yes yet you your yours "
    "우리 당신 저희 너희 자신 이것 그것 저것 여기 거기 저기 무엇 누구 어디 언제 하나 때문 정말 진짜 지금 그때 이번 다음 모두 "
    "정도 경우 이거 그거 조금 그냥 이제 그게 이게 뭔가 가지".split()
)


def words(text: str) -> list[str]:
    """The words of a text in lower case, punctuation left out; Korean eojeol of three syllables or more without a particle.

    On English these are the tokens of ROUGE (Lin 2004, `rouge_score` without stemming). What looks like a particle is
    taken off (고양이를 and 고양이 become 고양이 and 고양): enough to compare texts, not to read them.
    """
    found = WORD.findall(unicodedata.normalize("NFC", text).lower())
    return [match[1] if (match := INFLECTED.fullmatch(word)) else word for word in found]


def script(text: str) -> tuple[float, float]:
    """The shares of Hangul and of Latin letters among a text's letters; zeros where it has none."""
    letters = [char for char in text if char.isalpha()]
    hangul = sum(
        "가" <= char <= "힣" or "\u1100" <= char <= "\u11ff" or "\u3130" <= char <= "\u318f" for char in letters
    )
    latin = sum(char.isascii() or "\u00c0" <= char <= "\u024f" for char in letters)
    return hangul / max(1, len(letters)), latin / max(1, len(letters))


def top_words(groups: Mapping[str, Sequence[str]], most: int = 8) -> dict[str, list[tuple[str, float]]]:
    """The words that say most about each group's texts, the strongest first, each with the share of texts that hold it.

    Plain TF-IDF: the share of the group's texts that hold a word, times ln(texts / texts that hold it) over all groups.
    A word counts once a text and needs two texts of its group. Function words are left out, and of Korean all but stems
    that occur with two or more endings, one of them a particle: nouns, by and large.
    """
    bare = {
        name: [WORD.findall(unicodedata.normalize("NFC", text).lower()) for text in texts]
        for name, texts in groups.items()
    }
    stem_of = _nouns({word for texts in bare.values() for text in texts for word in text})
    held = {
        name: [{stem for word in text if (stem := stem_of.get(word, "")) and stem not in STOP} for text in texts]
        for name, texts in bare.items()
    }
    everywhere = Counter(word for texts in held.values() for text in texts for word in text)
    count = sum(map(len, held.values()))
    found = {}
    for name, texts in held.items():
        here = Counter(word for text in texts for word in text)
        weight = {word: n / len(texts) * math.log(count / everywhere[word]) for word, n in here.items() if n > 1}
        best = sorted((word for word in weight if weight[word] > 0), key=lambda word: (-weight[word], word))[:most]
        found[name] = [(word, here[word] / len(texts)) for word in best]
    return found


def _nouns(seen: set[str]) -> dict[str, str]:
    """Word -> what it counts as; words that never do are left out (numbers, single letters, Korean that is no noun)."""
    endings: defaultdict[str, set[str]] = defaultdict(set)
    for word in seen:
        endings[word].add("")
        if match := INFLECTED.fullmatch(word):
            endings[match[1]].add(match[2])
    found = {}
    for word in seen:
        if not "가" <= word[0] <= "힣":
            if len(word) > 1 and word.isalpha():
                found[word] = word
            continue
        match = INFLECTED.fullmatch(word)
        # 고양이 alone is no 고양 with a particle: a stem must be seen in two forms
        stem = match[1] if match and len(endings[match[1]]) > 1 else word
        if len(endings[stem]) > 1:
            found[word] = stem
    return found
