"""Whisper checkpoints, tiny and random, through the production importer, against transformers."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import AddedToken, processors
from torch import Tensor
from toy_checkpoints import AWKWARD, byte_level_backend, differing, load, save, tensors_of, texts_of
from toy_recordings import write_manifest
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from heed.convert import export_folder, import_folder
from heed.errors import CheckpointError, ConfigError, DataError
from heed.model.models import Seq2Seq
from heed.run import Run
from heed.tasks.listening import quiet_cuts
from heed.tasks.speech_recognition import SpeechRecognition
from heed.verbs import train

RATE = 16_000
LANGUAGES = ["en", "de", "haw"]
TOKENS = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES), "<|translate|>", "<|transcribe|>"]
TOKENS += ["<|notimestamps|>", "<|0.00|>", "<|0.02|>"]


def whisper_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like Whisper's, with three languages and two times."""
    backend = byte_level_backend([])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS[:-2]])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in TOKENS[-2:]])
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    end = TOKENS[0]
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end, pad_token=end)


class Case(NamedTuple):
    """A checkpoint, the same in transformers and in heed."""

    folder: Path
    theirs: Any
    tokenizer: PreTrainedTokenizerFast
    run: Run


def checkpoint(folder: Path, **generation: Any) -> PreTrainedTokenizerFast:
    """Save a model that hears one second at a time."""
    tokenizer = whisper_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in TOKENS}
    end, begin = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    torch.manual_seed(5)
    config = WhisperConfig(
        vocab_size=len(tokenizer) + 3, num_mel_bins=12, d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=36, decoder_ffn_dim=36, max_source_positions=50, max_target_positions=22,
        decoder_start_token_id=begin, bos_token_id=end, eos_token_id=end, pad_token_id=end, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    values = {
        "_from_model_config": False,
        "decoder_start_token_id": begin, "eos_token_id": end, "pad_token_id": end, "bos_token_id": end, "max_length": 22,
        "is_multilingual": True, "lang_to_id": {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")}, "no_timestamps_token_id": ids["<|notimestamps|>"],
        "suppress_tokens": [i for i in range(len(tokenizer)) if i % 3 and i != end], "begin_suppress_tokens": [*range(0, 290, 2), end],
    }  # fmt: skip
    for name, value in (values | generation).items():
        setattr(model.generation_config, name, value)
    save(model, tokenizer, folder)
    extractor().save_pretrained(folder)
    return tokenizer


def extractor() -> WhisperFeatureExtractor:
    """Return features of one second."""
    return WhisperFeatureExtractor(feature_size=12, chunk_length=1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("whisper")
    tokenizer = checkpoint(folder / "theirs")
    theirs = load("WhisperForConditionalGeneration", folder / "theirs")
    import_folder(folder / "theirs", folder / "run")
    return Case(folder, theirs, tokenizer, Run.load(folder / "run"))


@pytest.mark.parametrize(
    ("file", "fields", "match"),
    [
        ("preprocessor_config.json", {"sampling_rate": 0}, "sampling_rate=0, expected a whole number from 1"),
        ("preprocessor_config.json", {"hop_length": "x"}, "hop_length='x', expected a whole number"),
        ("config.json", {"eos_token_id": "x"}, "eos_token_id='x', expected a whole number"),
        ("generation_config.json", {"suppress_tokens": 3}, "suppress_tokens=3, expected a list of whole numbers"),
        ("generation_config.json", {"lang_to_id": {}, "forced_decoder_ids": [3]}, "forced_decoder_ids=.*, expected pairs"),
    ],
)
def test_a_damaged_value_is_named_with_its_file(case: Case, file: str, fields: dict[str, Any], match: str, tmp_path: Path) -> None:
    folder = shutil.copytree(case.folder / "theirs", tmp_path / "theirs")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))
    with pytest.raises(CheckpointError, match=f"{re.escape(file)}: {match}"):
        import_folder(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def recording(seed: int, seconds: float) -> np.ndarray:
    """Return noise that comes and goes, as 16-bit samples."""
    draw, times = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    return (np.abs(np.sin((seed + 3) * times)) * draw.normal(0, 3000, len(times))).astype(np.int16)


def example(samples: np.ndarray) -> dict[str, Any]:
    """Return a recording as heed is given it."""
    return {"audio": samples, "sample_rate": RATE}


def theirs_of(samples: np.ndarray) -> Tensor:
    """Return the features (1, F, T) that transformers hears."""
    found: Tensor = extractor()(samples / np.float32(32768), sampling_rate=RATE, return_tensors="pt")["input_features"]
    return found


def task_of(run: Run) -> SpeechRecognition:
    """Return the run's task."""
    assert isinstance(run.task, SpeechRecognition)
    return run.task


def test_logits_are_those_of_transformers(case: Case) -> None:
    features = torch.cat([theirs_of(recording(seed, 0.7)) for seed in (1, 2)])
    target = torch.tensor([[292, 9, 4, 230, 11], [292, 7, 299, 6, 20]])
    ids = task_of(case.run).tokenizer.ids
    with torch.no_grad():
        expected = case.theirs(input_features=features, decoder_input_ids=target).logits
        assert isinstance(case.run.model, Seq2Seq)
        ours = case.run.model(features.transpose(1, 2), None, torch.tensor([[ids.index(i) for i in row] for row in target.tolist()]))
    order = [ids.index(i) for i in range(expected.size(-1))]
    torch.testing.assert_close(ours[..., order], expected, rtol=1e-4, atol=1e-4)


def test_texts_are_cut_alike(case: Case) -> None:
    tokenizer = task_of(case.run).tokenizer
    assert [[tokenizer.ids[i] for i in ids] for ids in tokenizer.encode_batch(AWKWARD)] == texts_of(case.tokenizer, AWKWARD)


def heard(case: Case, samples: np.ndarray, **options: Any) -> str:
    """Return what transformers hears."""
    found = case.theirs.generate(
        theirs_of(samples), task="transcribe", return_timestamps=False, num_beams=1, do_sample=False, max_new_tokens=9, **options
    )
    times = case.tokenizer.convert_tokens_to_ids(TOKENS[-2:])
    return case.tokenizer.decode([i for i in found[0].tolist() if i not in times], skip_special_tokens=True).strip()


@pytest.mark.parametrize("language", ["en", "haw"])
def test_greedy_transcripts_are_those_of_transformers(case: Case, language: str) -> None:
    task = task_of(case.run)
    task.config = task.config.replace(language=language)
    for seed in range(3):
        samples = recording(seed, 0.3 + 0.3 * seed)
        answer = case.run.predict(example(samples), beams=1, max_length=10, precision="float32")
        assert answer.text == heard(case, samples, language=language)
        assert answer.details["language"] == language
    task.config = task.config.replace(language=None)


def test_transcripts_are_searched_for_as_the_folder_says(case: Case, tmp_path: Path) -> None:
    said = {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2}
    checkpoint(tmp_path / "theirs", num_beams=2, **said)
    run = import_folder(tmp_path / "theirs", tmp_path / "run", settings={"task": {"language": "en"}}).run
    assert run.config.decode.beams == 2
    recordings = [recording(seed, 0.3 + 0.3 * seed) for seed in range(3)]
    found = [run.predict(example(samples), beams=1, max_length=10, precision="float32").text for samples in recordings]
    assert found == [heard(case, samples, language="en", **said) for samples in recordings]
    assert found != [heard(case, samples, language="en") for samples in recordings]


def test_what_is_suppressed_would_be_written_otherwise(case: Case) -> None:
    samples = recording(0, 0.3)
    assert heard(case, samples, language="en") != heard(case, samples, language="en", suppress_tokens=[], begin_suppress_tokens=[])


def test_the_language_is_found_as_transformers_finds_it(case: Case) -> None:
    for seed in range(3):
        samples = recording(seed, 0.8)
        found = case.theirs.detect_language(input_features=theirs_of(samples), generation_config=case.theirs.generation_config)
        answer = case.run.predict(example(samples), beams=1, max_length=10, precision="float32")
        assert f"<|{answer.details['language']}|>" == case.tokenizer.decode(found)
        assert answer.text == heard(case, samples)


def test_a_long_recording_is_answered_in_pieces_of_a_window(case: Case) -> None:
    samples = recording(4, 2.7)
    hops = torch.from_numpy(samples).view(-1, 160)
    cuts = [0, *quiet_cuts(hops, 100), len(hops)]
    options = {"beams": 1, "max_length": 10, "precision": "float32"}
    parts = [example(hops[a:b].flatten().numpy()) for a, b in pairwise(cuts)]
    whole = case.run.predict(example(samples), **options)
    assert whole.text == " ".join(one.text for one in case.run.predict(parts, **options) if one.text)
    assert len(cuts) > 3


def test_beams_and_batches_answer_alike(case: Case) -> None:
    examples = [example(recording(seed, 0.2 + 0.2 * seed)) for seed in range(4)]
    for beams in (1, 3):
        options = {"beams": beams, "max_length": 8, "precision": "float32"}
        assert [one.text for one in case.run.predict(examples, **options)] == [case.run.predict(one, **options).text for one in examples]


def test_a_transcript_is_learned_behind_its_prefix(case: Case) -> None:
    task = task_of(case.run)
    encoded = task.encode({**example(recording(1, 0.5)), "text": "the fox", "language": "de"}, training=True)
    names = [case.tokenizer.convert_ids_to_tokens(task.tokenizer.ids[i]) for i in encoded["text"].tolist()]
    assert names[:3] == ["<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    assert task.tokenizer.decode(encoded["text"].tolist()) == "the fox"


def test_every_tensor_is_used_and_comes_back_bit_for_bit(case: Case, tmp_path: Path) -> None:
    exported = export_folder(case.folder / "run", tmp_path / "back")
    assert exported.kind == "WhisperForConditionalGeneration"
    assert differing(tensors_of(tmp_path / "back"), tensors_of(case.folder / "theirs")) == []
    again = load("WhisperForConditionalGeneration", tmp_path / "back")
    features, target = theirs_of(recording(1, 1.0)), torch.tensor([[292, 8, 14]])
    with torch.no_grad():
        expected = case.theirs(input_features=features, decoder_input_ids=target).logits
        assert torch.equal(again(input_features=features, decoder_input_ids=target).logits, expected)
    found = WhisperFeatureExtractor.from_pretrained(tmp_path / "back")
    assert (found.chunk_length, found.feature_size, found.n_fft) == (1, 12, 400)


def test_what_was_fine_tuned_from_an_import_goes_back_with_what_generating_needs(case: Case, tmp_path: Path) -> None:
    rows = [{"audio": str(tmp_path / f"{i}.wav"), "text": text} for i, text in enumerate(["fox", "dog", "the fox", "a dog"] * 4)]
    for i, row in enumerate(rows):
        soundfile.write(row["audio"], recording(i, 0.4), RATE)
    path = write_manifest(tmp_path / "rows.tsv", rows)
    data = {"train": str(path), "valid": str(path), "allow_leaks": True}
    quick = {"steps": 2, "precision": "float32", "tensorboard": False, "warmup": 1}
    task = {"language": "de", "piece_seconds": 1}
    run = train("speech_recognition", to=tmp_path / "run", quiet=True, init=str(case.folder / "run"), data=data, train=quick, task=task)
    assert (task_of(run).config.language, run.config.decode.precision) == ("de", "float32")
    again = load(export_folder(run.folder, tmp_path / "back").kind, tmp_path / "back")
    assert again.generation_config.language == "<|de|>"
    assert again.generation_config.lang_to_id == case.theirs.generation_config.lang_to_id
    changed = differing(tensors_of(tmp_path / "back"), tensors_of(case.folder / "theirs"))
    assert "model.decoder.layers.2.encoder_attn.k_proj.weight" in changed
    features, target = theirs_of(recording(1, 1.0)), torch.tensor([[292, 8, 14]])
    with torch.inference_mode():
        found = run.model(features.mT, None, torch.tensor([[task_of(run).tokenizer.ids.index(i) for i in target[0].tolist()]]))
        expected = again(input_features=features, decoder_input_ids=target).logits
    known = [(i, index) for i, index in enumerate(task_of(run).tokenizer.ids) if index is not None]
    ours, theirs = (list(side) for side in zip(*known, strict=True))
    torch.testing.assert_close(found[..., ours], expected[..., theirs], rtol=1e-4, atol=1e-4)


def test_rows_without_a_language_say_what_is_missing(case: Case) -> None:
    with pytest.raises(DataError, match=r"the row has no language, .*say task\.language, or give a column of it"):
        task_of(case.run).encode({**example(recording(1, 0.5)), "text": "the fox"}, training=True)


def test_one_language_has_no_token(tmp_path: Path) -> None:
    checkpoint(tmp_path / "theirs", is_multilingual=False, lang_to_id=None, task_to_id=None)
    task = task_of(import_folder(tmp_path / "theirs", tmp_path / "run").run)
    assert task.languages == []
    assert task.config.prefix == ["<|notimestamps|>"]


def test_the_language_a_checkpoint_was_made_for_is_taken_over(tmp_path: Path) -> None:
    checkpoint(tmp_path / "theirs", language="german", task="translate")
    task = task_of(import_folder(tmp_path / "theirs", tmp_path / "run").run)
    assert task.config.language == "de"
    assert task.config.prefix == ["<|translate|>", "<|notimestamps|>"]


def test_language_and_task_may_be_chosen_with_the_import(case: Case, tmp_path: Path) -> None:
    chosen = {"language": "de", "prefix": ["<|translate|>", "<|notimestamps|>"]}
    run = import_folder(case.folder / "theirs", tmp_path / "run", settings={"task": chosen}).run
    config = task_of(run).config
    assert (config.language, config.prefix) == ("de", chosen["prefix"])
    assert config.suppressed == task_of(case.run).config.suppressed


@pytest.mark.parametrize(("setting", "named"), [({"n_mels": 13}, "task.n_mels: is 12"), ({"language": "xx"}, "task.language=xx")])
def test_settings_that_do_not_fit_the_files_are_refused(case: Case, tmp_path: Path, setting: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        import_folder(case.folder / "theirs", tmp_path / "run", settings={"task": setting})


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("config.json", {"scale_embedding": True}, "scale_embedding=True"),
        ("config.json", {"activation_function": "relu"}, "activation_function='relu'"),
        ("config.json", {"decoder_ffn_dim": 40}, "decoder_ffn_dim=40"),
        ("preprocessor_config.json", {"dither": 0.1}, "dither=0.1"),
        ("preprocessor_config.json", {"do_normalize": True}, "do_normalize=True"),
        ("preprocessor_config.json", {"feature_size": 13}, "13 bands and 100 frames do not fit"),
        ("preprocessor_config.json", {"chunk_length": 2}, "12 bands and 200 frames do not fit"),
        ("generation_config.json", {"language": "klingon"}, "language='klingon'"),
    ],
)
def test_what_heed_cannot_compute_is_refused_by_name(case: Case, tmp_path: Path, file: str, change: dict[str, Any], named: str) -> None:
    content = json.loads((case.folder / "theirs" / file).read_text())
    for path in (case.folder / "theirs").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / file).unlink()
    (tmp_path / file).write_text(json.dumps(content | change))
    with pytest.raises(ConfigError, match=named):
        import_folder(tmp_path, tmp_path / "run")
