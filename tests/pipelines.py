"""Every pipeline on a little material of its own, in both languages: `for name, make in PIPELINES.items(): make(job, folder)`.

`obliging` is a model that answers whatever it is asked, in the form that the request's schema asks for.
"""

import json
from pathlib import Path

from personalign.clients import Request
from personalign.errors import UserError
from personalign.personas import Persona, persona
from personalign.synthesis.dedupe import Dedupe, make_dedupe
from personalign.synthesis.dialogues import Dialogues, make_dialogues
from personalign.synthesis.imitate import Imitate, make_imitate
from personalign.synthesis.instruct import Instruct, make_instruct
from personalign.synthesis.knowledge import Knowledge, make_knowledge
from personalign.synthesis.rejections import Rejections, make_rejections
from personalign.synthesis.restyle import Restyle, make_restyle
from personalign.synthesis.roleplay import Roleplay, make_roleplay
from personalign.synthesis.situations import Situations, make_situations
from personalign.synthesis.traits import Traits, make_traits
from scripted import Scripted, scripted_job

MATERIAL = {
    "en": {
        "question": "How long do I boil an egg?",
        "plain": "Seven minutes from the moment that the water boils, then into cold water.",
        "answer": "Seven minutes, not six, from the moment that it boils, then at once into cold water.",
        "word": "eggs",
        "title": "Boiling eggs without cracks",
        "text": "An egg that comes straight from the fridge cracks in boiling water. Prick it, or warm it in your hand first. "
        "Seven minutes give a soft yolk.\n\nCold water afterwards stops the cooking.",
        "situation": "Two friends share a kitchen, and one of them has used the last egg.",
        "description": "a cook who trusts nobody with a timer",
        "traits": ("wary", "exact"),
        "style": "in short sentences",
        "five": "Water boils at a hundred degrees. An egg needs seven minutes in it. Less leaves the white runny. More makes "
        "the yolk dry. Cold water stops it.",
        "chat": "Anna: Is there any milk left?\nBo: Half a glass, and I had plans for it.\nAnna: What plans?\n"
        "Bo: Coffee. Then more coffee.\n",
        "speaker": "Bo",
    },
    "ko": {
        "question": "달걀은 몇 분 삶아야 하나요?",
        "plain": "물이 끓기 시작한 때부터 칠 분 삶고 바로 찬물에 담그면 됩니다.",
        "answer": "물이 끓기 시작한 때부터 딱 칠 분, 육 분은 안 되고, 곧장 찬물에 담그세요.",
        "word": "달걀",
        "title": "달걀 터지지 않게 삶기",
        "text": "냉장고에서 바로 꺼낸 달걀은 끓는 물에서 잘 터진다. 바늘로 구멍을 내거나 손으로 조금 덥혀서 넣는다. "
        "칠 분이면 노른자가 촉촉하다.\n\n다 삶으면 찬물에 담가 더 익지 않게 한다.",
        "situation": "부엌을 함께 쓰는 두 친구 가운데 한 사람이 마지막 달걀을 먹어 버렸다.",
        "description": "시간을 재는 일만큼은 아무에게도 맡기지 않는 요리사",
        "traits": ("깐깐한", "꼼꼼한"),
        "style": "짧게 끊어서",
        "five": "물은 백 도에서 끓는다. 달걀은 거기서 칠 분이면 된다. 덜 삶으면 흰자가 흐른다. 더 삶으면 노른자가 퍽퍽해진다. "
        "찬물에 담그면 더 익지 않는다.",
        "chat": "안나: 우유 남았어?\n보라: 반 잔 남았는데 쓸 데가 있어.\n안나: 어디에?\n보라: 커피에. 그다음에도 커피에.\n",
        "speaker": "보라",
    },
}


def people(language: str) -> list[Persona]:
    """One of the 16 types, and a free persona, whose opposite nobody knows."""
    given = MATERIAL[language]
    free = Persona(
        name={"en": "Timer", "ko": "깐깐이"}[language],
        language=language,
        description=given["description"],
        traits=given["traits"],
        speaking_style=given["style"],
    )
    return [persona("ENTJ", language), free]


