"""What all tests share: one thread, fixed seeds, and the two paths through attention."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from heed.model import ModelConfig

# The fixtures used beside @given hold nothing that an example changes, so it is no harm that they live across examples.
settings.register_profile(
    "heed", derandomize=True, database=None, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("heed")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _no_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is remembered for a user out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets that lies beside the repository, or skip the test."""
    folder = Path(__file__).parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data sets in ../shared/data beside the repository")
    return folder.resolve()


@pytest.fixture(params=["products", "fused"])
def attention_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send all attention of a test along one path: two batched products, or torch's fused kernel."""
    limit = 1 << 30 if request.param == "products" else -1
    limits = dict.fromkeys((torch.float32, torch.float64, torch.bfloat16), limit)
    monkeypatch.setattr("heed.model.attention.PRODUCTS_UP_TO", limits)
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ModelConfig]:
    """Return a maker of small configs, which name what they need rather than follow the defaults; keywords change single fields."""

    def make(**fields: Any) -> ModelConfig:
        sizes = {"vocab_size": 13, "d_model": 24, "n_heads": 4, "n_layers": 2, "d_ff": 20, "max_length": 64}
        fields = {"dropout": 0.0, "positions": "sinusoidal", **fields}
        return ModelConfig(**{**sizes, **fields})

    return make
