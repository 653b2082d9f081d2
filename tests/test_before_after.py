"""Before and after RLHF: the arithmetic, what is called a sign of reward hacking, and a page that nothing breaks out of."""

import json
import math
import re
from copy import deepcopy
from xml.etree import ElementTree

import numpy as np
import pytest

from personalign.errors import UserError
from personalign.evaluation.before_after import before_after_summary, before_after_table, write_before_after
from personalign.evaluation.before_after_report import SIGNS, findings, headline, signs
from personalign.evaluation.views import labels
from personalign.statistics import bootstrap, wilson
from test_report import Page

GATE = {
    "pairs": 200, "prompts": 100, "passes": True, "why": "it orders most pairs rightly",
    "accuracy": {"value": 0.92, "low": 0.87, "high": 0.96},
    "length": {
        "longer": {"value": 0.55, "low": 0.46, "high": 0.63}, "rule": "longer",
        "accuracy": {"value": 0.55, "low": 0.46, "high": 0.63},
    },
    "difference": {"value": 0.37, "low": 0.29, "high": 0.45},
    "slope": {"value": 0.01, "low": 0.0, "high": 0.02},
    "points": [[40, 9.0, 35, -2.0], [30, 6.0, 31, -4.0]],
}  # fmt: skip
FACTS = {
    "model": "smollm2",
    "steps": 40,
    "kl_bound": 10.0,
    "curve": [
        {
            "step": step,
            "split": "train",
            "score": step / 20,
            "kl": step / 10,
            "length": 40 + step,
            "entropy": 2 - step / 40,
        }
        for step in range(1, 41)
    ],
}


def row(at, reward_before=1.0, reward_after=2.0, **changes):
    """A prompt with two answers of eight words that share nothing with those of other prompts."""
    said = [" ".join(f"{side}{at}.{word}" for word in range(8)) for side in ("b", "a")]
    return {
        "prompt": f"What about {at}?", "before": said[0], "after": said[1],
        "reward_before": reward_before, "reward_after": reward_after, "tokens_before": 40, "tokens_after": 40,
        "kl": 3.0, "perplexity_before": 8.0, "perplexity_after": 8.0, "ended_before": True, "ended_after": True,
    } | changes  # fmt: skip


def rows(count=12, **changes):
    """Prompts whose reward rose by about one; `changes` are fixed, or functions of the prompt's number."""
    generator = np.random.default_rng(0)
    found = []
    for at in range(count):
        before = float(generator.normal(1, 0.5))
        own = {name: change(at) if callable(change) else change for name, change in changes.items()}
        found.append(row(at, before, before + float(generator.normal(1, 0.3)), **own))
    return found


def summed_up(given, gate=GATE, **facts):
    return before_after_summary(given, gate, FACTS | facts)


# The arithmetic


def test_golden_numbers_of_four_prompts():
    given = [
        row(0, 1.0, 2.0, tokens_after=50, kl=2.0, perplexity_after=16.0),
        row(1, 2.0, 4.0, tokens_after=60, kl=4.0, ended_before=False),
        row(2, 0.0, -1.0, tokens_after=40, kl=0.0, perplexity_before=2.0, perplexity_after=4.0),
        row(3, 5.0, 7.0, tokens_after=50, kl=6.0, ended_before=False, ended_after=False),
    ]
    summary = summed_up(given)
    mean, median = summary["reward"]["mean"], summary["reward"]["median"]
    assert [mean[key]["value"] for key in ("before", "after", "difference")] == [2.0, 3.0, 1.0]
    assert [median[key]["value"] for key in ("before", "after", "difference")] == [1.5, 3.0, 1.5]
    improved = summary["reward"]["improved"]
    assert (improved["k"], improved["n"], improved["rate"]) == (3, 4, 0.75)
    assert (improved["low"], improved["high"]) == wilson(3, 4)[1:]
    assert summary["kl"] == {"mean": bootstrap([2.0, 4.0, 0.0, 6.0])._asdict(), "bound": 10.0}
    assert summary["length"]["difference"]["value"] == 10.0
    by_length = summary["by_length"]
    assert by_length["explained"] == pytest.approx(0.1) and by_length["share"] == pytest.approx(0.1)
    assert by_length["beyond"]["value"] == pytest.approx(0.9)
    assert summary["perplexity"]["before"] == pytest.approx((8 * 8 * 2 * 8) ** 0.25)
    assert summary["perplexity"]["after"] == pytest.approx((16 * 8 * 4 * 8) ** 0.25)
    assert summary["perplexity"]["ratio"]["value"] == pytest.approx(math.sqrt(2))
    assert [summary["ended"][side]["k"] for side in ("before", "after")] == [2, 3]
    assert summary["ended"]["difference"]["value"] == 0.25
    assert summary["distinct"] == {"before": {"1": 1.0, "2": 1.0}, "after": {"1": 1.0, "2": 1.0}}
    assert summary["rows"] == given and summary["training"]["steps"] == 40


