"""What the report shows of speech recognition: errors, confused words, noise, recordings and spoken data."""

import base64
import io
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from report_pages import HOSTILE, ODD, Page, flat, places, score, with_odd

from heed.config import dump_yaml
from heed.report.data import MOST_SPEAKERS
from heed.report.examples import Keys, groups
from heed.report.page import render
from heed.report.recordings import LABEL_ROW, LEFT, MOST_WORD_ROWS, RIGHT, WIDTH, recording
from heed.report.sources import RunFiles
from heed.report.speech import MOST_PAIRS, NOTHING
from heed.tasks import TASKS, Task
from heed.tasks.translation import Translation

SECONDS = 3.2
BANDS, COLUMNS = 24, 80
WORDS = [("turn", 0.3, 0.71), ("on", 0.8, 1.02), ("the", 1.1, 1.26), ("kitchen", 1.3, 1.95), ("light", 2.05, 2.6)]
LABELS = ["", " ", *"turnohe"]


def bump(place: float, middle: float, width: float) -> float:
    return math.exp(-(((place - middle) / width) ** 2))


def mel() -> list[list[float]]:
    """Make bands that move while a word is said."""
    rows = []
    for band in range(BANDS):
        row = []
        for column in range(COLUMNS):
            time = (column + 0.5) / COLUMNS * SECONDS
            loud = sum(bump(time, (start + end) / 2, (end - start) / 1.5) for _, start, end in WORDS)
            row.append(round(min(1.0, 0.08 + loud * bump(band, 5 + 3 * math.sin(3 * time), 3) + 0.5 * loud * bump(band, 15, 2)), 2))
        rows.append(row)
    return rows


def posteriors() -> dict[str, Any]:
    """Make peaks, one label at a time, and the blank between them."""
    peaks = [(label, word[1] + (i + 0.5) * (word[2] - word[1]) / len(word[0])) for word in WORDS for i, label in enumerate(word[0])]
    times = [(column + 0.5) / COLUMNS * SECONDS for column in range(COLUMNS)]
    values = [[round(max([0.0, *(bump(t, at, 0.03) for one, at in peaks if one == label)]), 2) for t in times] for label in LABELS]
    values[0] = [round(1 - max(row[column] for row in values[1:]), 2) for column in range(COLUMNS)]
    return {"labels": LABELS, "values": values}


PICTURE: dict[str, Any] = {
    "kind": "recording",
    "seconds": SECONDS,
    "mel": mel(),
    "words": [{"word": word, "start": start, "end": end} for word, start, end in WORDS],
    "posteriors": posteriors(),
}


def example(path: object, text: str, answer: str, quality: float, picture: object = None) -> dict[str, Any]:
    content = {"audio": path, "text": text, "speaker": "s3"}
    return {"example": content, "answer": {"text": answer, "score": -0.2}, "quality": quality, "picture": picture}


