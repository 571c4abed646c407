"""ModelConfig: the few settings that turn one block into every member of the family."""

from typing import Literal, Self

from pydantic import Field, model_validator

from heed.config import Settings


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
    positions: Literal["sinusoidal", "learned", "rotary", "relative", "none"] = Field(default="rotary", description="how order is known")
    max_length: int = Field(default=512, ge=1, description="longest sequence; a hard limit for learned positions")
    scaled: bool = Field(default=True, description="divide attention scores by sqrt(d_head)")
    bias: bool = Field(default=True, description="linear maps have biases")
    tied: bool = Field(default=True, description="the output projection is the (target) embedding")
    embedding_scale: bool = Field(default=True, description="multiply embeddings by sqrt(d_model)")
    d_embedding: int | None = Field(
        default=None, ge=1, description="width of the embeddings when it is not d_model, to which a linear map then leads; set by the task"
    )
    frozen_embedding: bool = Field(default=False, description="embeddings are not trained; set by the task")
    n_features: int | None = Field(default=None, ge=1, description="features of a frame of audio, which stand for tokens; set by the task")
    subsampling: Literal[1, 2, 4, 8] = Field(
        default=4, description="frames of audio that become one place behind the stem; read where there are n_features"
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
    ctc: bool = Field(default=False, description="a head scores labels at every place of the encoder, for CTC; set by the task")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"model.n_heads={self.n_heads} does not divide model.d_model={self.d_model}; choose a divisor")
        if self.n_heads % self.kv_heads:
            raise ValueError(f"model.n_kv_heads={self.kv_heads} does not divide model.n_heads={self.n_heads}; choose a divisor")
        if self.positions == "rotary" and self.d_head % 2:
            raise ValueError(f"model.positions=rotary needs an even d_model / n_heads, found {self.d_head}; use fewer or more heads")
        if self.source_vocab_size is not None and self.architecture != "seq2seq":
            raise ValueError(f"model.source_vocab_size would be ignored by architecture={self.architecture}; leave it out")
        if self.n_decoder_layers is not None and self.architecture != "seq2seq":
            raise ValueError(f"model.n_decoder_layers would be ignored by architecture={self.architecture}; leave it out")
        self._fits_the_architecture()
        self._fits_the_mixer()
        self._fits_audio()
        if self.norm_place == "rezero" and self.norm != "layer":
            raise ValueError(f"model.norm={self.norm} would be ignored by norm_place=rezero, which has no norms; leave it out")
        return self

    def _fits_the_architecture(self) -> None:
        """Refuse what the stacks of an architecture would ignore."""
        of_encoders = {"mixer": "attention", "attention": "full", "hierarchical": False, "n_classes": None, "d_embedding": None}
        of_any_encoder = {"n_features": None, "ctc": False}
        for name, usual in (*of_encoders.items(), *of_any_encoder.items()):
            value = getattr(self, name)
            also_seq2seq = name in of_any_encoder or value in ("conformer", "chunked")
            wanted = ("encoder", "seq2seq") if also_seq2seq else ("encoder",)
            if value != usual and self.architecture not in wanted:
                raise ValueError(f"model.{name}={value} needs architecture={' or '.join(wanted)}, found {self.architecture}; leave it out")

    def _fits_the_mixer(self) -> None:
        """Refuse kinds of mixing that the other settings would ignore."""
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"model.kernel_size={self.kernel_size}: a convolution sees as many tokens on either side; choose an odd number"
            )
        if self.mixer == "lstm" and self.d_model % 2:
            raise ValueError(f"model.d_model={self.d_model}: an LSTM in two directions needs an even number")
        without_attention = self.mixer in ("convolution", "lstm")
        if without_attention and self.weight_rank is not None:
            raise ValueError(f"model.weight_rank={self.weight_rank} would be ignored by mixer={self.mixer}; leave it out")
        if without_attention and (self.attention != "full" or self.adaptive):
            raise ValueError(f"model.attention and model.adaptive would be ignored by mixer={self.mixer}, which has none; leave them out")
        if self.attention != "full" and self.positions == "relative":
            raise ValueError(f"model.positions=relative needs attention=full, found {self.attention}; choose rotary")
        if self.attention == "chunked" and self.mixer not in ("attention", "conformer"):
            raise ValueError(f"model.attention=chunked needs mixer=attention or conformer, found {self.mixer}, which sees beyond its chunk")
        if self.mixer == "conformer" and self.norm_place != "before":
            raise ValueError(f"model.norm_place={self.norm_place}: mixer=conformer needs before; leave it out")

    def _fits_audio(self) -> None:
        """Refuse what a stem for audio, or a head at every place, would ignore."""
        if self.hierarchical and (self.n_features is not None or self.ctc):
            raise ValueError("model.hierarchical is for sentences of tokens, found model.n_features or model.ctc; leave it out")
        if self.n_features is None:
            return
        for name in ("source_vocab_size", "d_embedding"):
            if getattr(self, name) is not None:
                raise ValueError(f"model.{name} would be ignored by model.n_features, which stand for the source's tokens; leave it out")

    @property
    def d_head(self) -> int:
        """Features of one head."""
        return self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_heads or self.n_heads

    @property
    def decoder_layers(self) -> int:
        """Blocks of the decoder of a seq2seq model."""
        return self.n_decoder_layers or self.n_layers
