"""GPT-2, Llama, Mistral and Qwen2 from transformers through the production converter, and back."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_checkpoints import AWKWARD, SENTENCES, differing, gpt2_tokenizer, llama_tokenizer, load, save, tensors_of, texts_of
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from heed.convert import export_folder, import_folder
from heed.run import Run, distinct, resolve
from heed.training.prepare import prepare

GREEDY: dict[str, Any] = {"sample": False, "beams": 1, "precision": "float32"}
PROMPTS = [*SENTENCES[:3], "fox", "über"]


@dataclass(frozen=True)
class Case:
    """A model of transformers, and the run that was made of its folder."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    run: Run


def gpt2(tokenizer: PreTrainedTokenizerFast, **fields: Any) -> PreTrainedModel:
    n, end = len(tokenizer), tokenizer.eos_token_id
    shape = {"vocab_size": n, "n_positions": 96, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_inner": 40}
    return GPT2LMHeadModel(GPT2Config(**{**shape, "bos_token_id": end, "eos_token_id": end, **fields}))


def llama_like(kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast, **fields: Any) -> PreTrainedModel:
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    return kind(config(**{**shape, **heads, **fields}))


def rope(base: float, kind: str = "default", **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": base, **scaling}}


# Waves of the three pairs of a head of 6 features: 6 tokens, 42 (between a quarter of 60 and 60), and 281.
LLAMA_31 = rope(300.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=60)


KINDS: dict[str, Any] = {
    "gpt2": lambda: (gpt2(tokenizer := gpt2_tokenizer()), tokenizer),
    "gpt2 untied": lambda: (gpt2(tokenizer := gpt2_tokenizer(), tie_word_embeddings=False, activation_function="relu"), tokenizer),
    "llama": lambda: (llama_like(LlamaForCausalLM, LlamaConfig, tokenizer := llama_tokenizer(), head_dim=8, **rope(500.0)), tokenizer),
    "llama 3.1": lambda: (llama_like(LlamaForCausalLM, LlamaConfig, tokenizer := llama_tokenizer(), head_dim=6, **LLAMA_31), tokenizer),
    "llama of longer texts": lambda: (
        llama_like(LlamaForCausalLM, LlamaConfig, tokenizer := llama_tokenizer(), head_dim=6, **rope(300.0, "linear", factor=2.5)),
        tokenizer,
    ),
    "llama with biases": lambda: (
        llama_like(LlamaForCausalLM, LlamaConfig, tokenizer := llama_tokenizer(), attention_bias=True, tie_word_embeddings=True),
        tokenizer,
    ),
    "mistral": lambda: (llama_like(MistralForCausalLM, MistralConfig, tokenizer := llama_tokenizer(), sliding_window=None), tokenizer),
    "qwen2": lambda: (llama_like(Qwen2ForCausalLM, Qwen2Config, tokenizer := llama_tokenizer(), **rope(100.0)), tokenizer),
}


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.manual_seed(5)
    model, tokenizer = KINDS[request.param]()
    folder = save(model, tokenizer, tmp_path_factory.mktemp("theirs") / "model")
    run = folder.parent / "run"
    import_folder(folder, run)
    return Case(model, tokenizer, folder, Run.load(run, device="cpu"))


def ids_both(case: Case, text: str) -> tuple[Tensor, Tensor]:
    """Return a text as transformers encodes it, in foreign ids and in heed's."""
    foreign = case.tokenizer(text)["input_ids"]
    ids = case.run.task.tokenizer.ids
    return torch.tensor([foreign]), torch.tensor([[ids.index(index) for index in foreign]])


@torch.inference_mode()
def test_logits_equal_those_of_transformers(case: Case) -> None:
    ids = case.run.task.tokenizer.ids
    known = [i for i, index in enumerate(ids) if index is not None]
    for text in SENTENCES:
        foreign, ours = ids_both(case, text)
        expected = case.model(foreign).logits[..., [ids[i] for i in known]]
        torch.testing.assert_close(case.run.model(ours)[..., known], expected, rtol=1e-5, atol=1e-5)


def test_greedy_continuations_equal_those_of_transformers(case: Case) -> None:
    found = case.run.predict([{"text": text} for text in PROMPTS], max_length=15, **GREEDY)
    expected = [greedy(case, text, 14) for text in PROMPTS]
    assert [answer.text.rstrip("\ufffd") for answer in found] == expected  # which leave out half a character at the end
    assert len(set(expected)) > 2, "models that write the same after everything compare nothing"


def greedy(case: Case, text: str, n: int) -> str:
    """Return what transformers writes after a text."""
    prompt = case.tokenizer(text, return_tensors="pt")
    prompt.pop("token_type_ids", None)
    with torch.inference_mode():
        written = case.model.generate(**prompt, max_new_tokens=n, do_sample=False, pad_token_id=0)[0, prompt["input_ids"].size(1) :]
    # A continuation is what it adds to its prompt, spaces included, which decoding it alone may take off.
    whole, begun = (
        case.tokenizer.decode(ids, skip_special_tokens=True)
        for ids in (torch.cat([prompt["input_ids"][0], written]), prompt["input_ids"][0])
    )
    return whole.removeprefix(begun).rstrip("\ufffd")


@torch.inference_mode()
def test_likelihood_is_that_of_transformers_for_what_follows_the_begin_token(case: Case) -> None:
    text, tokenizer = SENTENCES[1], case.run.task.tokenizer
    begin, end = tokenizer.ids[tokenizer.bos_id], tokenizer.ids[tokenizer.eos_id]
    ids = torch.tensor([[begin, *texts_of(case.tokenizer, [text])[0], end]])
    log_p = case.model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None]).sum()
    examiner = case.run.task.examiner
    from heed.data.batch import collate

    (answer,) = examiner.predict(case.run.model, collate(examiner.encode_all([{"text": text}])), case.run.config.decode)
    assert answer.details["log_likelihood"] == pytest.approx(log_p.item(), rel=1e-5)


