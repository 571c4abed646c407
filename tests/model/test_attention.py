"""attend, attention_weights and the masks, against definitions in plain loops and torch's own kernel."""

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.model import attend, attention_weights, causal_mask, padding_mask, same_text_mask
from heed.model.attention import RUN


class Case(NamedTuple):
    """Inputs of one attention."""

    q: Tensor
    k: Tensor
    v: Tensor
    attn_mask: Tensor | None
    bias: Tensor | None
    causal: bool
    scale: float | None


@st.composite
def cases(draw: st.DrawFn, dtype: torch.dtype = torch.float32, *, grouped: bool = True, blind: bool = True) -> Case:
    """Draw shapes with H' dividing H, any mask (or one that leaves every query something to see), bias, causal and scale."""
    B, H_kv, shared = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2 if grouped else 1))
    causal = draw(st.booleans())
    T = draw(st.integers(1, 6))
    S = draw(st.integers(1 if blind or not causal else T, 7))
    E = draw(st.integers(1, 5))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    H = H_kv * shared
    mask_shape = draw(st.sampled_from([None, (B, 1, 1, S), (B, H, T, S), (T, S), (1, 1, T, S)]))
    bias_shape = draw(st.sampled_from([None, (1, H, T, S), (B, H, T, S)]))
    attn_mask = None if mask_shape is None else torch.rand(mask_shape) < draw(st.sampled_from([0.2, 0.7]))
    if attn_mask is not None and not blind:
        attn_mask[..., 0] = True
    return Case(
        torch.randn(B, H, T, E, dtype=dtype),
        torch.randn(B, H_kv, S, E, dtype=dtype),
        torch.randn(B, H_kv, S, E, dtype=dtype),
        attn_mask,
        None if bias_shape is None else torch.randn(bias_shape, dtype=dtype),
        causal,
        draw(st.sampled_from([None, 1.0, 0.3])),
    )


def allowed_pairs(case: Case) -> Tensor:
    """Spell the mask and `causal` out as (B, H, T, S)."""
    (B, H, T, _), S = case.q.shape, case.k.size(2)
    allowed = torch.ones(B, H, T, S, dtype=torch.bool) if case.attn_mask is None else case.attn_mask.expand(B, H, T, S).clone()
    for t in range(T):
        for s in range(S):
            if case.causal and s > S - T + t:
                allowed[:, :, t, s] = False
    return allowed


