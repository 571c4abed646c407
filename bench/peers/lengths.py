"""x-transformers' attention layer with flash attention, causal, bfloat16, d 512, 8 heads: forward and backward, tokens per second.

Usage: lengths.py LENGTH TOKENS
"""

import json
import resource
import statistics
import sys
import time

import torch
from x_transformers import Attention

length, tokens = int(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(1)
layer = Attention(dim=512, dim_head=64, heads=8, causal=True, flash=True)
x, gradient = torch.randn(tokens // length, length, 512, requires_grad=True), torch.randn(tokens // length, length, 512)
times = []
for _ in range(4):
    begun = time.perf_counter()
    x.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        out = out[0] if isinstance(out, tuple) else out
    out.backward(gradient.to(out.dtype))
    times.append(time.perf_counter() - begun)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"rate": tokens / statistics.median(times[1:]), "peak_MiB": peak}))
