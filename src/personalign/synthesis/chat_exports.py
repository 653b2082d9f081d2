"""Chats that people have exported: KakaoTalk's text and CSV files, plain "Name: text", and Telegram Desktop's JSON.

    PC        --------------- 2024년 5월 3일 금요일 ---------------        (Friday, May 3, 2024)
              [홍길동] [오후 2:22] 안녕하세요                               [홍길동] [2:22 PM] hello
    Android   2024년 5월 3일 오후 2:22, 홍길동 : 안녕하세요                 May 3, 2024 at 2:22 PM, 홍길동 : hello
    iPhone    2024. 5. 3. 오후 2:22, 홍길동 : 안녕하세요                    May 3, 2024 at 14:22, 홍길동 : hello
    Mac       Date,User,Message / 2024-05-03 14:22:10,"홍길동","안녕하세요"

A message goes on over the lines that follow it. What is nobody's words (photos, calls, who came and went) is counted and
left out; the names in it are kept, because they have to be scrubbed from what is said. Nothing here is scrubbed: see
scrubbing.py.
"""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from personalign.errors import UserError


@dataclass(frozen=True)
class Said:
    """A message: who, what, when (None: the file does not say), and its line, row or number in the file."""

    name: str
    text: str
    time: datetime | None
    number: int


@dataclass
class Chat:
    """The messages of one chat, everybody whom the file names, what the chat is called, and how much was left out, by kind."""

    said: list[Said] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    titles: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)


MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
CLOCK = r"(?:(?P<ko>오전|오후) ?)?(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::\d{2})?(?: ?(?P<en>[AaPp])\.?[Mm]\b\.?)?"
DATE = (
    r"(?:(?P<y1>\d{4})[년.] ?(?P<m1>\d{1,2})[월.] ?(?P<d1>\d{1,2})[일.]?"
    r"|(?:[A-Z][a-z]+day, )?(?:(?P<m2>[A-Z][a-z]{2,8})\.? (?P<d2>\d{1,2})|(?P<d3>\d{1,2}) (?P<m3>[A-Z][a-z]{2,8})\.?)"
    r",? (?P<y2>\d{4}))"
)
MOMENT = DATE + r"(?:,? (?:at )?)" + CLOCK
HEADING = re.compile(rf"(?:-{{3,}} *)?{DATE}(?: ?[월화수목금토일]요일|,? (?:at )?{CLOCK})?(?: *-{{3,}})?")
BRACKETS = re.compile(rf"\[(?P<name>.+?)\] \[{CLOCK}\](?: (?P<text>.*))?")
AFTER_DATE = re.compile(rf"{MOMENT}(?:, (?P<name>.+?) :(?: (?P<text>.*))?|[,:] (?P<event>.*))")
LABEL = re.compile(
    r"(?:\[?(?P<iso>\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(?::\d{2})?)\]?,? )?"
    r"(?P<name>[^\s:：\d][^:：]{0,39}?) ?[:：](?:\s+(?P<text>.*)|$)"
)
TITLE = re.compile(
    r"(?P<ko>.+?)(?: \d+)? ?님과(?:의)? 카카오톡 대화|(?:KakaoTalk Chats? with |Talk_)(?P<en>.+?)(?: \d+)?(?:\.txt)?"
)
SAVED = re.compile(r"(?:저장한 날짜|Date Saved|Saved Date|Date saved) ?: ?.*")
CAME_OR_WENT = re.compile(
    r".+님이 (?:들어왔|나갔)습니다\.?|.+님이 .+님을 초대했습니다\.?|(?:채팅방 관리자가 )?.+님을 내보냈습니다\.?"
    r"|.+님이 부?방장이 되.*"
    r"|.+ (?:(?:has )?joined (?:this|the) chat ?room|(?:has )?left (?:this|the) chat ?room|invited .+)\.?|.*운영정책.*"
)
NOT_WORDS = re.compile(
    r"(?:사진|동영상)(?: \d+ ?장)?|\(?이모티콘\)?|음성 ?메시지|(?:파일|지도|연락처|샵검색|카카오톡 프로필) ?: ?.*"
    r"|(?:보이스톡|페이스톡|그룹콜|라이브톡)(?: .*)?|(?:삭제된 메시지입니다|메시지가 삭제되었습니다)\.?|(?:선물|송금)(?: ?: ?.*)"
    r"|Photos?(?: \d+)?|\d+ photos|Videos?|\(?Emoticons?\)?|Stickers?|Voice message|(?:File|Map|Contact): .*"
    r"|(?:Voice|Video) ?(?:Call|call|talk|Talk)(?: .*)?|(?:This message (?:was|has been) deleted|Deleted message)\.?"
    r"|\S+\.(?:jpe?g|png|gif|webp|heic|mp4|mov|m4a|mp3|pdf|zip)",
)


