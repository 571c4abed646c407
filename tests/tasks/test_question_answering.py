"""Question answering: windows, exact answers, no answer, what training refuses; against definitions that try every part of a context."""

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers
from toy_questions import toy_questions, write_squad
from toy_runs import Command, command

import heed
from heed.config import DecodeConfig, merge
from heed.data.batch import collate
from heed.data.calibration import NoAnswer
from heed.data.excerpts import excerpt
from heed.data.foreign import ForeignTokenizer, Frame
from heed.data.parts import load_parts
from heed.data.rows import Example
from heed.data.text import Tokenizer
from heed.data.words import Preparation
from heed.errors import ConfigError, DataError
from heed.evaluation import evaluate_examples
from heed.metrics.answers import match_v2
from heed.model import ModelConfig, build_model
from heed.model.models import Encoder
from heed.run import Run
from heed.tasks import Answer
from heed.tasks.question_answering import USUAL_LENGTH, QuestionAnswering, QuestionAnsweringSettings

__all__ = ["command"]

SHAPE = {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.0, "n_segments": 2}
TINY: dict[str, Any] = {
    "task": {"name": "question_answering", "vocab_size": 300, "overlap": 10},
    "data": {"max_length": 60},
    "model": {key: value for key, value in SHAPE.items() if key != "n_segments"},
    "train": {"steps": 3, "batch_tokens": 500, "lr": 0.01, "warmup": 2, "precision": "float32", "tensorboard": False},
    "decode": {"precision": "float32"},
}


def prose(n: int, seed: int = 1) -> str:
    """Return a context of so many words, in which white space and scripts change."""
    draw = random.Random(seed)
    words = ["the", "dog", "sees", "三只狗", "naïve", "ideas.", "1,000", "🙂"]
    return "".join(draw.choice(words) + draw.choice([" ", " ", "  ", "\n"]) for _ in range(n))


def own_task(length: int = 40, **settings: Any) -> QuestionAnswering:
    """Return a task with sub-words of heed's own."""
    config = QuestionAnsweringSettings(**{"vocab_size": 300, "overlap": 5, "max_answer_tokens": 6, **settings})
    task = QuestionAnswering(config, max_length=length)
    task.prepare([{"question": "what?", "context": prose(60), "answers": [{"text": "the", "start": 0}]}])
    return task


