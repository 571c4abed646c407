"""Tensors only: attention, positions, blocks, models and losses. Sees no text, files or devices."""

from heed.model.attention import Attention, attend, attention_weights, causal_mask, padding_mask, record_attention, same_text_mask
from heed.model.block import Block, FeedForward, Stack
from heed.model.cache import DecoderState, KVCache
from heed.model.config import ModelConfig
from heed.model.conformer import ConformerBlock
from heed.model.describe import count_parameters, layer_table, mermaid
from heed.model.losses import cross_entropy, ctc_loss, vocabulary_loss
from heed.model.models import Causal, Encoder, Model, Seq2Seq, build_model
from heed.model.positions import sinusoid_table
from heed.model.stems import AudioStem, TokenStem
from heed.model.streaming import EncoderStream

__all__ = [
    "Attention",
    "AudioStem",
    "Block",
    "Causal",
    "ConformerBlock",
    "DecoderState",
    "Encoder",
    "EncoderStream",
    "FeedForward",
    "KVCache",
    "Model",
    "ModelConfig",
    "Seq2Seq",
    "Stack",
    "TokenStem",
    "attend",
    "attention_weights",
    "build_model",
    "causal_mask",
    "count_parameters",
    "cross_entropy",
    "ctc_loss",
    "layer_table",
    "mermaid",
    "padding_mask",
    "record_attention",
    "same_text_mask",
    "sinusoid_table",
    "vocabulary_loss",
]
