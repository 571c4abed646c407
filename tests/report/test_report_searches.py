"""The pages of a comparison of models, of a cross-validation and of a search over settings."""

import itertools
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import HOSTILE, ODD, Page, flat, places, score, with_odd

from heed.report import comparison_page, folds_page, trials_page
from heed.report.drawing import linear
from heed.report.trials import LOG_FROM, MOST_ROWS


def model(name: str, accuracy: float, loss: float, **more: Any) -> dict[str, Any]:
    buckets = [{"length": length, "n": n, "accuracy": score(accuracy - n / 5000, 0.02)} for length, n in (("1-5", 41), ("6-10", 403))]
    return {"name": name, "scores": {"accuracy": score(accuracy, 0.013), "log_loss": score(loss, 0.05)}, "by_length": buckets, **more}


COMPARISON: dict[str, Any] = {
    "title": "TREC",
    "date": "2031-03-14T18:53:00+00:00",
    "machine": {"processor": "A processor", "threads": 2},
    "data": {"train": "trec/train.tsv", "test": "trec/test.tsv", "classes": {"ENTY": 1250, "DESC": 1162}},
    "models": [
        model("Transformer", 0.872, 0.41, parameters=1_240_000, train_seconds=84.2, train_tokens_per_second=21_043.7, run="runs/a"),
        model("CNN", 0.884, 0.52, parameters=640_000, train_seconds=31.0, latency_ms={"median": 1.25, "p95": 2.5}, peak_memory_mib=412.5),
        model("TF-IDF + logistic regression", 0.869, 0.47, parameters=None, train_seconds=1.5, latency_ms={"median": 0.31, "p95": 0.62}),
        {"name": "majority", "scores": {"accuracy": score(0.188, 0.03)}},
    ],
    "verdict": ["The CNN is the best of these.", "The simple baseline is within its interval: use it."],
    "notes": ["Judged on fold 1 of 5.", "Each network was trained once, with seed 7."],
    "recall": {
        "distances": [16, 64, 1024],
        "models": {
            "Transformer": [{"distance": n, "accuracy": score(p, 0.04)} for n, p in ((16, 0.99), (64, 0.97), (1024, 0.88))],
            "CNN": [{"distance": n, "accuracy": score(p, 0.04)} for n, p in ((16, 0.98), (64, 0.31), (1024, 0.06))],
        },
        "chance": 0.05,
    },
    "costs": {
        "lengths": [256, 1024, 4096],
        "kinds": {
            "full": {"seconds": [0.01, 0.12, 1.9], "mib": [20, 200, None], "slope_time": 1.893, "slope_memory": 1.66},
            "low rank": {"seconds": [0.01, 0.04, 0.16], "mib": [18, 60, 230], "slope_time": 1.0, "slope_memory": 0.92},
        },
    },
    "settings": {"train.steps": "2000"},
}
FOLDS: dict[str, Any] = {
    "recipe": "trec",
    "data": "trec/train.tsv",
    "date": "2031-03-14",
    "machine": {"processor": "A processor", "threads": 2},
    "folds": [
        {
            "fold": i,
            "run": f"runs/f{i}",
            "n": 90 + i,
            "seconds": 12.5 * i,
            "scores": {"accuracy": score(p, 0.02), "log_loss": score(1 - p), "f1_micro": score(p, 0.01)},
        }
        for i, p in ((1, 0.82), (2, 0.861), (3, 0.79))
    ],
    "summary": {
        "accuracy": {"mean": 0.8237, "sd": 0.0356},
        "log_loss": {"mean": 0.17634, "sd": 0.0361234},
        "f1_micro": {"mean": 0.8237, "sd": 0.0356},
    },
    "group": "speaker",
}
TRIALS: dict[str, Any] = {
    "recipe": "trec",
    "metric": "valid.accuracy",
    "direction": "maximize",
    "trials": [
        {"number": 0, "state": "complete", "value": 0.71, "settings": {"train.lr": 1e-4, "model.d_model": 64, "task.tokens": "words"}},
        {"number": 1, "state": "pruned", "value": 0.4, "settings": {"train.lr": 1e-2, "model.d_model": 96, "task.tokens": "subwords"}},
        {"number": 2, "state": "complete", "value": 0.86, "settings": {"train.lr": 9e-4, "model.d_model": 128, "task.tokens": "words"}},
        {"number": 3, "state": "failed", "value": None, "error": "diverged", "settings": {"train.lr": 5e-3, "task.tokens": "words"}},
        {"number": 4, "state": "complete", "value": 0.8, "seconds": 75.0, "run": "runs/t4", "settings": {"train.lr": 8e-4}},
    ],
    "best": 2,
    "importance": {"model.d_model": 0.21, "train.lr": 0.72},
}
PAGES = {"comparison": (comparison_page, COMPARISON), "folds": (folds_page, FOLDS), "trials": (trials_page, TRIALS)}


