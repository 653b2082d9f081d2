"""The diversity of a dataset for people: sentences, tables, figures, and the page and the Markdown made of them.

The numbers are those of `datasets/diversity.py`. The report lies in this room because every page is made here.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from personalign.datasets.contamination import COMMON, NEAR
from personalign.datasets.growth import CLOSE, LEAST
from personalign.evaluation.pages import WIDE, bullets, fenced, known_language, page, plain_line, write_texts
from personalign.evaluation.tables import Table, markdown
from personalign.evaluation.views import Summary, labels, number, without_nan
from personalign.terminal import one_line

MANY = 0.1  # share of repeats that is worth a word
UNEVEN = 2  # times as many rows as another persona has
VERBATIM = 0.9  # share of a stretch that equals an earlier text: perhaps meant so, and told last
SHOWN = 20  # copies on the page
CLIP = 600  # characters of a text that is shown


def write_diversity(summary: Summary, folder: str | Path, language: str = "en") -> list[Path]:
    """Write diversity.json, diversity.md, diversity.html and figures/*.svg into `folder`; return their paths.

    `summary` is what `diversity` returns. Raises UserError for a language other than "en" and "ko" and for a folder that
    cannot be written.
    """
    known_language(language)
    summary = without_nan(summary)
    drawn, said = _drawn(summary, language), _contents(summary, language)
    texts = {
        "diversity.json": json.dumps(summary, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        "diversity.md": _markdown(said, list(drawn)),
        "diversity.html": page("diversity.html.jinja", said, drawn, language),
        **{f"figures/{name}.svg": draw(WIDE) for name, draw in drawn.items()},
    }
    return write_texts(Path(folder), texts)


def diversity_table(summary: Summary, language: str = "en") -> str:
    """What the terminal shows: the headline, the findings and the tables."""
    parts = [headline(summary, language), bullets(findings(summary, language))]
    return "\n\n".join([*parts, *(markdown(each) for each in tables(summary, language))]) + "\n"


def headline(summary: Summary, language: str = "en") -> str:
    """The first sentence: where the data collapses; else whether it holds a benchmark's items, or repeats itself."""
    words, collapses = labels(language), _collapses(summary)
    if collapses:
        return _collapse(summary, *collapses[0], language)
    if summary["against"] and summary["against"]["rows"]:
        return words["div_copied"].format(rows=summary["against"]["rows"], n=summary["rows"])
    measured = {part: found["repeats"] for part, found in summary["parts"].items() if found["repeats"] is not None}
    if not measured:
        return words["div_few"]
    part = max(measured, key=lambda part: measured[part])
    case = "div_some" if measured[part] >= MANY else "div_fine"
    return words[case].format(part=words[f"div_{part}"], repeats=_percent(measured[part]))


def findings(summary: Summary, language: str = "en") -> list[str]:
    """The sentences under the headline."""
    words, said = labels(language), []
    for at, (part, one) in enumerate(_collapses(summary)):
        fell = one["collapse"]
        place = words["div_where_start" if fell["start"] <= 1 else "div_where"]
        lines = [] if at == 0 else [_collapse(summary, part, one, language)]  # the first one is the headline
        lines.append(place.format(source=fell["source"], before=_percent(fell["before"])))
        if not fell["to_the_end"]:
            lines.append(words["div_until"].format(last=fell["last"]))
        if fell["verbatim"] > VERBATIM:
            lines.append(words["div_verbatim"].format(part=words[f"div_{part}"]))
        said.append(" ".join(lines))
    for part, found in summary["parts"].items():
        facts = {"part": words[f"div_{part}"], "texts": found["texts"], "identical": found["identical"]}
        if found["repeats"] is not None:
            threshold, nearest = number(summary["threshold"], 2), number(found["nearest"], 2)
            shares = {"repeats": _percent(found["repeats"]), "threshold": threshold, "nearest": nearest}
            said.append(words["div_repeats"].format(**facts, **shares))
        if found["clusters"]["largest"]:
            largest = found["clusters"]["largest"][0]
            said.append(words["div_cluster"].format(**facts, rows=largest["rows"], text=one_line(largest["text"], 90)))
        if found["uncompared"]:
            said.append(words["div_uncompared"].format(**facts, n=found["uncompared"]))
    part, found = list(summary["parts"].items())[-1]
    kinds = {kind: _percent(count / found["texts"]) for kind, count in found["language"]["texts"].items()}
    said.append(words["div_script"].format(part=words[f"div_{part}"], **kinds))
    large, small = _extremes(summary)
    if large["rows"] >= UNEVEN * small["rows"]:
        names = {"large": large["name"], "most": large["rows"], "small": small["name"], "least": small["rows"]}
        said.append(words["div_uneven"].format(**names))
    said += _against(summary, language)
    if summary["unreadable"]["rows"]:
        first = summary["unreadable"]["first"][0]
        said.append(words["div_unreadable"].format(rows=summary["unreadable"]["rows"], first=first))
    return said


def tables(summary: Summary, language: str = "en") -> list[Table]:
    """Repetition and length of each part, the personas with their words, the largest clusters and the copies."""
    words, parts = labels(language), summary["parts"]
    rows: dict[str, list[str]] = {
        "div_texts": [str(found["texts"]) for found in parts.values()],
        "div_identical": [str(found["identical"]) for found in parts.values()],
        "div_repeating": [_percent(found["repeats"], 1) for found in parts.values()],
        "div_nearest": [number(found["nearest"], 3) for found in parts.values()],
        "div_average": [number(_average(found), 3) for found in parts.values()],
        "div_clusters": [str(found["clusters"]["count"]) for found in parts.values()],
        "div_largest": [max(found["clusters"]["sizes"], key=int) for found in parts.values()],
    }
    shown = [[words[name], *values] for name, values in rows.items()]
    for n in ("1", "2", "3"):
        label = words["div_distinct"].format(n=n)
        shown.append([label, *(number(found["distinct"][n], 3) for found in parts.values())])
    for unit in ("words", "characters"):
        spans = [found["length"][unit] for found in parts.values()]
        shown.append(
            [words[f"div_{unit}"], *(f"{each['median']:.0f} [{each['p5']:.0f}, {each['p95']:.0f}]" for each in spans)]
        )
    head = [words["div_measure"], *(words[f"div_{part}_title"] for part in parts)]
    found = [Table(words["div_table_parts"], head, shown)]
    equal = words["div_distinct_equal"].format(n=summary["personas"]["words_compared"])
    people = [
        [
            each["name"],
            str(each["rows"]),
            number(each["distinct_2"], 3),
            " / ".join(_percent(each["language"][script]) for script in ("hangul", "latin")),
            ", ".join(f"{topic['word']} {_percent(topic['share'])}%" for topic in each["topics"]) or "–",
        ]
        for each in summary["personas"]["each"]
    ]
    scripts = f"{words['div_ko']} / {words['div_en']}, %"
    head = [words["div_persona"], words["div_rows"], equal, scripts, words["div_topics"]]
    found.append(Table(words["div_table_personas"], head, people))
    clusters = [
        [words[f"div_{part}_title"], str(each["rows"]), each["persona"], one_line(each["text"], 90)]
        for part, one in parts.items()
        for each in one["clusters"]["largest"]
    ]
    head = [words["div_kind"], words["div_texts"], words["div_persona"], words["div_example"]]
    found.append(Table(words["div_table_clusters"], head, clusters))
    copies = [
        [each["row"], each["item"], number(each["score"], 2), one_line(each["shared"], 60) or "–"]
        for each in (summary["against"] or {"copies": []})["copies"]
    ]
    more = [[words["div_more"].format(n=len(copies) - SHOWN), "", "", ""]] if len(copies) > SHOWN else []
    head = [words["div_row"], words["div_item"], "ROUGE-L", words["div_shared_words"]]
    found.append(Table(words["div_copies_title"], head, copies[:SHOWN] + more))
    return [each for each in found if each.rows]


def _drawn(summary: Summary, language: str) -> dict[str, Callable[[int], str]]:
    from personalign.evaluation import diversity_figures as figures

    drawn = {"div_clusters": figures.clusters_figure, "div_lengths": figures.lengths_figure}
    if any(found["growth"] for found in summary["parts"].values()):
        drawn = {"div_growth": figures.growth_figure, **drawn}
    drawn["div_personas"] = figures.personas_figure
    return {name: partial(draw, summary, language) for name, draw in drawn.items()}


def _contents(summary: Summary, language: str) -> dict[str, Any]:
    """What both renderings show."""
    words = labels(language)
    threshold = number(summary["threshold"], 2)
    one = all(len(found["growth"]) <= 1 for found in summary["parts"].values())
    copies = summary["against"]["copies"] if summary["against"] else []
    methods = {"threshold": threshold, "least": LEAST, "close": CLOSE, "near": NEAR, "common": COMMON}
    captions = {
        "div_growth": words["div_growth_caption"].format(dots=words["div_growth_dots"] if one else ""),
        "div_clusters": words["div_clusters_caption"].format(threshold=threshold),
        "div_lengths": words["div_lengths_caption"],
        "div_personas": words["div_personas_caption"],
    }
    pairs = {"examples": [("new", words["div_new"]), ("earlier", words["div_earlier"])]}
    pairs["copies"] = [("row", words["div_row"]), ("item", words["div_item"])]
    return {
        "words": words,
        "title": words["div_title"],
        "subtitle": words["div_subtitle"].format(rows=summary["rows"], n=len(summary["personas"]["each"])),
        "headline": headline(summary, language),
        "findings": findings(summary, language),
        "tiles": _tiles(summary, language),
        "captions": captions,
        "tables": tables(summary, language),
        "methods": [
            words[f"div_method_{name}"].format(**methods)
            for name in ("rouge", "collapse", "distinct", "topics", "script", "copies")
        ],
        "arms": pairs["examples"],  # two hues: a text and what it is like
        "pairs": pairs,
        "examples": [
            _card(each, words, new="text", earlier="earlier")
            for _, one_part in _collapses(summary)
            for each in one_part["collapse"]["examples"]
        ],
        "copies": [_card(each, words, row="text", item="item_text") for each in copies[:SHOWN]],
        "copies_caption": words["div_copies_caption"].format(shown=min(SHOWN, len(copies)), n=len(copies)),
    }


def _card(each: dict[str, Any], words: dict[str, str], **sides: str) -> dict[str, Any]:
    """Two texts side by side, each with its place, headed by how similar they are."""
    places = [each.get("source") or each["row"], each.get("earlier_source") or each["item"]]
    facts = dict(zip(sides, places, strict=True))
    if each.get("shared"):
        last = list(sides)[-1]
        facts[last] += "; " + words["div_shared"].format(shared=each["shared"])
    heading = words["div_heading"].format(source=places[0], score=number(each["score"], 2))
    return {"prompt": heading, "answers": {side: _clipped(each[key]) for side, key in sides.items()}, "facts": facts}


def _markdown(said: dict[str, Any], figures: list[str]) -> str:
    words = said["words"]
    lines = [plain_line(line) for line in said["findings"]]
    parts = [f"# {said['title']}", plain_line(said["subtitle"]), f"**{plain_line(said['headline'])}**", bullets(lines)]
    for name in figures:
        title = words[f"{name}_title"]
        parts += [f"## {title}", f"![{title}](figures/{name}.svg)", said["captions"][name]]
    for kind, caption in (("examples", words["div_examples_caption"]), ("copies", said["copies_caption"])):
        if said[kind]:
            parts += [f"## {words[f'div_{kind}_title']}", plain_line(caption)]
        for card in said[kind]:
            parts.append(f"### {plain_line(card['prompt'])}")
            for side, label in said["pairs"][kind]:
                parts += [plain_line(f"{label} ({card['facts'][side]}):"), fenced(card["answers"][side])]
    parts += [f"## {words['numbers_title']}", *(markdown(each) for each in said["tables"])]
    return "\n\n".join([*parts, f"## {words['methods_title']}", bullets(said["methods"])]) + "\n"


def _tiles(summary: Summary, language: str) -> list[dict[str, str]]:
    """What the page shows at its top; {"pole", "value", "around", "verdict", "state"} as in the persona's report."""
    words, tiles = labels(language), []
    collapses = dict(reversed(_collapses(summary)))
    for part, found in summary["parts"].items():
        if found["repeats"] is None:
            continue
        state = "opposite_clear" if part in collapses else "intended_clear" if found["repeats"] < MANY else ""
        verdict = words["div_verdict_fine"]
        if part in collapses:
            verdict = words["div_verdict_collapse"].format(row=collapses[part]["collapse"]["row"])
        around = words["div_tile_nearest"].format(nearest=number(found["nearest"], 2))
        tiles.append(_tile(words[f"div_tile_{part}"], _percent(found["repeats"]) + "%", around, verdict, state))
    against, large, small = summary["against"], *_extremes(summary)
    if against is None:
        tiles.append(_tile(words["div_tile_copies"], "–", "", words["div_verdict_unasked"]))
    else:
        verdict = words["div_verdict_found"].format(n=sum(each["items"] for each in against["files"]))
        state = "opposite_clear" if against["rows"] else "intended_clear"
        tiles.append(_tile(words["div_tile_copies"], str(against["rows"]), "", verdict, state))
    ratio = large["rows"] / small["rows"]
    verdict = words["div_verdict_even"] if len(summary["personas"]["each"]) > 1 else words["div_verdict_one"]
    if ratio >= UNEVEN:
        verdict = words["div_verdict_uneven"].format(ratio=number(ratio, 1))
    return [*tiles, _tile(words["div_tile_personas"], str(len(summary["personas"]["each"])), "", verdict)]


def _tile(pole: str, value: str, around: str, verdict: str, state: str = "") -> dict[str, str]:
    return {"pole": pole, "value": value, "around": around, "verdict": verdict, "state": state}


def _collapses(summary: Summary) -> list[tuple[str, Summary]]:
    """(part, what grew) wherever there is a collapse, the one that begins earliest first, exact copies after all others."""
    found = [(part, one) for part, each in summary["parts"].items() for one in each["growth"] if one["collapse"]]
    return sorted(found, key=lambda each: (each[1]["collapse"]["verbatim"] > VERBATIM, each[1]["collapse"]["row"]))


def _collapse(summary: Summary, part: str, one: Summary, language: str) -> str:
    words, fell = labels(language), one["collapse"]
    name = "div_collapse_start" if fell["start"] <= 1 else "div_collapse"
    if len(summary["personas"]["each"]) > 1:
        name += "_of"
    close = fell["threshold"] < summary["threshold"]
    does = words["div_does_close" if close else "div_does_repeat"].format(threshold=number(fell["threshold"], 2))
    facts = {"row": fell["row"], "persona": one["persona"], "part": words[f"div_{part}"], "does": does}
    return words[name].format(**facts, repeats=_percent(fell["repeats"]))


def _against(summary: Summary, language: str) -> list[str]:
    words = labels(language)
    if summary["against"] is None:
        return [words["div_against_unasked"]]
    return [
        words["div_against" if each["rows"] else "div_against_none"].format(
            file=each["file"], rows=each["rows"], found=each["items_found"], items=each["items"]
        )
        for each in summary["against"]["files"]
    ]


def _average(found: Summary) -> float | None:
    """Mean over the personas, each with the weight of its texts."""
    pairs = [(one["average"], one["texts"]) for one in found["growth"]]
    return sum(average * n for average, n in pairs) / sum(n for _, n in pairs) if pairs else None


def _extremes(summary: Summary) -> tuple[Summary, Summary]:
    """The personas with the most and with the fewest rows."""
    each = summary["personas"]["each"]
    return max(each, key=lambda one: one["rows"]), min(each, key=lambda one: one["rows"])


def _percent(share: float | None, digits: int = 0) -> str:
    return number(None if share is None else 100 * share, digits)


def _clipped(text: str) -> str:
    return text if len(text) <= CLIP else text[:CLIP].rstrip() + " …"