EXAMPLES = {
    "best": [example("clips/a17.wav", "turn on the kitchen light", "turn on the kitchen light", 100.0, PICTURE)],
    "median": [example([0.0, 0.1, -0.1], "close the door", "close a door", 66.7)],
    "worst": [example("clips/b02.flac", "stop", "the top of it", -300.0, {**PICTURE, "posteriors": None})],
}
RATIOS = [20, 10, 5, 0]
WER = {"white": [0.061, 0.112, 0.235, 0.51], "babble": [0.072, 0.158, 0.32, 0.664]}
EVALUATION: dict[str, Any] = {
    "name": "test",
    "data": "data/test.tsv",
    "wer": score(0.0524, 0.011),
    "cer": score(0.0213, 0.005),
    "recognition_accuracy": score(0.9476, 0.011),
    "sentence_accuracy": score(0.812, 0.03),
    "n": 640,
    "seconds": 2432.5,
    "normalisation": "words",
    "intervals_by": "speakers",
    "errors": {"substitutions": 120, "insertions": 30, "deletions": 60, "words": 4008},
    "confused": [
        {"reference": "on", "hypothesis": "off", "count": 12},
        {"reference": "the", "hypothesis": "", "count": 9},
        {"reference": "", "hypothesis": "a", "count": 7},
    ],
    "by_speaker": [{"speaker": f"s{n}", "n": 40 + n, "wer": score(0.14 - 0.02 * n, 0.02)} for n in range(6)],
    "buckets": [{"length": "1-2", "n": 80, "wer": score(0.09, 0.03)}, {"length": "3-5", "n": 560, "wer": score(0.05, 0.01)}],
    "noise": [
        {"noise": name, "snr_db": ratio, "wer": score(wer, 0.02)}
        for name, row in WER.items()
        for ratio, wer in zip(RATIOS, row, strict=True)
    ],
    "examples": EXAMPLES,
}
SURVEY: dict[str, Any] = {
    "rows": 4000,
    "clean": 3988,
    "counts": {"duplicates": 6, "contradictions": 2, "leaks": 0},
    "examples": {"duplicates": [{"row": 7, "audio": "clips/a07.wav", "text": "stop"}]},
    "lengths": {
        "text_words": {"min": 1, "p5": 2, "median": 5, "p95": 9, "max": 14},
        "audio_seconds": {"min": 0.62, "p5": 1.1, "median": 2.64, "p95": 5.9, "max": 11.02},
    },
    "nothing_said": 12,
    "hours": 3.0125,
    "characters": {"different": 30, "counts": {"e": 12040, "t": 9033, "q": 1, "é": 1}, "n_once": 5, "once": ["q", "é"]},
    "speakers": {"different": 45, "rows": {"s1": 400, "s2": 300, "s3": 40}},
    "speakers_others": {"test": {"different": 1, "rows": {"s1": 40}}},
    "leaks": {"test": 0},
    "warnings": ["speakers in common with data.test: s1; scores there are of voices that were heard in training"],
}
DATA = {"train": SURVEY, "tokens": {"audio": 1084500, "text": 20000}, "longest": {"audio": 1102}, "too_long": 3, "max_length": 1000}
DATA |= {"unlearnable": {"have more labels than places": 2}, "unlearnable_valid": {}}


class Spoken(Translation):
    """A task whose input is audio."""

    name = "spoken"
    inputs = {"audio": "audio"}  # noqa: RUF012
    outputs = {"text": "text"}  # noqa: RUF012


CONFIG = {"format": 2, "task": {"name": "spoken"}}


@pytest.fixture(autouse=True)
def known_task(monkeypatch: pytest.MonkeyPatch) -> type[Task]:
    monkeypatch.setitem(TASKS, "spoken", Spoken)
    return Spoken


def html_of(evaluation: Any = EVALUATION, data: Any = DATA) -> str:
    """Render the report of a run that holds an evaluation and a data report."""
    evaluations = [evaluation] if isinstance(evaluation, dict) else []
    return render(RunFiles(CONFIG, dump_yaml(CONFIG), {}, data, [], [], evaluations, 0))


def page_of(evaluation: Any = EVALUATION, data: Any = DATA) -> Page:
    return Page(html_of(evaluation, data))


def changed(**keys: Any) -> Page:
    return page_of({**EVALUATION, **keys})


@pytest.fixture(scope="module")
def drawn() -> Page:
    """Return the picture of the recording alone."""
    return Page(str(recording(PICTURE)))


def along(seconds: float) -> float:
    return LEFT + seconds / SECONDS * (WIDTH - LEFT - RIGHT)


def numbers(path: object) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", str(path))]


def ink(page: Page) -> np.ndarray[Any, Any]:
    """Return how opaque the spectrogram is, (bands, columns)."""
    (image,) = page.all("image")
    content = base64.b64decode(str(image["href"]).removeprefix("data:image/png;base64,"))
    return np.asarray(imread(io.BytesIO(content)))[..., 3]