def test_the_verdict_comes_first() -> None:
    page = Page(comparison_page(COMPARISON))
    assert page.text.index("TREC") < page.text.index(COMPARISON["verdict"][0]) < page.text.index(COMPARISON["verdict"][1])
    assert page.text.index(COMPARISON["verdict"][1]) < page.text.index("14 March 2031, 18:53 UTC") < page.text.index("best of its column")
    assert page.headings == ["models", "scores", "recall", "costs", "data", "settings"]


def test_how_far_a_comparison_goes_stands_below_its_table() -> None:
    text = Page(comparison_page(COMPARISON)).text
    assert text.index("best of its column") < text.index(COMPARISON["notes"][0]) < text.index(COMPARISON["notes"][1])
    assert text.index(COMPARISON["notes"][1]) < text.index("Accuracy by length")


def compared_tables(content: dict[str, Any]) -> list[list[list[str]]]:
    """Return the tables of scores and of costs, cell by cell, heads too."""
    return [[[flat(cell) for cell in row] for row in rows] for kinds, rows in Page(comparison_page(content)).tables if "compared" in kinds]


def test_every_model_is_a_row_with_its_scores_and_one_with_its_costs() -> None:
    (head, *rows), (costs_head, *costs) = compared_tables(COMPARISON)
    assert head == ["Model", "Accuracy", "Log loss"]
    assert costs_head[:3] == ["Model", "Parameters", "Training time"]
    for row, wanted in zip(rows, COMPARISON["models"], strict=True):
        ends = [f"{100 * wanted['scores']['accuracy'][end]:.2f}" for end in ("value", "low", "high")]
        assert row[0] == wanted["name"]
        assert row[1].replace(" ★", "") == f"{ends[0]} % {ends[1]} – {ends[2]}"
    assert [row[0] for row in costs] == [row[0] for row in rows]
    assert rows[-1][2] == "–"
    cells = {row[0]: dict(zip(costs_head, row, strict=True)) for row in costs}
    assert cells["Transformer"]["Parameters"] == "1,240,000"
    assert cells["CNN"]["Time of an answer, median"] == "1.25 ms"
    assert cells["CNN"]["Peak memory"] == "432.5 MB"
    assert cells["majority"]["Training time"] == "–"


def test_the_best_of_every_column_is_marked() -> None:
    marked = {name: [row[0] for row in rows if "★" in row[i]] for head, *rows in compared_tables(COMPARISON) for i, name in enumerate(head)}
    assert marked["Accuracy"] == ["CNN"]
    assert marked["Log loss"] == ["Transformer"]
    assert marked["Parameters"] == ["CNN"]
    assert marked["Training time"] == marked["Time of an answer, median"] == ["TF-IDF + logistic regression"]
    assert marked["Training tokens per second"] == []  # of one value, none is the best


def test_plots_of_a_comparison_name_models_slopes_and_chance() -> None:
    page = Page(comparison_page(COMPARISON))
    labels = [str(attributes["aria-label"]) for attributes in page.all("svg")]
    assert [label.partition(":")[0] for label in labels] == [
        "Accuracy by model",
        "Accuracy by length",
        "Recall at a distance",
        "Time over length",
        "Memory over length",
    ]
    for words in ("full (slope 1.89)", "low rank (slope 0.92)", "chance", "guessing scores 5 %", "1-5", "n 403", "87.20 %"):
        assert words in page.text


