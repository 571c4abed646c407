"""T5 checkpoints, tiny and random, through the production importer, against transformers."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from toy_checkpoints import AWKWARD, SENTENCES, differing, load, save, tensors_of, texts_of
from toy_pieces import train_pieces
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration, T5Tokenizer

from heed.convert import export_folder, import_folder
from heed.data.foreign import ForeignTokenizer
from heed.errors import ConfigError
from heed.model.models import Seq2Seq
from heed.run import Run, resolve

N_SENTINELS = 7
PROMPTS = ["The quick brown fox", "summarize: a quick answer is not always right", "<extra_id_0> jumps over <extra_id_1>", "好的"]
BAD = [[0], [2]]  # padding, which starts the decoder, and unknown: heed writes neither


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like T5's, with fewer sentinels."""
    words = sorted({f"▁{word}" for text in SENTENCES for word in text.split()})
    pieces = [*(("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)), *((word, -5.0) for word in words[::2])]
    pieces += [(char, -7.0 - i / 64) for i, char in enumerate("abcdefghijklmnopqrstuvwxyz.,")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    backend.normalizer = normalizers.NFKC()
    marked = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marked])
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    sentinels = [f"<extra_id_{i}>" for i in range(N_SENTINELS)]
    backend.add_special_tokens(sentinels)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", additional_special_tokens=sentinels
    )


def shape(n_ids: int) -> dict[str, Any]:
    """Sizes of which no two are equal, and more rows than the tokenizer has ids, as in T5."""
    return {
        "vocab_size": n_ids + 5,
        "d_model": 24,
        "d_kv": 10,
        "d_ff": 36,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }


class Case(NamedTuple):
    """A checkpoint, the same in transformers and in heed."""

    folder: Path
    theirs: Any
    tokenizer: PreTrainedTokenizerFast
    run: Run


@pytest.fixture(scope="module", params=["1.0", "1.1", "1.1 saved again"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("t5")
    tokenizer = t5_tokenizer()
    torch.manual_seed(5)
    config = T5Config(**shape(len(tokenizer)), feed_forward_proj="relu" if request.param == "1.0" else "gated-gelu")
    model = T5ForConditionalGeneration(config)
    save(model, tokenizer, folder / "theirs")
    if request.param != "1.0":
        untie(folder / "theirs")
    theirs = load("T5ForConditionalGeneration", folder / "theirs")
    if request.param == "1.1 saved again":  # transformers 5 then says that the embeddings are tied, and keeps the head nevertheless
        theirs.save_pretrained(folder / "theirs")
        assert json.loads((folder / "theirs" / "config.json").read_text())["tie_word_embeddings"]
    import_folder(folder / "theirs", folder / "run")
    return Case(folder, theirs, tokenizer, Run.load(folder / "run"))


def untie(folder: Path) -> None:
    """Make a checkpoint as version 1.1 is: a head of its own, in the words of older files."""
    from safetensors.torch import save_file

    tensors = tensors_of(folder)
    head = tensors["shared.weight"].flip(0).contiguous() * 0.7
    save_file({**tensors, "lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))


def to_heed(tokenizer: ForeignTokenizer, ids: Tensor) -> Tensor:
    """Return foreign ids as heed's."""
    return torch.tensor([[tokenizer.ids.index(i) for i in row] for row in ids.tolist()])


def foreign_logits(run: Run, logits: Tensor) -> Tensor:
    """Return logits in the order of the foreign ids."""
    ids = run.task.tokenizer.ids
    return logits[..., [ids.index(i) for i in range(sum(one is not None for one in ids))]]


def test_logits_are_those_of_transformers(case: Case) -> None:
    batch = case.tokenizer([f"{text}</s>" for text in PROMPTS], padding=True, return_tensors="pt")
    target = torch.tensor([[0, 9, 4, 30, 11], [0, 7, 7, 6, 20], [0, 31, 3, 12, 14], [0, 1, 5, 8, 41]])
    with torch.no_grad():
        expected = case.theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=target).logits
        assert isinstance(case.run.model, Seq2Seq)
        ours = case.run.model(
            to_heed(case.run.task.tokenizer, batch["input_ids"]), batch["attention_mask"].bool(), to_heed(case.run.task.tokenizer, target)
        )
    torch.testing.assert_close(foreign_logits(case.run, ours), expected, rtol=1e-4, atol=1e-4)


def test_texts_are_cut_alike(case: Case) -> None:
    tokenizer = case.run.task.tokenizer
    expected = texts_of(case.tokenizer, [*AWKWARD, *PROMPTS])
    assert [[tokenizer.ids[i] for i in ids] for ids in tokenizer.encode_batch([*AWKWARD, *PROMPTS])] == expected


# transformers 5.23 gives a decoder with more blocks than the encoder too small a cache, hence use_cache=False.
def test_greedy_answers_are_those_of_transformers(case: Case) -> None:
    for prompt in PROMPTS:
        assert case.run.predict({"source": prompt}, beams=1, max_length=16, precision="float32").text == greedy(case, prompt)


def greedy(case: Case, prompt: str, **options: Any) -> str:
    """Return what transformers answers."""
    ids = case.tokenizer(f"{prompt}</s>", return_tensors="pt")["input_ids"]
    found = case.theirs.generate(
        ids,
        num_beams=1,
        use_cache=False,
        do_sample=False,
        max_length=17,
        bad_words_ids=BAD,
        forced_eos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        **options,
    )
    return str(case.tokenizer.decode(found[0], skip_special_tokens=True))


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("fields", [{"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.4}])
def test_repetition_is_kept_from_as_the_folder_says(case: Case, file: str, fields: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(case.folder / "theirs", tmp_path / "theirs")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))
    run = import_folder(folder, tmp_path / "run").run
    found = [run.predict({"source": prompt}, beams=1, max_length=16, precision="float32").text for prompt in PROMPTS]
    assert found == [greedy(case, prompt, **fields) for prompt in PROMPTS]
    assert found != [greedy(case, prompt) for prompt in PROMPTS]


def test_answers_of_a_beam_search_are_those_of_transformers(case: Case) -> None:
    prompt = PROMPTS[1]
    ids = case.tokenizer(f"{prompt}</s>", return_tensors="pt")["input_ids"]
    found = case.theirs.generate(
        ids,
        num_beams=3,
        use_cache=False,
        do_sample=False,
        max_length=9,
        bad_words_ids=BAD,
        forced_eos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        length_penalty=1.0,
        early_stopping="never",
    )
    answer = case.run.predict({"source": prompt}, beams=3, max_length=8, precision="float32")
    assert answer.text == case.tokenizer.decode(found[0], skip_special_tokens=True)


def test_every_tensor_is_used_and_comes_back_bit_for_bit(case: Case, tmp_path: Path) -> None:
    exported = export_folder(case.folder / "run", tmp_path / "back")
    assert exported.kind == "T5ForConditionalGeneration"
    assert differing(tensors_of(tmp_path / "back"), tensors_of(case.folder / "theirs")) == []
    again = load("T5ForConditionalGeneration", tmp_path / "back")
    source, target = torch.tensor([[5, 9, 20, 1]]), torch.tensor([[0, 8, 14]])
    with torch.no_grad():
        assert torch.equal(again(source, decoder_input_ids=target).logits, case.theirs(source, decoder_input_ids=target).logits)
    assert case.run.config.model.tied == (case.theirs.config.scale_decoder_outputs)


def test_sentinels_have_their_ids(case: Case) -> None:
    tokenizer = case.run.task.tokenizer
    assert [tokenizer.ids[i] for i in tokenizer.sentinels(3)] == case.tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(3)])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"relative_attention_num_buckets": 16}, "relative_attention_num_buckets=16"),
        ({"relative_attention_max_distance": 64}, "relative_attention_max_distance=64"),
        ({"feed_forward_proj": "gated-mish"}, "feed_forward_proj='gated-mish'"),
        ({"dense_act_fn": "silu"}, "dense_act_fn='silu'"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False"),
    ],
)
def test_what_heed_cannot_compute_is_refused_by_name(case: Case, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    config = json.loads((case.folder / "theirs" / "config.json").read_text())
    for path in (case.folder / "theirs").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=named):
        import_folder(tmp_path, tmp_path / "run")


def test_spiece_model_alone_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    train_pieces(tmp_path / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    theirs = T5Tokenizer.from_pretrained(tmp_path)
    config = T5Config(**{**shape(0), "vocab_size": len(theirs) + 3})
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    (tmp_path / "spiece.model").rename(tmp_path / "model" / "spiece.model")
    ours = import_folder(tmp_path / "model", tmp_path / "run").run.task.tokenizer
    texts = [*AWKWARD, *PROMPTS, "ﬁne １２３ e\u0301 ㍿", "a</s>b", "<extra_id_99><extra_id_0>"]
    found = [[ours.ids[i] for i in ids] for ids in ours.encode_batch(texts)]
    assert found == [theirs(text, add_special_tokens=False)["input_ids"] for text in texts]


def test_a_run_of_heed_writes_the_same_in_transformers(tmp_path: Path) -> None:
    model = {"norm": "rms", "positions": "relative", "scaled": False, "scaled_head": True, "bias": False, "embedding_scale": False}
    sizes = {"d_model": 16, "n_heads": 2, "n_layers": 2, "n_decoder_layers": 1, "d_ff": 24}
    config = resolve({"task": {"name": "text_to_text", "vocab_size": 300, "n_sentinels": 5}, "model": {**model, **sizes}})
    task = config.build_task()
    task.prepare([{"source": text, "target": text[::-1]} for text in SENTENCES])
    run = Run.create(tmp_path / "run", config, task, about={})
    run.save()
    assert export_folder(tmp_path / "run", tmp_path / "theirs").kind == "T5ForConditionalGeneration"
    theirs = load("T5ForConditionalGeneration", tmp_path / "theirs")
    source, target = torch.tensor([[7, 300, 45, 2]]), torch.tensor([[1, 301, 9]])
    with torch.inference_mode():
        expected = theirs(source, decoder_input_ids=target).logits
        torch.testing.assert_close(run.model.eval()(source, None, target), expected, rtol=1e-5, atol=1e-5)