def test_sections_stand_in_order() -> None:
    assert page_of().headings == ["scores", "examples", "recordings", "data", "settings"]
    plain = {sort: [{**entry, "picture": None} for entry in entries] for sort, entries in EXAMPLES.items()}
    assert changed(examples=plain).headings == ["scores", "examples", "data", "settings"]


def test_scores_of_speech_are_spelled_and_say_which_way_is_better() -> None:
    _, *rows = page_of().table("scores")
    expected = [("WER less is better", 5.24), ("CER less is better", 2.13), ("Recognition accuracy", 94.76), ("Sentence accuracy", 81.2)]
    assert [row[:2] for row in rows] == [[name, f"{value:.2f} %"] for name, value in expected]


def test_an_accuracy_below_zero_is_shown_as_it_is() -> None:
    _, *rows = changed(recognition_accuracy=score(-0.205, 0.1)).table("scores")
    assert ["Recognition accuracy", "-20.50 %", "-30.50 – -10.50"] in [row[:3] for row in rows]


def test_what_the_scores_rest_on_is_one_line() -> None:
    assert "without punctuation (normalisation: words). 40 min 32 s of audio. The intervals rest on resampled speakers." in page_of().text
    assert "Normalisation of the texts: my own." in changed(normalisation="my own").text
    assert "normalisation" not in changed(normalisation=None).text.lower()


def test_errors_are_bars_against_the_commonest_with_their_share_of_the_words() -> None:
    page = page_of()
    assert "210 errors; the references have 4,008 words." in page.text
    told = re.findall(r"(Substitutions|Insertions|Deletions) (\d+) ([\d.]+) % of the words", page.text)
    assert told == [(kind, str(n), f"{100 * n / 4008:.3g}") for kind, n in (("Substitutions", 120), ("Insertions", 30), ("Deletions", 60))]
    widths = [attributes["style"] for attributes in page.all("u")][2:5]  # after the two buckets
    assert widths == ["width:100.0%", "width:25.0%", "width:50.0%"]
    none = changed(errors={"substitutions": 0, "insertions": 0, "deletions": 0, "words": 0})
    assert "0 errors." in none.text


def test_confused_words_are_a_table_with_a_dash_for_what_is_not_there() -> None:
    rows = next(rows for _, rows in page_of().tables if rows[0][0] == "Said")
    assert rows[1:] == [["on", "off", "12"], ["the", NOTHING, "9"], [NOTHING, "a", "7"]]
    many = [{"reference": f"w{i}", "hypothesis": "x", "count": 50 - i} for i in range(MOST_PAIRS + 5)]
    assert f"{NOTHING} is no word" in page_of().text
    assert f"{NOTHING} is no word" not in changed(confused=EVALUATION["confused"][:1]).text
    assert len(next(rows for _, rows in changed(confused=many).tables if rows[0][0] == "Said")) == 1 + MOST_PAIRS


def test_error_rates_by_length_and_by_speaker_are_bars_on_a_scale_of_their_own() -> None:
    text = page_of().text
    for words in ("WER by words said", "1-2 n = 80", "WER by speaker", "s0 n = 40", "14.00 %", "Bars end at 20 %"):
        assert words in text
    many = [{"speaker": f"s{i}", "n": 3, "wer": score(0.5)} for i in range(20)]
    assert "The first 15 of 20." in changed(by_speaker=many).text


