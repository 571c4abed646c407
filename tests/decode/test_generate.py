"""The generation loop, over tiny models with random weights and over made-up ones that count and record what is asked of them."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.config import DecodeConfig
from heed.decode import Hypothesis, generate
from heed.decode.filters import NEVER
from heed.decode.generate import stream
from heed.errors import TrainingError
from heed.model import Causal, ModelConfig, Seq2Seq
from heed.model.cache import DecoderState

PAD, BEGIN, END = 0, 1, 2
MakeConfig = Callable[..., ModelConfig]


def drawn_model(kind: type[Causal] | type[Seq2Seq], config: ModelConfig, seed: int = 0) -> Causal | Seq2Seq:
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def translator(tiny_config: MakeConfig) -> Seq2Seq:
    model = drawn_model(Seq2Seq, tiny_config(vocab_size=11, source_vocab_size=7))
    assert isinstance(model, Seq2Seq)
    return model


@pytest.fixture(scope="module", params=["sinusoidal", "rotary"])
def writer(tiny_config: MakeConfig, request: pytest.FixtureRequest) -> Causal:
    model = drawn_model(Causal, tiny_config(architecture="causal", vocab_size=11, positions=request.param), seed=4)
    assert isinstance(model, Causal)
    return model


def sources(*lengths: int, vocab_size: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random ids padded on the right, and their mask."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(1, vocab_size, mask.shape, generator=draw) * mask, mask


def begin(n: int) -> Tensor:
    return torch.full((n, 1), BEGIN)


def log_probability(logits: Tensor, ids: Sequence[int], never: Sequence[int]) -> float:
    """Sum the log-probabilities of ids under logits (T, V), with some tokens made impossible."""
    logits = logits.detach().clone()
    logits[:, list(never)] = NEVER
    return float(logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum())


def assert_same(found: Sequence[Sequence[Hypothesis]], expected: Sequence[Sequence[Hypothesis]]) -> None:
    assert [[hypothesis.ids for hypothesis in best] for best in found] == [[hypothesis.ids for hypothesis in best] for best in expected]
    scores = [hypothesis.score for best in expected for hypothesis in best]
    assert [hypothesis.score for best in found for hypothesis in best] == pytest.approx(scores, abs=1e-5, rel=1e-5)


class Recorder:
    """A decoder whose scores are a function of all tokens of a row; it counts the rows of every step."""

    def __init__(self, score: Callable[[list[int]], Tensor]) -> None:
        self.score = score
        self.rows_seen: list[int] = []
        self.n_selects = 0

    def start(self, inputs: Tensor | None, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        return RecorderState(self, [row[:-1] for row in prefix.tolist()])

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        assert isinstance(state, RecorderState)
        state.past = [[*past, token] for past, token in zip(state.past, tokens.tolist(), strict=True)]
        self.rows_seen.append(len(state.past))
        return torch.stack([self.score(past) for past in state.past])


class RecorderState(DecoderState):
    def __init__(self, recorder: Recorder, past: list[list[int]]) -> None:
        super().__init__(layers=[])
        self.recorder, self.past = recorder, past

    def select(self, rows: Tensor) -> None:
        self.recorder.n_selects += 1
        self.past = [self.past[row] for row in rows.tolist()]

    def expand(self, group: int) -> None:
        self.past = [past for past in self.past for _ in range(group)]


def fixed(*logits: float) -> Recorder:
    return Recorder(lambda past: torch.tensor(logits))


def test_one_beam_is_the_argmax_loop(translator: Seq2Seq) -> None:
    never = (PAD, BEGIN)
    inputs, mask = sources(5, 2, 4, seed=1)
    found = generate(translator, inputs, mask, begin(3), end=END, options=DecodeConfig(beams=1, max_length=9), never=never)
    for i, [hypothesis] in enumerate(found):
        ids = [BEGIN]
        while ids[-1] != END and len(ids) < 9:
            logits = translator(inputs[i : i + 1], mask[i : i + 1], torch.tensor([ids]))[0, -1]
            logits[list(never)] = NEVER
            ids.append(int(logits.argmax()))
        assert hypothesis.ids == [token for token in ids[1:] if token != END]


@pytest.mark.parametrize("penalty", [-0.7, 0.0, 0.6, 1.0])
def test_a_huge_beam_is_exhaustive_search(tiny_config: MakeConfig, penalty: float) -> None:
    model = drawn_model(Seq2Seq, tiny_config(vocab_size=6, d_model=12), seed=2)
    inputs, mask = sources(4, vocab_size=6)
    expected = []
    for length in range(4):
        for ids in itertools.product([i for i in range(6) if i != END], repeat=length):
            logits = model(inputs, mask, torch.tensor([[BEGIN, *ids]]))[0]
            log_p = log_probability(logits, [*ids, END], never=())
            expected.append(Hypothesis(list(ids), log_p / (length + 1) ** penalty, log_p))
    expected = sorted(expected, key=lambda hypothesis: -hypothesis.score)[:8]
    options = DecodeConfig(beams=160, n_best=8, length_penalty=penalty, max_length=4)
    assert_same(generate(model, inputs, mask, begin(1), end=END, options=options), [expected])


def test_scores_are_what_forward_gives(translator: Seq2Seq) -> None:
    inputs, mask = sources(6, 1, 3, seed=3)
    options = DecodeConfig(beams=4, n_best=4, length_penalty=0.7, max_length=8)
    prefix = torch.tensor([[BEGIN, 5, 6]]).expand(3, 3)
    found = generate(translator, inputs, mask, prefix, end=END, options=options, never=(PAD, BEGIN))
    for i, best in enumerate(found):
        assert len(best) == 4
        for ids, score, log_p in best:
            read = torch.tensor([[BEGIN, 5, 6, *ids]])
            logits = translator(inputs[i : i + 1], mask[i : i + 1], read)[0, 2:]
            assert log_p == pytest.approx(log_probability(logits, [*ids, END], never=(PAD, BEGIN)), abs=1e-4)
            assert score == pytest.approx(log_p / (len(ids) + 1) ** 0.7)


def test_what_is_written_is_not_repeated_whatever_the_source_holds(translator: Seq2Seq) -> None:
    never, n_repeats = (PAD, BEGIN, END), 0
    for source in itertools.product(range(3, 7), repeat=2):
        inputs = torch.tensor([source])
        options = DecodeConfig(beams=1, max_length=7, no_repeat_ngram_size=2)
        [[best]] = generate(translator, inputs, None, begin(1), end=END, options=options, limits=[7], never=never[:2], never_first=(END,))
        ids, log_p = [BEGIN], 0.0
        for place, chosen in enumerate([*best.ids, END]):
            logits = translator(inputs, None, torch.tensor([ids]))[0, -1].detach()
            repeats = [ids[i + 1] for i in range(len(ids) - 1) if ids[i] == ids[-1]]
            logits[[*never[: 2 if place else 3], *repeats]] = NEVER
            assert chosen == int(logits.argmax()) or place == 6
            log_p += float(logits.log_softmax(-1)[chosen])
            ids.append(chosen)
            n_repeats += len(repeats)
        assert best.log_probability == pytest.approx(log_p, abs=1e-4)
    assert n_repeats > 0


@pytest.mark.parametrize("repeats", [0, 2])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_sentence_alone_is_answered_as_in_a_batch(translator: Seq2Seq, beams: int, repeats: int) -> None:
    lengths = (3, 6, 1, 5, 2, 4, 6, 2)
    inputs, mask = sources(*lengths, seed=5)
    limits = [7, 2, 9, 1, 5, 8, 3, 9]
    options = DecodeConfig(beams=beams, n_best=beams, max_length=9, no_repeat_ngram_size=repeats)
    together = generate(translator, inputs, mask, begin(8), end=END, options=options, limits=limits, never=(PAD,))
    for i, length in enumerate(lengths):
        one, limit = inputs[i : i + 1, :length], [limits[i]]
        assert_same(generate(translator, one, None, begin(1), end=END, options=options, limits=limit, never=(PAD,)), [together[i]])


@given(limits=st.lists(st.integers(1, 9), min_size=2, max_size=2), beams=st.integers(1, 4), sample=st.booleans())
def test_limits_hold_and_forbidden_ids_never_appear(translator: Seq2Seq, limits: list[int], beams: int, sample: bool) -> None:
    inputs, mask = sources(5, 3)
    options = DecodeConfig(beams=beams, n_best=beams, sample=sample, max_length=6)
    found = generate(translator, inputs, mask, begin(2), end=END, options=options, limits=limits, never=(PAD, 5, 9))
    for best, limit in zip(found, limits, strict=True):
        assert best
        for hypothesis in best:
            assert len(hypothesis.ids) + 1 <= min(limit, 6)
            assert not {PAD, END, 5, 9} & set(hypothesis.ids)


def test_finished_sources_leave_the_batch() -> None:
    ends_after = {3: 1, 4: 3, 5: 6, 6: 6}  # first token of the prefix -> the answer's length

    def score(past: list[int]) -> Tensor:
        logits = torch.tensor([0.0, 0.0, -20.0, 5.0, 0.0, 0.0, 0.0])
        logits[END] = 20.0 if len(past) - 1 >= ends_after[past[0]] else -20.0
        return logits

    prefix = torch.tensor([[3, BEGIN], [4, BEGIN], [5, BEGIN], [6, BEGIN]])
    greedy, sampler = Recorder(score), Recorder(score)
    for recorder, options in ((greedy, DecodeConfig(beams=1)), (sampler, DecodeConfig(top_k=1))):
        found = generate(recorder, None, None, prefix, end=END, options=options)
        assert [len(best[0].ids) for best in found] == [0, 2, 5, 5]
        assert recorder.rows_seen == [4, 3, 3, 2, 2, 2]
        assert recorder.n_selects == 2  # only where a row left


def test_the_state_is_left_alone_while_every_row_continues_itself() -> None:
    recorder = fixed(0.0, 0.0, -50.0, 9.0)
    generate(recorder, None, None, begin(3), end=END, options=DecodeConfig(beams=1, max_length=6))
    assert recorder.rows_seen == [3] * 6
    assert recorder.n_selects == 0


def test_few_finished_sources_wait_for_others_before_the_batch_is_copied() -> None:
    limits = [1, *[4] * 15]
    recorder = fixed(0.0, 0.0, -50.0, 9.0)
    found = generate(recorder, None, None, begin(16), end=END, options=DecodeConfig(beams=1), limits=limits)
    assert recorder.rows_seen == [16] * 4
    assert [len(best[0].ids) for best in found] == [0, *[3] * 15]


def test_no_sources_give_no_answers(translator: Seq2Seq) -> None:
    none = torch.zeros((0, 4), dtype=torch.long)
    assert generate(translator, none, none.bool(), begin(0), end=END, options=DecodeConfig()) == []


@pytest.mark.parametrize("options", [DecodeConfig(beams=2, n_best=2), DecodeConfig(sample=True, n_best=2)])
def test_where_no_answer_is_possible_none_is_given(options: DecodeConfig) -> None:
    assert generate(fixed(0.0, 0.0, NEVER, 1.0), None, None, begin(1), end=END, options=options) == [[]]
    assert generate(fixed(*[NEVER] * 4), None, None, begin(1), end=END, options=options) == [[]]
    assert generate(fixed(0.0, 0.0, 0.0, 0.0), None, None, begin(1), end=END, options=options, never=(0, 1, 2, 3)) == [[]]


@pytest.mark.parametrize("beams", [1, 2])
def test_where_nothing_is_left_that_repeats_nothing_no_answer_is_given(beams: int) -> None:
    options = DecodeConfig(beams=beams, no_repeat_ngram_size=1, max_length=9)
    assert generate(fixed(NEVER, NEVER, NEVER, 0.0, 1.0), None, None, begin(1), end=END, options=options) == [[]]
    [[best]] = generate(fixed(NEVER, NEVER, -9.0, 0.0, 1.0), None, None, begin(1), end=END, options=options)
    assert best.ids == [4, 3]


@pytest.mark.parametrize("options", [DecodeConfig(), DecodeConfig(sample=True)])
def test_a_diverged_model_is_told(options: DecodeConfig) -> None:
    with pytest.raises(TrainingError, match="NaN"):
        generate(fixed(0.0, math.nan, 0.0), None, None, begin(2), end=END, options=options)


def left_padded(*prompts: Sequence[int]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    return ids, torch.tensor([[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts])


@pytest.mark.parametrize("repeats", [0, 1, 3])
@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 3, "n_best": 3}, {"sample": True, "n_best": 3, "temperature": 0.8}])
def test_a_prompt_alone_is_continued_as_among_longer_ones(writer: Causal, options: dict[str, int | float | bool], repeats: int) -> None:
    prompts = [[BEGIN, 5, 6, 7], [BEGIN], [BEGIN, 9, 3]]
    prefix, mask = left_padded(*prompts)
    settings = DecodeConfig.model_validate({"max_length": 7, "no_repeat_ngram_size": repeats, **options})
    together = generate(writer, None, mask, prefix, end=END, options=settings, never=(PAD,))
    for prompt, best in zip(prompts, together, strict=True):
        assert_same(generate(writer, None, None, torch.tensor([prompt]), end=END, options=settings, never=(PAD,)), [best])


def test_a_continuation_is_scored_as_forward_scores_it(writer: Causal) -> None:
    prompt = [BEGIN, 5, 6]
    options = DecodeConfig(beams=3, n_best=3, max_length=6)
    [best] = generate(writer, None, None, torch.tensor([prompt]), end=END, options=options, never=(PAD,))
    for ids, _, log_p in best:
        logits = writer(torch.tensor([[*prompt, *ids]]))[0, len(prompt) - 1 :]
        assert log_p == pytest.approx(log_probability(logits, [*ids, END], never=(PAD,)), abs=1e-4)


def samples(model: Seq2Seq, seed: int = 0, rows: slice = slice(None), n_best: int = 3) -> list[list[list[int]]]:
    inputs, mask = sources(5, 2, 4, 6, seed=7)
    inputs, mask = inputs[rows], mask[rows]
    options = DecodeConfig(sample=True, n_best=n_best, seed=seed, max_length=8)
    found = generate(model, inputs, mask, begin(len(inputs)), end=END, options=options, never=(PAD, BEGIN))
    return [[hypothesis.ids for hypothesis in best] for best in found]


def test_the_same_seed_draws_the_same_answers_and_another_seed_others(translator: Seq2Seq) -> None:
    assert samples(translator) == samples(translator)
    assert samples(translator) != samples(translator, seed=1)


def test_batch_mates_do_not_change_what_is_drawn(translator: Seq2Seq) -> None:
    together = samples(translator)
    assert [samples(translator, rows=slice(i, i + 1))[0] for i in range(4)] == together


def test_drawing_more_answers_keeps_those_drawn_before(translator: Seq2Seq) -> None:
    few, many = samples(translator, n_best=2), samples(translator, n_best=5)
    assert all(Counter(map(tuple, a)) <= Counter(map(tuple, b)) for a, b in zip(few, many, strict=True))


def test_a_shorter_limit_cuts_what_is_drawn_and_changes_nothing_before() -> None:
    recorder = fixed(0.0, 0.0, -1.0, 0.5, 0.2)
    long, short = (
        generate(recorder, None, None, begin(1), end=END, options=DecodeConfig(sample=True, seed=8), limits=[limit])[0][0].ids
        for limit in (40, 4)
    )
    assert short == long[:3]


def shaped(logits: Sequence[float], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> list[float]:
    """Return the probabilities by their definitions, token by token."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[: top_k or None]
    power = {i: math.exp(logits[i] / temperature) for i in order}
    nucleus, held = [], 0.0
    for i in order:
        if held >= top_p:
            break
        nucleus.append(i)
        held += power[i] / sum(power.values())
    nucleus = [i for i in nucleus if power[i] >= min_p * max(power.values())]
    total = sum(power[i] for i in nucleus)
    return [power[i] / total if i in nucleus else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.6},
        {"temperature": 1.5, "top_k": 4, "top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.3},
    ],
)
def test_tokens_are_drawn_as_often_as_the_options_define(options: dict[str, float]) -> None:
    logits, n = [1.0, 0.0, -0.5, 1.5, 0.7, -1.0], 4000
    settings = DecodeConfig.model_validate({"sample": True, "n_best": n, "max_length": 2, **options})
    [found] = generate(fixed(*logits), None, None, begin(1), end=END, options=settings)
    counts = Counter(hypothesis.ids[0] if hypothesis.ids else END for hypothesis in found)
    expected = shaped(logits, **options)  # type: ignore[arg-type]
    assert {token for token in counts if expected[token] == 0} == set()
    chi_square = sum((counts[i] - n * p) ** 2 / (n * p) for i, p in enumerate(expected) if p)
    assert chi_square < 20.5  # 5 degrees of freedom at most: exceeded once in a thousand