def test_a_model_that_is_far_off_is_named_and_not_drawn_so_that_the_others_can_be_told_apart() -> None:
    page = Page(comparison_page(COMPARISON))
    assert "Not drawn, for it lies far off: majority, 18.80 %." in page.text
    labels = [str(svg["aria-label"]) for svg in page.all("svg")]
    drawn = [label for label in labels if label.startswith(("Accuracy by model", "Accuracy by length"))]
    assert len(drawn) == 2
    assert all("Transformer" in label and "majority" not in label for label in drawn)
    near = [*COMPARISON["models"][:3], {"name": "majority", "scores": {"accuracy": score(0.83, 0.03)}}]
    assert "far off" not in Page(comparison_page({"models": near})).text
    lost = [{"name": name, "scores": {"log_loss": score(value)}} for name, value in (("a", 0.3), ("b", 0.4), ("c", 1.7))]
    assert "far off: c, 1.7." in Page(comparison_page({"models": lost})).text  # of a loss, more is worse
    assert "far off" not in Page(comparison_page({"models": lost[1:]})).text


def test_what_was_measured_beside_the_data_is_explained() -> None:
    told = {name: {**COMPARISON[name], "about": f"How {name} came about."} for name in ("recall", "costs")}
    text = Page(comparison_page({**COMPARISON, **told})).text
    assert text.index("How recall came about.") < text.index("Recall at a distance") < text.index("How costs came about.")


def test_costs_that_could_not_be_measured_have_no_dot() -> None:
    content = {"costs": COMPARISON["costs"]}
    assert len(Page(comparison_page(content)).all("circle")) == 6 + 5


def test_costs_in_proportion_to_a_power_of_the_length_lie_on_a_line() -> None:
    lengths = [100, 1000, 10_000]
    kinds = {"full": {"seconds": [3e-9 * n**2 for n in lengths]}}
    dots = Page(comparison_page({"costs": {"lengths": lengths, "kinds": kinds}})).all("circle")
    (x0, y0), (x1, y1), (x2, y2) = ((float(str(dot["cx"])), float(str(dot["cy"]))) for dot in dots)
    assert (y2 - y1) / (x2 - x1) == pytest.approx((y1 - y0) / (x1 - x0), abs=0.01)


def test_a_dot_of_the_main_score_lies_where_its_value_says() -> None:
    models = [{"name": f"m{i}", "scores": {"f1_macro": score(p)}} for i, p in enumerate((0.5, 0.6, 0.8))]
    across = [float(str(dot["cx"])) for dot in Page(comparison_page({"models": models})).all("circle")]
    assert (across[2] - across[1]) / (across[1] - across[0]) == pytest.approx(2, abs=0.01)


def test_every_score_is_a_row_with_its_mean_and_a_column_for_each_fold() -> None:
    page = Page(folds_page(FOLDS))
    head, accuracy, loss = page.table("compared")
    assert head == ["Score", "Mean", "Fold 1", "Fold 2", "Fold 3"]
    assert accuracy[:2] == ["Accuracy", "82.37 ± 3.56 %"]
    for cell, fold in zip(accuracy[2:], FOLDS["folds"], strict=True):
        found = fold["scores"]["accuracy"]
        assert cell == f"{100 * found['value']:.2f} % {100 * found['low']:.2f} – {100 * found['high']:.2f}"
    assert loss[:2] == ["Log loss less is better", "0.1763 ± 0.0361"]  # a deviation has the decimals of its mean
    assert len(page.all("circle")) == 2 * len(FOLDS["folds"])
    assert "rows with the same speaker stay together" in page.text
    assert "Each fold was scored once, by a run that neither learned from it nor chose anything by it" in page.text
    assert "stay together" not in folds_page({**FOLDS, "group": None})


def test_a_score_that_is_another_one_in_every_fold_is_told_in_a_sentence() -> None:
    text = Page(folds_page(FOLDS)).text
    assert "The same as Accuracy in every fold: F1 micro." in text
    assert text.count("F1 micro") == 1
    other = {**FOLDS["folds"][2], "scores": {"accuracy": score(0.79), "f1_micro": score(0.78)}}
    rows = Page(folds_page({**FOLDS, "folds": [*FOLDS["folds"][:2], other]})).table("compared")[1:]
    assert [row[0] for row in rows] == ["Accuracy", "Log loss less is better", "F1 micro"]


def test_the_head_of_folds_says_what_was_divided_when_where_and_how_long_it_took() -> None:
    page = Page(folds_page(FOLDS))
    head = page.text.partition("Scores")[0]
    for words in (
        "3 folds of trec/train.tsv",
        "14 March 2031",
        "A processor, 2 threads",
        "1 min 15 s",
        "276",
        "82.4",
        "± 3.56, mean of 3 folds",
    ):
        assert words in head
    _, *runs = page.table("runs")
    assert runs == [[str(fold["fold"]), str(fold["n"]), f"{fold['seconds']:.1f} s", fold["run"]] for fold in FOLDS["folds"]]


