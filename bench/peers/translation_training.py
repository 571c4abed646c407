"""Hugging Face Seq2SeqTrainer on a fresh Marian model: real target tokens per second.

Usage: translation_training.py PAIRS.json SECONDS [bf16] [group]
PAIRS.json holds {"vocab_size", "pad", "bos", "eos", "pairs": [[source, target]]}.
"""

import json
import sys
import tempfile
import time

import torch
from transformers import MarianConfig, MarianMTModel, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

content, seconds, options = json.load(open(sys.argv[1])), float(sys.argv[2]), sys.argv[3:]
pad, bos, eos, pairs = content["pad"], content["bos"], content["eos"], content["pairs"]
WARM = 6
torch.manual_seed(1)
config = MarianConfig(
    vocab_size=content["vocab_size"],
    d_model=256,
    encoder_layers=3,
    decoder_layers=3,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=1024,
    decoder_ffn_dim=1024,
    dropout=0.1,
    activation_function="relu",
    max_position_embeddings=128,
    scale_embedding=True,
    pad_token_id=pad,
    eos_token_id=eos,
    forced_eos_token_id=None,
    bos_token_id=None,
    decoder_start_token_id=bos,
    init_std=0.0625,
)
model = MarianMTModel(config)


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return len(pairs)

    def __getitem__(self, i):
        return {"input_ids": pairs[i][0], "labels": pairs[i][1]}


def padded(rows, filler):
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


counted = [0]


def collate(examples):
    source, target = padded([e["input_ids"] for e in examples], pad), padded([e["labels"] for e in examples], -100)
    counted[0] += int((target != -100).sum())
    decoder = torch.where(target == -100, pad, target).roll(1, 1)
    decoder[:, 0] = bos
    return {"input_ids": source, "attention_mask": (source != pad).long(), "labels": target, "decoder_input_ids": decoder}


class Clock(TrainerCallback):
    def __init__(self):
        self.marks = []

    def on_step_end(self, args, state, control, **kwargs):
        self.marks.append((time.perf_counter(), counted[0]))
        if len(self.marks) > WARM and self.marks[-1][0] - self.marks[WARM][0] > seconds:
            control.should_training_stop = True


clock = Clock()
with tempfile.TemporaryDirectory() as folder:
    arguments = Seq2SeqTrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=128,
        num_train_epochs=50,
        learning_rate=7e-4,
        warmup_steps=400,
        lr_scheduler_type="inverse_sqrt",
        adam_beta2=0.98,
        label_smoothing_factor=0.1,
        bf16="bf16" in options,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **({"train_sampling_strategy": "group_by_length"} if "group" in options else {}),
    )
    Seq2SeqTrainer(model=model, args=arguments, train_dataset=Pairs(), data_collator=collate, callbacks=[clock]).train()
first, last = clock.marks[WARM], clock.marks[-1]
print(json.dumps({"rate": (last[1] - first[1]) / (last[0] - first[0]), "updates": len(clock.marks)}))
