"""Marian checkpoints, tiny and random, through the production importer, against transformers."""

import json
import sys
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from toy_checkpoints import AWKWARD, SENTENCES, differing, load, save, tensors_of
from toy_pieces import train_pieces
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from heed.convert import export_folder, import_folder
from heed.data.batch import collate
from heed.data.parts import load_parts
from heed.data.pieces import PieceTokenizer
from heed.errors import CheckpointError, ConfigError, DataError, MissingExtra
from heed.model.models import Seq2Seq
from heed.run import Run, resolve

GERMAN = ["Der schnelle braune Fuchs springt über den faulen Hund.", "Die Straße ist naß, und der Fuchs 狐狸 schläft.", "Ähnlich größer"]
SOURCES = ["The quick brown fox", "a quick answer is not always right", ">>deu<<the dog and the fox"]
# Full-width and ligated letters, stacked accents, Hangul in parts, odd spaces, unknown characters, special tokens spelled out.
AWKWARDER = [
    *AWKWARD, "ﬁne １２３ Ａ", "e\u0301 a\u0308\u0301 A\u030a", "\u1100\u1161\u11a8 ㍿ ½ …", "a\u00a0b\u3000c\u2028d\te\r\nf", "▁▁x ▁",
    "\u200b\u200d\ufeffx", "ßÄ schläft 狐狸", "🦊🦊 ☃", "ｶﾞ क्ष", ">>deu<< fox", ">>xyz<<fox", ">>fox", "  the  ", "\x00\x07",
]  # fmt: skip


def quiet() -> AbstractContextManager[Any]:
    """Transformers recommends a package that it would not use."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def marian_tokenizer(folder: Path, *, separate: bool) -> MarianTokenizer:
    """Save a tokenizer of two models over one vocabulary, whose padding is last, as OPUS-MT has them, or over one each."""
    folder.mkdir(parents=True)
    sides = [train_pieces(folder / f"{side}.spm", texts) for side, texts in (("source", SENTENCES), ("target", GERMAN))]
    pieces = [[one.id_to_piece(i) for i in range(one.piece_size())] for one in sides]
    joint = [pieces[0] + ["漢", ">>deu<<"], pieces[1]] if separate else [[*pieces[0], *pieces[1], ">>deu<<"]] * 2
    for name, known in zip(("vocab", "target_vocab"), joint, strict=True):
        inner = [piece for piece in dict.fromkeys(known) if piece not in ("</s>", "<unk>", "<s>")]
        order = ["</s>", "<unk>", *inner, "<pad>"]
        (folder / f"{name}.json").write_text(json.dumps({piece: i for i, piece in enumerate(order)}))
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    return MarianTokenizer(*files, target_vocab_file=str(folder / "target_vocab.json"), separate_vocabs=separate)


class Case(NamedTuple):
    """A checkpoint, the same in transformers and in heed."""

    folder: Path
    theirs: Any
    tokenizer: MarianTokenizer
    run: Run


@pytest.fixture(scope="module", params=["joint", "separate"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("marian")
    with quiet():
        tokenizer = marian_tokenizer(folder / "tokens", separate=request.param == "separate")
    n_source, n_target = len(tokenizer.encoder), len(tokenizer.decoder)
    torch.manual_seed(5)
    config = MarianConfig(
        vocab_size=n_source, decoder_vocab_size=n_target, d_model=24, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=36,
        decoder_ffn_dim=36, encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=64, scale_embedding=True,
        activation_function="swish", pad_token_id=n_target - 1, decoder_start_token_id=n_target - 1, eos_token_id=0, forced_eos_token_id=0,
        share_encoder_decoder_embeddings=request.param == "joint",
    )  # fmt: skip
    model = MarianMTModel(config)
    model.generation_config.update(num_beams=4, no_repeat_ngram_size=2)
    model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(9))
    with quiet():
        save(model, tokenizer, folder / "theirs")
    theirs = load("MarianMTModel", folder / "theirs")
    import_folder(folder / "theirs", folder / "run")
    return Case(folder, theirs, tokenizer, Run.load(folder / "run"))


def sides(run: Run) -> tuple[PieceTokenizer, PieceTokenizer]:
    """Return the tokenizers of source and target."""
    source, target = (run.task.parts[f"{side}_tokenizer"] for side in ("source", "target"))
    assert isinstance(source, PieceTokenizer)
    assert isinstance(target, PieceTokenizer)
    return source, target


def to_heed(tokenizer: PieceTokenizer, ids: Tensor) -> Tensor:
    """Return foreign ids as heed's."""
    return torch.tensor([[tokenizer.ids.index(i) for i in row] for row in ids.tolist()])


