"""Mutated files through every reader that a stranger's bytes can reach.

Run: python tests/fuzz.py [INPUTS [SEED]]: all readers in turn, 100,000 inputs by default; `make fuzz` does it, tests/test_fuzz.py a bit.
Fine is success, or a HeedError. Anything else, more than five seconds, or more than a gigabyte for one input is a failure: it is printed
with the file that caused it, which is kept. A reader runs in a process of its own, so that one that is killed is found out as well.
"""

import contextlib
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

SECONDS, GIGABYTE = 5, 1 << 30
TOKENS = [  # what means something to one of the readers
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\n",
        b"\r",
        b"\t",
        b"- ",
        b"&a ",
        b"*a",
        b"!!python/object/apply:os.system [x]",
        b"<<: ",
        b"|",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"Infinity",
        b"-1",
        b"0",
        b"1e999",
        b"9" * 30,
        b"1" * 5000,
        b"..",
        b"../../etc/passwd",
        b"/",
        b"\x00",
        b"\xff\xfe",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xf0\x9f\x98\x80",
        b"\xed\xa0\x80",
        b"\\ud800",
        b'"\\u0000"',
        b"source",
        b"target",
        b"task",
        b"model",
        b"d_model: 99999999",
    ),
    *(
        b"\x1f\x8b\x08",
        b"PAR1",
        b"\xff" * 8,
        b"\x7f" * 8,
        b"[" * 3000,
        b"{" * 3000,
        b" " * 10_000,
        b"a: &a [*a]",
        b"!!int ",
        b"? ",
        b"%YAML 9.9\n",
    ),
]

SHARES = {"metrics.jsonl": 0.2, "evaluation": 0.5, "data_report.json": 0.5}  # of those that write a report each time

Reader = Callable[[Path], object]


def mutated(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Change a file in one to six places."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3, 6))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 1, 2, 4, 8, 64, 4096)))
        change = draw.randrange(8)
        if change == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif change == 1 and at < len(data):
            data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x22, draw.randrange(256)))
        elif change == 2:
            del data[at:end]
        elif change == 3:
            data[at:at] = draw.choice(TOKENS)
        elif change == 4:
            data[at:end] = draw.choice(TOKENS)
        elif change == 5:
            data[at:at] = data[at:end] * draw.choice((1, 2, 50))
        elif change == 6:
            other = draw.choice(others)
            start = draw.randrange(len(other) + 1)
            data[at:] = other[start:]
        else:
            del data[at:]
    return bytes(data[: 1 << 20])


@dataclass
class Target:
    """A reader, the file of a folder that is mutated for it, and whole files to start from."""

    read: Reader
    name: str
    seeds: list[bytes]


def pairs_table(separator: str) -> bytes:
    """Return a small table of pairs."""
    rows = [
        ("source", "target"),
        ("the dog", "der Hund"),
        ('a "quoted" cat', "eine Katze"),
        ("三只狗", "drei Hunde"),
        ("", "leer"),
        ("x" * 300, "y"),
    ]
    return "".join(f"{a}{separator}{b}\n" for a, b in rows).encode()


def parquet_table(folder: Path) -> bytes:
    """Return the same as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / "seed.parquet"
    parquet.write_table(pa.table({"source": ["the dog", "a cat"], "target": ["der Hund", "eine Katze"]}), path)
    return path.read_bytes()


def squad_file() -> bytes:
    """Return a small file in SQuAD's form."""
    context = "The dog 狗 sees a cat."
    answers = [{"text": "狗", "answer_start": 8}, {"text": "a cat", "answer_start": 15}]
    asked = [
        {"id": "1", "question": "who?", "answers": answers},
        {"id": "2", "question": "when?", "answers": [], "is_impossible": True, "plausible_answers": answers},
    ]
    return json.dumps({"version": "v2.0", "data": [{"title": "Dogs", "paragraphs": [{"context": context, "qas": asked}] * 2}]}).encode()


