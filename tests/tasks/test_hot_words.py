"""Hot words are found where words begin, and in scripts without spaces anywhere."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from toy_listeners import answers, build
from toy_recordings import RATE, tones, write_recordings

from heed.config import DecodeConfig
from heed.data.text import Tokenizer
from heed.run import Run
from heed.tasks.listening import Pieces, _scorers
from heed.tasks.speech_recognition import SpeechRecognition

pytest_plugins = ["toy_listeners"]


def test_hot_words_change_what_is_heard(ctc: Run) -> None:
    example = {"audio": 0.7 * tones("ab", seed=2) + 0.3 * tones("ad", seed=2), "sample_rate": RATE}
    plain = answers(ctc, [example], beams=8)[0].text
    other = "ad" if "ab" in plain else "ab"
    found = [answers(ctc, [example], beams=8, hot_words=[other], hot_word_boost=boost)[0].text for boost in (1.0, 2.0, 4.0, 6.0, 8.0)]
    assert other not in plain
    assert any(text.startswith(other) for text in found)


NEIGHBOURS = "我你他们今天很好聊用也说"
CHINESE = [*(f"{before}微信{behind}" for before in NEIGHBOURS for behind in NEIGHBOURS), "微信很好", "今天很好", "用 GPT 聊天"]


def gained(task: SpeechRecognition, hot_words: list[str], text: str) -> float:
    """Return what hot words add to a transcript."""
    (weighted,) = _scorers(task, DecodeConfig(hot_words=hot_words, hot_word_boost=1.0), Pieces(task))
    state, total = weighted.scorer.start(), 0.0
    for label in task.tokenizer.encode(text):
        score, state = weighted.scorer.advance(state, label)
        total += score
    return total + weighted.scorer.end(state)


@pytest.mark.parametrize("tokens", ["characters", "subwords"])
def test_hot_words_are_found_inside_a_script_without_spaces(tmp_path: Path, tokens: str) -> None:
    row = write_recordings(tmp_path, 1)[0]
    task = build([{**row, "text": text} for text in CHINESE], tokens=tokens, vocab_size=300)
    tokenizer = task.tokenizer
    inside = tokenizer.encode_inside(["微信"])[0] if isinstance(tokenizer, Tokenizer) else tokenizer.encode("微信")
    found = [text for text in CHINESE if contains(tokenizer.encode(text), inside)]
    assert any(not text.startswith("微信") for text in found)
    for text in found:
        assert gained(task, ["微信"], text) >= len(inside)
        assert gained(task, [" 微信 "], text) == gained(task, ["微信"], text)
    assert gained(task, ["微信"], "今天很好") == 0
    assert gained(task, ["PT"], "用 GPT 聊天") == 0  # in scripts with spaces words begin behind them


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(ids[i : i + len(part)]) == list(part) for i in range(len(ids)))
