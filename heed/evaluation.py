"""Measuring a run on data: scores with intervals, speed and memory, the telling examples, and paired comparison of two runs."""

import datetime
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from heed.config import DataConfig, DecodeConfig, merge, parse_overrides, validate
from heed.data.rows import Example
from heed.device import choose_answering_precision, describe_machine, peak_memory_mib
from heed.errors import ConfigError, DataError
from heed.files import encodable, explain_full_disk, parse_json, replacing
from heed.metrics.intervals import scores_in
from heed.metrics.language import unknown_remarks
from heed.run import WINDOW, Run
from heed.tasks import Answer, Task
from heed.tasks.base import Metrics, Scores
from heed.tasks.split import Split
from heed.terminal import counted, were

READ_SETTINGS = ("columns", "header", "bad_rows")
SHOWN = 5  # examples of each sort in a report
DISTURBANCE_SEED = 0


@dataclass(frozen=True)
class Evaluation:
    """What measuring found."""

    scores: Scores
    metrics: Metrics
    n_examples: int
    seconds: float
    n_tokens: int
    memory_mib: float
    precision: str  # of the products, whatever decode.precision=auto came to
    decode: dict[str, Any]  # the settings of decoding that count
    token_name: str = "tokens"  # what is counted in n_tokens

    def to_json(self) -> dict[str, Any]:
        """Return scores by name, and under `cost` what they took; tokens count where an answer, unlike a class, is more than one."""
        tokens: dict[str, Any] = {}
        if self.n_tokens != self.n_examples:
            tokens["tokens_per_second"] = round(self.n_tokens / max(self.seconds, 1e-9), 1)
            tokens |= {} if self.token_name == "tokens" else {"token_name": self.token_name}
        cost = {
            "examples": self.n_examples,
            "seconds": round(self.seconds, 3),
            "examples_per_second": round(self.n_examples / max(self.seconds, 1e-9), 2),
            **tokens,
            "peak_memory_mib": round(self.memory_mib, 1),
            "precision": self.precision,
            "machine": describe_machine(),
        }
        return {**self.scores.to_json(), "cost": cost, "decode": self.decode}


def evaluate_examples(
    run: Run,
    examples: Iterable[Example],
    options: DecodeConfig,
    *,
    lines: Path | None = None,
    judge: Task | None = None,
    resamples: int = 1000,
) -> Evaluation:
    """Answer every example and score the answers, holding a window of them at a time.

    Args:
        lines: a file that is given one JSON line per example with its answer.
        judge: the task that counts the answers; by default the run's own.
        resamples: what intervals rest on; 1 where only the values are wanted.
    """
    judge = judge or run.task
    examiner = run.task.examiner
    run = run if examiner is run.task else replace(run, task=examiner)
    metrics = judge.metrics()
    n_examples, n_tokens, seconds = 0, 0, 0.0
    file = None if lines is None else lines.open("w", encoding="utf-8")
    try:
        for window in _windows(examples, min(WINDOW, run.window)):
            if n_examples == 0:
                next(run.answers(window[:1], options))  # packs the weights, and on a new machine waits for the compiler
            begun = time.perf_counter()
            answers = list(run.answers(window, options))
            seconds += time.perf_counter() - begun
            judge.count(metrics, answers, window)
            n_examples += len(window)
            n_tokens += sum(run.task.answer_length(answer) for answer in answers)
            if file is not None:
                file.writelines(_line(example, answer) for example, answer in zip(window, answers, strict=True))
    finally:
        if file is not None:
            file.close()
    precision = str(choose_answering_precision(options.precision, run.device)).removeprefix("torch.")
    scores = metrics.scores(resamples=resamples)
    memory, name = peak_memory_mib(run.device), run.task.token_name
    return Evaluation(scores, metrics, n_examples, seconds, n_tokens, memory, precision, run.task.of_use(options), name)


