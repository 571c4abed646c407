"""The hygiene of recordings with transcripts: duplicates, contradictions, leaks between splits, speakers, characters.

An empty transcript is no fault: it says that nothing is said, which is learned like anything else. Such rows are counted.

Two recordings are the same when their files (or bytes, or samples) are, whatever they are called. A file is read only where another one
has its size, and then once; contents are compared by 8-byte hashes. Memory grows by some 150 bytes a row, whatever the length of the audio.

Left out: the same speech in another coding, cut or loudness, and whether a transcript fits what is heard; both need a model.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.data.labelled import contradicts, repeats
from heed.data.quality import QUANTILES, SHOWN_CHARACTERS, FaultSurvey, count_words, first_rows, hashed, in_any, quantiles, word_quantiles
from heed.data.rows import Example
from heed.data.transcripts import folded
from heed.errors import DataError

Hashes = NDArray[np.uint64]
Seconds = Callable[[Example], float]
Normalise = Callable[[str], str]

MOST_CHARACTERS = 200  # told with their counts, the commonest
MOST_RARE = 50  # of the characters that occur once
MOST_SPEAKERS = 60
MOST_NAMED = 10  # of the speakers that stand in two splits
SILENT = re.compile(r"[\W_]+")  # what nobody hears


@dataclass
class SpokenSurvey(FaultSurvey):
    """What was found in the recordings of one split, of which examples are {row, audio, text}.

    Its faults: "duplicates" stand further up with the same transcript, "contradictions" elsewhere with another, and "leaks" in another
    split.

    Attributes:
        lengths: quantiles of text_characters and text_words over the transcripts that are not empty, and, where lengths are known, of
            audio_seconds.
        nothing_said: rows whose transcript is empty.
        spelt_apart: rows whose transcript stands elsewhere with other case or punctuation.
        seconds: of all recordings together; None where lengths are not known.
        characters: how often each character (but the space) occurs in the transcripts, the commonest first.
        speakers: rows of each speaker, the busiest first; speakers_others the same by other split.
        shared: for each two other splits, such as "valid and test", how many rows of the second stand in the first.
    """

    lengths: dict[str, Mapping[str, float]]
    nothing_said: int
    spelt_apart: int
    seconds: float | None
    characters: dict[str, int]
    speakers: dict[str, int]
    speakers_others: dict[str, dict[str, int]]
    shared: dict[str, int]

    @property
    def refused(self) -> str | None:
        """Say which leaks forbid training on all rows; None when there are none."""
        return self.leaking("recordings", lambda row: str(row["audio"]))

    @property
    def speakers_in_common(self) -> dict[str, list[str]]:
        """The speakers that stand both here and in another split, by split; splits without any are left out."""
        common = {name: [speaker for speaker in self.speakers if speaker in others] for name, others in self.speakers_others.items()}
        return {name: speakers for name, speakers in common.items() if speakers}

    @property
    def warnings(self) -> list[str]:
        """What is no fault of a row, but should be known before scores are read."""
        silent = f"empty transcripts: {self.nothing_said:,} of {len(self.keep):,}; that nothing is said there is learned like anything else"
        apart = (
            f"written with different case or punctuation elsewhere: {self.spelt_apart:,} of {len(self.keep):,} transcripts; "
            "task.transcripts=words makes them alike"
        )
        return (
            [silent] * (self.nothing_said > 0)
            + [apart] * (self.spelt_apart > 0)
            + [
                f"speakers in common with data.{name}: {_named(speakers)}; scores there are of voices that were heard in training"
                for name, speakers in self.speakers_in_common.items()
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values.

        Keys: `rows`, `clean` (rows without a flag), `counts` and `examples` (by flag), `lengths`, `nothing_said`, `spelt_apart`,
        `hours` (if known), `characters` (how many `different`, `counts` of the commonest, `n_once` how many occur once, `once` some of
        those), `speakers` and `speakers_others` (how many `different`, `rows` of the busiest), `leaks`, `shared`, `warnings`.
        """
        content = super().to_json()
        seconds = content.pop("seconds")
        content |= {} if seconds is None else {"hours": round(seconds / 3600, 4)}
        return content | {
            "characters": _character_facts(self.characters),
            "speakers": _speaker_facts(self.speakers),
            "speakers_others": {name: _speaker_facts(speakers) for name, speakers in self.speakers_others.items()},
            "warnings": self.warnings,
        }


