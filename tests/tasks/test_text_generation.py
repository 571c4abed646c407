"""Text generation: documents become windows that foretell every token once, from settings to the scores of a run."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import WORDS, write_rows
from toy_writers import BOS, CONTEXT, EOS, SIZES, TEXTS, likelihoods, log_p_of, model_for, prose, rows, task_of

import heed
from heed.config import DecodeConfig
from heed.data.batch import collate
from heed.data.documents import PIECE_CONTEXTS
from heed.data.order import batches, padding_share
from heed.data.store import Encoded, Store
from heed.errors import ConfigError
from heed.evaluation import evaluate_examples
from heed.model import Causal, ModelConfig
from heed.run import Run, resolve
from heed.tasks.text_generation import TextGeneration
from heed.training.log import TrainingLog
from heed.training.prepare import prepare
from heed.training.trainer import Trainer

pytest_plugins = ["toy_writers"]


def read_back(task: TextGeneration, ids: Sequence[int]) -> str:
    return b"".join(task.spelling[i] for i in ids).decode()


def test_a_text_is_its_ids_between_a_begin_and_an_end(task: TextGeneration) -> None:
    for text in TEXTS:
        ids = task.encode({"text": text})["text"].tolist()
        assert (ids[0], ids[-1]) == (BOS, EOS)
        assert read_back(task, ids).removeprefix(" ") == text
        assert task.encode({"text": text, "continues": True})["text"].tolist() == ids[:-1]


def test_bytes_are_the_256_of_them_and_characters_one_for_each() -> None:
    in_bytes = task_of(tokens="bytes", vocab_size=8000)
    assert in_bytes.tokenizer.vocab_size == 260
    assert len(in_bytes.encode({"text": "好"})["text"]) == 2 + 1 + 3  # begin, end, and the space before a text
    assert len(task_of(tokens="characters").encode({"text": "the dog"})["text"]) == 2 + 7


def test_windows_foretell_every_token_once(task: TextGeneration) -> None:
    for text in TEXTS:
        encoded = task.encode({"text": text})
        windows = [window["text"].tolist() for window in task.pieces(encoded)]
        assert [token for window in windows for token in window[1:]] == encoded["text"].tolist()[1:]
        assert [window[0] for window in windows[1:]] == [window[-1] for window in windows[:-1]]
        assert all(len(window) == CONTEXT + 1 for window in windows[:-1])
        assert 2 <= len(windows[-1]) <= CONTEXT + 1


@pytest.mark.parametrize("documents", ["file", "paragraphs"])
def test_a_long_document_is_divided_and_nothing_is_lost(documents: str) -> None:
    task = task_of(documents=documents)
    text = prose(400, 7)
    found = list(task.divided({"text": text, "author": "nobody"}))
    assert "".join("".join(row["text"] for row in found).split()) == "".join(text.split())
    assert all(row["author"] == "nobody" and len(row["text"]) <= PIECE_CONTEXTS * CONTEXT for row in found)
    if documents == "file":
        assert len(found) > 10
        assert "".join(row["text"] for row in found) == text
        assert [row.get("continues") for row in found] == [True] * (len(found) - 1) + [None]
    else:
        joined = "".join(row["text"] + ("" if "continues" in row else "\n\n") for row in found)
        assert joined.split("\n\n") == [*(part for part in text.split("\n\n") if part.strip()), ""]


def test_short_documents_stay_as_they_are() -> None:
    row = {"text": "the dog", "author": "nobody"}
    assert list(task_of().divided(row)) == [row]


def test_a_row_that_goes_on_ends_no_document_unless_a_blank_line_does() -> None:
    for text, goes_on in (("one\n\ntwo", True), ("one\n\ntwo\n\n", False), ("one\n\ntwo\r\n\t\r\n", False)):
        found = list(task_of(documents="paragraphs").divided({"text": text, "continues": True}))
        assert [row.get("continues", False) for row in found] == [False, goes_on]
    long = "word " * 100
    assert all(row["continues"] for row in task_of().divided({"text": long, "continues": True}))


def test_the_loss_is_minus_log_p_of_each_token_given_those_before_it(task: TextGeneration, model: Causal) -> None:
    encoded = [window for text in TEXTS[1:] for window in task.pieces(task.encode({"text": text}))]
    expected = n_tokens = 0.0
    for window in encoded:
        ids = window["text"].tolist()
        expected -= sum(log_p_of(model, ids[:place], ids[place]) for place in range(1, len(ids)))
        n_tokens += len(ids) - 1
    with torch.no_grad():
        found = task.loss(model, collate(encoded))
    assert float(found.total) == pytest.approx(expected, rel=1e-4)
    assert int(found.units) == n_tokens


def test_no_text_sees_another_in_its_batch(task: TextGeneration, model: Causal) -> None:
    """Editing one document changes no other's loss by a bit, and positions begin anew in each."""
    long, short, other = (task.encode({"text": text}) for text in (TEXTS[3], TEXTS[1], TEXTS[2]))
    width = max(one["text"].size(0) for one in (long, short, other))

    def losses(*encoded: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        ids = collate(encoded)["text"]
        ids = torch.nn.functional.pad(ids, (0, width - ids.size(1)))
        log_p = model(ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        return [row[: len(one["text"]) - 1] for row, one in zip(log_p, encoded, strict=True)]

    with torch.no_grad():
        before, after = losses(long, short), losses(long, other)
        assert torch.equal(before[0], after[0])
        torch.testing.assert_close(losses(short)[0], before[1], rtol=1e-5, atol=1e-5)
        assert not torch.equal(before[1][:3], after[1][:3])


def summed(task: TextGeneration, model: Causal, parts: Sequence[Sequence[Encoded]]) -> list[torch.Tensor]:
    """Return the loss of batches, added up, and its gradient by every parameter."""
    total = torch.stack([task.loss(model, collate(part)).total for part in parts]).sum()
    return [total.detach(), *torch.autograd.grad(total, list(model.parameters()))]


def test_a_batch_of_training_teaches_what_its_texts_teach_one_by_one(tmp_path: Path) -> None:
    """Short documents and windows of long ones in the trainer's own batches: one row each, and no row sees another."""
    draw = random.Random(4)
    data = write_rows(tmp_path / "texts.tsv", [{"text": " ".join(draw.choices(list(WORDS), k=draw.randint(1, 9)))} for _ in range(60)])
    recipe: dict[str, Any] = {
        "task": {"name": "text_generation", "tokens": "characters"},
        "data": {"train": str(data), "max_length": 20},
        "model": SIZES,
        "train": {"batch_tokens": 100, "precision": "float32", "tensorboard": False},
    }
    prepared = prepare(resolve(recipe), tmp_path / "run", lambda text: None)
    trainer = Trainer(prepared, TrainingLog(prepared.run.folder, tensorboard=False, quiet=True))
    task = prepared.run.task
    assert isinstance(task, TextGeneration)
    model = model_for(task)  # with larger weights than fresh ones, so that what stands before a token matters
    found = [[prepared.train[int(row)] for row in rows] for group in trainer.epoch(0) for rows in group]
    assert sum(len({len(one["text"]) for one in batch}) > 1 for batch in found) > 3  # some rows are padded
    for batch in found:
        together, alone = summed(task, model, [batch]), summed(task, model, [[one] for one in batch])
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    batch = max(found, key=len)
    packed = {"text": torch.cat([one["text"] for one in batch])}  # with cross-talk, as a control
    assert float(summed(task, model, [[packed]])[0]) != pytest.approx(float(summed(task, model, [batch])[0]), rel=1e-2)


@pytest.mark.parametrize(("n", "spread"), [(5_000, 0.2), (20_000, 0.5)])
def test_short_documents_beside_others_of_their_length_are_padded_little(n: int, spread: float) -> None:
    """Which is why they share rows only where that is asked for: about 20 tokens, half of the documents within 14 % or 40 % of that."""
    lengths = np.random.default_rng(0).lognormal(3.0, spread, n).astype(np.int32)[:, None] + 2
    assert padding_share(lengths, batches(lengths, 4112, seed=1, epoch=0)) < 0.03


def test_smoothing_is_for_learning_only(task: TextGeneration, model: Causal) -> None:
    smooth = TextGeneration(task.config, task.parts, label_smoothing=0.3, max_length=CONTEXT)
    batch = collate([task.encode({"text": TEXTS[1]})])
    with torch.no_grad():
        assert float(smooth.loss(model.train(), batch).total) != float(task.loss(model, batch).total)
        assert float(smooth.loss(model.eval(), batch).total) == float(task.loss(model, batch).total)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": {"tokens": "bytes", "vocab_size": 500}}, "task.vocab_size=500 would be ignored"),
        ({"task": {"tokens": "characters", "algorithm": "unigram"}}, "task.algorithm=unigram would be ignored"),
        ({"decode": {"stop": ["a", ""]}}, "an empty text would end every answer"),
        ({"decode": {"min_p": 1.5}}, "decode.min_p"),
        ({"decode": {"repetition_penalty": 0}}, "decode.repetition_penalty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("text_generation", settings)


def test_a_model_that_is_not_causal_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs causal, found encoder"):
        task_of().shape(ModelConfig(architecture="encoder"))


def test_answers_are_drawn_and_losses_not_smoothed_unless_settings_say_otherwise() -> None:
    usual = resolve({"task": "text_generation"})
    assert (usual.model.architecture, usual.decode.sampling, usual.train.label_smoothing) == ("causal", True, 0.0)
    other = resolve({"task": "text_generation"}, {"decode": {"sample": False}, "train": {"label_smoothing": 0.1}})
    assert (other.decode.sampling, other.train.label_smoothing) == (False, 0.1)
    assert DecodeConfig(min_p=0.1).sampling
    assert DecodeConfig.model_validate({"stop": "END"}).stop == ["END"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that was trained on one document, a part of which was held out."""
    folder = tmp_path_factory.mktemp("language")
    data = folder / "book.jsonl"
    data.write_text(json.dumps({"text": prose(3000, 5)}) + "\n", encoding="utf-8")
    recipe: dict[str, Any] = {
        "task": {"name": "text_generation", "tokens": "characters"},
        "data": {"train": str(data), "max_length": 16},
        "model": SIZES,
        "train": {"steps": 60, "batch_tokens": 340, "lr": 0.01, "warmup": 10, "precision": "float32", "tensorboard": False},
        "decode": {"precision": "float32", "max_length": 30},
    }
    return heed.train(recipe, to=folder / "run", quiet=True)


def test_a_single_document_is_divided_into_what_is_learned_and_what_is_held_out(trained: Run) -> None:
    report = json.loads((trained.folder / "data_report.json").read_text(encoding="utf-8"))
    pieces = list(trained.task.divided({"text": prose(3000, 5)}))
    train, valid = (set(Store(trained.folder / "store" / name).rows.tolist()) for name in ("train", "valid"))
    assert train | valid == set(range(len(pieces)))
    assert not train & valid
    assert 0.01 < len(valid) / len(pieces) < 0.4
    assert report["long_examples"] == "read in consecutive windows"
    assert report["longest"] == {"text": 17}
    stored = Store(trained.folder / "store" / "valid")
    n_characters = sum(len(pieces[row]["text"]) for row in valid)
    n_ends = sum("continues" not in pieces[row] for row in valid)
    assert sum(len(one["text"]) - 1 for one in stored) == n_characters + n_ends


def test_the_evaluation_of_a_run_is_the_likelihood_of_its_texts(trained: Run) -> None:
    content = json.loads((trained.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    pieces = list(trained.task.divided({"text": prose(3000, 5)}))
    valid = [pieces[row] for row in sorted(set(Store(trained.folder / "store" / "valid").rows.tolist()))]
    assert isinstance(trained.task, TextGeneration)
    assert isinstance(trained.model, Causal)
    found = likelihoods(trained.task, trained.model, valid)
    total, n_tokens = (sum(answer.details[name] for answer in found) for name in ("log_likelihood", "tokens"))
    assert content["perplexity"]["value"] == pytest.approx(math.exp(-total / n_tokens), rel=1e-3)
    assert content["perplexity"]["low"] < content["perplexity"]["value"] < content["perplexity"]["high"]
    assert content["n"] == len(valid)
    assert content["perplexity"]["value"] < 0.7 * len(trained.task.tokenizer.encode("".join(sorted(set(prose(3000, 5))))))


def test_an_evaluation_divides_long_documents_and_a_rerun_gives_the_same(trained: Run) -> None:
    options = trained.config.decode
    long = {"text": prose(500, 8)}
    divided = evaluate_examples(trained, trained.task.divided(long), options).scores.to_json()
    again = evaluate_examples(trained, trained.task.divided(long), options).scores.to_json()
    assert divided == again
    whole = evaluate_examples(trained, [long], options).scores.to_json()
    assert whole["bytes"] == divided["bytes"]
    assert whole["perplexity"]["value"] == pytest.approx(divided["perplexity"]["value"], rel=0.05)  # each piece begins a context anew


def test_a_run_that_was_saved_writes_and_streams_the_same(trained: Run) -> None:
    loaded = heed.load(str(trained.folder))
    [answer] = trained.predict(rows("the dog"))
    assert loaded.predict({"text": "the dog"}) == answer
    batch = collate(loaded.task.encode_all(rows("the dog")))
    model = loaded._answering_model(torch.float32)
    assert "".join(loaded.task.stream(model, batch, loaded.config.decode)) == answer.text