def test_a_sample_is_scored_by_the_model_not_by_the_sharpened_distribution() -> None:
    logits = torch.tensor([0.0, 0.5, 0.0, 3.0])
    options = DecodeConfig(temperature=0.1, max_length=3, length_penalty=2.0)
    [[found]] = generate(fixed(*logits.tolist()), None, None, begin(1), end=END, options=options)
    log_p = logits.log_softmax(-1)
    assert found.ids == [3, 3]
    assert found.log_probability == pytest.approx(float(2 * log_p[3] + log_p[END]))
    assert found.score == pytest.approx(found.log_probability / 9)


def test_top_k_of_one_is_greedy(translator: Seq2Seq) -> None:
    inputs, mask = sources(5, 2, 4, 6, seed=9)
    greedy, drawn = (
        generate(translator, inputs, mask, begin(4), end=END, options=options, never=(PAD,))
        for options in (DecodeConfig(beams=1, max_length=9), DecodeConfig(top_k=1, max_length=9))
    )
    assert_same(drawn, greedy)


def test_samples_come_best_first_and_as_many_as_asked_for(translator: Seq2Seq) -> None:
    inputs, mask = sources(5, 2)
    options = DecodeConfig(sample=True, n_best=7, beams=1, max_length=5)
    for best in generate(translator, inputs, mask, begin(2), end=END, options=options):
        assert len(best) == 7
        assert [hypothesis.score for hypothesis in best] == sorted((hypothesis.score for hypothesis in best), reverse=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "options",
    [{"beams": 1}, {"beams": 4, "n_best": 4}, {"sample": True, "n_best": 3, "top_p": 0.9}, {"beams": 3, "no_repeat_ngram_size": 1}],
)
def test_a_gpu_answers_as_the_cpu_does(tiny_config: MakeConfig, options: dict[str, int | float | bool]) -> None:
    model = drawn_model(Seq2Seq, tiny_config(vocab_size=11, source_vocab_size=7))
    inputs, mask = sources(5, 2, 4, 6, seed=9)
    settings = DecodeConfig.model_validate({"max_length": 7, **options})
    found = []
    for device in ("cpu", "cuda"):
        tensors = [x.to(device) for x in (inputs, mask, begin(4))]
        found.append(generate(model.to(device), *tensors, end=END, options=settings, limits=[7, 3, 5, 1], never=(PAD,)))
    assert [[hypothesis.ids for hypothesis in best] for best in found[1]] == [[hypothesis.ids for hypothesis in best] for best in found[0]]


