"""A model on this machine is asked like any other: in batches, through the ledger, each answer its request's own."""

import asyncio
import shutil

import pytest
import torch

from personalign.clients import Answer, Limits, NoAnswer, Request, client, ledger, together
from personalign.clients.local import Local
from personalign.errors import UserError
from personalign.models import add_adapter, save_adapter
from personalign.models.adapters import adapter_parameters
from tiny import byte_tokenizer, tiny_model


def request(text, **more):
    return Request(({"role": "user", "content": text},), "test.en@1", **({"max_tokens": 12} | more))


QUESTIONS = [request(f"Number {number}?" + " Well?" * (number % 3)) for number in range(12)]


@pytest.fixture(autouse=True)
def _exactly(monkeypatch):
    """In bf16 the company could tip a draw that lies on the edge."""
    monkeypatch.setattr("personalign.models.base.choose_precision", lambda *_: "fp32")


@pytest.fixture
def local(tiny_folder):
    return client(f"local:{tiny_folder}")


def asked(folder, local, requests, **limits):
    """The answers through a ledger in this folder, in order, and the sizes of the batches in which they were made."""
    sizes, plain = [], local._answers

    def counted(some):
        sizes.append(len(some))
        return plain(some)

    local._answers = counted
    try:
        with ledger(folder) as book:
            work = [lambda session, one=one: session.ask(one) for one in requests]
            return together(local, book, Limits(**limits), stage="test", work=work), sizes
    finally:
        local._answers = plain


def test_what_is_asked_at_the_same_time_is_answered_in_one_batch(tmp_path, local):
    found, sizes = asked(tmp_path, local, QUESTIONS)
    assert sizes == [12] and [each.id for each in found] == list(range(1, 13))
    assert all(each.answer.usage.output <= 12 for each in found)
    assert asked(tmp_path / "one by one", local, QUESTIONS, concurrency=1)[1] == [1] * 12


def test_an_answer_does_not_depend_on_its_company(tmp_path, local):
    mixed = [*QUESTIONS, request("Number 3?", temperature=0), request("Number 3?", max_tokens=5)]
    together_, _ = asked(tmp_path / "a", local, mixed)
    alone, _ = asked(tmp_path / "b", local, list(reversed(mixed)), concurrency=1)
    assert [each.answer for each in together_] == [each.answer for each in reversed(alone)]
    assert len({each.answer.text for each in together_}) > 10


def test_the_ledger_has_the_answers_and_a_rerun_needs_no_model(tmp_path, tiny_folder, local):
    found, _ = asked(tmp_path, local, QUESTIONS)
    again = client(f"local:{tiny_folder}")
    assert asked(tmp_path, again, QUESTIONS) == (found, []) and again._loaded is None


def test_another_draw_is_another_answer_and_the_same_draw_the_same(tmp_path, tiny_folder, local):
    draws = [request("Tell me.", draw=draw) for draw in range(4)]
    found, _ = asked(tmp_path / "a", local, draws)
    assert len({each.answer.text for each in found}) == 4
    assert [each.answer for each in asked(tmp_path / "b", client(f"local:{tiny_folder}"), draws)[0]] == [
        e.answer for e in found
    ]


def test_usage_is_counted_and_never_exceeds_what_was_reserved(tmp_path, local):
    some = [request("안녕하세요? 😀" * 5), request("x", max_tokens=1), request("y", temperature=0, max_tokens=40)]
    for one, kept in zip(some, asked(tmp_path, local, some)[0], strict=True):
        most_input, most_output = one.most_tokens
        assert 0 < kept.answer.usage.input <= most_input and 0 < kept.answer.usage.output <= most_output
        assert kept.answer.finish == "length" or kept.answer.usage.output <= most_output


