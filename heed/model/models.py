"""The three thin models: a stem, one or two stacks of the same block, and a head; and `build_model`, which picks one.

`Seq2Seq` and `Causal` share the decoding seam: `start` reads what is known, `step` adds one token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.errors import ConfigError
from heed.model.baselines import BaselineStack, build_stack
from heed.model.block import Stack
from heed.model.cache import DecoderState
from heed.model.config import ModelConfig
from heed.model.heads import ClassHead, LabelHead, MaskedHead, Pooling, TagHead, VocabularyHead
from heed.model.ngrams import NGramScores
from heed.model.stems import END, AudioStem, TokenStem, build_audio_stem, build_positions


def required_size(size: int | None, name: str) -> int:
    """Return a size the task should have filled in; raises ConfigError when it did not."""
    if size is None:
        raise ConfigError(f"model.{name} is not set; the task derives it from the data, or give it a number")
    return size


class Reader(nn.Module):
    """What models share that read a whole source with an encoder: ids (B, S), or frames of audio (B, T, F), of which S places are left.

    With model.ctc it has a head that scores labels at every place.
    """

    config: ModelConfig
    ctc_head: LabelHead | None

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read the source, ids (B, S) or frames (B, T, F), with its mask (B, S) or (B, T), True = real -> memory (B, S, D)."""
        raise NotImplementedError

    def memory_mask(self, mask: Tensor) -> Tensor:
        """Return which places of the memory are real, (B, S): for audio fewer than frames (B, T), which `mask` is of."""
        raise NotImplementedError

    def labels(self, memory: Tensor) -> Tensor:
        """Score labels at every place: memory (B, S, D) -> logits (B, S, V), for `ctc_loss`."""
        if self.ctc_head is None:
            raise ConfigError("model.ctc is not set, so that the model scores no labels at its places; train with model.ctc=true")
        logits: Tensor = self.ctc_head(memory)
        return logits

    def label_logits(self, inputs: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read the source and score labels at every place; returns logits (B, S, V) and which places are real (B, S)."""
        logits = self.labels(self.encode(inputs, mask))
        return logits, _all_real(logits) if mask is None else self.memory_mask(mask)


def build_label_head(config: ModelConfig) -> LabelHead | None:
    """Return the head of model.ctc, if there is one."""
    return LabelHead(config.d_model, required_size(config.vocab_size, "vocab_size")) if config.ctc else None


def build_n_grams(config: ModelConfig) -> NGramScores | None:
    """Return what scores the n-grams of texts for model.n_grams, if that is set and there are classes to score."""
    if not config.n_grams or config.n_classes is None:
        return None
    return NGramScores(config.n_grams, config.n_classes, config.n_gram_rows, config.dropout)


def build_vocabulary_head(config: ModelConfig, vocab_size: int, stem: TokenStem) -> VocabularyHead:
    """Return what scores the words of a vocabulary behind a decoder, whose stem has their embeddings."""
    tied = stem.embedding if config.tied else None
    return VocabularyHead(config.d_model, vocab_size, tied, bias=config.head_bias, absent=config.absent_ids)


def for_head(hidden: Tensor, config: ModelConfig) -> Tensor:
    """Return what the vocabulary head reads of a stack's vectors (..., D); model.scaled_head is T5's (Raffel et al. 2020)."""
    return hidden * config.d_model**-0.5 if config.scaled_head else hidden


def enter(stem: TokenStem | AudioStem, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return what a stack is given of a source: vectors (B, S, D) and their mask (B, S)."""
    if isinstance(stem, TokenStem):
        return stem(inputs), mask
    return stem(inputs, mask), None if mask is None else stem.shortened(mask)


def _all_real(x: Tensor) -> Tensor:
    """Return a mask (B, S) for x (B, S, ...) without padding."""
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


class Encoder(Reader):
    """Tokens in, one vector per token out; every token sees all others (BERT, ViT and the left half of the 2017 Transformer).

    With model.n_features, frames of audio stand for tokens. With model.n_classes it has a head that judges whole texts, with model.n_tags
    one that judges every token, and with model.masked_lm one that foretells hidden tokens.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stem: TokenStem | AudioStem
        if config.n_features is None:
            self.stem = TokenStem(config, required_size(config.vocab_size, "vocab_size"))
        else:
            self.stem = build_audio_stem(config, config.n_features)
        self.stack = build_stack(config, config.n_layers)
        self.pooling = None if config.n_classes is None else Pooling(config.d_model, config.pooling)
        self.head = None if config.n_classes is None else ClassHead(config, config.n_classes)
        self.n_grams = build_n_grams(config)
        self.ctc_head = build_label_head(config)
        self.tag_head = None if config.n_tags is None else TagHead(config, config.n_tags)
        self.masked_head = MaskedHead(config, self.stem.embedding) if config.masked_lm and isinstance(self.stem, TokenStem) else None
        initialise(self, config)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode ids (B, S) with their mask (B, S), or frames (B, T, F) with theirs (B, T), True = real; returns (B, S, D)."""
        encoded: Tensor = self.stack(*enter(self.stem, inputs, mask))
        return encoded

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Do what `forward` does, under the name it has in `Seq2Seq`."""
        memory: Tensor = self(inputs, mask)
        return memory

    def memory_mask(self, mask: Tensor) -> Tensor:
        """Return which places of the memory are real, (B, S)."""
        return self.stem.shortened(mask) if isinstance(self.stem, AudioStem) else mask

    def classify(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Judge texts given as ids (B, S), or frames (B, T, F), with their mask, True = real; returns logits (B, C).

        They are those of the network: what `n_grams` say of whole texts stands beside them.
        """
        return self._judged(self(inputs, mask), None if mask is None else self.memory_mask(mask))

    def tag_logits(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Judge every token of ids (B, S), or place of frames (B, T, F), with their mask, True = real; returns logits (B, S, C)."""
        if self.tag_head is None:
            raise ConfigError("model.n_tags is not set; the task derives it from the data, or give it a number")
        logits: Tensor = self.tag_head(self(inputs, mask))
        return logits

    def word_logits(self, inputs: Tensor, mask: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        """Score the words that may stand at each place of ids (B, S) with their mask (B, S), True = real.

        Args:
            places: (B, S), True where words are asked for, N places in all; None means everywhere.
        Returns:
            logits (B, S, V), or (N, V) of the chosen places.
        """
        if self.masked_head is None:
            raise ConfigError("model.masked_lm is not set, so that the model foretells no words; train with model.masked_lm=true")
        x = self(inputs, mask)
        logits: Tensor = self.masked_head(x if places is None else x[places])
        return logits

    def _judged(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.pooling is None or self.head is None:
            raise ConfigError("model.n_classes is not set; the task derives it from the data, or give it a number")
        logits: Tensor = self.head(self.pooling(x, mask))
        return logits


class HierarchicalEncoder(Encoder):
    """Words see each other inside their sentence, then sentences inside their text (Yang et al. 2016, with attention as the encoder).

    Sentences of n_s words cost the sum of n_s squared, and s sentences s squared. END marks where a sentence ends.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.sentence_pooling = Pooling(config.d_model, "attention")
        self.positions = build_positions(config)  # of sentences in their text
        self.document = build_stack(config, config.n_document_layers)
        initialise(self, config)

    def classify(self, inputs: Tensor, mask: Tensor | None = None, *, at_once: int | None = None) -> Tensor:
        """Judge texts given as ids (B, S) with their mask (B, S), True = real; returns logits (B, C).

        Args:
            at_once: tokens of sentences that are read together, where memory would not hold those of all; None for all.
        """
        sentences, words, n_sentences = by_sentence(inputs, mask)
        n_together = len(sentences) if at_once is None else max(1, at_once // sentences.size(1))
        parts = zip(torch.split(sentences, n_together), torch.split(words, n_together), strict=True)
        pooled = torch.cat([self.sentence_pooling(self(ids, real), real) for ids, real in parts])  # (N, D)
        whole = torch.arange(int(n_sentences.max()), device=inputs.device) < n_sentences[:, None]  # (B, M)
        texts = pooled.new_zeros(*whole.shape, pooled.size(-1)).masked_scatter(whole[..., None], pooled)
        texts = texts if self.positions is None else self.positions(texts)
        return self._judged(self.document(texts, whole), whole)


def by_sentence(inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the sentences of texts below each other.

    Args:
        inputs: ids (B, S), in which END is the last of a sentence; mask: (B, S), True = real.
    Returns:
        the sentences (N, L), their mask (N, L), and how many each text has (B,), at least 1.
    """
    real = torch.ones_like(inputs, dtype=torch.bool) if mask is None else mask
    ends = (inputs == END) & real
    before = ends.cumsum(-1) - ends.long()  # ended sentences before each token
    n_sentences = F.pad(torch.where(real, before + 1, 1), (0, 1), value=1).amax(-1)
    first = n_sentences.cumsum(0) - n_sentences
    lengths = torch.bincount((first[:, None] + before)[real], minlength=int(n_sentences.sum()))
    words = torch.arange(max(1, int(lengths.max())), device=inputs.device) < lengths[:, None]
    return inputs.new_zeros(words.shape).masked_scatter(words, inputs[real]), words, n_sentences


class Causal(nn.Module):
    """Tokens in, scores of the next token out; no token sees a later one (GPT, Llama)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        vocab_size = required_size(config.vocab_size, "vocab_size")
        self.stem = TokenStem(config, vocab_size)
        self.stack = Stack(config, config.n_layers, causal=True)
        self.head = build_vocabulary_head(config, vocab_size, self.stem)
        initialise(self, config)

    def hidden(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors the head reads: ids (B, T) -> (B, T, D)."""
        positions = None if mask is None else places(mask)
        return for_head(self.stack(self.stem(inputs, 0, positions), mask, positions=positions), self.config)

    def hidden_of_texts(self, inputs: Tensor, places: Tensor) -> Tensor:
        """Do what `hidden` does where several texts stand behind one another in a row, none of which sees another.

        Args:
            inputs: ids (B, T).
            places: (B, T), the place of each token in its text: 0 where one begins, and for padding.
        """
        texts = (places == 0).cumsum(-1)
        return for_head(self.stack(self.stem(inputs, 0, places), positions=places, texts=texts), self.config)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score the token after each of inputs (B, T); returns logits (B, T, V)."""
        logits: Tensor = self.head(self.hidden(inputs, mask))
        return logits

    def start(self, inputs: Tensor | None, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        """Read all of the prefix but its last token.

        Args:
            inputs: not used by this model; None.
            mask: (B, P), True = real, when prefixes of unequal length are padded on the left; None means all real.
            prefix: (B, P), P >= 1.
        """
        state = DecoderState(self.stack.new_caches(), prefix_mask=mask)
        if prefix.size(1) > 1:
            self._read(prefix[:, :-1], state)
        return state

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Add one token per row (R,) and score the next: (R, V)."""
        hidden = self._read(tokens[:, None], state)
        logits: Tensor = self.head(hidden[:, -1])
        return logits

    def _read(self, ids: Tensor, state: DecoderState) -> Tensor:
        first, state.length = state.length, state.length + ids.size(1)
        mask = _mask_so_far(state)
        if mask is None:
            return for_head(self.stack(self.stem(ids, first), caches=state.layers), self.config)
        positions = places(mask)[:, first : state.length]
        hidden: Tensor = self.stack(self.stem(ids, first, positions), mask, positions=positions, caches=state.layers)
        return for_head(hidden, self.config)


class Seq2Seq(Reader):
    """An encoder reads the source; a causal decoder that looks at it writes the target (Vaswani et al. 2017, T5, Marian).

    With model.n_features the source is frames of audio. What mixes places in a special way does so in the encoder alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        vocab_size = required_size(config.vocab_size, "vocab_size")
        self.target_stem = TokenStem(config, vocab_size)
        self.source_stem: TokenStem | AudioStem = self.target_stem
        if config.n_features is not None:
            self.source_stem = build_audio_stem(config, config.n_features)
        elif config.source_vocab_size is not None:
            self.source_stem = TokenStem(config, config.source_vocab_size, of_source=True)
        self.encoder: Stack | BaselineStack = build_stack(config, config.n_layers)
        self.decoder = Stack(config.of_decoder, config.decoder_layers, causal=True, cross=True)
        self.head = build_vocabulary_head(config, vocab_size, self.target_stem)
        self.ctc_head = build_label_head(config)
        initialise(self, config)

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read the source, ids (B, S) or frames (B, T, F), with its mask (B, S) or (B, T), True = real -> memory (B, S, D)."""
        memory: Tensor = self.encoder(*enter(self.source_stem, inputs, mask))
        return memory

    def memory_mask(self, mask: Tensor) -> Tensor:
        """Return which places of the memory are real, (B, S)."""
        return self.source_stem.shortened(mask) if isinstance(self.source_stem, AudioStem) else mask

    def decoded(self, memory: Tensor, memory_mask: Tensor | None, target: Tensor) -> Tensor:
        """Return the vectors the head reads: memory (B, S, D), its mask (B, S), and target (B, L), padded on the right -> (B, L, D)."""
        return for_head(self.decoder(self.target_stem(target), None, memory, memory_mask), self.config)

    def hidden(self, inputs: Tensor, mask: Tensor | None, target: Tensor) -> Tensor:
        """Return the vectors the head reads: source (B, S) and target (B, T), padded on the right -> (B, T, D)."""
        return self.decoded(self.encode(inputs, mask), None if mask is None else self.memory_mask(mask), target)

    def forward(self, inputs: Tensor, mask: Tensor | None, target: Tensor) -> Tensor:
        """Score the token after each of target (B, T), given the source (B, S); returns logits (B, T, V)."""
        logits: Tensor = self.head(self.hidden(inputs, mask, target))
        return logits

    def start(self, inputs: Tensor, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        """Read the source, (B, S) or (B, T, F), and all of the prefix (B, P), P >= 1, but its last token."""
        return self.start_from(self.encode(inputs, mask), None if mask is None else self.memory_mask(mask), prefix)

    def start_from(self, memory: Tensor, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        """Do what `start` does behind an encoder that has read: memory (B, S, D) with its mask (B, S)."""
        whole = mask is None or (mask.device.type == "cpu" and bool(mask.all()))  # on a GPU the answer would have to be waited for
        mask = _all_real(memory) if mask is None else mask
        state = DecoderState(self.decoder.new_caches(memory), source_mask=mask, whole=whole)
        if prefix.size(1) > 1:
            self._read(prefix[:, :-1], state)
        return state

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Add one token per row (R,) and score the next: (R, V)."""
        hidden = self._read(tokens[:, None], state)
        logits: Tensor = self.head(hidden[:, -1])
        return logits

    def _read(self, ids: Tensor, state: DecoderState) -> Tensor:
        first, state.length = state.length, state.length + ids.size(1)
        x = self.target_stem(ids, first)
        return for_head(self.decoder(x, None, None, None if state.whole else state.source_mask, caches=state.layers), self.config)


Model = Encoder | Causal | Seq2Seq


def build_model(config: ModelConfig) -> Model:
    """Build the model a config describes, with fresh weights drawn from torch's generator."""
    _refuse_what_data_leaves_idle(config)
    kinds: dict[str, type[Model]] = {"encoder": Encoder, "causal": Causal, "seq2seq": Seq2Seq}
    return HierarchicalEncoder(config) if config.hierarchical else kinds[config.architecture](config)


def _refuse_what_data_leaves_idle(config: ModelConfig) -> None:
    """Raise ConfigError for settings that the sizes a task has set leave without effect."""
    reads_tokens = config.n_features is None
    if reads_tokens and config.audio_stem != "frames2d":
        raise ConfigError(f"model.audio_stem={config.audio_stem} would be ignored by a model that reads tokens; leave it out")
    if reads_tokens and config.source_vocab_size is None and config.max_source_length is not None:
        raise ConfigError(
            "model.max_source_length would be ignored, because source and target share one vocabulary and its positions; leave it out"
        )


def places(mask: Tensor) -> Tensor:
    """Number the real tokens of each row from 0: (B, T) bool -> (B, T); padding gets 0 or its neighbour's number."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def _mask_so_far(state: DecoderState) -> Tensor | None:
    """Return the mask (R, state.length) over padded prefixes and the tokens generated since; None when nothing is padded."""
    if state.prefix_mask is None:
        return None
    mask = state.prefix_mask[:, : state.length]
    grown = mask.new_ones(mask.size(0), state.length - mask.size(1))
    return torch.cat([mask, grown], dim=1)


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Draw fresh weights: Xavier-uniform matrices, zero biases, embeddings of variance 1/d_model (1 after the sqrt(d) scale)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=config.d_model**-0.5)
            if module.padding_idx is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()
