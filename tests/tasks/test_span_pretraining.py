"""Pre-training on hidden stretches: what is hidden when, that nothing is lost, scores by definition, resuming, and starting from it."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import WORDS, write_rows

import heed
from heed.config import DecodeConfig
from heed.data.batch import collate
from heed.data.text import Tokenizer
from heed.decode import Hypothesis
from heed.errors import ConfigError, DataError
from heed.files import sha256
from heed.model import ModelConfig, Seq2Seq, build_model
from heed.run import resolve
from heed.tasks import Answer
from heed.tasks.span_pretraining import SpanPretraining
from heed.tasks.text_to_text import TextToTextSettings
from heed.training.checkpoint import checkpoints
from heed.training.train import fit_on

SHAPE = ModelConfig(d_model=12, n_heads=2, n_layers=1, d_ff=20, dropout=0.0)
TINY: dict[str, Any] = {
    "task": {"name": "text_to_text", "objective": "spans", "vocab_size": 300},
    "data": {"max_length": 16},
    "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.1},
    "train": {"steps": 8, "batch_tokens": 250, "warmup": 4, "precision": "float32", "tensorboard": False, "checkpoint_every": 4, "keep": 9},
    "decode": {"beams": 2, "max_length": 20, "precision": "float32"},
}


def texts(n: int = 40) -> list[dict[str, str]]:
    draw = random.Random(2)
    return [{"text": " ".join(draw.choices(list(WORDS), k=draw.randint(2, 30)))} for _ in range(n)]


def prepared(max_length: int = 16, **settings: Any) -> SpanPretraining:
    chosen = TextToTextSettings.model_validate({"objective": "spans", "vocab_size": 300, **settings})
    task = SpanPretraining(chosen, max_length=max_length)
    task.prepare(texts())
    return task


@pytest.fixture(scope="module")
def task() -> SpanPretraining:
    return prepared()


def pieces_of(task: SpanPretraining, text: str) -> list[dict[str, torch.Tensor]]:
    (whole,) = task.encode_all([{"text": text}], training=True)
    return list(task.pieces(whole))


def restored(task: SpanPretraining, sides: dict[str, torch.Tensor]) -> list[int]:
    ends = [side[-1].item() for side in sides.values()]
    assert ends == [Tokenizer.eos_id] * 2
    return task.corruption.restored(sides["source"][:-1].tolist(), sides["target"][:-1].tolist())


def test_the_objective_chooses_the_class() -> None:
    built = resolve(TINY).build_task()
    assert type(built) is SpanPretraining
    assert type(resolve({"task": {"name": "text_to_text"}}).build_task()).__name__ == "TextToText"
    assert resolve(TINY).train.label_smoothing == 0.0


def test_windows_together_are_the_text_and_fit_the_model(task: SpanPretraining) -> None:
    text = " ".join(row["text"] for row in texts(6))
    pieces = pieces_of(task, text)
    assert len(pieces) > 3
    assert task.tokenizer.decode([token for sides in pieces for token in restored(task, sides)]) == text
    longest = [max(side.size(0) for side in sides.values()) for sides in pieces]
    assert max(longest[:-1]) == task.max_length
    assert longest[-1] <= task.max_length


def test_what_is_hidden_of_validation_data_follows_from_the_text_alone(task: SpanPretraining) -> None:
    text = texts()[3]["text"]
    for one, other in zip(pieces_of(task, text), pieces_of(prepared(), text), strict=True):
        assert all(torch.equal(one[side], other[side]) for side in one)


def test_training_hides_other_stretches_of_the_same_text_at_each_draw(task: SpanPretraining) -> None:
    assert task.augments
    sides = max(pieces_of(task, texts()[0]["text"]), key=lambda one: one["source"].size(0))
    drawn = [task.augmented(sides, np.random.default_rng([7, step])) for step in range(20)]
    again = task.augmented(sides, np.random.default_rng([7, 3]))
    assert all(torch.equal(again[side], drawn[3][side]) for side in sides)
    assert len({tuple(one["source"].tolist()) for one in drawn}) > 10
    for one in drawn:
        assert restored(task, one) == restored(task, sides)
        assert {side: ids.size(0) for side, ids in one.items()} == {side: ids.size(0) for side, ids in sides.items()}


def test_long_documents_are_divided_before_they_are_held_out(task: SpanPretraining) -> None:
    text = " ".join(row["text"] for row in texts())
    divided = [row["text"] for row in task.divided({"text": text, "file": "x"})]
    assert "".join(divided) == text
    assert len(divided) > 2
    paragraphs = prepared(documents="paragraphs")
    assert [row["text"] for row in paragraphs.divided({"text": "a b\n\nc"})] == ["a b", "c"]


@torch.no_grad()
def test_scores_are_those_of_each_hidden_token_given_those_before_it(task: SpanPretraining) -> None:
    torch.manual_seed(3)
    model = build_model(task.shape(SHAPE)).eval()
    assert isinstance(model, Seq2Seq)
    examples = texts(5)
    examiner = task.examiner
    found = examiner.predict(model, collate(examiner.encode_all(examples)), DecodeConfig())
    for answer, example in zip(found, examples, strict=True):
        log_p, right, n = 0.0, 0, 0
        for sides in pieces_of(task, example["text"]):
            target = sides["target"]
            read = torch.cat([torch.tensor([Tokenizer.bos_id]), target[:-1]])
            scores = model(sides["source"][None], None, read[None])[0].log_softmax(-1)
            for place, token in enumerate(target.tolist()):
                if token < task.tokenizer.vocab_size and token != Tokenizer.eos_id:
                    log_p, right, n = log_p + scores[place, token].item(), right + int(scores[place].argmax() == token), n + 1
        assert answer.details["hidden"] == n > 0
        assert answer.details["right"] == right
        assert examiner.answer_length(answer) == n
        assert answer.details["log_likelihood"] == pytest.approx(log_p, rel=1e-5)
    metrics = task.metrics()
    task.count(metrics, found, examples)
    totals = {name: sum(answer.details[name] for answer in found) for name in ("right", "log_likelihood", "hidden")}
    scores = metrics.scores().to_json()
    assert scores["accuracy"]["value"] == pytest.approx(totals["right"] / totals["hidden"], abs=1e-4)
    assert scores["perplexity"]["value"] == pytest.approx(np.exp(-totals["log_likelihood"] / totals["hidden"]), rel=1e-4)


def test_filled_gaps_are_not_scored(task: SpanPretraining) -> None:
    with pytest.raises(DataError, match="score it with heed evaluate"):
        task.count(task.metrics(), [Answer("the dog")], [{"text": "the dog"}])


@pytest.mark.parametrize(
    ("text", "fills"),
    [
        ("the <mask> sees the old <mask>", [" dog", " cat tree"]),
        ("<mask> old cat", [" the"]),
        ("the <mask>.", [" big dog"]),
        ("the<mask> dog", [" big"]),
    ],
)
def test_gaps_are_filled_with_what_was_written(task: SpanPretraining, text: str, fills: list[str]) -> None:
    (encoded,) = task.encode_all([{"text": text}])
    *source, end = encoded["source"].tolist()
    written = [
        token for sentinel, fill in zip(task.sentinels, fills, strict=False) for token in (sentinel, *task.tokenizer.encode(fill[1:]))
    ]
    answer = task._filled(source, [Hypothesis([*written, task.sentinels[len(fills)]], -0.5, -1.0)])
    assert end == Tokenizer.eos_id
    expected = text
    for fill in fills:
        expected = expected.replace(" <mask>", fill, 1) if " <mask>" in expected else expected.replace("<mask>", fill, 1)
    assert answer.text == expected.strip()
    assert answer.details == {"fills": [fill.strip() for fill in fills]}


@pytest.mark.parametrize("text", ["no gap", "<mask> " * 100])
def test_a_text_without_gaps_or_with_too_many_is_refused(task: SpanPretraining, text: str) -> None:
    with pytest.raises(DataError, match=r"gaps, expected 1 to 99; write <mask> for each"):
        task.encode({"text": text})
    assert task.unanswerable({"text": text}) is not None
    assert task.unanswerable({"text": "a <mask>"}) is task.examiner.unanswerable({"text": text}) is None


@pytest.fixture(scope="module")
def spans_run(tmp_path_factory: pytest.TempPathFactory) -> heed.Run:
    folder = tmp_path_factory.mktemp("spans")
    return heed.train(TINY, data={"train": str(write_rows(folder / "texts.tsv", texts(120)))}, to=folder / "run", quiet=True)


def test_a_run_is_scored_and_fills_gaps(spans_run: heed.Run) -> None:
    answer = spans_run.predict({"text": "the old <mask> sees the dog"})
    assert len(answer.details["fills"]) == 1
    scores = heed.verbs.evaluate(spans_run.folder, str(spans_run.config.data.train))
    assert {"accuracy", "perplexity", "hidden_tokens"} <= scores.keys()
    page = (spans_run.folder / "report.html").read_text(encoding="utf-8")
    assert "Perplexity" in page


def test_resuming_hides_what_an_unbroken_run_would_have_hidden(spans_run: heed.Run, tmp_path: Path) -> None:
    broken = shutil.copytree(spans_run.folder, tmp_path / "broken")
    for place in checkpoints(broken / "checkpoints"):
        if not place.name.endswith("4"):
            shutil.rmtree(place)
    (broken / "model.safetensors").unlink()
    assert len(checkpoints(broken / "checkpoints")) == 1
    fit_on(broken, quiet=True)
    assert sha256(broken / "model.safetensors") == sha256(spans_run.folder / "model.safetensors")


def test_pairs_start_from_what_spans_have_learned(spans_run: heed.Run, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.tsv", [{"source": row["text"], "target": row["text"].split()[0]} for row in texts(60)])
    settings = {
        "task": "text_to_text",
        "init": str(spans_run.folder),
        "data": {"train": str(train)},
        "train": {**TINY["train"], "steps": 1, "lr": 1e-30},
    }
    run = heed.train(settings, to=tmp_path / "run", quiet=True)
    assert run.task.parts["tokenizer"].to_json() == spans_run.task.parts["tokenizer"].to_json()
    ours, theirs = run.model.state_dict(), spans_run.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name].to(tensor.device), rtol=0, atol=1e-6)


def test_a_length_without_room_for_one_hidden_token_is_refused_and_the_next_is_not() -> None:
    with pytest.raises(ConfigError, match=r"data.max_length=3 has no room.*raise it to 4 at least"):
        prepared(max_length=3).shape(SHAPE)
    task = prepared(max_length=4)
    task.shape(SHAPE.replace(architecture="seq2seq"))
    assert {side.size(0) for piece in pieces_of(task, texts(1)[0]["text"]) for side in piece.values()} <= {2, 3, 4}
