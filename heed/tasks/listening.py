"""How speech recognition comes from posteriors to an answer: search, language models, hot words, word times, and long recordings.

A recording longer than task.piece_seconds is cut where it is quietest, and its pieces are answered one after the other; `heed.tasks.live`
says how that differs from a stream.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from heed.config import DecodeConfig
from heed.data.batch import Batch, collate
from heed.data.characters import Characters
from heed.data.feature_settings import USUAL_N_MFCC
from heed.data.features import Features
from heed.data.foreign import ForeignTokenizer
from heed.data.ngrams import Ngrams
from heed.data.spelling import Spelling
from heed.data.store import Encoded
from heed.data.text import Tokenizer, is_spaceless
from heed.data.transcripts import normalised
from heed.data.words import APART, Words
from heed.decode.ctc import BestPath, PrefixBeam, align, log_likelihood, n_needed
from heed.decode.generate import generate
from heed.decode.scorers import HotWords, ModelScorer, Scorer, SpelledScorer, TokenNgrams, WeightedScorer, WordNgrams
from heed.errors import ConfigError
from heed.model.cache import DecoderState
from heed.model.models import Encoder, Seq2Seq
from heed.tasks.base import Answer, Task

if TYPE_CHECKING:
    from heed.tasks.speech_recognition import SpeechRecognition

NEVER = (Tokenizer.pad_id, Tokenizer.bos_id, Tokenizer.unk_id)
HOPS_AT_ONCE = 1 << 13  # whose loudness is found, so that an hour needs little memory beside itself
QUIET_HOPS = 20  # over which loudness is averaged when a place to cut is looked for
PICTURE_COLUMNS = 400
PICTURE_LABELS = 12

TIME = re.compile(rb"<\|\d+\.\d\d\|>")  # how Whisper writes a time

Posteriors = NDArray[np.float32]  # (S, V) log probabilities
Transcriber = Tokenizer | Words | Spelling | ForeignTokenizer


class Heard(NamedTuple):
    """One reading of a recording: label ids and their score, higher is better."""

    ids: list[int]
    score: float


@dataclass(frozen=True)
class LanguageModel:
    """A decoder-only model of heed with its task, which knows its vocabulary."""

    task: Task
    model: Any


class Listener:
    """Answers batches of recordings with one model and one set of options."""

    def __init__(self, task: "SpeechRecognition", model: Encoder | Seq2Seq, options: DecodeConfig) -> None:
        self.task, self.model, self.options = task, model, options
        self.pieces = Pieces(task)
        self.scorers = list(_scorers(task, options, self.pieces))
        if task.config.objective == "attention" and (self.scorers or options.label_bonus):
            raise ConfigError(
                "decode.language_model, hot_words and label_bonus are added to CTC's scores, which task.objective=attention has none of; "
                "leave them out, or train with task.objective=joint"
            )

    def answers(self, batch: Batch) -> list[Answer]:
        """Answer every recording of a batch."""
        lengths = batch.mask("audio").sum(1).tolist()
        longest = self.task.longest_piece
        if max(lengths) <= longest:
            return [self._answer([self._told(one)]) for one in self._read(batch)]
        return [self._answer(list(self._in_pieces(row[:n], longest))) for row, n in zip(batch["audio"], lengths, strict=True)]

    def _in_pieces(self, hops: Tensor, longest: int) -> Iterator["Told"]:
        """Read a recording (T, hop) piece by piece, and of none keep more than what it says."""
        cuts = quiet_cuts(hops, longest)
        for begin, end in zip([0, *cuts], [*cuts, len(hops)], strict=True):
            part: Encoded = {"audio": hops[begin:end]}
            yield self._told(self._read(collate([part]).to(hops.device))[0], begin * self.task.config.hop_ms / 1000)

    def _read(self, batch: Batch) -> list["Reading"]:
        """Read recordings that are short enough to be heard at once."""
        features, mask = self.task.features(batch["audio"], batch.mask("audio"))
        seconds = [n * self.task.config.hop_ms / 1000 for n in batch.mask("audio").sum(1).tolist()]
        if self.task.config.objective == "attention":
            assert isinstance(self.model, Seq2Seq)
            written, languages = self._written(features, mask)
            return [Reading(*one) for one in zip(written, [None] * len(written), seconds, languages, strict=True)]
        logits, places = self.model.label_logits(features, mask)
        log_p = logits.float().log_softmax(-1).cpu().numpy()
        posteriors = [one[:n] for one, n in zip(log_p, places.sum(1).tolist(), strict=True)]
        found = [self._search(one) for one in posteriors]
        if isinstance(self.model, Seq2Seq):
            found = self._judged_jointly(features, mask, posteriors, found)
        return [Reading(best, one, length) for best, one, length in zip(found, posteriors, seconds, strict=True)]

    def _search(self, log_p: Posteriors) -> list[Heard]:
        """Return the likeliest label sequences of one recording, best first."""
        search = self.begun()
        search.advance(log_p)
        if isinstance(search, BestPath):
            return [Heard(search.ids, log_likelihood(log_p, search.ids))]
        return [Heard(list(one.ids), one.score) for one in search.results(self.options.beams)]

    def begun(self) -> BestPath | PrefixBeam:
        """Begin the search that the options ask for."""
        if self.options.beams == 1 and not self.scorers and not self.options.label_bonus:
            return BestPath()
        return PrefixBeam(self.options.beams, scorers=self.scorers, length_bonus=self.options.label_bonus)

    def _written(self, features: Tensor, mask: Tensor) -> tuple[list[list[Heard]], list[str | None]]:
        """Let the decoder write each recording down by beam search (or sampling); return also the languages it was told or has found."""
        assert isinstance(self.model, Seq2Seq)
        config = self.task.config
        heard = Remembered(self.model, self.model.encode(features, mask), self.model.memory_mask(mask))
        prefix, languages = self._prefix(heard)
        longest = self.model.config.max_length + 1 - prefix.size(1) if self.model.config.positions == "learned" else self.options.max_length
        limits = [min(longest, max(2, int(n))) for n in heard.places.sum(1).tolist()]  # no more labels than places
        options = self.options.replace(n_best=self.options.n_best if self.options.sampling else self.options.beams)
        never, never_first = (*NEVER, *config.suppressed), tuple(config.suppressed_first)
        end = Tokenizer.eos_id
        found = generate(heard, features, mask, prefix, end=end, options=options, limits=limits, never=never, never_first=never_first)
        return [[Heard(one.ids, one.score) for one in some] or [Heard([], 0.0)] for some in found], languages

    def _prefix(self, heard: "Remembered") -> tuple[Tensor, list[str | None]]:
        """Return what every answer begins with (B, P), and the language of each that it says."""
        task, n = self.task, len(heard.memory)
        begin = torch.full((n, 1), Tokenizer.bos_id, device=heard.memory.device)
        if not isinstance(task.tokenizer, ForeignTokenizer):
            return begin, [None] * n
        rest = begin.new_tensor(task.prefix_ids).expand(n, -1)
        if not task.languages:
            return torch.cat([begin, rest], dim=1), [None] * n
        names = [task.config.language] * n if task.config.language else self._languages(heard, begin)
        spoken = begin.new_tensor([[task.language_ids[name]] for name in names])
        return torch.cat([begin, spoken, rest], dim=1), list(names)

    def _languages(self, heard: "Remembered", begin: Tensor) -> list[str]:
        """Return the language that the decoder begins with, of those it may."""
        names, ids = list(self.task.language_ids), list(self.task.language_ids.values())
        scores = heard.step(begin[:, 0], heard.start(None, None, begin))[:, ids]
        return [names[i] for i in scores.argmax(-1).tolist()]

    def _judged_jointly(self, features: Tensor, mask: Tensor, log_p: list[Posteriors], found: list[list[Heard]]) -> list[list[Heard]]:
        """Order what CTC and the decoder propose by the weighed sum of both log probabilities (Watanabe et al. 2017, eq. 17)."""
        assert isinstance(self.model, Seq2Seq)
        share = self.task.config.ctc_weight
        memory, places = self.model.encode(features, mask), self.model.memory_mask(mask)
        judged = []
        for row, (posteriors, heard, written) in enumerate(zip(log_p, found, self._written(features, mask)[0], strict=True)):
            candidates = [list(ids) for ids in dict.fromkeys(tuple(one.ids) for one in [*heard, *written])]
            by_ctc = [log_likelihood(posteriors, ids) for ids in candidates]
            possible = [(ids, ctc) for ids, ctc in zip(candidates, by_ctc, strict=True) if ctc > float("-inf")]  # the decoder may loop
            by_decoder = decoder_log_p(self.model, memory[row : row + 1], places[row : row + 1], [ids for ids, _ in possible])
            scores = [
                share * ctc + (1 - share) * decoder + self._added(ids) for (ids, ctc), decoder in zip(possible, by_decoder, strict=True)
            ]
            judged.append(sorted(map(Heard, [ids for ids, _ in possible], scores), key=lambda one: -one.score))
        return judged

    def _added(self, ids: Sequence[int]) -> float:
        """Return what language model, hot words and the bonus for labels add to the score of a label sequence."""
        added = self.options.label_bonus * len(ids)
        for scorer, weight in self.scorers:
            state = scorer.start()
            for label in ids:
                score, state = scorer.advance(state, label)
                added += weight * score
            added += weight * scorer.end(state)
        return added

    def _told(self, reading: "Reading", offset: float = 0.0) -> "Told":
        """Return what a reading says that begins so many seconds into its recording."""
        words = None if reading.log_p is None else self.words(reading, offset)
        named = (reading.language, *self.pieces.languages_of(reading.best.ids))
        return Told(reading.found, reading.seconds, words, [name for name in named if name is not None])

    def _answer(self, told: "Sequence[Told]") -> Answer:
        """Join what the pieces of a recording say."""
        details: dict[str, Any] = {"seconds": round(sum(one.seconds for one in told), 3)}
        if told[0].words is not None:
            details["words"] = [word for one in told for word in one.words or []]
        languages = [name for one in told for name in one.languages]
        if languages:
            details["language"] = languages[0]
        best = [one.found[0] for one in told]
        text = self.pieces.joined([self.pieces.text(one.ids) for one in best])
        score = sum(one.score for one in best) / (sum(len(one.ids) for one in best) + 1)
        others = told[0].found[1:] if len(told) == 1 else []
        more: dict[str, Answer] = {text: Answer("")}  # label sequences may differ in spaces alone
        for one in others:
            other = self.pieces.text(one.ids)
            more.setdefault(other, Answer(other, one.score / (len(one.ids) + 1)))
        return Answer(text, score, tuple(more.values())[1 : self.options.n_best], details)

    def words(self, reading: "Reading", offset: float = 0.0) -> list[dict[str, Any]]:
        """Return the words of a reading with their times in seconds, found by aligning its labels to CTC's posteriors."""
        ids = reading.best.ids
        if reading.log_p is None or not ids or n_needed(ids) > len(reading.log_p):
            return []
        place = self.model.config.subsampling * self.task.config.hop_ms / 1000
        spans = align(reading.log_p, ids)
        return [
            {"word": word, "start": round(offset + spans[a][0] * place, 3), "end": round(offset + spans[b][1] * place, 3)}
            for word, a, b in self.pieces.words(ids)
        ]


