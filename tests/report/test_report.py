"""The report of a run folder, checked on folders written by hand."""

import json
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from report_pages import HOSTILE, Page, score

from heed.config import dump_yaml
from heed.errors import CheckpointError, ConfigError
from heed.report import write_report
from heed.report.curves import MOST_POINTS, _thinned, panels
from heed.report.examples import MOST_CHARACTERS, differences
from heed.report.facts import cost_facts
from heed.report.pictures import MOST_TOKENS, heat_map
from heed.report.sources import read_run_files
from heed.report.wording import date, duration, figure, label, round_up, shown_score, size


def entry(source: str, target: str, answer: str, quality: float, *, drawn: bool = False, **more: Any) -> dict[str, Any]:
    content = {"example": {"source": source, "target": target, **more}, "answer": {"text": answer, "score": -0.41}, "quality": quality}
    return {**content, "picture": picture(source, answer) if drawn else None}


def picture(source: str, answer: str) -> dict[str, Any]:
    """Make the alignment of a model that looks along the diagonal."""
    columns, rows = [*_tokens(source), "</s>"], [*_tokens(answer), "</s>"]
    places = [(t + 0.5) * len(columns) / len(rows) for t in range(len(rows))]
    weights = [[max(0.0, 1 - abs(s + 0.5 - place) / 2) for s in range(len(columns))] for place in places]
    return {"source": columns, "target": rows, "weights": [[w / (sum(row) or 1) for w in row] for row in weights]}


def _tokens(text: str) -> list[str]:
    return re.findall(r"[\u4e00-\u9fff]|\S+", text)


def evaluation(name: str, examples: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "data": f"data/{name}.{{en,de}}",
        "date": "2031-03-14T18:53:00+00:00",
        "bleu": score(38.71, 1.32),
        "chrf": score(63.08, 0.91),
        "ter": score(43.55, 1.4),
        "exact_match": score(0.071, 0.0134),
        "n": 1000,
        "signatures": {"bleu": "nrefs:1|case:mixed|eff:no|tok:13a"},
        "buckets": [{"length": length, "n": n, "bleu": score(value, 4.5)} for length, n, value in BUCKETS],
        "cost": {"examples": 1000, "seconds": 84.2, "tokens_per_second": 1342.5, "peak_memory_mib": 412.5, "machine": MACHINE},
        "decode": {"beams": 5, "length_penalty": 1.0, "sample": False},
        "examples": examples,
    }


MACHINE = {"processor": "A processor", "threads": 4, "python": "3.11.7", "torch": "2.13.0"}
BUCKETS = [("1-5", 41, 52.3), ("6-10", 403, 41.2), ("11-20", 520, 37.9), ("21-40", 36, 29.4)]
CONFIG = {
    "format": 2,
    "heed": "0.1.0",
    "command": "heed train translation 'data.train=data/train.{en,de}' --to runs/mine",
    "data_sha256": {"train": {"train.en": "ab" * 32}},
    "machine": MACHINE,
    "seed": 7,
    "task": {"name": "translation"},
    "data": {"train": "data/train.{en,de}"},
    "model": {"architecture": "seq2seq", "d_model": 256, "n_heads": 4, "n_layers": 3, "d_ff": 1024},
}
SURVEY = {
    "rows": 29000,
    "clean": 28958,
    "counts": {"empty": 0, "copies": 2, "duplicates": 31, "leaks": 9},
    "examples": {"empty": [], "copies": [{"row": 17, "source": "Taxi", "target": "Taxi"}, {"row": 90, "source": "ok", "target": "OK"}]},
    "lengths": {
        "source_words": {"min": 4, "p5": 7, "median": 11, "p95": 19, "max": 41},
        "target_words": {"min": 2, "p5": 6, "median": 10, "p95": 18, "max": 40},
    },
    "typical_ratio": 1.1778,
    "leaks": {"valid": 9},
    "source_overlap": {"valid": 14},
}
DATA = {
    "train": SURVEY,
    "filtered": 42,
    "reading": {
        "source": "data/train.{en,de}",
        "format": "parallel",
        "encoding": "utf-8",
        "rows": 29000,
        "bad": 1,
        "bad_examples": ["row 12"],
    },
    "too_long": 3,
    "too_long_valid": 0,
    "max_length": 256,
    "examples": {"train": 28955, "valid": 1014},
    "tokens": {"source": 402311, "target": 420113},
    "longest": {"source": 61, "target": 66},
    "batches": 131,
    "padding": 0.0812,
}
EXAMPLES = {
    "best": [
        entry("A dog runs on the beach.", "Ein Hund läuft am Strand.", "Ein Hund läuft am Strand.", 100, drawn=True),
        entry("Two children play.", "Zwei Kinder spielen.", "Zwei Kinder spielen.", 100.0),
    ],
    "median": [
        entry("A man in a red hat looks on.", "Ein Mann mit rotem Hut schaut zu.", "Ein Mann in rotem Hut sieht zu.", 58.31, drawn=True)
    ],
    "worst": [entry("See you tomorrow!", "明天见！", "我明天去。", 4.2, drawn=True, kind="greeting")],
}


