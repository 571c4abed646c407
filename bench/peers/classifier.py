"""Hugging Face BertForSequenceClassification on random texts of log-normal length: examples per second.

Usage: classifier.py dynamic|bucket fp32|bf16 SECONDS
"""

import json
import random
import sys
import time

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

mode, precision, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
torch.manual_seed(1)
draw = np.random.default_rng(1)
n, batch, warm = 4096, 32, 3
lengths = np.minimum(256, np.maximum(8, draw.lognormal(np.log(170), 0.6, n).astype(int)))
texts = [draw.integers(5, 10_000, length).tolist() for length in lengths]
labels = draw.integers(0, 2, n).tolist()
config = BertConfig(
    vocab_size=10_000,
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=256,
    num_labels=2,
)
model = BertForSequenceClassification(config).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
order = draw.permutation(n).tolist()
if mode == "bucket":
    pools = [sorted(order[k : k + 50 * batch], key=lambda i: lengths[i]) for k in range(0, n, 50 * batch)]
    order = [i for pool in pools for i in pool]
division = [order[k : k + batch] for k in range(0, n, batch)]
if mode == "bucket":
    random.Random(1).shuffle(division)
marks = [(time.perf_counter(), 0)]
for rows in division * 10:
    longest = max(len(texts[i]) for i in rows)
    ids = torch.tensor([texts[i] + [0] * (longest - len(texts[i])) for i in rows])
    target = torch.tensor([labels[i] for i in rows])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=target).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    marks.append((time.perf_counter(), marks[-1][1] + len(rows)))
    if len(marks) > warm and marks[-1][0] - marks[warm][0] > seconds:
        break
first, last = marks[warm], marks[-1]
print(json.dumps({"rate": (last[1] - first[1]) / (last[0] - first[0])}))