def survey_spoken(
    examples: Iterable[Example],
    other_splits: Mapping[str, Iterable[Example]],
    *,
    seconds: Seconds | None,
    normalise: Normalise = folded,
) -> SpokenSurvey:
    """Look for faults in recordings and their transcripts.

    Args:
        examples: rows with `audio` (a path, the bytes of a file, or samples), `text` and perhaps `speaker`; can be iterated again.
        other_splits: the splits no recording of `examples` should stand in, by name; can be iterated again.
        seconds: returns how long an example is; None where that is not to be told.
        normalise: what is done to transcripts before they are compared and counted.
    Raises:
        DataError: a file cannot be read.
    """
    splits = {name: _Rows.read(split, normalise) for name, split in other_splits.items()}
    rows = _Rows.read(examples, normalise, seconds)
    shared = _shared_sizes([rows, *splits.values()])
    recordings = rows.recordings(examples, shared)
    others = {name: other.recordings(other_splits[name], shared) for name, other in splits.items()}
    leaking = {name: np.isin(recordings, other) for name, other in others.items()}
    texts, heard = np.array(rows.texts, dtype=np.uint64), np.array(rows.heard, dtype=np.uint64)
    faults = {
        "duplicates": repeats(recordings, texts),
        "contradictions": contradicts(recordings, texts),
        "leaks": in_any(leaking, len(texts)),
    }
    return SpokenSurvey(
        faults=faults,
        examples=first_rows(examples, faults, _told),
        lengths=rows.lengths(),
        nothing_said=rows.characters.count(0),
        spelt_apart=int(np.count_nonzero(contradicts(heard, texts) & (heard != hashed("")))),
        seconds=float(np.sum(rows.seconds)) if seconds else None,
        characters=dict(rows.letters.most_common()),
        speakers=dict(rows.speakers.most_common()),
        speakers_others={name: dict(other.speakers.most_common()) for name, other in splits.items()},
        leaks={name: int(found.sum()) for name, found in leaking.items()},
        shared={f"{a} and {b}": int(np.isin(others[b], others[a]).sum()) for a, b in combinations(others, 2)},
    )


class _Rows:
    """What a split is told from by its rows: where each recording lies, its size, and its transcript."""

    def __init__(self) -> None:
        self.places, self.sizes = array("Q"), array("Q")
        self.texts, self.heard, self.characters, self.words = array("Q"), array("Q"), array("Q"), array("Q")
        self.seconds = array("d")
        self.letters: Counter[str] = Counter()
        self.speakers: Counter[str] = Counter()

    @classmethod
    def read(cls, examples: Iterable[Example], normalise: Normalise, seconds: Seconds | None = None) -> "_Rows":
        """Read a split once, and of files no more than their size."""
        rows = cls()
        for example in examples:
            place, size = _place(example["audio"])
            text = normalise(example["text"])
            rows.places.append(place)
            rows.sizes.append(size)
            rows.texts.append(hashed(text))
            rows.heard.append(hashed(SILENT.sub(" ", text.casefold()).strip()))
            rows.characters.append(len(text))
            rows.words.append(count_words(text))
            rows.letters.update(text.replace(" ", ""))
            if example.get("speaker"):
                rows.speakers[str(example["speaker"])] += 1
            if seconds is not None:
                rows.seconds.append(seconds(example))
        return rows

    def recordings(self, examples: Iterable[Example], shared: set[int]) -> Hashes:
        """Return a number for each row, equal where recordings are, given the rows again and the sizes that several recordings have."""
        found = np.array(self.places, dtype=np.uint64)
        if not shared.isdisjoint(self.sizes):
            contents: dict[int, int] = {}  # by place, so that a file that stands in several rows is read once
            for row, example in enumerate(examples):
                if self.sizes[row] in shared:
                    place = self.places[row]
                    if place not in contents:
                        contents[place] = _content(example["audio"], place)
                    found[row] = contents[place]
        return found

    def lengths(self) -> dict[str, Mapping[str, float]]:
        """Return the quantiles of the lengths."""
        n_characters, n_words = np.array(self.characters, dtype=np.int64), np.array(self.words, dtype=np.int64)
        full = n_characters > 0
        found: dict[str, Mapping[str, float]] = {
            "text_characters": quantiles(n_characters[full]),
            "text_words": word_quantiles(n_words[full]),
        }
        if self.seconds:
            points = np.quantile(np.array(self.seconds), list(QUANTILES.values()), method="nearest")
            found["audio_seconds"] = {name: round(float(value), 2) for name, value in zip(QUANTILES, points, strict=True)}
        return found