def foreign_task(length: int = 40, **settings: Any) -> QuestionAnswering:
    """Return a task whose tokenizer lower-cases, drops white space, and ends texts."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "dog", "sees", "三", "只", "狗", "naive", "ideas", "what"]
    words += [".", "1", ",", "000", "?"]
    backend = Backend(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    part = ForeignTokenizer(json.loads(backend.to_str()), [0, 2, 3, 1], len(words), frame=Frame(ends_texts=True, separators=2))
    config = QuestionAnsweringSettings(**{"overlap": 5, "max_answer_tokens": 6, **settings})
    return QuestionAnswering(config, {"tokenizer": part}, max_length=length)


TASKS = {"own": own_task, "foreign": foreign_task}
of_both = pytest.mark.parametrize("kind", TASKS)


def drawn_model(task: QuestionAnswering) -> Encoder:
    """Return an encoder whose weights are drawn so that places differ clearly."""
    torch.manual_seed(3)
    model = build_model(task.shape(ModelConfig(architecture="encoder", **SHAPE)))
    assert isinstance(model, Encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def windows_of(task: QuestionAnswering, example: Example) -> list[tuple[list[int], list[tuple[int, int]], int]]:
    """Cut an example into windows by the definition: ids, the characters of each token of the context in it, and where those begin."""
    tokenizer, overlap = task.tokenizer, task.config.overlap
    (question,), ((context, places),) = tokenizer.encode_batch([example["question"]]), tokenizer.with_places([example["context"]])
    head = [1, *question[: task.max_length // 2], *[2] * tokenizer.separators]
    end = [2] * tokenizer.ends_texts
    size = task.max_length - len(head) - len(end)
    starts = [*range(0, len(context) - size, size - overlap), len(context) - size] if len(context) > size else [0]
    return [([*head, *context[at : at + size], *end], places[at : at + size], len(head)) for at in starts]


def log_p(model: Encoder, ids: Sequence[int], head: int, n: int) -> tuple[list[list[float]], float]:
    """Return the log p of each place of the context as the first and as the last, and that of no answer."""
    with torch.no_grad():
        logits = model.tag_logits(torch.tensor([ids]))[0].double()
    places = [0, *range(head, head + n)]
    shares = logits[places].log_softmax(0)
    return shares[1:].tolist(), float(shares[0].sum())


def best_by_trying_all(task: QuestionAnswering, model: Encoder, example: Example) -> tuple[list[tuple[float, int, int]], float]:
    """Return every legal part of a context as log p and characters, best first, and the log p of no answer."""
    found: dict[tuple[int, int], float] = {}
    nowhere = []
    for ids, places, head in windows_of(task, example):
        shares, none = log_p(model, ids, head, len(places))
        nowhere.append(none)
        for i, j in itertools.product(range(len(places)), repeat=2):
            if 0 <= j - i < task.config.max_answer_tokens:
                text = example["context"][places[i][0] : places[j][1]]
                start = places[i][0] + len(text) - len(text.lstrip())
                if text.strip():
                    span = start, start + len(text.strip())
                    found[span] = max(found.get(span, -math.inf), shares[i][0] + shares[j][1])
    return sorted(((p, *span) for span, p in found.items()), reverse=True), min(nowhere)


@of_both
@pytest.mark.parametrize("n_words", [1, 9, 45])
def test_the_answer_is_the_best_part_over_all_windows_as_the_characters_of_the_context(kind: str, n_words: int) -> None:
    task = TASKS[kind]()
    model = drawn_model(task)
    examples = [{"question": "What the dog?", "context": prose(n_words, seed)} for seed in range(3)]
    with torch.inference_mode():
        answers = task.predict(model, collate(task.encode_all(examples)), DecodeConfig(n_best=3))
    for example, answer in zip(examples, answers, strict=True):
        expected, nowhere = best_by_trying_all(task, model, example)
        given = [answer, *answer.others]
        assert [(one.details["start"], one.details["end"]) for one in given] == [(start, end) for _, start, end in expected[:3]]
        assert [one.text for one in given] == [example["context"][one.details["start"] : one.details["end"]] for one in given]
        assert [math.log(one.score or 0) for one in given] == pytest.approx([p for p, _, _ in expected[:3]], abs=1e-4)
        assert math.log(answer.details["no_answer"]) == pytest.approx(nowhere, abs=1e-4)
        assert answer.details.get("windows", 1) == len(windows_of(task, example))


@of_both
def test_a_context_without_a_token_has_no_answer(kind: str) -> None:
    task = TASKS[kind]()
    examples = [{"question": "what?", "context": ""}, {"question": "", "context": " "}, {"question": "what?", "context": "the dog"}]
    with torch.inference_mode():
        answers = task.predict(drawn_model(task), collate(task.encode_all(examples)), DecodeConfig())
    assert [bool(answer.text) for answer in answers] == [False, False, True]
    assert answers[0].to_json().keys() == {"text", "score", "no_answer"}


@of_both
def test_training_windows_point_at_the_answer_or_at_the_begin_token(kind: str) -> None:
    task, text = TASKS[kind](), prose(45)
    (_, places), *_ = task.tokenizer.with_places([text])
    for first, last in [(0, 0), (3, 5), (20, 21), (len(places) - 1, len(places) - 1)]:
        start, end = places[first][0], places[last][1]
        answers = [{"text": text[start:end], "start": start}] if text[start:end].strip() else []
        example = {"question": "what?", "context": text, "answers": answers}
        (encoded,) = task.encode_all([example], training=True)
        pieces, expected = list(task.pieces(encoded)), windows_of(task, example)
        assert len(pieces) == len(expected) > 1
        n_pointing = 0
        for piece, (ids, inside, head) in zip(pieces, expected, strict=True):
            assert piece["text"].tolist() == ids
            assert int(piece["context"]) == head
            a, b = piece["answers"][0].tolist()
            if answers and inside[0][0] <= start and end <= inside[-1][1]:
                assert text[inside[a - head][0] : inside[b - head][1]].strip() == text[start:end].strip()
                n_pointing += 1
            else:
                assert (a, b) == (0, 0)
        assert n_pointing >= bool(answers)


def test_questions_without_an_answer_point_at_the_begin_token_in_every_window() -> None:
    task = own_task()
    (encoded,) = task.encode_all([{"question": "what?", "context": prose(45), "answers": []}], training=True)
    assert {tuple(piece["answers"][0].tolist()) for piece in task.pieces(encoded)} == {(0, 0)}


def test_training_learns_the_answer_that_most_references_name() -> None:
    task, context = own_task(), "the dog sees the dog"
    answers = [{"text": "sees", "start": 8}, {"text": "dog", "start": 17}, {"text": "dog", "start": 17}]
    (encoded,) = task.encode_all([{"question": "what?", "context": context, "answers": answers}], training=True)
    first, last = (encoded["answers"][0] - encoded["context"]).tolist()
    spans = encoded["spans"].tolist()
    assert (spans[first][0], spans[last][1]) == (17, 20)


def test_an_answer_without_a_token_is_not_learned() -> None:
    task = foreign_task()
    context = "the \u200b dog"
    (encoded,) = task.encode_all([{"question": "what?", "context": context, "answers": [{"text": "\u200b", "start": 4}]}], training=True)
    assert list(task.pieces(encoded)) == []


@of_both
def test_the_loss_is_the_cross_entropy_of_both_places_over_the_context_and_the_begin_token(kind: str) -> None:
    task = TASKS[kind]()
    model, text = drawn_model(task), prose(20)
    start = text.index("dog")
    rows = [{"question": "what?", "context": text, "answers": [{"text": "dog", "start": start}]}]
    rows.append({"question": "the dog?", "context": "sees the", "answers": []})
    pieces = [piece for one in task.encode_all(rows, training=True) for piece in task.pieces(one)]
    expected, n_right = 0.0, 0
    for piece in pieces:
        ids, head = piece["text"].tolist(), int(piece["context"])
        places = [0, *range(head, len(ids) - task.tokenizer.ends_texts)]
        logits = model.tag_logits(torch.tensor([ids]))[0, places].detach()
        for side in range(2):
            target = torch.tensor(places.index(int(piece["answers"][0, side])))
            expected += float(F.cross_entropy(logits[:, side], target))
            n_right += int(logits[:, side].argmax() == target)
    with torch.no_grad():
        total, units, right = task.loss(model, collate(pieces))
    assert float(total) == pytest.approx(expected, rel=1e-4)
    assert (int(units), int(right)) == (2 * len(pieces), n_right)


def test_each_context_is_cut_once_for_all_its_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = own_task(), list[str]()
    with_places = Tokenizer.with_places
    monkeypatch.setattr(Tokenizer, "with_places", lambda self, texts: seen.extend(texts) or with_places(self, texts))
    contexts = [prose(5), prose(6), prose(7)]
    task.encode_all([{"question": f"what {i}?", "context": contexts[i % 3]} for i in range(12)])
    assert sorted(seen) == sorted(contexts)


def test_what_is_not_answered_hangs_on_the_threshold() -> None:
    task = own_task()
    model, batch = drawn_model(task), collate(task.encode_all([{"question": "what?", "context": prose(9)}]))

    def answer() -> Answer:
        with torch.inference_mode():
            return task.predict(model, batch, DecodeConfig(n_best=3))[0]

    always = answer()
    lead = always.details["no_answer_lead"]
    assert lead == pytest.approx(math.log(always.details["no_answer"]) - math.log(always.score or 0), abs=1e-6)
    task.parts["no_answer"] = NoAnswer(lead + 0.01)
    assert answer() == always
    task.parts["no_answer"] = NoAnswer(lead - 0.01)
    withheld = answer()
    assert (withheld.text, withheld.details["likeliest"]) == ("", always.text)
    assert withheld.score == always.details["no_answer"]
    assert "start" not in withheld.details
    assert task.note(always) is None
    assert task.note(withheld) == f"no answer; the likeliest part would be {always.text!r}"
    assert [one.text for one in withheld.others] == [always.text, always.others[0].text]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that has learned some questions, of which a quarter have no answer, by heart."""
    folder = tmp_path_factory.mktemp("questions")
    path = write_squad(folder / "train.json", toy_questions(24), titles=4)
    data = {"data": {"train": str(path), "valid": str(path), "allow_leaks": True}}
    return heed.train(merge(merge(TINY, data), {"train": {"steps": 120, "evaluate_every": 120}}), to=folder / "run", quiet=True)


