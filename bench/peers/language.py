"""Hugging Face GPT-2, or nanoGPT from the folder $NANOGPT, at the same work: tokens per second.

Usage: language.py train hf|nano fp32|bf16|compile | write hf fp32|bf16 | read hf fp32|bf16
On a GPU it is GPT-2's shape that is trained.
"""

import json
import os
import statistics
import sys
import time

import torch

kind, system, precision = sys.argv[1:4]
torch.manual_seed(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
large = device == "cuda"
vocabulary, length, batch = (50257, 1024, 16) if large else (65, 256, 4)
layers, heads, width, dropout = (12, 12, 768, 0.0) if large else (6, 6, 384, 0.2)


def seconds(function, warm, n):
    times = []
    for _ in range(warm):
        function()
    for _ in range(n):
        begun = time.perf_counter()
        function()
        if large:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def train():
    if system == "hf":
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = {"vocab_size": vocabulary, "n_positions": length, "n_embd": width, "n_layer": layers, "n_head": heads}
        drop = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout, "bos_token_id": 0, "eos_token_id": 0}
        model = GPT2LMHeadModel(GPT2Config(**shape, **drop)).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    else:
        sys.path.insert(0, os.environ["NANOGPT"])
        from model import GPT, GPTConfig

        sizes = {"block_size": length, "vocab_size": vocabulary, "n_layer": layers, "n_head": heads, "n_embd": width}
        model = GPT(GPTConfig(**sizes, dropout=dropout, bias=False)).to(device)
        optimizer = model.configure_optimizers(1e-1, 1e-3, (0.9, 0.99), device)
    model.train()
    forward = torch.compile(model) if precision == "compile" else model
    data = torch.randint(0, vocabulary, (batch, length + 1), device=device)
    x, y = data[:, :-1].contiguous(), data[:, 1:].contiguous()

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=precision != "fp32"):
            loss = forward(input_ids=x, labels=x).loss if system == "hf" else forward(x, y)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return y.numel() / seconds(step, 3, 15)


def answer():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval().to(device)
    model = model.bfloat16() if precision == "bf16" else model
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    with torch.inference_mode():
        if kind == "read":
            prompt = torch.randint(0, 50257, (1, 512), device=device)
            return 512 / seconds(lambda: model(prompt, use_cache=True, logits_to_keep=1), 2, 5)
        prompt = torch.randint(0, 50257, (1, 16), device=device)
        options = {"max_new_tokens": 128, "min_new_tokens": 128, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
        return 128 / seconds(lambda: model.generate(prompt, **options), 1, 3)


print(json.dumps({"rate": train() if kind == "train" else answer()}))
