"""Recordings: sound files, bytes and arrays become one channel of float32 samples between -1 and 1 at one sample rate.

Files go through libsndfile (WAV, FLAC, OGG, MP3 and what else it knows), changes of the sample rate through soxr. A file that is not
whole is refused in one line rather than read as far as it goes. Left out: microphones, video, and which channel a speaker is on.

Two things libsndfile does not tell, so that they go unnoticed: an Ogg file cut exactly between two of its pages, and the length of an MP3
file of varying bit rate without the Xing header that nearly all encoders write.
"""

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np

from heed.data.encodings import existing
from heed.errors import DataError, MissingExtra

Array = np.ndarray[Any, np.dtype[Any]]
Samples = np.ndarray[Any, np.dtype[np.float32]]
Hops = np.ndarray[Any, np.dtype[np.int16]]
Source = str | Path | bytes | bytearray | memoryview

FORMATS = "WAV, FLAC, OGG or MP3"
FULL_SCALE = 1 << 15  # 16-bit samples run from -FULL_SCALE to FULL_SCALE - 1
LOWEST_RATE = 1000  # samples a second; below it a header is damaged, for there is no speech
MOST_CHANNELS = 8  # of an array whose channels come first
BLOCK_FRAMES = 4096  # decoded at a time, so that a forged header cannot ask for memory
BLOCK_SAMPLES = 1 << 20  # rounded at a time, so that an hour is not in memory three times
EXACT_RATIOS = frozenset(Fraction(a, b) for a, b in product((1, 2, 3, 4, 6), repeat=2))  # measured: soxr rolls off in others
OPEN_FRAMES = 1 << 62  # libsndfile's number of frames for a length that the header leaves open is above this
OPEN_BYTES = 0x7FFF0000  # programs that write WAV to a pipe announce at least so many, for they do not know yet
MP3_SLACK_SECONDS = 0.1  # the length of MP3 is announced in whole frames, and by some encoders with their delay
NO_SOUND = "File does not exist"  # how libsndfile begins to say that the decoder of MP3 found no sound in a file that is there
MPEG_TAG, MPEG_SYNC = b"ID3", 0xFFE0  # what an MP3 file begins with: a tag, or the eleven bits that every frame begins with
LOUDEST = 16.0  # of a sample: far above what decoders and mixing leave over 1, far below 16-bit numbers given as floats
STDERR = 2  # the number of the stream that libraries write their warnings to
STDERR_TAKEN = threading.Lock()  # there is one such stream: a second thread would put back what the first has taken away
OGG_PAGE_BYTES, OGG_HEADER_BYTES = 65_307, 27  # the largest page, and what stands before its table of segments (RFC 3533)


@dataclass(frozen=True)
class Wave:
    """One channel of sound: samples (n,) between -1 and 1, and how many there are in a second."""

    samples: Samples
    sample_rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.sample_rate


def read_audio(
    source: Source | Array,
    *,
    sample_rate: int | None = None,
    given_rate: int | None = None,
    name: str | None = None,
    longest_seconds: float | None = None,
) -> Wave:
    """Return a recording with its channels mixed by their mean.

    Args:
        source: the path of a file; a file's content as bytes; or samples (n,), (n, channels) or (channels, n), which are channels first
            where there are at most 8 rows and more columns. Whole numbers of 8, 16 or 32 bits are divided by their range, floats stay.
        sample_rate: samples a second to return; None keeps the source's.
        given_rate: of an array, the rate it has, `sample_rate` where this is None; files and bytes say theirs themselves.
        name: what messages call the source, such as "input 3"; the path where this is None.
        longest_seconds: refuse what is longer, before it is decoded.
    Raises:
        DataError: the source is missing, empty, no audio, cut off, damaged or too long, or holds samples that are no finite numbers.
        MissingExtra: soundfile or soxr is needed and not installed.
    """
    place = _place(source, name)
    if isinstance(source, np.ndarray):
        samples, rate = _mixed(source, place), _checked_rate(sample_rate if given_rate is None else given_rate, place)
        _check_length(len(samples) / rate, longest_seconds, place)
    else:
        with _opened(source, place) as file:
            _check_length(file.frames / file.samplerate, longest_seconds, place)
            samples, rate = _decoded(file, place), file.samplerate
    _check_finite(samples, rate, place)
    return at_rate(Wave(samples, rate), sample_rate, place)


