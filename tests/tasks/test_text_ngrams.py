"""N-grams beside a network that judges texts (model.n_grams): each half learns for itself, both answer, a run keeps what they learned."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_classifiers import LABELS, LEARN, TRAIN, VALID, inputs, long_texts, model_for, prepared_in, probabilities, task_for, trained

from heed.config import merge
from heed.data.batch import collate
from heed.model import Encoder
from heed.model.losses import class_divergence, class_loss
from heed.model.ngrams import NGramScores
from heed.run import Run
from heed.tasks import Answer
from heed.tasks.text_classification import TextClassification

WIDE = {"n_grams": 2, "n_gram_rows": 4099}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run with n-grams whose final weights are a mean."""
    learn = {**LEARN, "evaluate_every": 75, "average": 2}
    return trained(tmp_path_factory.mktemp("wide"), TRAIN, VALID, train=learn, model=WIDE)


def table_of(run: Run) -> NGramScores:
    assert isinstance(run.model, Encoder)
    assert run.model.n_grams is not None
    return run.model.n_grams


def test_each_half_learns_as_if_it_were_alone() -> None:
    task = task_for(lower=True)
    batch = collate(task.encode_all(TRAIN[:8], training=True))
    both, alone = model_for(task, **WIDE).train(), model_for(task).train()
    assert both.n_grams is not None
    both.n_grams.learn_rarity([(batch["text"], batch.mask("text"))])
    torch.nn.init.normal_(both.n_grams.weight)
    found = task.loss(both, batch)
    expected = task.loss(alone, batch), class_loss(both.n_grams(batch["text"], batch.mask("text")), batch["label"])
    torch.testing.assert_close(found.total, (expected[0].total + expected[1].total) / 2)
    found.total.backward()
    expected[0].total.backward()
    for name, parameter in alone.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(both.get_parameter(name).grad, parameter.grad / 2)
    (gradient,) = torch.autograd.grad(expected[1].total, [both.n_grams.weight])
    torch.testing.assert_close(both.n_grams.weight.grad, gradient / 2)


def test_what_is_validated_is_the_answer_of_both(wide: Run) -> None:
    task, model = wide.task, wide.model
    assert isinstance(task, TextClassification)
    assert isinstance(model, Encoder)
    batch = collate(task.encode_all(TRAIN[:8], training=True))
    logits, _ = task.judge(model, batch)
    assert model.n_grams is not None
    first, second = task.judge_apart(model, batch)[0]
    torch.testing.assert_close(logits, (first + second) / 2)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(task.loss(model, batch).total, class_loss(logits, batch["label"]).total)


def test_n_grams_are_those_of_the_text_as_it_is() -> None:
    """Words are left out, and windows cut, for the network alone; a text counts as often as it is read."""
    task = task_for(max_length=8, drop_words=0.5, overlap=2)
    model = model_for(task, **WIDE)
    examples = task.encode_all(long_texts(5, seed=3), training=True)
    changed = [task.augmented(one, np.random.default_rng(i)) for i, one in enumerate(examples)]
    plain, batch = task.layout.collate(examples), task.layout.collate(changed)
    assert batch["text"].size(1) < plain["text"].size(1)
    assert batch.n_tokens == sum(one["text"].size(0) for one in changed)
    assert model.n_grams is not None
    ids, mask = plain["text"], plain.mask("text")
    model.n_grams.learn_rarity([(ids, mask)])
    torch.nn.init.normal_(model.n_grams.weight)
    for one in (plain, batch):
        torch.testing.assert_close(task.judge_apart(model, one)[0][1], model.n_grams(ids, mask))


@pytest.mark.parametrize("pair", [False, True])
def test_of_a_text_that_is_cut_n_grams_are_those_of_what_is_read(pair: bool) -> None:
    rows = [{**row, "text_pair": row["text"][::-1]} for row in TRAIN] if pair else TRAIN
    task = task_for(rows, max_length=5, long_texts="truncate")
    model = model_for(task, **WIDE)
    assert model.n_grams is not None
    torch.nn.init.normal_(model.n_grams.weight)
    torch.nn.init.uniform_(model.n_grams.rarity, 1, 5)
    encoded = task.encode_all(rows, training=True)
    cut = [task.fitted(one) for one in encoded]
    assert any(one["text"].size(0) > 5 for one in encoded)
    found = task.judge_apart(model, collate(encoded))[0][1]
    torch.testing.assert_close(found, task.judge_apart(model, collate([one for one in cut if one is not None]))[0][1])
    shown = task.pictures(model, max(rows, key=lambda row: len(row["text"].split())), Answer(rows[0]["label"], 1.0))
    assert shown is not None
    assert len(shown["weights"]) > 5
    assert pair or not any(shown["weights"][5:])