def test_the_threshold_is_fitted_on_the_validation_data_and_saved(trained: Run) -> None:
    rows = toy_questions(24)
    part = load_parts(trained.folder / "parts")["no_answer"]
    assert isinstance(part, NoAnswer)
    assert part == trained.task.parts["no_answer"]
    answers = trained.predict([{key: row[key] for key in ("question", "context")} for row in rows])
    leads = np.array([answer.details["no_answer_lead"] for answer in answers])

    def f1_at(threshold: float) -> float:
        given = ["" if answer.details["no_answer_lead"] > threshold else answer.details.get("likeliest", answer.text) for answer in answers]
        return sum(match_v2(text, [one["text"] for one in row["answers"]]).f1 for text, row in zip(given, rows, strict=True))

    assert f1_at(part.threshold) == pytest.approx(max(f1_at(lead + step) for lead in leads for step in (-1e-9, 1e-9)))
    scores = json.loads((trained.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert scores["f1"]["value"] == pytest.approx(f1_at(part.threshold) / len(rows), abs=1e-3)
    assert {"has_answer_exact_match", "has_answer_f1", "no_answer_exact_match"} <= scores.keys()


def test_speed_is_told_in_questions_alone_for_an_answer_is_chosen_and_not_written(trained: Run) -> None:
    cost = json.loads((trained.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))["cost"]
    assert "examples_per_second" in cost
    assert "tokens_per_second" not in cost


def test_validation_questions_that_all_have_answers_leave_the_threshold_alone(trained: Run) -> None:
    task = trained.task
    assert isinstance(task, QuestionAnswering)
    before = task.parts["no_answer"]
    answered = [row for row in toy_questions(24) if row["answers"]]
    task.calibrate(evaluate_examples(trained, answered, trained.config.decode).metrics)
    assert task.parts["no_answer"] is before


def test_the_report_marks_answers_in_their_contexts(trained: Run) -> None:
    page = (trained.folder / "report.html").read_text(encoding="utf-8")
    marked = {part.partition("</mark>")[0] for part in page.split("<mark>")[1:]}
    assert marked
    assert all(any(text in row["context"] for row in toy_questions(24)) for text in marked)


def test_a_question_and_its_context_are_asked_in_one_line_or_as_a_file(trained: Run, command: Command, tmp_path: Path) -> None:
    row = next(row for row in toy_questions(24) if row["answers"])
    expected = trained.predict({key: row[key] for key in ("question", "context")}).to_json()
    line = json.loads(command("predict", trained.folder, f"{row['question']}\t{row['context']}", "--json").out)
    path = write_squad(tmp_path / "ask.json", [row])
    of_file = json.loads(command("predict", trained.folder, "--file", path, "--json").out)
    for one in (line, of_file):
        assert one["text"] == expected["text"]
        assert one["score"] == pytest.approx(expected["score"], abs=1e-5)


def test_without_questions_that_have_none_every_question_is_answered(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "train.json", toy_questions(16, unanswerable=0.0), titles=4)
    run = heed.train(merge(TINY, {"data": {"train": str(path)}}), to=tmp_path / "run", quiet=True)
    assert "no_answer" not in run.task.parts
    assert not run.task.calibrates
    assert all(run.predict({key: row[key] for key in ("question", "context")}).text for row in toy_questions(16))
    report = json.loads((run.folder / "data_report.json").read_text(encoding="utf-8"))
    assert report["held_out"].startswith("8 of the 16 training examples, as there is no data.valid: 2 of 4 whole articles")
    rows = [json.loads(line)["example"] for line in (run.folder / "evaluations" / "valid.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(Counter(row["title"] for row in rows).values()) == [4, 4]


def test_a_single_article_cannot_be_divided(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "train.json", toy_questions(16), titles=1)
    with pytest.raises(DataError, match=r"nothing can be held out.*name validation data with data\.valid"):
        heed.train(merge(TINY, {"data": {"train": str(path)}}), to=tmp_path / "run", quiet=True)


def test_folds_hold_whole_articles(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "train.json", toy_questions(16), titles=8)
    run = heed.train(merge(TINY, {"data": {"train": str(path), "folds": 4}}), to=tmp_path / "run", quiet=True)
    titles = {}
    for name in ("valid", "test"):
        lines = (run.folder / "evaluations" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        titles[name] = [json.loads(line)["example"]["title"] for line in lines]
        assert all(titles[name].count(title) == 2 for title in titles[name])
    assert not set(titles["valid"]) & set(titles["test"])


def test_contexts_in_two_splits_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    rows = toy_questions(16)
    train = write_squad(tmp_path / "train.json", rows, titles=2)
    valid = write_squad(tmp_path / "valid.json", [row | {"question": "another question?"} for row in rows[:3]])
    with pytest.raises(DataError, match=r"3 of them ask about a context that stands in data\.valid too"):
        heed.train(merge(TINY, {"data": {"train": str(train), "valid": str(valid)}}), to=tmp_path / "run", quiet=True)


def test_a_question_beyond_half_a_window_is_cut_and_counted() -> None:
    task = own_task(length=40)
    long = {"question": " ".join(["dog"] * 30), "context": "the dog sees", "answers": []}
    n_tokens = len(task.tokenizer.encode(long["question"]))
    (encoded,) = task.encode_all([long])
    assert int(encoded["context"]) == 1 + 20 + 1
    task.prepare([long, {"question": "what?", "context": "the dog", "answers": []}])
    n_cut = len(task.tokenizer.encode(long["question"])) - 20
    (warning,) = task.findings([])["warnings"]
    assert warning.startswith("1 question has more than 20 tokens")
    with torch.inference_mode():
        (answer,) = task.predict(drawn_model(task), collate(task.encode_all([long])), DecodeConfig())
    assert answer.details["cut"] == n_cut
    assert str(task.note(answer)).startswith(f"the last {n_cut} tokens of the question were not read")
    assert str(task.note(replace(answer, details={"cut": 1}))).startswith("the last token of the question was not read")
    assert n_tokens > 20


@pytest.mark.parametrize(
    ("length", "settings", "model", "complaint"),
    [
        (40, {"overlap": 18}, {}, "task.overlap=18 does not fit data.max_length=40.*room for 18 tokens"),
        (40, {}, {"architecture": "causal", "n_segments": None}, "needs a plain encoder"),
        (40, {}, {"hierarchical": True, "n_segments": None}, "needs a plain encoder"),
    ],
)
def test_settings_that_do_not_fit_are_refused(length: int, settings: dict[str, Any], model: dict[str, Any], complaint: str) -> None:
    task = own_task(length, **settings)
    with pytest.raises(ConfigError, match=complaint):
        task.shape(ModelConfig(**{"architecture": "encoder", **SHAPE, **model}))


def test_windows_share_what_is_usual_or_less_where_they_are_short() -> None:
    for length, overlap in ((USUAL_LENGTH, 128), (40, 9)):
        task = QuestionAnswering(QuestionAnsweringSettings(vocab_size=300), max_length=length)
        task.prepare([{"question": "what?", "context": "the dog", "answers": []}])
        assert task.overlap == overlap
        task.shape(ModelConfig(architecture="encoder", **SHAPE))


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_any_part_of_a_chinese_context_can_be_quoted(algorithm: str) -> None:
    context, question = "张三于1820年出生在成都。“李四”也出生在成都。", "张三出生在哪里？"
    rows: list[Example] = [
        {"question": question, "context": context, "answers": [{"text": context[start:end], "start": start}]}
        for start in range(len(context))
        for end in range(start + 1, len(context) + 1)
    ]
    task = QuestionAnswering(QuestionAnsweringSettings(vocab_size=400, algorithm=algorithm), max_length=64)  # type: ignore[arg-type]
    task.prepare(rows)
    assert "warnings" not in task.findings(rows)


def test_answers_that_sub_words_cannot_quote_are_warned_of() -> None:
    task, other = own_task(), own_task()
    other.parts = {"tokenizer": Tokenizer.train(["出生在成都"] * 3, algorithm="bpe", vocab_size=300, cleaning=False)}
    task.inherit(other)
    answers = [{"text": "成都", "start": 3}], [{"text": "出生在成都", "start": 0}], []
    rows = [{"question": "?", "context": "出生在成都", "answers": some} for some in answers]
    task.prepare(rows)
    (warning,) = task.findings(rows)["warnings"]
    assert warning.startswith("of 2 validation answers 1 begin or end inside a sub-word")


def test_a_tokenizer_that_cleans_is_not_inherited() -> None:
    task, other = own_task(), own_task()
    other.parts = {"tokenizer": Tokenizer.train(["the dog"], algorithm="bpe", vocab_size=270)}
    with pytest.raises(ConfigError, match="could not be quoted"):
        task.inherit(other)


def test_the_tokenizer_of_the_run_that_is_started_from_is_kept() -> None:
    task, other = own_task(), own_task()
    other.parts["preparation"] = Preparation(cleaning=True, lower=False, stop_words="none")
    task.inherit(other)
    parts = task.prepare([{"question": "what?", "context": "the dog", "answers": []}])
    assert parts["tokenizer"] is other.parts["tokenizer"]
    assert parts.keys() == {"tokenizer", "no_answer"}


def test_spans_and_characters_quote_the_context() -> None:
    for task in (own_task(), foreign_task()):
        text = prose(12)
        (encoded,) = task.encode_all([{"question": "what?", "context": text}])
        (_, places), *_ = task.tokenizer.with_places([text])
        quoted = [excerpt(encoded["characters"], start, end) for start, end in encoded["spans"].tolist()]
        assert quoted == [text[start:end] for start, end in places]
