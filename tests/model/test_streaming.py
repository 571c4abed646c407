"""EncoderStream: what a stream answers is what the whole utterance gets, in any pieces, with memory that does not grow."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.errors import ConfigError, DataError
from heed.model import Encoder, EncoderStream, ModelConfig, Seq2Seq, build_model
from heed.model.config import of_chosen_kinds
from heed.model.packed import pack
from heed.model.positions import RotaryPositions, SinusoidalPositions, rotate, rotation
from heed.model.streaming import RollingCache

Maker = Callable[..., ModelConfig]


@pytest.fixture
def model(tiny_config: Maker) -> Callable[..., Encoder | Seq2Seq]:
    """Return a maker of small models that hear frames of 7 features in chunks of 3 places."""

    def make(**fields: Any) -> Encoder | Seq2Seq:
        usual = {"architecture": "encoder", "n_features": 7, "ctc": True, "attention": "chunked", "chunk": 3, "left_chunks": 2}
        usual |= {"mixer": "conformer", "kernel_size": 5, "positions": "rotary"}
        built = build_model(tiny_config(**of_chosen_kinds({**usual, **fields})))
        assert isinstance(built, Encoder | Seq2Seq)
        return built.eval()

    return make


def streamed(model: Encoder | Seq2Seq, frames: Tensor, sizes: Sequence[int]) -> Tensor:
    """Push frames (1, T, F) in pieces of these sizes, which are repeated as often as needed; returns all places."""
    stream, answers, begin, piece = EncoderStream(model), [], 0, 0
    while begin < frames.size(1):
        size = sizes[piece % len(sizes)]
        answers.append(stream.push(frames[:, begin : begin + size]))
        begin, piece = begin + size, piece + 1
    answers.append(stream.push(frames[:, :0], last=True))
    return torch.cat(answers, dim=1)


def offline(model: Encoder | Seq2Seq, frames: Tensor) -> Tensor:
    """Encode the whole utterance as a row of a padded batch."""
    T = frames.size(1)
    batch, mask = torch.cat([frames, torch.randn(1, 6, 7)], dim=1), torch.arange(T + 6)[None] < T
    with torch.inference_mode():
        return model.encode(batch, mask)[:, : -(-T // model.config.subsampling)]


@pytest.mark.parametrize("mixer", ["attention", "conformer"])
@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "sinusoidal_halves", "learned", "none"])
@pytest.mark.parametrize("architecture", ["encoder", "seq2seq"])
def test_a_stream_answers_as_the_whole_utterance(
    mixer: str, positions: str, architecture: str, model: Callable[..., Encoder | Seq2Seq]
) -> None:
    one = model(mixer=mixer, positions=positions, architecture=architecture, norm="rms", n_kv_heads=2)
    for n_frames in (1, 9, 13, 98, 131):
        frames = torch.randn(1, n_frames, 7)
        expected = offline(one, frames)
        for sizes in ([1], [5, 1, 8], [40], [200]):
            torch.testing.assert_close(streamed(one, frames, sizes), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=25)
@given(
    subsampling=st.sampled_from([1, 2, 4, 8]),
    chunk=st.sampled_from([1, 2, 5]),
    left_chunks=st.integers(0, 3),
    kernel_size=st.sampled_from([1, 3, 9]),
    n_frames=st.integers(1, 70),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_no_size_of_chunks_and_no_division_into_pieces_changes_the_answer(
    model: Any, *, subsampling: int, chunk: int, left_chunks: int, kernel_size: int, n_frames: int, sizes: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    one = model(subsampling=subsampling, chunk=chunk, left_chunks=left_chunks, kernel_size=kernel_size)
    frames = torch.randn(1, n_frames, 7)
    torch.testing.assert_close(streamed(one, frames, sizes), offline(one, frames), rtol=1e-4, atol=1e-4)


def test_long_streams_stay_exact_where_rotary_positions_have_been_turned_back_often(model: Callable[..., Encoder | Seq2Seq]) -> None:
    one, frames = model(chunk=1, left_chunks=40, mixer="attention", subsampling=1, rotary_base=50.0), torch.randn(1, 600, 7)
    torch.testing.assert_close(streamed(one, frames, [1]), offline(one, frames), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("subsampling", [1, 2, 4, 8])
def test_a_chunk_is_answered_as_soon_as_the_last_frame_it_sees_is_there(subsampling: int, model: Callable[..., Encoder | Seq2Seq]) -> None:
    stream = EncoderStream(model(subsampling=subsampling))
    answered = [stream.push(torch.randn(1, 1, 7)).size(1) for _ in range(9 * subsampling)]
    completed = [(3 * chunk + 2) * subsampling for chunk in range(3)]  # the first frame of a chunk's last place
    assert answered == [3 if frame in completed else 0 for frame in range(9 * subsampling)]
    assert stream.push(torch.randn(1, 1, 7), last=True).size(1) == 1


def tensors(value: Any) -> list[Tensor]:
    """Return all tensors that an object holds, its model's left out."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [found for one in value for found in tensors(one)]
    if dataclasses.is_dataclass(value) or isinstance(value, RollingCache):
        return tensors(list(vars(value).values()))
    return []


