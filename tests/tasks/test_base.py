import json

import pytest

from heed.errors import ConfigError
from heed.run import resolve
from heed.tasks import TASKS, Answer, find_task
from heed.tasks.base import Task
from heed.tasks.translation import Translation


def test_an_answer_is_json_without_what_is_empty_at_any_depth() -> None:
    answer = Answer("a", -1.0, (Answer("b", -2.0), Answer("c")))
    expected = {"text": "a", "score": -1.0, "others": [{"text": "b", "score": -2.0}, {"text": "c"}]}
    assert answer.to_json() == expected
    assert json.loads(json.dumps(answer.to_json())) == expected
    assert Answer("").to_json() == {"text": ""}
    assert Answer("", 0.0).to_json() == {"text": "", "score": 0.0}


def test_tasks_are_found_by_name_and_by_path() -> None:
    assert find_task("translation") is TASKS["translation"] is Translation
    assert find_task("heed.tasks.translation:Translation") is Translation


def test_a_path_is_not_imported_without_trust() -> None:
    with pytest.raises(ConfigError, match="trust=True"):
        find_task("heed.tasks.translation:Translation", trust=False)
    assert find_task("translation", trust=False) is Translation


@pytest.mark.parametrize(
    "name", ["", "nobody", "nobody.nowhere", ":", "a:", ":b", "json:", "json:nothing", "json:loads", "nobody.nowhere:X", "..:X"]
)
def test_what_is_no_task_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^task.name: "):
        find_task(name)


def test_every_task_says_under_which_name_it_is_known_and_what_it_reads() -> None:
    for name, task in TASKS.items():
        assert issubclass(task, Task)
        assert task.name == name
        assert task.inputs
        assert not set(task.inputs) & set(task.outputs)
        assert set(task.inputs.values()) <= {"text", "words", "audio", "image", "items"}


@pytest.mark.parametrize(
    ("name", "column", "near"),
    [
        ("text_classification", "text_pairs", "text_pair"),
        ("sentence_similarity", "scores", "score"),
        ("text_to_text", "prefixes", "prefix"),
        ("question_answering", "titel", "title"),
        ("speech_recognition", "speakers", "speaker"),
    ],
)
def test_a_misspelt_name_of_a_column_that_data_may_have_is_refused_with_the_near_one(name: str, column: str, near: str) -> None:
    task = resolve({"task": {"name": name}}).build_task()
    task.check_columns([*task.columns, near])
    task.check_columns([column], group=column)
    with pytest.raises(ConfigError, match=rf"^data\.columns\.{column} would be ignored: .*; did you mean data\.columns\.{near}\?$"):
        task.check_columns([near, column])
