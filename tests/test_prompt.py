"""Answers at a terminal: a prompt that survives mistakes and Ctrl-C, settings that change, and text shown as it is written."""

import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_runs import toy_texts, write_rows

import heed
from heed.config import DecodeConfig
from heed.data.rows import Example
from heed.errors import ConfigError
from heed.prompt import Prompt, comes_piecewise, show
from heed.run import Run
from heed.tasks import Answer

pytest_plugins = ["toy_runs"]

CONTEXT = 16


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that goes on with texts, after a few steps of training."""
    folder = tmp_path_factory.mktemp("writer")
    train = write_rows(folder / "train.tsv", [{"text": row["text"]} for row in toy_texts(60)])
    recipe: dict[str, Any] = {
        "task": {"name": "text_generation", "tokens": "characters"},
        "data": {"train": str(train), "max_length": CONTEXT},
        "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.0},
        "train": {"steps": 8, "batch_tokens": 200, "precision": "float32", "tensorboard": False},
        "decode": {"precision": "float32", "max_length": 12, "temperature": 0.9},
    }
    return heed.train(recipe, to=folder / "run", quiet=True)


class Session:
    """A prompt to which lines are typed; what is raised instead of a line stands among them."""

    def __init__(self, run: Run, *lines: str | BaseException, **options: Any) -> None:
        self.lines, self.asked = list(lines), list[str]()
        self.out, self.err = io.StringIO(), io.StringIO()
        self.prompt = Prompt(run, run.config.decode.replace(**options), read=self.read, out=self.out, err=self.err)
        self.prompt.loop()

    def read(self, asked: str) -> str:
        self.asked.append(asked)
        line = self.lines.pop(0) if self.lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line

    @property
    def said(self) -> list[str]:
        """What was said beside the answers and their notes, without the greeting."""
        return [line for line in self.err.getvalue().splitlines()[1:] if not line.startswith("note: ")]

    @property
    def notes(self) -> list[str]:
        """What was said about answers."""
        return [line.removeprefix("note: ") for line in self.err.getvalue().splitlines() if line.startswith("note: ")]


def texts_of(run: Run, examples: Sequence[Example], **options: Any) -> str:
    """Return what a session shows for answers to examples, each drawn by the next seed, and for leaving by Ctrl-D."""
    decode = run.config.decode.replace(**options)
    answers = [next(run.answers([example], decode.replace(seed=decode.seed + number))) for number, example in enumerate(examples)]
    return "".join(f"{answer.text}\n" for answer in answers) + "\n"


# --- Run.stream


def test_a_stream_of_any_run_joined_is_its_answer(writer: Run, toy_run: Run, pair_run: Run) -> None:
    inputs: list[tuple[Run, Example, dict[str, Any]]] = [
        (writer, {"text": "the dog"}, {"seed": 4, "max_length": 5}),
        (toy_run, {"source": "the dog sees one cat"}, {"seed": 4, "max_length": 5}),
        (pair_run, {"text": "the red dog", "text_pair": "one cat"}, {"n_best": 2}),
    ]
    for run, example, changed in inputs:
        for options in ({}, changed):
            assert "".join(run.stream(example, **options)) == run.predict(example, **options).text
    assert len(list(writer.stream({"text": "the dog"}))) > 3
    assert len(list(toy_run.stream({"source": "the dog"}))) == 1


def test_what_a_stream_returns_has_the_details_of_the_answer(writer: Run) -> None:
    def returned(pieces: Generator[str, None, Answer]) -> Answer:
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    for text in ("the", "the dog sees the cat and the tree"):
        for options in ({"max_length": 3}, {"max_length": 40}, {"max_length": 40, "stop": ["e", "t", "a"]}):
            expected = writer.predict({"text": text}, **options)
            found = returned(writer.stream({"text": text}, **options))
            assert (found.text, found.details) == (expected.text, expected.details)


@pytest.mark.parametrize(
    ("example", "options", "message"),
    [
        ({"text": "the"}, {"beam": 2}, r"decode\.beam: unknown setting"),
        ({"text": 5}, {}, "input 1: 'text' should be text, found int"),
        ("text alone", {}, "input 1: expected a mapping such as {'text': ...}, found 'text alone'"),
        ({"source": "the"}, {}, "input 1: has no 'text'"),
        ({"text": "the"}, {"language_model": "x"}, "x"),
    ],
)
def test_a_stream_that_cannot_begin_is_refused_before_its_first_piece(
    writer: Run, example: Example, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(heed.errors.HeedError, match=message):
        writer.stream(example, **options)


def test_a_search_is_refused_as_a_stream_and_shown_at_its_end_instead(writer: Run) -> None:
    with pytest.raises(ConfigError, match=r"set decode\.n_best=1"):
        list(writer.stream({"text": "the"}, sample=False, temperature=1.0, beams=3))
    options: dict[str, Any] = {"sample": False, "temperature": 1.0, "beams": 3, "n_best": 2}
    answer = writer.predict({"text": "the"}, **options)
    assert Session(writer, "the", **options).out.getvalue() == f"{answer.text}\n{answer.others[0].text}\n\n"
    assert not comes_piecewise(DecodeConfig(beams=3))
    assert comes_piecewise(DecodeConfig(beams=1))
    assert comes_piecewise(DecodeConfig(beams=3, sample=True))
    assert not comes_piecewise(DecodeConfig(sample=True, n_best=2))


# --- the prompt


def test_every_line_is_answered_and_the_end_of_the_input_ends_the_session(toy_run: Run) -> None:
    lines = ["the dog", "one old cat"]
    session = Session(toy_run, *lines)
    assert session.out.getvalue() == texts_of(toy_run, [{"source": line} for line in lines])
    assert session.asked == ["source> "] * 3
    assert session.said == []


def test_text_is_written_piece_by_piece(writer: Run) -> None:
    class Watched(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.flushed = list[str]()

        def flush(self) -> None:
            self.flushed.append(self.getvalue())

    out = Watched()
    show(writer, {"text": "the dog"}, writer.config.decode, out, io.StringIO())
    text = writer.predict({"text": "the dog"}).text
    assert out.getvalue() == text + "\n"
    assert len(set(out.flushed)) > 4


def test_each_answer_takes_the_next_seed_until_one_is_set(writer: Run) -> None:
    the = {"text": "the"}
    session = Session(writer, "the", "the", "/set seed=7", "the", "the")
    first, again = texts_of(writer, [the, the]).removesuffix("\n"), texts_of(writer, [the, the], seed=7)
    assert session.out.getvalue() == first + again
    assert first.splitlines()[0] != first.splitlines()[1]


def test_an_empty_line_lets_a_text_go_on_and_reset_forgets_it(writer: Run) -> None:
    session = Session(writer, "the", "", "", "/reset", "")
    text, expected = "the", ""
    for number in range(3):
        answer = writer.predict({"text": text}, seed=number).text
        text, expected = text + answer, expected + answer + "\n"
    assert session.out.getvalue() == expected + writer.predict({"text": ""}, seed=3).text + "\n\n"


def test_an_empty_line_is_nothing_to_a_task_that_continues_nothing(toy_run: Run) -> None:
    assert Session(toy_run, "", "/quit").out.getvalue() == ""


def test_inputs_stand_behind_tabs_or_are_asked_for_one_by_one(pair_run: Run) -> None:
    pair = {"text": "the red dog", "text_pair": "one cat"}
    for lines in (["the red dog\tone cat"], ["the red dog", "one cat"]):
        session = Session(pair_run, *lines)
        assert session.out.getvalue() == texts_of(pair_run, [pair])
        assert session.asked == ["text> ", "text_pair> ", "text> "][-len(lines) - 1 :] if len(lines) > 1 else ["text> ", "text> "]


def test_a_backslash_at_the_end_of_a_line_lets_the_input_go_on(writer: Run) -> None:
    session = Session(writer, "the\\", "dog\\", "")
    assert session.out.getvalue() == texts_of(writer, [{"text": "the\ndog\n"}])
    assert session.asked == ["text> ", "... ", "... ", "text> "]


def test_settings_change_and_are_listed(writer: Run) -> None:
    session = Session(writer, """/set temperature=0.5 decode.stop='["g s"]'""", "the dog", "/set")
    assert session.out.getvalue() == texts_of(writer, [{"text": "the dog"}], temperature=0.5, stop=["g s"])
    assert "decode.temperature=0.5" in session.said
    assert 'decode.stop=["g s"]' in session.said
    said = {line.partition("=")[0].removeprefix("decode.") for line in session.said}
    assert said == writer.task.reads | {"batch_tokens", "precision"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/set temperatur=1", "decode.temperatur: unknown setting, found 1; did you mean decode.temperature?"),
        ("/set temperature=-1", "decode.temperature: "),
        ("/set temperature", "expected key=value"),
        ("/set train.lr=1", "only decode.* settings can change here"),
        ("/set stop='a", "close the quotes"),
        ("/hlep", "/hlep is no command"),
        ("/set language_model=nowhere", "decode.language_model would be ignored: text_generation reads"),
        ("/set beams=3", "decode.beams=3 would be ignored beside decode.sample=true"),
    ],
)
def test_a_mistake_is_one_line_and_the_session_goes_on(writer: Run, line: str, expected: str) -> None:
    session = Session(writer, line, "the", "/set seed=0", "the")
    complaints = [said for said in session.said if said.startswith("heed: ")]
    assert len(complaints) == 1
    assert expected in complaints[0]
    assert session.out.getvalue().endswith(texts_of(writer, [{"text": "the"}]))


def test_what_is_no_command_is_an_input(writer: Run) -> None:
    lines = ["/usr/bin", " /set", "/1", "a /quit"]
    session = Session(writer, *lines)
    assert session.out.getvalue() == texts_of(writer, [{"text": line} for line in lines])
    assert session.said == []


def test_input_that_is_no_text_is_one_line(writer: Run) -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    session = Session(writer, error, "the")
    assert session.said == ["heed: the input is not UTF-8 text (invalid start byte); type it again"]
    assert session.out.getvalue() == texts_of(writer, [{"text": "the"}])


def test_ctrl_c_ends_an_answer_and_an_empty_line_goes_on_from_there(writer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = Run.streamed

    def interrupted(run: Run, example: Example, options: DecodeConfig) -> Generator[str, None, Answer]:
        monkeypatch.setattr(Run, "streamed", streamed)
        yield from ["one ", "dog"]
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "streamed", interrupted)
    session = Session(writer, KeyboardInterrupt(), "the ", "", "/quit")
    follows = writer.predict({"text": "the one dog"}, seed=1).text
    assert session.out.getvalue() == f"\none dog\n{follows}\n"


def test_help_says_what_there_is_for_the_task(writer: Run, toy_run: Run, pair_run: Run) -> None:
    said = "\n".join(Session(writer, "/help").said)
    for word in ("/set", "/quit", "/reset", "Ctrl-D", "empty line", "backslash", "decode.seed"):
        assert word in said
    said = "\n".join(Session(toy_run, "/help").said)
    assert "/reset" not in said
    assert "empty line" not in said
    assert "text, text_pair are asked for one by one" in "\n".join(Session(pair_run, "/help").said)


def test_a_text_beyond_the_context_is_noted(writer: Run) -> None:
    session = Session(writer, "a" * (CONTEXT + 3), "ab", max_length=CONTEXT + 9)
    assert session.notes[0].split("; ")[0] == f"the first 4 tokens of the text were not read: this model sees {CONTEXT} at once"
    moved = [writer.predict({"text": "ab"}, max_length=CONTEXT + 9, seed=1).details.get("context_moved", False)]
    assert [note.startswith("the text grew beyond") for note in session.notes[1:]] == [True] * sum(moved)


def test_what_the_model_does_not_know_and_where_it_adds_nothing_is_noted(writer: Run) -> None:
    (answer,) = writer.predict([{"text": "a张b三"}])
    assert answer.details["unknown"] == 2
    assert str(writer.task.note(answer)).startswith("2 of the text's characters are unknown to the model")
    (one,) = writer.predict([{"text": "a张b"}])
    assert str(writer.task.note(one)).startswith("1 of the text's characters is unknown to the model, which never saw it")
    (known,) = writer.predict([{"text": "ab"}])
    assert "unknown" not in known.details
    assert writer.task.note(Answer("")) == "nothing is added: for the model the text ends here"
    assert writer.task.note(Answer("", details={"stop": "."})) is None


def test_control_characters_of_an_answer_stay_away_from_the_terminal(writer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def malicious(run: Run, example: Example, options: DecodeConfig) -> Generator[str, None, Answer]:
        yield from ["a\x1b", "[2J"]
        return Answer("a\x1b[2J")

    monkeypatch.setattr(Run, "streamed", malicious)
    assert Session(writer, "the").out.getvalue() == "a\ufffd[2J\n\n"


# --- through a terminal


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self.leader, follower = pty.openpty()
        command = [sys.executable, "-m", "heed.cli", *map(str, arguments)]
        environment = {**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True)
        os.close(follower)
        self.seen = ""

    def until(self, text: str, seconds: float = 60) -> str:
        """Return what appears up to a text."""
        while text not in self.seen:
            ready, _, _ = select.select([self.leader], [], [], seconds)
            assert ready, self.seen
            try:
                raw = os.read(self.leader, 4096)
            except OSError:  # the command has ended
                raw = b""
            assert raw, self.seen
            self.seen += raw.decode("utf-8", "replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, line: str) -> None:
        os.write(self.leader, line.encode())

    def end(self) -> int:
        code = self.process.wait(60)
        os.close(self.leader)
        return code


def test_a_run_without_input_asks_for_it_on_a_terminal(writer: Run) -> None:
    terminal = Terminal("predict", writer.folder)
    assert "/help" in terminal.until("text> ")
    terminal.type("the dog\n")
    assert writer.predict({"text": "the dog"}).text in terminal.until("text> ")
    terminal.type("/set beam=1\n")
    assert "did you mean decode.beams?" in terminal.until("text> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_one_input_on_a_terminal_is_answered_with_its_note(writer: Run) -> None:
    terminal = Terminal("predict", writer.folder, "the dog sees the cat")
    assert terminal.until("\r\nnote: ").endswith(writer.predict({"text": "the dog sees the cat"}).text)
    assert "not read" in terminal.until("at once")
    assert terminal.end() == 0


def test_without_a_terminal_a_run_without_input_is_refused(writer: Run) -> None:
    command = [sys.executable, "-m", "heed.cli", "predict", str(writer.folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing to answer" in done.stderr


def test_lines_of_a_file_are_continued_as_alone(writer: Run, tmp_path: Path) -> None:
    prompts = ["the dog", "", "a", "the old cat finds one big tree", "the dog"]
    together = writer.predict([{"text": prompt} for prompt in prompts])
    for prompt, answer in zip(prompts, together, strict=True):
        alone = writer.predict({"text": prompt})
        assert (answer.text, answer.details) == (alone.text, alone.details)
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    command = [sys.executable, "-m", "heed.cli", "predict", str(writer.folder), "--json", "--file", str(tmp_path / "prompts.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == [answer.text for answer in together]
    assert done.stderr == ""