def state_size(stream: EncoderStream) -> int:
    """Return the bytes of all that a stream remembers, with what is kept alive behind views."""
    return sum(one.untyped_storage().nbytes() for one in tensors([stream.caches, stream.frames]))


def table_sizes(model: Encoder | Seq2Seq) -> list[int]:
    """Return how many positions a model has computed beforehand, in each of its tables."""
    return [module.table.size(0) for module in model.modules() if isinstance(module, RotaryPositions | SinusoidalPositions)]


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
@pytest.mark.parametrize("size", [1, 12, 37, 500])
def test_memory_does_not_grow_with_the_stream(positions: str, size: int, model: Callable[..., Encoder | Seq2Seq]) -> None:
    one = model(positions=positions)
    stream, frames = EncoderStream(one), torch.randn(1, size, 7)
    for _ in range(80 // size + 10):
        stream.push(frames)
    sizes, tables = [], table_sizes(one)
    for _ in range(max(1, 24 // size) * 20):
        stream.push(frames)
        sizes.append(state_size(stream))
    kept = 2 * (2 * 6 * 24 + 4 * 24)  # two layers: keys and values of two chunks, and four places for the convolution
    pending = (3 + 2) * 4  # frames of a chunk that is not complete, and of the two places before it
    assert 4 * kept <= min(sizes) <= max(sizes) <= 4 * (kept + pending * 7)
    assert tables == table_sizes(one)


def test_streams_of_one_model_do_not_mix(model: Callable[..., Encoder | Seq2Seq]) -> None:
    one = model()
    utterances = [torch.randn(1, 60, 7) for _ in range(2)]
    streams = [EncoderStream(one) for _ in utterances]
    answers: list[list[Tensor]] = [[], []]
    for begin in range(0, 60, 7):
        for stream, frames, found in zip(streams, utterances, answers, strict=True):
            found.append(stream.push(frames[:, begin : begin + 7], last=begin == 56))
    for frames, found in zip(utterances, answers, strict=True):
        torch.testing.assert_close(torch.cat(found, dim=1), offline(one, frames), rtol=1e-4, atol=1e-4)


def test_a_stream_keeps_no_hold_on_the_callers_frames(model: Callable[..., Encoder | Seq2Seq]) -> None:
    one, frames, room = model(), torch.randn(1, 20, 7), torch.empty(1, 5, 7)
    stream, found = EncoderStream(one), []
    for begin in range(0, 20, 5):
        found.append(stream.push(room.copy_(frames[:, begin : begin + 5])))  # the same memory for every piece
    found.append(stream.push(room[:, :0], last=True))
    torch.testing.assert_close(torch.cat(found, dim=1), offline(one, frames), rtol=1e-4, atol=1e-4)


# int8 rounds by row, but a sum that stands at the edge between two levels may fall either way
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2), (torch.int8, 2e-2)])
@pytest.mark.parametrize("mixer", ["attention", "conformer"])
@pytest.mark.parametrize("architecture", ["encoder", "seq2seq"])
def test_a_packed_model_streams_what_it_answers_offline(
    precision: torch.dtype, tolerance: float, mixer: str, architecture: str, model: Callable[..., Encoder | Seq2Seq]
) -> None:  # measured in bfloat16: 2.2e-2
    plain = model(mixer=mixer, architecture=architecture)
    packed, frames = pack(plain, precision), torch.randn(1, 98, 7)
    found, expected = streamed(packed, frames, [11]), offline(packed, frames)
    assert found.dtype == expected.dtype == torch.float32
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))
    with torch.inference_mode():
        assert packed.labels(found).shape == (1, 25, 13)


