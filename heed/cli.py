"""The command line: verbs, and the only file that prints results or catches HeedError."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from heed.errors import ConfigError, HeedError
from heed.files import encodable
from heed.terminal import end_of, visible

if TYPE_CHECKING:
    from heed.tasks.live import Event, LiveSound

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # files of heed's own tell it by themselves
USUAL_DEMO = "translation"
LIVE_BYTES = 1 << 16  # of a stream of sound taken at once, at most

app = typer.Typer(
    name="heed",
    help="From a file of your own data to a trained, measured Transformer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Settings = Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]", help="settings by dotted path, such as train.lr=1e-3")]
Trust = Annotated[bool, typer.Option("--trust", help="import the task's own code, when it is not part of heed")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for programs")]


def _version(wanted: bool) -> None:
    if wanted:
        import heed

        typer.echo(f"heed {heed.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    """From a file of your own data to a trained, measured Transformer."""


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="a YAML file, the name of a recipe that ships, or a task")] = None,
    settings: Settings = None,
    to: Annotated[Path | None, typer.Option("--to", help="the run folder to make")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="go on exactly where this run stopped")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a run folder that is there")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="only say what it would take: parameters, memory, time")] = False,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="with --resume: go on although a data file changed")
    ] = False,
    trust: Trust = False,
) -> None:
    """Train a model: heed train translation data.train=pairs.tsv --to runs/mine."""
    from heed import verbs
    from heed.config import parse_overrides

    if plan:
        if recipe is None or resume is not None:
            raise ConfigError("--plan wants a recipe or task: heed train translation data.train=pairs.tsv --plan")
        print("\n".join(verbs.plan(recipe, parse_overrides(settings or [])).lines()))
        return
    if allow_changed_data and resume is None:
        raise ConfigError("--allow-changed-data would be ignored without --resume RUN; leave it out")
    if resume is not None:
        if recipe is not None or to is not None or force:
            raise ConfigError("--resume goes on with the settings of its run; leave out the recipe, key=value, --to and --force")
        run = verbs.resume(resume, trust=trust, allow_changed_data=allow_changed_data)
    elif recipe is None or to is None:
        raise ConfigError("name a recipe or task and a folder: heed train translation data.train=pairs.tsv --to runs/mine")
    else:
        run = verbs.train_with(recipe, parse_overrides(settings or []), to=to, force=force)
    print("\n".join(verbs.conclusion(run)))


@app.command()
def crossvalidate(
    recipe: Annotated[str, typer.Argument(help="a YAML file, the name of a recipe that ships, or a task")],
    settings: Settings = None,
    to: Annotated[Path, typer.Option("--to", help="the folder to make, or to go on in, with a run folder for each fold")] = Path(
        "runs/crossvalidation"
    ),
    as_json: AsJson = False,
) -> None:
    """Train and score on every fold: heed crossvalidate RECIPE folds=5 group=speaker data.train=FILE --to runs/folds."""
    from heed.config import parse_overrides
    from heed.experiments.crossvalidate import crossvalidate as run_folds
    from heed.experiments.crossvalidate import fold_lines

    short = {"folds": "data.folds", "group": "data.group"}
    found = run_folds(recipe, parse_overrides(_spelled_out(settings or [], short)), to)
    print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join([*fold_lines(found), f"report: {to / 'report.html'}"]))


@app.command()
def tune(
    recipe: Annotated[str, typer.Argument(help="a YAML file, the name of a recipe that ships, or a task")],
    settings: Settings = None,
    to: Annotated[Path, typer.Option("--to", help="the folder to make, or to go on in, with a run folder for each trial")] = Path(
        "runs/tuning"
    ),
    trials: Annotated[int, typer.Option("--trials", min=1, help="trials to make, those of earlier calls included; also trials=N")] = 20,
    as_json: AsJson = False,
) -> None:
    """Search for better settings: heed tune RECIPE trials=20 metric=f1_macro search.train.lr='{low: 5e-4, high: 5e-3, log: true}'."""
    from heed.config import parse_overrides
    from heed.experiments.tune import trial_lines
    from heed.experiments.tune import tune as search

    given = parse_overrides(_spelled_out(settings or [], {"metric": "train.best_metric"}))
    n_trials = given.pop("trials", trials)
    if not isinstance(n_trials, int) or n_trials < 1:
        raise ConfigError(f"trials={n_trials}: expected a whole number from 1")
    found = search(recipe, given, to, trials=n_trials)
    print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join([*trial_lines(found), f"report: {to / 'report.html'}"]))


@app.command("compare-models")
def compare_models(
    recipe: Annotated[str, typer.Argument(help="a YAML file, the name of a recipe that ships, or a task")],
    settings: Settings = None,
    to: Annotated[Path, typer.Option("--to", help="the folder to make, or to go on in")] = Path("runs/comparison"),
    synthetic: Annotated[bool, typer.Option(help="also recall at a distance, and what attention costs")] = True,
    as_json: AsJson = False,
) -> None:
    """Train a Transformer, a CNN, an LSTM and simple baselines on the same data, and say which is worth it."""
    from heed.config import parse_overrides
    from heed.experiments.models import compare_models as compare_kinds
    from heed.experiments.models import comparison_lines as kind_lines

    found = compare_kinds(recipe, parse_overrides(settings or []), to, synthetic=synthetic)
    print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join([*kind_lines(found), f"report: {to / 'report.html'}"]))


def _spelled_out(pairs: list[str], short: dict[str, str]) -> list[str]:
    """Replace the short names of settings by their paths."""
    split = (pair.partition("=") for pair in pairs)
    return [f"{short.get(key, key)}{equals}{value}" for key, equals, value in split]


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    data: Annotated[str, typer.Argument(help="examples to score on")],
    settings: Settings = None,
    as_json: AsJson = False,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="score it against disturbances too, such as noise of several levels")
    ] = False,
    trust: Trust = False,
) -> None:
    """Score a run on data, with 95 % intervals."""
    from heed import verbs
    from heed.device import keep_memory
    from heed.evaluation import score_lines

    keep_memory()
    scores = verbs.evaluate(run, data, settings or [], trust=trust, robust=robustness)
    if as_json:
        print(json.dumps(scores, ensure_ascii=False))
        return
    print("\n".join(score_lines(scores)))
    print(f"report: {run / 'report.html'}", file=sys.stderr)


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="a run folder")],
    run_b: Annotated[Path, typer.Argument(help="another")],
    data: Annotated[str, typer.Argument(help="examples both are scored on")],
    settings: Settings = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Test whether two runs differ, by a paired bootstrap over the same examples."""
    from heed import verbs
    from heed.device import keep_memory
    from heed.evaluation import comparison_lines

    keep_memory()
    comparison = verbs.compare(run_a, run_b, data, settings or [], trust=trust)
    print(json.dumps(comparison, ensure_ascii=False) if as_json else "\n".join(comparison_lines(comparison)))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT ...] [key=value ...]", help="what to answer; decode.* and data.* settings")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", help="read inputs from a table (.tsv .csv .jsonl .parquet) or lines of text; - is standard input"),
    ] = None,
    as_json: AsJson = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="follow sound on standard input: 16-bit little-endian samples of one channel")
    ] = False,
    rate: Annotated[int | None, typer.Option("--rate", min=1000, help="with --stream: its samples a second; default the run's")] = None,
    trust: Trust = False,
) -> None:
    """Answer inputs, one per line, in their order; or follow a stream of sound; or, without any on a terminal, ask for them."""
    from heed import prompt
    from heed.device import keep_memory
    from heed.evaluation import evaluation_settings
    from heed.inputs import STANDARD_INPUT, given_examples, split_settings
    from heed.run import Run

    keep_memory()
    loaded = Run.load(run, trust=trust)
    texts, pairs = split_settings(inputs or [])
    data, decode = evaluation_settings(loaded, pairs, scored=False)
    if stream:
        if texts or file is not None:
            raise ConfigError("--stream reads sound from standard input alone; leave out the inputs and --file")
        _follow(loaded.live(decode, rate=rate), as_json)
        return
    if rate is not None:
        raise ConfigError("--rate would be ignored without --stream; recordings say their rate themselves")
    watched = sys.stdout.isatty() and not as_json
    if file is None and not texts:
        if not (watched and sys.stdin.isatty()):
            raise ConfigError("nothing to answer: give inputs on the command line, or --file F, or --file - for standard input")
        prompt.interact(loaded, decode)
        return
    examples = given_examples(loaded.task.wanted, loaded.task.in_line, texts, file, data)
    if watched and file is None and len(texts) == 1 and prompt.comes_piecewise(decode):
        prompt.show(loaded, next(examples), decode, sys.stdout, sys.stderr)
        return
    at_once = 1 if file == STANDARD_INPUT and sys.stdin.buffer.isatty() else None  # a person typing wants each answer at once
    for answer in loaded.answers(examples, decode, at_once=at_once):
        shown = visible(_one_line(answer.text)) if watched else _one_line(answer.text)
        print(encodable(json.dumps(answer.to_json(), ensure_ascii=False) if as_json else shown))
        if watched and (note := loaded.task.note(answer)):
            print(f"note: {note}", file=sys.stderr)


