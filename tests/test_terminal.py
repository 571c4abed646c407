"""What is shown on a terminal fits into it and commands nothing."""

import pytest

from heed.terminal import columns_of, counted, end_of, unread, visible


@pytest.mark.parametrize("text", ["", "dog", "a dog sees", "好的狗", "a好b的c", "e\u0301te\u0301 a\u0300", "🙂🙂 ok"])
@pytest.mark.parametrize("width", range(12))
def test_the_end_of_a_line_fills_the_width_and_never_passes_it(text: str, width: int) -> None:
    shown = end_of(text, width)
    taken = sum(map(columns_of, shown))
    assert taken <= width
    if sum(map(columns_of, text)) <= width:
        assert shown == text
    elif width > 0:
        assert shown.startswith("…")
        assert text.endswith(shown[1:])
        assert width - taken <= 1  # where a wide character would not have fitted in


def test_characters_take_the_columns_they_are_drawn_in() -> None:
    assert [columns_of(char) for char in "a好é\u0301\u200dが"] == [1, 2, 1, 0, 0, 2]


def test_one_is_told_in_the_singular() -> None:
    assert [counted(n, "training example") for n in (0, 1, 1200)] == [
        "0 training examples",
        "1 training example",
        "1,200 training examples",
    ]
    assert [counted(n, noun) for noun in ("class", "batch") for n in (1, 2)] == ["1 class", "2 classes", "1 batch", "2 batches"]
    assert [unread("last", n, "question") for n in (1, 1200)] == [
        "the last token of the question was not read",
        "the last 1,200 tokens of the question were not read",
    ]


def test_no_control_character_reaches_the_terminal_but_line_ends_and_tabs() -> None:
    text = "a\x1b[2Jb\r\n\tc\x07\x9b好"
    assert visible(text) == "a\ufffd[2Jb\ufffd\n\tc\ufffd\ufffd好"
