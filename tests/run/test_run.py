"""What a trained model answers, and who may."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import TINY, ToyData, Train, edit_config, toy_pairs

import heed
from heed.config import DecodeConfig, merge
from heed.data.rows import Example
from heed.errors import ConfigError, DataError
from heed.run import Run
from heed.run import run as run_module
from heed.tasks import Answer
from heed.tasks.translation import Translation

pytest_plugins = ["toy_runs"]


class Outsider(Translation):
    """A task that is not part of heed."""


OUTSIDER = f"{__name__}:Outsider"
INPUTS = [{"source": pair["source"]} for pair in toy_pairs(20, seed=77)]


def test_one_example_gets_an_answer_and_several_get_a_list(toy_run: Run) -> None:
    answer = toy_run.predict({"source": "the big dog"})
    assert isinstance(answer, Answer)
    assert answer.score is not None
    assert answer.score < 0
    assert toy_run.predict([{"source": "the big dog"}]) == [answer]
    assert toy_run.predict([]) == []


def test_answers_are_in_the_order_of_the_inputs_whatever_the_batches(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [toy_run.predict(example) for example in INPUTS]
    assert len({answer.text for answer in alone}) > 5
    for window, budget in ((3, 8), (7, 30), (2048, 4096)):
        monkeypatch.setattr(run_module, "WINDOW", window)
        together = toy_run.predict(INPUTS, batch_tokens=budget)
        assert [answer.text for answer in together] == [answer.text for answer in alone]
        assert [answer.score for answer in together] == pytest.approx([answer.score for answer in alone], abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("beams", [1, 3])
def test_every_precision_answers_alone_as_in_a_batch_and_on_several_threads_as_on_one(toy_run: Run, precision: str, beams: int) -> None:
    examples = [{"source": pair["source"]} for pair in toy_pairs(60, seed=5)]
    options = {"precision": precision, "beams": beams, "batch_tokens": 40}
    together = toy_run.predict(examples, **options)
    assert [toy_run.predict(example, **options).text for example in examples[:20]] == [answer.text for answer in together[:20]]
    try:
        torch.set_num_threads(2)
        threaded = toy_run.predict(examples, **options)
        assert [answer.text for answer in threaded] == [answer.text for answer in together]
        # Products of MKL may differ in the last bit with where in memory their factors lie.
        assert [answer.score for answer in threaded] == pytest.approx([answer.score for answer in together], rel=1e-5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_int8_answers_are_nearly_always_those_of_float32(toy_run: Run) -> None:
    examples = [{"source": pair["source"]} for pair in toy_pairs(100, seed=6)]
    exact, rounded = (toy_run.predict(examples, precision=precision) for precision in ("float32", "int8"))
    # So small a model is often nearly undecided, and how often hangs on the machine that trained it. More than that is an error.
    changed = [row for row, (one, other) in enumerate(zip(exact, rounded, strict=True)) if one.text != other.text]
    found = [toy_run.predict(examples[row], precision="float32", beams=5, n_best=5) for row in changed]
    leads = [
        best.score - {one.text: one.score for one in best.others}.get(rounded[row].text, -math.inf)
        for row, best in zip(changed, found, strict=True)
    ]
    assert len(changed) <= 10
    assert sum(lead > 0.1 for lead in leads) <= 5


def test_nothing_in_gives_nothing_out(toy_run: Run) -> None:
    assert [answer.text for answer in toy_run.predict([{"source": ""}, {"source": " \n\t"}, {"source": "the dog"}])][:2] == ["", ""]
    assert toy_run.predict({"source": ""}).text == ""
    assert toy_run.predict({"source": ""}, sample=True, seed=3).text == ""


@pytest.mark.parametrize("text", ["\x00", "🙂" * 40, "好的", "<eos> <pad>", "\ud83d", "a" * 3000, "&lt;b&gt;"])
def test_any_text_gets_an_answer(toy_run: Run, text: str) -> None:
    assert isinstance(toy_run.predict({"source": text}, beams=1).text, str)


def test_n_best_gives_runners_up_best_first(toy_run: Run) -> None:
    answer = toy_run.predict({"source": "the old tree"}, beams=4, n_best=3)
    scores = [one.score for one in (answer, *answer.others) if one.score is not None]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert answer.to_json().keys() == {"text", "score", "others"}


def test_samples_follow_their_seed(toy_run: Run) -> None:
    def texts(seed: int) -> list[str]:
        return [answer.text for answer in toy_run.predict(INPUTS, temperature=3.0, seed=seed)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 3}, r"decode.beam: unknown setting.*; did you mean decode.beams\?"),
        ({"beams": 0}, "decode.beams: "),
        ({"n_best": 3, "beams": 2}, "decode.n_best=3 needs at least as many beams"),
    ],
)
def test_wrong_decoding_options_are_refused(toy_run: Run, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_run.predict({"source": "the dog"}, **options)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"text": "hello"}, r"input 6: has no 'source' \(text\); found 'text'"),
        ({}, r"input 6: has no 'source' \(text\); found nothing"),
        ({"source": 5}, r"input 6: 'source' should be text, found int"),
        ({"source": None}, r"input 6: 'source' should be text, found NoneType"),
    ],
)
def test_an_input_that_is_none_is_named_by_its_number_in_the_stream(
    toy_run: Run, monkeypatch: pytest.MonkeyPatch, example: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(run_module, "WINDOW", 4)
    with pytest.raises(DataError, match=message):
        toy_run.predict([*INPUTS[:5], example])


@pytest.mark.parametrize("inputs", ["the source", ["the source"]])
def test_a_text_alone_is_refused_as_a_whole(toy_run: Run, inputs: Any) -> None:
    with pytest.raises(DataError, match=r"input 1: expected a mapping such as \{'source': \.\.\.\}, found 'the source'$"):
        toy_run.predict(inputs)


def test_answering_a_stream_holds_a_window_of_it(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def stream() -> Iterator[Example]:
        nonlocal taken
        for example in INPUTS:
            taken += 1
            yield example

    ahead = []
    for number, _ in enumerate(toy_run.answers(stream(), DecodeConfig(beams=1, max_length=4), at_once=5), start=1):
        ahead.append(taken - number)
    assert len(ahead) == len(INPUTS)
    assert max(ahead) <= 4


def test_learned_positions_refuse_a_longer_input_and_never_write_a_longer_answer(train: Train) -> None:
    run = train(model={"positions": "learned", "max_length": 24}, data={"max_length": 24}, train={"steps": 1})
    with pytest.raises(DataError, match=r"input 2: \d+ tokens, but this model takes at most 24; split it into shorter pieces"):
        run.predict([{"source": "dog"}, {"source": "zebra " * 30}])
    exactly = next(n for n in range(24) if run.task.encode({"source": "z" * n})["source"].numel() == 24)
    for options in ({"beams": 2}, {"beams": 1}, {"sample": True, "temperature": 9.0}):
        assert isinstance(run.predict({"source": "z" * exactly}, max_length=1000, **options).text, str)


def test_a_folder_copied_elsewhere_answers_the_same_without_the_first(train: Train, tmp_path: Path) -> None:
    run = train()
    expected = run.predict(INPUTS)
    (tmp_path / "far away").mkdir()
    moved = shutil.copytree(run.folder, tmp_path / "far away" / "renamed")
    shutil.rmtree(run.folder)
    for name in ("checkpoints", "store", "evaluations"):
        shutil.rmtree(moved / name, ignore_errors=True)
    assert heed.load(str(moved)).predict(INPUTS) == expected


def test_a_trained_run_and_the_loaded_one_answer_alike(toy_run: Run) -> None:
    assert heed.load(str(toy_run.folder)).predict(INPUTS) == toy_run.predict(INPUTS)


def test_a_run_that_is_loaded_under_inference_mode_answers_and_can_still_be_changed(toy_run: Run) -> None:
    with torch.inference_mode():
        run = Run.load(toy_run.folder, device="cpu")
        found = run.predict({"source": "one two"})
        assert not any(parameter.is_inference() for parameter in run.model.parameters())
    assert found == Run.load(toy_run.folder, device="cpu").predict({"source": "one two"})


def test_loading_never_imports_code_that_a_folder_names_unless_it_is_trusted(run_copy: Path) -> None:
    edit_config(run_copy, task={"name": OUTSIDER})
    with pytest.raises(ConfigError, match=r"would run code that is not part of heed; load the run with trust=True"):
        heed.load(str(run_copy))
    assert isinstance(heed.load(str(run_copy), trust=True).task, Outsider)


def test_a_recipe_may_name_a_task_of_ones_own(train: Train, toy_data: ToyData) -> None:
    settings = merge(TINY, {"task": {"name": OUTSIDER}, "data": {"train": str(toy_data.train)}})
    run = heed.train(settings, to=toy_data.train.parent / "outsider", quiet=True, train={"steps": 2})
    assert isinstance(run.task, Outsider)
    assert heed.load(str(run.folder), trust=True).predict({"source": "the dog"}) == run.predict({"source": "the dog"})
