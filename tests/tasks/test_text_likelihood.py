"""How likely a text is, inside the context of a model and beyond it."""

import math

import pytest
import torch
from toy_writers import TEXTS, likelihoods, log_p_of, model_for, rows, task_of

from heed.errors import DataError
from heed.model import Causal
from heed.tasks.base import Answer
from heed.tasks.text_generation import TextGeneration

pytest_plugins = ["toy_writers"]


def test_inside_the_context_a_likelihood_is_that_of_all_tokens(task: TextGeneration, model: Causal) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=500)
    for text, answer in zip(TEXTS, likelihoods(wide, model, rows(*TEXTS)), strict=True):
        ids = task.encode({"text": text})["text"].tolist()
        expected = sum(log_p_of(model, ids[:place], ids[place]) for place in range(1, len(ids)))
        assert answer.details["log_likelihood"] == pytest.approx(expected, rel=1e-4)
        assert answer.details["tokens"] == len(ids) - 1
        assert answer.score == pytest.approx(expected / (len(ids) - 1), rel=1e-4)


@pytest.mark.parametrize("context", [1, 2, 5, 8])
def test_beyond_the_context_every_token_is_foretold_once_from_half_a_context_or_more(
    task: TextGeneration, model: Causal, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = TextGeneration(task.config, task.parts, max_length=context)
    seen: list[tuple[int, ...]] = []
    hidden = Causal.hidden

    def watched(self: Causal, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        seen.extend(map(tuple, inputs.tolist()))
        return hidden(self, inputs, mask)

    monkeypatch.setattr(Causal, "hidden", watched)
    [answer] = likelihoods(short, model, rows(TEXTS[0]))
    monkeypatch.undo()
    assert max(map(len, seen)) <= context
    ids = task.encode({"text": TEXTS[0]})["text"].tolist()
    expected, place = 0.0, 1
    for start in [*range(0, len(ids) - context - 1, (context + 1) // 2), len(ids) - context - 1]:
        for target in range(place, start + context + 1):
            assert target - start >= min(target, context / 2)
            expected += log_p_of(model, ids[start:target], ids[target])
        place = start + context + 1
    assert place == len(ids)
    assert answer.details["log_likelihood"] == pytest.approx(expected, rel=1e-4)


def test_texts_are_as_likely_together_as_alone(task: TextGeneration, model: Causal) -> None:
    together = likelihoods(task, model, rows(*TEXTS))
    for text, answer in zip(TEXTS, together, strict=True):
        [alone] = likelihoods(task, model, rows(text))
        assert answer.details["log_likelihood"] == pytest.approx(alone.details["log_likelihood"], rel=1e-5)
        assert answer.details["tokens"] == alone.details["tokens"]


def test_perplexity_is_exp_of_the_mean_and_bits_are_over_the_bytes_of_the_texts(task: TextGeneration, model: Causal) -> None:
    examples = rows(*TEXTS)
    answers = likelihoods(task, model, examples)
    scores = task.score(answers, examples).to_json()
    total = -sum(answer.details["log_likelihood"] for answer in answers)
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(total / sum(answer.details["tokens"] for answer in answers)), rel=1e-4)
    assert scores["bits_per_byte"]["value"] == pytest.approx(total / math.log(2) / sum(len(text.encode()) for text in TEXTS), rel=1e-4)


def test_a_model_that_finds_all_bytes_alike_needs_log2_of_its_vocabulary_for_each() -> None:
    task = task_of(tokens="bytes", vocab_size=8000)
    model = model_for(task)
    torch.nn.init.zeros_(model.stem.embedding.weight)
    scores = task.score(likelihoods(task, model, rows(*TEXTS)), rows(*TEXTS)).to_json()
    assert scores["perplexity"]["value"] == pytest.approx(260, rel=1e-4)
    n_bytes, n_tokens = sum(len(text.encode()) for text in TEXTS), scores["tokens"]
    assert n_tokens == n_bytes + 2 * len(TEXTS)  # the space before each and the end of each
    assert scores["bits_per_byte"]["value"] == pytest.approx(math.log2(260) * n_tokens / n_bytes, rel=1e-4)


def test_characters_that_are_not_known_are_counted() -> None:
    task = task_of(tokens="characters")
    examples = rows("the dog", "the жук")
    scores = task.score(likelihoods(task, model_for(task), examples), examples).to_json()
    assert (scores["unknown_tokens"], scores["tokens"]) == (3, 2 * 8)
    assert task.findings(rows("ж", "the"))["vocabulary"]["unknown_share_valid"] == 0.25


def test_answers_that_continue_a_text_are_not_scored(task: TextGeneration) -> None:
    with pytest.raises(DataError, match="heed evaluate"):
        task.score([Answer("dog")], rows("the"))
