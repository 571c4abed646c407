"""What the report shows of a classifier: classes, confusions, probabilities, weighted words and labelled data."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import HOSTILE, ODD, Page, flat, places, score, with_odd

from heed.config import dump_yaml
from heed.data.quality import survey_pairs
from heed.report.bars import MOST_CLASSES, MOST_PROBABILITIES
from heed.report.classes import MOST_CELLS, MOST_PAIRS, MOST_ROWS
from heed.report.page import render
from heed.report.pictures import AROUND, MOST_WORDS, weighted_words
from heed.report.probabilities import MOST_LINES
from heed.report.sources import RunFiles

COUNTS = [[117, 12, 9], [3, 86, 5], [0, 1, 60]]  # rows are the true classes
LABELS = ["DESC", "ENTY", "NUM"]
SCORES = {"precision": 0.91, "recall": 0.8478, "f1": 0.8777}
BINS = [(0.4, 0.6, 30, 0.52, 0.5), (0.6, 0.8, 120, 0.71, 0.65), (0.8, 1.0, 480, 0.95, 0.97)]
BINS_BEFORE = [(0.6, 0.8, 210, 0.75, 0.6), (0.8, 1.0, 420, 0.99, 0.9)]


def bins(rows: list[tuple[float, ...]], temperature: float) -> dict[str, Any]:
    names = ("low", "high", "n", "confidence", "accuracy")
    return {"temperature": temperature, "bins": [dict(zip(names, row, strict=True)) for row in rows]}


def example(text: str, label: str, answer: str, quality: float, **details: Any) -> dict[str, Any]:
    return {"example": {"text": text, "label": label}, "answer": {"text": answer, **details}, "quality": quality, "picture": None}


WORDS = {"words": ["Who", "wrote", "this", "?"], "weights": [0.8, -0.2, 0.0, 0.02], "label": "HUM"}
PROBABILITIES = {"A": 0.01, "B": 0.62, "C": 0.2, "D": 0.02, "E": 0.1, "F": 0.03, "G": 0.02}
EXAMPLES = {
    "best": [{**example("Who wrote this?", "HUM", "HUM", 99.2, probabilities=PROBABILITIES, windows=3), "picture": WORDS}],
    "median": [example("What is it?", "DESC", "ENTY", 40.1, labels=["ENTY", "NUM"], cut=120)],
    "worst": [example("How far?", "NUM", "", 0.3, abstained=True, likeliest="DESC", windows=1, cut=0)],
}
EVALUATION: dict[str, Any] = {
    "name": "test",
    "accuracy": score(0.8976, 0.02),
    "coverage": score(0.83),
    "accuracy_when_answered": score(0.954),
    "calibration_error": score(0.0213, 0.002),
    "n": 293,
    "zero_division": 0.0,
    "per_class": {
        label: {**{name: score(value - i / 50, 0.03) for name, value in SCORES.items()}, "support": sum(COUNTS[i])}
        for i, label in reversed(list(enumerate(LABELS)))
    },
    "confusion": {"labels": LABELS, "counts": COUNTS},
    "confusion_per_label": {"sport": [[50, 4], [3, 21]], "film": [[8, 7], [6, 57]]},
    "calibration": bins(BINS, 1.34),
    "calibration_before": bins(BINS_BEFORE, 1.0),
    "curves": {
        "roc": {label: [[0, 0], [0.1 * i, 0.5], [1, 1]] for i, label in enumerate(LABELS)},
        "precision_recall": {label: [[0, 1], [0.7, 0.8], [1, 0.2]] for label in LABELS},
    },
    "buckets": [{"length": "1-5", "n": 41, "accuracy": score(0.91, 0.05)}, {"length": "6-10", "n": 252, "accuracy": score(0.89, 0.02)}],
    "abstain": {"threshold": 0.81, "wanted_precision": 0.95},
    "advice": ["Try task.class_weights=balanced.", "Read some of the confused ones."],
    "group_names": {"best": "Most confidently right", "median": "In the middle", "worst": "Most confidently wrong"},
    "examples": EXAMPLES,
}
SURVEY: dict[str, Any] = {
    "rows": 5452,
    "clean": 5300,
    "counts": {"empty": 0, "duplicates": 71, "contradictions": 4, "leaks": 10},
    "examples": {"contradictions": [{"row": 17, "text": "What is it ?", "label": "DESC"}]},
    "classes": {"ENTY": 1250, "DESC": 1162, "ABBR": 86},
    "lengths": {"text_words": {"min": 2, "p5": 4, "median": 10, "p95": 17, "max": 37}},
    "leaks": {"test": 10},
    "language": "en",
}
DATA = {
    "train": SURVEY,
    "classes_valid": {"ENTY": 112, "HUM": 3},
    "vocabulary": {"size": 8192, "unknown_share": 0.0, "unknown_share_valid": 0.0312},
    "coverage": {"found": 0.913, "dimension": 50, "file": "glove.txt"},
    "long": {"limit": 256, "train": 120, "valid": 1, "what": "read in windows"},
}
CONFIG = {"format": 2, "task": {"name": "text_classification"}}


def page_of(evaluation: Any = EVALUATION, data: Any = DATA) -> Page:
    """Render the report of a run that holds an evaluation and a data report."""
    evaluations = [evaluation] if isinstance(evaluation, dict) else []
    return Page(render(RunFiles(CONFIG, dump_yaml(CONFIG), {}, data, [], [], evaluations, 0)))


def changed(**keys: Any) -> Page:
    return page_of({**EVALUATION, **keys})


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of()


def test_every_class_is_shown_with_its_scores_and_the_most_frequent_first(page: Page) -> None:
    head, *rows = page.table("classes")
    assert head == ["Class", "Precision", "Recall", "F1", "Examples"]
    assert [row[0] for row in rows] == sorted(LABELS, key=lambda label: -sum(COUNTS[LABELS.index(label)]))
    for name, *cells, support in rows:
        wanted = EVALUATION["per_class"][name]
        assert support == str(wanted["support"])
        for cell, key in zip(cells, SCORES, strict=True):
            value, low, high = (f"{100 * wanted[key][end]:.2f}" for end in ("value", "low", "high"))
            assert cell == f"{value} % {low} – {high}"


def test_many_classes_are_counted_rather_than_shown() -> None:
    n = MOST_ROWS + 7
    page = changed(per_class={f"c{i}": {"f1": score(0.5), "support": i} for i in range(n)})
    assert [row[0] for row in page.table("classes")[1:]] == [f"c{i}" for i in range(n - 1, 6, -1)]
    assert "7 more classes, with fewer examples, not shown." in page.text


def test_a_confusion_matrix_shows_its_counts_coloured_by_the_share_of_the_row(page: Page) -> None:
    head, *rows = page.table("confusion")
    assert head == ["", *LABELS, "all"]
    assert rows == [[label, *map(str, counts), str(sum(counts))] for label, counts in zip(LABELS, COUNTS, strict=True)]
    strengths = [attributes["style"] for attributes in page.all("td") if str(attributes.get("style", "")).startswith("--a:")]
    assert strengths == [f"--a:{(count / sum(counts)) ** 0.5:.2f}" for counts in COUNTS for count in counts]
    assert len(page.all("td", "right")) == len(LABELS)


def test_the_largest_confusions_are_named(page: Page) -> None:
    said = re.findall(r"(\d+) of (\d+) (\w+) (?:was|were) taken for (\w+)\.", page.text)
    found = [(n, sum(row), LABELS[i], LABELS[j]) for i, row in enumerate(COUNTS) for j, n in enumerate(row) if i != j and n]
    assert said == [(str(n), str(total), true, taken) for n, total, true, taken in sorted(found, key=lambda pair: -pair[0])]
    assert "12 of 138 DESC were taken for ENTY." in page.text
    assert "1 of 61 NUM was taken for ENTY." in page.text
    assert "No class was taken for another." in changed(confusion={"labels": ["a"], "counts": [[3]]}).text


def test_many_classes_have_their_most_confused_pairs_instead_of_a_matrix() -> None:
    n = MOST_CELLS + 1
    counts = [[(7 * i + 3 * j) % 11 + 1 for j in range(n)] for i in range(n)]
    page = changed(confusion={"labels": [f"c{i}" for i in range(n)], "counts": counts}, per_class=None, confusion_per_label=None)
    assert not page.all("table", "confusion")
    head, *rows = page.table("plain")
    assert head[:3] == ["True class", "Taken for", "How often"]
    largest = sorted((counts[i][j] for i in range(n) for j in range(n) if i != j), reverse=True)
    assert [int(row[2]) for row in rows] == largest[:MOST_PAIRS]
    for true, taken, count, total, _ in rows:
        i, j = int(true[1:]), int(taken[1:])
        assert (int(count), int(total)) == (counts[i][j], sum(counts[i]))
    assert f"{n * (n - 1) - MOST_PAIRS} more pairs" in page.text


def test_labels_have_their_confusions_the_most_frequent_first(page: Page) -> None:
    _, *rows = next(rows for _, rows in page.tables if rows[0][0] == "Label")
    assert rows == [["film", "57", "6", "7", "8"], ["sport", "21", "3", "4", "50"]]


def test_the_area_of_a_dot_of_the_reliability_diagram_follows_its_answers() -> None:
    page = changed(curves=None)
    after, before = page.all("circle", "accent"), page.all("circle", "grey")
    assert (len(after), len(before)) == (len(BINS), len(BINS_BEFORE))
    areas = [float(str(dot["r"])) ** 2 for dot in (*after, *before)]
    answers = [row[2] for row in (*BINS, *BINS_BEFORE)]
    assert [area / areas[2] for area in areas] == pytest.approx([n / answers[2] for n in answers], abs=0.005)
    across = [float(str(dot["cx"])) for dot in after]
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx((0.71 - 0.52) / (0.95 - 0.52), abs=0.005)
    up = [float(str(dot["cy"])) for dot in after]
    assert up[0] > up[1] > up[2]  # places count from above


def test_calibration_errors_are_told_in_words(page: Page) -> None:
    errors = [sum(n * abs(p - right) for _, _, n, p, right in rows) / sum(row[2] for row in rows) for rows in (BINS, BINS_BEFORE)]
    after, before = (f"{100 * error:.2f} points" for error in errors)
    assert f"lie {after} apart on average with the temperature 1.34, {before} without it." in page.text
    assert before not in changed(calibration_before=None).text


def test_curves_have_a_line_and_a_name_for_every_label_up_to_a_limit(page: Page) -> None:
    assert len(page.all("path", "line")) == 2 * len(LABELS) + 2  # and the diagonals of the ROC curve and of the reliability diagram
    n = MOST_LINES + 2
    many = changed(curves={"roc": {f"label{i}": [[0, 0], [1, 1]] for i in range(n)}}, calibration=None)
    drawn = [str(attributes["class"]) for attributes in many.all("path", "line") if attributes["class"] != "line guide"]
    assert len(drawn) == len(set(drawn)) == MOST_LINES
    assert f"label{MOST_LINES - 1}" in many.text
    assert f"label{MOST_LINES} " not in many.text
    assert f"The first {MOST_LINES} of {n} labels are drawn." in many.text


def test_what_would_be_withheld_is_one_sentence(page: Page) -> None:
    told = "Answers with a probability below 0.81 would be withheld: 83 % are answered, 95.4 % of them right (asked for: 95 %)."
    assert told in page.text
    assert "would be withheld (asked for: 95 %)." in changed(coverage=None).text
    assert "would be withheld" not in changed(abstain={"threshold": None}).text


def test_advice_stands_above_the_scores(page: Page) -> None:
    wanted = ["What to try next", *EVALUATION["advice"], "Accuracy by length"]
    at = [page.text.index(words) for words in wanted]
    assert at == sorted(at)


def test_groups_have_the_names_of_the_task_or_the_usual_ones(page: Page) -> None:
    assert all(name in page.text for name in EVALUATION["group_names"].values())
    usual = changed(group_names=None).text
    assert all(re.search(rf"\b{name}\b", usual) for name in ("Best", "Median", "Worst"))


def test_the_largest_probabilities_of_an_answer_are_bars(page: Page) -> None:
    best = sorted(PROBABILITIES.items(), key=lambda item: -item[1])[:MOST_PROBABILITIES]
    card = page.text.partition("Most confidently right")[2].partition("In the middle")[0]
    at = [card.index(f"{name} {100 * p:.3g} %") for name, p in best]
    assert at == sorted(at)
    widths = [attributes["style"] for attributes in page.all("u")][2:]  # after the two buckets
    assert widths[:MOST_PROBABILITIES] == [f"width:{100 * p:.1f}%" for _, p in best]
    assert "2 more classes, less probable." in card


def test_examples_say_how_their_answer_came_about(page: Page) -> None:
    for words in ("Read in 3 windows.", "Labels: ENTY, NUM", "Cut off at the end: 120 tokens.", "Withheld; the likeliest answer was DESC."):
        assert words in page.text
    assert page.text.count("windows.") == 2  # the other stands in the data report
    assert page.text.count("Cut off") == 1


def test_words_are_marked_by_their_share_of_the_heaviest() -> None:
    drawn = Page(str(weighted_words(WORDS)))
    assert drawn.text == "Answer: HUM Who wrote this ?"
    (spoke_for,), (spoke_against,) = drawn.all("span", "for"), drawn.all("span", "against")
    assert (spoke_for["style"], spoke_for["title"]) == ("--a:1.00", "+0.8")
    assert (spoke_against["style"], spoke_against["title"]) == ("--a:0.25", "-0.2")
    faint = [attributes for attributes in drawn.all("span") if "class" not in attributes]
    assert [attributes["title"] for attributes in faint] == ["+0.02"]


def test_words_of_scripts_without_spaces_are_joined() -> None:
    drawn = Page(str(weighted_words({"words": ["明天", "见", "Tom", "!"], "weights": [0.0] * 4, "label": "x"})))
    assert "".join(drawn.words).endswith("明天见Tom !")


def test_of_a_long_text_the_words_around_the_heaviest_are_shown() -> None:
    n = 10 * MOST_WORDS
    weights = [((37 * i) % n) / n * (-1) ** i for i in range(n)]
    heaviest = max(range(n), key=lambda i: abs(weights[i]))
    html = str(weighted_words({"words": [f"w{i}" for i in range(n)], "weights": weights, "label": "x"}))
    text = Page(html).text
    shown = [int(number) for number in re.findall(r"\bw(\d+)\b", text)]
    assert shown == sorted(shown)
    assert len(shown) <= MOST_WORDS
    assert set(range(heaviest - AROUND, min(n, heaviest + AROUND + 1))) <= set(shown)
    assert f"{len(shown):,} of {n:,} words are shown" in text
    gaps = [int(number.replace(",", "")) for number in re.findall(r'title="([\d,]+) words are not shown"', html)]
    assert len(shown) + sum(gaps) == n


@pytest.mark.parametrize("content", [None, {}, ["a"], {"words": ["a"]}, {"words": ["a"], "weights": [1, 2]}, {"words": [], "weights": []}])
def test_what_is_no_weighted_text_is_not_drawn(content: object) -> None:
    assert weighted_words(content) is None


def test_the_balance_of_classes_is_drawn_and_worded(page: Page) -> None:
    chart = page.text[page.text.index("Classes ENTY") :]
    for words in ("ENTY 1,250", "DESC 1,162", "ABBR 86", "valid 112", "valid 0", "Only in the valid data: HUM."):
        assert words in chart
    assert f"The most frequent class has {1250 / 86:.3g} times the rows of the rarest." in chart
    widths = [attributes["style"] for attributes in page.all("u")][-3:]
    assert widths == [f"width:{round(100 * n / 1250, 2)}%" for n in (1250, 1162, 86)]
    many = page_of(data={"train": {"classes": {f"c{i}": 5 for i in range(MOST_CLASSES + 2)}}})
    assert "Not drawn: 2 more classes with 10 rows together." in many.text


def test_data_of_texts_is_worded_as_texts_and_of_pairs_as_pairs(page: Page) -> None:
    for words in ("the same text stands with another label", "the text is empty", "the same text stands in the validation or test data"):
        assert words in page.text
    assert "pair" not in page.text[page.text.index("Faults found") :]
    pairs = page_of(data={"train": {"counts": {"duplicates": 1, "leaks": 0}, "examples": {"duplicates": [{"source": "a", "target": "b"}]}}})
    assert "the same pair stands further up" in pairs.text
    assert "the same pair stands in the validation or test data" in pairs.text
    lengths = {"text_words": {"p5": 1, "median": 2, "p95": 3}}
    alone = page_of(data={"train": {"counts": {"duplicates": 1, "leaks": 0}, "lengths": lengths}}).text
    assert "the same text stands further up" in alone
    assert "the same text stands in the validation or test data" in alone


def test_data_of_pairs_in_columns_of_other_names_is_told_by_them() -> None:
    rows = [{"text": "a b", "text_pair": "c"}, {"text": "a b", "text_pair": "c"}]
    survey = survey_pairs(rows, source="text", target="text_pair", other_splits={"valid": rows}).to_json()
    shown = page_of(data={"train": survey}).text
    for words in ("the same pair stands further up", "Training rows whose text stands in it", "Text words", "Text pair words"):
        assert words in shown
    assert "ource" not in shown
    assert "arget" not in shown


def test_lengths_and_vocabulary_are_told_in_words(page: Page) -> None:
    assert "Longer than 256 tokens (data.max_length): 120 training texts and 1 validation text, read in windows." in page.text
    for words in ("Vocabulary 8,192", "Unknown in training 0 %", "Unknown in validation 3.12 %", "Word vectors: Found 91.3 %"):
        assert words in page.text
    none = {"train": {}, "long": {"limit": 99, "train": 0, "valid": 0, "what": "cut"}}
    assert "No text is longer than 99 tokens" in page_of(data=none).text
    cut = {"too_long": 3, "max_length": 64, "long_examples": "cut"}
    assert "Longer than 64 tokens (data.max_length): 3 training examples, cut." in page_of(data=cut).text


NEW_SHAPES = {
    "advice": "What to try next",
    "abstain": "would be withheld",
    "per_class": "By class",
    "confusion": "Confusions",
    "confusion_per_label": "By label",
    "calibration": "Do the probabilities hold?",
    "curves": "ROC curve",
}


@pytest.mark.parametrize(("key", "heading"), NEW_SHAPES.items())
def test_a_shape_that_is_absent_has_no_heading(page: Page, key: str, heading: str) -> None:
    assert heading in page.text
    assert heading not in page_of({name: value for name, value in EVALUATION.items() if name != key}).text


def test_sections_for_words_and_alignments_need_such_pictures(page: Page) -> None:
    assert page.headings == ["scores", "examples", "words", "data", "settings"]
    plain = {sort: [{**entry, "picture": None} for entry in entries] for sort, entries in EXAMPLES.items()}
    assert changed(examples=plain).headings == ["scores", "examples", "data", "settings"]


@given(st.data())
def test_damaged_evaluations_and_data_reports_are_drawn_as_far_as_they_go(data: st.DataObject) -> None:
    for content, draw in ((EVALUATION, page_of), (DATA, lambda odd: page_of(data=odd))):
        paths = [path for path in places(content) if path != ("name",)]
        path, odd = data.draw(st.sampled_from(paths)), data.draw(st.sampled_from(ODD))
        assert draw(with_odd(content, path, odd)).is_harmless()


def test_text_of_every_shape_stays_text() -> None:
    bad = {HOSTILE: HOSTILE}
    hostile: dict[str, Any] = {
        "name": HOSTILE,
        "advice": [HOSTILE],
        "group_names": {"best": HOSTILE},
        "per_class": {HOSTILE: {HOSTILE: score(0.5), "f1": score(0.5), "support": HOSTILE}},
        "confusion": {"labels": [HOSTILE, HOSTILE + "2"], "counts": [[3, 1], [0, 2]]},
        "confusion_per_label": {HOSTILE: [[1, 2], [3, 4]]},
        "calibration": {"temperature": HOSTILE, "bins": [{"n": 3, "confidence": 0.5, "accuracy": 0.5, **bad}]},
        "curves": {"roc": {HOSTILE: [[0, 0], [1, 1]]}, HOSTILE: {HOSTILE: [[0, 0]]}},
        "abstain": {"threshold": 0.5, **bad},
        "examples": {
            "best": [
                {
                    "example": {"text": HOSTILE, "label": HOSTILE, **bad},
                    "answer": {"text": HOSTILE, "probabilities": {HOSTILE: 0.5}, "labels": [HOSTILE, 1], "abstained": True, **bad},
                    "picture": {"words": [HOSTILE, HOSTILE], "weights": [1, -1], "label": HOSTILE},
                }
            ]
        },
    }
    survey = {"classes": {HOSTILE: 3}, "classes_others": {HOSTILE: {HOSTILE: 2, "b": 1}}, HOSTILE: HOSTILE}
    data = {"train": survey, "vocabulary": bad, "coverage": bad, "long": {"limit": 3, "train": 1, "what": HOSTILE}}
    evaluations = [hostile]
    text = render(RunFiles(CONFIG, "", {}, data, [], [], evaluations, 0))
    assert Page(text).is_harmless()
    assert not re.search("[\x00\x1b\ud800]", text)
    assert text.count("<script") == 0
    assert "{{ 7 * 7 }}" in flat(Page(text).text)


def test_the_page_is_one_file_without_references() -> None:
    text = render(RunFiles(CONFIG, "", {}, DATA, [], [], [EVALUATION], 0))
    assert not re.search(r"https?:|//|@import|url\(", text.replace("</", ""))
    ids = [attributes["id"] for _, attributes in Page(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
