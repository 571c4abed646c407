"""BERT, RoBERTa and DistilBERT: encoders with norms behind, whose embeddings are normalised, with all their heads."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from heed.convert.family import Family, Groups, foreign_ids, label_settings, labels_of, rows_of
from heed.convert.folder import Folder, Settings
from heed.convert.gpt2 import ACTIVATIONS, ROBERTA_TOKENS, THEIR_ACTIVATIONS, bytes_pipeline
from heed.convert.table import Entry, entry, layer
from heed.convert.tokens import Builder, Pipeline, Tokens
from heed.data.foreign import Frame
from heed.data.labels import Labels
from heed.errors import ConfigError
from heed.model.config import ModelConfig
from heed.run import RunConfig
from heed.tasks import Task, find_task

SEVERAL = "multi_label_classification"
ONE = "single_label_classification"
BERT_TOKENS = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
QUESTION = "question_answering"
OVERLAPS = {QUESTION: 128, "tagging": 32, "text_classification": 32}  # tokens that windows share, less where few fit


def word_pieces(folder: Folder) -> Pipeline | None:
    """Return the pipeline of vocab.txt: words and pieces of them (Wu et al. 2016, as in Devlin et al. 2019)."""
    if not folder.has("vocab.txt"):
        return None
    lines = folder.lines("vocab.txt")
    vocab = {line.rstrip("\r"): i for i, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    says, accents = folder.tokenizer_settings, folder.tokenizer_settings.get("strip_accents")
    backend = Backend(models.WordPiece(vocab, unk_token=BERT_TOKENS["unk_token"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(says.get("tokenize_chinese_chars", True)),
        strip_accents=None if accents is None else bool(accents),
        lowercase=bool(says.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    begin, end = BERT_TOKENS["cls_token"], BERT_TOKENS["sep_token"]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in BERT_TOKENS.values() if token in vocab])
    if begin in vocab and end in vocab:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} $B:1 {end}:1",
            special_tokens=[(begin, vocab[begin]), (end, vocab[end])],
        )
    content: Pipeline = json.loads(backend.to_str())
    return content


class Bert(Family):
    """BERT (Devlin et al. 2019), sentence encoders made of it among them.

    Class attributes:
        special_tokens: their usual texts, by role.
        separators: end tokens between two texts.
        embeddings, block: heed's modules -> theirs, behind the prefix.
        layers: what stands before the number of a block.
        masked, classes_head, tags, spans: the same for the heads, without prefix.
    """

    model_type: ClassVar[str] = "bert"
    classes: ClassVar[Mapping[str, str]] = {
        "BertForMaskedLM": "masked_lm",
        "BertForPreTraining": "masked_lm",
        "BertForSequenceClassification": "text_classification",
        "BertForTokenClassification": "tagging",
        "BertForQuestionAnswering": QUESTION,
        "BertModel": "sentence_similarity",
    }
    prefix: ClassVar[str] = "bert."
    bare: ClassVar[frozenset[str]] = frozenset({"BertModel"})
    buffers: ClassVar[tuple[str, ...]] = ("embeddings.position_ids", "embeddings.token_type_ids")
    builders: ClassVar[tuple[Builder, ...]] = (word_pieces,)
    special_tokens: ClassVar[Mapping[str, str]] = BERT_TOKENS
    separators: ClassVar[int] = 1
    layers: ClassVar[str] = "encoder.layer"
    block: ClassVar[Mapping[str, str]] = {
        "attention.query": "attention.self.query",
        "attention.key": "attention.self.key",
        "attention.value": "attention.self.value",
        "attention.output": "attention.output.dense",
        "attention_residual.norm": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_residual.norm": "output.LayerNorm",
    }
    masked: ClassVar[Mapping[str, str]] = {
        "masked_head.transform": "cls.predictions.transform.dense",
        "masked_head.norm": "cls.predictions.transform.LayerNorm",
    }
    masked_bias: ClassVar[str] = "cls.predictions.bias"
    masked_product: ClassVar[str] = "cls.predictions.decoder"  # the embedding and the bias again
    classes_head: ClassVar[Mapping[str, str]] = {"head.hidden": "bert.pooler.dense", "head.scores": "classifier"}
    class_hidden: ClassVar[str] = "tanh"

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json."""
        theirs.only("position_embedding_type", "absolute")
        theirs.only("is_decoder", False)
        theirs.only("add_cross_attention", False)
        first = self.first_position(theirs)
        places = theirs.whole("max_position_embeddings", 512) - first
        model = {
            "architecture": "encoder",
            "d_model": theirs.whole("hidden_size", 768),
            "n_heads": theirs.whole("num_attention_heads", 12),
            "n_layers": theirs.whole("num_hidden_layers", 12),
            "d_ff": theirs.whole("intermediate_size", 3072),
            "dropout": theirs.number("hidden_dropout_prob", 0.1),
            "activation": theirs.one_of("hidden_act", ACTIVATIONS, "gelu"),
            "norm_epsilon": theirs.number("layer_norm_eps", 1e-12),
            "n_segments": self.n_segments(theirs),
            "first_position": first,
            "max_length": places,
        }
        return self._groups(theirs, kind, model)

    def first_position(self, theirs: Settings) -> int:
        """Return the row of the learned positions for the first token."""
        return 0

    def n_segments(self, theirs: Settings) -> int | None:
        """Return how many parts of a text have a vector of their own."""
        return theirs.whole("type_vocab_size", 2)

    def _groups(self, theirs: Settings, kind: str, model: dict[str, Any]) -> Groups:
        """Return the groups of settings, with what all models of this file have in common."""
        task = self.classes[kind]
        model |= {"norm_place": "after", "positions": "learned", "embedding_scale": False, "embedding_norm": True}
        theirs.only("tie_word_embeddings", True)
        around = 0 if find_task(task).counts_framing else 1 + self.separators
        groups: Groups = {"model": model, "data": {"max_length": model["max_length"] - around}}
        if task in OVERLAPS:
            groups["task"] = {"overlap": min(OVERLAPS[task], model["max_length"] // 4)}
        if task == "text_classification":
            model |= {"pooling": "first", "class_hidden": self.class_hidden}
            theirs.only("problem_type", ONE, SEVERAL, why="heed has no regression on texts")
            several = theirs.get("problem_type", ONE) == SEVERAL
            if not several and len(labels_of(theirs)) == 1:
                raise ConfigError(
                    f"{theirs.where}: a single label, expected two or more: transformers computes a number with such a head, no class, and "
                    "heed has no regression on texts; start from the body alone with --task sentence_similarity"
                )
            groups["task"] |= {"multi_label": several}
        return groups

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        model = config.model
        return {
            "hidden_size": model.d_model,
            "num_attention_heads": model.n_heads,
            "num_hidden_layers": model.n_layers,
            "intermediate_size": model.d_ff,
            "hidden_act": THEIR_ACTIVATIONS[model.activation],
            "hidden_dropout_prob": model.dropout,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": model.max_length + model.first_position,
            "type_vocab_size": model.n_segments or 1,
            "layer_norm_eps": model.norm_epsilon,
            "position_embedding_type": "absolute",
            **self._common(task),
        }

    def _common(self, task: Task) -> dict[str, Any]:
        """Return what config.json says of the vocabulary and of labels."""
        ids, labels = foreign_ids(task), task.parts.get("labels")
        said: dict[str, Any] = {"vocab_size": ids["size"], "pad_token_id": ids["pad"], "tie_word_embeddings": True}
        if isinstance(labels, Labels):
            said |= label_settings(labels.labels)
        if task.name == "text_classification":
            said["problem_type"] = SEVERAL if getattr(task.config, "multi_label", False) else ONE
        return said

    def entries(self, model: ModelConfig, task: Task, kind: str) -> list[Entry]:
        """Return the table of names."""
        rows = rows_of(task)
        masked = self.classes[kind] == "masked_lm"
        again = (f"{self.masked_product}.weight",) if masked else ()
        table = [
            entry("stem.embedding.weight", f"{self.prefix}embeddings.word_embeddings.weight", rows, copies=again),
            entry("stem.positions.embedding.weight", f"{self.prefix}embeddings.position_embeddings.weight"),
            *layer("stem.norm", f"{self.prefix}embeddings.LayerNorm"),
        ]
        if model.n_segments is not None:
            table.append(entry("stem.segments.weight", f"{self.prefix}embeddings.token_type_embeddings.weight"))
        for i in range(model.n_layers):
            for ours, theirs in self.block.items():
                table += layer(f"stack.blocks.{i}.{ours}", f"{self.prefix}{self.layers}.{i}.{theirs}")
        if masked:
            table.append(entry("masked_head.bias", self.masked_bias, rows, copies=(f"{self.masked_product}.bias",)))
        return table + [line for ours, theirs in self._head(kind).items() for line in layer(ours, theirs)]

    def _head(self, kind: str) -> Mapping[str, str]:
        """Return the linear maps and norms of a class's head."""
        heads: dict[str, Mapping[str, str]] = {
            "masked_lm": self.masked,
            "text_classification": self.classes_head,
            "tagging": {"tag_head.scores": "classifier"},
            QUESTION: {"tag_head.scores": "qa_outputs"},
        }
        return heads.get(self.classes[kind], {})

    def specials(self, theirs: Settings, tokens: Tokens) -> tuple[list[int | None], Frame]:
        """Return the ids of special tokens: a text stands between begin and end."""
        usual = self.special_tokens
        ids: list[int | None] = [tokens.needed(role, usual[role]) for role in ("pad_token", "cls_token", "sep_token", "unk_token")]
        mask = tokens.id_of("mask_token", usual["mask_token"])
        return ids, Frame(ends_texts=True, separators=self.separators, mask=mask)


class Roberta(Bert):
    """RoBERTa (Liu et al. 2019): BERT with byte-level sub-words and no segments, whose first token stands at position 2."""

    model_type: ClassVar[str] = "roberta"
    classes: ClassVar[Mapping[str, str]] = {
        "RobertaForMaskedLM": "masked_lm",
        "RobertaForSequenceClassification": "text_classification",
        "RobertaForTokenClassification": "tagging",
        "RobertaForQuestionAnswering": QUESTION,
        "RobertaModel": "sentence_similarity",
    }
    prefix: ClassVar[str] = "roberta."
    bare: ClassVar[frozenset[str]] = frozenset({"RobertaModel"})
    builders: ClassVar[tuple[Builder, ...]] = (bytes_pipeline,)
    special_tokens: ClassVar[Mapping[str, str]] = ROBERTA_TOKENS
    separators: ClassVar[int] = 2
    masked: ClassVar[Mapping[str, str]] = {"masked_head.transform": "lm_head.dense", "masked_head.norm": "lm_head.layer_norm"}
    masked_bias: ClassVar[str] = "lm_head.bias"
    masked_product: ClassVar[str] = "lm_head.decoder"
    classes_head: ClassVar[Mapping[str, str]] = {"head.hidden": "classifier.dense", "head.scores": "classifier.out_proj"}

    def first_position(self, theirs: Settings) -> int:
        """Return the row of the learned positions for the first token: behind that of padding."""
        return theirs.whole("pad_token_id", 1) + 1

    def n_segments(self, theirs: Settings) -> int:
        """Return 1: its tokenizer tells no parts of a text apart."""
        theirs.only("type_vocab_size", 1, why="its tokenizer tells no parts of a text apart")
        return theirs.whole("type_vocab_size", 1)

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        ids = foreign_ids(task)
        return {**super().config(config, task, kind), "bos_token_id": ids["begin"], "eos_token_id": ids["end"]}


class DistilBert(Bert):
    """DistilBERT (Sanh et al. 2019): BERT without segments, under names of its own."""

    model_type: ClassVar[str] = "distilbert"
    classes: ClassVar[Mapping[str, str]] = {
        "DistilBertForMaskedLM": "masked_lm",
        "DistilBertForSequenceClassification": "text_classification",
        "DistilBertForTokenClassification": "tagging",
        "DistilBertForQuestionAnswering": QUESTION,
        "DistilBertModel": "sentence_similarity",
    }
    prefix: ClassVar[str] = "distilbert."
    bare: ClassVar[frozenset[str]] = frozenset({"DistilBertModel"})
    layers: ClassVar[str] = "transformer.layer"
    block: ClassVar[Mapping[str, str]] = {
        "attention.query": "attention.q_lin",
        "attention.key": "attention.k_lin",
        "attention.value": "attention.v_lin",
        "attention.output": "attention.out_lin",
        "attention_residual.norm": "sa_layer_norm",
        "feed_forward.up": "ffn.lin1",
        "feed_forward.down": "ffn.lin2",
        "feed_forward_residual.norm": "output_layer_norm",
    }
    masked: ClassVar[Mapping[str, str]] = {"masked_head.transform": "vocab_transform", "masked_head.norm": "vocab_layer_norm"}
    masked_bias: ClassVar[str] = "vocab_projector.bias"
    masked_product: ClassVar[str] = "vocab_projector"
    classes_head: ClassVar[Mapping[str, str]] = {"head.hidden": "pre_classifier", "head.scores": "classifier"}
    class_hidden: ClassVar[str] = "relu"

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json."""
        model = {
            "architecture": "encoder",
            "d_model": theirs.whole("dim", 768),
            "n_heads": theirs.whole("n_heads", 12),
            "n_layers": theirs.whole("n_layers", 6),
            "d_ff": theirs.whole("hidden_dim", 3072),
            "dropout": theirs.number("dropout", 0.1),
            "activation": theirs.one_of("activation", ACTIVATIONS, "gelu"),
            "norm_epsilon": 1e-12,
            "max_length": theirs.whole("max_position_embeddings", 512),
        }
        return self._groups(theirs, kind, model)

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        model = config.model
        return {
            "dim": model.d_model,
            "n_heads": model.n_heads,
            "n_layers": model.n_layers,
            "hidden_dim": model.d_ff,
            "activation": THEIR_ACTIVATIONS[model.activation],
            "dropout": model.dropout,
            "seq_classif_dropout": model.dropout,
            "qa_dropout": model.dropout,
            "attention_dropout": 0.0,
            "max_position_embeddings": model.max_length,
            "sinusoidal_pos_embds": False,
            **self._common(task),
        }
