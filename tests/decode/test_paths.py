import itertools

import pytest
import torch

from heed.decode.paths import best_paths

torch.manual_seed(2)
B, W, C = 3, 4, 5
LENGTHS = [4, 2, 0]


def test_the_best_path_is_that_of_all_that_are_allowed() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        log_p = torch.randn(B, W, C).log_softmax(-1)
        mask = torch.arange(W) < torch.tensor(LENGTHS)[:, None]
        begins, ends, follows = torch.rand(C) < 0.6, torch.rand(C) < 0.6, torch.rand(C, C) < 0.5
        begins[0] = ends[0] = follows[0] = True
        found = best_paths(log_p, mask, begins=begins, follows=follows, ends=ends)
        for row, n in enumerate(LENGTHS):
            allowed = [
                path
                for path in itertools.product(range(C), repeat=n)
                if not path or (begins[path[0]] and ends[path[-1]] and all(follows[a, b] for a, b in itertools.pairwise(path)))
            ]
            best = max(allowed, key=lambda path: sum(float(log_p[row, place, tag]) for place, tag in enumerate(path)))
            assert found[row].tolist() == [*best, *[0] * (W - n)]


def test_where_all_is_allowed_each_place_has_its_likeliest() -> None:
    log_p, mask = torch.randn(B, W, C), torch.ones(B, W, dtype=torch.bool)
    free = torch.ones(C, dtype=torch.bool)
    found = best_paths(log_p, mask, begins=free, follows=free.expand(C, C), ends=free)
    assert torch.equal(found, log_p.argmax(-1))


@pytest.mark.parametrize("width", [0, 1])
def test_sentences_without_words_have_no_path(width: int) -> None:
    free = torch.ones(C, dtype=torch.bool)
    found = best_paths(torch.randn(B, width, C), torch.zeros(B, width, dtype=torch.bool), begins=free, follows=free.expand(C, C), ends=free)
    assert found.tolist() == [[0] * width] * B
