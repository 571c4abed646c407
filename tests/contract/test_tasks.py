"""What every task promises, tried on every entry of TASKS; a new task adds its tiny data set here."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_questions import toy_questions
from toy_recordings import SETTINGS as SPOKEN
from toy_recordings import write_recordings
from toy_runs import DECISIVE, toy_texts, write_rows

import heed
from heed.config import DecodeConfig
from heed.data.batch import collate
from heed.data.parts import load_parts, save_parts
from heed.data.rows import Example
from heed.data.tags import spans_of
from heed.errors import ConfigError
from heed.run import Run
from heed.tasks import TASKS, Answer, Task
from heed.tasks.sentence_similarity import Match


def pairs(n: int = 32) -> list[Example]:
    """Return sentences of unequal length that are translated backwards, letter for letter."""
    draw = random.Random(1)
    sources = [" ".join("".join(draw.choices("abcd", k=draw.randint(1, 4))) for _ in range(draw.randint(1, 6))) for _ in range(n)]
    return [{"source": source, "target": source[::-1]} for source in sources]


def tagged(n: int = 32) -> list[Example]:
    """Return sentences whose decisive words are spans of their type, together with the word behind them."""
    return [{"tokens": row["text"], "tags": " ".join(_tags(row["text"].split()))} for row in toy_texts(n)]


def _tags(words: list[str]) -> list[str]:
    before = ["", *words]
    inside = [f"I-{DECISIVE[word]}" if word in DECISIVE else "O" for word in before]
    return [f"B-{DECISIVE[word]}" if word in DECISIVE else inside[place] for place, word in enumerate(words)]


DATA: dict[str, Callable[[Path], list[Example]]] = {  # given a folder for files
    "masked_lm": lambda folder: [{"text": row["text"]} for row in toy_texts(32)],
    "question_answering": lambda folder: toy_questions(32),
    "sentence_similarity": lambda folder: [{"text": one["source"], "text_pair": one["target"]} for one in pairs()],
    "speech_recognition": lambda folder: list(write_recordings(folder / "recordings", 32)),
    "tagging": lambda folder: tagged(),
    "text_classification": lambda folder: list(toy_texts(32)),
    "text_generation": lambda folder: [{"text": row["text"]} for row in toy_texts(32)],
    "text_to_text": lambda folder: pairs(),
    "translation": lambda folder: pairs(),
}
DECODE: dict[str, dict[str, Any]] = {
    "speech_recognition": {"beams": 2},
    "text_generation": {"sample": False, "beams": 2, "max_length": 40},
    "text_to_text": {"beams": 2, "max_length": 40},
    "translation": {"beams": 2, "max_length": 40},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "masked_lm": {"vocab_size": 300},
    "question_answering": {"vocab_size": 300},
    "sentence_similarity": {"vocab_size": 300},
    "speech_recognition": SPOKEN,
    "tagging": {"vocab_size": 300},
    "text_classification": {"vocab_size": 300},
    "text_generation": {"vocab_size": 300},
    "text_to_text": {"vocab_size": 300, "target_language": "en", "prefix": "backwards:"},
    "translation": {"vocab_size": 300, "target_language": "en"},
}


@dataclass(frozen=True)
class Tried:
    """A task after training on its tiny data."""

    run: Run
    examples: list[Example]

    @property
    def inputs(self) -> list[Example]:
        """The examples without their answers."""
        return [{key: example[key] for key in self.run.task.wanted} for example in self.examples]

    @property
    def questions(self) -> list[Example]:
        """The inputs as somebody asks them: of a masked language model, which foretells masks, the first word is one."""
        if self.run.task.name != "masked_lm":
            return self.inputs
        return [{"text": " ".join(["<mask>", *example["text"].split(" ")[1:]])} for example in self.examples]

    def loss(self, model: Any, examples: Sequence[Example]) -> float:
        """Return the loss per unit."""
        batch = collate(self.run.task.encode_all(examples, training=True))
        with torch.no_grad():
            total, units, *_ = self.run.task.loss(model.eval(), batch)
        return float(total) / float(units)


def test_every_task_has_data_to_be_tried_on() -> None:
    assert DATA.keys() == TASKS.keys() == SETTINGS.keys()


@pytest.fixture(scope="module", params=sorted(TASKS))
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    examples = DATA[name](folder)
    train = write_rows(folder / "train.tsv", examples)
    recipe = {
        "task": {"name": name, **SETTINGS[name]},
        "data": {"train": str(train), "valid": str(train), "allow_leaks": True},
        "model": {"d_model": 32, "n_heads": 2, "n_layers": 1, "d_ff": 48, "dropout": 0.0},
        "train": {"steps": 120, "lr": 0.01, "warmup": 10, "precision": "float32", "tensorboard": False, "evaluate_every": 120},
        "decode": DECODE.get(name, {}),
    }
    return Tried(heed.train(recipe, to=folder / "run", quiet=True), examples)


def test_parts_survive_a_round_trip(tried: Tried, tmp_path: Path) -> None:
    parts = tried.run.task.parts
    save_parts(tmp_path / "parts", parts)
    again = load_parts(tmp_path / "parts")
    assert again.keys() == parts.keys()
    for name, part in parts.items():
        assert type(again[name]) is type(part)
        assert again[name].to_json() == part.to_json()
    task = type(tried.run.task)(tried.run.task.config, again)
    for one, other in zip(task.encode_all(tried.examples, True), tried.run.task.encode_all(tried.examples, True), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_loss_falls_on_32_examples(tried: Tried) -> None:
    fresh = Run.open(tried.run.folder)
    before, after = tried.loss(fresh.model, tried.examples), tried.loss(tried.run.model, tried.examples)
    assert len(tried.examples) == 32
    assert after < 0.5 * before


def test_what_was_saved_gives_the_same_answers_when_loaded(tried: Tried) -> None:
    answers = tried.run.predict(tried.questions)
    assert heed.load(str(tried.run.folder)).predict(tried.questions) == answers
    assert len({str(answer) for answer in answers}) > 1


@pytest.mark.parametrize("options", [{}, {"sample": True, "seed": 3}])
def test_a_batch_answers_as_its_members_alone(tried: Tried, options: dict[str, Any]) -> None:
    run, options = tried.run, {name: value for name, value in options.items() if name in tried.run.task.reads}
    together = run.predict(tried.questions, **options)
    alone = [run.predict(example, **options) for example in tried.questions]
    assert isinstance(together, list)
    for one, other in zip(together, alone, strict=True):
        assert isinstance(other, Answer)
        assert one.text == other.text
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_settings_of_decoding_that_a_task_does_not_read_are_refused_and_would_change_nothing(tried: Tried) -> None:
    task, unlike = (
        tried.run.task,
        {"beams": 2, "temperature": 0.5, "top_k": 3, "stop": ["a"], "hot_words": ["a"], "max_length": 3, "n_best": 2},
    )
    unread = {name: value for name, value in unlike.items() if name not in task.reads}
    options = tried.run.config.decode
    usual = [answer.to_json() for answer in tried.run.answers(tried.questions, options)]
    assert [answer.to_json() for answer in tried.run.answers(tried.questions, options.replace(**unread))] == usual
    for name, value in unread.items():
        with pytest.raises(
            ConfigError, match=rf"decode\.{name} would be ignored: {task.name} reads .*decode\.precision here; leave it out"
        ):
            tried.run.predict(tried.questions, **{name: value})


def test_a_stream_of_text_joined_is_the_answer(tried: Tried) -> None:
    options = {name: value for name, value in {"beams": 1, "max_length": 12}.items() if name in tried.run.task.reads}
    for example in tried.questions[:3]:
        assert "".join(tried.run.stream(example, **options)) == tried.run.predict(example, **options).text


def test_the_loss_of_a_batch_is_the_sum_over_its_members(tried: Tried) -> None:
    task, model = tried.run.task, tried.run.model.eval()
    if not task.divisible:
        assert task.name == "sentence_similarity"
        pytest.skip(f"{task.name}: what a row is told from are the others of its batch, as its documentation says")
    with torch.no_grad():
        sums = [task.loss(model, collate([encoded])) for encoded in task.encode_all(tried.examples[:7], training=True)]
        together = task.loss(model, collate(task.encode_all(tried.examples[:7], training=True)))
    for place in range(len(together)):
        assert float(together[place]) == pytest.approx(sum(float(one[place]) for one in sums), rel=1e-4)


def test_encoding_many_is_encoding_each(tried: Tried) -> None:
    task = tried.run.task
    for training in (False, True):
        for one, example in zip(task.encode_all(tried.examples, training), tried.examples, strict=True):
            alone = task.encode(example, training)
            assert one.keys() == alone.keys()
            assert all(torch.equal(one[key], alone[key]) for key in one)


def test_an_example_is_encoded_for_answering_as_for_training_without_its_outputs(tried: Tried) -> None:
    task = tried.run.task
    for asked, taught in zip(task.encode_all(tried.inputs), task.encode_all(tried.examples, training=True), strict=True):
        assert asked.keys() == taught.keys() - task.outputs.keys()
        assert all(torch.equal(asked[key], taught[key]) for key in asked)
        assert 0 < task.n_places(asked) <= task.max_length + 1


def test_columns_are_the_inputs_and_the_outputs(tried: Tried) -> None:
    task = tried.run.task
    assert task.columns.keys() == task.wanted.keys() | task.outputs.keys() == tried.examples[0].keys()
    assert task.inputs.items() <= task.wanted.items() <= (task.inputs | task.optional).items()


def test_good_examples_have_no_fault_and_their_stratum_is_text(tried: Tried) -> None:
    task = tried.run.task
    assert [task.fault(example) for example in tried.examples] == [None] * 32
    assert {type(task.stratum(example)) for example in tried.examples} in ({str}, {type(None)})


def test_without_augmentation_training_examples_stay_as_they_are(tried: Tried) -> None:
    task = tried.run.task
    if task.name == "masked_lm":
        assert task.augments
        pytest.skip("masked_lm: hides tokens of every training example, which is what it learns from")
    assert not task.augments
    for encoded in task.encode_all(tried.examples, training=True):
        changed = task.augmented(encoded, np.random.default_rng(1))
        assert changed.keys() == encoded.keys()
        assert all(torch.equal(changed[key], encoded[key]) for key in encoded)


def test_answering_needs_the_inputs_alone_and_gives_json(tried: Tried) -> None:
    options = DecodeConfig(beams=1, max_length=8)
    for answer in tried.run.answers(tried.questions[:3], options):
        content = json.loads(json.dumps(answer.to_json()))
        assert content["text"] == answer.text
        assert Answer.from_json(content).to_json() == {key: value for key, value in content.items() if key != "others"}


def answered(task: Task, example: Example, *, right: bool) -> Answer:
    """Return an answer as the task gives them that is right, or one that is wrong."""
    if task.outputs.keys() == {"target"}:
        return Answer(example["target"] if right else example["source"][:1])
    if not task.outputs:
        log_p = -1.0 if right else -9.0
        return Answer("", details={"log_likelihood": log_p, "tokens": 5, "unknown": 0, "hidden": 5, "right": 5 if right else 0})
    if task.outputs.keys() == {"answers"}:
        return Answer(next((one["text"] for one in example["answers"]), "") if right else "something else")
    if task.outputs.keys() == {"tags"}:
        tags = example["tags"].split() if right else ["O"] * len(example["tokens"].split())
        spans = [{"type": span.type, "words": [span.start, span.end]} for span in spans_of(tags, "bio")]
        return Answer("", details={"tags": tags, "spans": spans})
    if task.outputs.keys() == {"text_pair"}:
        draw = np.random.default_rng([ord(letter) for letter in example["text"]])
        vector = draw.normal(size=8)
        return Match("", details={}, vectors=(vector, vector if right else draw.normal(size=8)))
    if task.outputs.keys() == {"text"}:
        return Answer(example["text"] if right else "d d d d")
    assert task.outputs.keys() == {"label"}
    labels = {answer["label"] for answer in toy_texts(32)}
    sure = 0.8 if right else 0.1
    shares = {label: sure if label == example["label"] else (1 - sure) / (len(labels) - 1) for label in sorted(labels)}
    return Answer(max(shares, key=shares.__getitem__), details={"probabilities": shares})


def test_right_answers_score_better_than_wrong_ones(tried: Tried) -> None:
    task = tried.run.task
    right, wrong = task.metrics(), task.metrics()
    task.count(right, [answered(task, example, right=True) for example in tried.examples], tried.examples)
    task.count(wrong, [answered(task, example, right=False) for example in tried.examples], tried.examples)
    assert (right.qualities() >= wrong.qualities()).all()
    assert right.qualities().sum() > wrong.qualities().sum()
