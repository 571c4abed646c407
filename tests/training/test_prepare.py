import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_runs import TINY, TINY_TEXTS, Census, toy_pairs, toy_texts, write_pairs, write_rows

from heed.config import merge
from heed.data.read import read_examples
from heed.errors import ConfigError, DataError
from heed.files import sha256
from heed.run import RunConfig, resolve
from heed.tasks import split as split_module
from heed.training import prepare as prepare_module
from heed.training.division import MOST_HELD_OUT, held_out_share
from heed.training.prepare import Prepared, prepare, reopen


def config_of(train: Path, **settings: Any) -> RunConfig:
    return resolve(merge(TINY, {"data": {"train": str(train)}}), settings)


def prepared_in(folder: Path, config: RunConfig) -> tuple[Prepared, str, dict[str, Any]]:
    said: list[str] = []
    prepared = prepare(config, folder, said.append)
    return prepared, "\n".join(said), json.loads((folder / "data_report.json").read_text(encoding="utf-8"))


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.tsv", toy_pairs(150))


def test_config_and_parts_are_there_before_the_first_step(tmp_path: Path, pairs_file: Path) -> None:
    prepared, _, _ = prepared_in(tmp_path / "run", config_of(pairs_file))
    config = (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    for text in ("format: 2", "seed: 1", "command:", "torch:", sha256(pairs_file), f"vocab_size: {prepared.run.config.model.vocab_size}"):
        assert text in config
    assert (tmp_path / "run" / "parts" / "tokenizer.json").is_file()


def test_a_renamed_column_that_nothing_reads_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.columns\.sorce would be ignored"):
        prepare(config_of(tmp_path / "absent.tsv", data={"columns": {"sorce": "de"}}), tmp_path / "run", print)
    assert not (tmp_path / "run").exists()


def test_held_out_rows_are_the_same_every_time_and_none_is_trained_on(tmp_path: Path, pairs_file: Path) -> None:
    first, said, _ = prepared_in(tmp_path / "a", config_of(pairs_file))
    again, _, _ = prepared_in(tmp_path / "b", config_of(pairs_file))
    other, _, _ = prepared_in(tmp_path / "c", config_of(pairs_file, seed=9))
    train, valid = set(first.train.rows.tolist()), set(first.valid.rows.tolist())
    assert train | valid == set(range(150))
    assert not train & valid
    assert valid == set(again.valid.rows.tolist()) != set(other.valid.rows.tolist())
    assert "held out about 6.7% of the training examples, as there is no data.valid" in said


def test_equal_inputs_are_never_on_both_sides_of_a_held_out_share(tmp_path: Path) -> None:
    pairs = toy_pairs(60)
    again = [{"source": pair["source"], "target": "anders"} for pair in pairs]
    prepared, _, _ = prepared_in(tmp_path / "run", config_of(write_pairs(tmp_path / "p.tsv", pairs + again)))
    sources = [pair["source"] for pair in pairs + again]
    assert not {sources[row] for row in prepared.train.rows} & {sources[row] for row in prepared.valid.rows}


@pytest.mark.parametrize(
    ("n_rows", "share", "expected"), [(20, 0.02, 10), (1000, 0.02, 20), (1000, 0.2, 200), (40_000, 0.3, MOST_HELD_OUT)]
)
def test_the_held_out_share_is_at_least_ten_rows_and_at_most_two_thousand(n_rows: int, share: float, expected: int) -> None:
    assert held_out_share(n_rows, share) * n_rows == pytest.approx(expected)


def test_given_validation_data_is_used_whole_and_nothing_is_held_out(tmp_path: Path, pairs_file: Path) -> None:
    valid = write_pairs(tmp_path / "valid.tsv", toy_pairs(17, seed=1))
    prepared, said, report = prepared_in(tmp_path / "run", config_of(pairs_file, data={"valid": str(valid)}))
    assert (len(prepared.train), len(prepared.valid)) == (150, 17)
    assert "held out" not in said
    assert "held_out" not in report


def test_longer_examples_than_max_length_are_left_out_counted_and_said_never_cut(tmp_path: Path) -> None:
    long = {"source": "dog " * 60, "target": "Hund"}
    train = write_pairs(tmp_path / "train.tsv", [*toy_pairs(40), long, *toy_pairs(10, seed=4), long])
    valid = write_pairs(tmp_path / "valid.tsv", [*toy_pairs(10, seed=5), long])
    prepared, said, report = prepared_in(tmp_path / "run", config_of(train, data={"valid": str(valid), "max_length": 40}))
    assert prepared.train.rows.tolist() == [*range(40), *range(41, 51)]
    assert prepared.valid.rows.tolist() == list(range(10))
    assert prepared.train.lengths().max() <= 40
    assert "2 training examples longer than data.max_length=40 tokens: left out" in said
    assert "1 validation example longer than data.max_length=40 tokens: left out" in said
    assert (report["too_long"], report["too_long_valid"]) == (2, 1)


def test_the_length_limit_counts_the_end_token_of_the_longer_side(tmp_path: Path, pairs_file: Path) -> None:
    prepared, _, _ = prepared_in(tmp_path / "free", config_of(pairs_file))
    longest = int(max(prepared.train.lengths().max(), prepared.valid.lengths().max()))
    _, _, report = prepared_in(tmp_path / "fits", config_of(pairs_file, data={"max_length": longest}))
    assert report["too_long"] + report["too_long_valid"] == 0
    _, _, report = prepared_in(tmp_path / "short", config_of(pairs_file, data={"max_length": longest - 1}))
    assert report["too_long"] + report["too_long_valid"] > 0


def test_when_every_example_is_too_long_the_error_says_so(tmp_path: Path, pairs_file: Path) -> None:
    with pytest.raises(DataError, match=r"no train examples to use: all \d+ are longer than data.max_length=1 tokens"):
        prepare(config_of(pairs_file, data={"max_length": 1}), tmp_path / "run", lambda _: None)


def test_faulty_rows_are_counted_and_dropped_only_when_asked(tmp_path: Path) -> None:
    pairs = toy_pairs(50)
    path = write_pairs(tmp_path / "p.tsv", [*pairs, pairs[0], {"source": "same", "target": "same"}])
    kept, said, _ = prepared_in(tmp_path / "kept", config_of(path))
    assert len(kept.train) + len(kept.valid) == 52
    assert "kept; data.filter=true drops them" in said
    filtered, said, report = prepared_in(tmp_path / "filtered", config_of(path, data={"filter": True}))
    assert {50, 51}.isdisjoint(filtered.train.rows.tolist())
    assert report["filtered"] >= 2
    assert f"dropped {report['filtered']} of them" in said


def test_skipped_bad_rows_are_counted_and_shown_for_every_file(tmp_path: Path) -> None:
    files = {}
    for name, line in (("train", "only one side"), ("valid", "\tno source")):
        files[name] = write_pairs(tmp_path / f"{name}.tsv", toy_pairs(30))
        with files[name].open("a") as file:
            file.write(f"{line}\n")
    data = {"valid": str(files["valid"])}
    with pytest.raises(DataError, match=r"train.tsv:32: .*data.bad_rows=skip"):
        prepare(config_of(files["train"], data={"valid": str(write_pairs(tmp_path / "ok.tsv", toy_pairs(9)))}), tmp_path / "a", print)
    _, said, report = prepared_in(tmp_path / "b", config_of(files["train"], data=data | {"bad_rows": "skip"}))
    assert f"skipped 1 bad row of {files['train']}, first: {files['train']}:32: " in said
    assert f"skipped 1 bad row of {files['valid']}, first: {files['valid']}:32: " in said
    assert report["reading"]["bad"] == report["reading_others"]["valid"]["bad"] == 1


def test_training_without_a_file_says_which_setting_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train is not set"):
        prepare(resolve(TINY), tmp_path / "run", lambda _: None)


def test_stores_that_were_deleted_are_encoded_again_to_the_same_examples(tmp_path: Path, pairs_file: Path) -> None:
    config = config_of(pairs_file, data={"filter": True})
    first, _, _ = prepared_in(tmp_path / "run", config)
    before = {name: [dict(one) for one in store] for name, store in (("train", first.train), ("valid", first.valid))}
    rows = first.train.rows.tolist()
    shutil.rmtree(tmp_path / "run" / "store")
    again = reopen(tmp_path / "run", lambda _: None)
    assert again.train.rows.tolist() == rows
    for name, store in (("train", again.train), ("valid", again.valid)):
        assert len(store) == len(before[name])
        for one, other in zip(store, before[name], strict=True):
            assert {key: value.tolist() for key, value in one.items()} == {key: value.tolist() for key, value in other.items()}


def test_only_a_chunk_of_examples_is_in_memory_while_encoding(tmp_path: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    census = Census()
    read = read_examples
    monkeypatch.setattr(split_module, "read_examples", lambda *args, **options: map(census.counted, read(*args, **options)))
    monkeypatch.setattr(prepare_module, "CHUNK", 16)
    prepared_in(tmp_path / "run", config_of(pairs_file))
    assert 16 <= census.most <= 2 * 16 + 2


@pytest.mark.parametrize("stored", [True, False])
def test_going_on_with_data_that_changed_is_refused_by_name(tmp_path: Path, pairs_file: Path, stored: bool) -> None:
    prepared_in(tmp_path / "run", config_of(pairs_file))
    if not stored:
        shutil.rmtree(tmp_path / "run" / "store")
    write_pairs(pairs_file, toy_pairs(151))
    with pytest.raises(DataError, match=r"data\.train=.*pairs\.tsv: changed since this run was started.*--allow-changed-data"):
        reopen(tmp_path / "run", lambda text: None)


def test_changed_data_that_is_allowed_is_encoded_again_and_remembered(tmp_path: Path, pairs_file: Path) -> None:
    before, _, _ = prepared_in(tmp_path / "run", config_of(pairs_file))
    n_before = len(before.train) + len(before.valid)
    write_pairs(pairs_file, toy_pairs(n_before + 7))
    after = reopen(tmp_path / "run", lambda text: None, allow_changed_data=True)
    assert after.changed == ("train",)
    assert len(after.train) + len(after.valid) == n_before + 7
    assert reopen(tmp_path / "run", lambda text: None).changed == ()
    write_pairs(pairs_file, toy_pairs(n_before))
    with pytest.raises(DataError, match="changed since"):
        reopen(tmp_path / "run", lambda text: None)


def test_going_on_needs_the_data_only_to_encode_it_again(tmp_path: Path, pairs_file: Path) -> None:
    prepared_in(tmp_path / "run", config_of(pairs_file))
    pairs_file.unlink()
    said: list[str] = []
    assert len(reopen(tmp_path / "run", said.append).train)
    assert any("going on with the examples encoded before" in line and "no such file" in line for line in said)
    shutil.rmtree(tmp_path / "run" / "store")
    with pytest.raises(DataError, match="no such file"):
        reopen(tmp_path / "run", said.append)


@pytest.fixture
def text_files(tmp_path: Path) -> dict[str, str]:
    rows = toy_texts(60)
    parts = {"train": rows[:36], "valid": rows[36:48], "test": rows[48:]}
    return {name: str(write_rows(tmp_path / f"{name}.tsv", some)) for name, some in parts.items()}


def test_an_unknown_label_in_the_test_data_is_named_before_training_with_its_line(tmp_path: Path, text_files: dict[str, str]) -> None:
    with Path(text_files["test"]).open("a", encoding="utf-8") as file:
        file.write("the red dog barks\twram\n")
    config = resolve(merge(TINY_TEXTS, {"data": text_files}))
    with pytest.raises(DataError, match=r"test\.tsv:14: label 'wram' is not one of cold, plain, warm; did you mean 'warm'\?"):
        prepare(config, tmp_path / "run", lambda text: None)
    prepared, said, report = prepared_in(tmp_path / "skipped", config.replace(data={**config.data.model_dump(), "bad_rows": "skip"}))
    assert "skipped 1 bad row" in said
    assert report["examples"] == {"train": len(prepared.train), "valid": len(prepared.valid), "test": 12}


def test_texts_that_stand_in_both_validation_and_test_data_are_counted_and_said(tmp_path: Path, text_files: dict[str, str]) -> None:
    lines = Path(text_files["valid"]).read_text(encoding="utf-8").splitlines()
    with Path(text_files["test"]).open("a", encoding="utf-8") as file:
        file.writelines(f" {line}\n" for line in lines[1:4])  # white space makes no other text
    _, said, report = prepared_in(tmp_path / "run", resolve(merge(TINY_TEXTS, {"data": text_files})))
    assert report["train"]["shared"] == {"valid and test": 3}
    assert "3 examples stand both in the valid and test data" in said
    assert report["train"]["leaks"] == {"valid": 0, "test": 0}


@pytest.mark.parametrize(
    ("base", "metric", "expected"),
    [
        (TINY_TEXTS, "f1_marco", r"train\.best_metric=f1_marco is not one of loss, accuracy, .*f1_macro.*; did you mean f1_macro\?"),
        (TINY_TEXTS, "f1", r"train\.best_metric=f1 is not one of loss, accuracy, .*; did you mean f1_macro\?"),
        (TINY_TEXTS, "coverage", r"train\.best_metric=coverage is not one of"),  # which there is only once a threshold is fitted
        (TINY, "blue", r"train\.best_metric=blue is not one of loss, .*did you mean bleu\?"),
    ],
)
def test_a_metric_that_no_evaluation_yields_is_refused_before_the_data_are_read(
    tmp_path: Path, base: dict[str, Any], metric: str, expected: str
) -> None:
    settings = {"data": {"train": str(tmp_path / "not there.tsv")}, "train": {"best_metric": metric}}
    with pytest.raises(ConfigError, match=expected):
        prepare(resolve(merge(base, settings)), tmp_path / "run", lambda text: None)


def test_the_hashes_of_the_files_that_were_named_are_kept(tmp_path: Path, pairs_file: Path, text_files: dict[str, str]) -> None:
    for name, config in (("pairs", config_of(pairs_file)), ("texts", resolve(merge(TINY_TEXTS, {"data": text_files})))):
        prepare(config, tmp_path / name, lambda text: None)
        content = yaml.safe_load((tmp_path / name / "config.yaml").read_text(encoding="utf-8"))
        named = {split: path for split, path in config.data.model_dump().items() if split in ("train", "valid", "test") and path}
        assert content["data_sha256"] == {split: {Path(path).name: sha256(Path(path))} for split, path in named.items()}


def test_the_size_of_the_data_is_told_in_tokens_and_words_never_in_words_tokens(tmp_path: Path, pairs_file: Path) -> None:
    _, said, report = prepared_in(tmp_path / "pairs", config_of(pairs_file))
    assert f"; {report['tokens']['source']:,} source, {report['tokens']['target']:,} target tokens" in said
    assert f"{report['batches']} batches an epoch" in said
    path = tmp_path / "tags.jsonl"
    path.write_text("".join(json.dumps({"tokens": ["Ada", str(i)], "tags": ["B-PER", "O"]}) + "\n" for i in range(30)), encoding="utf-8")
    settings = {"task": {"name": "tagging", "vocab_size": 300}, "data": {"train": str(path), "valid": str(path)}}
    tagging = resolve({**TINY_TEXTS, **settings}, {"train": {"batch_tokens": 5000}})
    _, said, report = prepared_in(tmp_path / "tagging", tagging)
    assert f"; {report['tokens']['tokens']:,} tokens, 60 words, 60 tags\n" in said
    assert "\n1 batch an epoch" in said


def test_what_an_answer_quotes_from_does_not_count_as_tokens_of_an_example(tmp_path: Path) -> None:
    rows = [{"tokens": " ".join(["Mississippi"] * 5), "tags": " ".join(["B-LOC"] * 5)}] * 30
    path = write_rows(tmp_path / "tags.tsv", rows)
    settings = {"task": {"name": "tagging", "vocab_size": 300, "overlap": 2}, "data": {"train": str(path), "valid": str(path)}}
    for length, n_long in ((40, 0), (5, 30)):  # of 59 characters and 6 tokens
        config = resolve({**TINY_TEXTS, **settings}, {"data": {"max_length": length}})
        prepared, _, report = prepared_in(tmp_path / str(length), config)
        assert (len(prepared.train) > 30) == (n_long > 0)
        assert report["too_long"] == report["too_long_valid"] == n_long


def test_batches_of_single_pairs_are_refused_where_a_batch_is_what_is_learned_from(tmp_path: Path) -> None:
    rows = [{"text": f"{i} {one['source']}", "text_pair": one["target"]} for i, one in enumerate(toy_pairs(30))]
    path = write_rows(tmp_path / "pairs.tsv", rows)
    config = resolve({**TINY_TEXTS, "task": {"name": "sentence_similarity", "vocab_size": 300}, "data": {"train": str(path)}})
    alone = config.replace(train=config.train.replace(batch_tokens=1))
    with pytest.raises(ConfigError, match=r"train.batch_tokens=1: every batch holds a single example.*raise it"):
        prepare(alone, tmp_path / "alone", lambda _: None)
    prepared_in(tmp_path / "together", config)


def test_a_single_row_that_leaves_nothing_to_hold_out_says_what_to_do(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "one.tsv", toy_pairs(1))
    with pytest.raises(DataError, match="to use: none were left; give more rows"):
        prepare(config_of(path), tmp_path / "run", lambda _: None)
