"""ModelConfig: the few settings that turn one block into every member of the family."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from heed.config import Settings

# a setting and those of its values -> the other settings that only they read
READ_BY: dict[tuple[str, tuple[str | bool, ...]], tuple[str, ...]] = {
    ("mixer", ("convolution", "hybrid", "conformer")): ("kernel_size",),
    ("attention", ("windowed",)): ("window",),
    ("attention", ("low_rank",)): ("landmarks",),
    ("attention", ("chunked",)): ("chunk", "left_chunks"),
    ("hierarchical", (True,)): ("n_document_layers",),
}
OF_ROTARY = ("rotary_base", "rotary_factor", "rotary_context")  # settings that rotary positions alone read


class ModelConfig(Settings):
    """The shape of a model; sizes that depend on the data (`vocab_size` ...) are filled in by the task."""

    architecture: Literal["encoder", "causal", "seq2seq"] = Field(default="seq2seq", description="which stacks there are")
    vocab_size: int | None = Field(default=None, ge=1, description="target (or only) vocabulary; set by the task")
    source_vocab_size: int | None = Field(
        default=None, ge=1, description="source vocabulary when it is not shared with the target; set by the task"
    )
    d_model: int = Field(default=256, ge=1, description="width of the residual stream")
    n_heads: int = Field(default=4, ge=1, description="attention heads; divides d_model")
    n_kv_heads: int | None = Field(default=None, ge=1, description="heads of keys and values (grouped heads); default n_heads")
    d_kv: int | None = Field(default=None, ge=1, description="features of one head; default d_model / n_heads")
    n_layers: int = Field(default=3, ge=1, description="blocks of the (encoder) stack")
    n_decoder_layers: int | None = Field(default=None, ge=1, description="blocks of the decoder of a seq2seq model; default n_layers")
    d_ff: int = Field(default=1024, ge=1, description="width inside the feed-forward")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="share of activations dropped in training")
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"] = Field(
        default="relu", description="non-linearity of the feed-forward"
    )
    gated: bool = Field(default=False, description="feed-forward multiplies a second projection into the activation (GLU variants)")
    norm: Literal["layer", "rms"] = Field(default="layer", description="normalisation")
    norm_place: Literal["before", "after", "rezero"] = Field(
        default="before", description="where a sub-layer is normalised; rezero gates it by a scalar from 0"
    )
    norm_epsilon: float = Field(default=1e-6, gt=0, description="added to the variance")
    positions: Literal["sinusoidal", "sinusoidal_halves", "learned", "rotary", "relative", "none"] = Field(
        default="rotary", description="how order is known; sinusoidal_halves: all sines stand before all cosines"
    )
    max_length: int = Field(default=512, ge=1, description="longest sequence; a hard limit for learned positions")
    max_source_length: int | None = Field(
        default=None, ge=1, description="learned positions of the encoder of a seq2seq model, where not max_length"
    )
    first_position: int = Field(default=0, ge=0, description="learned positions: the row of the first token; max_length rows follow")
    rotary_base: float = Field(default=10000.0, gt=1, description="rotary positions: pair i of d_head / 2 turns by base^(-2 i / d_head)")
    rotary_factor: float = Field(default=1.0, ge=1, description="rotary positions: pairs turn so many times slower, for longer texts")
    rotary_context: int | None = Field(
        default=None,
        ge=1,
        description="rotary positions: pairs that turn often within so many tokens are not slowed (Llama 3.1); default: all are",
    )
    scaled: bool = Field(default=True, description="divide attention scores by sqrt(d_head)")
    bias: bool = Field(default=True, description="linear maps have biases")
    unbiased: list[Literal["query", "key", "value", "output", "up", "gate", "down"]] = Field(
        default_factory=list, description="maps of attention and feed-forward that have no bias although others have"
    )
    share_layers: bool = Field(default=False, description="the blocks of a stack are one block, applied n_layers times")
    tied: bool = Field(default=True, description="the output projection is the (target) embedding")
    scaled_head: bool = Field(default=False, description="divide hidden vectors by sqrt(d_model) before the scores of words")
    head_bias: bool = Field(default=False, description="the scores of words have a bias")
    absent_ids: list[int] = Field(
        default_factory=list, description="ids that stand for nothing in an imported vocabulary and are never written; set by the task"
    )
    embedding_scale: bool = Field(default=True, description="multiply embeddings by sqrt(d_model)")
    embedding_norm: bool = Field(default=False, description="normalise embeddings with their positions")
    n_segments: int | None = Field(
        default=None, ge=1, description="learned vectors for parts of a text, each ended by the end token, added to embeddings"
    )
    d_embedding: int | None = Field(
        default=None, ge=1, description="width of the embeddings when it is not d_model, to which a linear map then leads; set by the task"
    )
    frozen_embedding: bool = Field(default=False, description="embeddings are not trained; set by the task")
    n_features: int | None = Field(default=None, ge=1, description="features of a frame of audio, which stand for tokens; set by the task")
    subsampling: Literal[1, 2, 4, 8] = Field(
        default=4, description="frames of audio that become one place behind the stem; read where there are n_features"
    )
    audio_stem: Literal["frames2d", "frames1d"] = Field(
        default="frames2d",
        description="convolutions over time and frequency, or frames1d: two over time alone; read where there are n_features",
    )
    mixer: Literal["attention", "convolution", "lstm", "hybrid", "conformer"] = Field(
        default="attention",
        description="what lets tokens see each other: attention; convolutions or a bidirectional LSTM instead of it; hybrid: a "
        "convolution before each attention (encoders only); conformer: one behind each, between two feed-forwards (encoders, also that "
        "of seq2seq)",
    )
    kernel_size: int = Field(default=3, ge=1, description="tokens a convolution sees, an odd number")
    attention: Literal["full", "windowed", "low_rank", "chunked"] = Field(
        default="full",
        description="windowed and low_rank take time and memory linear in the length (encoders only); so does chunked, which can follow "
        "a stream (encoders, also that of seq2seq)",
    )
    window: int = Field(default=64, ge=1, description="windowed attention: tokens seen on each side")
    landmarks: int = Field(default=32, ge=1, description="low-rank attention: the rank of the matrix of weights")
    chunk: int = Field(default=16, ge=1, description="chunked attention: places of a chunk, which all see each other")
    left_chunks: int = Field(default=4, ge=0, description="chunked attention: chunks before its own that a place sees")
    adaptive: bool = Field(default=False, description="each head learns how sharply it looks, from the usual sharpness at the start")
    weight_rank: int | None = Field(
        default=None, ge=1, description="rank of the weights in attention and feed-forward, as products of two thin matrices; default full"
    )
    hierarchical: bool = Field(
        default=False, description="words are mixed inside their sentence, then sentences inside the text (encoders only)"
    )
    n_document_layers: int = Field(default=1, ge=1, description="hierarchical: blocks over the sentences of a text")
    pooling: Literal["mean", "attention", "first"] = Field(
        default="mean", description="how the tokens of a text become one vector, for a head that judges texts"
    )
    n_classes: int | None = Field(default=None, ge=1, description="classes of a head that judges texts; set by the task")
    class_hidden: Literal["none", "tanh", "relu"] = Field(
        default="none", description="non-linearity of a layer before the scores of classes; none: there is no such layer"
    )
    n_grams: int = Field(
        default=0,
        ge=0,
        le=8,
        description="tokens of the longest n-grams of a linear classifier that learns and answers beside the network; 0: a network alone",
    )
    n_gram_rows: int = Field(default=1 << 18, ge=1, description="rows of scores to which n-grams are hashed")
    n_tags: int | None = Field(default=None, ge=1, description="scores of a head that judges every token; set by the task")
    masked_lm: bool = Field(default=False, description="a head foretells hidden tokens; set by the task")
    ctc: bool = Field(default=False, description="a head scores labels at every place of the encoder, for CTC; set by the task")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_kv is None and self.d_model % self.n_heads:
            raise ValueError(f"model.n_heads={self.n_heads} does not divide model.d_model={self.d_model}; choose a divisor")
        if self.n_heads % self.kv_heads:
            raise ValueError(f"model.n_kv_heads={self.kv_heads} does not divide model.n_heads={self.n_heads}; choose a divisor")
        for name in ("source_vocab_size", "n_decoder_layers", "max_source_length"):
            if getattr(self, name) is not None and self.architecture != "seq2seq":
                raise ValueError(f"model.{name} would be ignored by architecture={self.architecture}; leave it out")
        self._fits_the_architecture()
        self._fits_positions()
        self._fits_the_mixer()
        self._fits_its_kinds()
        self._fits_tokens()
        self._fits_audio()
        idle = self.unbiased if not self.bias else [name for name in self.unbiased if name == "gate" and not self.gated]
        if idle:
            raise ValueError(f"model.unbiased={idle}: there is no such bias without model.{'gated' if self.bias else 'bias'}; leave it out")
        if self.norm_place == "rezero" and self.norm != "layer":
            raise ValueError(f"model.norm={self.norm} would be ignored by norm_place=rezero, which has no norms; leave it out")
        return self

    def _fits_the_architecture(self) -> None:
        """Refuse what the stacks of an architecture would ignore."""
        of_encoders = {"mixer": "attention", "attention": "full", "hierarchical": False, "n_classes": None, "d_embedding": None}
        of_encoders |= {"class_hidden": "none", "n_tags": None, "masked_lm": False, "n_segments": None, "n_grams": 0}
        of_any_encoder = {"n_features": None, "ctc": False, "audio_stem": "frames2d"}
        for name, usual in (*of_encoders.items(), *of_any_encoder.items()):
            value = getattr(self, name)
            also_seq2seq = name in of_any_encoder or value in ("conformer", "chunked")
            wanted = ("encoder", "seq2seq") if also_seq2seq else ("encoder",)
            if value != usual and self.architecture not in wanted:
                raise ValueError(f"model.{name}={value} needs architecture={' or '.join(wanted)}, found {self.architecture}; leave it out")
        for name in ("scaled_head", "head_bias", "absent_ids"):
            if getattr(self, name) and self.architecture == "encoder":
                raise ValueError(f"model.{name} would be ignored by architecture=encoder; leave it out")

    def _fits_positions(self) -> None:
        """Refuse what the kind of positions would ignore, or cannot do."""
        if self.positions == "rotary" and self.d_head % 2:
            found = "d_model / n_heads" if self.d_kv is None else "d_kv"
            raise ValueError(f"model.positions=rotary needs an even {found}, found {self.d_head}; use fewer or more heads")
        for name, kind in (("first_position", "learned"), ("max_source_length", "learned"), *((name, "rotary") for name in OF_ROTARY)):
            if self.changed(name) and self.positions != kind:
                raise ValueError(f"model.{name} would be ignored by positions={self.positions}; leave it out, or choose {kind}")

        if self.rotary_context is not None and self.rotary_factor == 1:
            raise ValueError(f"model.rotary_context={self.rotary_context} would be ignored without model.rotary_factor; leave it out")

    def _fits_the_mixer(self) -> None:
        """Refuse kinds of mixing that the other settings would ignore."""
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"model.kernel_size={self.kernel_size}: a convolution sees as many tokens on either side; choose an odd number"
            )
        if self.mixer == "lstm" and self.d_model % 2:
            raise ValueError(f"model.d_model={self.d_model}: an LSTM in two directions needs an even number")
        without_attention = self.mixer in ("convolution", "lstm")
        for name in ("weight_rank", "d_kv", "unbiased", *OF_ROTARY):
            if without_attention and self.changed(name):
                raise ValueError(f"model.{name}={getattr(self, name)} would be ignored by mixer={self.mixer}; leave it out")
        if without_attention and (self.attention != "full" or self.adaptive):
            raise ValueError(f"model.attention and model.adaptive would be ignored by mixer={self.mixer}, which has none; leave them out")
        if self.attention != "full" and self.positions == "relative":
            raise ValueError(f"model.positions=relative needs attention=full, found {self.attention}; choose rotary")
        if self.attention == "chunked" and self.mixer not in ("attention", "conformer"):
            raise ValueError(f"model.attention=chunked needs mixer=attention or conformer, found {self.mixer}, which sees beyond its chunk")
        if self.mixer == "conformer" and self.norm_place != "before":
            raise ValueError(f"model.norm_place={self.norm_place}: mixer=conformer needs before; leave it out")

    def _fits_its_kinds(self) -> None:
        """Refuse the settings of one kind of mixing where another is chosen."""
        for (field, kinds), names in READ_BY.items():
            for name in names:
                if self.changed(name) and getattr(self, field) not in kinds:
                    wanted, found = " or ".join(map(_said, kinds)), _said(getattr(self, field))
                    raise ValueError(f"model.{name} would be ignored by {field}={found}; leave it out, or choose {wanted}")

    def _fits_tokens(self) -> None:
        """Refuse heads and embeddings of tokens where a model has none, or reads them in another way."""
        of_tokens = ("masked_lm", "n_segments", "embedding_norm", "n_grams")
        for name in (*of_tokens, "n_tags"):
            if not self.changed(name):
                continue
            if self.n_features is not None and name in of_tokens:
                raise ValueError(f"model.{name} is for tokens, found model.n_features, which stand for them; leave it out")
            if self.hierarchical and name != "embedding_norm":
                raise ValueError(f"model.{name} is for texts read as a whole, found model.hierarchical; leave one of them out")
        if self.changed("n_gram_rows") and not self.n_grams:
            raise ValueError("model.n_gram_rows would be ignored without model.n_grams; leave it out, or set how long n-grams are")
        if self.masked_lm and self.d_embedding is not None:
            raise ValueError("model.masked_lm needs embeddings as wide as model.d_model, found model.d_embedding; leave it out")

    def _fits_audio(self) -> None:
        """Refuse what a stem for audio, or a head at every place, would ignore."""
        if self.hierarchical and (self.n_features is not None or self.ctc):
            raise ValueError("model.hierarchical is for sentences of tokens, found model.n_features or model.ctc; leave it out")
        if self.audio_stem == "frames1d" and (self.subsampling != 2 or self.attention == "chunked"):
            raise ValueError(
                f"model.audio_stem=frames1d needs subsampling=2 and sees later frames, found subsampling={self.subsampling} and "
                f"attention={self.attention}; set model.subsampling=2 and no chunks"
            )
        if self.n_features is None:
            return
        for name in ("source_vocab_size", "d_embedding"):
            if getattr(self, name) is not None:
                raise ValueError(f"model.{name} would be ignored by model.n_features, which stand for the source's tokens; leave it out")

    @property
    def d_head(self) -> int:
        """Features of one head."""
        return self.d_kv or self.d_model // self.n_heads

    @property
    def source_length(self) -> int:
        """The longest source that learned positions know, in tokens or in frames of audio."""
        return (self.max_source_length or self.max_length) * (1 if self.n_features is None else self.subsampling)

    @property
    def of_decoder(self) -> Self:
        """The same for the decoder of a seq2seq model, without what mixes places of its encoder in a special way."""
        special = [name for names in READ_BY.values() for name in names]
        fields = type(self).model_fields
        return self.replace(**{name: fields[name].default for name in ("mixer", "attention", *special)})

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_heads or self.n_heads

    @property
    def decoder_layers(self) -> int:
        """Blocks of the decoder of a seq2seq model."""
        return self.n_decoder_layers or self.n_layers


def of_chosen_kinds(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of some settings of a model those that the kinds they choose would ignore."""
    kept = dict(settings)
    for (field, kinds), names in READ_BY.items():
        if settings.get(field, ModelConfig.model_fields[field].default) not in kinds:
            kept = {name: value for name, value in kept.items() if name not in names}
    return kept


def _said(value: str | bool) -> str:
    """Write a value as YAML does."""
    return str(value).lower()
