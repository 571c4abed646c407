from pathlib import Path

from toy_runs import TINY, toy_pairs, write_pairs

from heed.config import merge
from heed.training.plan import make_plan


def test_updates_are_timed_even_where_an_epoch_has_but_one(tmp_path: Path) -> None:
    train, valid = (write_pairs(tmp_path / f"{seed}.tsv", toy_pairs(9, seed=seed)) for seed in (1, 2))
    settings = {"data": {"train": str(train), "valid": str(valid)}, "train": {"batch_tokens": 10_000}}
    plan = make_plan(merge(TINY, settings), {})
    assert plan.examples == 9
    assert 1e-4 < plan.seconds_per_step < 10  # forward, backward and optimizer take far longer than looking at a clock