def _follow(live: "LiveSound", as_json: bool) -> None:
    """Print what is heard on standard input while it comes: partial texts that change on a terminal, then final ones line by line."""
    on_terminal = sys.stdout.isatty() and not as_json
    with contextlib.suppress(KeyboardInterrupt):  # which is how a person ends a recording; what was said last is still written
        while raw := os.read(sys.stdin.fileno(), LIVE_BYTES):  # what is there now, however little
            for event in live.push(raw):
                _print_event(event, as_json, on_terminal)
    for event in live.finish():
        _print_event(event, as_json, on_terminal)
    if live.remark:
        print(f"note: {live.remark}", file=sys.stderr)


def _print_event(event: "Event", as_json: bool, on_terminal: bool) -> None:
    if as_json:
        print(json.dumps(event.to_json(), ensure_ascii=False), flush=True)
    elif on_terminal:  # a partial text that took several lines could not be taken back
        room = shutil.get_terminal_size().columns - 1
        shown = visible(_one_line(event.text))
        print(f"\r\x1b[K{shown if event.kind == 'final' else end_of(shown, room)}", end="\n" if event.kind == "final" else "", flush=True)
    else:
        print(f"{'...' if event.kind == 'partial' else f'{event.start:.2f}-{event.end:.2f}'}\t{_one_line(event.text)}", flush=True)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(metavar="RUN|DATA|RECIPE", help="a run folder; data; or a recipe or task")],
    settings: Settings = None,
    as_json: AsJson = False,
    graph: Annotated[bool, typer.Option("--graph", help="print the model as a Mermaid flow chart")] = False,
) -> None:
    """Show a run (settings, layers, parameters, scores), data (rows, lengths, duplicates, leaks), or every setting of a recipe."""
    from heed.config import find_recipe
    from heed.inspection import inspect_data, inspect_recipe, inspect_run

    folder = Path(what)
    is_run = (folder / "config.yaml").is_file()
    if graph and not is_run:
        raise ConfigError(f"--graph would be ignored: {what} is not a run folder, and nothing else has a model")
    if is_run and settings:
        raise ConfigError(f"{settings[0]} would be ignored: the settings of a run are what they were in training; leave it out")
    if is_run:
        found, lines = inspect_run(folder, graph=graph)
    elif find_recipe(what) is not None and (folder.suffix or not folder.exists()):
        found, lines = inspect_recipe(what, settings or [])
    else:
        found, lines = inspect_data(what, settings or [])
    print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(lines))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Write report.html of a run again."""
    from heed.report import write_report

    print(write_report(run))


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="a folder with config.json, safetensors and the files of a tokenizer")],
    settings: Settings = None,
    to: Annotated[Path | None, typer.Option("--to", help="the run folder to make")] = None,
    task: Annotated[str | None, typer.Option("--task", help="what to use it for, where that is not what its class is for")] = None,
    base: Annotated[Path | None, typer.Option("--base", help="the run that the adapters in DIR were learned beside")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a run folder that is there")] = False,
) -> None:
    """Make a run of a model in Hugging Face's layout: heed import DIR --to runs/bert; or, with --base RUN, of adapters."""
    from heed.config import parse_overrides
    from heed.convert import import_adapters, import_folder

    if to is None:
        raise ConfigError(f"name the run folder to make: heed import {source} --to runs/mine")
    if base is not None:
        if task is not None or settings:
            raise ConfigError("--task and settings would be ignored with --base: adapters have their own; leave them out")
        print(f"run folder: {import_adapters(source, to, base=base, force=force).folder}")
        return
    done = import_folder(source, to, task=task, settings=parse_overrides(settings or []), force=force)
    print("\n".join(done.lines()))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    to: Annotated[Path | None, typer.Option("--to", help="the folder to make")] = None,
    form: Annotated[
        str, typer.Option("--format", help="hf: what transformers loads; lora: adapters alone; peft: as peft loads them")
    ] = "hf",
    dtype: Annotated[str, typer.Option("--dtype", help="type of the numbers: float32, float16 or bfloat16")] = "float32",
    shard: Annotated[
        str, typer.Option("--max-shard-size", help="larger weights are written as several files of at most this size, such as 500MB")
    ] = "5GB",
) -> None:
    """Write a run in Hugging Face's layout: heed export runs/bert --format hf --to DIR."""
    from heed.convert import export_adapters, export_folder, export_peft

    if form not in ("hf", "lora", "peft"):
        raise ConfigError(f"--format {form}: is not hf, lora or peft")
    if to is None:
        raise ConfigError(f"name the folder to make: heed export {run} --format {form} --to DIR")
    if form == "hf":
        print("\n".join(export_folder(run, to, dtype=dtype, shard_bytes=_bytes_of(shard)).lines()))
        return
    for option, value, usual in (("--dtype", dtype, "float32"), ("--max-shard-size", shard, "5GB")):
        if value != usual:
            raise ConfigError(
                f"{option} {value} would be ignored by --format {form}, which writes what is stored in one file; leave it out"
            )
    print("\n".join((export_adapters if form == "lora" else export_peft)(run, to)))