def test_noise_has_a_line_for_each_kind_that_falls_as_the_ratio_rises() -> None:
    page = changed(examples={})
    assert "WER in noise" in page.text
    assert "without noise: 5.24 %" in page.text
    for look, row in (("c0", WER["white"]), ("c1", WER["babble"])):
        dots = page.all("circle", look)
        across, down = [float(str(dot["cx"])) for dot in dots], [float(str(dot["cy"])) for dot in dots]
        rising = list(reversed(row))  # from the lowest ratio to the highest
        assert [round((x - across[0]) / (across[-1] - across[0]), 3) for x in across] == [0, 0.25, 0.5, 1]
        scale = (down[0] - down[-1]) / (rising[0] - rising[-1])
        assert [y - down[0] for y in down] == pytest.approx([scale * (wer - rising[0]) for wer in rising], abs=0.15)
        assert down == sorted(down)  # places count from above
    assert len(page.all("path", "whisker")) == 2 * len(RATIOS)
    about = "white noise, 20 dB: 6.10 %, 4.10 – 8.10"
    assert about in page.text


def test_noise_is_compared_with_what_stands_beside_it_or_with_the_whole_evaluation() -> None:
    clean = [*EVALUATION["noise"], {"noise": "none", "wer": score(0.031)}]
    assert "without noise: 3.10 %" in changed(noise=clean).text
    assert "without noise" not in changed(wer=None).text
    assert "WER in noise" not in changed(noise=[{"noise": "none", "wer": score(0.1)}]).text


def test_the_spectrogram_is_an_image_whose_opacity_is_the_value_with_low_bands_at_the_bottom(drawn: Page) -> None:
    found = ink(drawn)
    assert found.shape == (BANDS, COLUMNS)
    np.testing.assert_allclose(found, np.array(PICTURE["mel"])[::-1], atol=1 / 255)
    (image,) = drawn.all("image")
    assert (float(str(image["x"])), float(str(image["width"]))) == (LEFT, WIDTH - LEFT - RIGHT)


def test_words_are_marked_above_the_spectrogram_where_they_were_said(drawn: Page) -> None:
    bars = drawn.all("path", "said")
    top = float(str(drawn.all("image")[0]["y"]))
    for bar, (_, start, end) in zip(bars, WORDS, strict=True):
        left, level, right = numbers(bar["d"])
        assert left == pytest.approx(along(start), abs=0.06)
        assert right == pytest.approx(along(end) - 1, abs=0.06)
        assert level < top
    assert "kitchen: 1.30 – 1.95 s" in drawn.text
    for word, start, end in WORDS:
        (place,) = [at for at, words in texts_of(recording(PICTURE)) if words == word]
        assert place[0] == pytest.approx((along(start) + along(end)) / 2, abs=0.11)
        assert place[1] < top


def texts_of(html: object) -> list[tuple[tuple[float, float], str]]:
    """Return what is written in a picture, with its places."""
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', str(html))
    return [((float(x), float(y)), words) for x, y, words in found]


def test_the_axis_of_time_ends_with_the_recording(drawn: Page) -> None:
    ticks = [(at[0], float(words)) for at, words in texts_of(recording(PICTURE)) if re.fullmatch(r"[\d.]+", words)]
    assert [seconds for _, seconds in ticks] == [0, 1, 2, 3]
    assert [place for place, _ in ticks] == pytest.approx([along(seconds) for _, seconds in ticks], abs=0.06)


def test_probabilities_of_labels_are_areas_below_the_spectrogram_on_the_same_axis(drawn: Page) -> None:
    image = drawn.all("image")[0]
    areas = [numbers(area["d"]) for area in drawn.all("path", "area")]
    assert len(areas) == len(LABELS)
    for area, values in zip(areas, PICTURE["posteriors"]["values"], strict=True):
        xs, ys = area[0::2], area[1::2]
        base = ys[0]
        assert min(ys) > float(str(image["y"])) + float(str(image["height"]))
        heights = np.interp([along((i + 0.5) / COLUMNS * SECONDS) for i in range(COLUMNS)], xs[1:-1], [base - y for y in ys[1:-1]])
        assert heights == pytest.approx((LABEL_ROW - 3) * np.array(values), abs=0.2)
    left = [words for at, words in texts_of(recording(PICTURE)) if at[0] < LEFT - 1]
    assert left == ["log-mel", "blank", "space", *LABELS[2:]]


