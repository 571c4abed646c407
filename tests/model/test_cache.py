"""Decoding step by step with caches, against the full forward of every row by itself."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.model import Causal, DecoderState, KVCache, ModelConfig, Seq2Seq, build_model
from heed.model.cache import BranchingCache, LayerCache

POSITIONS = ["sinusoidal", "learned", "rotary", "relative", "none"]
Maker = Callable[..., ModelConfig]

plans = st.fixed_dictionaries(
    {
        "sources": st.integers(1, 3),
        "group": st.integers(1, 3),
        "prefix": st.integers(1, 4),
        "steps": st.lists(st.booleans(), min_size=1, max_size=5),  # whether rows are selected before the step
        "kv_heads": st.sampled_from([4, 2, 1]),
        "seed": st.integers(0, 2**31),
    }
)


def random_rows(n_sources: int, group: int) -> Tensor:
    """Choose a few sources, in any order, and for each `group` of its rows, repeats allowed."""
    kept = torch.randperm(n_sources)[: int(torch.randint(1, n_sources + 1, ()))]
    return (kept[:, None] * group + torch.randint(0, group, (len(kept), group))).flatten()


class Rows:
    """The rows of a decoder written out in full: what a cache has to agree with."""

    def __init__(self, model: Causal | Seq2Seq, sources: Sequence[Tensor | None], targets: Sequence[Tensor]) -> None:
        self.model = model
        self.sources = list(sources)
        self.targets = list(targets)

    def expand(self, group: int) -> None:
        self.sources = [source for source in self.sources for _ in range(group)]
        self.targets = [target for target in self.targets for _ in range(group)]

    def select(self, rows: Tensor) -> None:
        self.sources = [self.sources[i] for i in rows.tolist()]
        self.targets = [self.targets[i] for i in rows.tolist()]

    def step(self, tokens: Tensor) -> Tensor:
        self.targets = [torch.cat([target, token[None]]) for target, token in zip(self.targets, tokens, strict=True)]
        return torch.stack([self._last(source, target[None]) for source, target in zip(self.sources, self.targets, strict=True)])

    def _last(self, source: Tensor | None, target: Tensor) -> Tensor:
        logits: Tensor = self.model(target) if source is None else self.model(source[None], None, target)
        return logits[0, -1]


def follow(plan: dict[str, Any], state: DecoderState, rows: Rows, last: Tensor) -> None:
    """Take the steps of a plan with the cache and in full, and compare the logits of every row after each."""
    model, group, n_sources = rows.model, plan["group"], plan["sources"]
    torch.testing.assert_close(model.step(last, state), rows.step(last), rtol=1e-5, atol=1e-5)
    state.expand(group)
    rows.expand(group)
    for selecting in plan["steps"]:
        if selecting:
            chosen = random_rows(n_sources, group)
            state.select(chosen)
            rows.select(chosen)
            n_sources = len(chosen) // group
        tokens = torch.randint(1, 13, (n_sources * group,))
        torch.testing.assert_close(model.step(tokens, state), rows.step(tokens), rtol=1e-5, atol=1e-5)
        assert state.n_rows == n_sources * group


@pytest.mark.parametrize("positions", POSITIONS)
@settings(max_examples=10)
@given(plan=plans)
def test_seq2seq_steps_equal_the_full_forward_through_beams_and_selections(
    attention_path: str, tiny_config: Maker, positions: str, plan: dict[str, Any]
) -> None:
    torch.manual_seed(plan["seed"])
    model = build_model(tiny_config(positions=positions, n_kv_heads=plan["kv_heads"], source_vocab_size=17)).eval()
    assert isinstance(model, Seq2Seq)
    sources = [torch.randint(1, 17, (int(torch.randint(1, 7, ())),)) for _ in range(plan["sources"])]
    padded = torch.nn.utils.rnn.pad_sequence(sources, batch_first=True)
    prefix = torch.randint(1, 13, (plan["sources"], plan["prefix"]))
    with torch.no_grad():
        state = model.start(padded, padded != 0, prefix)
        follow(plan, state, Rows(model, sources, list(prefix[:, :-1])), prefix[:, -1])


@pytest.mark.parametrize("positions", POSITIONS)
@settings(max_examples=10)
@given(plan=plans, padded=st.booleans())
def test_causal_steps_equal_the_full_forward_also_for_prompts_padded_on_the_left(
    attention_path: str, tiny_config: Maker, positions: str, plan: dict[str, Any], padded: bool
) -> None:
    torch.manual_seed(plan["seed"])
    model = build_model(tiny_config(architecture="causal", positions=positions, n_kv_heads=plan["kv_heads"])).eval()
    assert isinstance(model, Causal)
    n, width = plan["sources"], plan["prefix"] + 2
    prefix = torch.randint(1, 13, (n, width))
    lengths = torch.randint(1, width + 1, (n,)) if padded else torch.full((n,), width)
    mask = torch.arange(width) >= width - lengths[:, None]
    prompts = [prefix[i, width - int(lengths[i]) :] for i in range(n)]
    with torch.no_grad():
        state = model.start(None, mask if padded else None, prefix)
        follow(plan, state, Rows(model, [None] * n, [prompt[:-1] for prompt in prompts]), prefix[:, -1])


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_a_state_may_be_expanded_and_selected_before_its_first_step(architecture: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture=architecture)).eval()
    assert isinstance(model, Causal | Seq2Seq)
    sources = [torch.randint(1, 13, (5,)) for _ in range(3)]
    prefix, tokens = torch.randint(1, 13, (3, 1)), torch.randint(1, 13, (4,))
    inputs = torch.stack(sources)
    with torch.no_grad():
        state = model.start(inputs, None, prefix) if isinstance(model, Seq2Seq) else model.start(None, None, prefix)
        state.expand(2)
        state.select(torch.tensor([5, 5, 0, 1]))
        kept = [None] * 4 if isinstance(model, Causal) else [sources[2], sources[2], sources[0], sources[0]]
        expected = Rows(model, kept, [prefix[0, :0]] * 4).step(tokens)
        torch.testing.assert_close(model.step(tokens, state), expected, rtol=1e-5, atol=1e-5)


def test_long_answers_outgrow_the_first_allocation(tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture="causal", n_layers=1)).eval()
    assert isinstance(model, Causal)
    ids = torch.randint(1, 13, (2, 50))
    with torch.no_grad():
        state = model.start(None, None, ids[:, :3])
        steps = torch.stack([model.step(ids[:, i], state) for i in range(2, 50)], dim=1)
    torch.testing.assert_close(steps, model(ids)[:, 2:], rtol=1e-5, atol=1e-5)


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_a_cache_returns_everything_it_was_given(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    cache, keys, values = KVCache(), torch.randn(2, 3, sum(sizes), 4), torch.randn(2, 3, sum(sizes), 4)
    end = 0
    for size in sizes:
        new = slice(end, end + size)
        end += size
        k, v = cache.append(keys[:, :, new], values[:, :, new])
        assert torch.equal(k, keys[:, :, :end])
        assert torch.equal(v, values[:, :, :end])
        assert cache.length == end


def test_selected_rows_keep_their_past() -> None:
    cache, keys = KVCache(), torch.randn(3, 2, 5, 4)
    cache.append(keys, -keys)
    cache.select(torch.tensor([2, 0, 2, 2]))
    k, v = cache.append(torch.zeros(4, 2, 1, 4), torch.zeros(4, 2, 1, 4))
    assert torch.equal(k[:, :, :5], keys[[2, 0, 2, 2]])
    assert torch.equal(v[:, :, :5], -keys[[2, 0, 2, 2]])


@given(seed=st.integers(0, 2**31), n_rows=st.integers(1, 4), n_steps=st.integers(1, 20))
def test_a_branching_cache_remembers_what_a_copying_one_does(seed: int, n_rows: int, n_steps: int) -> None:
    torch.manual_seed(seed)
    first = BranchingCache()
    branching, copying = [first, BranchingCache(first)], [KVCache(), KVCache()]
    rows = torch.arange(n_rows)
    for _ in range(n_steps):
        for one, other in zip(branching, copying, strict=True):
            k, v = (torch.randn(rows.numel(), 2, 1, 4) for _ in range(2))
            stores = one.room_for(k.shape, k)
            for store, new in zip(stores, (k, v), strict=True):
                store[first.trail[:, one.length], :, one.length] = new[:, :, 0]
            other.append(k, v)
        for one in branching:
            one.length += 1
        rows = torch.randint(0, rows.numel(), (int(torch.randint(1, 5, ())),))
        for cache in (*branching, *copying):
            cache.select(rows)
        assert first.n_rows == rows.numel()
    for one, other in zip(branching, copying, strict=True):
        k = torch.randn(rows.numel(), 2, 1, 4)
        for found, expected in zip(one.append(k, -k), other.append(k, -k), strict=True):
            assert torch.equal(found, expected)


def test_appending_does_not_copy_the_past() -> None:
    cache = KVCache()
    first, _ = cache.append(torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 4))
    second, _ = cache.append(torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 4))
    assert first.data_ptr() == second.data_ptr()


def test_beams_share_the_keys_and_values_of_their_source() -> None:
    source = (torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4))
    state = DecoderState([LayerCache(source=source)], source_mask=torch.ones(2, 5, dtype=torch.bool))
    state.expand(4)
    state.select(torch.tensor([3, 0, 0, 1, 4, 4, 7, 5]))  # reordered, but each within its source
    assert state.n_rows == 8
    assert state.layers[0].source is source
    state.select(torch.tensor([4, 4, 7, 5]))
    kept = state.layers[0].source
    assert kept is not None
    assert torch.equal(kept[0], source[0][1:])
    assert state.source_mask is not None
    assert state.source_mask.shape == (1, 5)


def test_expanding_twice_multiplies_the_group(tiny_config: Maker) -> None:
    model = build_model(tiny_config()).eval()
    assert isinstance(model, Seq2Seq)
    inputs, prefix = torch.randint(1, 13, (2, 5)), torch.randint(1, 13, (2, 1))
    with torch.no_grad():
        state, rows = model.start(inputs, None, prefix), Rows(model, list(inputs), list(prefix[:, :0]))
        for group in (2, 3):
            tokens = torch.randint(1, 13, (state.n_rows,))
            torch.testing.assert_close(model.step(tokens, state), rows.step(tokens), rtol=1e-5, atol=1e-5)
            state.expand(group)
            rows.expand(group)
        chosen = torch.tensor([11, 6, 7, 7, 8, 9])  # the second source alone
        state.select(chosen)
        rows.select(chosen)
        tokens = torch.randint(1, 13, (6,))
        torch.testing.assert_close(model.step(tokens, state), rows.step(tokens), rtol=1e-5, atol=1e-5)
