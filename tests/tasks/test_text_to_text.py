"""Several tasks in one model by prefix, long sources, and settings that would do nothing."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import write_rows

import heed
from heed.config import DecodeConfig
from heed.data.batch import collate
from heed.data.quality import survey_pairs
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.evaluation import score_lines
from heed.files import parse_json
from heed.model import ModelConfig, Seq2Seq, build_model
from heed.run import resolve
from heed.tasks import Answer
from heed.tasks.text_to_text import TextToText, TextToTextSettings

WORDS = ["red", "sun", "old", "hat", "sea", "dog", "ice", "map"]
WARM = {"red", "sun", "hat", "dog"}
PLAIN = {"precision": "float32", "tensorboard": False}
SHAPE = ModelConfig(d_model=12, n_heads=2, n_layers=1, d_ff=20, dropout=0.0)


def three_tasks(n: int, seed: int = 1) -> list[dict[str, str]]:
    """Return rows of three tasks in turn: words backwards, whether the first is warm, and the first two."""
    draw = random.Random(seed)
    rows = []
    for number in range(n):
        words = draw.sample(WORDS, k=draw.randint(3, 4))
        warmth = "warm" if words[0] in WARM else "cold"
        answers = {"translate": " ".join(reversed(words)), "classify": warmth, "summarize": " ".join(words[:2])}
        prefix = list(answers)[number % 3]
        rows.append({"prefix": prefix, "source": " ".join(words), "target": answers[prefix]})
    return rows


ROWS = three_tasks(45)


def prepared(rows: list[dict[str, str]] | None = None, *, max_length: int = 256, **settings: Any) -> TextToText:
    task = TextToText(TextToTextSettings.model_validate({"vocab_size": 300, "target_language": "en", **settings}), max_length=max_length)
    rows = ROWS if rows is None else rows
    task.settle(rows[0])
    task.prepare(rows)
    return task


def without(key: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != key} for row in rows]


def model_for(task: TextToText) -> Seq2Seq:
    torch.manual_seed(1)
    model = build_model(task.shape(SHAPE))
    assert isinstance(model, Seq2Seq)
    return model.eval()


@pytest.fixture(scope="module")
def task() -> TextToText:
    return prepared()


def test_a_prefix_stands_before_the_source_and_an_end_behind_it(task: TextToText) -> None:
    encoded = task.encode(ROWS[0], training=True)
    for side, text in (("source", f"{ROWS[0]['prefix']} {ROWS[0]['source']}"), ("target", ROWS[0]["target"])):
        *ids, last = encoded[side].tolist()
        assert last == Tokenizer.eos_id
        assert task.tokenizer.decode(ids) == text


@pytest.mark.parametrize("prefix", ["summarize", "summarize ", " summarize"])
def test_a_prefix_as_a_key_and_one_written_in_front_are_the_same(task: TextToText, prefix: str) -> None:
    written = task.encode({"source": "summarize red sun"})["source"]
    assert torch.equal(task.encode({"source": "red sun", "prefix": prefix})["source"], written)
    assert task.asked({"source": "summarize red sun"}) == task.asked({"source": "red sun", "prefix": prefix})


def test_the_setting_is_the_column_for_all_rows() -> None:
    rows = [row for row in ROWS if row["prefix"] == "classify"]
    by_setting, by_column = prepared(without("prefix", rows), prefix="classify"), prepared(rows)
    for row in rows[:5]:
        assert by_setting.asked({"source": row["source"]}) == by_column.asked(row)
    assert by_setting.tokenizer.to_json() == by_column.tokenizer.to_json()


def test_the_prefixes_of_the_training_data_are_settled_and_their_rows_counted(task: TextToText) -> None:
    assert task.config.prefixes == ["translate", "classify", "summarize"]
    assert task.findings([])["prefixes"] == dict.fromkeys(task.config.prefixes, 15)
    assert task.columns.keys() == {"source", "target", "prefix"}
    assert task.wanted.keys() == {"source"}
    plain = prepared(without("prefix", ROWS))
    assert plain.config.prefixes == []
    assert plain.columns.keys() == {"source", "target"}


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"source": "red sun", "prefix": "sing"}, "prefix 'sing' is not one of 'translate', 'classify', 'summarize'"),
        ({"source": "red sun"}, "source 'red sun' begins with no prefix of 'translate', 'classify', 'summarize'"),
        ({"source": "translated sun"}, "begins with no prefix"),
    ],
)
def test_a_prefix_that_training_did_not_have_is_refused(task: TextToText, example: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task.encode(example)


def test_of_many_sources_the_one_without_a_prefix_is_named_by_its_number(run: heed.Run) -> None:
    sources = [{"source": f"{prefix}{row['source']}"} for prefix, row in zip(["translate ", "", ""], ROWS, strict=False)]
    with pytest.raises(DataError, match=r"input 2: source .* begins with no prefix"):
        list(run.answers(sources, run.config.decode))


def test_rows_with_an_unknown_prefix_are_faulty(task: TextToText) -> None:
    fault = task.fault({**ROWS[0], "prefix": "sing"})
    assert fault is not None
    assert "'sing' is not one of 'translate'" in fault
    assert task.fault(ROWS[0]) is None


def test_the_prefix_is_what_folds_are_balanced_by(task: TextToText) -> None:
    assert [task.stratum(row) for row in ROWS[:3]] == ["translate", "classify", "summarize"]
    assert task.stratum({"source": "red", "target": "sun"}) is None


def test_one_source_under_two_prefixes_is_no_duplicate_and_short_targets_are_no_fault(task: TextToText) -> None:
    rows = [{"prefix": "translate", "source": f"{row['source']} {n}", "target": f"{row['source']} {n + 1}"} for n, row in enumerate(ROWS)]
    rows += [{**rows[0], "prefix": "classify"}, {"prefix": "summarize", "source": " ".join(WORDS * 9), "target": "hat"}]
    found = task.survey(rows, {"valid": rows[:2]}).to_json()
    assert {name: n for name, n in found["counts"].items() if n} == {"leaks": 2}
    assert survey_pairs(rows).to_json()["counts"] | {"copies": 0} == {"empty": 0, "copies": 0, "duplicates": 1, "odd_ratios": 1, "leaks": 0}


def test_a_run_without_prefixes_takes_none() -> None:
    plain = prepared(without("prefix", ROWS))
    with pytest.raises(DataError, match="prefix 'translate' is not one of none"):
        plain.encode({"source": "red", "prefix": "translate"})


def test_a_prefix_for_all_rows_beside_a_column_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task.prefix='sum:' would be ignored: rows have a column 'prefix'"):
        prepared(prefix="sum:")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "spans", "prefix": "sum:"}, "task.prefix would be ignored with task.objective=spans"),
        ({"objective": "spans", "scores": ["rouge1"]}, "task.scores would be ignored with task.objective=spans"),
        ({"objective": "spans", "long_sources": "cut"}, "task.long_sources would be ignored with task.objective=spans"),
        ({"mask_share": 0.2}, "task.mask_share would be ignored with task.objective=pairs"),
        ({"documents": "paragraphs"}, "task.documents would be ignored with task.objective=pairs"),
        ({"prefix": "a:", "prefixes": ["b:"]}, "task.prefix would be ignored with task.prefixes"),
        ({"scores": ["chrf"], "target_language": "de"}, "task.target_language=de would be ignored"),
        ({"scores": ["chrf", "chrf"]}, "names one of chrf, chrf twice"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"task": {"name": "text_to_text", **settings}})


def test_sentinels_have_ids_behind_the_sub_words_and_are_never_written(task: TextToText) -> None:
    n = task.tokenizer.vocab_size
    assert task.shape(SHAPE).vocab_size == n + 100
    model = model_for(task)
    with torch.no_grad():
        model.head.weight[n:] *= 100
    batch = collate(task.encode_all([{"source": row["source"], "prefix": row["prefix"]} for row in ROWS[:6]]))
    for options in (DecodeConfig(beams=3, n_best=3, max_length=9), DecodeConfig(sample=True, temperature=3.0, max_length=9)):
        found = task.written(model, batch, options)
        assert all(max(one.ids, default=0) < n for hypotheses in found for one in hypotheses)


def test_another_architecture_is_refused(task: TextToText) -> None:
    with pytest.raises(ConfigError, match="text to text needs seq2seq, found causal"):
        task.shape(SHAPE.replace(architecture="causal"))


LONG = {"prefix": "summarize", "source": " ".join(WORDS * 4), "target": "red sun"}


def test_long_sources_are_left_out_or_cut() -> None:
    leaving, cutting = prepared(max_length=12), prepared(max_length=12, long_sources="cut")
    whole = leaving.encode(LONG, training=True)
    assert leaving.fitted(whole) is None
    cut = cutting.fitted(whole)
    assert cut is not None
    assert cut["source"].tolist() == [*whole["source"][:11].tolist(), Tokenizer.eos_id]
    assert torch.equal(cut["target"], whole["target"])
    assert cutting.fitted({"source": whole["target"], "target": whole["source"]}) is None  # a target is never cut
    short = cutting.encode(ROWS[1], training=True)
    assert cutting.fitted(short) is short
    assert (leaving.n_places({"source": whole["source"]}), cutting.n_places({"source": whole["source"]})) == (len(whole["source"]), 12)


def test_a_source_that_is_cut_is_answered_as_its_beginning_and_says_so() -> None:
    cutting = prepared(max_length=12, long_sources="cut")
    model, options = model_for(cutting), DecodeConfig(beams=2, max_length=7)
    short = {"prefix": "summarize", "source": "red sun"}
    whole = cutting.encode(LONG)["source"]
    cut, other = cutting.predict(model, collate(cutting.encode_all([LONG, short])), options)
    (beginning,) = cutting.predict(model, collate([{"source": torch.cat([whole[:11], whole[-1:]])}]), options)
    assert (cut.text, cut.details) == (beginning.text, {"cut": len(whole) - 12})
    assert other.details == {}
    assert f"{len(whole) - 12:,} tokens of the source were not read" in str(cutting.note(cut))
    assert "the last token of the source was not read" in str(cutting.note(Answer("red", details={"cut": 1})))
    scores = cutting.score([cut, other], [LONG, {**short, "target": "red"}]).to_json()
    assert scores["sources_cut"] == 1
    assert "1 of 2 sources was cut at data.max_length=12" in cutting.advice(scores, {})[0]
    cost = {"examples": 2, "seconds": 1.0, "examples_per_second": 2.0, "tokens_per_second": 9.0, "peak_memory_mib": 1.0}
    assert "1 of 2 sources was cut at data.max_length" in score_lines({**scores, "cost": cost})


def test_references_are_cleaned_and_counted_by_their_prefixes(task: TextToText) -> None:
    examples = [{"source": "translate red", "target": "<b>red</b>"}, {"source": "red", "prefix": "classify", "target": "warm"}]
    found = task.score([Answer("red"), Answer("cold")], examples).to_json()
    assert [(one["prefix"], one["n"]) for one in found["by_prefix"]] == [("translate", 1), ("classify", 1)]
    assert found["by_prefix"][0]["chrf"]["value"] == 100


def test_a_file_whose_rows_lack_the_prefix_is_refused_and_so_is_one_with_another(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.tsv", ROWS)
    for name, rows, message in (
        ("lacking", without("prefix", ROWS), "no column 'prefix'"),
        ("other", [{**ROWS[0], "prefix": "sing"}], r"other.tsv:2: prefix 'sing' is not one of"),
    ):
        valid = write_rows(tmp_path / f"{name}.tsv", rows)
        settings = {"task": {"name": "text_to_text", "vocab_size": 300}, "data": {"train": str(train), "valid": str(valid)}}
        with pytest.raises(DataError, match=message):
            heed.train(settings, to=tmp_path / name, quiet=True)


def test_the_recipe_of_summaries_renames_columns_cuts_documents_and_scores_by_rouge() -> None:
    config = resolve("summarization", {"data": {"train": "x.jsonl", "columns": {"target": "highlights"}}})
    assert config.data.columns == {"source": "document", "target": "highlights"}
    assert config.task["name"] == "text_to_text"
    assert (config.task["scores"], config.task["long_sources"]) == (["rouge1", "rouge2", "rougeL"], "cut")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> heed.Run:
    """Return one model that has learned three tasks, in some five seconds."""
    folder = tmp_path_factory.mktemp("three")
    settings = {
        "task": {"name": "text_to_text", "vocab_size": 300, "scores": ["accuracy", "chrf"], "n_sentinels": 2},
        "data": {
            "train": str(write_rows(folder / "train.tsv", three_tasks(1500))),
            "valid": str(write_rows(folder / "valid.tsv", ROWS)),
            "allow_leaks": True,
        },
        "model": {"d_model": 48, "n_heads": 4, "n_layers": 1, "d_ff": 192, "dropout": 0.0},
        "train": {
            "steps": 320,
            "evaluate_every": 320,
            "batch_tokens": 500,
            "optimizer": "muon",
            "lr": 1e-2,
            "warmup": 30,
            "label_smoothing": 0.0,
            **PLAIN,
        },
        "decode": {"beams": 1, "max_length": 30, "precision": "float32"},
    }
    return heed.train(settings, to=folder / "run", quiet=True)


def test_one_model_learns_three_tasks_told_apart_by_their_prefixes(run: heed.Run) -> None:
    known = {row["source"] for row in three_tasks(1500)}
    fresh = [row for row in three_tasks(1200, seed=9) if row["source"] not in known][:300]
    answers = run.predict(fresh)
    assert isinstance(answers, list)
    for prefix in ("translate", "classify", "summarize"):
        right = [answer.text == row["target"] for answer, row in zip(answers, fresh, strict=True) if row["prefix"] == prefix]
        assert len(right) > 50
        assert sum(right) / len(right) > 0.9
    source = "sea hat dog"
    by_prefix = [run.predict({"source": source, "prefix": prefix}).text for prefix in ("translate", "classify", "summarize")]
    assert by_prefix == ["dog hat sea", "cold", "sea hat"]
    assert run.predict({"source": f"summarize {source}"}).text == "sea hat"


def test_a_terminal_shows_the_scores_of_each_prefix_under_its_name(run: heed.Run) -> None:
    content = parse_json((run.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    lines = score_lines(content)
    assert [one["prefix"] for one in content["by_prefix"]] == ["translate", "classify", "summarize"]
    for one in content["by_prefix"]:
        place = lines.index(f"{one['prefix']}  ({len(ROWS) // 3} examples)")
        shown = [line.split()[:2] for line in lines[place + 1 : place + 3]]
        assert shown == [[name, f"{one[name]['value']:.4g}"] for name in ("accuracy", "chrf")]


def test_the_report_has_the_scores_of_each_prefix(run: heed.Run) -> None:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    table = page[page.index("By prefix") :]
    for words in ('<th scope="col">Prefix</th>', "Accuracy", "chrF", ">translate<", ">classify<", ">summarize<"):
        assert words in table[: table.index("</table>")]