def weights_by_loops(case: Case) -> Tensor:
    """Write softmax(q k^T * scale + bias) out, one number at a time, in float64."""
    (B, H, T, E), S = case.q.shape, case.k.size(2)
    allowed, scale = allowed_pairs(case), 1 / math.sqrt(E) if case.scale is None else case.scale
    bias = torch.zeros(()) if case.bias is None else case.bias
    bias, k = bias.double().expand(B, H, T, S), case.k.double().repeat_interleave(H // case.k.size(1), dim=1)
    weights = torch.zeros(B, H, T, S, dtype=torch.float64)
    for b, h, t in torch.cartesian_prod(torch.arange(B), torch.arange(H), torch.arange(T)).view(-1, 3).tolist():
        scores = {
            s: sum(float(case.q[b, h, t, e]) * float(k[b, h, s, e]) for e in range(E)) * scale + float(bias[b, h, t, s])
            for s in range(S)
            if allowed[b, h, t, s]
        }
        norm = sum(math.exp(score) for score in scores.values())
        for s, score in scores.items():
            weights[b, h, t, s] = math.exp(score) / norm
    return weights


def run(case: Case) -> Tensor:
    return attend(case.q, case.k, case.v, case.attn_mask, causal=case.causal, bias=case.bias, scale=case.scale)


@given(case=cases())
def test_attend_equals_the_definition_in_loops(attention_path: str, case: Case) -> None:
    v = case.v.double().repeat_interleave(case.q.size(1) // case.v.size(1), dim=1)
    torch.testing.assert_close(run(case).double(), weights_by_loops(case) @ v, rtol=1e-5, atol=1e-5)


@given(case=cases(blind=False))
def test_attend_equals_torch_sdpa(attention_path: str, case: Case) -> None:
    allowed = allowed_pairs(case)
    bias = torch.zeros(()) if case.bias is None else case.bias
    expected = F.scaled_dot_product_attention(
        case.q, case.k, case.v, attn_mask=torch.where(allowed, bias, -torch.inf), scale=case.scale, enable_gqa=True
    )
    torch.testing.assert_close(run(case), expected, rtol=1e-6, atol=1e-6)


@given(case=cases(grouped=False))
def test_attend_is_the_weights_times_the_values(attention_path: str, case: Case) -> None:
    weights = attention_weights(case.q, case.k, allowed_pairs(case), bias=case.bias, scale=case.scale)
    torch.testing.assert_close(run(case), weights @ case.v, rtol=1e-5, atol=1e-5)


@given(case=cases(grouped=False))
def test_weights_equal_the_definition_in_loops(case: Case) -> None:
    weights = attention_weights(case.q, case.k, allowed_pairs(case), bias=case.bias, scale=case.scale)
    torch.testing.assert_close(weights.double(), weights_by_loops(case), rtol=1e-5, atol=1e-6)


@given(case=cases(grouped=False))
def test_a_row_of_weights_sums_to_one_or_sees_nothing(case: Case) -> None:
    allowed = allowed_pairs(case)
    weights = attention_weights(case.q, case.k, allowed, bias=case.bias, scale=case.scale)
    torch.testing.assert_close(weights.sum(-1), allowed.any(-1).float())
    assert bool((weights >= 0).all())
    assert bool((weights[~allowed] == 0).all())


@given(case=cases(grouped=False, blind=False))
def test_every_output_lies_between_the_lowest_and_highest_value(attention_path: str, case: Case) -> None:
    mixed, slack = run(case), 1e-5
    assert bool((mixed <= case.v.amax(2, keepdim=True) + slack).all())
    assert bool((mixed >= case.v.amin(2, keepdim=True) - slack).all())


@given(case=cases(), seed=st.integers(0, 2**31))
def test_values_that_may_not_be_seen_have_no_effect_to_the_bit(attention_path: str, case: Case, seed: int) -> None:
    torch.manual_seed(seed)
    seen = allowed_pairs(case).flatten(0, 2).any(0)  # (S,): keys that some query of some head may look at
    changed = case._replace(
        k=torch.where(seen[:, None], case.k, torch.randn_like(case.k)), v=torch.where(seen[:, None], case.v, 100 * torch.randn_like(case.v))
    )
    assert torch.equal(run(case), run(changed))


@given(n=st.integers(2, 40), token=st.integers(0, 39), seed=st.integers(0, 2**31), batch=st.integers(1, 2))
def test_editing_a_token_leaves_every_earlier_output_bit_identical(attention_path: str, n: int, token: int, seed: int, batch: int) -> None:
    torch.manual_seed(seed)
    token %= n
    q, k, v = torch.randn(3, batch, 3, n, 5)
    edited = torch.stack([q, k, v])
    edited[:, :, :, token] = torch.randn(5)
    before, after = attend(q, k, v, causal=True), attend(edited[0], edited[1], edited[2], causal=True)
    assert torch.equal(before[:, :, :token], after[:, :, :token])
    assert not torch.equal(before[:, :, token], after[:, :, token])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_a_fully_masked_row_gives_zeros_and_finite_gradients(attention_path: str, dtype: torch.dtype, causal: bool) -> None:
    q, k, v = (torch.randn(2, 3, n, 4, dtype=dtype, requires_grad=True) for n in (5, 5, 5))
    attn_mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    attn_mask[0] = False  # an empty sequence
    attn_mask[1, :, 2] = False  # one blind query
    mixed = attend(q, k, v, attn_mask, causal=causal)
    assert bool((mixed[0] == 0).all())
    assert bool((mixed[1, :, 2] == 0).all())
    assert bool((mixed[1, :, 3].float().abs() > 0).any())
    torch.autograd.backward(mixed.float().square().sum())
    for x in (q, k, v):
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())
        assert bool((x.grad[0] == 0).all())
    assert q.grad is not None
    assert bool((q.grad[1, :, 2] == 0).all())


def test_no_keys_at_all_give_zeros(attention_path: str) -> None:
    assert torch.equal(attend(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 0, 5), torch.randn(2, 3, 0, 5)), torch.zeros(2, 3, 4, 5))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_gradients_equal_finite_differences(attention_path: str, causal: bool, with_mask: bool) -> None:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    attn_mask = torch.rand(2, 1, 3, 4) < 0.6 if with_mask else None
    if attn_mask is not None:
        attn_mask[0, :, 1] = False
    q, k, v, bias = leaf(2, 4, 3, 2), leaf(2, 2, 4, 2), leaf(2, 2, 4, 2), leaf(1, 4, 3, 4)
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, attn_mask, causal=causal), (q, k, v))
    assert torch.autograd.gradcheck(lambda q, k, v, bias: attend(q, k, v, attn_mask, causal=causal, bias=bias), (q, k, v, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_paths_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    inputs = [torch.randn(2, 3, n, 4) for n in (5, 7, 7)]
    attn_mask = torch.rand(2, 1, 5, 7) < 0.7
    gradients = []
    for limit in (-1, 1 << 30):
        monkeypatch.setattr("heed.model.attention.PRODUCTS_UP_TO", {dtype: limit})
        q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in inputs)
        torch.autograd.backward(attend(q, k, v, attn_mask).float().square().sum())
        gradients.append([q.grad, k.grad, v.grad])
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2  # bfloat16 gradients up to 12 in size differ by up to 0.031 over five seeds
    torch.testing.assert_close(gradients[0], gradients[1], rtol=tolerance, atol=tolerance)


def test_bfloat16_stays_close_to_float32(attention_path: str) -> None:
    q, k, v = torch.randn(3, 2, 3, 9, 8)
    attn_mask = padding_mask(torch.arange(9) < torch.tensor([[9], [4]]))
    low = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), attn_mask)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), attend(q, k, v, attn_mask), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_scores_stay_finite(attention_path: str, size: float) -> None:
    q, k = torch.ones(1, 1, 2, 1), torch.tensor([0.0, 1.0, 0.5]).view(1, 1, 3, 1) * size
    weights = attention_weights(q, k)
    winner = 1 if size > 0 else 0
    torch.testing.assert_close(weights, F.one_hot(torch.tensor([[[winner, winner]]]), 3).float())
    torch.testing.assert_close(attend(q, k, torch.eye(3).view(1, 1, 3, 3)[..., :1]), weights[..., :1])


