"""What the tests of text generation share: tasks whose vocabulary is that of a few texts, and models for them.

Imported by test modules before pytest could rewrite it, hence: PYTEST_DONT_REWRITE.
"""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from toy_runs import WORDS

from heed.config import DecodeConfig, validate
from heed.data.batch import collate
from heed.data.rows import Example
from heed.data.text import Tokenizer
from heed.model import Causal, ModelConfig, build_model
from heed.tasks.base import Answer
from heed.tasks.text_generation import Likelihood, TextGeneration, TextGenerationSettings

BOS, EOS = Tokenizer.bos_id, Tokenizer.eos_id
CONTEXT = 8
SIZES: dict[str, Any] = {"d_model": 24, "n_heads": 4, "n_layers": 2, "d_ff": 20, "dropout": 0.0}


def prose(n_words: int, seed: int = 0) -> str:
    """Return sentences of the toy language, some lines and paragraphs of them."""
    draw = random.Random(seed)
    return "".join(draw.choice(list(WORDS)) + draw.choices([" ", ". ", ".\n", ".\n\n"], [8, 2, 1, 1])[0] for _ in range(n_words))


TEXTS = [prose(60), "the dog sees", "好的 🙂\n\tyes", prose(9, 2)]


def task_of(max_length: int = CONTEXT, **settings: Any) -> TextGeneration:
    """Return a task whose vocabulary is that of TEXTS."""
    task = TextGeneration(validate(TextGenerationSettings, {"vocab_size": 300, **settings}), max_length=max_length)
    task.prepare([{"text": text} for text in TEXTS])
    return task


def model_for(task: TextGeneration, **fields: Any) -> Causal:
    """Return a model with larger weights than fresh ones, so that what stands before a token matters."""
    torch.manual_seed(3)
    model = build_model(task.shape(ModelConfig(architecture="causal", **{**SIZES, **fields})))
    assert isinstance(model, Causal)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        model.stem.embedding.weight[EOS] = 0  # so that answers are seldom short
    return model.eval()


@pytest.fixture(scope="module", params=["subwords", "characters", "bytes"])
def task(request: pytest.FixtureRequest) -> TextGeneration:
    return task_of(tokens=request.param) if request.param != "bytes" else task_of(tokens="bytes", vocab_size=8000)


@pytest.fixture(scope="module")
def model(task: TextGeneration) -> Causal:
    return model_for(task)


def rows(*texts: str) -> list[Example]:
    return [{"text": text} for text in texts]


def log_p_of(model: Causal, context: Sequence[int], token: int) -> float:
    with torch.no_grad():
        return float(model(torch.tensor([list(context)]))[0, -1].log_softmax(-1)[token])


def likelihoods(task: TextGeneration, model: Causal, examples: Sequence[Example]) -> list[Answer]:
    examiner = task.examiner
    assert isinstance(examiner, Likelihood)
    with torch.inference_mode():
        return examiner.predict(model, collate(examiner.encode_all(examples)), DecodeConfig())


def answers(task: TextGeneration, model: Causal, *texts: str, **fields: Any) -> list[Answer]:
    options = DecodeConfig.model_validate({"beams": 1, "max_length": 12, **fields})
    with torch.inference_mode():
        return task.predict(model, collate(task.encode_all(rows(*texts))), options)
