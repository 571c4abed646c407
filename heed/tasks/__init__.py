"""The tasks heed knows. Adding one is one file and one line here; an outsider names theirs as `package.module:Class`."""

import importlib

from heed.errors import ConfigError
from heed.tasks.base import Answer, Task
from heed.tasks.masked_lm import MaskedLM
from heed.tasks.question_answering import QuestionAnswering
from heed.tasks.sentence_similarity import SentenceSimilarity
from heed.tasks.speech_recognition import SpeechRecognition
from heed.tasks.tagging import Tagging
from heed.tasks.text_classification import TextClassification
from heed.tasks.text_generation import TextGeneration
from heed.tasks.text_to_text import TextToText
from heed.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    "masked_lm": MaskedLM,
    "question_answering": QuestionAnswering,
    "sentence_similarity": SentenceSimilarity,
    "speech_recognition": SpeechRecognition,
    "tagging": Tagging,
    "text_classification": TextClassification,
    "text_generation": TextGeneration,
    "text_to_text": TextToText,
    "translation": Translation,
}


def find_task(name: str, *, trust: bool = True) -> type[Task]:
    """Return the class of a task given by its name or by a dotted path.

    Args:
        trust: whether a dotted path may be imported; a path from a stranger's run folder would run their code.
    """
    if name in TASKS:
        return TASKS[name]
    module, colon, attribute = name.partition(":")
    if not colon or module.startswith("."):
        raise ConfigError(f"task.name: {name!r} is not one of {', '.join(TASKS)}, nor a path such as package.module:Class")
    if not trust:
        raise ConfigError(f"task.name: {name!r} would run code that is not part of heed; load the run with trust=True if you trust it")
    try:
        task = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"task.name: {name!r} cannot be imported ({error})") from error
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ConfigError(f"task.name: {name!r} is not a heed.tasks.Task")
    return task


__all__ = ["TASKS", "Answer", "Task", "find_task"]
