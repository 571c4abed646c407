"""AudioStem: exact lengths, its definition, how far a frame is heard, and that padding changes nothing."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.errors import DataError
from heed.model import AudioStem, ModelConfig, Seq2Seq, build_model, sinusoid_table
from heed.model.positions import LearnedPositions
from heed.model.stems import TimeStem, build_audio_stem

Maker = Callable[..., ModelConfig]
SUBSAMPLINGS = [1, 2, 4, 8]
KINDS = ["full", "chunked"]


@pytest.fixture
def stem(tiny_config: Maker) -> Callable[..., AudioStem]:
    """Return a maker of stems for frames of 11 features; positions act elsewhere unless named."""

    def make(**fields: object) -> AudioStem:
        config = tiny_config(**{"architecture": "encoder", "n_features": 11, "positions": "rotary", **fields})
        stem = AudioStem(config, 11)
        with torch.no_grad():
            for name, parameter in stem.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_()
        return stem

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_frames_become_exactly_as_many_places_as_subsampling_says(kind: str, subsampling: int, stem: Callable[..., AudioStem]) -> None:
    one = stem(attention=kind, subsampling=subsampling)
    for n_frames in range(1, 41):
        n_places = math.ceil(n_frames / subsampling)
        assert one(torch.randn(2, n_frames, 11)).shape == (2, n_places, 24)
        mask = torch.arange(40) < torch.tensor([[n_frames], [40]])
        assert one.shortened(mask).sum(1).tolist() == [n_places, 40 // subsampling]
        assert torch.equal(one.shortened(mask)[0], torch.arange(40 // subsampling) < n_places)


@pytest.mark.parametrize("kind", KINDS)
@given(subsampling=st.sampled_from(SUBSAMPLINGS), lengths=st.lists(st.integers(1, 23), min_size=2, max_size=4), seed=st.integers(0, 999))
def test_padding_and_batch_mates_change_nothing(
    kind: str, subsampling: int, lengths: list[int], seed: int, stem: Callable[..., AudioStem]
) -> None:
    torch.manual_seed(seed)
    one = stem(attention=kind, subsampling=subsampling)
    padded, mask = torch.randn(len(lengths), 27, 11), torch.arange(27) < torch.tensor(lengths)[:, None]
    together, real = one(padded, mask), one.shortened(mask)
    for row, length in enumerate(lengths):
        alone = one(padded[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row, real[row]], alone, rtol=1e-5, atol=1e-5)


def halved(x: Tensor, weight: Tensor, bias: Tensor, n_before: int) -> Tensor:
    """Convolve x (B, C, T, F) by the formula: the line s begins `n_before` lines before 2 s, the column f one before 2 f."""
    (B, _, T, n_bands), n_channels = x.shape, weight.size(0)
    out = torch.zeros(B, n_channels, -(-T // 2), -(-n_bands // 2), dtype=x.dtype)
    for s in range(out.size(2)):
        for f in range(out.size(3)):
            out[:, :, s, f] = bias
            for i in range(3):
                for j in range(3):
                    t, band = 2 * s - n_before + i, 2 * f - 1 + j
                    if 0 <= t < T and 0 <= band < n_bands:
                        out[:, :, s, f] += x[:, :, t, band] @ weight[:, :, i, j].T
    return out


@pytest.mark.parametrize(("kind", "n_before"), [("full", 1), ("chunked", 2)])
def test_a_stem_equals_its_definition(kind: str, n_before: int, stem: Callable[..., AudioStem]) -> None:
    one, features = stem(attention=kind, subsampling=4, activation="silu").double(), torch.randn(2, 9, 11, dtype=torch.float64)
    x = features[:, None]
    for layer in one.layers:
        x = F.silu(halved(x, layer.get_parameter("weight"), layer.get_parameter("bias"), n_before))
    x = torch.stack([x[:, :, s].flatten(1) for s in range(3)], dim=1)  # channels outside, bands inside
    expected = x @ one.output.get_parameter("weight").T + one.output.get_parameter("bias")
    torch.testing.assert_close(one(features), expected, rtol=1e-10, atol=1e-10)


@pytest.fixture
def time_stem(tiny_config: Maker) -> Callable[..., AudioStem]:
    """Return a maker of stems that convolve over time alone, for frames of 11 features."""

    def make(**fields: object) -> AudioStem:
        fields = {"architecture": "encoder", "n_features": 11, "positions": "none", "audio_stem": "frames1d", "subsampling": 2, **fields}
        stem = build_audio_stem(tiny_config(**fields), 11)
        for layer in stem.layers:
            torch.nn.init.normal_(layer.get_parameter("bias"))
        return stem

    return make


def test_a_stem_over_time_alone_equals_its_definition(time_stem: Callable[..., AudioStem]) -> None:
    one, features = time_stem().double(), torch.randn(2, 9, 11, dtype=torch.float64)
    x = features
    for layer, stride in zip(one.layers, (1, 2), strict=True):
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")  # (D, F, 3)
        lines = []
        for s in range(-(-x.size(1) // stride)):
            line = bias.expand(2, -1)
            for i in range(3):
                t = s * stride - 1 + i
                line = line + x[:, t] @ weight[:, :, i].T if 0 <= t < x.size(1) else line
            lines.append(line)
        x = F.gelu(torch.stack(lines, dim=1))
    torch.testing.assert_close(one(features), x, rtol=1e-10, atol=1e-10)


def test_a_stem_over_time_alone_makes_one_place_of_two_frames_and_hears_no_padding(time_stem: Callable[..., AudioStem]) -> None:
    one = time_stem(positions="learned", max_length=9)
    for n_frames in range(1, 14):
        padded, mask = torch.randn(2, 17, 11), torch.arange(17) < torch.tensor([[n_frames], [17]])
        together, alone = one(padded, mask), one(padded[:1, :n_frames])
        n_places = math.ceil(n_frames / 2)
        assert together.shape == (2, 9, 24)
        assert alone.shape == (1, n_places, 24)
        assert one.shortened(mask).sum(1).tolist() == [n_places, 9]
        torch.testing.assert_close(together[:1, :n_places], alone, rtol=1e-5, atol=1e-5)


def test_a_model_has_the_stem_that_it_names_with_positions_for_its_source(tiny_config: Maker) -> None:
    fields = {"n_features": 11, "subsampling": 2, "positions": "learned", "max_source_length": 5}
    for kind, expected in (("frames1d", TimeStem), ("frames2d", AudioStem)):
        model = build_model(tiny_config(audio_stem=kind, **fields))
        assert isinstance(model, Seq2Seq)
        assert type(model.source_stem) is expected
        assert model.get_parameter("source_stem.positions.embedding.weight").shape == (5, 24)
        target = torch.randint(1, 13, (2, 9))
        assert model(torch.randn(2, 10, 11), None, target).shape == (2, 9, 13)
        with pytest.raises(DataError, match=r"model\.max_source_length=5"):
            model(torch.randn(2, 11, 11), None, target)


def test_without_subsampling_each_frame_is_mapped_alone(stem: Callable[..., AudioStem]) -> None:
    one, features = stem(subsampling=1), torch.randn(2, 5, 11)
    expected = F.linear(features, one.output.get_parameter("weight"), one.output.get_parameter("bias"))
    torch.testing.assert_close(one(features), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_place_sees_the_frames_around_its_own_and_in_chunks_none_that_comes_later(
    kind: str, subsampling: int, stem: Callable[..., AudioStem]
) -> None:
    one, n_frames, reach = stem(attention=kind, subsampling=subsampling, activation="tanh").double(), 64, subsampling - 1
    before, after = (2 * reach, 0) if kind == "chunked" else (reach, reach)
    features = torch.randn(1, n_frames, 11, dtype=torch.float64, requires_grad=True)
    for place in (0, 24 // subsampling, 64 // subsampling - 1):
        (gradient,) = torch.autograd.grad(one(features)[0, place].sum(), features)
        frames = torch.arange(n_frames) - place * subsampling
        assert torch.equal((gradient[0] != 0).any(-1), (frames >= -before) & (frames <= after))


def test_positions_are_added_to_places_rather_than_to_frames(stem: Callable[..., AudioStem]) -> None:
    features = torch.randn(2, 13, 11)
    one = stem(positions="sinusoidal")
    torch.testing.assert_close(one(features), one.heard(features) + sinusoid_table(4, 24), rtol=1e-6, atol=1e-6)
    one = stem(positions="learned")
    assert isinstance(one.positions, LearnedPositions)
    torch.testing.assert_close(one(features), one.heard(features) + one.positions.embedding.weight[:4], rtol=1e-6, atol=1e-6)
    one = stem(positions="rotary")
    assert torch.equal(one(features), one.heard(features))


def test_vectors_are_dropped_in_training_only(stem: Callable[..., AudioStem]) -> None:
    one, features = stem(dropout=0.5), torch.randn(2, 40, 11)
    assert 0.3 < (one(features) == 0).float().mean().item() < 0.7
    assert bool((one.eval()(features) != 0).all())


def test_the_residual_stream_is_float32_whatever_the_products_are(stem: Callable[..., AudioStem]) -> None:
    one, features, mask = stem(), torch.randn(2, 9, 11), torch.arange(9) < torch.tensor([[9], [5]])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = one(features, mask).detach()
    assert rounded.dtype == torch.float32
    found, exact = rounded[:, :2], one(features, mask)[:, :2].detach()
    assert (found - exact).abs().max() <= 2e-2 * max(1.0, float(exact.abs().max()))


def test_every_weight_learns_and_a_row_of_padding_gives_it_finite_gradients(stem: Callable[..., AudioStem]) -> None:
    one, mask = stem(activation="silu"), torch.arange(9) < torch.tensor([[9], [0]])
    torch.autograd.backward(one(torch.randn(2, 9, 11), mask).square().sum())
    for parameter in one.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())
        assert bool((parameter.grad != 0).any())


def test_vectors_begin_as_large_as_normalised_features(tiny_config: Maker) -> None:
    config = tiny_config(architecture="encoder", n_features=80, d_model=144, positions="none")
    features = torch.randn(4, 200, 80)
    assert 0.5 < AudioStem(config, 80)(features).std().item() < 2