def test_texts_of_both_sides_are_cut_as_transformers_cuts_them(case: Case) -> None:
    source, target = sides(case.run)
    texts = [*AWKWARDER, *SOURCES, *GERMAN]
    expected = [case.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [[source.ids[i] for i in ids] for ids in source.encode_batch(texts)] == expected
    expected = [case.tokenizer(text_target=text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [[target.ids[i] for i in ids] for ids in target.encode_batch(texts)] == expected


def test_ids_become_the_text_that_transformers_writes(case: Case) -> None:
    _, target = sides(case.run)
    for text in [*GERMAN, "Hund  und Straße"]:
        ids = case.tokenizer(text_target=text)["input_ids"]
        assert target.decode(to_heed(target, torch.tensor([ids]))[0].tolist()) == case.tokenizer.decode(ids, skip_special_tokens=True)


def test_no_text_spells_a_special_token(case: Case) -> None:
    for tokenizer in sides(case.run):
        ids = {i for text in ("</s>", "<pad>", "a </s> b", "<s>") for i in tokenizer.encode(text)}
        assert not ids & {0, 1, 2}


def test_the_parts_come_back_from_their_files(case: Case) -> None:
    loaded = load_parts(case.folder / "run" / "parts")
    for name, part in case.run.task.parts.items():
        assert loaded[name].to_json() == part.to_json()
        assert loaded[name].encode_batch(AWKWARDER) == part.encode_batch(AWKWARDER)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pieces", [["a", "b"]]), ("pieces", "ab"), ("unknown", 5000), ("unknown", None), ("names", [1]),
        ("charsmap", 3), ("charsmap", "AAA"),
        ("specials", [None, 0, 0, 1]), ("specials", [None, 0, 1]), ("specials", [None, 0, 1, 10**6]), ("original", None), ("more", 1),
    ],
)  # fmt: skip
def test_a_damaged_part_is_refused(case: Case, name: str, value: Any) -> None:
    content = json.loads(json.dumps(sides(case.run)[0].to_json()))
    with pytest.raises(CheckpointError, match="restore"):
        PieceTokenizer.from_json({**content, name: value})


def test_logits_are_those_of_transformers(case: Case) -> None:
    source, target = sides(case.run)
    batch = case.tokenizer(SOURCES, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    ids = batch["input_ids"].masked_fill(~mask, 0)
    n = target.vocab_size - 1
    given = torch.tensor([[n - 1, 9, 4, 30], [n - 1, 7, 7, 6], [n - 1, 31, 3, 12]])
    with torch.no_grad():
        expected = case.theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=given).logits
        assert isinstance(case.run.model, Seq2Seq)
        ours = case.run.model(to_heed(source, ids), mask, to_heed(target, given))
    torch.testing.assert_close(ours[..., [target.ids.index(i) for i in range(n)]], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("beams", "repeats"), [(1, 0), (3, 0), (1, 2)])
def test_answers_are_those_of_transformers(case: Case, beams: int, repeats: int) -> None:
    options = {"no_repeat_ngram_size": repeats}
    padding, unknown = case.theirs.config.pad_token_id, 1  # neither of which heed writes
    for text in SOURCES:
        ids = case.tokenizer(text, return_tensors="pt")["input_ids"]
        found = case.theirs.generate(
            ids,
            num_beams=beams,
            do_sample=False,
            max_length=14,
            bad_words_ids=[[padding], [unknown]],
            early_stopping="never",
            use_cache=False,
            **options,
        )
        expected = case.tokenizer.decode(found[0][1:], skip_special_tokens=True)
        assert case.run.predict({"source": text}, beams=beams, max_length=13, precision="float32", **options).text == expected


def test_the_search_is_that_of_the_folder(case: Case) -> None:
    assert (case.run.config.decode.beams, case.run.config.decode.no_repeat_ngram_size) == (4, 2)


def test_every_tensor_is_used_and_comes_back_bit_for_bit(case: Case, tmp_path: Path) -> None:
    exported = export_folder(case.folder / "run", tmp_path / "back")
    assert exported.kind == "MarianMTModel"
    first = {name: tensor for name, tensor in tensors_of(case.folder / "theirs").items() if "embed_positions" not in name}
    assert differing(tensors_of(tmp_path / "back"), first) == []
    again = MarianMTModel.from_pretrained(tmp_path / "back").eval()
    source, given = torch.tensor([[5, 9, 20, 0]]), torch.tensor([[3, 8, 14]])
    with torch.no_grad():
        assert torch.equal(again(source, decoder_input_ids=given).logits, case.theirs(source, decoder_input_ids=given).logits)
    with quiet():
        tokenizer = MarianTokenizer.from_pretrained(tmp_path / "back")
    for text in [*SOURCES, *AWKWARDER]:
        assert tokenizer(text)["input_ids"] == case.tokenizer(text)["input_ids"]


def changed(case: Case, tmp_path: Path, change: dict[str, Any]) -> Path:
    """Return the checkpoint with other settings."""
    config = json.loads((case.folder / "theirs" / "config.json").read_text())
    for path in (case.folder / "theirs").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"static_position_embeddings": False}, "static_position_embeddings=False"),
        ({"normalize_before": True}, "normalize_before=True"),
        ({"normalize_embedding": True}, "normalize_embedding=True"),
        ({"add_final_layer_norm": True}, "add_final_layer_norm=True"),
        ({"decoder_ffn_dim": 40}, "decoder_ffn_dim=40"),
        ({"decoder_attention_heads": 2}, "decoder_attention_heads=2"),
        ({"activation_function": "mish"}, "activation_function='mish'"),
    ],
)
def test_what_heed_cannot_compute_is_refused_by_name(case: Case, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        import_folder(changed(case, tmp_path, change), tmp_path / "run")


def test_positions_that_were_trained_are_refused(case: Case, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = changed(case, tmp_path, {})
    tensors = tensors_of(case.folder / "theirs") | {"model.encoder.embed_positions.weight": torch.ones(64, 24)}
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.encoder\.embed_positions\.weight holds other positions"):
        import_folder(folder, tmp_path / "run")


def test_a_folder_without_its_pieces_is_refused(case: Case, tmp_path: Path) -> None:
    folder = changed(case, tmp_path, {})
    (folder / "target.spm").unlink()
    with pytest.raises(CheckpointError, match=r"has no target\.spm"):
        import_folder(folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model_type": "bpe"}, "model_type=2"),
        ({"add_dummy_prefix": False}, "add_dummy_prefix=False"),
        ({"user_defined_symbols": ["fox"]}, "'fox' is of type 4"),
    ],
)
def test_pieces_that_heed_would_cut_otherwise_are_refused(case: Case, tmp_path: Path, options: dict[str, Any], named: str) -> None:
    folder = changed(case, tmp_path, {})
    (folder / "source.spm").unlink()
    train_pieces(folder / "source.spm", **options)
    with pytest.raises(DataError, match=named):
        import_folder(folder, tmp_path / "run")


def test_reading_pieces_needs_a_package_that_is_named(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtra, match="'sentencepiece'"):
        import_folder(case.folder / "theirs", tmp_path / "run")


def test_running_needs_no_such_package(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    run = Run.load(case.folder / "run")
    assert run.predict({"source": SOURCES[0]}, max_length=5).text == case.run.predict({"source": SOURCES[0]}, max_length=5).text


def test_an_imported_run_learns_on(case: Case) -> None:
    encoded = case.run.task.encode({"source": SOURCES[0], "target": GERMAN[0]}, training=True)
    case.run.model.train()
    total, units, *_ = case.run.task.loss(case.run.model, collate([encoded]))
    total.backward()
    case.run.model.eval()
    assert units == len(encoded["target"])
    gradient = case.run.model.get_parameter("head.bias").grad
    assert gradient is not None
    assert gradient[case.run.config.model.absent_ids].abs().sum() == 0
    assert gradient.abs().sum() > 0
    case.run.model.zero_grad()


def test_a_run_that_heed_trained_is_refused_for_its_sub_words(tmp_path: Path) -> None:
    config = resolve(
        {"task": {"name": "translation", "vocab_size": 300}, "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24}}
    )
    task = config.build_task()
    task.prepare([{"source": source, "target": target} for source, target in zip(SENTENCES, GERMAN, strict=False)])
    Run.create(tmp_path / "run", config, task, about={}).save()
    with pytest.raises(ConfigError, match="marian: it needs the pieces of a SentencePiece model"):
        export_folder(tmp_path / "run", tmp_path / "back")
