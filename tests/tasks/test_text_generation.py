"""Text generation: windows that lose nothing and see nothing of each other, likelihoods, prompts, streams and full contexts."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import WORDS, write_rows

import heed
from heed.config import DecodeConfig, validate
from heed.data.batch import collate
from heed.data.documents import PIECE_CONTEXTS
from heed.data.order import batches, padding_share
from heed.data.rows import Example
from heed.data.store import Encoded, Store
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.evaluation import evaluate_examples
from heed.model import Causal, ModelConfig, build_model
from heed.run import Run, resolve
from heed.tasks.base import Answer
from heed.tasks.text_generation import Likelihood, TextGeneration, TextGenerationSettings, Writer
from heed.training.log import TrainingLog
from heed.training.prepare import prepare
from heed.training.trainer import Trainer

BOS, EOS = Tokenizer.bos_id, Tokenizer.eos_id
CONTEXT = 8
SIZES: dict[str, Any] = {"d_model": 24, "n_heads": 4, "n_layers": 2, "d_ff": 20, "dropout": 0.0}


def prose(n_words: int, seed: int = 0) -> str:
    """Return sentences of the toy language, some lines and paragraphs of them."""
    draw = random.Random(seed)
    return "".join(draw.choice(list(WORDS)) + draw.choices([" ", ". ", ".\n", ".\n\n"], [8, 2, 1, 1])[0] for _ in range(n_words))


TEXTS = [prose(60), "the dog sees", "好的 🙂\n\tyes", prose(9, 2)]


def task_of(max_length: int = CONTEXT, **settings: Any) -> TextGeneration:
    """Return a task whose vocabulary is that of TEXTS."""
    task = TextGeneration(validate(TextGenerationSettings, {"vocab_size": 300, **settings}), max_length=max_length)
    task.prepare([{"text": text} for text in TEXTS])
    return task


def model_for(task: TextGeneration, **fields: Any) -> Causal:
    torch.manual_seed(3)
    model = build_model(task.shape(ModelConfig(architecture="causal", **{**SIZES, **fields})))
    assert isinstance(model, Causal)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        model.stem.embedding.weight[EOS] = 0  # so that answers are seldom short
    return model.eval()


@pytest.fixture(scope="module", params=["subwords", "characters", "bytes"])
def task(request: pytest.FixtureRequest) -> TextGeneration:
    return task_of(tokens=request.param) if request.param != "bytes" else task_of(tokens="bytes", vocab_size=8000)


@pytest.fixture(scope="module")
def model(task: TextGeneration) -> Causal:
    return model_for(task)


def rows(*texts: str) -> list[Example]:
    return [{"text": text} for text in texts]


def read_back(task: TextGeneration, ids: Sequence[int]) -> str:
    return b"".join(task.spelling[i] for i in ids).decode()


def log_p_of(model: Causal, context: Sequence[int], token: int) -> float:
    with torch.no_grad():
        return float(model(torch.tensor([list(context)]))[0, -1].log_softmax(-1)[token])


# --- documents and windows


def test_a_text_is_its_ids_between_a_begin_and_an_end(task: TextGeneration) -> None:
    for text in TEXTS:
        ids = task.encode({"text": text})["text"].tolist()
        assert (ids[0], ids[-1]) == (BOS, EOS)
        assert read_back(task, ids).removeprefix(" ") == text
        assert task.encode({"text": text, "continues": True})["text"].tolist() == ids[:-1]


def test_bytes_are_the_256_of_them_and_characters_one_for_each() -> None:
    in_bytes = task_of(tokens="bytes", vocab_size=8000)
    assert in_bytes.tokenizer.vocab_size == 260
    assert len(in_bytes.encode({"text": "好"})["text"]) == 2 + 1 + 3  # begin, end, and the space before a text
    assert len(task_of(tokens="characters").encode({"text": "the dog"})["text"]) == 2 + 7


def test_windows_foretell_every_token_once(task: TextGeneration) -> None:
    for text in TEXTS:
        encoded = task.encode({"text": text})
        windows = [window["text"].tolist() for window in task.pieces(encoded)]
        assert [token for window in windows for token in window[1:]] == encoded["text"].tolist()[1:]
        assert [window[0] for window in windows[1:]] == [window[-1] for window in windows[:-1]]
        assert all(len(window) == CONTEXT + 1 for window in windows[:-1])
        assert 2 <= len(windows[-1]) <= CONTEXT + 1


@pytest.mark.parametrize("documents", ["file", "paragraphs"])
def test_a_long_document_is_divided_and_nothing_is_lost(documents: str) -> None:
    task = task_of(documents=documents)
    text = prose(400, 7)
    found = list(task.divided({"text": text, "author": "nobody"}))
    assert "".join("".join(row["text"] for row in found).split()) == "".join(text.split())
    assert all(row["author"] == "nobody" and len(row["text"]) <= PIECE_CONTEXTS * CONTEXT for row in found)
    if documents == "file":
        assert len(found) > 10
        assert "".join(row["text"] for row in found) == text
        assert [row.get("continues") for row in found] == [True] * (len(found) - 1) + [None]
    else:
        joined = "".join(row["text"] + ("" if "continues" in row else "\n\n") for row in found)
        assert joined.split("\n\n") == [*(part for part in text.split("\n\n") if part.strip()), ""]


def test_short_documents_stay_as_they_are() -> None:
    row = {"text": "the dog", "author": "nobody"}
    assert list(task_of().divided(row)) == [row]


def test_a_row_that_goes_on_ends_no_document_unless_a_blank_line_does() -> None:
    for text, goes_on in (("one\n\ntwo", True), ("one\n\ntwo\n\n", False), ("one\n\ntwo\r\n\t\r\n", False)):
        found = list(task_of(documents="paragraphs").divided({"text": text, "continues": True}))
        assert [row.get("continues", False) for row in found] == [False, goes_on]
    long = "word " * 100
    assert all(row["continues"] for row in task_of().divided({"text": long, "continues": True}))


# --- what is learned


def test_the_loss_is_minus_log_p_of_each_token_given_those_before_it(task: TextGeneration, model: Causal) -> None:
    encoded = [window for text in TEXTS[1:] for window in task.pieces(task.encode({"text": text}))]
    expected = n_tokens = 0.0
    for window in encoded:
        ids = window["text"].tolist()
        expected -= sum(log_p_of(model, ids[:place], ids[place]) for place in range(1, len(ids)))
        n_tokens += len(ids) - 1
    with torch.no_grad():
        found = task.loss(model, collate(encoded))
    assert float(found.total) == pytest.approx(expected, rel=1e-4)
    assert int(found.units) == n_tokens


def test_no_text_sees_another_in_its_batch(task: TextGeneration, model: Causal) -> None:
    """Editing one document changes no other's loss by a bit, and positions begin anew in each."""
    long, short, other = (task.encode({"text": text}) for text in (TEXTS[3], TEXTS[1], TEXTS[2]))
    width = max(one["text"].size(0) for one in (long, short, other))

    def losses(*encoded: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        ids = collate(encoded)["text"]
        ids = torch.nn.functional.pad(ids, (0, width - ids.size(1)))
        log_p = model(ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        return [row[: len(one["text"]) - 1] for row, one in zip(log_p, encoded, strict=True)]

    with torch.no_grad():
        before, after = losses(long, short), losses(long, other)
        assert torch.equal(before[0], after[0])
        torch.testing.assert_close(losses(short)[0], before[1], rtol=1e-5, atol=1e-5)
        assert not torch.equal(before[1][:3], after[1][:3])


def summed(task: TextGeneration, model: Causal, parts: Sequence[Sequence[Encoded]]) -> list[torch.Tensor]:
    """Return the loss of batches, added up, and its gradient by every parameter."""
    total = torch.stack([task.loss(model, collate(part)).total for part in parts]).sum()
    return [total.detach(), *torch.autograd.grad(total, list(model.parameters()))]


def test_a_batch_of_training_teaches_what_its_texts_teach_one_by_one(tmp_path: Path) -> None:
    """Short documents and windows of long ones in the trainer's own batches: one row each, and no row sees another."""
    draw = random.Random(4)
    data = write_rows(tmp_path / "texts.tsv", [{"text": " ".join(draw.choices(list(WORDS), k=draw.randint(1, 9)))} for _ in range(60)])
    recipe: dict[str, Any] = {
        "task": {"name": "text_generation", "tokens": "characters"},
        "data": {"train": str(data), "max_length": 20},
        "model": SIZES,
        "train": {"batch_tokens": 100, "precision": "float32", "tensorboard": False},
    }
    prepared = prepare(resolve(recipe), tmp_path / "run", lambda text: None)
    trainer = Trainer(prepared, TrainingLog(prepared.run.folder, tensorboard=False, quiet=True))
    task = prepared.run.task
    assert isinstance(task, TextGeneration)
    model = model_for(task)  # with larger weights than fresh ones, so that what stands before a token matters
    found = [[prepared.train[int(row)] for row in rows] for group in trainer.epoch(0) for rows in group]
    assert sum(len({len(one["text"]) for one in batch}) > 1 for batch in found) > 3  # some rows are padded
    for batch in found:
        together, alone = summed(task, model, [batch]), summed(task, model, [[one] for one in batch])
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    batch = max(found, key=len)
    packed = {"text": torch.cat([one["text"] for one in batch])}  # with cross-talk, as a control
    assert float(summed(task, model, [[packed]])[0]) != pytest.approx(float(summed(task, model, [batch])[0]), rel=1e-2)


@pytest.mark.parametrize(("n", "spread"), [(5_000, 0.2), (20_000, 0.5)])
def test_short_documents_beside_others_of_their_length_are_padded_little(n: int, spread: float) -> None:
    """Which is why none stand behind one another in a row: about 20 tokens, half of the documents within 14 % or 40 % of that."""
    lengths = np.random.default_rng(0).lognormal(3.0, spread, n).astype(np.int32)[:, None] + 2
    assert padding_share(lengths, batches(lengths, 4112, seed=1, epoch=0)) < 0.03


def test_smoothing_is_for_learning_only(task: TextGeneration, model: Causal) -> None:
    smooth = TextGeneration(task.config, task.parts, label_smoothing=0.3, max_length=CONTEXT)
    batch = collate([task.encode({"text": TEXTS[1]})])
    with torch.no_grad():
        assert float(smooth.loss(model.train(), batch).total) != float(task.loss(model, batch).total)
        assert float(smooth.loss(model.eval(), batch).total) == float(task.loss(model, batch).total)


# --- likelihood


def likelihoods(task: TextGeneration, model: Causal, examples: Sequence[Example]) -> list[Answer]:
    examiner = task.examiner
    assert isinstance(examiner, Likelihood)
    with torch.inference_mode():
        return examiner.predict(model, collate(examiner.encode_all(examples)), DecodeConfig())


def test_inside_the_context_a_likelihood_is_that_of_all_tokens(task: TextGeneration, model: Causal) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=500)
    for text, answer in zip(TEXTS, likelihoods(wide, model, rows(*TEXTS)), strict=True):
        ids = task.encode({"text": text})["text"].tolist()
        expected = sum(log_p_of(model, ids[:place], ids[place]) for place in range(1, len(ids)))
        assert answer.details["log_likelihood"] == pytest.approx(expected, rel=1e-4)
        assert answer.details["tokens"] == len(ids) - 1
        assert answer.score == pytest.approx(expected / (len(ids) - 1), rel=1e-4)


@pytest.mark.parametrize("context", [1, 2, 5, 8])
def test_beyond_the_context_every_token_is_foretold_once_from_half_a_context_or_more(
    task: TextGeneration, model: Causal, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = TextGeneration(task.config, task.parts, max_length=context)
    seen: list[tuple[int, ...]] = []
    hidden = Causal.hidden

    def watched(self: Causal, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        seen.extend(map(tuple, inputs.tolist()))
        return hidden(self, inputs, mask)

    monkeypatch.setattr(Causal, "hidden", watched)
    [answer] = likelihoods(short, model, rows(TEXTS[0]))
    monkeypatch.undo()
    assert max(map(len, seen)) <= context
    ids = task.encode({"text": TEXTS[0]})["text"].tolist()
    expected, place = 0.0, 1
    for start in [*range(0, len(ids) - context - 1, (context + 1) // 2), len(ids) - context - 1]:
        for target in range(place, start + context + 1):
            assert target - start >= min(target, context / 2)
            expected += log_p_of(model, ids[start:target], ids[target])
        place = start + context + 1
    assert place == len(ids)
    assert answer.details["log_likelihood"] == pytest.approx(expected, rel=1e-4)


def test_texts_are_as_likely_together_as_alone(task: TextGeneration, model: Causal) -> None:
    together = likelihoods(task, model, rows(*TEXTS))
    for text, answer in zip(TEXTS, together, strict=True):
        [alone] = likelihoods(task, model, rows(text))
        assert answer.details["log_likelihood"] == pytest.approx(alone.details["log_likelihood"], rel=1e-5)
        assert answer.details["tokens"] == alone.details["tokens"]


def test_perplexity_is_exp_of_the_mean_and_bits_are_over_the_bytes_of_the_texts(task: TextGeneration, model: Causal) -> None:
    examples = rows(*TEXTS)
    answers = likelihoods(task, model, examples)
    scores = task.score(answers, examples).to_json()
    total = -sum(answer.details["log_likelihood"] for answer in answers)
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(total / sum(answer.details["tokens"] for answer in answers)), rel=1e-4)
    assert scores["bits_per_byte"]["value"] == pytest.approx(total / math.log(2) / sum(len(text.encode()) for text in TEXTS), rel=1e-4)


def test_a_model_that_finds_all_bytes_alike_needs_log2_of_its_vocabulary_for_each() -> None:
    task = task_of(tokens="bytes", vocab_size=8000)
    model = model_for(task)
    torch.nn.init.zeros_(model.stem.embedding.weight)
    scores = task.score(likelihoods(task, model, rows(*TEXTS)), rows(*TEXTS)).to_json()
    assert scores["perplexity"]["value"] == pytest.approx(260, rel=1e-4)
    n_bytes, n_tokens = sum(len(text.encode()) for text in TEXTS), scores["tokens"]
    assert n_tokens == n_bytes + 2 * len(TEXTS)  # the space before each and the end of each
    assert scores["bits_per_byte"]["value"] == pytest.approx(math.log2(260) * n_tokens / n_bytes, rel=1e-4)


def test_characters_that_are_not_known_are_counted() -> None:
    task = task_of(tokens="characters")
    examples = rows("the dog", "the жук")
    scores = task.score(likelihoods(task, model_for(task), examples), examples).to_json()
    assert (scores["unknown_tokens"], scores["tokens"]) == (3, 2 * 8)
    assert task.findings(rows("ж", "the"))["vocabulary"]["unknown_share_valid"] == 0.25


def test_answers_that_continue_a_text_are_not_scored(task: TextGeneration) -> None:
    with pytest.raises(DataError, match="heed evaluate"):
        task.score([Answer("dog")], rows("the"))


# --- answers


def answers(task: TextGeneration, model: Causal, *texts: str, **fields: Any) -> list[Answer]:
    options = DecodeConfig.model_validate({"beams": 1, "max_length": 12, **fields})
    with torch.inference_mode():
        return task.predict(model, collate(task.encode_all(rows(*texts))), options)


def streamed(task: TextGeneration, model: Causal, text: str, **fields: Any) -> list[str]:
    options = DecodeConfig.model_validate({"beams": 1, "max_length": 12, **fields})
    return list(task.stream(model, collate(task.encode_all(rows(text))), options))


PROMPTS = ["the dog", "", "the cat sees the tree", "a", "好", "the dog"]
WAYS: list[dict[str, Any]] = [
    {},
    {"sample": True},
    {"sample": True, "temperature": 1.4, "top_k": 9, "top_p": 0.9, "min_p": 0.02, "seed": 4},
    {"repetition_penalty": 1.2},
    {"sample": True, "stop": ["e", "d "]},
]


@pytest.mark.parametrize("way", [*WAYS, {"beams": 3, "n_best": 2}, {"sample": True, "n_best": 3}])
def test_prompts_of_unequal_length_are_continued_as_alone(task: TextGeneration, model: Causal, way: dict[str, Any]) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=40)
    for one in (wide, task):  # with and without room in the context
        together = answers(one, model, *PROMPTS, **way)
        for text, answer in zip(PROMPTS, together, strict=True):
            [alone] = answers(one, model, text, **way)
            assert (answer.text, answer.details) == (alone.text, alone.details)
            assert [other.text for other in answer.others] == [other.text for other in alone.others]
            assert answer.score == pytest.approx(alone.score, abs=1e-4)


def test_prompts_that_a_gpu_is_given_together_are_continued_as_alone(task: TextGeneration, model: Causal) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=60)
    options = DecodeConfig(sample=True, max_length=9)
    prompts = wide._prompts(collate(wide.encode_all(rows(*PROMPTS))))
    [group] = wide._groups(prompts, 9, padded=True)
    assert group == list(range(len(PROMPTS)))
    assert len(list(wide._groups(prompts, 9, padded=False))) > 1
    with torch.inference_mode():
        together = wide.continued(model, prompts, options, torch.device("cpu"))
        alone = [wide.continued(model, [prompt], options, torch.device("cpu"))[0] for prompt in prompts]
    assert [best[0].ids for best in together] == [best[0].ids for best in alone]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_joined_is_the_answer(task: TextGeneration, model: Causal, way: dict[str, Any]) -> None:
    for text in PROMPTS:
        found = streamed(task, model, text, **way)
        assert "".join(found) == answers(task, model, text, **way)[0].text
        assert all(found)
    assert len(streamed(task, model, "the dog", sample=True)) > 3


def test_a_stream_of_several_answers_is_refused(task: TextGeneration, model: Causal) -> None:
    with pytest.raises(ConfigError, match=r"set decode\.n_best=1"):
        streamed(task, model, "the", beams=4)


def test_greedy_answers_are_the_argmax_of_forward(model: Causal, task: TextGeneration) -> None:
    wide = TextGeneration(task.config, task.parts, max_length=60)
    [prompt] = wide._prompts(collate([wide.encode({"text": "the dog"})]))
    ids = list(prompt.ids)
    while len(ids) - len(prompt.ids) < 11 and ids[-1] != EOS:
        logits = model(torch.tensor([ids]))[0, -1].detach()
        logits[[0, BOS, 3]] = -math.inf
        ids.append(int(logits.argmax()))
    [[best]] = wide.continued(model, [prompt], DecodeConfig(beams=1, max_length=12), torch.device("cpu"))
    assert best.ids == [token for token in ids[len(prompt.ids) :] if token != EOS]
    written = b"".join(wide.spelling[i] for i in best.ids).decode("utf-8", "replace")
    assert written.startswith(answers(wide, model, "the dog")[0].text)


def test_a_prompt_longer_than_the_context_keeps_its_end_and_says_so(task: TextGeneration, model: Causal) -> None:
    long = TEXTS[0]
    n = len(task.encode({"text": long})["text"]) - 1
    [answer] = answers(task, model, long, sample=True)
    assert answer.details["context_cut"] == n - CONTEXT
    assert answer.details["context_moved"] is True
    prompts = task._prompts(collate([task.encode({"text": long}), task.encode({"text": "a"})]))
    assert prompts[0].ids == task.encode({"text": long})["text"].tolist()[:-1][-CONTEXT:]
    assert (prompts[1].ids[0], prompts[1].n_cut) == (BOS, 0)
    [other] = answers(task, model, "another beginning " + long[-60:], sample=True)
    assert other.text == answers(task, model, "no such " + long[-60:], sample=True)[0].text


def test_an_answer_that_outgrows_the_context_says_so_and_one_that_does_not_does_not(task: TextGeneration, model: Causal) -> None:
    [prompt] = task._prompts(collate([task.encode({"text": "the"})]))
    outgrown: list[bool] = []
    room = CONTEXT - len(prompt.ids) + 1
    for longest in (room, room + 1, 12):
        options = DecodeConfig(sample=True, n_best=20, max_length=longest)
        [found] = task.continued(model, [prompt], options, torch.device("cpu"))
        outgrown += [len(prompt.ids) + len(hypothesis.ids) > CONTEXT for hypothesis in found]  # what its end was foretold from
        details = [dict(task._written(prompt, hypothesis, options).details) for hypothesis in found]
        ends = [one.pop("ended_by") for one in details]
        assert ends == ["max_length" if len(hypothesis.ids) == longest - 1 else "end" for hypothesis in found]
        assert details == [{"context_moved": True} if beyond else {} for beyond in outgrown[-20:]]
    assert not any(outgrown[:20])
    assert any(outgrown[20:40])
    assert any(outgrown[40:])


def test_models_are_never_given_more_than_their_context() -> None:
    """Learned positions know no more places than the context has, and would refuse another."""
    task = task_of(tokens="characters")
    model = model_for(task, positions="learned", max_length=CONTEXT)
    for way in WAYS:
        for longest in (*range(1, CONTEXT + 2), 40):
            answers(task, model, *PROMPTS[:4], TEXTS[0], max_length=longest, **{**way, "stop": []})
    assert likelihoods(task, model, rows(*TEXTS))


def test_an_answer_ends_before_the_first_stop_string_and_names_it(task: TextGeneration, model: Causal) -> None:
    whole = answers(task, model, "the dog", sample=True, max_length=40)[0].text
    stop = whole[5:7]
    [answer] = answers(task, model, "the dog", sample=True, max_length=40, stop=[stop, "nowhere in it"])
    assert answer.text == whole[: whole.index(stop)]
    assert (answer.details["stop"], answer.details["ended_by"]) == (stop, "stop")
    [searched] = answers(task, model, "the dog", beams=2, max_length=40, stop=[whole[3], "a", "e", "t"])
    assert not {"a", "e", "t"} & set(searched.text)


def test_the_space_before_a_text_is_taken_off_an_answer_that_begins_one() -> None:
    task = task_of(tokens="bytes", vocab_size=8000)
    spelling = task.spelling
    ids = [i for byte in b" ab" for i, written in enumerate(spelling) if written == bytes([byte])]
    for begins, expected in ((True, "ab"), (False, " ab")):
        writer = Writer(spelling, [], begins=begins)
        assert "".join(map(writer.add, ids)) + writer.rest() == expected
    prompt, begun = task._prompts(collate(task.encode_all(rows("", "a"))))
    assert [task._writer(one, DecodeConfig()).begins for one in (prompt, begun)] == [True, False]


# --- text as it becomes sure


def pieces_of(data: bytes, stops: Sequence[str] = ()) -> tuple[list[str], str | None]:
    writer = Writer([bytes([byte]) for byte in range(256)], stops, begins=False)
    return [*map(writer.add, data), writer.rest()], writer.stop


def test_characters_come_whole_and_one_that_is_cut_off_does_not_come() -> None:
    assert pieces_of("é好a".encode()) == (["", "é", "", "", "好", "a", ""], None)
    assert pieces_of("a好".encode()[:-1]) == (["a", "", "", ""], None)
    assert "".join(pieces_of(b"a\xffb")[0]) == "a\ufffdb"


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_decided() -> None:
    assert pieces_of(b"ab\n\nc", ["\n\n"]) == (["a", "b", "", "", "", ""], "\n\n")
    assert pieces_of(b"a\nbc", ["\n\n"]) == (["a", "", "\nb", "c", ""], None)
    assert pieces_of(b"a\n", ["\n\n"]) == (["a", "", "\n"], None)
    assert pieces_of(b"aab", ["ab"]) == (["", "a", "", ""], "ab")


def test_a_token_that_holds_a_stop_string_and_more_is_cut() -> None:
    writer = Writer([b"one", b" two END three", b"four"], ["END", "three"], begins=False)
    assert [writer.add(0), writer.add(1), writer.add(2), writer.rest()] == ["one", " two ", "", ""]
    assert writer.stop == "END"


# --- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": {"tokens": "bytes", "vocab_size": 500}}, "task.vocab_size=500 would be ignored"),
        ({"task": {"tokens": "characters", "algorithm": "unigram"}}, "task.algorithm=unigram would be ignored"),
        ({"decode": {"stop": ["a", ""]}}, "an empty text would end every answer"),
        ({"decode": {"min_p": 1.5}}, "decode.min_p"),
        ({"decode": {"repetition_penalty": 0}}, "decode.repetition_penalty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("text_generation", settings)


def test_a_model_that_is_not_causal_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs causal, found encoder"):
        task_of().shape(ModelConfig(architecture="encoder"))


def test_answers_are_drawn_and_losses_not_smoothed_unless_settings_say_otherwise() -> None:
    usual = resolve({"task": "text_generation"})
    assert (usual.model.architecture, usual.decode.sampling, usual.train.label_smoothing) == ("causal", True, 0.0)
    other = resolve({"task": "text_generation"}, {"decode": {"sample": False}, "train": {"label_smoothing": 0.1}})
    assert (other.decode.sampling, other.train.label_smoothing) == (False, 0.1)
    assert DecodeConfig(min_p=0.1).sampling
    assert DecodeConfig.model_validate({"stop": "END"}).stop == ["END"]


# --- from a single document to scores


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that was trained on one document, a part of which was held out."""
    folder = tmp_path_factory.mktemp("language")
    data = folder / "book.jsonl"
    data.write_text(json.dumps({"text": prose(3000, 5)}) + "\n", encoding="utf-8")
    recipe: dict[str, Any] = {
        "task": {"name": "text_generation", "tokens": "characters"},
        "data": {"train": str(data), "max_length": 16},
        "model": SIZES,
        "train": {"steps": 60, "batch_tokens": 340, "lr": 0.01, "warmup": 10, "precision": "float32", "tensorboard": False},
        "decode": {"precision": "float32", "max_length": 30},
    }
    return heed.train(recipe, to=folder / "run", quiet=True)


def test_a_single_document_is_divided_into_what_is_learned_and_what_is_held_out(trained: Run) -> None:
    report = json.loads((trained.folder / "data_report.json").read_text(encoding="utf-8"))
    pieces = list(trained.task.divided({"text": prose(3000, 5)}))
    train, valid = (set(Store(trained.folder / "store" / name).rows.tolist()) for name in ("train", "valid"))
    assert train | valid == set(range(len(pieces)))
    assert not train & valid
    assert 0.01 < len(valid) / len(pieces) < 0.4
    assert report["long_examples"] == "read in consecutive windows"
    assert report["longest"] == {"text": 17}
    stored = Store(trained.folder / "store" / "valid")
    n_characters = sum(len(pieces[row]["text"]) for row in valid)
    n_ends = sum("continues" not in pieces[row] for row in valid)
    assert sum(len(one["text"]) - 1 for one in stored) == n_characters + n_ends


def test_the_evaluation_of_a_run_is_the_likelihood_of_its_texts(trained: Run) -> None:
    content = json.loads((trained.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    pieces = list(trained.task.divided({"text": prose(3000, 5)}))
    valid = [pieces[row] for row in sorted(set(Store(trained.folder / "store" / "valid").rows.tolist()))]
    assert isinstance(trained.task, TextGeneration)
    assert isinstance(trained.model, Causal)
    found = likelihoods(trained.task, trained.model, valid)
    total, n_tokens = (sum(answer.details[name] for answer in found) for name in ("log_likelihood", "tokens"))
    assert content["perplexity"]["value"] == pytest.approx(math.exp(-total / n_tokens), rel=1e-3)
    assert content["perplexity"]["low"] < content["perplexity"]["value"] < content["perplexity"]["high"]
    assert content["n"] == len(valid)
    assert content["perplexity"]["value"] < 0.7 * len(trained.task.tokenizer.encode("".join(sorted(set(prose(3000, 5))))))


def test_an_evaluation_divides_long_documents_and_a_rerun_gives_the_same(trained: Run) -> None:
    options = trained.config.decode
    long = {"text": prose(500, 8)}
    divided = evaluate_examples(trained, trained.task.divided(long), options).scores.to_json()
    again = evaluate_examples(trained, trained.task.divided(long), options).scores.to_json()
    assert divided == again
    whole = evaluate_examples(trained, [long], options).scores.to_json()
    assert whole["bytes"] == divided["bytes"]
    assert whole["perplexity"]["value"] == pytest.approx(divided["perplexity"]["value"], rel=0.05)  # each piece begins a context anew


def test_a_run_that_was_saved_writes_and_streams_the_same(trained: Run) -> None:
    loaded = heed.load(str(trained.folder))
    [answer] = trained.predict(rows("the dog"))
    assert loaded.predict({"text": "the dog"}) == answer
    batch = collate(loaded.task.encode_all(rows("the dog")))
    model = loaded._answering_model(torch.float32)
    assert "".join(loaded.task.stream(model, batch, loaded.config.decode)) == answer.text