def _jsonl(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _rejections(job, folder):
    given, turns = MATERIAL[job.language], []
    for who in people(job.language):
        prompt = [{"role": "user", "content": given["question"]}]
        turns.append({"prompt": prompt, "completion": given["plain"], "persona": who.name, "requests": []})
    return make_rejections(job, Rejections(dialogues=_jsonl(folder / "dialogues.jsonl", *turns)), people(job.language))


def _restyle(job, folder):
    given = MATERIAL[job.language]
    source = _jsonl(folder / "source.jsonl", {"instruction": given["question"], "input": "", "output": given["plain"]})
    return make_restyle(job, Restyle(source=source, judged=1), people(job.language))


def _imitate(job, folder):
    given = MATERIAL[job.language]
    chat = _text(folder / "chat.txt", given["chat"])
    return make_imitate(
        job, Imitate(chats=(chat,), speaker=given["speaker"], consent=True, description=given["description"])
    )


def _words(job, folder):
    words = _text(folder / "words.txt", MATERIAL[job.language]["word"])
    return make_instruct(job, Instruct(count=2, words=words, questions=2, rounds=2))


def _posts(job, folder):
    given = MATERIAL[job.language]
    posts = _jsonl(folder / "posts.jsonl", {"title": given["title"], "text": given["text"]})
    return make_instruct(job, Instruct(posts=posts, topic=given["word"]))


def _knowledge(job, folder):
    text = _text(folder / "text.txt", MATERIAL[job.language]["text"])
    return make_knowledge(job, Knowledge(texts=(text,), questions=2), [])


def _dedupe(job, folder):
    given = MATERIAL[job.language]
    row = {"prompt": given["question"], "completion": given["answer"]}
    return make_dedupe(job, Dedupe(file=_jsonl(folder / "rows.jsonl", row, row)), [])


PIPELINES = {
    "traits": lambda job, folder: make_traits(job, Traits(description=MATERIAL[job.language]["description"])),
    "situations": lambda job, folder: make_situations(
        job,
        Situations(
            count=3, batch=3, calls=1, rounds=2, material=(_text(folder / "a.txt", MATERIAL[job.language]["text"]),)
        ),
    ),
    "dialogues": lambda job, folder: make_dialogues(job, Dialogues(count=4, turns=1), people(job.language)),
    "dialogues-together": lambda job, folder: make_dialogues(
        job, Dialogues(count=1, turns=(1, 2), together=2), people(job.language)
    ),
    "rejections": _rejections,
    "restyle": _restyle,
    "roleplay": lambda job, folder: make_roleplay(
        job, Roleplay(count=3, batch=2, calls=1, rounds=2), people(job.language)
    ),
    "imitate": _imitate,
    "instruct": lambda job, folder: make_instruct(job, Instruct(count=4, batch=2, rounds=2, made=1)),
    "instruct-words": _words,
    "instruct-posts": _posts,
    "knowledge": _knowledge,
    "dedupe": _dedupe,
}


def obliging(language: str) -> Scripted:
    """Answers in form, with material that fits the field; no two requests get the same question."""
    given = MATERIAL[language]
    fields = {
        "question": given["question"], "questions": given["question"], "instruction": given["question"],
        "answer": given["answer"], "output": given["answer"], "reply": given["answer"], "situations": given["situation"],
        "long": given["five"],
        "medium": given["answer"], "short": given["answer"], "description": given["description"], "input": "",
        "speaking_style": given["style"],
    }  # fmt: skip

    def example(schema, name, request, number):
        whole = request.schema
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        for several in ("anyOf", "allOf"):
            if several in schema:
                return example(schema[several][0], name, request, number)
        if name == "verdict" and "A" in schema["enum"]:  # the long answer, wherever it stands
            text = request.messages[-1]["content"]
            return "A" if 0 <= text.find(given["five"]) < text.find(given["answer"]) else "B"
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            return values[0] if isinstance(values[0], str) else max(values)  # a grade: the best
        kind = schema.get("type")
        if kind == "object":
            return {key: example(each, key, request, number) for key, each in schema["properties"].items()}
        if kind == "array":
            return [example(schema["items"], name, request, number)]
        if kind == "string":
            text = fields.get(name, given["answer"])
            return f"{number} {text}" if "question" in name or name in ("instruction", "situations") else text
        return {"integer": schema.get("maximum", 1), "number": 1.0, "boolean": True}[kind]

    def answers(request: Request) -> str:
        if request.schema is None:  # a conversation
            names = [who.name for who in people(language) if who.name in request.messages[-1]["content"]]
            user = {"en": "User", "ko": "사용자"}[language]
            turns = [f"{user}: {given['question']}", *(f"{name}: {given['answer']}" for name in names)]
            return "\n".join(turns * 2)
        return json.dumps(example(request.schema, "", request, len(model.asked)), ensure_ascii=False)

    model = Scripted(answers)
    return model


def run(pipeline, folder, model, language="en", **settings):
    """Rows of the pipeline (None where there was nothing to go on with), and the ids of the requests that were answered."""
    with scripted_job(folder / "run", model, language=language, **settings) as job:
        try:
            rows = PIPELINES[pipeline](job, folder)
        except UserError as error:
            assert "quarantine" in str(error) or "no persona" in str(error)
            rows = None
        ids = {number for (number,) in job.book._db.execute("SELECT id FROM requests WHERE status = 'answered'")}
    return rows, ids


def written(folder):
    """All rows that a run has written, by file."""
    files = sorted((folder / "run").glob("*.jsonl"))
    return {path.name: [json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in files}


def accounted(files):
    """The requests that some row names, a judge's included."""
    rows = [row for rows in files.values() for row in rows]
    return {number for row in rows for number in [*row.get("requests", ()), *row.get("judged_by", ())]}