def vector_files() -> dict[str, bytes]:
    """Return small files of word vectors by format."""
    rows = {"the": (0.25, -1.5, 3e-5), "dog": (1.0, 2.0, -0.125), "狗": (0.0, 4.5, 1e10)}
    lines = "".join(f"{word} {' '.join(map(str, values))}\n" for word, values in rows.items()).encode()
    records = b"".join(word.encode() + b" " + struct.pack("<3f", *values) + b"\n" for word, values in rows.items())
    return {"glove": lines, "word2vec": b"3 3\n" + lines, "binary": b"3 3\n" + records}


def reviews(folder: Path) -> list[bytes]:
    """Return Keras' IMDb in small, stored and packed."""
    import numpy as np

    texts = np.empty(3, dtype=object)
    texts[:] = [[1, 14, 22, 300], [1, 5], [1, *range(20, 290)]]
    arrays = {f"x_{split}": texts for split in ("train", "test")} | {f"y_{split}": np.array([1, 0, 1]) for split in ("train", "test")}
    path, found = folder / "seed.npz", []
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays)
        found.append(path.read_bytes())
    np.savez(path, **{name: np.array([[0, 1, 5], [1, 7, 9]] if name[0] == "x" else [1, 0]) for name in arrays})
    return [*found, path.read_bytes()]


def classifier_parts(folder: Path) -> dict[str, bytes]:
    """Return the parts that only classifiers have, by name."""
    from heed.data.calibration import Calibration, NoAnswer
    from heed.data.labels import Labels
    from heed.data.parts import save_parts
    from heed.data.words import Preparation, Words

    parts = {
        "labels": Labels(["warm", "cold", "plain"], {"warm": 3, "cold": 1}),
        "words": Words(["<pad>", "<bos>", "<eos>", "<unk>", "the", "dog"], unit="words", chinese=False),
        "preparation": Preparation(cleaning=True, lower=False, stop_words="en"),
        "calibration": Calibration(1.25, 0.5, 0.9),
        "no_answer": NoAnswer(0.75),
    }
    save_parts(folder / "seeds", parts)
    return {name: (folder / "seeds" / f"{name}.json").read_bytes() for name in parts}


def foreign_folder(folder: Path) -> Path:
    """Return a small language model as transformers would have it."""
    from heed.convert import export_folder
    from heed.run import Run, resolve

    shape = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 8, "positions": "learned", "activation": "gelu", "embedding_scale": False}
    config = resolve(
        {"task": {"name": "text_generation", "tokens": "bytes"}, "model": {**shape, "max_length": 16}, "data": {"max_length": 16}}
    )
    task = config.build_task()
    task.prepare([])
    Run.create(folder / "causal", config, task, about={}).save()
    return export_folder(folder / "causal", folder / "theirs").folder


