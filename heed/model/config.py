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
        if self.norm_place == "rezero" and self.norm != "layer":
            raise ValueError(f"model.norm={self.norm} would be ignored by norm_place=rezero, which has no norms; leave it out")
        return self

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