def test_weights_are_float32_whatever_the_inputs() -> None:
    q, k = torch.randn(2, 1, 2, 3, 4, dtype=torch.bfloat16)
    assert attention_weights(q, k).dtype == torch.float32


@pytest.mark.parametrize(("d_head", "unscaled_max"), [(4, 0.489), (64, 0.865), (512, 0.955)])
def test_unscaled_scores_grow_with_the_root_of_d_head_and_saturate_the_softmax(d_head: int, unscaled_max: float) -> None:
    q, k = torch.randn(1, 4000, 1, d_head), torch.randn(1, 4000, 10, d_head)
    scores = q @ k.transpose(-1, -2)
    assert scores.std().item() == pytest.approx(math.sqrt(d_head), rel=0.03)
    assert (scores / math.sqrt(d_head)).std().item() == pytest.approx(1.0, rel=0.03)
    assert attention_weights(q, k, scale=1.0).amax(-1).mean().item() == pytest.approx(unscaled_max, abs=0.01)
    assert attention_weights(q, k).amax(-1).mean().item() == pytest.approx(0.31, abs=0.02)


@given(case=cases(grouped=False, blind=False))
def test_heads_in_a_loop_equal_heads_in_one_product(attention_path: str, case: Case) -> None:
    allowed = allowed_pairs(case)
    heads = []
    for h in range(case.q.size(1)):
        one = slice(h, h + 1)
        bias = None if case.bias is None else case.bias[:, one]
        heads.append(attend(case.q[:, one], case.k[:, one], case.v[:, one], allowed[:, one], bias=bias, scale=case.scale))
    torch.testing.assert_close(run(case), torch.cat(heads, dim=1), rtol=1e-6, atol=1e-6)


