"""Data sets of the hub: which is meant, and what is said where it cannot be had; its library is a stand-in."""

import sys
from types import ModuleType

import pytest
from toy_files import SPOKEN, read, recordings, refusal

from heed.data.read import ReadLog
from heed.errors import MissingExtra


@pytest.fixture
def hub(monkeypatch):
    calls = []

    def load_dataset(name, config=None, *, split, streaming):
        if name == "gone":
            raise FileNotFoundError("no such data set")
        calls.append((name, config, split, streaming))
        return iter([{"translation": {"de": "a", "en": "b"}}, {"translation": {"de": "", "en": "b"}}])

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


@pytest.mark.parametrize(
    ("spec", "call"),
    [
        ("hf:opus", ("opus", None, "train", True)),
        ("hf:org/name", ("org/name", None, "train", True)),
        ("hf:org/name/de-en:test", ("org/name", "de-en", "test", True)),
        ("hf:/wmt16/de-en:train[:10]", ("wmt16", "de-en", "train[:10]", True)),
    ],
)
def test_hub_names_are_told_from_configurations(hub, spec, call):
    rename = {"source": "translation.de", "target": "translation.en"}
    log = ReadLog()
    rows = read(spec, rename=rename, bad_rows="skip", log=log)
    assert [(row["source"], row["target"]) for row in rows] == [("a", "b")]
    assert hub == [call]
    assert (log.format, log.rows, log.bad) == ("hf", 1, 1)
    assert f"{spec}:2: column 'translation.de' is empty" in refusal(spec, rename=rename)


def test_hub_failures_are_explained(hub):
    assert "one slash is OWNER/NAME" in refusal("hf:gone")
    for spec in ("hf:", "hf:a/b/c/d", "hf:a//c", "hf:a/"):
        assert "expected hf:NAME" in refusal(spec)


def test_the_hub_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"extra 'datasets'"):
        read("hf:org/name")


def test_recordings_of_the_hub_come_undecoded_and_need_their_content(monkeypatch, tmp_path):
    recordings(tmp_path, "1.wav")
    monkeypatch.chdir(tmp_path)

    class Stream:
        def decode(self, enable):
            return self if enable else iter(rows)

        def __iter__(self):
            pytest.fail("the hub's library decodes the recordings")

    rows = [{"audio": {"bytes": b"RIFF", "path": "1.wav"}, "text": "one"}, {"audio": {"bytes": None, "path": "1.wav"}, "text": "two"}]
    module = ModuleType("datasets")
    module.load_dataset = lambda *_, **__: Stream()
    monkeypatch.setitem(sys.modules, "datasets", module)
    log = ReadLog()
    assert read("hf:org/name", required=SPOKEN, bad_rows="skip", log=log) == [{"audio": b"RIFF", "text": "one"}]
    assert "hf:org/name:2: column 'audio' names '1.wav', but this source lies in no folder" in log.bad_examples[0]