def test_flat_stretches_of_a_probability_cost_no_points() -> None:
    values = [[0.0] * 300 + [0.5] + [0.0] * 99]
    (area,) = Page(str(recording({**PICTURE, "posteriors": {"labels": ["a"], "values": values}}))).all("path", "area")
    assert len(numbers(area["d"])) // 2 <= 7  # two ends of the base, two ends of the line, and around the peak


def test_words_that_would_overlap_stand_in_rows_of_their_own() -> None:
    words = [{"word": "overlapping", "start": 1 + i / 50, "end": 1 + (i + 1) / 50} for i in range(MOST_WORD_ROWS + 2)]
    html = recording({**PICTURE, "words": words})
    shown = [at for at, text in texts_of(html) if text == "overlapping"]
    assert len(shown) == len({y for _, y in shown}) == MOST_WORD_ROWS
    assert len(Page(str(html)).all("path", "said")) == len(words)  # the others are told by their bars


def test_words_outside_the_recording_or_without_times_are_not_drawn() -> None:
    odd = [{"word": "a", "start": 9, "end": 10}, {"word": "b", "start": 2, "end": 1}, {"word": "c"}, {"word": "d", "start": 3, "end": 99}]
    (bar,) = Page(str(recording({**PICTURE, "words": odd}))).all("path", "said")
    assert numbers(bar["d"])[2] <= WIDTH - RIGHT


def test_words_and_probabilities_may_be_missing() -> None:
    for key in ("words", "posteriors"):
        alone = Page(str(recording({name: value for name, value in PICTURE.items() if name != key})))
        assert len(alone.all("image")) == 1
        assert not alone.all("path", {"words": "said", "posteriors": "area"}[key])


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {**PICTURE, "kind": "image"},
        {**PICTURE, "mel": []},
        {**PICTURE, "mel": [[0.1], [0.2, 0.3]]},
        {**PICTURE, "seconds": 0},
        {**PICTURE, "seconds": None},
        {"source": ["a"], "target": ["b"], "weights": [[1.0]]},
    ],
)
def test_what_is_no_recording_is_not_drawn(content: object) -> None:
    assert recording(content) is None


def test_an_example_shows_the_path_of_its_recording_and_of_samples_their_number() -> None:
    page = page_of()
    cards = page.text[page.text.index("Examples What") :].partition("Recordings What")[0]
    for words in ("audio clips/ a17.wav", "audio 3 samples", "reference stop", "answer the top of it", "speaker s3"):
        assert words in cards
    assert "clips/<wbr>b02.flac" in html_of()  # a long path is broken behind a folder
    hostile = example("a/<b>&/c.wav", "x", "x", 1.0)
    assert "a/<wbr>&lt;b&gt;&amp;/<wbr>c.wav" in html_of({**EVALUATION, "examples": {"best": [hostile]}})
    (group,) = groups({"examples": {"best": [example([0.5] * 1200, "a", "a", 1.0)]}}, Keys(("audio",), ("text",)))
    assert group.shown[0].texts[0].html.startswith("0.5, 0.5")  # without knowing that it is audio


def test_above_a_picture_stand_the_file_and_what_was_said_in_it() -> None:
    examples = {"best": [example("C:\\clips\\a17.wav", "turn on", "turn of", 50.0, PICTURE), example("b.wav", "", "a", 0.0, PICTURE)]}
    page = changed(examples=examples)
    pictures = page.text[page.text.index("Recordings What") :]
    assert "50.0 a17.wav: turn on" in pictures
    assert "0.0 b.wav: nothing" in pictures