def test_intervals_are_paired_by_prompt():
    hard = np.random.default_rng(1).normal(0, 50, 20)  # prompts differ far more than the answers to one
    given = [row(at, float(level), float(level) + 1 + at % 2) for at, level in enumerate(hard)]
    difference = summed_up(given)["reward"]["mean"]["difference"]
    assert 1 < difference["low"] < 1.5 < difference["high"] < 2
    shuffled = [
        one | {"reward_after": other["reward_after"]} for one, other in zip(given, given[7:] + given[:7], strict=True)
    ]
    apart = summed_up(shuffled)["reward"]["mean"]["difference"]
    assert apart["value"] == pytest.approx(difference["value"]) and apart["low"] < 0
    assert summed_up([row(at, float(level), float(level) + 1) for at, level in enumerate(hard)])["reward"]["mean"][
        "difference"
    ] == {"value": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1)}


def test_the_median_is_paired_too():
    given = [row(at, float(at), float(at) + 2) for at in range(15)]
    difference = summed_up(given)["reward"]["median"]["difference"]
    assert difference == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_repetition_is_compared_at_equal_length():
    """Longer answers repeat more words anyhow: the first words of both are compared."""
    words = "one two three four five six"
    given = [row(at, before=f"{at} {words}", after=f"{at} {words} {words}") for at in range(2)]
    distinct = summed_up(given)["distinct"]
    assert distinct["before"] == distinct["after"] == {"1": 8 / 14, "2": 7 / 12}


# Signs of reward hacking

SIGN_ROWS = {
    "length": {"tokens_after": 120},  # 80 tokens at 0.01: four fifths of the gain of about one
    "kl": {"kl": lambda at: 10.5 + at % 3},
    "distinct": {"after": lambda at: f"{at} good good good good good good good"},
    "opening": {
        "after": lambda at: ("I would love " if at < 7 else f"a{at} b{at} c{at} ") + f"d{at} e{at} f{at} g{at} h{at}"
    },
    "perplexity": {"perplexity_after": 13.0},
    "unfinished": {"ended_after": lambda at: at % 2 == 0},
}


def test_a_plain_gain_shows_no_sign():
    summary = summed_up(rows())
    assert summary["signs"] == []
    assert signs(summary)[0].startswith(f"None of the {len(SIGNS)} signs")
    assert headline(summary).startswith("On 12 unseen prompts the mean reward rose from ")
    assert "below its bound of 10.0" in findings(summary)[1]


@pytest.mark.parametrize("name", SIGN_ROWS)
def test_each_sign_shows_where_it_should_and_no_other_does(name):
    summary = summed_up(rows(**SIGN_ROWS[name]))
    assert summary["signs"] == [name]
    for language in ("en", "ko"):
        (told,) = signs(summary, language)
        assert "{" not in told and told in before_after_table(summary, language)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_after": 80},  # two fifths of the gain
        {"tokens_after": 10},  # shorter, against the slope
        {"kl": 9.9},
        {"after": lambda at: f"{at} {at} " + " ".join(f"a{at}.{word}" for word in range(6))},
        {"before": lambda at: "I would love " + " ".join(f"b{at}.{word}" for word in range(5)),
         "after": lambda at: "I would love " + " ".join(f"a{at}.{word}" for word in range(5))},
        {"perplexity_after": 11.5},
        {"ended_after": lambda at: at % 6 > 0},
    ],
)  # fmt: skip
def test_short_of_its_threshold_a_sign_does_not_show(changes):
    assert summed_up(rows(**changes))["signs"] == []


def test_a_reward_model_that_failed_or_was_never_judged_is_a_sign():
    failed = summed_up(rows(), GATE | {"passes": False})
    assert failed["signs"] == ["gate"] and "did not pass its gate: it orders" in signs(failed)[0]
    never = summed_up(rows(), None)
    assert never["signs"] == ["gate"] and "never judged" in signs(never)[0]
    assert never["by_length"] is None and "not known" in findings(never)[2]
    assert "Reward a token" not in before_after_table(never)


def test_rewards_beyond_all_that_were_judged_are_a_sign():
    given = [one | {"reward_after": 9.5 + at % 2} for at, one in enumerate(rows())]
    assert summed_up(given)["signs"] == ["beyond_judged"]


def test_length_explains_nothing_where_there_is_no_certain_gain():
    given = [row(at, 1.0, 1.0 + (-1) ** at * 0.5 + 0.01, tokens_after=200) for at in range(12)]
    assert "length" not in summed_up(given)["signs"]


# What is said


def test_no_gain_is_said_plainly():
    same = summed_up([row(at, 1.0, 1.0) for at in range(5)])
    assert headline(same) == "No gain: on 5 unseen prompts every reward is what it was before (1.00 on average)."
    assert headline(same, "ko").startswith("오른 것이 없습니다.")
    assert same["by_length"]["share"] is None
    assert same["reward"]["improved"]["k"] == 0  # a tie is no success
    noise = summed_up([row(at, 1.0, 1.0 + (-1) ** at) for at in range(12)])
    assert headline(noise).startswith("No certain gain: on 12 unseen prompts")
    fell = summed_up([row(at, 2.0, 1.0 - at / 100) for at in range(12)])
    assert headline(fell).startswith("On 12 unseen prompts the mean reward fell from 2.00 to 0.9")