def test_what_two_readings_say_apart_is_asked_of_each_half() -> None:
    task = task_for(consistency=0.7, drop_words=0.1)
    model = model_for(task, **WIDE, dropout=0.3).train()
    assert model.n_grams is not None
    torch.nn.init.normal_(model.n_grams.weight)
    torch.nn.init.uniform_(model.n_grams.rarity, 1, 5)
    encoded = task.encode_all(TRAIN[:4], training=True)
    batch = collate([*encoded, *encoded], [*range(4)] * 2)
    torch.manual_seed(5)
    halves, _ = task.judge_apart(model, batch)
    torch.manual_seed(5)
    found = task.loss(model, batch)
    smoothing = [task.label_smoothing, 0.0]
    each = [class_loss(half, batch["label"], smoothing=share).total / 2 for half, share in zip(halves, smoothing, strict=True)]
    apart = [class_divergence(half[:4], half[4:]) for half in halves]
    torch.testing.assert_close(found.total, (each[0] + each[1]) / 2 + 0.7 * (apart[0] + apart[1]) / 2)


def test_training_begins_with_the_rarities_of_the_training_texts(tmp_path: Path) -> None:
    prepared, _ = prepared_in(tmp_path, TRAIN, VALID, model=WIDE)
    texts = [row["text"].split() for row in TRAIN]
    held = [{tuple(words[i : i + n]) for n in (1, 2) for i in range(len(words) - n + 1)} for words in texts]
    shared = {gram for grams in held for gram in grams if sum(gram in others for others in held) > 1}
    assert int((table_of(prepared.run).rarity > 0).sum()) == pytest.approx(len(shared), abs=2)  # two may meet in a row


def test_texts_are_counted_a_few_at_a_time_and_a_very_long_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    learn = NGramScores.learn_rarity

    def spied(self: NGramScores, texts: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        kept = list(texts)
        seen.extend(tuple(ids.shape) for ids, _ in kept)
        learn(self, kept)

    monkeypatch.setattr(NGramScores, "learn_rarity", spied)
    rows = [*TRAIN[:30], {"text": "tree " * 20_000, "label": "warm"}, *TRAIN[30:]]
    prepared, _ = prepared_in(tmp_path, rows, VALID, model=WIDE)
    assert sum(n for n, _ in seen) == len(prepared.train) == len(rows)
    assert (1, 20_000) in seen
    assert len(seen) == 3


def test_a_run_with_n_grams_answers_after_loading_as_before(wide: Run) -> None:
    again = Run.load(wide.folder, device="cpu")
    assert torch.equal(table_of(again).rarity, table_of(wide).rarity)
    assert table_of(again).weight.abs().sum() > 0
    assert (probabilities(again, VALID) == probabilities(wide, VALID)).all()
    assert [answer.text for answer in wide.predict(inputs(VALID))] == [row["label"] for row in VALID]


def test_words_weigh_what_their_n_grams_add(wide: Run) -> None:
    row = next(row for row in VALID if len(row["text"].split()) >= 3)
    (answer,) = wide.predict(inputs([row]))
    whole = wide.task.pictures(wide.model, row, answer)
    table = table_of(wide)
    kept = table.weight.detach().clone()
    ids = collate([wide.task.encode(row)])["text"]
    told = table.by_token(ids)[0].detach() / 2
    with torch.no_grad():
        table.weight.zero_()
    network = wide.task.pictures(wide.model, row, answer)
    with torch.no_grad():
        table.weight.copy_(kept)
    label = LABELS.index(answer.text)
    lead = told[:, label] - (told.sum(1) - told[:, label]) / 2
    assert whole is not None
    assert network is not None
    difference = torch.tensor(whole["weights"]) - torch.tensor(network["weights"])
    torch.testing.assert_close(difference, lead, rtol=0, atol=3e-5)


def test_a_run_that_starts_from_another_keeps_the_rarities_it_knows(wide: Run, tmp_path: Path) -> None:
    known = table_of(wide).rarity.clone()
    prepared, _ = prepared_in(tmp_path, TRAIN[:30], VALID, init=str(wide.folder), model=WIDE)
    assert torch.equal(table_of(prepared.run).rarity[known > 0], known[known > 0])
    assert torch.equal(table_of(prepared.run).weight, table_of(wide).weight)


def test_scores_of_other_labels_are_not_taken_over(wide: Run, tmp_path: Path) -> None:
    rows = [merge(row, {"label": row["label"] + "er"}) for row in (*TRAIN, *VALID)]
    prepared, _ = prepared_in(tmp_path, rows[:60], rows[60:], init=str(wide.folder), model=WIDE)
    assert not table_of(prepared.run).weight.any()
    assert table_of(prepared.run).rarity.any()
