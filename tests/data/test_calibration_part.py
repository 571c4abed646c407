"""What a run keeps of its calibration, and when that has something to say."""

import json
from pathlib import Path
from typing import Any

import pytest

from heed.data.calibration import WITHHOLDS_ALL, Calibration
from heed.data.parts import load_parts, save_parts
from heed.errors import CheckpointError

UNREACHABLE = Calibration(1.3, WITHHOLDS_ALL, 0.9, 0.8999, 0.25)


@pytest.mark.parametrize("part", [Calibration(), Calibration(2.5), Calibration(0.7, 0.81, 0.95), UNREACHABLE])
def test_a_calibration_comes_back_from_its_file(tmp_path: Path, part: Calibration) -> None:
    save_parts(tmp_path, {"calibration": part})
    assert load_parts(tmp_path) == {"calibration": part}


def test_a_calibration_of_before_is_read_without_what_it_did_not_tell() -> None:
    content = {"temperature": 1.5, "threshold": 0.6, "wanted_precision": 0.9}
    assert Calibration.from_json(content) == Calibration(1.5, 0.6, 0.9)


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"temperature": None}, {"threshold": "x"}, {"best_share": True}, {"best_precision": float("nan")}]
)
def test_a_forged_calibration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not a calibration"):
        Calibration.from_json({**UNREACHABLE.to_json(), **change})


@pytest.mark.parametrize("part", [Calibration(), Calibration(2.5), Calibration(0.7, 0.81, 0.95)])
def test_a_wish_that_is_fulfilled_needs_no_words(part: Calibration) -> None:
    assert part.remark is None


def test_a_wish_that_cannot_be_fulfilled_is_told_with_what_can_be_had() -> None:
    said = UNREACHABLE.remark
    assert said is not None
    assert "task.abstain_precision=0.9 cannot be kept, so every answer is withheld" in said
    assert "at most 89.9% of the answers are right" in said  # rounded up it would be what was wanted
    assert "only the surest 25.0% are given" in said
    assert "too few validation examples" in str(Calibration(1.0, WITHHOLDS_ALL, 0.9).remark)
    json.dumps(UNREACHABLE.to_json())
