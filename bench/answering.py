"""Translating sentences with one set of weights: heed, CTranslate2 and Hugging Face generate, in sentences per second.

Run: heed bench answering RUN "DIR/test.{en,de}" [rounds]
RUN is a translator in Marian's shape: heed train translation ... model.norm_place=after model.positions=sinusoidal model.d_ff=1024
Two tables: many sentences (beam 5, batches of 64), and one sentence at a time.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import sacrebleu
import torch

from heed.bench.compare import KEPT_MEMORY, Side, compare, ours, report, theirs
from heed.bench.marian import export
from heed.data.batch import collate
from heed.data.read import ReadLog, read_examples
from heed.data.text import Tokenizer
from heed.device import choose_answering_precision, keep_memory
from heed.model import Seq2Seq
from heed.model.packed import pack
from heed.run import Run
from heed.tasks.translation import Translation


def main(arguments: list[str]) -> None:
    """Compare."""
    run, source, rounds = Run.load(arguments[0]), arguments[1], int(arguments[2]) if len(arguments) > 2 else 3
    pairs = list(read_examples(source, required=("source", "target"), rename={}, header=None, bad_rows="error", log=ReadLog()))[:1000]
    folder = Path(tempfile.mkdtemp(prefix="heed-bench-"))
    export(run, folder, [pair["source"] for pair in pairs])
    (folder / "texts.json").write_text(json.dumps([pair["source"] for pair in pairs]), encoding="utf-8")

    def sides(beams: int, batch: int, n: int, rows: list[tuple[str, str, int, int]]) -> list[Side]:
        made = []
        for engine, precision, workers, threads in rows:
            name = f"{engine} {precision}, {workers} x {threads} threads"
            out = folder / f"{name}-{beams}-{batch}.json"
            if engine == "heed":
                command = ours("answering", run.folder, folder, beams, batch, precision, threads, n, out)
            else:
                script = {"CTranslate2": "ct2", "Hugging Face": "hf"}[engine]
                command = theirs("translation_answering", folder, script, beams, batch, precision, workers, threads, n, out)
            made.append(Side(name, command, {} if engine == "heed" else KEPT_MEMORY))
        return made

    def judge(beams: int, batch: int) -> Callable[[str], dict[str, Any]]:
        def notes(name: str) -> dict[str, Any]:
            found = json.loads((folder / f"{name}-{beams}-{batch}.json").read_text(encoding="utf-8"))
            assert isinstance(run.task, Translation)
            texts = [one if isinstance(one, str) else run.task.target_tokenizer.decode(one) for one in found]
            scores = {"BLEU": sacrebleu.corpus_bleu(texts, [[pair["target"] for pair in pairs[: len(texts)]]]).score}
            engine, precision = name.partition(",")[0].rsplit(" ", 1)
            return scores | ({"perplexity": perplexity(run, precision, pairs)} if engine == "heed" and batch > 1 else {})

        return notes

    on_gpu = run.device.type == "cuda"  # where CTranslate2's build from PyPI may or may not run
    many = [("heed", precision, 1, 2) for precision in ("auto", "bfloat16", "float32")]
    many += [] if on_gpu else [("CTranslate2", "int8", 2, 1), ("CTranslate2", "float32", 2, 1)]
    many += [("Hugging Face", "float32", 1, 2), ("Hugging Face", "bfloat16", 1, 2)]
    title = "Translating 1,000 sentences, beam 5, batches of 64"
    compare("answering", title, "sentences/s", sides(5, 64, 1000, many), rounds=rounds, judge=judge(5, 64))
    one = [("heed", "auto", 1, 1), ("heed", "float32", 1, 1), ("Hugging Face", "float32", 1, 1)]
    one += [] if on_gpu else [("CTranslate2", "int8", 1, 1)]
    for beams, name in ((1, "answering-one-greedy"), (5, "answering-one")):
        title = f"Translating one sentence at a time, {'greedy' if beams == 1 else 'beam 5'}, one thread"
        compare(name, title, "sentences/s", sides(beams, 1, 200, one), rounds=rounds, judge=judge(beams, 1))


@torch.inference_mode()
def perplexity(run: Run, precision: str, pairs: list[dict[str, str]]) -> float:
    """Return the perplexity of the references, the model packed for answering in a precision."""
    model = cast(Seq2Seq, pack(run.model, choose_answering_precision(precision, run.device)))
    total, n_tokens = 0.0, 0
    for first in range(0, len(pairs), 50):
        batch = collate(run.task.encode_all(pairs[first : first + 50], training=True)).to(run.device)
        (source, mask), (target, real) = ((batch[key], batch.mask(key)) for key in ("source", "target"))
        begun = torch.cat([torch.full_like(target[:, :1], Tokenizer.bos_id), target[:, :-1]], dim=1)
        log_p = model(source, mask, begun).log_softmax(-1).gather(-1, target[..., None])[..., 0]
        total, n_tokens = total - float(log_p[real].sum()), n_tokens + int(real.sum())
    return math.exp(total / n_tokens)


def side(folder: str, work: str, beams: str, batch: str, precision: str, threads: str, n: str, out: str) -> None:
    """Translate with heed."""
    torch.set_num_threads(int(threads))
    keep_memory()
    run = Run.load(folder)
    examples = [{"source": text} for text in json.loads((Path(work) / "texts.json").read_text(encoding="utf-8"))[: int(n)]]
    options = run.config.decode.replace(beams=int(beams), precision=precision, max_length=80)

    def answer() -> list[str]:
        if int(batch) == 1:
            return [next(run.answers([example], options)).text for example in examples]
        return [one.text for one in run.answers(examples, options)]

    answer()
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        texts = answer()
        times.append(time.perf_counter() - begun)
    Path(out).write_text(json.dumps(texts), encoding="utf-8")
    report(len(examples) / min(times))
