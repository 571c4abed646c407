"""Features come back from the file they are saved in, and a broken file is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_waves import FITTED, RICH, SMALL, noise

from heed.data.features import Features
from heed.data.parts import load_parts, save_parts
from heed.errors import CheckpointError


@pytest.mark.parametrize("part", [*FITTED, Features(replace(RICH, normalise="utterance", highest_hz=1999.5))], ids=range(7))
def test_features_come_back_from_their_file(tmp_path: Path, part: Features) -> None:
    save_parts(tmp_path, {"features": part})
    again = load_parts(tmp_path)["features"]
    assert isinstance(again, Features)
    assert again.settings == part.settings
    assert again.statistics == part.statistics
    hops = torch.tensor(noise(30 * SMALL.hop)).view(1, 30, SMALL.hop)
    assert torch.equal(again(hops)[0], part(hops)[0])
    content = json.loads((tmp_path / "features.json").read_text(encoding="utf-8"))
    assert content == {"kind": "features", **part.to_json()}


def broken(*path: str, value: Any) -> dict[str, Any]:
    """Return the file of good features with one value changed, or left out when it is `...`."""
    content: dict[str, Any] = json.loads(json.dumps(FITTED[1].to_json()))
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


FAULTS: list[tuple[tuple[str, ...], Any]] = [
    (("settings",), ...),
    (("settings",), None),
    (("settings",), []),
    (("settings", "hop_ms"), ...),
    (("settings", "colour"), "red"),
    (("settings", "sample_rate"), "16000"),
    (("settings", "sample_rate"), 4000.5),
    (("settings", "n_mels"), 8.0),
    (("settings", "n_mels"), True),
    (("settings", "n_mels"), 9),
    (("settings", "n_mels"), 500),
    (("settings", "zero_crossings"), 1),
    (("settings", "window"), "flat"),
    (("settings", "normalise"), "none"),
    (("statistics",), ...),
    (("statistics",), None),
    (("statistics",), 7),
    (("statistics", "mean"), ...),
    (("statistics", "mean"), [0.0] * 7),
    (("statistics", "mean"), ["0"] * 8),
    (("statistics", "mean"), [True] * 8),
    (("statistics", "mean"), [math.nan] * 8),
    (("statistics", "mean"), [10**400] * 8),
    (("statistics", "deviation"), [-0.1] * 8),
    (("statistics", "deviation"), "11111111"),
    (("statistics", "frames"), 0),
    (("statistics", "frames"), 1.5),
    (("statistics", "frames"), True),
]


@pytest.mark.parametrize(("path", "value"), FAULTS, ids=range(len(FAULTS)))
def test_a_broken_file_is_refused_by_its_path(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    (tmp_path / "features.json").write_text(json.dumps({"kind": "features", **broken(*path, value=value)}))
    with pytest.raises(CheckpointError, match=r"features\.json: not features of speech \(.*restore the run folder"):
        load_parts(tmp_path)


@pytest.mark.parametrize("setting", ["range_db", "without_level"])
def test_features_of_a_run_that_is_older_than_a_setting_are_read(setting: str) -> None:
    content = FITTED[1].to_json()
    del content["settings"][setting]
    assert Features.from_json(content).settings == FITTED[1].settings