@given(case=cases(), seed=st.integers(0, 2**31))
def test_the_order_of_keys_does_not_matter(attention_path: str, case: Case, seed: int) -> None:
    order = torch.randperm(case.k.size(2), generator=torch.Generator().manual_seed(seed))
    allowed, bias = allowed_pairs(case), None if case.bias is None else case.bias[..., order]
    shuffled = case._replace(k=case.k[:, :, order], v=case.v[:, :, order], attn_mask=allowed[..., order], bias=bias, causal=False)
    torch.testing.assert_close(run(case), run(shuffled), rtol=1e-6, atol=1e-6)


@given(case=cases(), extra=st.integers(1, 5))
def test_appending_masked_keys_changes_nothing(attention_path: str, case: Case, extra: int) -> None:
    longer = case._replace(
        k=F.pad(case.k, (0, 0, 0, extra), value=3.0),
        v=F.pad(case.v, (0, 0, 0, extra), value=50.0),
        bias=None if case.bias is None else F.pad(case.bias, (0, extra), value=9.0),
        attn_mask=F.pad(allowed_pairs(case), (0, extra)),
        causal=False,
    )
    torch.testing.assert_close(run(longer), run(case), rtol=1e-6, atol=1e-6)


def test_inputs_need_not_be_contiguous(attention_path: str) -> None:
    q, k, v = (torch.randn(2, n, 3, 4).transpose(1, 2) for n in (5, 7, 7))
    expected = attend(q.contiguous(), k.contiguous(), v.contiguous())
    torch.testing.assert_close(attend(q, k, v), expected, rtol=1e-6, atol=1e-6)


def test_the_causal_mask_lets_the_last_queries_see_themselves_and_all_before() -> None:
    expected = torch.tensor([[True, True, True, False, False], [True, True, True, True, False], [True, True, True, True, True]])
    assert torch.equal(causal_mask(3, 5), expected)
    assert torch.equal(causal_mask(4, 4), torch.ones(4, 4, dtype=torch.bool).tril())


def test_the_padding_mask_is_the_same_for_every_head_and_query() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert torch.equal(padding_mask(mask).expand(2, 4, 5, 3), mask[:, None, None].repeat(1, 4, 5, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causality_holds_to_the_bit_where_the_fused_kernel_works_in_tiles(attention_path: str, dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 1, 2, 600, 8, dtype=dtype)
    edited = torch.stack([q, k, v])
    edited[:, :, :, 333:] = torch.randn(3, 1, 2, 267, 8, dtype=dtype)
    before, after = attend(q, k, v, causal=True), attend(edited[0], edited[1], edited[2], causal=True)
    assert torch.equal(before[:, :, :333], after[:, :, :333])


@pytest.mark.parametrize("biased", [False, True])
def test_texts_in_a_long_row_are_mixed_run_by_run_as_by_the_formula(attention_path: str, biased: bool) -> None:
    T = 2 * RUN + 9
    q, k, v = (torch.randn(2, n, T, 4, requires_grad=True) for n in (6, 3, 3))
    bias = torch.randn(1, 6, T, T) if biased else None
    numbers = torch.stack([torch.arange(T) // 50, torch.arange(T) // 7])
    mask = same_text_mask(numbers)
    mask[1, 0, 70:80] = False  # some queries are blind
    keys, values = (x.repeat_interleave(2, dim=1) for x in (k, v))
    expected = attention_weights(q, keys, mask & causal_mask(T, T), bias=bias) @ values
    found = attend(q, k, v, mask, causal=True, bias=bias)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(found)
    pairs = zip(*(torch.autograd.grad(one, (q, k, v), upstream) for one in (found, expected)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
