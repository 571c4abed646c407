import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import DECISIVE, WORDS, Command

import heed
from heed.config import DecodeConfig
from heed.data.batch import Batch, collate
from heed.data.rows import Example
from heed.data.tags import Scheme, Span, spans_of, tags_of
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.evaluation import evaluate_run
from heed.inspection import inspect_data
from heed.model import Encoder, ModelConfig, build_model
from heed.model.windows import Windows, cut_behind, most_context
from heed.run import Run
from heed.tasks.tagging import Tagging, TaggingSettings

pytest_plugins = ["toy_runs"]

SHAPE = ModelConfig(architecture="encoder", d_model=12, n_heads=2, n_layers=1, d_ff=20, dropout=0.0)


def sentences(n: int, seed: int = 0, scheme: Scheme = "bio") -> list[Example]:
    """Return sentences in which a decisive word and the one behind it are a span of its type."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        words = draw.choices(list(WORDS), k=draw.randint(3, 9))
        place = draw.randrange(len(words) - 1)
        words[place] = list(DECISIVE)[i % 3]
        spans = [Span(DECISIVE[words[place]], place, place + 2)] if i % 4 else []
        words[place] = words[place] if spans else "tree"
        rows.append({"tokens": [*words, "."], "tags": tags_of(spans, len(words) + 1, scheme)})
    return rows


ROWS = sentences(40)


def prepared(rows: list[Example] = ROWS, *, max_length: int = 256, **settings: object) -> Tagging:
    task = Tagging(TaggingSettings.model_validate({"vocab_size": 300, **settings}), max_length=max_length)
    task.prepare(rows)
    return task


def model_for(task: Tagging) -> Encoder:
    torch.manual_seed(1)
    model = build_model(task.shape(SHAPE))
    assert isinstance(model, Encoder)
    return model.eval()


@pytest.fixture(scope="module")
def task() -> Tagging:
    return prepared()


class Ended(Tokenizer):
    """A tokenizer whose texts end with the end token, as those of BERT do."""

    ends_texts = True


def ended(task: Tagging) -> Tagging:
    task.parts["tokenizer"] = Ended.from_json(task.tokenizer.to_json())
    return task


def test_the_labels_are_all_tags_of_the_types_that_occur(task: Tagging) -> None:
    assert task.labels.labels == ("O", *(f"{letter}-{of}" for of in sorted(DECISIVE.values()) for letter in "BI"))
    assert task.types == sorted(DECISIVE.values())
    assert task.labels.counts["O"] == sum(row["tags"].count("O") for row in ROWS)
    assert task.shape(SHAPE).n_tags == 7


def test_a_word_is_judged_at_its_first_sub_word(task: Tagging) -> None:
    tokens = ["Ada", "Lovelace", "née", "北京大学", "🙂", "x"]
    encoded = task.encode({"tokens": tokens})
    ids, text = encoded["tokens"].tolist(), " ".join(tokens)
    assert ids[0] == Tokenizer.bos_id
    for word, (place, start, end) in zip(tokens, encoded["words"].tolist(), strict=True):
        assert text[start:end] == word
        before = task.tokenizer.decode(ids[1:place])
        assert before.rstrip() == text[:start].rstrip()
        shortest = next(n for n in range(1, 20) if "\ufffd" not in task.tokenizer.decode(ids[place : place + n]))
        assert word.startswith(task.tokenizer.decode(ids[place : place + shortest]).lstrip())


def test_a_list_is_encoded_as_its_words_with_a_space_between(task: Tagging) -> None:
    one, other = task.encode({"tokens": ["the", "old", "dog"]}), task.encode({"tokens": "the old dog"})
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_words_that_no_token_stands_for_are_judged_at_the_begin_token_and_not_learned(task: Tagging) -> None:
    encoded = task.encode({"tokens": ["the", "dog"], "tags": ["O", "O"]}, training=True)
    encoded["words"][1, 0] = 0
    _, units, _ = task.loss(model_for(task), collate([encoded]))
    assert units == 1
    answers = task.predict(model_for(task), collate([{key: value for key, value in encoded.items() if key != "tags"}]), DecodeConfig())
    assert len(answers[0].details["tags"]) == 2


def test_the_loss_is_the_cross_entropy_of_every_word_at_its_first_sub_word(task: Tagging) -> None:
    model = model_for(task)
    total, units, right = task.loss(model, collate(task.encode_all(ROWS[:5], training=True)))
    expected, n_right = 0.0, 0
    for row in ROWS[:5]:
        encoded = task.encode(row)
        logits = model.tag_logits(encoded["tokens"][None])[0, encoded["words"][:, 0]]
        tags = torch.tensor([task.labels.index(tag) for tag in row["tags"]])
        expected += torch.nn.functional.cross_entropy(logits, tags, reduction="sum").item()
        n_right += int((logits.argmax(-1) == tags).sum())
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert (units.item(), right.item()) == (sum(len(row["tokens"]) for row in ROWS[:5]), n_right)


def windows_of(length: int, size: int, overlap: int, tail: int) -> Windows:
    ids = torch.arange(length)[None]
    return cut_behind(ids, ids >= 0, torch.tensor([1]), size=size, overlap=overlap, tail=tail)


@pytest.mark.parametrize(
    ("length", "size", "overlap", "tail"), [(23, 9, 3, 1), (23, 8, 4, 0), (30, 8, 5, 1), (6, 9, 3, 1), (9, 9, 2, 0), (1, 9, 3, 0)]
)
def test_every_token_is_judged_once_where_it_has_most_context(length: int, size: int, overlap: int, tail: int) -> None:
    windows = windows_of(length, size, overlap, tail)
    chosen = most_context(windows, torch.tensor([length]), head=1, tail=tail)
    judged = sorted(windows.places[chosen].tolist())
    assert judged == list(range(length))
    bodies = [places[real].tolist()[1 : len(places[real]) - tail] for places, real in zip(windows.places, windows.mask, strict=True)]

    def context(body: list[int], place: int) -> float:
        left = float("inf") if body[0] == 1 else place - body[0]
        right = float("inf") if body[-1] == length - tail - 1 else body[-1] - place
        return min(left, right)

    for number, (places, mine) in enumerate(zip(windows.places.tolist(), chosen.tolist(), strict=True)):
        for place, is_mine in zip(places, mine, strict=True):
            if is_mine and 0 < place < length - tail:
                assert context(bodies[number], place) == max(context(body, place) for body in bodies if place in body)


def test_several_sentences_are_judged_as_each_alone() -> None:
    lengths = [23, 1, 9, 40]
    ids = torch.nn.utils.rnn.pad_sequence([torch.arange(n) for n in lengths], batch_first=True)
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    windows = cut_behind(ids, mask, torch.ones(4, dtype=torch.long), size=9, overlap=3, tail=0)
    chosen = most_context(windows, torch.tensor(lengths), head=1, tail=0)
    for row, length in enumerate(lengths):
        alone = most_context(windows_of(length, 9, 3, 0), torch.tensor([length]), head=1, tail=0)
        together = chosen[windows.rows == row]
        assert torch.equal(together[:, : alone.size(1)], alone)
        assert not together[:, alone.size(1) :].any()


LONG = {
    "tokens": [word for row in sentences(9, 5) for word in row["tokens"]],
    "tags": [tag for row in sentences(9, 5) for tag in row["tags"]],
}


@pytest.mark.parametrize("tail", [0, 1])
def test_long_sentences_are_judged_in_windows_and_every_word_is_learned_once(tail: int) -> None:
    task = prepared(max_length=20, overlap=6)
    task = ended(task) if tail else task
    model, encoded = model_for(task), task.encode(LONG, training=True)
    assert task.n_places(encoded) == 20 < len(encoded["tokens"])
    pieces = list(task.pieces(encoded))
    assert len(pieces) > 2
    assert all(len(piece["tokens"]) <= 20 and piece["tokens"][0] == Tokenizer.bos_id for piece in pieces)
    assert all((piece["tokens"][-1] == Tokenizer.eos_id) == bool(tail) for piece in pieces)
    learned = sorted(tuple(word) for piece in pieces for word in piece["words"][:, 1:].tolist())
    assert learned == [tuple(word) for word in encoded["words"][:, 1:].tolist()]
    whole, parts = task.loss(model, collate([encoded])), [task.loss(model, collate([piece])) for piece in pieces]
    assert whole.total.item() == pytest.approx(sum(part.total.item() for part in parts), rel=1e-5)
    assert whole.units == sum(part.units for part in parts) == len(LONG["tokens"])
    (answer,) = task.predict(model, collate([task.encode({"tokens": LONG["tokens"]})]), DecodeConfig())
    assert len(answer.details["tags"]) == len(LONG["tokens"])


class Said(Tagging):
    """Judges words as it is told to."""

    logits = torch.zeros(0)

    def judge(self, model: Any, batch: Batch) -> torch.Tensor:
        return self.logits[None, : batch["words"].size(1)]


def answered(task: Tagging, tokens: str | list[str], wanted: list[str], *, sure: float = 5.0) -> Any:
    said = Said(task.config, task.parts)
    said.logits = torch.zeros(len(wanted), len(task.labels.labels))
    for place, tag in enumerate(wanted):
        said.logits[place, task.labels.index(tag)] = sure + 0.1 * place
    (answer,) = said.predict(None, collate([said.encode({"tokens": tokens})]), DecodeConfig())  # type: ignore[arg-type]
    return answer


def test_spans_are_exact_characters_of_the_text(task: Tagging) -> None:
    text = "  “Ada\tLovelace”, 北京!"
    answer = answered(task, text, ["O", "B-warm", "I-warm", "O", "O", "B-cold", "I-cold", "O"])
    assert answer.details["tokens"] == ["“", "Ada", "Lovelace", "”", ",", "北", "京", "!"]
    found = [(span["type"], text[span["start"] : span["end"]], span["text"]) for span in answer.details["spans"]]
    assert found == [("warm", "Ada\tLovelace", "Ada\tLovelace"), ("cold", "北京", "北京")]
    assert answer.text == "  “[warm Ada\tLovelace]”, [cold 北京]!"
    shares = [float(torch.tensor([5 + 0.1 * place, *[0.0] * 6]).softmax(0)[0]) for place in range(8)]
    assert answer.details["spans"][0]["score"] == pytest.approx(min(shares[1:3]), rel=1e-5)


def test_a_list_of_words_is_answered_in_the_text_they_make(task: Tagging) -> None:
    answer = answered(task, ["New York", "is", "big"], ["B-cold", "O", "O"])
    (span,) = answer.details["spans"]
    assert {key: span[key] for key in span if key != "score"} == {"type": "cold", "start": 0, "end": 8, "text": "New York", "words": [0, 1]}
    assert answer.details["tokens"] == ["New York", "is", "big"]


@pytest.mark.parametrize("scheme", ["bio", "bilou", "bioes"])
def test_answers_keep_to_the_scheme(scheme: Scheme) -> None:
    task = prepared(sentences(40, scheme=scheme), scheme=scheme)
    draw = random.Random(4)
    n_broken = 0
    for number in range(30):
        wanted = draw.choices(task.labels.labels, k=5)
        if number % 3 == 0:
            wanted = tags_of([Span("warm", 0, 1), Span("cold", 1, 2 + number % 4)], 5, scheme)
        tags = answered(task, ["a", "b", "c", "d", "e"], wanted).details["tags"]
        assert spans_of(tags, scheme) == spans_of(tags, scheme, strict=True)
        whole = spans_of(wanted, scheme) == spans_of(wanted, scheme, strict=True)
        assert (tags == wanted) == whole
        n_broken += not whole
    assert 0 < n_broken < 30
    free = prepared(sentences(40, scheme=scheme), scheme=scheme, legal=False)
    wanted = ["I-warm"] * 3
    assert answered(free, ["a", "b", "c"], wanted).details["tags"] == wanted
    assert [span["words"] for span in answered(free, ["a", "b", "c"], wanted).details["spans"]] == [[0, 3]]


def test_iob1_is_learned_as_bio() -> None:
    task = prepared([{"tokens": ["a", "b", "c"], "tags": ["I-x", "B-x", "O"]}], scheme="iob1")
    assert task.labels.labels == ("O", "B-x", "I-x")
    encoded = task.encode({"tokens": ["a", "b", "c"], "tags": ["I-x", "I-x", "I-x"]}, training=True)
    assert encoded["tags"].tolist() == [1, 2, 2]


def test_plain_tags_are_any_and_scored_word_by_word() -> None:
    rows = [{"tokens": ["the", "dog", "."], "tags": ["DET", "NOUN", "O"]}, {"tokens": ["dog"], "tags": ["NOUN"]}]
    task = prepared(rows, scheme="plain")
    assert task.labels.labels == ("DET", "NOUN", "O")
    answer = answered(task, ["the", "dog", "."], ["DET", "O", "DET"])
    assert answer.text == "the/DET dog/O ./DET"
    assert "spans" not in answer.details
    metrics = task.metrics()
    task.count(metrics, [answer], rows[:1])
    found = metrics.scores().scores
    assert found["accuracy"].value == found["f1"].value == pytest.approx(1 / 3)


def test_a_text_is_cut_at_symbols_if_the_training_words_were(task: Tagging) -> None:
    assert task.config.symbols_apart is True
    assert len(task.encode({"tokens": "a dog."})["words"]) == 3
    assert len(task.encode({"tokens": "a dog.", "tags": ["O", "O"]})["words"]) == 2
    attached = prepared([{"tokens": ["red", "dog."], "tags": ["B-x", "O"]}])
    assert attached.config.symbols_apart is False
    assert len(attached.encode({"tokens": "a dog."})["words"]) == 2


def test_blank_texts_have_no_spans(task: Tagging) -> None:
    batch = collate(task.encode_all([{"tokens": " "}, {"tokens": []}, {"tokens": "the dog"}]))
    answers = task.predict(model_for(task), batch, DecodeConfig())
    assert [answer.details["tags"] for answer in answers[:2]] == [[], []]
    assert [answer.text for answer in answers[:2]] == [" ", ""]


def test_faults_of_rows_are_told(task: Tagging) -> None:
    assert task.fault({"tokens": "a b", "tags": ["O", "B-warm"]}) is None
    assert "has 2 tokens but 1 tag" in str(task.fault({"tokens": "a b", "tags": ["O"]}))
    assert "task.strict=false" in str(task.fault({"tokens": "a b", "tags": ["O", "I-warm"]}))
    assert "'B-wram' is not one of" in str(task.fault({"tokens": "a b", "tags": ["O", "B-wram"]}))
    lenient = prepared(strict=False)
    assert lenient.fault({"tokens": "a b", "tags": ["O", "I-warm"]}) is None
    assert lenient.encode({"tokens": "a b", "tags": ["O", "I-warm"]}, training=True)["tags"].tolist() == [0, lenient.labels.index("B-warm")]


def test_what_does_not_fit_is_refused(task: Tagging) -> None:
    with pytest.raises(ConfigError, match="needs a plain encoder"):
        task.shape(ModelConfig())
    with pytest.raises(ConfigError, match=r"overlap=32 does not fit data\.max_length=20: a window has room for 19"):
        prepared(max_length=20).shape(SHAPE)
    with pytest.raises(DataError, match="all 2 tokens have the tag O"):
        prepared([{"tokens": "a b", "tags": ["O", "O"]}])
    other = Tagging(TaggingSettings(scheme="bioes"), task.parts)
    assert other.shape(SHAPE).n_tags == 7
    with pytest.raises(ConfigError, match="does not know the tag 'L-x'"):
        Tagging(TaggingSettings(), prepared([{"tokens": "a", "tags": ["U-x"]}], scheme="bilou").parts).shape(SHAPE)


def write_conll(path: Path, rows: list[Example]) -> Path:
    blocks = ["".join(f"{word} X {tag}\n" for word, tag in zip(row["tokens"], row["tags"], strict=True)) for row in rows]
    path.write_text("-DOCSTART- X O\n\n" + "\n".join(blocks), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tagging")
    recipe = {
        "task": {"name": "tagging", "vocab_size": 300},
        "data": {
            "train": str(write_conll(folder / "train.conll", sentences(150, 1))),
            "valid": str(write_conll(folder / "valid.txt", sentences(30, 2))),
        },
        "model": {"d_model": 24, "n_heads": 2, "n_layers": 2, "d_ff": 32, "dropout": 0.0},
        "train": {
            "steps": 120,
            "lr": 0.01,
            "warmup": 5,
            "batch_tokens": 400,
            "precision": "float32",
            "tensorboard": False,
            "best_metric": "f1",
        },
        "decode": {"precision": "float32"},
    }
    return heed.train(recipe, to=folder / "run", quiet=True)


def test_spans_are_learned_from_a_conll_file_and_scored(run: Run) -> None:
    found = evaluate_run(run, str(run.config.data.valid))
    assert found["f1"]["value"] > 0.8
    assert found["f1"]["low"] <= found["f1"]["value"] <= found["f1"]["high"]
    assert set(found["per_class"]) == set(DECISIVE.values())
    assert found["words"] == sum(len(row["tokens"]) for row in sentences(30, 2))
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "in the text" in page
    assert any(f"[{of} " in page for of in DECISIVE.values())
    report = json.loads((run.folder / "data_report.json").read_text(encoding="utf-8"))
    assert report["train"]["classes"].keys() == set(DECISIVE.values())


def test_texts_and_conll_files_are_answered_on_the_command_line(run: Run, command: Command, tmp_path: Path) -> None:
    text = "the red dog sees one man."
    asked = command("predict", run.folder, text, "--json")
    content = json.loads(asked.out)
    assert content["tokens"] == ["the", "red", "dog", "sees", "one", "man", "."]
    assert [(span["type"], text[span["start"] : span["end"]]) for span in content["spans"]] == [("warm", "red dog")]
    assert command("predict", run.folder, text).out == "the [warm red dog] sees one man.\n"
    (tmp_path / "x.conll").write_text("the\nred\ndog\n\nold\nman\n", encoding="utf-8")
    assert command("predict", run.folder, "--file", tmp_path / "x.conll").out == "the [warm red dog]\nold man\n"
    with pytest.raises(DataError, match="'tokens' should be a text or a list of words, found int"):
        run.predict({"tokens": 3})


def test_half_a_surrogate_pair_is_written_so_that_it_can_be_read_back(run: Run, command: Command, tmp_path: Path) -> None:
    words = ["the", "red", "dog\ud83d", "👩"]
    path = tmp_path / "half.jsonl"
    path.write_text("".join(json.dumps({"tokens": words, "tags": ["O"] * 4}) + "\n" for _ in range(2)), encoding="utf-8")
    done = command("predict", run.folder, "--file", path, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[0])["tokens"] == words
    assert command("predict", run.folder, "--file", path).out.count("dog\\ud83d") == 2
    evaluate_run(run, str(path), name="half")
    (line, _) = (run.folder / "evaluations" / "half.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["example"]["tokens"] == words


def test_bad_tags_of_a_file_are_told_by_file_and_line(run: Run, tmp_path: Path) -> None:
    for content, said in (
        ("a O\n\nb O\nc I-warm\n", r"bad.conll:3: token 2 \('c'\) begins a span"),
        ("a B-wram\n", r"bad.conll:1: label 'B-wram'"),
    ):
        (tmp_path / "bad.conll").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=said):
            evaluate_run(run, str(tmp_path / "bad.conll"))


def test_inspecting_a_conll_file_tells_spans_duplicates_and_leaks(tmp_path: Path) -> None:
    rows = sentences(9, 3)
    other = {"tokens": rows[1]["tokens"], "tags": ["O"] * len(rows[1]["tokens"])}
    path = write_conll(tmp_path / "x.conll", [*rows, rows[2], other])
    valid = write_conll(tmp_path / "valid.conll", [rows[4], *sentences(2, 8)])
    found, lines = inspect_data(str(path), [f"data.valid={valid}"])
    tagged = found["tagged"]
    assert (found["rows"], tagged["counts"]) == (11, {"duplicates": 1, "contradictions": 2, "leaks": 1})
    assert sum(tagged["classes"].values()) == sum(len(spans_of(row["tags"], "bio")) for row in [*rows, rows[2]])
    shown = "\n".join(lines)
    assert all(word in shown for word in ("spans", "warm", "sentences also in valid", "tokens"))
