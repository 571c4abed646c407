"""Axes and plots, checked against what a reader would measure with a ruler."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from report_pages import HOSTILE, Page

import heed
from heed.report.drawing import (
    HEIGHT,
    MOST_TICKS,
    N_COLOURS,
    WIDTH,
    Plot,
    Point,
    Strip,
    categories,
    colour,
    linear,
    logarithmic,
    score_axis,
    strips,
)

numbers = st.floats(-1e29, 1e29) | st.integers(-1000, 1000) | st.floats(-1, 1)
positive = st.floats(1e-29, 1e29) | st.integers(1, 10_000)


@given(st.lists(numbers, min_size=1, max_size=5))
def test_a_linear_axis_holds_its_values_between_ticks_at_equal_distances(values: list[float]) -> None:
    axis = linear("x", values)
    ticks = [value for value, _ in axis.ticks]
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low - slack <= min(values)
    assert max(values) <= axis.high + slack
    assert (ticks[0], ticks[-1]) == (axis.low, axis.high)
    assert 2 <= len(ticks) <= 12
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)


@pytest.mark.parametrize(("low", "high"), [(5e-4, 5e-3), (2e-5, 9e-5), (1, 12), (250, 9000), (1e-4, 3e-2)])
def test_what_is_written_at_a_logarithmic_axis_does_not_touch(low: float, high: float) -> None:
    axis = logarithmic("train.lr", [low, high])
    texts = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]+)<', str(Plot(axis, linear("y", [0, 1])).svg([], "")))
    assert len(texts) == len(axis.ticks) >= 2
    for (x, words), (next_x, next_words) in itertools.pairwise(texts):
        assert float(next_x) - float(x) > 6 * (len(words) + len(next_words)) / 2  # letters are 11 high, figures some 6 wide


@given(st.lists(positive, min_size=1, max_size=5))
def test_a_logarithmic_axis_places_values_by_their_ratios(values: list[float]) -> None:
    axis = logarithmic("x", values)
    assert 1 <= len(axis.ticks) <= MOST_TICKS
    for value in values:
        share = math.log(value / axis.low) / math.log(axis.high / axis.low)
        assert axis.place(value) == pytest.approx(share, abs=1e-9)
        assert 0 < axis.place(value) < 1


def test_ticks_of_a_logarithmic_axis_stand_where_they_are_wanted() -> None:
    assert [words for _, words in logarithmic("x", [16, 64, 1024], [16, 64, 256, 1024]).ticks] == ["16", "64", "256", "1,024"]
    assert [words for _, words in logarithmic("x", [0.5, 2000]).ticks] == ["1", "10", "100", "1,000"]


def test_an_axis_of_percent_ends_at_100_and_begins_at_0() -> None:
    assert score_axis("accuracy", [99.2, 100.0]).high == 100
    assert score_axis("accuracy", [100.0]).high == 100
    assert score_axis("accuracy", [0.0]).low == 0
    assert score_axis("accuracy", [90.0]).title == "Accuracy, %"
    assert score_axis("log_loss", [3.0, 250.0]).high > 200


def test_a_point_lies_where_its_values_say() -> None:
    plot = Plot(linear("x", [0, 10]), linear("y", [0, 4]))
    (left, bottom), (right, top) = plot.at(0, 0), plot.at(10, 4)
    assert plot.at(2.5, 3) == pytest.approx((left + (right - left) / 4, bottom + 0.75 * (top - bottom)))
    assert 0 < left < right < WIDTH
    assert 0 < top < bottom < HEIGHT
    assert plot.at(-5, 99) == pytest.approx((left, top))  # beyond the axes: at their ends


def test_a_square_plot_is_square() -> None:
    width, height = Plot(linear("x", [0, 1]), linear("y", [0, 5]), square=True).area
    assert width == height


def test_a_plot_has_its_ticks_titles_and_marks_as_real_text() -> None:
    plot = Plot(categories("length", ["1-5", "6-10"], ["n 7", "n 9"]), linear(HOSTILE, [0, 2]))
    page = Page(str(plot.svg([plot.line([(0, 1), (1, 2)], "c0"), plot.dot(Point(0, 1, about=HOSTILE), "c0")], HOSTILE)))
    for words in ("length", "1-5", "n 9", "0.5", "{{ 7 * 7 }}"):
        assert words in page.text
    assert page.is_harmless()
    assert page.all("svg")[0]["aria-label"] == HOSTILE


def test_a_whisker_reaches_from_the_low_to_the_high_end() -> None:
    plot = Plot(linear("x", [0, 1]), linear("y", [0, 10]))
    found = re.search(r"M([\d.]+) ([\d.]+)V([\d.]+)", plot.whisker(Point(1, 5, 2, 9), "c0"))
    assert found is not None
    assert [float(number) for number in found.groups()] == pytest.approx([*plot.at(1, 2), plot.at(1, 9)[1]], abs=0.06)
    assert plot.whisker(Point(1, 5), "c0") == ""


def test_lines_of_a_plot_look_different() -> None:
    assert len({colour(i) for i in range(2 * N_COLOURS)}) == 2 * N_COLOURS


def test_many_categories_have_ticks_for_some() -> None:
    axis = categories("x", [f"c{i}" for i in range(50)])
    assert len(axis.ticks) <= MOST_TICKS
    assert all(words == f"c{value:.0f}" for value, words in axis.ticks)


def test_strips_have_a_row_for_each_name() -> None:
    axis = linear("Accuracy, %", [80, 90])
    rows = [Strip(f"model {i}", f"{80 + i} %", colour(i), [(80 + i, "")], (80, 90), 85) for i in range(3)]
    page = Page(str(strips(axis, rows, "scores")))
    levels = [float(str(dot["cy"])) for dot in page.all("circle")]
    across = [float(str(dot["cx"])) for dot in page.all("circle")]
    assert len(set(levels)) == 3
    assert across[2] - across[1] == pytest.approx(across[1] - across[0], abs=0.25)
    assert all(f"model {i} {80 + i} %" in page.text for i in range(3))


def lab(colour: str) -> NDArray[np.float64]:
    """Return a colour of sRGB, given as #rrggbb, in CIELAB, where distances are about as large as they look (CIE 1976)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))  # none is dark enough for the straight part of the curve
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_no_two_lines_of_a_plot_have_colours_that_are_taken_for_each_other() -> None:
    css = (Path(heed.__file__).parent / "report" / "style.css").read_text(encoding="utf-8")
    found = re.findall(r"--c\d: (#[0-9a-f]{6});", css)
    assert len(found) == 2 * N_COLOURS  # for light and for dark paper
    for palette in (found[:N_COLOURS], found[N_COLOURS:]):
        distances = {pair: float(np.linalg.norm(lab(pair[0]) - lab(pair[1]))) for pair in itertools.combinations(palette, 2)}
        assert min(distances.values()) > 25, min(distances, key=distances.__getitem__)