def curves(n_steps: int) -> list[dict[str, Any]]:
    """Make the log of a training that goes well."""
    draw = random.Random(0)
    lines: list[dict[str, Any]] = []
    for step in range(20, n_steps + 1, 20):
        loss = 1.6 + 5 * 0.5 ** (step / 600)
        rate = 2e-3 * min(step / 400, 1)
        noise = draw.gauss(0, 0.05)
        line = {"loss": loss + noise, "accuracy": 0.7 - loss / 12 + noise / 9, "grad_norm": 0.5 + abs(noise), "lr": rate}
        lines.append({"step": step, "epoch": step / 131, **line, "tokens_per_second": 21000 + 9000 * noise, "seconds": step / 2})
        if step % 200 == 0:
            lines.append(
                {"step": step, "valid": {"loss": loss + 0.1, "accuracy": 0.68 - loss / 12, "perplexity": 9.0}, "seconds": step / 2}
            )
            lines[-1]["best"] = step <= n_steps - 400
    return lines


def make_run(folder: Path, changes: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Write a run folder without weights."""
    content: dict[str, Any] = {
        "config.yaml": dump_yaml(CONFIG),
        "data_report.json": json.dumps(DATA),
        "manifest.json": json.dumps({"format": 2, "sha256": {"config.yaml": "cd" * 32}}),
        "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in curves(2000)),
        "evaluations/test.json": json.dumps(evaluation("test", EXAMPLES)),
        "evaluations/valid.json": json.dumps(evaluation("valid", EXAMPLES)),
    }
    for name, text in {**content, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("run"))
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def report_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_sections_stand_in_order(page: Page) -> None:
    assert page.headings == ["curves", "scores", "examples", "alignments", "data", "settings"]


def test_page_needs_no_network_and_no_script(written: Path, page: Page) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|//|@import|url\((?!#)", text.replace("</", ""))
    references = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")]
    assert all(str(value).startswith("#") for value in references)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_every_reference_inside_the_page_has_one_target(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {str(value)[1:] for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "xlink:href")}
    assert links <= set(ids)


def test_head_shows_the_test_scores_with_their_intervals(page: Page) -> None:
    head = page.text.partition("Curves")[0]
    for words in ("Translation", "38.7", "95 % interval 37.39 – 40.03", "7.1", "Test: 1,000 examples of data/test.{en,de}", "d_model 256"):
        assert words in head
    for words in ("14 March 2031, 18:53 UTC", "16 min 40 s", "2,000, best at 1,600", "A processor, 4 threads"):
        assert words in head


def test_scores_show_signatures_buckets_cost_and_options(page: Page) -> None:
    for words in (
        "38.71",
        "nrefs:1|case:mixed|eff:no|tok:13a",
        "BLEU by source length",
        "n = 403",
        "beams=5",
        "sample=false",
        "1 min 24 s",
        "432.5 MB",
    ):
        assert words in page.text
    assert "less is better" in page.text


def test_data_report_tells_faults_rows_and_what_was_left_out(page: Page) -> None:
    for words in ("Copies", "Taxi", "0.11%", "Dropped for a fault (data.filter=true): 42 rows.", "8.1%", "row 12"):
        assert words in page.text
    assert "Left out for having more than 256 tokens (data.max_length): 3 training examples." in page.text
    assert "(data.bad_rows=skip): 1 row." in page.text


def test_settings_show_command_config_and_hashes(page: Page) -> None:
    for words in ("heed train translation 'data.train=data/train.{en,de}' --to runs/mine", "n_heads: 4", "ab" * 32, "cd" * 32):
        assert words in page.text


def test_remarks_follow_the_answer_and_inputs_come_first(page: Page) -> None:
    labels = re.findall(r"source|reference|answer|kind", page.text[page.text.index("Worst") :].partition("Alignments")[0])
    assert labels[:4] == ["source", "reference", "answer", "kind"]


def test_same_files_give_the_same_page(written: Path, tmp_path: Path) -> None:
    text = (written / "report.html").read_bytes()
    shutil.copytree(written, tmp_path / "copy")
    assert write_report(tmp_path / "copy").read_bytes() == text


@pytest.mark.parametrize(
    ("missing", "section"),
    [("metrics.jsonl", "curves"), ("data_report.json", "data"), ("evaluations", "scores"), ("manifest.json", None)],
)
def test_a_missing_file_leaves_its_section_out(tmp_path: Path, missing: str, section: str | None) -> None:
    folder = make_run(tmp_path)
    shutil.rmtree(folder / missing) if (folder / missing).is_dir() else (folder / missing).unlink()
    expected = ["curves", "scores", "examples", "alignments", "data", "settings"]
    gone = {"scores", "examples", "alignments"} if section == "scores" else {section}
    assert Page(report_of(folder)).headings == [name for name in expected if name not in gone]


def test_config_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("format: 2\n", encoding="utf-8")
    assert Page(report_of(tmp_path)).headings == ["settings"]


def test_text_from_data_stays_text(tmp_path: Path) -> None:
    one = entry(HOSTILE, HOSTILE + " a", HOSTILE + " b", 3.0, drawn=True, **{HOSTILE: HOSTILE})
    hostile = evaluation(HOSTILE, {"best": [one], HOSTILE: [one]})
    hostile |= {"data": HOSTILE, "date": HOSTILE, HOSTILE: score(0.5, 0.1), "signatures": {HOSTILE: HOSTILE}, "decode": {HOSTILE: HOSTILE}}
    hostile["buckets"] = [{HOSTILE: HOSTILE, "bleu": score(3, 1)}]
    survey = {"rows": 2, "counts": {HOSTILE: 1}, "examples": {HOSTILE: [{HOSTILE: HOSTILE}]}, "leaks": {HOSTILE: 1}, HOSTILE: HOSTILE}
    metrics = {"step": 1, "valid": {HOSTILE: 0.5, "loss": 1.0}}
    folder = make_run(
        tmp_path,
        {
            "data_report.json": json.dumps({"train": survey, "held_out": HOSTILE}),
            "evaluations/test.json": json.dumps(hostile),
            "manifest.json": json.dumps({"sha256": {HOSTILE: HOSTILE}}),
            "metrics.jsonl": json.dumps(metrics) + "\n",
        },
    )
    text = report_of(folder)
    page = Page(text)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search("[\x00\x1b\ud800]", text)
    assert "{{ 7 * 7 }}" in page.text


@given(st.text(max_size=40), st.text(max_size=40))
def test_differences_keep_both_texts_whole(reference: str, answer: str) -> None:
    left, right = differences(reference, answer)
    assert Markup(re.sub("</?(ins|del)>", "", left)).unescape() == reference
    assert Markup(re.sub("</?(ins|del)>", "", right)).unescape() == answer


def test_differences_mark_words_and_in_chinese_characters() -> None:
    assert differences("ein roter Hut", "ein blauer Hut") == ("ein <del>roter</del> Hut", "ein <ins>blauer</ins> Hut")
    assert differences("明天见", "明日见") == ("明<del>天</del>见", "明<ins>日</ins>见")
    assert differences("a  b", "a b") == ("a  b", "a b")
    assert differences("", "so viel") == ("", "<ins>so viel</ins>")


def test_long_texts_are_cut_and_say_so() -> None:
    left, right = differences("a " * MOST_CHARACTERS, "b")
    assert left.endswith(f"({MOST_CHARACTERS:,} more characters)")
    assert right == "b"


def test_heat_map_has_a_row_per_target_and_a_column_per_source_token() -> None:
    drawn = Page(str(heat_map({"source": ["▁a", "<b>", "</s>"], "target": ["甲", "</s>"], "weights": [[0.25, 0.75, 0], [0, 0.0625, 1.0]]})))
    assert [tag for tag, _ in drawn.tags].count("tr") == 3
    styles = [attributes.get("style") for tag, attributes in drawn.tags if tag == "td"][1:]
    assert styles == ["--a:0.50", "--a:0.87", None, None, "--a:0.25", "--a:1.00"]
    assert "甲 ← <b>: 0.75" in [attributes.get("title") for _, attributes in drawn.tags]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"source": ["a"], "target": ["b"], "weights": [[0.1, 0.9]]},
        {"source": [], "target": [], "weights": []},
        {"waveform": [1.0]},
    ],
)
def test_what_is_no_alignment_is_not_drawn(content: object) -> None:
    assert heat_map(content) is None


def test_a_wide_alignment_says_what_it_leaves_out() -> None:
    n = MOST_TOKENS + 6
    drawn = heat_map({"source": ["s"] * n, "target": ["t"] * 2, "weights": [[float("nan")] * n] * 2})
    assert drawn is not None
    assert f"The first {MOST_TOKENS} of {n} source tokens are shown." in drawn
    assert drawn.count("<td></td>") == 1 + 2 * MOST_TOKENS


def test_torn_and_unknown_lines_of_the_log_are_passed_over(tmp_path: Path) -> None:
    odd = [
        "[1, 2]",
        '"text"',
        "null",
        "{}",
        '{"step": "x", "loss": 1}',
        '{"step": 3, "loss": NaN}',
        '{"step": 4, "valid": 5}',
        '{"step": 5, "average": {}}',
    ]
    more = [
        '{"step": 6, "loss": 1e308, "grad_norm": Infinity, "accuracy": true}',
        '{"step": 7, "valid": {"loss": null}}',
        '{"step": 8, "lo',
    ]
    folder = make_run(tmp_path, {"metrics.jsonl": "\n".join([*odd, "", *more])})
    assert "curves" not in Page(report_of(folder)).headings
    (folder / "metrics.jsonl").write_text("\n".join([*odd, '{"step": 2, "loss": 3.25}', *more]), encoding="utf-8")
    assert "Loss 3.25" in Page(report_of(folder)).text


def test_many_points_are_averaged_in_order() -> None:
    points = [(step, 2.0 * step) for step in range(10 * MOST_POINTS + 3)]
    line = _thinned("train", points)
    assert len(line.steps) <= MOST_POINTS
    assert line.steps == sorted(line.steps)
    assert line.values == [2 * step for step in line.steps]


@pytest.mark.parametrize(
    ("task", "title"),
    [
        ("speech_recognition", "Labels per second"),
        ("translation", "Tokens per second"),
        ("my.package:Mine", "Tokens per second"),
        (["odd"], "Tokens per second"),
    ],
)
def test_the_curve_of_the_speed_names_what_its_task_counts(tmp_path: Path, task: Any, title: str) -> None:
    make_run(tmp_path, {"config.yaml": dump_yaml({**CONFIG, "task": {"name": task}})})
    assert [panel.title for panel in panels(read_run_files(tmp_path)) if "second" in panel.title] == [title]


def test_the_speed_of_answers_names_what_was_counted() -> None:
    cost = {"tokens_per_second": 12.5, "token_name": "labels"}
    assert cost_facts({"cost": cost}) == [("Labels per second", figure(12.5))]
    assert cost_facts({"cost": {"tokens_per_second": 12.5}}) == [("Tokens per second", figure(12.5))]


def test_scores_of_any_task_are_shown(tmp_path: Path) -> None:
    content = {"name": "test", "accuracy": score(0.9, 0.01), "perplexity": score(12.5, 0.5), "wer": {"value": 1.2, "low": 1.1, "high": 1.3}}
    content |= {"examples": {"worst": [{"example": {"text": "so good", "label": "neg"}, "answer": {"text": "pos"}, "quality": 0.0}]}}
    config = dump_yaml({"format": 2, "task": {"name": "elsewhere.tasks:Mood"}})
    page = Page(report_of(make_run(tmp_path, {"evaluations/test.json": json.dumps(content), "config.yaml": config})))
    for words in ("Accuracy", "90.0", "Perplexity", "12.5", "WER", "120.0", "so good", "neg", "pos"):
        assert words in page.text


def test_an_evaluation_keeps_the_name_of_its_file_and_says_what_was_held_out(tmp_path: Path) -> None:
    content = {"name": "test-rows.tsv", "data": "held out of data/rows.tsv", "n": 1, "accuracy": score(0.5)}
    folder = make_run(tmp_path, {"evaluations/test-rows.tsv.json": json.dumps(content)})
    for name in ("test", "valid"):
        (folder / "evaluations" / f"{name}.json").unlink()
    text = Page(report_of(folder)).text
    assert "test-rows.tsv: 1 example held out of data/rows.tsv" in text
    assert "Test-rows" not in text


INIT = {"source": "runs/bert", "sha256": "ef" * 32, "tensors": [30, 33], "numbers": [1200, 1234], "new": ["head.scores.weight"], "left": []}


def test_the_run_that_a_model_started_from_stands_in_the_head(tmp_path: Path) -> None:
    data = {**DATA, "init": INIT}
    head = Page(report_of(make_run(tmp_path, {"data_report.json": json.dumps(data)}))).text.partition("Curves")[0]
    told = "Not from scratch: took 30 of 33 tensors (1,200 of 1,234 numbers) from runs/bert; new: head; left: none"
    assert told in head
    for odd in ({"source": "runs/bert"}, {**INIT, "tensors": 3}, {**INIT, "numbers": ["a", "b"]}, {**INIT, "new": [3]}):
        (tmp_path / "data_report.json").write_text(json.dumps({**DATA, "init": odd}), encoding="utf-8")
        assert "Not from scratch: started from runs/bert" in Page(report_of(tmp_path)).text


def test_what_scores_were_counted_over_stands_beside_them(tmp_path: Path) -> None:
    content = {"name": "test", "exact_match": score(0.4), "has_answer_f1": score(0.3), "n": 25, "without_answer": 7, "rules": "SQuAD 2.0"}
    content |= {"decode": {"beams": 5, "precision": "auto"}, "examples": {}}
    config = dump_yaml({"format": 2, "task": {"name": "question_answering"}})
    make_run(tmp_path, {"evaluations/test.json": json.dumps(content), "config.yaml": config})
    (tmp_path / "evaluations" / "valid.json").unlink()
    text = Page(report_of(tmp_path)).text
    for words in ("F1, answerable", "Questions without an answer 7", "Rules SQuAD 2.0", "the larger, the better"):
        assert words in text
    assert "beams=" not in text  # nothing is searched for: the option would be no more than noise
    assert "What differs is marked" not in text


def test_correlations_are_no_shares() -> None:
    shown = shown_score("spearman", {"value": 0.8123, "low": 0.79, "high": 0.83})
    assert (shown.label, shown.value, shown.unit, shown.end) == ("Spearman correlation", "0.8123", "", "1")


def test_names_are_spelled_as_people_do() -> None:
    names = ("masked_lm", "f1_macro", "rougeL", "mean_reciprocal_rank", "no_answer_exact_match", "bits_per_byte")
    told = ["Masked LM", "F1 macro", "ROUGE-L", "Mean reciprocal rank", "Exact match, unanswerable", "Bits per byte"]
    assert [label(name) for name in names] == told


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"a": "'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    folder = make_run(tmp_path, {"evaluations/test.json": content})
    with pytest.raises(CheckpointError, match=r"test\.json"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_odd_shapes_in_evaluations_and_data_are_left_out(tmp_path: Path) -> None:
    odd: dict[str, Any] = {"bleu": {"value": 1}, "n": "many", "buckets": [1, {"length": 3}], "cost": [], "decode": None, "signatures": 3}
    odd |= {"examples": {"best": [1, {"example": {}}, {"example": {}, "answer": {}}], "worst": None}}
    data = {
        "train": {"rows": 0, "counts": {"a": None, "b": 0}, "examples": {"b": [3]}, "lengths": {"x": {"p5": 1}}, "leaks": 3},
        "reading": 1,
    }
    folder = make_run(tmp_path, {"evaluations/test.json": json.dumps(odd), "data_report.json": json.dumps(data)})
    assert Page(report_of(folder)).headings == ["curves", "scores", "examples", "alignments", "data", "settings"]


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        write_report(tmp_path / "nothing")
    (tmp_path / "config.yaml").write_text("- a list", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        write_report(tmp_path)


def test_bars_lie_within_their_track() -> None:
    shown = shown_score("ter", {"value": 368.3, "low": 359.3, "high": 378.0})
    assert shown.end == "400"
    assert 0 <= shown.left <= shown.dot <= shown.left + shown.width <= 100
    zero = shown_score("bleu", {"value": 0.0, "low": 0.0, "high": 0.0}, round_up(0))
    assert (zero.left, zero.width, zero.dot) == (0, 0, 0)


def test_numbers_are_worded_for_people() -> None:
    assert [round_up(value) for value in (0.0, 0.11, 1.0, 38.7, 70, 95)] == pytest.approx([1, 0.2, 1, 40, 80, 100])
    assert [duration(seconds) for seconds in (0.0, 0.013, 0.25, 59.94, 84.2, 3725, 200_000)] == [
        "0.0 s",
        "13 ms",
        "0.2 s",
        "59.9 s",
        "1 min 24 s",
        "1 h 2 min",
        "2 days 7 h",
    ]
    assert [size(n) for n in (12, 1500, 3_400_000, 5e9)] == ["12 bytes", "1.5 kB", "3.4 MB", "5.0 GB"]
    assert date("2031-03-14T18:53:00+00:00") == "14 March 2031, 18:53 UTC"
    assert date("2031-03-14") == "14 March 2031"
    assert date("soon") == "soon"