def test_a_silent_end_is_no_place(model: Callable[..., Encoder | Seq2Seq]) -> None:
    assert EncoderStream(model()).push(torch.empty(1, 0, 7), last=True).shape == (1, 0, 24)
    stream, frames = EncoderStream(model()), torch.randn(1, 12, 7)
    assert stream.push(frames).size(1) == 3
    assert stream.push(frames[:, :0], last=True).shape == (1, 0, 24)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": "full"}, r"model\.attention=full: a stream needs chunked; train with task\.streaming=true"),
        ({"n_features": None}, r"model\.n_features is not set: a stream is of frames of audio"),
    ],
)
def test_models_that_cannot_follow_a_stream_are_refused(
    fields: dict[str, Any], message: str, model: Callable[..., Encoder | Seq2Seq]
) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderStream(model(**fields))


def test_frames_that_cannot_be_heard_are_refused(model: Callable[..., Encoder | Seq2Seq]) -> None:
    stream = EncoderStream(model())
    for shape in ((1, 5, 8), (2, 5, 7), (5, 7)):
        with pytest.raises(DataError, match=r"expected \(1, T, 7\)"):
            stream.push(torch.randn(shape))
    stream.push(torch.randn(1, 5, 7), last=True)
    with pytest.raises(DataError, match="the stream has ended"):
        stream.push(torch.randn(1, 5, 7))


def test_learned_positions_end_where_they_were_trained_to(model: Callable[..., Encoder | Seq2Seq]) -> None:
    stream = EncoderStream(model(positions="learned", max_length=6))
    assert stream.push(torch.randn(1, 24, 7)).size(1) == 6
    with pytest.raises(DataError, match=r"does not fit model\.max_length=6"):
        stream.push(torch.randn(1, 24, 7))


@given(size=st.integers(0, 5), pieces=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_a_rolling_cache_holds_the_last_places_and_turns_them_to_count_from_the_oldest(size: int, pieces: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    n = sum(pieces)
    keys, values = torch.randn(2, 1, 3, n, 8)
    turned = rotate(keys, rotation(torch.arange(n), 8, 100.0))
    plain, rotary = RollingCache(size, None), RollingCache(size, RotaryPositions(8, 100.0))
    end = 0
    for length in pieces:
        begin, end, first = end, end + length, rotary.length
        new = rotate(keys[:, :, begin:end], rotation(torch.arange(first, first + length), 8, 100.0))
        found, all_values = rotary.append(new, values[:, :, begin:end])
        oldest = begin - first
        assert torch.equal(all_values, values[:, :, oldest:end])
        expected = rotate(turned[:, :, oldest:end], rotation(torch.tensor([-oldest]), 8, 100.0))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(plain.append(keys[:, :, begin:end], values[:, :, begin:end])[0], keys[:, :, oldest:end])
        assert rotary.length == plain.length == min(size, end)