def test_a_fold_without_a_score_keeps_its_column() -> None:
    folds = [{"fold": 1, "scores": {"accuracy": score(0.5)}}, {"fold": 2, "scores": {"log_loss": score(0.5), "accuracy": 3}}]
    _, accuracy, loss = Page(folds_page({"folds": folds})).table("compared")
    assert (accuracy[3], loss[2]) == ("–", "–")
    assert (accuracy[2], loss[3]) == ("50.00 % 50.00 – 50.00", "0.5 0.5 – 0.5")


def test_trials_stand_in_the_order_of_their_values() -> None:
    page = Page(trials_page(TRIALS))
    head, *rows = page.table("compared")
    assert head == ["Trial", "Accuracy", "State", "train.lr", "model.d_model", "task.tokens", "Time", "Run"]
    assert [row[0] for row in rows] == ["2", "4", "0", "1", "3"]  # what did not run to its end comes last
    assert [row[1] for row in rows] == ["86.00 % ★", "80.00 %", "71.00 %", "40.00 %", "–"]
    assert rows[1][3:] == ["0.0008", "", "", "1 min 15 s", "runs/t4"]
    assert rows[4][2] == "failed diverged"
    assert "5 trials: 3 complete, 1 pruned, 1 failed" in page.text
    less = Page(trials_page({**TRIALS, "metric": "loss", "direction": "minimize"})).table("compared")
    assert [row[0] for row in less[1:]] == ["0", "4", "2", "1", "3"]


def test_a_search_says_what_it_was_on_and_that_its_best_value_was_picked() -> None:
    page = Page(trials_page({**TRIALS, "data": "trec/train.tsv", "date": "2031-03-14", "machine": {"processor": "A processor"}}))
    head = page.text.partition("Progress")[0]
    for words in (
        "Accuracy on validation rows, more is better",
        "the best of 3 that ran to their end: expect somewhat worse on new data",
        "trec/train.tsv",
    ):
        assert words in head
    for words in ("14 March 2031", "A processor", "Training time, all trials 1 min 15 s"):
        assert words in head
    alone = {**TRIALS, "trials": TRIALS["trials"][2:4]}
    assert "expect somewhat worse" not in Page(trials_page(alone)).text


def test_more_trials_than_can_be_read_are_counted() -> None:
    trials = [{"number": i, "state": "complete", "value": i / 1000, "settings": {}} for i in range(MOST_ROWS + 3)]
    page = Page(trials_page({"trials": trials}))
    assert len(page.table("compared")) == 1 + MOST_ROWS
    assert "3 more trials are not shown." in page.text


def test_the_line_of_the_best_so_far_is_a_staircase() -> None:
    page = Page(trials_page(TRIALS))
    path = next(str(attributes["d"]) for attributes in page.all("path", "line"))
    corners = [tuple(map(float, corner.split())) for corner in path.removeprefix("M").split("L")]
    assert corners == sorted(corners, key=lambda corner: corner[0])
    heights = [y for _, y in corners]
    assert heights == sorted(heights, reverse=True)  # places count from above, so better is less
    assert len(set(heights)) == 2  # 0.71, then 0.86; the pruned trial does not count, and 0.8 is no better
    assert all(before[0] == after[0] or before[1] == after[1] for before, after in itertools.pairwise(corners))


def test_a_setting_has_a_logarithmic_axis_only_where_its_values_span_far() -> None:
    text = Page(trials_page(TRIALS)).text
    values = [trial["settings"]["train.lr"] for trial in TRIALS["trials"] if trial["value"] is not None]
    assert max(values) / min(values) > LOG_FROM
    assert "train.lr, logarithmic" in text
    assert "model.d_model, logarithmic" not in text
    dots = [float(str(dot["cx"])) for dot in Page(trials_page(_search([1.0, 10.0, 100.0]))).all("circle")][3:]
    lowest, middle, highest = sorted(dots)
    assert middle - lowest == pytest.approx(highest - middle, abs=0.25)
    dots = [float(str(dot["cx"])) for dot in Page(trials_page(_search([1.0, 11.0, 21.0]))).all("circle")][3:]
    lowest, middle, highest = sorted(dots)
    assert middle - lowest == pytest.approx(highest - middle, abs=0.25)


