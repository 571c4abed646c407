"""Whisper: two convolutions over time, norms before, keys without bias, and a decoder that is told what to do.

Source: Radford et al. 2022. Left out: times of words and of segments, and what was said before a piece of a long recording.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from heed.convert.family import Family, Groups, foreign_ids, ids_of, rows_of
from heed.convert.folder import Folder, Settings, Weights, read_if_there
from heed.convert.gpt2 import ACTIVATIONS, THEIR_ACTIVATIONS, bytes_pipeline
from heed.convert.marian import of_both, search_settings, stacks
from heed.convert.t5 import first_of_decoder
from heed.convert.table import Entry, entry, layer
from heed.convert.tokens import Builder, Pipeline, Tokens, extended
from heed.convert.writing import write_json, write_tokenizer
from heed.data.foreign import ForeignTokenizer, Frame
from heed.data.whisper import WhisperFeatures, WhisperSettings
from heed.errors import CheckpointError, ConfigError
from heed.model.config import ModelConfig
from heed.run import RunConfig
from heed.tasks.base import Task

SHORTER = 2  # frames of audio that become one place
HEAD = "proj_out.weight"
MARKS = "<|>"  # around the name of a token
WITHOUT_TIMES = "<|notimestamps|>"


def spoken_pipeline(folder: Folder) -> Pipeline | None:
    """Return the pipeline of vocab.json and merges.txt, with the tokens behind them, none of which is a part of a transcript."""
    pipeline = bytes_pipeline(folder)
    return None if pipeline is None else extended(folder, pipeline, special=True)


class Whisper(Family):
    """Whisper, of one language or of many."""

    model_type: ClassVar[str] = "whisper"
    classes: ClassVar[Mapping[str, str]] = {"WhisperForConditionalGeneration": "speech_recognition"}
    builders: ClassVar[tuple[Builder, ...]] = (spoken_pipeline,)

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json."""
        theirs.only("is_encoder_decoder", True)
        theirs.only("scale_embedding", False)
        theirs.only("activation_function", "gelu", why="the convolutions of its stem have gelu")
        theirs.only("tie_word_embeddings", True)
        layers, decoder_layers = theirs.whole("encoder_layers", 4), theirs.whole("decoder_layers", 4)
        places = theirs.whole("max_source_positions", 1500)
        model = {
            "architecture": "seq2seq",
            "mixer": "attention",
            "kernel_size": ModelConfig.model_fields["kernel_size"].default,
            "n_features": theirs.whole("num_mel_bins", 80),
            "audio_stem": "frames1d",
            "subsampling": SHORTER,
            "d_model": theirs.whole("d_model", 384),
            "n_heads": of_both(theirs, "attention_heads", 6),
            "d_ff": of_both(theirs, "ffn_dim", 1536),
            "n_layers": layers,
            "n_decoder_layers": None if decoder_layers == layers else decoder_layers,
            "dropout": theirs.number("dropout", 0.0),
            "activation": theirs.one_of("activation_function", ACTIVATIONS, "gelu"),
            "norm_epsilon": 1e-5,
            "unbiased": ["key"],
            "positions": "learned",
            "max_length": theirs.whole("max_target_positions", 448),
            "max_source_length": places,
            "embedding_scale": False,
        }
        return {"model": model, "data": {"max_length": SHORTER * places}, "task": {"objective": "attention", "features": "whisper"}}

    def refined(self, groups: Groups, folder: Folder, weights: Weights) -> Groups:
        """Return what `settings` found, with how transcripts are searched for."""
        return {**groups, "decode": search_settings(folder)}

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        model, ids = config.model, foreign_ids(task)
        if model.vocab_size != len(ids_of(task.parts["tokenizer"])):
            raise ConfigError("task.languages stand behind the vocabulary, expected in it; only imported runs have them there")
        return {
            "vocab_size": ids["size"],
            "num_mel_bins": model.n_features,
            "d_model": model.d_model,
            **{f"{stack}_layers": n for stack, n in (("encoder", model.n_layers), ("decoder", model.decoder_layers))},
            **{f"{stack}_attention_heads": model.n_heads for stack in ("encoder", "decoder")},
            **{f"{stack}_ffn_dim": model.d_ff for stack in ("encoder", "decoder")},
            "dropout": model.dropout,
            "activation_function": THEIR_ACTIVATIONS[model.activation],
            "max_source_positions": model.max_source_length,
            "max_target_positions": model.max_length,
            "scale_embedding": False,
            "is_encoder_decoder": True,
            "tie_word_embeddings": True,
            "decoder_start_token_id": ids["begin"],
            "bos_token_id": ids["end"],
            "eos_token_id": ids["end"],
            "pad_token_id": ids["end"] if ids["pad"] is None else ids["pad"],
        }

    def entries(self, model: ModelConfig, task: Task, kind: str) -> list[Entry]:
        """Return the table of names."""
        table = [
            entry("target_stem.embedding.weight", "model.decoder.embed_tokens.weight", rows_of(task), copies=(HEAD,)),
            entry("target_stem.positions.embedding.weight", "model.decoder.embed_positions.weight"),
            entry("source_stem.positions.embedding.weight", "model.encoder.embed_positions.weight"),
            *layer("source_stem.layers.0", "model.encoder.conv1"),
            *layer("source_stem.layers.1", "model.encoder.conv2"),
        ]
        for stack in ("encoder", "decoder"):
            table += layer(f"{stack}.norm", f"model.{stack}.layer_norm")
        return table + stacks(model, key_bias=False)

    def specials(self, theirs: Settings, tokens: Tokens) -> tuple[list[int | None], Frame]:
        """Return the ids of special tokens: padding is the end token, and nothing is unknown."""
        end = theirs.whole_or_none("eos_token_id")
        ends = tokens.needed("eos_token", "<|endoftext|>") if end is None else end
        begin = first_of_decoder(theirs, tokens, tokens.needed("bos_token", "<|startoftranscript|>"))
        return [None, begin, ends, None], Frame(begins_texts=False)

    def adopt(self, folder: Folder, task: Task) -> None:
        """Give a task tokenizer and features, and what generation_config.json says of languages and of what is never written."""
        tokenizer, features = self.tokenizer(folder), features_of(folder)
        task.adopt({"tokenizer": tokenizer, "features": features}, [])
        sound = {**_sound(features.settings), "normalise": "none", "tokens": "subwords"}
        given = [name for name in sound if _is_given(task, name) and getattr(task.config, name) != sound[name]]
        if given:
            raise ConfigError(f"task.{given[0]}: is {sound[given[0]]} by the files of {folder.path}, and cannot be another; leave it out")
        speech = {name: find(folder, tokenizer) for name, find in SPEECH.items() if not _is_given(task, name)}
        task.config = task.config.replace(**sound, **speech)

    def generation(self, task: Task, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return generation_config.json, which says the language that a run writes and whether it translates."""
        language, prefix = getattr(task.config, "language", None), getattr(task.config, "prefix", [])
        told = next((name for name in given.get("task_to_id") or {} if f"<|{name}|>" in prefix), None)
        said = {"task": told} if told not in (None, given.get("task", "transcribe")) else {}
        if language not in (None, str(given.get("language")).strip(MARKS)):
            said["language"] = f"<|{language}|>"
        return {**given, **said}

    def write_parts(self, task: Task, to: Path) -> None:
        """Write the files of the tokenizer and of the features."""
        features = task.parts["features"]
        if not isinstance(features, WhisperFeatures):
            raise ConfigError("whisper: needs task.features=whisper; it hears no other features")
        write_tokenizer(task.parts["tokenizer"], to)
        said = features.settings
        content = {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": said.n_mels,
            "sampling_rate": said.sample_rate,
            "hop_length": said.hop,
            "chunk_length": said.seconds,
            "n_fft": said.n_fft,
            "n_samples": said.n_samples,
            "nb_max_frames": said.n_frames,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        }
        write_json(to / "preprocessor_config.json", content)


def features_of(folder: Folder) -> WhisperFeatures:
    """Return the features that a folder says; raises ConfigError for others, or such as do not fit the model."""
    path = folder.path / "preprocessor_config.json"
    content = read_if_there(path) or folder.read("processor_config.json").get("feature_extractor") or {}
    theirs, model = Settings(content, str(path)), folder.settings
    theirs.only("feature_extractor_type", "WhisperFeatureExtractor")
    theirs.only("dither", 0.0)
    theirs.only("do_normalize", False)
    theirs.only("padding_value", 0.0)
    rate, hop = theirs.count("sampling_rate", 16_000), theirs.count("hop_length", 160)
    places = model.whole("max_source_positions", 1500)
    seconds = theirs.count("chunk_length", SHORTER * places * hop // rate)
    settings = WhisperSettings(
        rate, theirs.count("n_fft", 400), hop, theirs.count("feature_size", model.whole("num_mel_bins", 80)), seconds
    )
    if settings.n_mels != model.whole("num_mel_bins", 80) or settings.n_frames != SHORTER * places:
        raise ConfigError(
            f"{path}: {settings.n_mels} bands and {settings.n_frames} frames do not fit num_mel_bins={model.whole('num_mel_bins', 80)} and "
            f"max_source_positions={places}, half the frames, of {model.where}; their files do not belong together"
        )
    return WhisperFeatures(settings)


def _sound(settings: WhisperSettings) -> dict[str, Any]:
    """Return the task's settings of the features."""
    return {
        "sample_rate": settings.sample_rate,
        "frame_ms": 1000 * settings.n_fft / settings.sample_rate,
        "hop_ms": 1000 * settings.hop / settings.sample_rate,
        "n_mels": settings.n_mels,
        "piece_seconds": settings.seconds,
    }


def _is_given(task: Task, name: str) -> bool:
    """Return whether a setting of a task differs from its default, and not by being empty."""
    return task.config.changed(name) and bool(getattr(task.config, name))


def _languages(folder: Folder, tokenizer: ForeignTokenizer) -> list[str]:
    """Return the codes of the languages that have a token."""
    named = folder.generation.get("lang_to_id", {})
    if not isinstance(named, dict):
        where = folder.generation.where
        raise CheckpointError(f"{where}: lang_to_id={named!r}, expected the tokens of languages with their ids; fetch the file again")
    return [token.strip(MARKS) for token in named]


def _language(folder: Folder, tokenizer: ForeignTokenizer) -> str | None:
    """Return the language that a folder was made for, by its code; raises ConfigError for one that has no token."""
    given, languages = folder.generation.get("language", None), _languages(folder, tokenizer)
    if given is None:
        return None
    code = str(given).strip(MARKS).lower()
    code = code if code in languages else _codes().get(code, code)
    if code not in languages:
        raise ConfigError(
            f"{folder.generation.where}: language={given!r} is not one of {', '.join(languages) or 'no languages'}; say task.language=CODE"
        )
    return code


def _codes() -> dict[str, str]:
    """Return the code of each language by its English name."""
    from babel import Locale

    return {name.lower(): code for code, name in Locale("en").languages.items()}


def _prefix(folder: Folder, tokenizer: ForeignTokenizer) -> list[str]:
    """Return the tokens before a transcript, behind that of the language; where languages have none, those that older files force."""
    says = folder.generation
    if _languages(folder, tokenizer):
        tokens = [f"<|{says.get('task', 'transcribe')}|>", WITHOUT_TIMES]
    else:
        tokens = [str(tokenizer.backend.id_to_token(index)) for index in _forced(folder)] or [WITHOUT_TIMES]
    return [token for token in tokens if tokenizer.backend.token_to_id(token) is not None]


def _forced(folder: Folder) -> list[int]:
    """Return the foreign ids that older files force, in the order of their places."""
    says = next((one for one in (folder.generation, folder.settings) if one.get("forced_decoder_ids", None) is not None), None)
    pairs = [] if says is None else says.get("forced_decoder_ids")
    where = "" if says is None else says.where
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise CheckpointError(f"{where}: forced_decoder_ids={pairs!r}, expected pairs of a place and an id; fetch the file again")
    return [index for _, index in pairs if type(index) is int and index >= 0]


def _suppressed(folder: Folder, tokenizer: ForeignTokenizer, name: str = "suppress_tokens") -> list[int]:
    """Return heed's ids of what is never written."""
    foreign = folder.generation.wholes(name, folder.settings.wholes(name, []))
    ids = {theirs: ours for ours, theirs in enumerate(tokenizer.ids) if theirs is not None}
    return [ids[index] for index in foreign if index in ids]


def _suppressed_first(folder: Folder, tokenizer: ForeignTokenizer) -> list[int]:
    """Return heed's ids of what no transcript begins with."""
    return _suppressed(folder, tokenizer, "begin_suppress_tokens")


# What the files say of settings of the task that may be given with the import.
SPEECH: Mapping[str, Callable[[Folder, ForeignTokenizer], Any]] = {
    "languages": _languages,
    "language": _language,
    "prefix": _prefix,
    "suppressed": _suppressed,
    "suppressed_first": _suppressed_first,
}
