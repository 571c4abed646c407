"""JoeyNMT on the same sub-words: real target tokens per second, as its own log counts them.

Usage: joey.py PAIRS.json SECONDS [EVERY]; PAIRS.json as for translation_training.py. Its words are the ids of our sub-words.
With EVERY it also translates the pairs under "dev" after every so many updates, and says when and how.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

content, seconds = json.load(open(sys.argv[1])), float(sys.argv[2])
every = int(sys.argv[3]) if len(sys.argv) > 3 else 100_000
WARM = 2  # log lines left out
PAUSE = 5.0  # seconds between two looks from which this process was suspended
side = """
        level: "word"
        max_length: 100
        voc_limit: 100000
        voc_min_freq: 1
"""
stack = """
        type: "transformer"
        num_layers: 3
        num_heads: 4
        embeddings: {embedding_dim: 256, scale: True, dropout: 0.}
        hidden_size: 256
        ff_size: 1024
        dropout: 0.1
        layer_norm: "pre"
        activation: "relu"
"""
SETTINGS = """
name: "small"
joeynmt_version: "2.3.0"
model_dir: "{folder}/model"
use_cuda: False
fp16: False
random_seed: 42
data:
    train: "{folder}/train"
    dev: "{folder}/dev"
    dataset_type: "plain"
    src:
        lang: "source"
        voc_file: "{folder}/words"{side}
    trg:
        lang: "target"
        voc_file: "{folder}/words"{side}
    special_symbols:
        {{unk_token: "<unk>", unk_id: 0, pad_token: "<pad>", pad_id: 1, bos_token: "<s>", bos_id: 2, eos_token: "</s>", eos_id: 3}}
testing: {{n_best: 1, beam_size: 1, batch_size: 64, batch_type: "sentence", max_output_length: 80, eval_metrics: ["bleu"]}}
training:
    optimizer: "adam"
    normalization: "tokens"
    adam_betas: [0.9, 0.98]
    scheduling: "warmupinversesquareroot"
    learning_rate_warmup: 500
    learning_rate: 0.001
    learning_rate_min: 0.00000001
    clip_grad_norm: 1.0
    label_smoothing: 0.1
    loss: "crossentropy"
    batch_size: 4096
    batch_type: "token"
    epochs: 100
    validation_freq: {every}
    logging_freq: 5
    overwrite: True
    shuffle: True
model:
    initializer: "xavier_uniform"
    embed_initializer: "xavier_uniform"
    tied_embeddings: True
    tied_softmax: True
    encoder:{stack}
    decoder:{stack}
"""


def written(ids):
    return " ".join(f"t{i}" for i in ids if i != content["eos"])


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for split, pairs in (("train", content["pairs"]), ("dev", content.get("dev", content["pairs"][:10]))):
        for language, column in (("source", 0), ("target", 1)):
            (folder / f"{split}.{language}").write_text("".join(f"{written(pair[column])}\n" for pair in pairs))
    words = ["<unk>", "<pad>", "<s>", "</s>", *(f"t{i}" for i in range(4, content["vocab_size"]))]
    (folder / "words").write_text("\n".join(words) + "\n")
    (folder / "settings.yaml").write_text(SETTINGS.format(folder=folder, side=side, stack=stack, every=every))
    log = folder / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "joeynmt", "train", folder / "settings.yaml", "--skip-test"]
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        rates, pauses, started, last = [], [], time.time(), time.time()
        try:
            while child.poll() is None and (len(rates) < WARM + 3 or last - started - sum(length for _, length in pauses) < seconds):
                time.sleep(1)
                if time.time() - last > PAUSE:  # suspended, with the child: that is not its time
                    pauses.append((time.time(), time.time() - last))
                last = time.time()
                rates = [float(rate) for rate in re.findall(r"Tokens per Sec:\s*([0-9.]+)", log.read_text())]
        finally:
            child.terminate()  # a shell may have started us deaf to SIGINT
            child.wait()
    if len(rates) <= WARM:
        sys.exit(log.read_text()[-2000:])
    validations = []
    for file in sorted(folder.glob("model/*.hyps"), key=lambda file: file.stat().st_mtime):
        answers = [[int(word[1:]) for word in line.split() if word[1:].isdigit()] for line in file.read_text().splitlines()]
        at = file.stat().st_mtime
        validations.append([at - started - sum(length for end, length in pauses if end < at), answers])
print(json.dumps({"rate": statistics.median(rates[WARM:]), **({"validations": validations} if len(sys.argv) > 3 else {})}))
