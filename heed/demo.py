"""`heed demo`: train on a built-in data set, no download, and show what came of it."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from heed import verbs
from heed.data.audio import read_audio
from heed.data.builtin import write_phrases
from heed.data.compressors import compressed_bits
from heed.data.languages import write_languages
from heed.data.library import first_function, parses, write_library
from heed.data.morse import BAND_HZ, SAMPLE_RATE, write_morse
from heed.data.read import read_examples
from heed.errors import ConfigError
from heed.files import parse_json
from heed.metrics.intervals import wilson_interval
from heed.run import Run
from heed.tasks.text_classification import TextClassification

SHOWN = 12
SHOWN_FUNCTIONS, SHOWN_LINES = 2, 3  # the first so many that are at least so many lines long
VERBS = ("read", "write", "find", "get", "check", "add", "parse", "close")
NOUNS = ("line", "name", "file", "value", "header")


def run_demo(task: str, folder: Path, *, force: bool = False) -> list[str]:
    """Train the demonstration of a task into `folder` and return what to show; raises ConfigError for a task without one."""
    demos: dict[str, Callable[[Path, bool], list[str]]] = {
        "speech_recognition": _speech_recognition,
        "text_classification": _text_classification,
        "text_generation": _text_generation,
        "translation": _translation,
    }
    if task not in demos:
        raise ConfigError(f"{task!r} has no demonstration; there is one of: {', '.join(demos)}")
    return demos[task](folder, force)


def _translation(folder: Path, force: bool) -> list[str]:
    """Translate localized phrases of the Unicode CLDR from English into German and Chinese."""
    data = write_phrases(folder.with_name(f"{folder.name}-data"))
    run = verbs.train("demo_translation", to=folder, force=force, data={name: str(path) for name, path in data.items()})
    about = f"phrases of the Unicode CLDR in English, German and Chinese: {data['train'].parent}"
    return [about, "", *_samples(run, data["test"]), "", *verbs.conclusion(run), *_try_it(folder)]


def _text_classification(folder: Path, force: bool) -> list[str]:
    """Tell in which language a short text is written, over localized names and phrases of the Unicode CLDR."""
    data = write_languages(folder.with_name(f"{folder.name}-data"))
    run = verbs.train("demo_text_classification", to=folder, force=force, data={name: str(path) for name, path in data.items()})
    assert isinstance(run.task, TextClassification)
    about = f"names and phrases of the Unicode CLDR in {len(run.task.labels.labels)} languages: {data['train'].parent}"
    return [about, "", *_told(run, data["test"]), "", *verbs.conclusion(run), f'try it: heed predict {folder} "vor drei Tagen" "三天前"']


def _text_generation(folder: Path, force: bool) -> list[str]:
    """Write Python, having read the source of the standard library on this machine."""
    data = write_library(folder.with_name(f"{folder.name}-data"))
    run = verbs.train("demo_text_generation", to=folder, force=force, data={name: str(path) for name, path in data.items()})
    about = f"the source of this machine's Python standard library: {data['train'].parent}"
    return [about, "", *_written(run), "", *_compressed(run, data), "", *verbs.conclusion(run), *_go_on(folder)]


def _written(run: Run) -> list[str]:
    """Show functions the model writes, and say how many of them are Python by its grammar."""
    prompts = [f"def {verb}_{noun}(" for verb in VERBS for noun in NOUNS]
    answers = run.predict([{"text": prompt} for prompt in prompts])
    assert isinstance(answers, list)
    functions = [first_function(prompt + answer.text) for prompt, answer in zip(prompts, answers, strict=True)]
    right = [function for function in functions if parses(function)]
    low, high = wilson_interval(len(right), len(functions))
    said = f'{len(right)} of {len(functions)} functions it writes from "def NAME(" parse as Python: {len(right) / len(functions):.0%}'
    of_some_length = [function for function in right if function.count("\n") >= SHOWN_LINES]
    shown = [f"  {line}" for function in of_some_length[:SHOWN_FUNCTIONS] for line in ["", *function.split("\n")]]
    return [f"{said} [{low:.0%}, {high:.0%}], such as:", *shown]


def _compressed(run: Run, data: dict[str, Path]) -> list[str]:
    """Set the bits per byte of held-out files beside what compressors need for them."""
    texts = {name: [example["text"] for example in read_examples(str(data[name]), required=run.task.columns)] for name in ("train", "test")}
    scored = parse_json((run.folder / "evaluations" / "test.json").read_text(encoding="utf-8"))["bits_per_byte"]
    found = compressed_bits(texts["test"], texts["train"])
    return [
        f"bits per byte of {len(texts['test'])} held-out files:",
        f"  {scored['value']:.2f}  this model, 95 % interval {scored['low']:.2f} to {scored['high']:.2f}",
        *(f"  {bits:.2f}  {name}" for name, bits in found.items()),
    ]


def _go_on(folder: Path) -> list[str]:
    return [f'try it: heed predict {folder} "def is_open(self"', f"or type: heed predict {folder}"]


def _speech_recognition(folder: Path, force: bool) -> list[str]:
    """Read Morse code off a noisy, fading channel, then live from a stream."""
    data = write_morse(folder.with_name(f"{folder.name}-data"))
    settings = {
        "data": {name: str(path) for name, path in data.items()},
        "task": {"spelling": str(data["train"].with_name("spelling.tsv"))},
    }
    run = verbs.train_with("demo_speech_recognition", settings, to=folder, force=force)
    about = f"Morse code at 10 to 35 words a minute over a noisy, fading channel: {data['train'].parent}"
    return [about, "", *_heard(run, data["test"]), "", *_live(run, data["test"]), "", *verbs.conclusion(run)]


def _heard(run: Run, test: Path) -> list[str]:
    """Show recordings that training never saw."""
    examples = list(islice(read_examples(str(test), required=run.task.columns), SHOWN))
    answers = run.predict(examples)
    assert isinstance(answers, list)
    lines = [f"held-out messages, the noise as strong as the signal in {BAND_HZ:.0f} Hz around it:"]
    for example, answer in zip(examples, answers, strict=True):
        right = answer.text == example["text"]
        lines.append(f"  {'ok ' if right else 'BAD'} {answer.text}" + ("" if right else f"   (sent: {example['text']})"))
    return lines


def _live(run: Run, test: Path) -> list[str]:
    """Decode a recording live, in pieces of a tenth of a second, and show how the text grew."""
    example = next(read_examples(str(test), required=run.task.columns))
    wave = read_audio(example["audio"], sample_rate=SAMPLE_RATE)
    live = run.live(run.config.decode)
    raw = (wave.samples * (1 << 15)).astype("<i2").tobytes()
    step = 2 * SAMPLE_RATE // 10
    events = [event for start in range(0, len(raw), step) for event in live.push(raw[start : start + step])] + live.finish()
    return ["the first of them, live from a stream:", *(f"  {event.end:6.2f} s  {event.kind:<8}{event.text}" for event in events)]


def _told(run: Run, test: Path) -> list[str]:
    """Show texts that training never saw, one of each language."""
    chosen = {example["label"]: example for example in read_examples(str(test), required=run.task.columns)}
    labels = sorted(chosen)
    examples = [chosen[label] for label in labels[:: max(1, len(labels) // SHOWN)]][:SHOWN]
    answers = run.predict(examples)
    assert isinstance(answers, list)
    lines = ["held-out texts, and the language heed takes each for:"]
    for example, answer in zip(examples, answers, strict=True):
        right = answer.text == example["label"]
        wrong = "" if right else f"   (it is {example['label']})"
        lines.append(f"  {'ok ' if right else 'BAD'} {example['text']}  ->  {answer.text} {answer.score:.0%}{wrong}")
    return lines


def _samples(run: Run, test: Path) -> list[str]:
    """Show phrases that training never saw, one of each kind and language."""
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    for example in read_examples(str(test), required=run.task.columns):
        chosen.setdefault((example["kind"], example["source"][:6]), example)
    examples = list(chosen.values())[:SHOWN]
    answers = run.predict(examples)
    assert isinstance(answers, list)
    lines = ["held-out phrases, translated:"]
    for example, answer in zip(examples, answers, strict=True):
        right = answer.text == example["target"]
        lines.append(
            f"  {'ok ' if right else 'BAD'} {example['source']}  ->  {answer.text}"
            + ("" if right else f"   (expected {example['target']})")
        )
    return lines


def _try_it(folder: Path) -> list[str]:
    return [f'try it: heed predict {folder} ">>de<< three days ago" ">>zh<< Friday, March 14, 2031, 6:53 PM"']