def read_chats(path: Path) -> list[Chat]:
    """The chats of an exported file: .txt or .csv (KakaoTalk), .json (Telegram, one chat or all), .txt with "Name: text".

    Raises UserError, naming the file, where it cannot be read or holds no message.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a chat export: .txt, .csv or .json."
        ) from None
    text = unicodedata.normalize("NFC", _decoded(raw, path)).replace("\u202f", " ").replace("\xa0", " ")
    if path.suffix.lower() == ".json":
        chats = _telegram(text, path)
    elif path.suffix.lower() == ".csv":
        chats = [_csv(text, path)]
    else:
        chats = [_lines(text.splitlines())]
    if not any(chat.said for chat in chats):
        raise UserError(
            f"{path}: holds no message that can be read; export the chat again from KakaoTalk (.txt, .csv) or Telegram Desktop "
            '(.json), or write a line "Name: text" for each message.'
        )
    return chats


def _decoded(raw: bytes, path: Path) -> str:
    """UTF-8, with or without a mark; old PC versions wrote UTF-16 or CP949."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    for encoding in ("utf-8-sig", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: is neither UTF-8 nor CP949 text; export the chat again.")


def _lines(lines: list[str]) -> Chat:
    """A text file: KakaoTalk's where its lines look like it, else "Name: text"."""
    found = Chat()
    pc = any(BRACKETS.fullmatch(line) for line in lines)
    kakao = pc or any(AFTER_DATE.fullmatch(line) for line in lines)
    day: re.Match[str] | None = None
    open_ = False  # whether the next line can go on the last message
    for number, line in enumerate(lines, 1):
        line = line.rstrip()
        if number <= 3 and not found.said and ((title := TITLE.fullmatch(line)) or SAVED.fullmatch(line)):
            if title:
                _title(found, title["ko"] or title["en"])
        elif kakao and (match := BRACKETS.fullmatch(line)):
            open_ = _add(found, Said(match["name"], match["text"] or "", _time(day, match), number))
        elif kakao and (match := HEADING.fullmatch(line)) and line.startswith("---") == pc:
            day, open_ = match, False
        elif kakao and (match := AFTER_DATE.fullmatch(line)):
            if match["name"] is None:
                open_ = _event(found, match["event"])
            else:
                open_ = _add(found, Said(match["name"], match["text"] or "", _time(match, match), number))
        elif kakao and CAME_OR_WENT.fullmatch(line):
            open_ = _event(found, line)
        elif not kakao and (match := LABEL.fullmatch(line)):
            open_ = _add(found, Said(match["name"], match["text"] or "", _iso(match["iso"]), number))
        elif open_ and found.said:
            last = found.said[-1]
            found.said[-1] = Said(last.name, f"{last.text}\n{line}", last.time, last.number)
        elif line.strip():
            found.left_out["lines of nobody"] += 1
    return _trimmed(found)


def _csv(text: str, path: Path) -> Chat:
    """KakaoTalk for Mac: Date,User,Message."""
    found = Chat()
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [cell.strip().lower() for cell in next(rows, [])]
    if header[:3] != ["date", "user", "message"]:
        raise UserError(
            f"{path}: its first line is not Date,User,Message; give the file as KakaoTalk wrote it, or a .txt."
        )
    for number, cells in enumerate(rows, 1):
        if len(cells) < 3:
            found.left_out["rows that are cut"] += bool(cells)
            continue
        name, text = cells[1].strip(), ",".join(cells[2:])
        if not name or (CAME_OR_WENT.fullmatch(text) and name in text):  # here it stands under somebody's name
            _event(found, text)
        else:
            _add(found, Said(name, text, _iso(cells[0]), number))
    return _trimmed(found)