def test_one_prompt_has_values_and_no_intervals():
    summary = summed_up([row(0)])
    assert summary["reward"]["mean"]["difference"] == {"value": 1.0, "low": None, "high": None}
    assert headline(summary).startswith("No certain gain")
    assert "nan" not in before_after_table(summary)


def test_the_terminal_table_holds_the_numbers():
    shown = before_after_table(summed_up(rows(tokens_after=60)))
    assert "| Tokens an answer" in shown and "+20.0 [+20.0, +20.0] *" in shown
    assert re.search(r"Gain that length alone would explain\s+\| \+0\.20", shown)
    assert re.search(r"Accuracy of the reward model on held-out pairs, %\s+\| 92 \[87, 96\]", shown)
    assert "Signs of reward hacking:\n- None" in shown


# The files


@pytest.fixture(scope="module", params=["en", "ko"])
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ppo")
    given = rows(5)
    given[1] |= {
        "after": "<script>alert('reward')</script> I <b>love</b> it & more",
        "prompt": "Really? <i>yes</i> # $5",
    }
    given[2] |= {"after": "```\n# not a heading", "ended_after": False}
    given[3] |= {"after": ""}
    return request.param, folder, given, write_before_after(folder, given, GATE, FACTS, request.param)


def test_writes_the_json_the_markdown_the_page_and_the_figures(written):
    _, folder, _, summary = written
    assert json.loads((folder / "before_after.json").read_text(encoding="utf-8")) == summary
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert names == {
        "before_after.json", "before-after.md", "before-after.html",
        "figures/rlhf_rewards.svg", "figures/rlhf_curve.svg",
    }  # fmt: skip


def test_what_a_model_said_stays_text(written):
    language, folder, given, _ = written
    text = (folder / "before-after.html").read_text(encoding="utf-8")
    shown = Page(text)
    assert not {"script", "b>", "i", "link", "img"} & {tag for tag, _ in shown.tags}
    assert given[1]["after"] in shown.text and given[1]["prompt"] in shown.text
    assert "default-src 'none'" in text and not re.search(r"url\((?!#)|@import", text)
    assert any(labels(language)["empty_answer"] == piece for piece in shown.text)
    told = (folder / "before-after.md").read_text(encoding="utf-8")
    assert "````text\n```\n# not a heading\n````" in told
    assert "### Really? &lt;i\\>yes&lt;/i\\> \\# \\$5" in told


def test_each_answer_has_its_reward_beside_it(written):
    language, folder, given, _ = written
    text = "".join(Page((folder / "before-after.html").read_text(encoding="utf-8")).text)
    for one in given:
        for side in ("before", "after"):
            value = f"{one[f'reward_{side}']:.2f}".replace("-", "−")
            assert {"en": f"Reward {value}, 40 tokens", "ko": f"보상 {value}, 40토큰"}[language] in text
    assert {"en": "cut off", "ko": "중간에 잘림"}[language] in text


def test_figures_are_text_and_follow_the_page(written):
    language, folder, _, _ = written
    for path in (folder / "figures").iterdir():
        figure = path.read_text(encoding="utf-8")
        words = [element.text for element in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")]
        assert ("보상" in "".join(words) or "점수" in words) == (language == "ko")
        assert "prefers-color-scheme:dark" in figure
    page = (folder / "before-after.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 0


def test_a_training_without_metrics_has_no_curve(tmp_path):
    write_before_after(tmp_path, rows(3), GATE, {"model": "smollm2", "steps": 3})
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["rlhf_rewards.svg"]
    assert "no bound was set" in (tmp_path / "before-after.md").read_text(encoding="utf-8")


def test_the_same_rows_give_the_same_bytes(written, tmp_path):
    language, folder, given, _ = written
    before = deepcopy(given)
    write_before_after(tmp_path, given, GATE, FACTS, language)
    assert given == before
    for path in tmp_path.rglob("*.*"):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


# What can go wrong


def test_rows_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match="no held-out prompts"):
        summed_up([])
    with pytest.raises(UserError, match="prompt 2, reward_after: nan"):
        summed_up([row(0), row(1, reward_after=math.nan)])
    with pytest.raises(UserError, match="prompt 1, perplexity_before: 0"):
        summed_up([row(0, perplexity_before=0.0)])
    with pytest.raises(UserError, match="prompt 1, kl: None"):
        summed_up([row(0, kl=None)])


def test_a_language_or_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="en or ko, not in 'fr'"):
        write_before_after(tmp_path, rows(2), GATE, FACTS, "fr")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="Cannot write the report"):
        write_before_after(tmp_path / "file", rows(2), GATE, FACTS)
