"""Plain sentences that go with a summary: what was reduced, and what the figures do not say."""

from collections.abc import Sequence

from personalign.evaluation.inventory import load_items

_NOTES = {
    "en": {
        "share": "The inventory asked {asked} of its {all} items ({share:.0%}, evenly spaced): fewer items, "
        "wider intervals.",
        "inventory": "The inventory says which of two answers the model finds likelier in these situations. It is not "
        "a test of a personality, and a model has none in the sense in which a person does.",
        "texts": "The three ways of asking can disagree: letters and listed texts also depend on how a model handles lists of "
        "options, open answers on how it talks.",
        "interval": "Intervals say how much a result hangs on which items and pairs were asked, not on the training's "
        "seed.",
        "seeds": "The adapters of {seeds} training seeds ({names}) were measured. Intervals say how much a result hangs on "
        "which items and pairs were asked and on the training's seed; SD is the standard deviation between the seeds. With "
        "few seeds such an interval is wide. Answers shown are those of seed {first}.",
        "type": "P(type) is how sure these items make us of the direction on each axis: a small lean that all items "
        "share gives a value near 1. The margins say how large the lean is.",
        "alpha": "Cronbach's alpha needs respondents, and one model is one respondent. Here it says how well the three "
        "wordings of a question agree on which items lean which way (orders averaged), not how reliable a test of people is.",
        "pairs": "The {pairs} held-out pairs are in the style of the training pairs: accuracy on them shows what was "
        "learned, not that it carries over to other texts. Reward accuracy compares with the base under the same "
        "prompt; the base itself has none by definition.",
        "no_pairs": "No held-out pairs were given, so there is no preference accuracy.",
        "no_poles": "The persona aims at no pole, so no axis has a target: the inventory shows where it stands, not "
        "whether it moved as intended.",
    },
    "ko": {
        "share": "문항 {all}개 가운데 {asked}개({share:.0%}, 고른 간격)만 물었습니다. "
        "문항이 적을수록 구간은 넓어집니다.",
        "inventory": "이 문항은 두 대답 가운데 모델이 어느 쪽을 더 그럴듯하게 보는지를 잽니다. 성격 검사가 아니며, "
        "모델에게 사람과 같은 뜻의 성격이 있다는 말도 아닙니다.",
        "texts": "세 가지 묻는 방식은 서로 어긋날 수 있습니다. 글자와 보기로 준 글은 보기 목록을 다루는 방식에, "
        "열린 대답은 말하는 방식에 좌우됩니다.",
        "interval": "구간은 어떤 문항과 쌍을 물었느냐에 따른 흔들림이며, 학습의 시드에 따른 흔들림은 담지 않습니다.",
        "seeds": "학습 시드 {seeds}개({names})의 어댑터를 쟀습니다. 구간은 어떤 문항과 쌍을 물었느냐와 학습의 시드에 따른 "
        "흔들림을 함께 담으며, SD는 시드 사이의 표준편차입니다. 시드가 적으면 구간은 넓어집니다. "
        "보여 주는 답은 시드 {first}의 것입니다.",
        "type": "P(유형)은 이 문항들로 볼 때 각 축의 방향이 얼마나 확실한지를 뜻합니다. 아주 작은 치우침도 "
        "모든 문항에서 같은 쪽이면 1에 가까워지므로, 치우침의 크기는 마진으로 보세요.",
        "alpha": "크론바흐 알파에는 응답자가 여럿 필요한데 모델은 하나입니다. 여기서는 질문의 세 가지 표현이 문항별 치우침에 "
        "얼마나 일치하는지(순서는 평균)를 뜻하며, 사람을 재는 검사의 신뢰도가 아닙니다.",
        "pairs": "따로 떼어 둔 {pairs}쌍은 학습 쌍과 결이 같습니다. 이 정확도는 배운 것을 보여 줄 뿐 다른 글에도 "
        "통한다는 뜻은 아닙니다. 보상 정확도는 같은 프롬프트의 기본 모델과 견준 값이라 기본 모델 자신에게는 없습니다.",
        "no_pairs": "따로 떼어 둔 쌍이 없어 선호 정확도는 없습니다.",
        "no_poles": "이 페르소나는 어느 극도 목표로 하지 않습니다. 문항은 지금 위치를 보여 줄 뿐 뜻대로 움직였는지는 "
        "말하지 않습니다.",
    },
}


def notes(language: str, asked: int, pairs: int, has_poles: bool, seeds: Sequence[str] = ()) -> list[str]:
    """The notes that apply, in the language of the measurement; `seeds` are those of training, where they are several."""
    total = len(load_items(language))
    names = ["share"] if asked < total else []
    names += ["inventory", "texts", "seeds" if len(seeds) > 1 else "interval", "type", "alpha"]
    names += ["pairs" if pairs else "no_pairs", *([] if has_poles else ["no_poles"])]
    facts = {"asked": asked, "all": total, "share": asked / total, "pairs": pairs, "seeds": len(seeds)}
    trained = {"names": ", ".join(seeds), "first": next(iter(seeds), "")}
    return [_NOTES[language][name].format(**facts, **trained) for name in names]
