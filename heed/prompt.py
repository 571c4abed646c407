"""Answers for a person at a terminal: shown as they are written, and at a prompt, where `heed predict RUN` is given nothing to answer.

Left out: a history that outlives the session, and turns of a chat.
"""

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable
from typing import TextIO

from heed.config import DecodeConfig, parse_overrides
from heed.data.rows import Example
from heed.errors import ConfigError, HeedError
from heed.inputs import from_line
from heed.run import Run
from heed.tasks import Answer
from heed.terminal import visible

MORE = "... "
COMMANDS = {
    "/help": "this list",
    "/set": "the settings of decoding; /set decode.temperature=0.7 changes one",
    "/quit": "leave; so does Ctrl-D",
}
RESET = {"/reset": "forget the text so far"}


def interact(run: Run, options: DecodeConfig) -> None:
    """Answer what a person types until they leave."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its line editing and history
    Prompt(run, options, read=input, out=sys.stdout, err=sys.stderr).loop()


def comes_piecewise(options: DecodeConfig) -> bool:
    """Return whether an answer can be shown before its end: one that is sampled or greedy."""
    return options.n_best == 1 and (options.sampling or options.beams == 1)


def show(run: Run, example: Example, options: DecodeConfig, out: TextIO, err: TextIO) -> None:
    """Write one answer as it comes, and what is to be said about it."""
    try:
        Prompt(run, options, read=input, out=out, err=err).answer(example)
    except KeyboardInterrupt:
        out.write("\n")
        raise


class Prompt:
    """Reads inputs, and writes answers to `out` and all else to `err`."""

    def __init__(self, run: Run, options: DecodeConfig, *, read: Callable[[str], str], out: TextIO, err: TextIO) -> None:
        """Begin a session.

        Args:
            read: returns the next line, given what to show in front of it; raises EOFError when there is none.
        """
        self.run, self.options, self.read, self.out, self.err = run, options, read, out, err
        self.names = [name for name in run.task.in_line if name in run.task.wanted]
        self.commands = {**COMMANDS, **(RESET if run.task.continues else {})}
        self.n_answers = 0  # since the seed was last set
        self.text = ""  # all of the last text, input and answer

    def loop(self) -> None:
        """Answer line by line until the person leaves; a mistake or Ctrl-C ends an answer and not the session."""
        self._say(f"{self.run.folder} ({self.run.task.name}): type {' and '.join(self.names)}; /help says what else there is")
        while True:
            try:
                if not self._turn():
                    return
            except EOFError:
                self._write("\n")
                return
            except KeyboardInterrupt:
                self._write("\n")
            except UnicodeDecodeError as error:
                self._say(f"heed: the input is not UTF-8 text ({error.reason}); type it again")
            except HeedError as error:
                self._say(f"heed: {error}")

    def _turn(self) -> bool:
        """Read and answer one input; returns whether to go on."""
        line = self._line(self.names[0])
        if re.fullmatch(r"/[a-z]+", line.split(" ")[0]):
            return self._obey(*line.partition(" ")[::2])
        if line or self.run.task.continues:
            self.answer(self._example(line))
        return True

    def _line(self, name: str) -> str:
        """Read a line, and the next as long as a backslash ends it."""
        line = self.read(f"{name}> ")
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self.read(MORE)
        return line

    def _example(self, line: str) -> Example:
        """Return the example that begins with a line: its other inputs stand behind tabs, or are asked for."""
        if self.run.task.continues:
            return {self.names[0]: line or self.text}
        given = from_line(self.run.task.in_line, line)
        return given | {name: self._line(name) for name in self.names if name not in given}

    def answer(self, example: Example) -> None:
        """Write the answer to an example."""
        options = self._drawn()
        self.text = str(example[self.names[0]])
        answer = self._streamed(example, options) if comes_piecewise(options) else self._searched(example, options)
        self._write("\n")
        note = self.run.task.note(answer)
        if note is not None:
            self._say(f"note: {note}")

    def _drawn(self) -> DecodeConfig:
        """Return the options of the next answer: each takes the next seed, so that the same input is not always answered alike."""
        options = self.options.replace(seed=self.options.seed + self.n_answers)
        self.n_answers += 1
        return options

    def _streamed(self, example: Example, options: DecodeConfig) -> Answer:
        pieces = self.run.streamed(example, options)
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            self.text += piece  # at once, so that what Ctrl-C leaves of an answer can be gone on with
            self._write(visible(piece))

    def _searched(self, example: Example, options: DecodeConfig) -> Answer:
        (answer,) = self.run.answers([example], options)
        self.text += answer.text
        self._write("\n".join(visible(one.text) for one in (answer, *answer.others)))
        return answer

    def _obey(self, command: str, rest: str) -> bool:
        """Do what a command says; returns whether to go on."""
        if command not in self.commands:
            raise ConfigError(f"{command} is no command; {', '.join(self.commands)} are, and behind a space it is an input")
        if command == "/help":
            self._help()
        elif command == "/set":
            self._set(rest)
        elif command == "/reset":
            self.text = ""
        return command != "/quit"

    def _help(self) -> None:
        lines = [f"{name:<8}{meaning}" for name, meaning in self.commands.items()]
        if self.run.task.continues:
            lines.append("A line begins a new text, and the answer goes on with it; an empty line lets the last text go on.")
        if len(self.names) > 1:
            lines.append(f"{', '.join(self.names)} are asked for one by one, or stand in one line with a tab between them.")
        lines.append("A backslash at the end of a line: the input goes on in the next. Ctrl-C ends an answer.")
        if self.options.sampling:
            lines.append("Each answer takes the next decode.seed; the first takes the one that is set.")
        self._say("\n".join(lines))

    def _set(self, rest: str) -> None:
        """Change settings of decoding, whose names may do without their group; without any show all."""
        try:
            pairs = shlex.split(rest)
        except ValueError as error:
            raise ConfigError(f"/set {rest}: {error}; close the quotes") from error
        if not pairs:
            settings = self.run.task.of_use(self.options)
            self._say("\n".join(f"decode.{name}={json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()))
            return
        if "=" not in rest:
            raise ConfigError(f"/set {rest}: expected key=value, such as /set temperature=0.7")
        changes = parse_overrides([pair if "." in pair.partition("=")[0] else f"decode.{pair}" for pair in pairs])
        other = [group for group in changes if group != "decode"]
        if other:
            raise ConfigError(f"{other[0]}: only decode.* settings can change here")
        self.options = self.run.decoding(changes["decode"], self.options)
        self.n_answers = 0

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    def _say(self, text: str) -> None:
        self.err.write(text + "\n")
        self.err.flush()