def targets(run: Path, folder: Path) -> dict[str, Target]:
    """Return every reader by name; `run` is a whole run folder, of which `folder / "run"` is a copy that is spoiled."""
    from heed.config import find_recipe, parse_overrides
    from heed.convert import import_folder
    from heed.data.encodings import read_lines
    from heed.data.parts import load_parts
    from heed.data.questions import survey_questions
    from heed.data.read import ReadLog, read_examples
    from heed.data.squad import answers_fault
    from heed.data.store import Store
    from heed.data.tagged import survey_tagged
    from heed.data.tags import split_words, tags_fault, words_in
    from heed.data.vectors import matrix, read_vectors
    from heed.data.words import Words
    from heed.model import build_model
    from heed.report import write_report
    from heed.run import check_sizes, load_weights, read_config, resolve, verify
    from heed.training.checkpoint import checkpoints, fault, newest_whole
    from heed.training.log import TrainingLog

    copy = folder / "run"
    shutil.copytree(run, copy)
    model = build_model(read_config(copy).model)
    place = checkpoints(copy / "checkpoints")[0]
    theirs = foreign_folder(folder)

    def table(path: Path) -> object:
        return list(read_examples(str(path), required=("source", "target"), rename={}, header=None, bad_rows="skip", log=ReadLog()))

    def tagged(path: Path) -> object:
        wanted = {"tokens": "words", "tags": "tags"}
        rows = list(read_examples(str(path), required=wanted, bad_rows="skip"))
        words_and_tags = [(split_words(row["tokens"]), row["tags"]) for row in rows]
        faults = [tags_fault(tags, words, "bilou", strict=True) for words, tags in words_and_tags]
        return (
            survey_tagged(rows, {"valid": rows}).to_json(),
            faults,
            [words_in(" ".join(words), apart=True) for words, _ in words_and_tags],
        )

    def squad(path: Path) -> object:
        kinds = {"question": "text", "context": "text", "answers": "answers"}
        return survey_questions(list(read_examples(str(path), required=kinds, bad_rows="skip", check=answers_fault)), {}).to_json()

    def parallel(path: Path) -> object:
        return table(path.with_name("pair.{en,de}"))

    def overrides(path: Path) -> object:
        pairs = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        return resolve("translation", parse_overrides([pair for pair in pairs if pair]))

    def weights(path: Path) -> None:
        check_sizes(read_config(copy).model, path)
        load_weights(model, path)

    def imported(path: Path) -> object:
        return import_folder(path.parent, folder / "imported", force=True).run.predict({"text": "the dog"}, max_length=3)

    def parts(path: Path) -> object:
        return [part.encode("the dog") for part in load_parts(path.parent).values()]  # type: ignore[attr-defined]

    def vectors(path: Path) -> object:
        words = ["<pad>", "<bos>", "<eos>", "<unk>", "the", "dog", "狗"]
        return matrix(words, read_vectors(path, words), seed=0)

    def keras(path: Path) -> object:
        sources = [f"{path}:{split}" for split in ("train", "test")]
        return [list(read_examples(one, required={"text": "text", "label": "label"}, bad_rows="skip")) for one in sources]

    def pickled(path: Path) -> object:
        """Read texts whose file is whole, so that its checksum does not give the change away."""
        with zipfile.ZipFile(path.with_name("around.npz"), "w") as archive:
            for name in ("x_train", "y_train", "x_test", "y_test"):
                archive.writestr(f"{name}.npy", path.read_bytes() if name[0] == "x" else labels)
        return keras(path.with_name("around.npz"))

    def classes(path: Path) -> object:
        (part,) = load_parts(path.parent).values()
        return part.encode("the dog, 狗") if isinstance(part, Words) else part.to_json()

    def metrics(path: Path) -> None:
        with TrainingLog(copy, tensorboard=False, quiet=True) as log:
            write_report(copy)
            log.rewind(3)

    def of_run(name: str) -> list[bytes]:
        return [(run / name).read_bytes()]

    (folder / "pair.de").write_bytes(b"der Hund\neine Katze\n")
    recipes = [Path(str(find_recipe(name))).read_bytes() for name in ("translation", "multi30k")]
    settings = [b"train.lr=1e-3\nmodel.d_model=64\ndata.columns.source=de\ndata.header=[source,target]\ntrain.steps=3\ndecode.beams=2"]
    tables = [pairs_table("\t"), pairs_table(","), pairs_table("\t").decode().encode("utf-16"), pairs_table(",").decode().encode("gb18030")]
    lines = [b'{"source": "the dog", "target": "der Hund"}\n{"source": "a cat", "target": "eine Katze", "n": [1, 2.5, null]}\n']
    conll = ["-DOCSTART- X O\n\nEU NNP B-ORG\n# id = 3\n北京 NNP U-LOC\n\nAda\tNNP\tI-PER\n".encode(), b"# id = 1\na O\nb B-x\n\n\nc I-x\n"]
    words = [
        b'{"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}\n{"tokens": "a b.", "tags": "O B-x"}\n',
        b'{"tokens": "[\\"a\\"]", "tags": [3]}\n',
    ]
    packed = [gzip.compress(content, mtime=0) for content in tables]
    packed_reviews = reviews(folder)
    arrays = [[zipfile.ZipFile(io.BytesIO(content)).read(f"{name}_train.npy") for name in "xy"] for content in packed_reviews]
    labels = arrays[0][1]
    return {
        "recipe": Target(lambda path: resolve(str(path)), "recipe.yaml", recipes),
        "overrides": Target(overrides, "overrides.txt", settings),
        "config.yaml": Target(lambda path: read_config(path.parent), "run/config.yaml", of_run("config.yaml")),
        "manifest.json": Target(lambda path: verify(path.parent), "run/manifest.json", of_run("manifest.json")),
        "tokenizer.json": Target(parts, "run/parts/tokenizer.json", of_run("parts/tokenizer.json")),
        "model.safetensors": Target(weights, "run/model.safetensors", of_run("model.safetensors")),
        "metrics.jsonl": Target(metrics, "run/metrics.jsonl", of_run("metrics.jsonl")),
        "evaluation": Target(lambda path: write_report(copy), "run/evaluations/valid.json", of_run("evaluations/valid.json")),
        "data_report.json": Target(lambda path: write_report(copy), "run/data_report.json", of_run("data_report.json")),
        "state.json": Target(
            lambda path: (fault(path.parent), newest_whole(path.parent.parent)),
            f"run/checkpoints/{place.name}/state.json",
            [(place / "state.json").read_bytes()],
        ),
        "store.json": Target(lambda path: Store(path.parent), "run/store/train/store.json", of_run("store/train/store.json")),
        **{
            f"foreign {name}": Target(imported, f"theirs/{name}", [(theirs / name).read_bytes()])
            for name in ("config.json", "tokenizer.json", "model.safetensors")
        },
        "tsv": Target(table, "table.tsv", tables),
        "csv": Target(table, "table.csv", tables),
        "jsonl": Target(table, "table.jsonl", lines),
        "parquet": Target(table, "table.parquet", [parquet_table(folder)]),
        "squad": Target(squad, "squad.json", [squad_file(), squad_file().decode("unicode_escape").encode()]),
        "conll": Target(tagged, "tagged.conll", conll),
        "words.jsonl": Target(tagged, "tagged.jsonl", words),
        "tsv.gz": Target(table, "table.tsv.gz", packed),
        "vectors": Target(vectors, "vectors.txt", list(vector_files().values())),
        "vectors.gz": Target(vectors, "vectors.gz", [gzip.compress(content, mtime=0) for content in vector_files().values()]),
        "npz": Target(keras, "imdb.npz", packed_reviews),
        "npz.pickle": Target(pickled, "texts.npy", [texts for texts, _ in arrays]),
        **{f"{name}.json": Target(classes, f"of {name}/{name}.json", [seed]) for name, seed in classifier_parts(folder).items()},
        "parallel": Target(parallel, "pair.en", [b"the dog\na cat\n", "的狗\n猫\n".encode("gb18030")]),
        "lines": Target(lambda path: sum(1 for _ in read_lines(path)), "lines.txt", tables),
    }


