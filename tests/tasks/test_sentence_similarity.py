import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_runs import WORDS, Command, toy_pairs, write_rows

import heed
from heed.config import DecodeConfig
from heed.data.batch import collate
from heed.data.read import read_examples
from heed.data.rows import Example
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.evaluation import evaluate_run
from heed.model import Encoder, ModelConfig, build_model
from heed.model.contrastive import contrastive_loss
from heed.run import Run, resolve
from heed.tasks.sentence_similarity import SentenceSimilarity, SentenceSimilaritySettings, same_texts

pytest_plugins = ["toy_runs"]

PAIRS = [{"text": one["source"], "text_pair": one["target"]} for one in {one["source"]: one for one in toy_pairs(60)}.values()]
SHAPE = ModelConfig(architecture="encoder", d_model=12, n_heads=2, n_layers=1, d_ff=20, dropout=0.0)


def prepared(*, max_length: int = 256, **settings: object) -> SentenceSimilarity:
    task = SentenceSimilarity(SentenceSimilaritySettings.model_validate({"vocab_size": 300, **settings}), max_length=max_length)
    task.prepare(PAIRS)
    return task


def model_for(task: SentenceSimilarity) -> Encoder:
    torch.manual_seed(1)
    model = build_model(task.shape(SHAPE))
    assert isinstance(model, Encoder)
    return model.eval()


@pytest.fixture(scope="module")
def task() -> SentenceSimilarity:
    return prepared()


class Ended(Tokenizer):
    """A tokenizer whose texts end with the end token, as those of BERT do."""

    ends_texts = True


def ended(**settings: object) -> SentenceSimilarity:
    task = prepared(**settings)
    task.parts = {"tokenizer": Ended.from_json(task.tokenizer.to_json())}
    return task


def embedding(task: SentenceSimilarity, text: str) -> list[float]:
    (answer,) = task.predict(model_for(task), collate([task.encode({"text": text})]), DecodeConfig())
    found: list[float] = answer.details["embedding"]
    return found


def test_a_text_is_read_between_begin_and_end(task: SentenceSimilarity) -> None:
    text = PAIRS[3]["text"]
    inside = task.tokenizer.encode(text)
    assert task.encode({"text": text})["text"].tolist() == [Tokenizer.bos_id, *inside]
    assert ended().encode({"text": text})["text"].tolist() == [Tokenizer.bos_id, *inside, Tokenizer.eos_id]


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_vector_is_the_mean_over_real_tokens_or_the_first_of_them(pooling: str, normalise: bool) -> None:
    task = prepared(pooling=pooling, normalise=normalise)
    model = model_for(task)
    batch = collate(task.encode_all([{"text": pair["text"]} for pair in PAIRS[:5]]))
    for answer, pair in zip(task.predict(model, batch, DecodeConfig()), PAIRS, strict=False):
        hidden = model(task.encode({"text": pair["text"]})["text"][None])[0]
        expected = hidden.mean(0) if pooling == "mean" else hidden[0]
        expected = expected / expected.square().sum().sqrt() if normalise else expected
        torch.testing.assert_close(torch.tensor(answer.details["embedding"]), expected, rtol=1e-5, atol=1e-5)


def test_the_model_has_the_parameters_of_an_encoder_alone(task: SentenceSimilarity) -> None:
    names = model_for(task).state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"stem", "stack"}


def test_two_texts_are_answered_with_their_cosine_beside_texts_alone(task: SentenceSimilarity) -> None:
    examples = [PAIRS[0], {"text": PAIRS[1]["text"]}, {"text": PAIRS[2]["text"], "text_pair": None}, PAIRS[3]]
    answers = task.predict(model_for(task), collate(task.encode_all(examples)), DecodeConfig())
    for answer, pair in zip(answers, examples, strict=True):
        one = embedding(task, pair["text"])
        if not pair.get("text_pair"):
            assert answer.details["embedding"] == pytest.approx(one, abs=1e-5)
            continue
        other = embedding(task, pair["text_pair"])
        assert answer.score == pytest.approx(sum(a * b for a, b in zip(one, other, strict=True)), abs=1e-5)
        assert answer.text == f"{answer.score:.4f}"
        assert set(answer.to_json()) == {"text", "score"}


def test_a_text_beside_a_text_that_is_no_text_is_refused(task: SentenceSimilarity) -> None:
    with pytest.raises(DataError, match="'text_pair' should be text, found int"):
        task.encode({"text": "a", "text_pair": 3})