def resampled(samples: Samples, from_rate: float, to_rate: float) -> Samples:
    """Return samples (n,) at another rate, (n * to_rate / from_rate,), low-passed where it is lower, in one pass of soxr.

    Where the rates are in no ratio of small numbers, frequencies towards the highest come out up to 0.01 dB softer.

    Raises:
        MissingExtra: soxr is not installed.
    """
    try:
        import soxr
    except ImportError as error:
        raise MissingExtra("soxr", "speech", "changing the sample rate of audio") from error
    return cast(Samples, soxr.resample(samples, from_rate, to_rate, quality="HQ"))


def to_hops(samples: Samples, hop: int) -> Hops:
    """Return samples (n,) as 16-bit numbers (T, hop), rounded and clipped, with zeros behind the last."""
    hops = np.zeros((-(-len(samples) // hop), hop), dtype=np.int16)
    flat = hops.reshape(-1)
    for begin in range(0, len(samples), BLOCK_SAMPLES):
        block = samples[begin : begin + BLOCK_SAMPLES]
        flat[begin : begin + len(block)] = np.clip(np.rint(block * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return hops


def from_hops(hops: Hops) -> Samples:
    """Return 16-bit numbers (T, hop) as samples (T * hop,) between -1 and 1."""
    return hops.reshape(-1).astype(np.float32) / np.float32(FULL_SCALE)


def pcm_samples(raw: bytes) -> Samples:
    """Return the samples (n,) of raw 16-bit PCM, little-endian, one channel; raises DataError for half a sample."""
    if len(raw) % 2:
        raise DataError(f"raw audio: holds {len(raw)} bytes, but a 16-bit sample has two; send whole samples")
    return np.frombuffer(raw, dtype="<i2").astype(np.float32) / np.float32(FULL_SCALE)


def _place(source: object, name: str | None) -> str:
    return name or (str(source) if isinstance(source, str | Path) else "audio")


def _check_length(seconds: float, longest: float | None, place: str) -> None:
    if longest is not None and seconds > longest:
        raise DataError(f"{place}: is {seconds:.1f} seconds long, more than the {longest:g} allowed; cut it into shorter pieces")


def _checked_rate(rate: int | None, place: str) -> int:
    if not isinstance(rate, int | np.integer) or rate < LOWEST_RATE:
        found = "is not given" if rate is None else f"is {rate!r}"
        raise DataError(f"{place}: its sample rate {found}; expected samples a second, a whole number from {LOWEST_RATE}")
    return int(rate)


def _check_finite(samples: Samples, rate: int, place: str) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite))
        raise DataError(
            f"{place}: {len(samples) - int(finite.sum())} of its samples are no finite numbers, the first at {first / rate:.3f} seconds; "
            "record it or convert it again"
        )
    loudest = float(np.abs(samples).max(initial=0.0))
    if loudest > LOUDEST:
        raise DataError(
            f"{place}: its samples reach {loudest:,.0f}, but floats lie between -1 and 1; divide them by their range (32,768 for those of "
            "16 bits), or give them as whole numbers"
        )


def at_rate(wave: Wave, rate: int | None, place: str) -> Wave:
    """Bring a recording to another sample rate, if one is given; raises DataError, which begins with the place, where nothing is left."""
    if rate is None or rate == wave.sample_rate:
        return wave
    samples = _converted(wave.samples, wave.sample_rate, rate)
    if not len(samples):
        raise DataError(f"{place}: is too short: {len(wave.samples)} samples at {wave.sample_rate} a second are none at {rate}")
    return Wave(samples, rate)


def _converted(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Return samples at another rate, true to 1e-5 up to nine tenths of what the lower rate can hold.

    Soxr is that exact where the rates are in a ratio of small numbers. Elsewhere it is so in the lower half of the band, which holds
    all that is kept when both rates are doubled.
    """
    if Fraction(new_rate, rate) in EXACT_RATIOS:
        return resampled(samples, rate, new_rate)
    doubled = resampled(samples, rate, 2 * rate)
    halved = resampled(resampled(doubled, 2 * rate, 2 * new_rate), 2 * new_rate, new_rate)
    return halved[: round(len(samples) * new_rate / rate)]


def _mixed(array: Array, place: str) -> Samples:
    """Return an array as samples (n,)."""
    if array.ndim not in {1, 2}:
        raise DataError(f"{place}: is an array of shape {array.shape}; expected (samples,) or (samples, channels)")
    if not array.size:
        raise DataError(f"{place}: is an array without samples; expected (samples,) or (samples, channels)")
    if array.ndim == 1:
        return _scaled(array, place)
    first, second = array.shape
    return _mean(_scaled(array.T if first <= MOST_CHANNELS and first < second else array, place))


def _scaled(array: Array, place: str) -> Samples:
    """Return floats as they are, and whole numbers divided by half their range, unsigned ones moved to lie around 0."""
    kind, n_bytes = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
            return array.astype(np.float32)
    if kind not in "iu" or n_bytes > 4:
        raise DataError(f"{place}: is an array of {array.dtype}; expected floats between -1 and 1, or whole numbers of 8, 16 or 32 bits")
    half = 1 << (8 * n_bytes - 1)
    centred = array.astype(np.float64) - (half if kind == "u" else 0)
    return (centred / half).astype(np.float32)


def _mean(frames: Samples) -> Samples:
    """Mix the channels of frames (n, channels) to (n,)."""
    with np.errstate(over="ignore", invalid="ignore"):  # samples that are no numbers are refused afterwards
        return cast(Samples, frames.mean(axis=1, dtype=np.float32))


@contextmanager
def _opened(source: object, place: str) -> Iterator[Any]:
    """Open encoded audio with a header that keeps what it promises; yields soundfile's object."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, its library is not
        raise MissingExtra("soundfile", "speech", f"reading {place}") from error
    with _stream(source, place) as stream:
        if not stream.seek(0, os.SEEK_END):
            raise DataError(f"{place}: is empty (0 bytes); record it or copy it again")
        announced, torn, hush = _wav_frames(stream), _ends_within_page(stream), _is_mpeg(stream)
        stream.seek(0)
        with _silent_libraries() if hush else nullcontext():
            try:
                # By number, for libsndfile takes a file with a name like x.raw for samples without a header.
                file = soundfile.SoundFile(stream if isinstance(stream, io.BytesIO) else stream.fileno(), closefd=False)
            except soundfile.LibsndfileError as error:
                fault = error.error_string.rstrip(".")
                fault = "it holds no whole frame of sound" if fault.startswith(NO_SOUND) else fault
                raise DataError(f"{place}: is no audio that can be read ({fault}); expected {FORMATS}") from error
            with file:
                _check_header(file, announced, torn, place)
                yield file


def _is_mpeg(stream: io.FileIO | io.BytesIO) -> bool:
    """Tell whether a file begins as MP3 files do."""
    stream.seek(0)
    head = stream.read(len(MPEG_TAG))
    return head == MPEG_TAG or int.from_bytes(head[:2]) & MPEG_SYNC == MPEG_SYNC


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Let vanish what the decoder of MP3, which cannot be told to be quiet, writes on the terminal: faults are told by `DataError`."""
    with STDERR_TAKEN:
        sys.stderr.flush()
        try:
            kept = os.dup(STDERR)
        except OSError:  # it is closed, and nothing is seen
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), STDERR)
            yield
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)


def _stream(source: object, place: str) -> io.FileIO | io.BytesIO:
    """Open a file, or bytes as one."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not isinstance(source, str | Path):
        raise DataError(f"{place}: is of type {type(source).__name__}; expected the path of a recording, its bytes, or an array of samples")
    try:
        return existing(Path(source).expanduser()).open("rb", buffering=0)
    except DataError as error:
        if place == str(source):
            raise
        raise DataError(f"{place}: {error}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody has the home that a ~ names
        raise DataError(f"{place}: cannot be read ({error}); check the path, and that you may read it") from error


def _wav_frames(stream: io.FileIO | io.BytesIO) -> int | None:
    """Return the frames that the header of a WAV file announces; None where it leaves them open, and for other formats."""
    stream.seek(0)
    head = stream.read(12)
    if (head[:4], head[8:]) != (b"RIFF", b"WAVE"):
        return None
    frame_bytes = 0
    while len(head := stream.read(8)) == 8:
        start, size = stream.tell(), int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            return size // frame_bytes if frame_bytes and size < OPEN_BYTES else None
        if head[:4] == b"fmt ":
            frame_bytes = int.from_bytes(stream.read(14)[12:], "little")
        stream.seek(start + size + size % 2)  # a chunk of odd length is followed by one byte
    return None


def _ends_within_page(stream: io.FileIO | io.BytesIO) -> bool:
    """Tell whether this is an Ogg file whose last page is not whole; libsndfile reads such a file up to the page before."""
    stream.seek(0)
    if stream.read(4) != b"OggS":
        return False
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - OGG_PAGE_BYTES))
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    n_segments = page[OGG_HEADER_BYTES - 1] if len(page) >= OGG_HEADER_BYTES else 1
    sizes = page[OGG_HEADER_BYTES : OGG_HEADER_BYTES + n_segments]
    return len(sizes) < n_segments or len(page) < OGG_HEADER_BYTES + n_segments + sum(sizes)


def _check_header(file: Any, announced: int | None, torn: bool, place: str) -> None:
    """Refuse a file whose header alone shows that it is not whole."""
    rate = _checked_rate(file.samplerate, place)
    if file.frames > OPEN_FRAMES:
        raise DataError(f"{place}: its header does not say how long it is, as when it was written to a pipe; convert it to a file again")
    if announced is not None and announced > file.frames:
        raise _cut_off(place, file.frames / rate, announced / rate)
    if torn:
        raise DataError(f"{place}: is cut off within a page, after about {file.frames / rate:.2f} seconds; copy or convert it again")
    if not file.frames:
        raise DataError(f"{place}: has a header but no samples; record it or copy it again")


def _decoded(file: Any, place: str) -> Samples:
    """Decode a file from its beginning and mix its channels; raises DataError where that ends before the header says so."""
    import soundfile

    # Soundfile seeks after every read, at which libsndfile loses its place in MP3.
    at_once = file.frames if file.format == "MP3" else BLOCK_FRAMES
    blocks: list[Samples] = []
    with suppress(soundfile.LibsndfileError, MemoryError):  # how far it came tells what to say
        while len(block := file.read(at_once, dtype="float32", always_2d=True)):
            blocks.append(_mean(block))
    n_read = sum(map(len, blocks))
    slack = MP3_SLACK_SECONDS * file.samplerate if file.format == "MP3" else 0
    if not n_read or n_read < file.frames - slack:
        raise _cut_off(place, n_read / file.samplerate, file.frames / file.samplerate)
    return np.concatenate(blocks)


def _cut_off(place: str, readable: float, announced: float) -> DataError:
    return DataError(
        f"{place}: is cut off or damaged: {readable:.2f} of the {announced:.2f} seconds it announces can be read; copy or convert it again"
    )
