"""Writing token by token: streams, watchers that end answers, penalties for repetition, and contexts that are full."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from heed.config import DecodeConfig
from heed.decode.filters import NEVER, discourage
from heed.decode.generate import Watcher, generate, stream
from heed.decode.windowed import Windowed
from heed.errors import ConfigError
from heed.model import Causal, ModelConfig
from heed.model.cache import DecoderState

PAD, BEGIN, END = 0, 1, 2
MakeConfig = Callable[..., ModelConfig]
PROMPTS = torch.tensor([[BEGIN, 5, 6], [BEGIN, 9, 3], [BEGIN, 4, 4]])


@pytest.fixture(scope="module", params=["sinusoidal", "rotary", "relative"])
def writer(tiny_config: MakeConfig, request: pytest.FixtureRequest) -> Causal:
    torch.manual_seed(4)
    model = Causal(tiny_config(architecture="causal", vocab_size=11, positions=request.param))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


class Endless:
    """A model that would rather not end."""

    def __init__(self, model: Causal) -> None:
        self.model = model

    def start(self, inputs: None, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        return self.model.start(None, mask, prefix)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        logits = self.model.step(tokens, state)
        logits[:, END] -= 50
        return logits


@pytest.fixture(scope="module")
def endless(writer: Causal) -> Endless:
    return Endless(writer)


def options(**fields: Any) -> DecodeConfig:
    return DecodeConfig.model_validate({"beams": 1, "max_length": 30, **fields})


def written(model: Any, prompts: Tensor = PROMPTS, *, watch: Callable[[int], Watcher] | None = None, **fields: Any) -> list[list[int]]:
    """Return the answers to prompts."""
    found = generate(model, None, None, prompts, end=END, options=options(**fields), never=(PAD,), watch=watch)
    return [hypothesis.ids for best in found for hypothesis in best]


WAYS: list[dict[str, Any]] = [
    {},
    {"sample": True},
    {"sample": True, "seed": 5, "temperature": 1.5, "min_p": 0.05},
    {"repetition_penalty": 1.4},
    {"sample": True, "repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2},
    {"sample": True, "no_repeat_ngram_size": 3, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_yields_the_ids_that_generate_returns(writer: Causal, way: dict[str, Any]) -> None:
    for prompt in PROMPTS[:, None]:
        found = list(stream(writer, None, prompt, end=END, options=options(**way), never=(PAD,)))
        assert [found] == written(writer, prompt, **way)


def test_a_stream_comes_token_by_token() -> None:
    """What the model was asked for when the third token comes out is three steps."""
    steps = []

    class Counting:
        def start(self, inputs: None, mask: Tensor | None, prefix: Tensor) -> Any:
            return None

        def step(self, tokens: Tensor, state: Any) -> Tensor:
            steps.append(int(tokens[0]))
            return torch.tensor([[NEVER, NEVER, NEVER, 0.0, 1.0]])

    found = stream(Counting(), None, PROMPTS[:1], end=END, options=options())
    assert [next(found) for _ in range(3)] == [4, 4, 4]
    assert steps == [6, 4, 4]


@pytest.mark.parametrize("way", [{"n_best": 2, "sample": True}, {"beams": 2}])
def test_what_cannot_be_streamed_is_refused(writer: Causal, way: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"set decode\.n_best=1, and decode\.sample=true or decode\.beams=1"):
        next(stream(writer, None, PROMPTS[:1], end=END, options=options(**way)))


def watcher_of(wanted: dict[int, int]) -> Callable[[int], Watcher]:
    """Return what ends the answer to source i behind its wanted[i]-th token."""

    def watch(source: int) -> Watcher:
        told: list[int] = []
        return lambda token: told.append(token) is None and len(told) == wanted.get(source)

    return watch


@pytest.mark.parametrize("way", WAYS)
def test_a_watcher_ends_an_answer_behind_a_token_and_no_other_answer(endless: Endless, way: dict[str, Any]) -> None:
    whole = written(endless, **way)
    assert [len(ids) for ids in whole] == [29] * 3
    assert written(endless, watch=watcher_of({0: 4, 2: 1}), **way) == [whole[0][:4], whole[1], whole[2][:1]]
    found = stream(endless, None, PROMPTS[:1], end=END, options=options(**way), never=(PAD,), watch=watcher_of({0: 4}))
    assert list(found) == whole[0][:4]


def test_every_sample_of_a_source_has_a_watcher_of_its_own(endless: Endless) -> None:
    found = written(endless, PROMPTS[:2], watch=watcher_of({1: 3}), sample=True, n_best=3)
    assert [len(ids) for ids in found] == [29] * 3 + [3] * 3


@pytest.mark.parametrize("beams", [1, 3])
def test_repetition_is_discouraged_by_what_prompt_and_answer_hold(writer: Causal, beams: int) -> None:
    """Greedy search against its definition; with beams, the score against what the definition gives the answer."""
    for prompt in PROMPTS[:, None]:
        settings = options(beams=beams, repetition_penalty=1.7, max_length=9)
        [[best]] = generate(writer, None, None, prompt, end=END, options=settings, never=(PAD,))
        ids, log_p = prompt.clone(), 0.0
        for step in range(9):
            logits = writer(ids)[:, -1].detach()
            logits[:, PAD] = NEVER
            scores = discourage(logits, ids, 1.7).log_softmax(-1)[0]
            chosen = best.ids[step] if step < len(best.ids) else END
            if beams == 1 and step < 8:
                assert chosen == int(scores.argmax())
            log_p += float(scores[chosen])
            if chosen == END:
                break
            ids = torch.cat([ids, torch.tensor([[chosen]])], dim=1)
        if beams > 1:
            assert best.log_probability == pytest.approx(log_p, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("way", [{}, {"sample": True}, {"beams": 4, "n_best": 4}])
def test_no_run_of_tokens_stands_twice_in_a_prompt_and_its_answer(endless: Endless, way: dict[str, Any], n: int) -> None:
    found = generate(endless, None, None, PROMPTS, end=END, options=options(no_repeat_ngram_size=n, **way), never=(PAD,))
    anyway = generate(endless, None, None, PROMPTS, end=END, options=options(**way), never=(PAD,))
    for prompt, answers, others in zip(PROMPTS.tolist(), found, anyway, strict=True):
        assert answers
        assert not any(repeated(prompt, answer.ids, n) for answer in answers)
        assert any(repeated(prompt, other.ids, n) for other in others)


def repeated(prompt: list[int], answer: list[int], n: int) -> bool:
    """Return whether n tokens of which an answer holds the last stand further ahead too."""
    ids = [*prompt, *answer]
    runs = [ids[i : i + n] for i in range(len(ids) - n + 1)]  # the i-th ends at token i + n - 1
    return any(runs[i] in runs[:i] for i in range(max(0, len(prompt) - n + 1), len(runs)))


@pytest.mark.parametrize("way", [{"repetition_penalty": 3.0}, {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2, "beams": 3}])
def test_padding_before_a_prompt_is_no_past(endless: Endless, way: dict[str, Any]) -> None:
    [alone] = written(endless, torch.tensor([[BEGIN, 5]]), max_length=8, **way)
    mask = torch.tensor([[False, False, True, True], [True] * 4])
    for padding in (5, *alone):
        padded = torch.tensor([[padding, padding, BEGIN, 5], [BEGIN, 3, 9, 4]])
        settings = options(max_length=8, **way)
        together = generate(endless, None, mask, padded, end=END, options=settings, never=(PAD,))
        assert together[0][0].ids == alone


@pytest.mark.parametrize("way", [{}, {"sample": True}, {"beams": 2}])
def test_an_answer_may_end_with_what_its_prompt_begins_with(endless: Endless, way: dict[str, Any]) -> None:
    """As GPT-2's do: cut off where nothing else is left, it needs the end."""
    [answer] = written(endless, torch.tensor([[END]]), no_repeat_ngram_size=1, **way)
    assert sorted(answer) == [BEGIN, *range(3, 11)]