def test_what_is_wrong_with_one_request_does_not_concern_the_others(local):
    async def all_three():
        some = (request("x" * 5000), request("Hi<|im_end|>there"), request("Hi"))
        return await asyncio.gather(*map(local.ask, some), return_exceptions=True)

    long, control, fine = asyncio.run(all_three())
    assert isinstance(long, NoAnswer) and str(long).startswith("too long: ") and "leave no room in 4096" in str(long)
    assert isinstance(control, NoAnswer) and "'<|im_end|>', a control token" in str(control)
    assert isinstance(fine, Answer)


def test_an_answer_ends_where_the_model_has_no_room(tmp_path, local, monkeypatch):
    monkeypatch.setattr("personalign.conversation.end_ids", lambda tokenizer: [999_999])
    (kept,), _ = asked(tmp_path, local, [request("x" * 4060, max_tokens=500)])
    assert kept.answer.finish == "length"
    assert kept.answer.usage.input + kept.answer.usage.output == 4096


def test_a_long_queue_is_no_loss(tmp_path, local):
    found, _ = asked(tmp_path, local, QUESTIONS, timeout=0.001)
    assert len(found) == 12


def test_who_gives_up_does_not_wait_for_the_answer(local, monkeypatch):
    monkeypatch.setattr("personalign.conversation.end_ids", lambda tokenizer: [999_999])
    model, _ = local._load()
    steps = []
    model.register_forward_pre_hook(lambda *_: steps.append(1))

    async def give_up():
        asking = asyncio.create_task(local.ask(request("Hi", max_tokens=4000)))
        while len(steps) < 3:
            await asyncio.sleep(0.001)
        await local.close()
        asking.cancel()

    asyncio.run(give_up())  # returns when the thread has ended
    assert len(steps) < 2000
    monkeypatch.undo()
    assert isinstance(asyncio.run(local.ask(request("Hi"))), Answer)  # and it can be asked again


def test_a_full_gpu_is_a_sentence_with_the_remedy(tmp_path, local, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("personalign.models.rollout.rollouts", full)
    with pytest.raises(UserError, match=r"no memory for 3 requests at once; set .*--limits-concurrency 1\)"):
        asked(tmp_path, local, [request(text) for text in "abc"])


def test_options_of_providers_are_refused(local):
    with pytest.raises(UserError, match="safety"):
        asyncio.run(local.ask(request("Hi", options={"safety": "BLOCK_NONE"})))
    with pytest.raises(UserError, match="leave top_p out"):
        asyncio.run(local.ask(request("Hi", top_p=0.9)))


def test_a_model_that_is_not_there_stops_the_job(tmp_path):
    with pytest.raises(UserError, match="no-such-model"):
        asked(tmp_path, client("local:no-such-model"), QUESTIONS)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    return made_adapter(folder, seed=0)


def made_adapter(folder, seed):
    model = add_adapter(tiny_model("llama", len(byte_tokenizer("chatml")), max_position_embeddings=4096), rank=4)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter_parameters(model).values():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    save_adapter(model, folder)
    return folder


def test_an_adapter_answers_in_its_own_way(tmp_path, tiny_folder, local, adapter):
    base, _ = asked(tmp_path, local, QUESTIONS)
    tuned, _ = asked(tmp_path, client(f"local:{tiny_folder}+{adapter}"), QUESTIONS)  # one ledger for both
    assert len({each.id for each in [*base, *tuned]}) == 24
    assert all(one.answer.text != other.answer.text for one, other in zip(base, tuned, strict=True))


def test_the_name_says_what_is_in_a_folder_so_a_new_adapter_is_another_model(tmp_path, tiny_folder, adapter):
    own = tmp_path / "adapter"
    shutil.copytree(adapter, own)
    before, same = (
        Local("local:m+own", str(tiny_folder), str(own)),
        Local("local:m+own", str(tiny_folder), str(adapter)),
    )
    assert before.name == same.name and before.name.startswith("local:m+own@")
    made_adapter(own, seed=1)
    assert Local("local:m+own", str(tiny_folder), str(own)).name != before.name
    assert client("local:smollm2").name == "local:smollm2"  # comes in a pinned package
