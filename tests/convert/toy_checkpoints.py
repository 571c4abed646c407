"""Tiny models with random weights as transformers saves them, with tiny tokenizers made in the test, and what they are compared by."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import BertTokenizer, PreTrainedModel, PreTrainedTokenizerFast

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A quick answer is not always the right one, said the fox.",
    "Über allen Gipfeln ist Ruh; 42 dogs (or 43?) don't bark.",
    "the dog, the fox and the brown bear: a tale of three animals",
    "好的，我们走吧。 狐狸 jumps!",
]
AWKWARD = ["", " ", "fox", " fox", "the  dog\n\tjumps ", "naïve ÜBER 42%", "狐狸跳 🙂 ok", "can't <b>bold</b> 'n' quick", "x" * 40]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_piece_tokenizer() -> BertTokenizer:
    """Return BERT's tokenizer with a tiny vocabulary; its special tokens have other ids than heed's."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=97, special_tokens=BERT_SPECIALS, show_progress=False))
    return BertTokenizer(vocab=backend.get_vocab())


def byte_level_backend(specials: Sequence[str], vocab_size: int = 291) -> Tokenizer:
    """Return byte-level sub-words behind special tokens, which come first."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=list(specials), show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like GPT-2's: one special token, behind all others, and none before a text."""
    backend = byte_level_backend([])
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, unk_token=end)


def roberta_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like RoBERTa's."""
    backend = byte_level_backend(["<s>", "<pad>", "</s>", "<unk>"])
    backend.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
    )


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like Llama's: spaces as marks, bytes for unknown characters, a begin token before every text."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    trainer = trainers.BpeTrainer(vocab_size=371, special_tokens=["<unk>", "<s>", "</s>", *fallback], show_progress=False)
    backend.train_from_iterator(SENTENCES[:2], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Save a model as its makers do, with weights of some size, so that a wrong place shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder, from one file or several."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Return the names of tensors that are not bit for bit equal, or that one side lacks."""
    names = found.keys() | expected.keys()
    return sorted(name for name in names if name not in found or name not in expected or not torch.equal(found[name], expected[name]))


def load(kind: str, folder: Path) -> Any:
    """Return what transformers makes of a folder, in the class of this name; every weight has to be there."""
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    return model.eval()


def texts_of(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> list[list[int]]:
    """Return the ids of texts as transformers gives them, without special tokens."""
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