@pytest.mark.parametrize("way", [{}, {"sample": True, "n_best": 3}, {"beams": 3, "n_best": 2}])
def test_inside_its_context_a_windowed_model_writes_what_it_would_write_anyway(writer: Causal, way: dict[str, Any]) -> None:
    assert written(Windowed(writer, 12), max_length=10, **way) == written(writer, max_length=10, **way)


@pytest.mark.parametrize("context", [1, 2, 5, 8])
def test_beyond_its_context_a_model_goes_on_from_the_second_half_of_it(writer: Causal, endless: Endless, context: int) -> None:
    prompt = PROMPTS[:1, -min(3, context) :]
    ids, held = prompt[0].tolist(), prompt.size(1)  # of all ids, so many at the end are what the model sees
    for _ in range(29):
        if held > context:
            held = max(1, context // 2)
        logits = writer(torch.tensor([ids[-held:]]))[0, -1].detach()
        logits[[PAD, END]] = NEVER
        ids.append(int(logits.argmax()))
        held += 1
    assert written(Windowed(endless, context), prompt) == [ids[prompt.size(1) :]]


@pytest.mark.parametrize("way", [{"sample": True, "n_best": 2}, {"beams": 3}, {"sample": True, "repetition_penalty": 1.3}])
def test_rows_beside_it_do_not_change_what_a_windowed_model_writes(writer: Causal, way: dict[str, Any]) -> None:
    model = Windowed(writer, 6)
    alone = [ids for prompt in PROMPTS[:, None] for ids in written(model, prompt, **way)]
    assert written(model, **way) == alone
