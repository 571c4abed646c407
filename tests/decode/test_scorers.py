"""Language models and hot words in a search: against whole sentences scored at once, and against definitions over whole sequences."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.data.ngrams import Ngrams
from heed.data.spelling import Spelling
from heed.decode import scorers
from heed.decode.ctc import PrefixBeam
from heed.decode.scorers import (
    SPACES,
    UNKNOWN_LOG_P,
    HotWords,
    ModelScorer,
    Scorer,
    SpelledScorer,
    TokenNgrams,
    WeightedScorer,
    WordNgrams,
)
from heed.errors import ConfigError, TrainingError
from heed.model import Causal, DecoderState, ModelConfig, build_model
from heed.model.cache import BranchingCache, LayerCache

MakeConfig = Callable[..., ModelConfig]
TEXTS = ["a cab", "abba", "a bad cab", "bad", "dab a bad cab", "a b c d", "cab cab"]
LETTERS = [None, " ", "a", "b", "c", "d", "x"]  # id 6 is in none of the texts
PIECES = [None, " a", "a", " b", "b", " ", "c", " cab", "ab", "d", "ba", "x y"]


def total(scorer: Scorer, ids: Iterable[int]) -> float:
    """Score a whole sequence, its end included."""
    score, state = 0.0, scorer.start()
    for token in ids:
        gained, state = scorer.advance(state, token)
        assert gained <= scorer.highest
        hash(state)
        score += gained
    return score + scorer.end(state)


def sentence_log_p(model: Ngrams, words: Sequence[str]) -> float:
    """Score a sentence as a language model does, each word after all before it."""
    padded = ["<s>", *words, "</s>"]
    return sum(model.log_p(padded[:i], padded[i]) for i in range(1, len(padded)))


def without_unknown(model: Ngrams) -> Ngrams:
    n_words = len(model.vocabulary)
    lines = (line for line in model.lines() if "<unk>" not in line)
    return Ngrams.from_arpa(line.replace(f"ngram 1={n_words}", f"ngram 1={n_words - 1}") for line in lines)


@pytest.fixture(scope="module", params=[1, 2, 4])
def words(request: pytest.FixtureRequest) -> Ngrams:
    return Ngrams.train([text.split() for text in TEXTS], order=request.param)


@pytest.mark.parametrize("space", [space for space in SPACES if space != " "])
@pytest.mark.parametrize("order", [1, 3])
def test_labels_are_scored_as_the_words_of_the_model_however_it_writes_a_space(space: str, order: int) -> None:
    model = Ngrams.train(([space if char == " " else char for char in text] for text in TEXTS), order=order)
    for ours in (" ", "▁", "<space>"):
        scorer = TokenNgrams(model, [ours if piece == " " else piece for piece in LETTERS])
        for text in [*TEXTS, "", "xa", "ddd  x"]:
            expected = sentence_log_p(model, [space if char == " " else char for char in text])
            assert total(scorer, [LETTERS.index(char) for char in text]) == pytest.approx(expected)


def test_sub_words_keep_the_space_before_them() -> None:
    model = Ngrams.train([["▁a", "▁ca", "b"], ["▁ca", "d"]], order=2)
    assert total(TokenNgrams(model, [None, " a", "▁ca", "b"]), [1, 2, 3]) == pytest.approx(sentence_log_p(model, ["▁a", "▁ca", "b"]))
    assert total(TokenNgrams(model, [None, "a", "ca", "b"]), [1, 2]) == pytest.approx(sentence_log_p(model, ["a", "ca"]))


@given(cuts=st.sets(st.integers(1, 30)), text=st.sampled_from([*TEXTS, " a  bad ", "", " ", "x cab xx"]))
def test_words_score_the_same_however_a_text_is_cut_into_pieces(words: Ngrams, cuts: set[int], text: str) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[i:j] for i, j in itertools.pairwise(places)]
    scorer = WordNgrams(words, [None, *pieces])
    assert total(scorer, range(1, len(pieces) + 1)) == pytest.approx(sentence_log_p(words, text.split()))
    joined = WordNgrams(words, [None, *(piece.replace(" ", "▁") for piece in pieces)])
    assert total(joined, range(1, len(pieces) + 1)) == pytest.approx(sentence_log_p(words, text.split()))


def test_a_word_is_scored_when_the_next_begins(words: Ngrams) -> None:
    scorer = WordNgrams(words, PIECES)
    gained, state = scorer.advance(scorer.start(), PIECES.index(" cab"))
    assert gained == 0
    gained, state = scorer.advance(state, PIECES.index(" b"))
    assert gained == pytest.approx(words.log_p(("<s>",), "cab"))
    assert scorer.advance(state, PIECES.index("a"))[0] == 0
    assert scorer.end(state) == pytest.approx(words.log_p(("<s>", "cab"), "b") + words.log_p(("<s>", "cab", "b"), "</s>"))


@pytest.mark.parametrize("kind", [TokenNgrams, WordNgrams])
def test_labels_without_text_cost_nothing(words: Ngrams, kind: Callable[..., Scorer]) -> None:
    scorer = kind(words, ["a", None, " bad"])
    assert total(scorer, [1, 0, 1, 1, 2, 1]) == total(scorer, [0, 2])


@pytest.mark.parametrize("kind", [TokenNgrams, WordNgrams])
def test_unknown_words_cost_what_unk_does_or_a_stated_price(words: Ngrams, kind: Callable[..., Scorer]) -> None:
    pieces, closed = ["a ", "zzz "], without_unknown(words)
    pieces = ["a", "zzz"] if kind is TokenNgrams else pieces
    assert total(kind(words, pieces), [1]) == pytest.approx(sentence_log_p(words, ["zzz"]))
    end = closed.log_p(("<s>", "zzz"), "</s>")
    assert total(kind(closed, pieces), [1]) == pytest.approx(UNKNOWN_LOG_P + end)
    assert total(kind(closed, pieces, unknown=-3.0), [1]) == pytest.approx(-3.0 + end)


BEGIN, END = 1, 2
TO_MODEL = [None, 7, 3, None, 9, 5, None]  # of our ids; 3 is unknown to the model, 6 stands for no text


@pytest.fixture(scope="module", params=["sinusoidal", "rotary", "relative"])
def writer(tiny_config: MakeConfig, request: pytest.FixtureRequest) -> Causal:
    torch.manual_seed(3)
    model = build_model(tiny_config(architecture="causal", vocab_size=11, positions=request.param))
    assert isinstance(model, Causal)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def scorer_of(model: Any, **settings: Any) -> ModelScorer:
    return ModelScorer(model, TO_MODEL, begin=BEGIN, end=END, silent=[6], **settings)


@torch.no_grad()
def written_log_p(model: Causal, ids: Sequence[int], unknown: float = UNKNOWN_LOG_P) -> float:
    """Score our ids with one pass over all of them."""
    theirs = [token for token in (TO_MODEL[i] for i in ids) if token is not None]
    log_p = model(torch.tensor([[BEGIN, *theirs]]))[0].log_softmax(-1)
    return float(sum(log_p[i, token] for i, token in enumerate([*theirs, END]))) + unknown * list(ids).count(3)


sequences = st.lists(st.lists(st.integers(1, 6), max_size=6), min_size=1, max_size=8)


@given(sequences=sequences, remembered=st.sampled_from([1, 3, 128]), announced=st.booleans())
def test_a_model_scores_labels_one_by_one_as_it_scores_them_all_at_once(
    writer: Causal, sequences: list[list[int]], remembered: int, announced: bool
) -> None:
    scorer = scorer_of(writer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorers, "REMEMBERED_ROWS", remembered)
        states, scores = [scorer.start() for _ in sequences], [0.0 for _ in sequences]
        for i in range(max(map(len, sequences)) + 1):
            if announced:
                scorer.prefetch(states)
            for row, ids in enumerate(sequences):
                if i < len(ids):
                    gained, states[row] = scorer.advance(states[row], ids[i])
                    scores[row] += gained
        found = [score + scorer.end(state) for score, state in zip(scores, states, strict=True)]
        assert sum(len(read.rows) for read in scorer._reads) <= max(remembered, len(sequences))
        assert len(scorer._where) == sum(len(read.rows) for read in scorer._reads)
    assert found == pytest.approx([written_log_p(writer, ids) for ids in sequences], abs=1e-4)


class Counting:
    """A decoder that passes everything on to a model and keeps account of it."""

    def __init__(self, model: Causal) -> None:
        self.model = model
        self.read: list[int] = []  # rows of each step
        self.started: list[list[int]] = []

    def start(self, inputs: None, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        self.started += prefix.tolist()
        return self.model.start(inputs, mask, prefix)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        self.read.append(tokens.numel())
        return self.model.step(tokens, state)


def test_what_is_announced_together_is_read_together_and_once(writer: Causal) -> None:
    model = Counting(writer)
    scorer = scorer_of(model)
    start = scorer.start()
    children = [scorer.advance(start, token)[1] for token in (1, 2, 4)]
    scorer.prefetch([*children, start, children[0]])
    assert model.read == [1, 3]
    grandchildren = [scorer.advance(child, token)[1] for child in children for token in (1, 5)]
    scorer.prefetch(grandchildren[:4])
    scorer.prefetch([children[2], *grandchildren])
    assert model.read == [1, 3, 4, 2]
    for state in grandchildren:
        scorer.end(state)
    assert model.read == [1, 3, 4, 2]
    assert model.started == [[BEGIN]]


def test_going_on_in_two_ways_disturbs_neither(writer: Causal) -> None:
    scorer = scorer_of(writer)
    _, trunk = scorer.advance(scorer.start(), 1)
    early = scorer.advance(scorer.advance(trunk, 2)[1], 4)
    _, other = scorer.advance(trunk, 5)
    late = scorer.advance(other, 4)
    fresh = scorer_of(writer)
    assert late == fresh.advance(fresh.advance(fresh.advance(fresh.start(), 1)[1], 5)[1], 4)
    assert early[0] != late[0]


def test_a_long_text_is_read_with_a_bounded_context(writer: Causal) -> None:
    context, model = 6, Counting(writer)
    scorer = scorer_of(model, context=context)
    ids = [1, 2, 4, 5, 1, 1, 4, 2, 5, 5, 2, 1, 4, 4, 1, 2, 5, 1]
    read, state, score, expected = [BEGIN], scorer.start(), 0.0, 0.0
    for token in ids:
        gained, state = scorer.advance(state, token)
        score += gained
        assert len(state) <= context
        with torch.no_grad():
            expected += float(writer(torch.tensor([read]))[0, -1].log_softmax(-1)[TO_MODEL[token]])
        read = [BEGIN, *read[-(context // 2) :]] if len(read) == context else read
        read.append(TO_MODEL[token] or 0)
    assert score == pytest.approx(expected, abs=1e-4)
    assert len(ids) > 2 * context
    assert all(len(prefix) <= context for prefix in model.started)


def test_a_model_whose_scores_are_no_numbers_is_refused() -> None:
    class Diverged:
        def start(self, inputs: None, mask: Tensor | None, prefix: Tensor) -> DecoderState:
            return DecoderState([LayerCache()])

        def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
            return torch.full((tokens.numel(), 11), math.nan)

    with pytest.raises(TrainingError, match="NaN"):
        scorer_of(Diverged()).end((BEGIN,))


def test_a_cache_that_cannot_be_copied_row_by_row_is_refused(writer: Causal) -> None:
    class Branching(Counting):
        def start(self, inputs: None, mask: Tensor | None, prefix: Tensor) -> DecoderState:
            return DecoderState([LayerCache(BranchingCache())])

        def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
            return torch.zeros(tokens.numel(), 11)

    scorer = scorer_of(Branching(writer))
    with pytest.raises(AssertionError, match="float32"):
        scorer.end(scorer.advance(scorer.start(), 1)[1])


# Labels of hot words: 1 is the space, 2 to 4 are letters, 5 is a sub-word that begins a word, 6 stands for no text.
STARTS = [False, True, False, False, False, True, True]
PHRASES = [[2, 3, 2], [3, 2, 1, 4], [5, 3], [5, 3, 4], [2, 3, 2, 1, 3], [4]]


def begins(ids: Sequence[int], i: int) -> bool:
    return i == 0 or STARTS[ids[i]] or STARTS[ids[i - 1]]


def covered(ids: Sequence[int], phrases: Sequence[Sequence[int]]) -> set[int]:
    """Return the places of labels that belong to a whole phrase which begins where a word does."""
    found: set[int] = set()
    for i, phrase in itertools.product(range(len(ids)), phrases):
        if begins(ids, i) and list(ids[i : i + len(phrase)]) == list(phrase):
            found |= set(range(i, i + len(phrase)))
    return found


def matching(ids: Sequence[int], phrases: Sequence[Sequence[int]]) -> set[int]:
    """Return the places of the longest beginning of a phrase that the labels end with."""
    firsts = (i for i in range(len(ids)) if begins(ids, i) and any(list(ids[i:]) == list(one[: len(ids) - i]) for one in phrases))
    return set(range(next(firsts, len(ids)), len(ids)))


@given(ids=st.lists(st.integers(1, 6), max_size=14), some=st.sets(st.integers(0, 5), min_size=1))
def test_boosts_telescope_to_the_labels_of_whole_phrases(ids: list[int], some: set[int]) -> None:
    phrases = [PHRASES[i] for i in sorted(some)]
    scorer = HotWords(phrases, 0.75, STARTS)
    assert total(scorer, ids) == pytest.approx(0.75 * len(covered(ids, phrases)))


@given(ids=st.lists(st.integers(1, 6), max_size=14), some=st.sets(st.integers(0, 5), min_size=1))
def test_the_beginning_of_a_phrase_is_boosted_until_it_fails(ids: list[int], some: set[int]) -> None:
    phrases = [PHRASES[i] for i in sorted(some)]
    scorer, score = HotWords(phrases, 1.0, STARTS), 0.0
    state = scorer.start()
    for i, token in enumerate(ids, start=1):
        gained, state = scorer.advance(state, token)
        score += gained
        assert score == pytest.approx(len(covered(ids[:i], phrases) | matching(ids[:i], phrases)))


def test_phrases_begin_where_words_do() -> None:
    scorer = HotWords([[2, 3]], 1.0, STARTS)
    assert total(scorer, [2, 3]) == total(scorer, [1, 2, 3]) == total(scorer, [6, 2, 3]) == total(scorer, [2, 3, 4]) == 2
    assert total(scorer, [4, 2, 3]) == total(scorer, [2, 2, 3]) == 0


def test_a_phrase_without_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match="hot word 2 of 3 holds no label"):
        HotWords([[1], [], [2]], 1.0, STARTS)


def posteriors(probabilities: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities))


def best(log_p: np.ndarray[Any, Any], *scorers: WeightedScorer, beams: int = 4, bonus: float = 0.0) -> list[int]:
    search = PrefixBeam(beams, scorers=scorers, length_bonus=bonus)
    search.advance(log_p)
    return search.results(1)[0].ids


def test_hot_words_change_the_answer_only_where_they_are_whole() -> None:
    unsure = posteriors([[0.0, 0.0, 0.55, 0.45, 0.0], [0.0, 0.0, 0.4, 0.6, 0.0], [0.0, 0.6, 0.0, 0.0, 0.4]])
    hot = WeightedScorer(HotWords([[3, 2, 4]], 1.0, STARTS), 1.0)
    assert best(unsure) == [2, 3, 1]
    assert best(unsure, hot) == [3, 2, 4]
    assert best(unsure, WeightedScorer(HotWords([[3, 2, 2]], 9.0, STARTS), 1.0)) == [2, 3, 1]


def test_a_language_model_changes_the_answer() -> None:
    model = Ngrams.train([["a", "b"]] * 5 + [["b", "a"]], order=2)
    unsure = posteriors([[0.0, 0.45, 0.55], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    assert best(unsure)[0] == 2
    assert best(unsure, WeightedScorer(TokenNgrams(model, [None, "a", "b"]), 1.0)) == [1, 2]


SPELLING = Spelling({"a": ".-", "b": "-...", "c": "-.-.", "d": "-.."})


def spelled(inner: Callable[[Sequence[str | None]], Scorer]) -> SpelledScorer:
    return SpelledScorer(
        inner([*SPELLING.table, " "]),
        [*(SPELLING.encode(character) for character in SPELLING.table), ()],
        space=len(SPELLING.table),
        end_unit=SPELLING.end_id,
        space_unit=SPELLING.space_id,
        silent=range(4),
    )


@pytest.mark.parametrize("text", [*TEXTS, "d d", ""])
def test_units_are_scored_as_the_characters_they_spell(text: str) -> None:
    chars = Ngrams.train([text.replace(" ", "▁") for text in TEXTS], order=3)
    scorer = spelled(lambda letters: TokenNgrams(chars, letters))
    assert total(scorer, SPELLING.encode(text)) == pytest.approx(sentence_log_p(chars, list(text.replace(" ", "▁"))))
    assert total(scorer, [0, *SPELLING.encode(text), 2]) == pytest.approx(total(scorer, SPELLING.encode(text)))  # special tokens are silent
    by_words = Ngrams.train([text.split() for text in TEXTS], order=2)
    assert total(spelled(lambda letters: WordNgrams(by_words, letters)), SPELLING.encode(text)) == pytest.approx(
        sentence_log_p(by_words, text.split())
    )


def test_units_that_spell_nothing_cost_as_much_as_what_is_unknown() -> None:
    chars = Ngrams.train([text.replace(" ", "▁") for text in TEXTS], order=3)
    scorer = spelled(lambda letters: TokenNgrams(chars, letters))
    b, dot = SPELLING.encode("b"), SPELLING.encode("a")[0]
    assert total(scorer, [*b, dot]) == pytest.approx(UNKNOWN_LOG_P + sentence_log_p(chars, []))  # "-...." is no letter
    assert total(scorer, [*b, SPELLING.end_id, SPELLING.end_id, *b]) == pytest.approx(sentence_log_p(chars, ["b", "b"]))


def test_a_search_with_all_scorers_together_is_exhaustive(writer: Causal) -> None:
    draw = np.random.default_rng(5).normal(size=(4, 6)) * 2
    log_p = draw - np.logaddexp.reduce(draw, axis=1, keepdims=True)
    letters = [None, " ", "a", "b", "c", "d"]
    chars = Ngrams.train([text.replace(" ", "▁") for text in TEXTS], order=3)
    every = [
        WeightedScorer(TokenNgrams(chars, letters), 0.4),
        WeightedScorer(WordNgrams(Ngrams.train([text.split() for text in TEXTS], order=2), letters), 0.3),
        WeightedScorer(scorer_of(writer), 0.5),
        WeightedScorer(HotWords([[2, 3], [4, 1, 5]], 1.2, STARTS), 1.0),
    ]
    search = PrefixBeam(10_000, scorers=every, length_bonus=0.3, least_log_p=None)
    search.advance(log_p)
    found = search.results(10_000)
    for ids, score, log_probability in found:
        fused = log_probability + 0.3 * len(ids) + sum(weight * total(scorer, ids) for scorer, weight in every)
        assert score == pytest.approx(fused, abs=1e-4)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    paths = itertools.product(range(6), repeat=4)
    assert {tuple(one.ids) for one in found} == {tuple(label for label, _ in itertools.groupby(path) if label) for path in paths}