def _telegram(text: str, path: Path) -> list[Chat]:
    """Telegram Desktop: result.json of one chat, or of all of them (chats.list)."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: is not valid JSON ({error.msg}, line {error.lineno}); export the chat again."
        ) from None
    several = whole.get("chats") if isinstance(whole, dict) else None
    listed = several.get("list") if isinstance(several, dict) else [whole]
    chats = []
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or not isinstance(each.get("messages"), list):
            continue
        found = Chat()
        if isinstance(each.get("name"), str):
            (found.names if each.get("type") == "personal_chat" else found.titles).add(each["name"])
        for number, message in enumerate(each["messages"], 1):
            if isinstance(message, dict):
                _telegram_message(found, message, number)
        chats.append(_trimmed(found))
    return chats


def _telegram_message(found: Chat, message: dict[str, Any], number: int) -> None:
    named = [message.get(key) for key in ("from", "actor", "forwarded_from", "saved_from", "via_bot", "author")]
    named += message.get("members") or []
    found.names |= {name for name in named if isinstance(name, str) and name}
    pieces = message.get("text") or ""
    pieces = pieces if isinstance(pieces, list) else [pieces]
    for piece in pieces:
        if isinstance(piece, dict) and piece.get("type") in ("mention", "mention_name"):
            found.names.add(str(piece.get("text", "")).lstrip("@"))
    text = "".join(str(piece.get("text", "")) if isinstance(piece, dict) else str(piece) for piece in pieces)
    if message.get("type") != "message":
        found.left_out["events"] += 1
    elif message.get("forwarded_from") or message.get("via_bot"):
        found.left_out["forwarded, others' words"] += 1
    elif not text.strip():
        found.left_out["photos, files, stickers and calls"] += 1
    else:
        identity = message.get("id")
        place = identity if isinstance(identity, int) else number
        # a deleted account has no name
        _add(
            found,
            Said(str(message.get("from") or message.get("from_id") or "?"), text, _iso(message.get("date")), place),
        )


def _add(found: Chat, said: Said) -> bool:
    """Whether the lines that follow can belong to it."""
    name = said.name.strip()
    found.names.add(name)
    if NOT_WORDS.fullmatch(said.text.strip()):
        found.left_out["photos, files, stickers and calls"] += 1
        return False
    found.said.append(Said(name, said.text, said.time, said.number))
    return True


def _event(found: Chat, text: str) -> bool:
    found.left_out["events"] += 1
    if "님" in text:
        parts = re.split(r"님(?:이|을|를|께서|과|와|의|에게|,)?(?: |$)", text.removeprefix("채팅방 관리자가 "))[:-1]
        found.names |= {name for part in parts if (name := part.strip(" ,")) and len(name) <= 40}
    elif match := re.fullmatch(r"(.+?) (?:(?:has )?joined|(?:has )?left|invited (.+?))(?: .*)?\.?", text):
        found.names |= {each for name in match.groups() if name for each in _listed(name.rstrip("."))}
    return False


def _title(found: Chat, title: str) -> None:
    """Who is in the chat, as KakaoTalk writes it where the room has no name of its own, or that name."""
    found.titles.add(title.strip())
    found.names |= {name for name in _listed(title) if re.fullmatch(r"[가-힣]{2,4}|[A-Z][a-z]+(?: [A-Z][a-z]+)?", name)}


def _listed(names: str) -> set[str]:
    """The names in "A, B and C"."""
    return {name for part in re.split(r", | and ", names) if (name := part.strip())}


def _trimmed(found: Chat) -> Chat:
    found.said = [
        Said(s.name, text, s.time, s.number) for s in found.said if (text := "\n".join(_whole(s.text.splitlines())))
    ]
    return found


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Lines without blank ones, which exports put between messages."""
    return (line.strip() for line in lines if line.strip())


def _iso(text: Any) -> datetime | None:
    """The moment of 2024-05-03 14:22 or 2024-05-03T14:22:10, None where it is no such moment."""
    try:
        return datetime.fromisoformat(str(text).strip()).replace(tzinfo=None)
    except ValueError:
        return None


def _time(day: re.Match[str] | None, clock: re.Match[str]) -> datetime | None:
    """The moment that a date and a clock name, None where there is no date or no such moment."""
    if day is None:
        return None
    month = day["m1"] or str(MONTHS.index(name[:3].lower()) + 1 if (name := _month(day)) else 0)
    hour = int(clock["hour"])
    half = {"오전": "a", "오후": "p"}.get(clock["ko"] or "", (clock["en"] or "").lower())
    if half:
        hour = hour % 12 + 12 * (half == "p")
    try:
        year, date = int(day["y1"] or day["y2"]), int(day["d1"] or day["d2"] or day["d3"])
        return datetime(year, int(month), date, hour, int(clock["minute"]))
    except ValueError:
        return None


def _month(day: re.Match[str]) -> str | None:
    name = day["m2"] or day["m3"]
    return name if name and name[:3].lower() in MONTHS else None