def _bytes_of(size: str) -> int:
    """Return how many bytes a size such as 500MB is; raises ConfigError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMG]?)B", size.strip(), re.IGNORECASE)
    n = 0 if match is None else round(float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " "))
    if n < 1:
        raise ConfigError(f"--max-shard-size {size}: expected a number with B, KB, MB or GB, such as 500MB")
    return n


@app.command()
def demo(
    task: Annotated[
        str, typer.Argument(help="which task to show: translation, text_classification, text_generation or speech_recognition")
    ] = USUAL_DEMO,
    to: Annotated[
        Path | None, typer.Option("--to", help="the run folder to make; default runs/demo, of other tasks runs/demo-TASK")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a run folder that is there")] = False,
) -> None:
    """Train on a built-in data set, no download, and show what came of it."""
    from heed.demo import run_demo

    usual = Path("runs/demo" if task == USUAL_DEMO else f"runs/demo-{task}")
    for line in run_demo(task, to or usual, force=force):
        print(line)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="which figure to measure; without it they are listed")] = None,
) -> None:
    """Measure speed, against other systems where there are any: heed bench attention."""
    from heed.bench import explained, listing, run_bench

    asked = not {"-h", "--help"}.isdisjoint([name, *context.args])
    if asked and name is not None and not name.startswith("-"):
        print(explained(name))
    elif asked or name is None:
        print("\n".join([*([context.get_help()] if asked else []), *listing()]))
    else:
        run_bench(name, context.args)


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 a user's error, 130 or 143 interrupted."""
    signal.signal(signal.SIGTERM, _terminate)
    _replace_closed_streams()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()  # here, where it can still be told that it failed
    except HeedError as error:
        _fail(error, debug)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _stop_printing()  # the reader has gone: nothing more to say
        sys.exit(0)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # typer exits with 1 for it
            _stop_printing()
            sys.exit(0)
        raise
    except OSError as error:
        _fail(_told(error), debug, error)
    except Exception as error:
        if not hasattr(error, "exit_code"):  # a fault of heed's own keeps its traceback
            raise
        _other(error, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _replace_closed_streams() -> None:
    """Let what is printed vanish where a stream was closed (`>&-`), for which Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until the end)


def _stop_printing() -> None:
    """Let vanish what waits to be printed, so that Python does not fail at it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: OSError) -> HeedError:
    """Return an error of the system in a user's words; raises it again where it is none of theirs."""
    if error.filename is not None:
        return HeedError(f"{error.filename}: {error.strerror}; check that it is there and that you may read and write it")
    if error.errno not in UNWRITABLE:
        raise error
    _stop_printing()
    return HeedError(f"standard output: {error.strerror}; what was printed is not whole: free some space, or print elsewhere")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave in order, so that what was begun is tidied up; while it trains, the trainer listens itself."""
    sys.exit(128 + number)


def _fail(error: HeedError, debug: bool, cause: Exception | None = None) -> NoReturn:
    if debug:
        raise error from cause or error.__cause__
    print(f"heed: {error}", file=sys.stderr)
    sys.exit(1)


def _other(error: Exception, debug: bool) -> NoReturn:
    """Tell usage errors from an interrupted training, whose checkpoint is written."""
    message = getattr(error, "format_message", None)
    if message is None:
        print(f"interrupted: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    _fail(ConfigError(f"{message()} (see heed --help)"), debug, error)


if __name__ == "__main__":
    main()
