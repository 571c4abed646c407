"""How training texts are changed before they are read: words left out, swapped, and replaced by the synonyms of a file."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from heed.data.augment import Augmenter, read_synonyms
from heed.data.foreign import ForeignTokenizer
from heed.data.text import Tokenizer, is_spaceless
from heed.data.words import Preparation, Words
from heed.tasks.text_settings import TextClassificationSettings

AnyTokenizer = Tokenizer | Words | ForeignTokenizer


def changes_texts(config: TextClassificationSettings) -> bool:
    """Return whether settings ask for any change of training texts."""
    return bool(config.drop_words or config.swap_words or config.synonyms)


def text_augmenter(config: TextClassificationSettings, tokenizer: AnyTokenizer, preparation: Preparation) -> Augmenter:
    """Return what changes texts as settings say; raises DataError where the file of synonyms is not there, or holds none."""
    synonyms = [] if config.synonyms is None else list(_synonyms(config, tokenizer, preparation))
    replace = config.replace_words if synonyms else 0.0
    return Augmenter(tokenizer.word_starts, synonyms, config.drop_words, config.swap_words, replace)


def changed_text(ids: Tensor, draw: np.random.Generator, augmenter: Augmenter) -> Tensor:
    """Return a changed copy of the ids (S,) of an example, whose ends between two texts and behind sentences stay: no word crosses them."""
    array = ids.numpy()
    ends = np.flatnonzero(array == Tokenizer.eos_id)
    parts = np.split(array, np.sort(np.concatenate([ends, ends + 1])))
    changed = [part if not len(part) or part[0] == Tokenizer.eos_id else augmenter(part, draw) for part in parts]
    return torch.from_numpy(np.concatenate(changed))


def _synonyms(config: TextClassificationSettings, tokenizer: AnyTokenizer, preparation: Preparation) -> Iterator[list[list[int]]]:
    """Yield the groups of synonyms as ids, in each way in which they stand in texts."""
    for group in read_synonyms(str(config.synonyms)):
        words = [preparation(word) for word in group]
        if config.tokens == "characters":  # any run of letters may be part of a longer word, but not in Chinese
            words = [word for word in words if len(word) == 1 or is_spaceless(word)]
        forms = [tokenizer.encode_batch(words)]
        if isinstance(tokenizer, Tokenizer):
            forms.append(tokenizer.encode_inside([word for word in words if is_spaceless(word)]))
        yield from ([ids for ids in form if ids and Tokenizer.unk_id not in ids] for form in forms)
