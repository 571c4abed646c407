"""How prompts are continued: together as alone, streamed as at once, and where an answer ends."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from toy_writers import BOS, CONTEXT, EOS, TEXTS, answers, likelihoods, model_for, rows, task_of

from heed.config import DecodeConfig
from heed.data.batch import collate
from heed.errors import ConfigError
from heed.model import Causal
from heed.tasks.text_generation import TextGeneration, Writer

pytest_plugins = ["toy_writers"]


def streamed(task: TextGeneration, model: Causal, text: str, **fields: Any) -> list[str]:
    options = DecodeConfig.model_validate({"beams": 1, "max_length": 12, **fields})
    return list(task.stream(model, collate(task.encode_all(rows(text))), options))


PROMPTS = ["the dog", "", "the cat sees the tree", "a", "好", "the dog"]
WAYS: list[dict[str, Any]] = [
    {},
    {"sample": True},
    {"sample": True, "temperature": 1.4, "top_k": 9, "top_p": 0.9, "min_p": 0.02, "seed": 4},
    {"repetition_penalty": 1.2},
    {"no_repeat_ngram_size": 2},
    {"sample": True, "stop": ["e", "d "]},
]


@pytest.mark.parametrize("way", [*WAYS, {"beams": 3, "n_best": 2}, {"sample": True, "n_best": 3}])
def test_prompts_of_unequal_length_are_continued_as_alone(task: TextGeneration, model: Causal, way: dict[str, Any]) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=40)
    for one in (wide, task):  # with and without room in the context
        together = answers(one, model, *PROMPTS, **way)
        for text, answer in zip(PROMPTS, together, strict=True):
            [alone] = answers(one, model, text, **way)
            assert (answer.text, answer.details) == (alone.text, alone.details)
            assert [other.text for other in answer.others] == [other.text for other in alone.others]
            assert answer.score == pytest.approx(alone.score, abs=1e-4)


def test_prompts_that_a_gpu_is_given_together_are_continued_as_alone(task: TextGeneration, model: Causal) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=60)
    options = DecodeConfig(sample=True, max_length=9)
    prompts = wide._prompts(collate(wide.encode_all(rows(*PROMPTS))))
    [group] = wide._groups(prompts, 9, padded=True)
    assert group == list(range(len(PROMPTS)))
    assert len(list(wide._groups(prompts, 9, padded=False))) > 1
    with torch.inference_mode():
        together = wide.continued(model, prompts, options, torch.device("cpu"))
        alone = [wide.continued(model, [prompt], options, torch.device("cpu"))[0] for prompt in prompts]
    assert [best[0].ids for best in together] == [best[0].ids for best in alone]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_joined_is_the_answer(task: TextGeneration, model: Causal, way: dict[str, Any]) -> None:
    for text in PROMPTS:
        found = streamed(task, model, text, **way)
        assert "".join(found) == answers(task, model, text, **way)[0].text
        assert all(found)
    assert len(streamed(task, model, "the dog", sample=True)) > 3


def test_a_stream_of_several_answers_is_refused(task: TextGeneration, model: Causal) -> None:
    with pytest.raises(ConfigError, match=r"set decode\.n_best=1"):
        streamed(task, model, "the", beams=4)


def test_greedy_answers_are_the_argmax_of_forward(model: Causal, task: TextGeneration) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=60)
    [prompt] = wide._prompts(collate([wide.encode({"text": "the dog"})]))
    ids = list(prompt.ids)
    while len(ids) - len(prompt.ids) < 11 and ids[-1] != EOS:
        logits = model(torch.tensor([ids]))[0, -1].detach()
        logits[[0, BOS, 3]] = -math.inf
        ids.append(int(logits.argmax()))
    [[best]] = wide.continued(model, [prompt], DecodeConfig(beams=1, max_length=12), torch.device("cpu"))
    assert best.ids == [token for token in ids[len(prompt.ids) :] if token != EOS]
    written = b"".join(wide.spelling[i] for i in best.ids).decode("utf-8", "replace")
    assert written.startswith(answers(wide, model, "the dog")[0].text)


def test_a_prompt_longer_than_the_context_keeps_its_end_and_says_so(task: TextGeneration, model: Causal) -> None:
    long = TEXTS[0]
    n = len(task.encode({"text": long})["text"]) - 1
    [answer] = answers(task, model, long, sample=True)
    assert answer.details["context_cut"] == n - CONTEXT
    assert answer.details["context_moved"] is True
    prompts = task._prompts(collate([task.encode({"text": long}), task.encode({"text": "a"})]))
    assert prompts[0].ids == task.encode({"text": long})["text"].tolist()[:-1][-CONTEXT:]
    assert (prompts[1].ids[0], prompts[1].n_cut) == (BOS, 0)
    [other] = answers(task, model, "another beginning " + long[-60:], sample=True)
    assert other.text == answers(task, model, "no such " + long[-60:], sample=True)[0].text


def test_an_answer_that_outgrows_the_context_says_so_and_one_that_does_not_does_not(task: TextGeneration, model: Causal) -> None:
    [prompt] = task._prompts(collate([task.encode({"text": "the"})]))
    outgrown: list[bool] = []
    room = CONTEXT - len(prompt.ids) + 1
    for longest in (room, room + 1, 12):
        options = DecodeConfig(sample=True, n_best=20, max_length=longest)
        [found] = task.continued(model, [prompt], options, torch.device("cpu"))
        outgrown += [len(prompt.ids) + len(hypothesis.ids) > CONTEXT for hypothesis in found]  # what its end was foretold from
        details = [dict(task._written(prompt, hypothesis, options).details) for hypothesis in found]
        ends = [one.pop("ended_by") for one in details]
        assert ends == ["max_length" if len(hypothesis.ids) == longest - 1 else "end" for hypothesis in found]
        assert details == [{"context_moved": True} if beyond else {} for beyond in outgrown[-20:]]
    assert not any(outgrown[:20])
    assert any(outgrown[20:40])
    assert any(outgrown[40:])


def test_models_are_never_given_more_than_their_context() -> None:
    """Learned positions know no more places than the context has, and would refuse another."""
    task = task_of(tokens="characters")
    model = model_for(task, positions="learned", max_length=CONTEXT)
    for way in WAYS:
        for longest in (*range(1, CONTEXT + 2), 40):
            answers(task, model, *PROMPTS[:4], TEXTS[0], max_length=longest, **{**way, "stop": []})
    assert likelihoods(task, model, rows(*TEXTS))


def test_an_answer_ends_before_the_first_stop_string_and_names_it(task: TextGeneration, model: Causal) -> None:
    whole = answers(task, model, "the dog", sample=True, max_length=40)[0].text
    stop = whole[5:7]
    [answer] = answers(task, model, "the dog", sample=True, max_length=40, stop=[stop, "nowhere in it"])
    assert answer.text == whole[: whole.index(stop)]
    assert (answer.details["stop"], answer.details["ended_by"]) == (stop, "stop")
    [searched] = answers(task, model, "the dog", beams=2, max_length=40, stop=[whole[3], "a", "e", "t"])
    assert not {"a", "e", "t"} & set(searched.text)


def test_the_space_before_a_text_is_taken_off_an_answer_that_begins_one() -> None:
    task = task_of(tokens="bytes", vocab_size=8000)
    spelling = task.spelling
    ids = [i for byte in b" ab" for i, written in enumerate(spelling) if written == bytes([byte])]
    for begins, expected in ((True, "ab"), (False, " ab")):
        writer = Writer(spelling, [], begins=begins)
        assert "".join(map(writer.add, ids)) + writer.rest() == expected
    prompt, begun = task._prompts(collate(task.encode_all(rows("", "a"))))
    assert [task._writer(one, DecodeConfig()).begins for one in (prompt, begun)] == [True, False]


def pieces_of(data: bytes, stops: Sequence[str] = ()) -> tuple[list[str], str | None]:
    writer = Writer([bytes([byte]) for byte in range(256)], stops, begins=False)
    return [*map(writer.add, data), writer.rest()], writer.stop


def test_characters_come_whole_and_one_that_is_cut_off_does_not_come() -> None:
    assert pieces_of("é好a".encode()) == (["", "é", "", "", "好", "a", ""], None)
    assert pieces_of("a好".encode()[:-1]) == (["a", "", "", ""], None)
    assert "".join(pieces_of(b"a\xffb")[0]) == "a\ufffdb"


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_decided() -> None:
    assert pieces_of(b"ab\n\nc", ["\n\n"]) == (["a", "b", "", "", "", ""], "\n\n")
    assert pieces_of(b"a\nbc", ["\n\n"]) == (["a", "", "\nb", "c", ""], None)
    assert pieces_of(b"a\n", ["\n\n"]) == (["a", "", "\n"], None)
    assert pieces_of(b"aab", ["ab"]) == (["", "a", "", ""], "ab")


def test_a_token_that_holds_a_stop_string_and_more_is_cut() -> None:
    writer = Writer([b"one", b" two END three", b"four"], ["END", "three"], begins=False)
    assert [writer.add(0), writer.add(1), writer.add(2), writer.rest()] == ["one", " two ", "", ""]
    assert writer.stop == "END"