def work(run: str, name: str, n: int, seed: int, home: str) -> None:
    """Try n inputs on one reader; prints each failure as a line of JSON, and at last how many were tried."""
    import warnings

    from heed import files
    from heed.errors import HeedError

    folder = Path(home)
    target = targets(Path(run), folder)[name]
    path = folder / target.name
    draw = random.Random(f"{name} {seed}")
    warnings.simplefilter("ignore")

    def too_slow(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_slow)
    files.flush = lambda path: None  # waiting for the disk is not what is tried
    with contextlib.suppress(HeedError):
        target.read(_written(path, target.seeds[0]))  # imports what it needs before memory is counted
    virtual = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + GIGABYTE, resource.RLIM_INFINITY))
    for _ in range(n):
        content = mutated(draw.choice(target.seeds), target.seeds, draw)
        _written(path, content)
        signal.alarm(SECONDS)
        try:
            target.read(path)
        except HeedError:
            pass
        except BaseException as error:  # whatever it is, it is a failure
            signal.alarm(0)
            kept = folder.parent / f"{name.replace('.', '-')}-{abs(hash(content)) % 10**8}"
            kept.write_bytes(content)
            where = traceback.extract_tb(error.__traceback__)
            ours = next((f"{frame.filename}:{frame.lineno}" for frame in reversed(where) if "/heed/" in frame.filename), "?")
            print(json.dumps({"error": repr(error)[:300], "where": ours, "input": str(kept)}), flush=True)
        finally:
            signal.alarm(0)
    print(json.dumps({"tried": n}), flush=True)


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_run(folder: Path) -> Path:
    """Train a run for a moment, whose files are then mutated."""
    import heed

    pairs = folder / "pairs.tsv"
    pairs.write_text("source\ttarget\n" + "".join(f"the dog {i}\tder Hund {i}\n" for i in range(60)), encoding="utf-8")
    heed.train(
        "translation",
        to=folder / "run",
        quiet=True,
        data={"train": str(pairs), "valid": str(pairs)},
        task={"vocab_size": 300},
        model={"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 16},
        train={"steps": 6, "batch_tokens": 200, "tensorboard": False, "log_every": 1, "precision": "float32"},
        decode={"max_length": 10, "beams": 1, "precision": "float32"},
    )
    return folder / "run"


def fuzz(n: int, seed: int, *, names: list[str] | None = None) -> dict[str, dict[str, object]]:
    """Try about n inputs in all, and return for each reader how many were tried and what failed."""
    found: dict[str, dict[str, object]] = {}
    home = Path(tempfile.mkdtemp(prefix="heed-fuzz-"))
    run = make_run(home)
    with contextlib.suppress(FileExistsError):
        (home / "kept").mkdir()
    with tempfile.TemporaryDirectory() as name:
        names = names or list(targets(run, Path(name)))
    shares = {one: max(1, round(n / len(names) * SHARES.get(one, 1.13))) for one in names}
    for one in names:
        begun = time.monotonic()
        folder = home / "kept" / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        call = "import fuzz, sys; fuzz.work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", call, run, one, str(shares[one]), str(seed), folder],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        failures = [line for line in lines if "error" in line]
        if done.returncode:
            kept = home / "kept" / f"{one.replace('.', '-')}-killed"
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            failures.append({"error": f"the process ended with {done.returncode}: {done.stderr[-400:]}", "where": "?", "input": str(kept)})
        tried = sum(line.get("tried", 0) for line in lines)
        found[one] = {"tried": tried, "failures": failures, "seconds": round(time.monotonic() - begun, 1)}
    if not any(result["failures"] for result in found.values()):
        shutil.rmtree(home)
    return found


def _lines(found: dict[str, dict[str, object]]) -> Iterator[str]:
    for name, result in found.items():
        failures = result["failures"]
        assert isinstance(failures, list)
        yield f"{name:18} {result['tried']:>7,} tried  {len(failures):>3} failed  {result['seconds']} s"
        yield from sorted({f"    {failure['where']}: {failure['error']}  ({failure['input']})" for failure in failures[:20]})


def main() -> None:
    """Run from the command line."""
    n, seed = (int(value) for value in (*sys.argv[1:], *("100000", "1")[len(sys.argv) - 1 :]))
    found = fuzz(n, seed)
    print("\n".join(_lines(found)))
    sys.exit(any(result["failures"] for result in found.values()))


if __name__ == "__main__":
    main()