def test_data_of_recordings_is_worded_as_recordings() -> None:
    text = page_of().text
    for words in (
        "Nothing said 12",
        "2 training examples have more labels than places.",
        "the same recording stands further up with the same transcript",
        "the same recording stands with another transcript",
        "the same recording stands in the validation or test data",
        "Audio hops 1,084,500",
        "Longest audio 1,102 hops",
        "Text tokens 20,000",
        "Left out for having more than 1,000 hops (data.max_length): 3 training examples.",
        "Audio 3 h 0 min",
        "Different speakers 45",
        "Different characters 30",
        "Audio seconds",
        "half below 2.64; 90 % from 1.1 to 5.9; all from 0.62 to 11.02",
        "clips/a07.wav",
    ):
        assert words in text


def test_speakers_in_common_are_a_warning() -> None:
    text = page_of().text
    assert f"Mind {SURVEY['warnings'][0]}" in text
    assert "Mind" not in page_of(data={"train": {**SURVEY, "warnings": []}}).text


def test_speakers_and_characters_are_drawn_with_what_is_left_out() -> None:
    text = page_of().text
    for words in ("s1 400 10 %", "s2 300 7.5 %", "Not drawn: 42 more speakers, with fewer rows."):
        assert words in text
    for words in ("e 12,040 t 9,033", "The commonest 4 of 30 are shown.", "too rare to be learned: q é and 3 more."):
        assert words in text
    many = {f"s{i}": 100 - i for i in range(MOST_SPEAKERS + 3)}
    assert "Not drawn: 3 more speakers" in page_of(data={"train": {"speakers": {"different": len(many), "rows": many}}}).text


@given(st.data())
def test_damaged_evaluations_and_data_reports_are_drawn_as_far_as_they_go(data: st.DataObject) -> None:
    short = {**PICTURE, "mel": [[0.1, 0.9], [0.2, 0.3]], "posteriors": {"labels": ["a"], "values": [[0.5, 0.1]]}}
    evaluation = {**EVALUATION, "examples": {"best": [example("a.wav", "a", "b", 1.0, short)]}}
    for content, draw in ((evaluation, page_of), (DATA, lambda odd: page_of(data=odd))):
        paths = [path for path in places(content) if path != ("name",)]
        path, odd = data.draw(st.sampled_from(paths)), data.draw(st.sampled_from(ODD))
        assert draw(with_odd(content, path, odd)).is_harmless()


def test_text_of_every_shape_stays_text() -> None:
    picture = {
        **PICTURE,
        "words": [{"word": HOSTILE, "start": 0.1, "end": 0.2}],
        "posteriors": {"labels": [HOSTILE], "values": PICTURE["posteriors"]["values"][:1]},
    }
    hostile = {
        "name": "test",
        "wer": score(0.1),
        "normalisation": HOSTILE,
        "intervals_by": HOSTILE,
        "confused": [{"reference": HOSTILE, "hypothesis": HOSTILE, "count": 1}],
        "by_speaker": [{"speaker": HOSTILE, "n": HOSTILE, "wer": score(0.1)}],
        "noise": [{"noise": HOSTILE, "snr_db": 3, "wer": score(0.2)}],
        "examples": {"best": [example(HOSTILE, HOSTILE, HOSTILE, 1.0, picture)]},
    }
    survey = {
        "characters": {"different": 2, "counts": {HOSTILE: 3}, "once": [HOSTILE], "n_once": 1},
        "speakers": {"different": 1, "rows": {HOSTILE: 3}},
        "warnings": [HOSTILE],
        "counts": {HOSTILE: 1},
    }
    text = html_of(hostile, {"train": survey})
    assert Page(text).is_harmless()
    assert not re.search("[\x00\x1b\ud800]", text)
    assert "{{ 7 * 7 }}" in flat(Page(text).text)


def test_the_page_is_one_file_whose_only_references_are_images_within() -> None:
    text = html_of()
    page = Page(text)
    references = [str(value) for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in references)
    assert len([value for value in references if value.startswith("data:")]) == 2
    assert not re.search(r"https?:|@import|url\(", text)
    policy = next(str(attributes["content"]) for attributes in page.all("meta") if attributes.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_recording_gives_the_same_picture() -> None:
    assert recording(PICTURE) == recording(PICTURE)