@pytest.mark.parametrize("make", [prepared, ended])
def test_long_texts_are_cut_before_their_end_and_answers_say_by_how_much(make: Any) -> None:
    task, size = make(max_length=7), 7
    text = " ".join(WORDS)
    whole = task.encode({"text": text})["text"]
    end = [Tokenizer.eos_id] if make is ended else []
    kept = [*whole.tolist()[: size - len(end)], *end]
    encoded = task.encode({"text": text, "text_pair": "the"})
    assert task.fitted(encoded)["text"].tolist() == kept
    assert task.fitted(encoded)["text_pair"].tolist() == encoded["text_pair"].tolist()
    assert task.n_places(encoded) == size
    model = model_for(task)
    (answer, _) = task.predict(model, collate([task.encode({"text": one}) for one in (text, "the")]), DecodeConfig())
    assert answer.details["cut"] == len(whole) - size
    expected = torch.nn.functional.normalize(model(torch.tensor([kept]))[0].mean(0), dim=0)
    assert answer.details["embedding"] == pytest.approx(expected.tolist(), abs=1e-5)


def defined_loss(first: Tensor, second: Tensor, same: Tensor, temperature: float) -> float:
    """Sum -log p(partner) text by text, in both directions."""
    total = 0.0
    for one, other, mask in ((first, second, same), (second, first, same.T)):
        for i in range(len(one)):
            scores = [torch.cosine_similarity(one[i], other[j], dim=0) / temperature for j in range(len(one)) if j == i or not mask[i, j]]
            own = torch.cosine_similarity(one[i], other[i], dim=0) / temperature
            total += float(torch.logsumexp(torch.stack(scores), 0) - own)
    return total


def test_the_contrastive_loss_is_its_definition() -> None:
    torch.manual_seed(3)
    first, second, same = torch.randn(5, 4), torch.randn(5, 4), torch.rand(5, 5) < 0.3
    total, units, right = contrastive_loss(first, second, same, temperature=0.3)
    assert total.item() == pytest.approx(defined_loss(first, second, same, 0.3), rel=1e-5)
    assert units == 10
    assert 0 < right < 10
    total, _, right = contrastive_loss(first, first, torch.zeros(5, 5, dtype=torch.bool), temperature=0.01)
    assert total.item() == pytest.approx(0, abs=1e-3)
    assert right == 10


def test_an_equal_text_is_never_a_wrong_answer(task: SentenceSimilarity) -> None:
    rows = [("a", "x"), ("b", "y"), ("a", "z"), ("c", "y"), ("d", "b")]
    same = same_texts(collate(task.encode_all([{"text": one, "text_pair": other} for one, other in rows])))
    expected = {(i, j) for i, (t, p) in enumerate(rows) for j, (u, q) in enumerate(rows) if t == u or q in (p, t)}
    assert {(i, j) for i in range(5) for j in range(5) if same[i, j]} == expected
    assert (1, 4) in expected
    assert (0, 2) in expected
    assert (1, 3) in expected


def test_training_on_pairs_sums_the_contrastive_loss_of_the_batch() -> None:
    task = prepared(temperature=0.2)
    model, batch = model_for(task), collate(task.encode_all(PAIRS[:6], training=True))
    vectors = [torch.tensor([embedding(task, pair[side]) for pair in PAIRS[:6]]) for side in ("text", "text_pair")]
    expected = defined_loss(*vectors, ~torch.ones(6, 6, dtype=torch.bool), 0.2)
    assert task.loss(model, batch)[0].item() == pytest.approx(expected, rel=1e-4)
    assert not task.divisible


def scored(n: int, seed: int = 0) -> list[Example]:
    """Return pairs whose score is the share of words that the second took over from the first."""
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        words = draw.sample(list(WORDS), 4)
        n_kept = draw.randint(0, 4)
        others = [word for word in WORDS if word not in words]
        rows.append({"text": " ".join(words), "text_pair": " ".join(words[:n_kept] + draw.sample(others, 4 - n_kept)), "score": n_kept / 4})
    return rows


def test_training_on_scores_sums_squared_distances_of_cosines() -> None:
    task, rows = prepared(scores=True), scored(6)
    model = model_for(task)
    total, units = task.loss(model, collate(task.encode_all(rows, training=True)))
    distances = [
        sum(a * b for a, b in zip(embedding(task, row["text"]), embedding(task, row["text_pair"]), strict=True)) - row["score"]
        for row in rows
    ]
    assert total.item() == pytest.approx(sum(one**2 for one in distances), rel=1e-4)
    assert (units.item(), task.divisible) == (6, True)


def trained(folder: Path, rows: list[Example], valid: list[Example], **settings: Any) -> Run:
    recipe = {
        "task": {"name": "sentence_similarity", "vocab_size": 300, **settings},
        "data": {"train": str(write_rows(folder / "train.tsv", rows)), "valid": str(write_rows(folder / "valid.tsv", valid))},
        "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.0},
        "train": {"steps": 60, "lr": 0.01, "warmup": 5, "precision": "float32", "tensorboard": False, "evaluate_every": 60},
        "decode": {"precision": "float32"},
    }
    return heed.train(recipe, to=folder / "run", quiet=True)