def test_texts_are_encoded_and_decoded_as_by_transformers(case: Case) -> None:
    tokenizer = case.run.task.tokenizer
    found = tokenizer.encode_batch(AWKWARD)
    expected = texts_of(case.tokenizer, AWKWARD)
    assert [[tokenizer.ids[i] for i in ids] for ids in found] == expected
    assert tokenizer.decode_batch(found) == [case.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]


def test_export_gives_back_the_same_tensors_and_a_folder_that_transformers_loads(case: Case, tmp_path: Path) -> None:
    exported = export_folder(case.run.folder, tmp_path / "back")
    assert differing(tensors_of(tmp_path / "back"), tensors_of(case.folder)) == []
    again = load(exported.kind, tmp_path / "back")
    assert type(again) is type(case.model)
    ids, _ = ids_both(case, SENTENCES[0])
    with torch.inference_mode():
        torch.testing.assert_close(again(ids).logits, case.model(ids).logits, rtol=1e-6, atol=1e-6)


def test_the_exported_tokenizer_is_the_same(case: Case, tmp_path: Path) -> None:
    export_folder(case.run.folder, tmp_path / "back")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "back")
    assert [again(text)["input_ids"] for text in AWKWARD] == [case.tokenizer(text)["input_ids"] for text in AWKWARD]


def test_every_parameter_is_set_and_every_tensor_used(case: Case, tmp_path: Path) -> None:
    done = import_folder(case.folder, tmp_path / "again")
    assert (done.unused, done.fresh) == ([], [])
    assert all(torch.isfinite(tensor).all() for tensor in distinct(done.run.model).values())


def test_a_model_that_was_trained_further_still_has_a_form_there(case: Case, tmp_path: Path) -> None:
    run = Run.load(case.run.folder, device="cpu")
    run.folder = Path(shutil.copytree(case.run.folder, tmp_path / "run"))
    with torch.no_grad():
        for tensor in distinct(run.model).values():
            tensor.add_(0.01 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(7)))
    run.save()
    again = load(export_folder(tmp_path / "run", tmp_path / "back").kind, tmp_path / "back")
    foreign, ours = ids_both(case, SENTENCES[1])
    ids = case.run.task.tokenizer.ids
    known = [i for i, index in enumerate(ids) if index is not None]
    with torch.inference_mode():
        expected = again(foreign).logits[..., [ids[i] for i in known]]
        torch.testing.assert_close(run.model(ours)[..., known], expected, rtol=1e-5, atol=1e-5)


def test_what_starts_from_an_import_goes_back_to_the_family_it_came_from(tmp_path: Path) -> None:
    folder = save(*KINDS["mistral"](), tmp_path / "theirs")
    generation = json.loads((folder / "generation_config.json").read_text()) | {"top_k": 7}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    import_folder(folder, tmp_path / "run")
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in SENTENCES), encoding="utf-8")
    source = str(tmp_path / "run")
    for name in ("first", "second"):
        data = {"train": str(tmp_path / "texts.txt"), "valid": str(tmp_path / "texts.txt"), "allow_leaks": True}
        settings = resolve({"task": "text_generation", "init": source, "data": data, "train": {"tensorboard": False}})
        prepare(settings, tmp_path / name, lambda _: None).run.save()
        source = str(tmp_path / name)
    assert export_folder(source, tmp_path / "back").kind == "MistralForCausalLM"
    assert json.loads((tmp_path / "back" / "generation_config.json").read_text()) == generation


@pytest.mark.parametrize("fields", [{"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.4}])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_repetition_is_kept_from_as_the_folder_says(kind: str, fields: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(5)
    model, tokenizer = KINDS[kind]()
    model.generation_config.update(**fields)
    folder = save(model, tokenizer, tmp_path / "theirs")
    run = import_folder(folder, tmp_path / "run").run
    assert {name: getattr(run.config.decode, name) for name in fields} == fields
    found, anyway = (
        [run.predict({"text": text}, max_length=15, **GREEDY, **options).text.rstrip("\ufffd") for text in PROMPTS]
        for options in ({}, {"no_repeat_ngram_size": 0, "repetition_penalty": 1.0})
    )
    assert found == [greedy(Case(model, tokenizer, folder, run), text, 14) for text in PROMPTS]
    assert found != anyway


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_read_as_float32_and_comes_back_bit_for_bit(dtype: str, tmp_path: Path) -> None:
    torch.manual_seed(6)
    model, tokenizer = KINDS["llama"]()
    save(model.to(getattr(torch, dtype)), tokenizer, tmp_path / "theirs")
    done = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert done.dtypes == [dtype]
    assert {tensor.dtype for tensor in distinct(done.run.model).values()} == {torch.float32}
    export_folder(tmp_path / "run", tmp_path / "back", dtype=dtype)
    assert differing(tensors_of(tmp_path / "back"), tensors_of(tmp_path / "theirs")) == []
