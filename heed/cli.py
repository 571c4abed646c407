"""The command line: verbs, and the only file that prints results or catches HeedError."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from heed.errors import ConfigError, HeedError

app = typer.Typer(
    name="heed",
    help="From a file of your own data to a trained, measured Transformer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Settings = Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]", help="settings by dotted path, such as train.lr=1e-3")]
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
) -> None:
    """Train a model: heed train translation data.train=pairs.tsv --to runs/mine."""
    from heed import verbs
    from heed.config import parse_overrides

    if resume is not None:
        if recipe is not None or to is not None:
            raise ConfigError("--resume goes on with the settings of its run; leave out the recipe, key=value and --to")
        run = verbs.resume(resume)
    elif recipe is None or to is None:
        raise ConfigError("name a recipe or task and a folder: heed train translation data.train=pairs.tsv --to runs/mine")
    else:
        run = verbs.train(recipe, to=to, force=force, **parse_overrides(settings or []))
    print("\n".join(verbs.conclusion(run)))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    data: Annotated[str, typer.Argument(help="examples to score on")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score a run on data, with 95 % intervals."""
    from heed import verbs
    from heed.evaluation import score_lines

    scores = verbs.evaluate(run, data, settings or [])
    if as_json:
        print(json.dumps({key: value for key, value in scores.items() if key != "examples"}, ensure_ascii=False))
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
) -> None:
    """Test whether two runs differ, by a paired bootstrap over the same examples."""
    from heed import verbs
    from heed.evaluation import comparison_lines

    comparison = verbs.compare(run_a, run_b, data, settings or [])
    print(json.dumps(comparison, ensure_ascii=False) if as_json else "\n".join(comparison_lines(comparison)))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    inputs: Annotated[list[str] | None, typer.Argument(metavar="[INPUT ...] [key=value ...]", help="what to answer")] = None,
    file: Annotated[str | None, typer.Option("--file", help="read inputs from a file, one per line; - is standard input")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer inputs, one per line, in their order."""
    from heed.config import DecodeConfig, merge, parse_overrides, validate
    from heed.run import Run

    loaded = Run.load(run)
    texts, pairs = _split_settings(inputs or [])
    options = _decode_options(parse_overrides(pairs))
    decode = validate(DecodeConfig, merge(loaded.config.decode.model_dump(), options), "decode")
    if file is None and not texts:
        raise ConfigError("nothing to answer: give inputs on the command line, or --file F, or --file - for standard input")
    examples = _examples(loaded, texts, file)
    for answer in loaded.answers(examples, decode):
        print(json.dumps(answer.to_json(), ensure_ascii=False) if as_json else _one_line(answer.text), flush=file == "-")


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _split_settings(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tell inputs from decode.key=value."""
    texts, pairs = [], []
    for argument in arguments:
        (pairs if argument.startswith("decode.") and "=" in argument else texts).append(argument)
    return texts, pairs


def _decode_options(settings: dict[str, Any]) -> dict[str, Any]:
    unknown = [group for group in settings if group != "decode"]
    if unknown:
        raise ConfigError(f"{unknown[0]}: only decode.* settings can change after training")
    options: dict[str, Any] = settings.get("decode", {})
    return options


def _examples(run: Any, texts: Iterable[str], file: str | None) -> Iterator[dict[str, Any]]:
    key = next(iter(run.task.inputs))
    yield from ({key: text} for text in texts)
    if file is None:
        return
    if file != "-" and not file.endswith(".txt") and Path(file).suffix:
        from heed.data.read import read_examples

        columns = run.config.data.columns
        yield from read_examples(file, required=list(run.task.inputs), rename={name: columns[name] for name in run.task.inputs if name in columns})
        return
    yield from ({key: line} for line in _lines(file))


def _lines(file: str) -> Iterator[str]:
    from heed.data.read import read_lines

    if file == "-":
        for raw in sys.stdin.buffer:
            yield raw.decode("utf-8-sig", errors="replace").removesuffix("\n").removesuffix("\r")
    else:
        yield from read_lines(file)


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(metavar="RUN|DATA", help="a run folder, or data")],
    settings: Settings = None,
    as_json: AsJson = False,
    graph: Annotated[bool, typer.Option("--graph", help="print the model as a Mermaid flow chart")] = False,
) -> None:
    """Show what is in a run folder (settings, layers, parameters) or in data (rows, lengths, duplicates, leaks)."""
    from heed.inspection import inspect_data, inspect_run

    folder = Path(what)
    if (folder / "config.yaml").is_file():
        found, lines = inspect_run(folder, graph=graph)
    else:
        found, lines = inspect_data(what, settings or [])
    print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(lines))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Write report.html of a run again."""
    from heed.report import write_report

    print(write_report(run))


@app.command()
def demo(
    task: Annotated[str, typer.Argument(help="which task to show")] = "translation",
    to: Annotated[Path, typer.Option("--to", help="the run folder to make")] = Path("runs/demo"),
    force: Annotated[bool, typer.Option("--force", help="replace a run folder that is there")] = False,
) -> None:
    """Train on a built-in data set, no download, and show what came of it."""
    from heed.demo import run_demo

    for line in run_demo(task, to, force=force):
        print(line)


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 a user's error, 130 or 143 interrupted."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(arguments, standalone_mode=False)
    except HeedError as error:
        _fail(error, debug)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing more to say
        sys.exit(0)
    except Exception as error:
        _other(error, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: BaseException, debug: bool) -> NoReturn:
    if debug:
        raise error
    print(f"heed: {error}", file=sys.stderr)
    sys.exit(1)


def _other(error: Exception, debug: bool) -> NoReturn:
    """Tell usage errors and interruptions from faults of heed's own, which keep their traceback."""
    code = getattr(error, "exit_code", None)
    if code is None:
        raise error
    message = getattr(error, "format_message", None)
    if message is None:  # an interrupted training: the checkpoint is written
        print("interrupted; the run can be resumed with: heed train --resume RUN", file=sys.stderr)
        sys.exit(code)
    _fail(ConfigError(f"{message()} (see heed --help)"), debug)


if __name__ == "__main__":
    main()