def _place(audio: object) -> tuple[int, int]:
    """Return a number for where a recording lies, and its size in bytes; for one in memory, the number is that of its content."""
    if isinstance(audio, str | Path):
        try:
            return hashed(str(audio)), Path(audio).stat().st_size
        except OSError as error:
            raise _unreadable(audio, error) from error
    content = _in_memory(audio)
    return _number(blake2b(content, digest_size=8).digest()), len(content)


def _content(audio: object, place: int) -> int:
    """Return a number for the content of a recording; that of one in memory is its place."""
    if not isinstance(audio, str | Path):
        return place
    try:
        with Path(audio).open("rb") as file:
            return _number(file_digest(file, lambda: blake2b(digest_size=8)).digest())
    except OSError as error:
        raise _unreadable(audio, error) from error


def _in_memory(audio: object) -> bytes:
    """Return the bytes of an encoded file, or of samples; equal samples are equal whatever their type."""
    return bytes(audio) if isinstance(audio, bytes | bytearray | memoryview) else np.asarray(audio, dtype=np.float32).tobytes()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def _unreadable(path: str | Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); bring the recording back, or take its row out of the data")


def _shared_sizes(splits: Iterable[_Rows]) -> set[int]:
    """Return the sizes that recordings at several places have: only these can be equal."""
    pairs = [np.stack([np.array(rows.sizes, dtype=np.uint64), np.array(rows.places, dtype=np.uint64)], axis=1) for rows in splits]
    sizes, n_places = np.unique(np.unique(np.concatenate(pairs), axis=0)[:, 0], return_counts=True)
    return set(sizes[n_places > 1].tolist())


def _told(example: Example) -> dict[str, str]:
    return {"audio": recording_words(example["audio"]), "text": folded(example["text"])[:SHOWN_CHARACTERS]}


def recording_words(audio: object) -> str:
    """Say which recording it is: its path, or what it holds."""
    if isinstance(audio, str | Path):
        return str(audio)[-SHOWN_CHARACTERS:]
    if isinstance(audio, bytes | bytearray | memoryview):
        return f"{memoryview(audio).nbytes:,} bytes"
    return f"{np.size(np.asarray(audio)):,} samples"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _character_facts(counts: Mapping[str, int]) -> dict[str, Any]:
    once = [character for character, count in counts.items() if count == 1]
    return {
        "different": len(counts),
        "counts": dict(islice(counts.items(), MOST_CHARACTERS)),
        "n_once": len(once),
        "once": once[:MOST_RARE],
    }


def _speaker_facts(rows: Mapping[str, int]) -> dict[str, Any]:
    return {"different": len(rows), "rows": dict(islice(rows.items(), MOST_SPEAKERS))}