def _windows(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    stream = iter(examples)
    while window := list(islice(stream, size)):
        yield window


def _line(example: Example, answer: Answer) -> str:
    content = {key: value for key, value in example.items() if isinstance(value, str | int | float | list)}
    return encodable(json.dumps({"example": content, "answer": answer.to_json()}, ensure_ascii=False)) + "\n"


def evaluate_run(
    run: Run,
    source: str,
    pairs: Sequence[str] = (),
    *,
    name: str | None = None,
    examples: Iterable[Example] | None = None,
    robust: bool = False,
) -> dict[str, Any]:
    """Score a run on a data source and keep the result in its folder under evaluations/.

    Args:
        robust: whether to score it against the task's disturbances too, such as noise; `noise` in the result.
        pairs: settings laid over the run's, data.* (columns, header, bad_rows) and decode.* only.
        name: what the result is called; by default after the data.
        examples: what `source` stands for, when it is not to be read as it is.
    """
    data, options = evaluation_settings(run, pairs)
    split = Split(source, data, run.task)
    examples = split if examples is None else examples
    folder = run.folder / "evaluations"
    name = name or _free_name(folder, source)
    with explain_full_disk(folder):
        folder.mkdir(exist_ok=True)
        with replacing(folder / f"{name}.jsonl") as lines:
            evaluation = evaluate_examples(run, examples, options, lines=lines)
        content: dict[str, Any] = {"name": name, "data": source, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        content |= evaluation.to_json() | {"bad_rows": {"skipped": split.log.bad, "first": split.log.bad_examples}}
        if robust:
            content["noise"] = robustness(run, source, pairs)
        content["remarks"] = run.task.remarks
        content |= {"advice": run.task.advice(content, _data_report(run.folder)), "group_names": run.task.group_names}
        telling = _telling_examples(run, folder / f"{name}.jsonl", evaluation.metrics)
        with replacing(folder / f"{name}.json") as draft:
            draft.write_text(encodable(json.dumps({**content, "examples": telling}, ensure_ascii=False)), encoding="utf-8")
    return content


def robustness(run: Run, source: str, pairs: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Score a run on examples as each of the task's disturbances leaves them; raises ConfigError for a task that knows none."""
    if not run.task.disturbances:
        raise ConfigError(f"{run.task.name} knows no disturbances to measure robustness against; leave --robustness out")
    data, options = evaluation_settings(run, pairs)
    found = []
    for disturbance in run.task.disturbances:
        examples = _disturbed(run, Split(source, data, run.task), disturbance)
        scores = evaluate_examples(run, examples, options).scores.to_json()
        found.append(disturbance | scores_in(scores))
    return found


def _disturbed(run: Run, examples: Iterable[Example], disturbance: Mapping[str, Any]) -> Iterator[Example]:
    draw = np.random.default_rng(DISTURBANCE_SEED)
    for window in _windows(examples, run.window):
        yield from run.task.disturb(window, disturbance, draw)


def compare_runs(run_a: Run, run_b: Run, source: str, pairs: Sequence[str] = ()) -> dict[str, Any]:
    """Score two runs on the same examples and test every difference; raises ConfigError when their tasks differ."""
    if run_a.task.name != run_b.task.name:
        raise ConfigError(f"{run_a.folder} is a {run_a.task.name} run and {run_b.folder} a {run_b.task.name} run; compare runs of one task")
    data, _ = evaluation_settings(run_a, pairs)
    found = []
    for run in (run_a, run_b):  # read and judged alike, so that the same rows and references are compared
        _, options = evaluation_settings(run, pairs)
        found.append(evaluate_examples(run, Split(source, data, run_a.task), options, judge=run_a.task))
    tests = found[0].metrics.compare(found[1].metrics)
    content = {"a": str(run_a.folder), "b": str(run_b.folder), "data": source, "n": found[0].n_examples}
    remarks = [f"{name}: {line}" for name, one in zip("ab", found, strict=True) for line in unknown_remarks(one.scores.to_json())]
    return content | {name: test.to_json() for name, test in tests.items()} | ({"remarks": remarks} if remarks else {})


def evaluation_settings(run: Run, pairs: Sequence[str], *, scored: bool = True) -> tuple[DataConfig, DecodeConfig]:
    """Lay key=value pairs over what the run says about reading and decoding; raises ConfigError for other settings.

    Args:
        scored: whether answers are scored, so that settings are refused which scoring has no use for.
    """
    settings = parse_overrides(pairs)
    other = [group for group in settings if group not in ("data", "decode")]
    if other:
        raise ConfigError(f"{other[0]}: only data.* and decode.* settings can change after training")
    ignored = [f"data.{name}" for name in settings.get("data", {}) if name not in READ_SETTINGS]
    if ignored:
        raise ConfigError(f"{ignored[0]}: would be ignored here; of data.* only {', '.join(READ_SETTINGS)} can change after training")
    data = validate(DataConfig, merge(run.config.data.model_dump(), settings.get("data", {})), "data")
    run.task.check_columns(settings.get("data", {}).get("columns", {}))
    given = settings.get("decode", {})
    decode = run.decoding(given)
    if scored:
        run.task.examiner.check_decoding(decode, given)
    return data, decode


def _data_report(folder: Path) -> dict[str, Any]:
    """Return what training found in its data; nothing where the file is gone."""
    try:
        content = parse_json((folder / "data_report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def calibrate(run: Run, examples: Iterable[Example]) -> None:
    """Fit what the task fits on validation answers, and keep it with the run."""
    if run.task.calibrates:
        run.task.calibrate(evaluate_examples(run, examples, run.config.decode).metrics)
        run.save_parts()


def _name_of(source: str) -> str:
    """Return a file name for what is known of a data source: its folder's and its own name."""
    parts = [part for part in re.split(r"[/\\]", source) if part not in ("", ".", "..")]
    return re.sub(r"[^\w.-]+", "-", "-".join(parts[-2:])).strip("-.") or "data"


def _free_name(folder: Path, source: str) -> str:
    """Return a name under which no other data's evaluation is kept."""
    name = _name_of(source)
    try:
        taken_by = parse_json((folder / f"{name}.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return name
    return name if taken_by == source else f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"


def _telling_examples(run: Run, lines: Path, metrics: Metrics) -> dict[str, list[dict[str, Any]]]:
    """Return the best, median and worst answers with what can be drawn of them."""
    qualities, mistakes = metrics.qualities(), run.task.mistakes(metrics)
    order = np.argsort(-qualities, kind="stable")
    middle = max(0, len(order) // 2 - SHOWN // 2)
    worst = order[::-1] if mistakes is None else mistakes
    places = {"best": order[:SHOWN], "median": order[middle : middle + SHOWN], "worst": worst[:SHOWN]}
    wanted = {int(i) for chosen in places.values() for i in chosen}
    with lines.open(encoding="utf-8") as file:
        texts = {i: parse_json(line) for i, line in enumerate(file) if i in wanted}
    return {
        sort: [_drawn(run, texts[int(i)], float(qualities[i]), first=n < 2) for n, i in enumerate(chosen)]
        for sort, chosen in places.items()
    }


def _drawn(run: Run, content: dict[str, Any], quality: float, *, first: bool) -> dict[str, Any]:
    answer = Answer.from_json(content["answer"])
    picture = run.task.pictures(run.model, content["example"], answer) if first and answer.text else None
    return {**content, "quality": round(quality, 2), "picture": picture}


def score_lines(content: dict[str, Any]) -> list[str]:
    """Return an evaluation as lines for a terminal."""
    lines = _aligned_scores(content)
    for one in content.get("by_prefix", []):
        lines += [f"{one['prefix'] or 'no prefix'}  ({counted(one['n'], 'example')})", *(f"  {line}" for line in _aligned_scores(one))]
    cost = content["cost"]
    tokens = f"{cost['tokens_per_second']:,.0f} {cost.get('token_name', 'tokens')}/s, " if "tokens_per_second" in cost else ""
    lines.append(
        f"{counted(cost['examples'], 'example')} in {cost['seconds']:.1f} s: {cost['examples_per_second']:,.0f} examples/s, {tokens}"
        f"peak memory {cost['peak_memory_mib']:,.0f} MiB"
    )
    lines += _noise_lines(content.get("noise", []))
    if content.get("n") == 1:
        lines.append("there is one example alone, so the intervals say nothing of others; score on several")
    if content.get("sources_cut"):
        lines.append(f"{content['sources_cut']:,} of {content['n']:,} sources {were(content['sources_cut'])} cut at data.max_length")
    lines += unknown_remarks(content)
    if content.get("bad_rows", {}).get("skipped"):
        lines.append(f"skipped {counted(content['bad_rows']['skipped'], 'bad row')}, first: {content['bad_rows']['first'][0]}")
    lines += [f"{name}: {signature}" for name, signature in content.get("signatures", {}).items()]
    return [*lines, *content.get("remarks", [])]


def _aligned_scores(content: Mapping[str, Any]) -> list[str]:
    rows = scores_in(content)
    width = max(map(len, rows), default=0)
    return [f"{name:<{width}}  {_score_words(score)}" for name, score in rows.items()]


def _noise_lines(noises: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what each noise makes of a task's first score, the figures below each other."""
    told = []
    for one in noises:
        for name, score in list(scores_in(one).items())[:1]:
            told.append((f"{name} with {one.get('noise')} noise at", str(one.get("snr_db")), score))
    width = max((len(words) for words, _, _ in told), default=0)
    across = max((len(level) for _, level, _ in told), default=0)
    return [f"{words:<{width}} {level:>{across}} dB {_score_words(score)}" for words, level, score in told]


def _score_words(score: Mapping[str, float]) -> str:
    return f"{score['value']:8.4g}   95 % interval {score['low']:.4g} to {score['high']:.4g}"


def comparison_lines(content: dict[str, Any]) -> list[str]:
    """Return a comparison as lines for a terminal."""
    tests = {name: test for name, test in content.items() if isinstance(test, dict)}
    if not tests:
        raise DataError(f"{content['data']}: nothing to compare")
    width = max(map(len, tests))
    lines = [f"a = {content['a']}   b = {content['b']}   {counted(content['n'], 'example')} of {content['data']}"]
    for name, test in tests.items():
        difference = test["difference"]
        verdict = "differs" if test["p_value"] < 0.05 else "no difference shown"
        lines.append(
            f"{name:<{width}}  a {test['a']['value']:8.4g}   b {test['b']['value']:8.4g}   b - a {difference['value']:+.4g} "
            f"[{difference['low']:+.4g}, {difference['high']:+.4g}]   p = {test['p_value']:.3f}  {verdict}"
        )
    return [*lines, *content.get("remarks", [])]