@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 3}, {"sample": True, "temperature": 2.0}])
def test_what_no_answer_begins_with_may_follow(translator: Seq2Seq, options: dict[str, Any]) -> None:
    source, mask = sources(5, 3)
    decode = DecodeConfig(max_length=6, **options)

    def answers(**never: tuple[int, ...]) -> list[list[int]]:
        found = generate(translator, source, mask, begin(2), end=END, options=decode, **never)
        return [some[0].ids for some in found]

    banned = tuple(i for i in range(11) if i not in (4, 9))
    free = answers(never=(PAD, BEGIN), never_first=banned)
    assert all(ids[0] in (4, 9) for ids in free)
    assert any(set(ids[1:]) & set(banned) for ids in free)
    assert free != answers(never=(PAD, BEGIN))


def test_what_is_never_first_has_no_share_of_the_first_probability(translator: Seq2Seq) -> None:
    source, mask = sources(4)
    banned = (PAD, BEGIN, END, 3, 5)
    (best,) = generate(translator, source, mask, begin(1), end=END, options=DecodeConfig(beams=1, max_length=2), never_first=banned)[0]
    with torch.no_grad():
        first, second = translator(source, mask, torch.tensor([[BEGIN, *best.ids]]))[0]
    first[list(banned)] = NEVER
    expected = first.log_softmax(-1)[best.ids[0]] + second.log_softmax(-1)[END]
    assert best.log_probability == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("options", [DecodeConfig(beams=1, max_length=4), DecodeConfig(sample=True, beams=1, max_length=4)])
def test_where_every_answer_has_probability_0_a_stream_ends_at_the_last_possible_token(options: DecodeConfig) -> None:
    def dead_end(past: list[int]) -> Tensor:
        return torch.tensor([NEVER, NEVER, NEVER, 0.0]) if len(past) < 3 else torch.full((4,), NEVER)

    assert generate(Recorder(dead_end), None, None, begin(1), end=END, options=options) == [[]]
    assert list(stream(Recorder(dead_end), None, begin(1), end=END, options=options)) == [3, 3]