@dataclass(frozen=True)
class Remembered:
    """A model that has heard recordings, for the generation loop.

    Args:
        memory: (B, S, D), of which the real `places` are (B, S).
    """

    model: Seq2Seq
    memory: Tensor
    places: Tensor

    def start(self, inputs: Tensor | None, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        """Read all of the prefix but its last token; what was heard is known."""
        return self.model.start_from(self.memory, self.places, prefix)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Add one token per row (R,) and score the next (R, V)."""
        return self.model.step(tokens, state)


@dataclass(frozen=True)
class Reading:
    """What was heard in a recording that is short enough to be heard at once."""

    found: list[Heard]  # best first
    log_p: Posteriors | None
    seconds: float
    language: str | None = None  # that the decoder was told, or has found before it wrote

    @property
    def best(self) -> Heard:
        """The best of them."""
        return self.found[0]


class Told(NamedTuple):
    """What a reading says, without its posteriors, of which an hour would be much to keep."""

    found: list[Heard]  # best first
    seconds: float
    words: list[dict[str, Any]] | None
    languages: list[str]


class Pieces:
    """The texts of label ids: tokens, and languages behind them."""

    def __init__(self, task: "SpeechRecognition") -> None:
        self.tokenizer = task.tokenizer
        self.n_tokens = task.tokenizer.vocab_size
        self.languages = {number: name for name, number in task.language_ids.items()}

    def languages_of(self, ids: Sequence[int]) -> list[str]:
        """Return the languages named in a sequence of ids."""
        return [self.languages[i] for i in ids if i in self.languages]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special and language tokens; where a space is a label, as one space however often it is heard."""
        text = self.tokenizer.decode([i for i in ids if self._is_text(i)]).strip()
        return " ".join(text.split()) if isinstance(self.tokenizer, Words | Spelling) else text

    def _is_text(self, i: int) -> bool:
        if isinstance(self.tokenizer, ForeignTokenizer) and (not self.tokenizer.pieces[i] or TIME.fullmatch(self.tokenizer.pieces[i])):
            return False
        return Tokenizer.unk_id < i < self.n_tokens

    def joined(self, texts: Sequence[str]) -> str:
        """Join the texts of consecutive pieces: with spaces, but for scripts that have none."""
        whole = ""
        for text in filter(None, texts):
            apart = whole and not (is_spaceless(whole[-1]) and is_spaceless(text[0]))
            whole += f" {text}" if apart else text
        return whole

    def texts(self) -> list[str | None]:
        """Return the text of every id as it stands inside a text; None for special and language tokens."""
        found = [_inner_text(self.tokenizer, i) if self._is_text(i) else None for i in range(self.n_tokens)]
        return [*found, *[None] * sum(i >= self.n_tokens for i in self.languages)]

    def begins(self) -> list[bool]:
        """Return for every id whether it begins a word, is the space before one, or stands for no text."""
        return [text is None or text.startswith(" ") or bool(APART.match(text)) for text in self.texts()]

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return the words of ids, each with the places of its first and last token."""
        groups: list[list[int]] = []
        for place, i in enumerate(ids):
            if not self._is_text(i):
                continue
            text = _inner_text(self.tokenizer, i)
            if text == " " and isinstance(self.tokenizer, Words | Spelling):
                groups.append([])
                continue
            if not groups or text.startswith(" ") or APART.match(text):
                groups.append([])
            groups[-1].append(place)
        return [(self.text([ids[place] for place in group]), group[0], group[-1]) for group in groups if group]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self.tokenizer.encode(text)

    def encode_inside(self, text: str) -> list[int]:
        """Return the ids of a text as it stands inside a clause of a script without spaces."""
        return self.tokenizer.encode_inside([text])[0] if isinstance(self.tokenizer, Tokenizer) else self.encode(text)


def _inner_text(tokenizer: Transcriber, i: int) -> str:
    """Return one token's text, with the space it begins with."""
    return tokenizer.token(i).replace("▁", " ")


def _scorers(task: "SpeechRecognition", options: DecodeConfig, pieces: Pieces) -> Iterator[WeightedScorer]:
    """Build what is added to the score of a search."""
    if options.hot_words:
        yield WeightedScorer(_hot_words(task, options, pieces), 1.0)
    model = task.language_model or task.own_ngrams
    if model is not None and options.language_weight:
        yield WeightedScorer(_of_text(model, pieces), options.language_weight)


def _hot_words(task: "SpeechRecognition", options: DecodeConfig, pieces: Pieces) -> HotWords:
    """Look for hot words where words begin, and for those of scripts without spaces anywhere.

    A phrase is found as it is cut when it stands alone: not where a sub-word reaches over one of its ends.
    """
    phrases = [_spoken_ids(phrase, task, pieces) for phrase in options.hot_words]
    texts = [normalised(phrase, task.config.transcripts) for phrase in options.hot_words]
    inside = [pieces.encode_inside(text) for text in texts if is_spaceless(text[0])]
    starts = pieces.begins()
    for ids in inside:
        starts[ids[0]] = True  # which may be no more than the first byte of a character
    return HotWords([*phrases, *inside], options.hot_word_boost, starts)


def _spoken_ids(phrase: str, task: "SpeechRecognition", pieces: Pieces) -> list[int]:
    """Return the ids of a hot word as it stands in transcripts; raises ConfigError for one that cannot be written with the labels."""
    ids = pieces.encode(normalised(phrase, task.config.transcripts))
    if not ids or Tokenizer.unk_id in ids:
        raise ConfigError(f"decode.hot_words: {phrase!r} cannot be written with the characters of the transcripts; mind case and accents")
    return ids


def _of_text(model: Ngrams | LanguageModel, pieces: Pieces) -> Scorer:
    """Score labels by what they say; of units that spell characters, the characters."""
    spelling = pieces.tokenizer
    if not isinstance(spelling, Spelling):
        return _language_scorer(model, pieces.texts(), silent=range(pieces.n_tokens, len(pieces.texts())))
    characters = [*spelling.table, " "]
    return SpelledScorer(
        _language_scorer(model, characters),
        [*(spelling.encode(character) for character in spelling.table), ()],
        space=len(spelling.table),
        end_unit=spelling.end_id,
        space_unit=spelling.space_id,
        silent=[i for i, text in enumerate(pieces.texts()) if text is None],
    )


def _language_scorer(model: Ngrams | LanguageModel, texts: Sequence[str | None], silent: Collection[int] = ()) -> Scorer:
    return _ngrams(model, texts) if isinstance(model, Ngrams) else _neural(model, texts, silent)


def _ngrams(model: Ngrams, texts: Sequence[str | None]) -> Scorer:
    """Score tokens with a model whose words are labels for the most part, and words with any other."""
    labels = {text.strip() for text in texts if text is not None}
    words = [word for word in model.vocabulary if not (word.startswith("<") and word.endswith(">"))]
    of_tokens = sum(word.replace("▁", "").strip() in labels for word in words) > len(words) / 2
    return TokenNgrams(model, texts) if of_tokens else WordNgrams(model, texts)


def _neural(lent: LanguageModel, texts: Sequence[str | None], silent: Collection[int]) -> Scorer:
    """Score labels with a decoder-only model whose vocabulary holds all of them."""
    theirs = lent.task.parts["tokenizer"]
    assert isinstance(theirs, Tokenizer | Words | Characters)
    numbers = {theirs.token(i): i for i in range(Tokenizer.unk_id + 1, theirs.vocab_size)}
    to_model = [None if text is None else numbers.get(text.replace(" ", "▁")) for text in texts]
    lacking = [text for text, number in zip(texts, to_model, strict=True) if text is not None and number is None]
    if len(lacking) > len(to_model) / 2:
        raise ConfigError(
            f"decode.language_model: it does not know {len(lacking)} of {len(to_model)} labels, as {lacking[0]!r}; train it on the same "
            "kind of text with the same task.tokens (and task.vocab_size)"
        )
    return ModelScorer(lent.model, to_model, begin=Tokenizer.bos_id, end=Tokenizer.eos_id, silent=silent)


def decoder_log_p(model: Seq2Seq, memory: Tensor, places: Tensor, candidates: Sequence[Sequence[int]]) -> list[float]:
    """Return log p of each label sequence and its end by the decoder; memory (1, S, D), places (1, S)."""
    rows: list[Encoded] = [{"text": torch.tensor([*ids, Tokenizer.eos_id])} for ids in candidates]
    ended = collate(rows).to(memory.device)
    target, n = ended["text"], len(candidates)
    begun = torch.cat([target.new_full((n, 1), Tokenizer.bos_id), target[:, :-1]], dim=1)
    hidden = model.decoded(memory.expand(n, -1, -1), places.expand(n, -1), begun)
    log_p = model.head(hidden).float().log_softmax(-1).gather(-1, target[..., None])[..., 0]
    return [float(one) for one in (log_p * ended.mask("text")).sum(1)]


def quiet_cuts(hops: Tensor, longest: int) -> list[int]:
    """Return where to cut a recording (T, hop) into pieces of at most `longest` hops: each where the second half of a piece is quietest."""
    some = (hops[begin : begin + HOPS_AT_ONCE] for begin in range(0, len(hops), HOPS_AT_ONCE))
    loudness = torch.cat([part.float().square().mean(1) for part in some])[None, None]
    width = min(QUIET_HOPS, longest, len(hops))
    smooth = F.avg_pool1d(loudness, width, stride=1, padding=width // 2, count_include_pad=False)[0, 0]
    cuts: list[int] = []
    begin = 0
    while len(hops) - begin > longest:
        first = begin + max(1, longest // 2)
        begin = first + int(smooth[first : begin + longest].argmin())
        cuts.append(begin)
    return cuts


def recording_picture(task: "SpeechRecognition", model: Encoder | Seq2Seq, encoded: Encoded, answer: Answer) -> dict[str, Any]:
    """Return what a report draws of a recording: its spectrogram, word times, and what CTC heard where."""
    hops = encoded["audio"][: task.longest_piece]
    batch = collate([{"audio": hops}]).to(next(model.parameters()).device)
    mel = _columns(_spectrogram(task, batch).T)
    low, high = float(np.percentile(mel, 5)), float(mel.max())
    shades = np.clip((mel - low) / max(1e-6, high - low), 0, 1)
    picture: dict[str, Any] = {"kind": "recording", "seconds": round(len(hops) * task.config.hop_ms / 1000, 3)}
    picture |= {"mel": np.round(shades, 2).tolist(), "words": list(answer.details.get("words", []))}
    if task.config.objective != "attention":
        picture["posteriors"] = _posteriors(task, model, batch)
    return picture


def _spectrogram(task: "SpeechRecognition", batch: Batch) -> NDArray[np.float32]:
    """Return the log-mel energies of a recording before normalisation, (T, bands), whatever else the model is given."""
    features = task.features
    if isinstance(features, Features) and features.settings.kind == "mfcc":
        features = Features(replace(features.settings, kind="log_mel", n_mfcc=USUAL_N_MFCC, normalise="none"))
    raw, _ = features.raw(batch["audio"], batch.mask("audio"))
    found: NDArray[np.float32] = raw[0, :, : task.config.n_mels].cpu().numpy()
    return found


def _posteriors(task: "SpeechRecognition", model: Encoder | Seq2Seq, batch: Batch) -> dict[str, Any]:
    """Return the probabilities of the labels that are heard anywhere, over time: the blank, then the others as they come up."""
    with torch.inference_mode():
        logits, _ = model.label_logits(*task.features(batch["audio"], batch.mask("audio")))
    shares = _columns(logits[0].float().softmax(-1).cpu().numpy().T)
    heard = [int(i) for i in np.argsort(-shares.max(1))[:PICTURE_LABELS] if shares[i].max() >= 0.1 and i != Tokenizer.pad_id]
    order = sorted(heard, key=lambda i: int(shares[i].argmax()))
    texts = Pieces(task).texts()
    languages = {number: name for name, number in task.language_ids.items()}
    labels = [languages.get(i) or texts[i] or "?" for i in order]
    return {"labels": ["", *labels], "values": np.round(shares[[Tokenizer.pad_id, *order]], 2).tolist()}


def _columns(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average neighbouring columns of (n, T) until there are at most PICTURE_COLUMNS."""
    step = -(-rows.shape[1] // PICTURE_COLUMNS)
    if step <= 1:
        return rows
    return np.stack([rows[:, i : i + step].mean(1) for i in range(0, rows.shape[1], step)], axis=1)
