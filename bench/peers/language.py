"""Hugging Face GPT-2, or nanoGPT from the folder $NANOGPT, at the same work: tokens per second.

Usage: language.py train hf|nano fp32|bf16 | write hf fp32|bf16 | read hf fp32|bf16
"""

import json
import os
import statistics
import sys
import time

import torch

kind, system, precision = sys.argv[1:4]
torch.manual_seed(1)


def seconds(function, warm, n):
    times = []
    for _ in range(warm):
        function()
    for _ in range(n):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def train():
    if system == "hf":
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = {"vocab_size": 65, "n_positions": 256, "n_embd": 384, "n_layer": 6, "n_head": 6, "bos_token_id": 0, "eos_token_id": 0}
        model = GPT2LMHeadModel(GPT2Config(**shape, resid_pdrop=0.2, embd_pdrop=0.2, attn_pdrop=0.2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    else:
        sys.path.insert(0, os.environ["NANOGPT"])
        from model import GPT, GPTConfig

        model = GPT(GPTConfig(block_size=256, vocab_size=65, n_layer=6, n_head=6, n_embd=384, dropout=0.2, bias=False))
        optimizer = model.configure_optimizers(1e-1, 1e-3, (0.9, 0.99), "cpu")
    model.train()
    data = torch.randint(0, 65, (4, 257))
    x, y = data[:, :-1].contiguous(), data[:, 1:].contiguous()

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=x, labels=x).loss if system == "hf" else model(x, y)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return y.numel() / seconds(step, 3, 15)


def answer():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    model = model.bfloat16() if precision == "bf16" else model
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    with torch.inference_mode():
        if kind == "read":
            prompt = torch.randint(0, 50257, (1, 512))
            return 512 / seconds(lambda: model(prompt, use_cache=True, logits_to_keep=1), 2, 5)
        prompt = torch.randint(0, 50257, (1, 16))
        options = {"max_new_tokens": 128, "min_new_tokens": 128, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
        return 128 / seconds(lambda: model.generate(prompt, **options), 1, 3)


print(json.dumps({"rate": train() if kind == "train" else answer()}))