def test_scores_are_learned_and_told_by_correlations(tmp_path: Path) -> None:
    run = trained(tmp_path, scored(200, 1), scored(40, 2))
    assert run.config.task["scores"] is True
    scores = evaluate_run(run, str(tmp_path / "valid.tsv"))
    assert 0.4 < scores["spearman"]["low"] < scores["spearman"]["value"] <= 1
    assert scores["pearson"]["value"] > 0.5
    assert "embedding" in run.predict({"text": "the dog"}).details
    line = json.loads((run.folder / "evaluations" / "valid.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert set(line["answer"]) == {"text", "score"}


def test_a_trained_model_finds_partners_and_the_command_line_takes_pairs(tmp_path: Path, command: Command) -> None:
    run = trained(tmp_path, PAIRS[:40], PAIRS[40:])
    found = evaluate_run(run, str(tmp_path / "train.tsv"))
    assert found["accuracy"]["value"] > 0.5
    assert found["candidates"] == len({pair["text_pair"] for pair in PAIRS[:40]})
    asked = command("predict", run.folder, "the dog\tder Hund", "the dog", "--json")
    pair, text = map(json.loads, asked.out.splitlines())
    assert pair["score"] == pytest.approx(run.predict({"text": "the dog", "text_pair": "der Hund"}).score, abs=1e-5)
    assert text["embedding"] == pytest.approx(run.predict({"text": "the dog"}).details["embedding"], abs=1e-5)
    assert text["text"].endswith(" … (16 numbers)")  # which stand beside it


def test_scores_outside_0_to_1_are_refused_with_their_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.tsv", [*scored(2), {"text": "a", "text_pair": "b", "score": 4.2}])
    columns = prepared(scores=True).columns
    with pytest.raises(DataError, match=r"rows.tsv:4: column 'score' is '4.2', of type str; expected a number from 0 to 1; divide"):
        list(read_examples(str(path), required=columns))
    good = list(read_examples(str(write_rows(tmp_path / "good.tsv", scored(3))), required=columns))
    assert [row["score"] for row in good] == [row["score"] for row in scored(3)]


def test_what_would_be_ignored_or_does_not_fit_is_refused(task: SentenceSimilarity) -> None:
    with pytest.raises(ConfigError, match=r"task\.temperature would be ignored"):
        resolve("sentence_similarity", {"task": {"scores": True, "temperature": 0.1}})
    with pytest.raises(ConfigError, match=r"set task\.pooling"):
        task.shape(SHAPE.replace(pooling="attention"))
    with pytest.raises(ConfigError, match="needs a plain encoder"):
        task.shape(ModelConfig())
    with pytest.raises(ConfigError, match=r"train\.label_smoothing=0\.1 would be ignored"):
        SentenceSimilarity(task.config, task.parts, label_smoothing=0.1).shape(SHAPE)
    with pytest.raises(ConfigError, match="raise it to 3"):
        prepared(max_length=2).shape(SHAPE)


@pytest.mark.parametrize("name", ["sentence_similarity", "tagging"])
def test_a_run_of_masked_lm_is_a_beginning(tmp_path: Path, name: str) -> None:
    sizes = {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.0}
    short = {"steps": 1, "lr": 1e-6, "warmup": 0, "precision": "float32", "tensorboard": False}
    texts = write_rows(tmp_path / "texts.tsv", [{"text": pair["text"]} for pair in PAIRS])
    first = {
        "task": {"name": "masked_lm", "vocab_size": 300, "lower": name != "tagging"},
        "data": {"train": str(texts)},
        "model": sizes,
        "train": short,
    }
    read = heed.train(first, to=tmp_path / "read", quiet=True)
    tagged = [{"tokens": pair["text"], "tags": " ".join(["B-x", *["O"] * pair["text"].count(" ")])} for pair in PAIRS]
    rows = write_rows(tmp_path / "rows.tsv", PAIRS if name == "sentence_similarity" else tagged)
    second = {"task": {"name": name}, "init": str(read.folder), "data": {"train": str(rows)}, "train": {**short, "label_smoothing": 0.0}}
    run = heed.train(second, to=tmp_path / "run", quiet=True)
    weights, before = run.model.state_dict(), read.model.state_dict()
    taken = [key for key in weights if key in before]
    assert taken == [key for key in weights if not key.startswith("tag_head.")]
    assert all(torch.allclose(weights[key], before[key], atol=1e-5) for key in taken)
    assert run.task.parts["tokenizer"].to_json() == read.task.parts["tokenizer"].to_json()
    assert heed.load(run.folder).predict({"text": "the DOG", "tokens": "the DOG"}).details