def test_a_setting_has_an_axis_over_all_that_was_searched() -> None:
    content = _search([1.0, 2.0]) | {"space": {"a": {"low": 1.0, "high": 4.0, "log": True}}}
    page = Page(trials_page(content))
    assert "a, logarithmic" in page.text
    low, high = sorted(float(str(dot["cx"])) for dot in page.all("circle")[2:])
    without = sorted(float(str(dot["cx"])) for dot in Page(trials_page(_search([1.0, 2.0]))).all("circle")[2:])
    assert high - low < 0.6 * (without[1] - without[0])


def test_whole_numbers_have_no_ticks_between_them() -> None:
    axis = linear("layers", [1, 2, 2], whole=True)
    assert axis.ticks == [(1.0, "1"), (2.0, "2")]
    assert linear("layers", [3], whole=True).ticks == [(3.0, "3")]
    assert linear("layers", [3], whole=True).place(3) == pytest.approx(0.5)
    of_layers, of_rates = (Page(trials_page(_search(values))).text for values in ([1, 2], [1.0, 2.0]))
    assert "1.2" not in of_layers
    assert "1.2" in of_rates


def _search(values: list[float]) -> dict[str, Any]:
    return {"trials": [{"number": i, "state": "complete", "value": i / 7, "settings": {"a": value}} for i, value in enumerate(values)]}


def test_settings_that_are_no_numbers_stand_side_by_side() -> None:
    page = Page(trials_page(TRIALS))
    for words in ("task.tokens", "words", "subwords"):
        assert words in page.text


def test_importance_is_drawn_the_largest_first() -> None:
    text = Page(trials_page(TRIALS)).text
    assert "How much each setting matters train.lr 72 % model.d_model 21 %" in text
    assert "How much each setting matters" not in trials_page({**TRIALS, "importance": None})


@pytest.mark.parametrize("name", PAGES)
def test_an_empty_content_makes_an_empty_page(name: str) -> None:
    page = Page(PAGES[name][0]({}))
    assert page.headings == []
    assert page.is_harmless()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_no_network(name: str) -> None:
    write, content = PAGES[name]
    text = write(content)
    assert Page(text).is_harmless()
    assert not re.search(r"https?:|//|@import|url\(", text.replace("</", ""))
    ids = [attributes["id"] for _, attributes in Page(text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", PAGES)
@given(st.data())
def test_damaged_content_is_drawn_as_far_as_it_goes(name: str, data: st.DataObject) -> None:
    write, content = PAGES[name]
    path = data.draw(st.sampled_from(list(places(content))))
    assert Page(write(with_odd(content, path, data.draw(st.sampled_from(ODD))))).is_harmless()


def hostile(content: Any) -> Any:
    """Replace every text by one that means harm, and every name that is free by one too."""
    if isinstance(content, dict):
        fixed = {"name", "scores", "by_length", "accuracy", "distance", "length", "number", "value", "settings", "state"}
        return {(key if key in KEPT | fixed else f"{HOSTILE}{key}"): hostile(value) for key, value in content.items()}
    if isinstance(content, list):
        return [hostile(value) for value in content]
    return f"{HOSTILE}{content}" if isinstance(content, str) else content


KEPT = {key for _, content in PAGES.values() for key in content} | {
    *("low", "high", "classes", "train", "run", "models", "kinds", "lengths", "seconds", "mib", "slope_time", "fold", "n", "mean", "sd"),
    *("distances", "chance", "latency_ms", "median", "p95", "parameters"),
}


@pytest.mark.parametrize("name", PAGES)
def test_text_of_a_page_stays_text(name: str) -> None:
    write, content = PAGES[name]
    text = write(hostile(content))
    page = Page(text)
    assert page.is_harmless()
    assert "<script" not in text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search("[\x00\x1b\ud800]", text)


def test_values_that_are_not_finite_are_left_out() -> None:
    models = [{"name": "a", "scores": {"accuracy": {"value": math.nan, "low": 0.0, "high": 1.0}}, "train_seconds": math.inf}]
    page = Page(comparison_page({"models": models}))
    assert "nan" not in page.text.lower()
    assert not page.tables
