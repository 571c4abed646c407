"""Forward and backward of attention: two batched products against torch's fused kernel, by sequence length.

Run: heed bench attention
PRODUCTS_UP_TO in heed/model/attention.py follows from the ratios, and from the memory that products take, which grows with the square.
"""

import statistics
import time
from collections.abc import Callable

import torch

from heed.device import describe_machine, keep_memory
from heed.model import attention

SHAPES = [(128, 4, 32, 64), (32, 4, 128, 64), (16, 4, 256, 64), (4, 8, 512, 64), (2, 8, 1024, 64)]


def milliseconds(function: Callable[[], None], repeats: int = 7) -> float:
    """Return the median time of a call after two warm-up calls."""
    for _ in range(2):
        function()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def step(shape: tuple[int, int, int, int], dtype: torch.dtype, limit: int) -> Callable[[], None]:
    """Return one forward and backward through `attend`, with products up to `limit` scores per head."""
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.ones(shape[0], 1, 1, shape[2], dtype=torch.bool)
    mask[:, :, :, -2:] = False

    def run() -> None:
        attention.PRODUCTS_UP_TO[dtype] = limit
        attention.attend(q, k, v, mask).sum().backward()

    return run


def main(arguments: list[str]) -> None:
    """Measure and print."""
    keep_memory()
    print(describe_machine())
    print(f"{'B x H x T x E':>18} {'type':>9} {'products ms':>12} {'fused ms':>9} {'fused / products':>17}")
    for shape in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            products, fused = milliseconds(step(shape, dtype, 1 << 30)), milliseconds(step(shape, dtype, 0))
            name = " x ".join(map(str, shape))
            print(f"{name:>18} {str(dtype).removeprefix('torch.'):>9} {products:12.1f} {fused:9.1f} {fused / products:17.2f}")
