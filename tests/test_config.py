"""Settings: what YAML and overrides mean, and that every refusal says where, what was found and what was meant."""

import contextlib
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from heed.config import (
    DecodeConfig,
    Settings,
    TrainConfig,
    dump_yaml,
    find_recipe,
    merge,
    parse_overrides,
    parse_yaml,
    read_yaml,
    recipe_folder,
    validate,
)
from heed.errors import ConfigError
from heed.run import FORMAT, RunConfig, resolve


class Inner(Settings):
    size: int = Field(default=3, ge=1)
    kind: Literal["round", "square"] = "round"
    on: bool = False
    names: dict[str, str] = Field(default_factory=dict)


class Outer(Settings):
    rate: float = 0.1
    label: str | None = None
    inner: Inner = Inner()


def refusal(*pairs: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve("translation", parse_overrides(pairs))
    return str(caught.value)


@pytest.mark.parametrize(
    ("pair", "found", "meant"),
    [
        ("train.lrr=0.5", "0.5", "train.lr"),
        ("trian.lr=0.5", "0.5", "train.lr"),
        ("model.nheads=2", "2", "model.n_heads"),
        ("lr=0.5", "0.5", "train.lr"),
        ("train.beams=2", "2", "decode.beams"),
        ("sede=2", "2", "seed"),
        ("data.trian=x.tsv", "'x.tsv'", "data.train"),
        ("task.vocabsize=900", "900", "task.vocab_size"),
        ("decoding.length_penalty=1.0", "1.0", "decode.length_penalty"),
        ("model.pos=rotary", "'rotary'", "model.positions"),
    ],
)
def test_an_unknown_setting_is_refused_with_its_path_what_was_found_and_the_nearest_name(pair: str, found: str, meant: str) -> None:
    assert refusal(pair) == f"{pair.partition('=')[0]}: unknown setting, found {found}; did you mean {meant}?"


def test_where_nothing_is_near_the_names_that_are_known_are_told() -> None:
    assert refusal("data.zzzzzz=1").startswith("data.zzzzzz: unknown setting, found 1; known here: train, valid, test, extra, columns")
    assert refusal("zzzzzz=1") == "zzzzzz: unknown setting, found 1; known here: seed, init, task, data, model, train, lora, decode"


@pytest.mark.parametrize(
    ("pair", "parts"),
    [
        ("train.steps=many", ["train.steps: expected a valid integer", "found 'many'"]),
        ("train.steps=1.5", ["train.steps: expected a valid integer", "found 1.5"]),
        ("train.steps=true", ["train.steps: expected something other than true or false", "found True"]),
        ("train.lr=false", ["train.lr: expected something other than true or false", "found False"]),
        ("train.lr=0", ["train.lr: expected greater than 0, found 0"]),
        ("train.lr=.inf", ["train.lr: expected a finite number, found inf"]),
        ("train.lr=.nan", ["train.lr: expected a finite number, found nan"]),
        ("train.lr=[1, 2]", ["train.lr: expected a valid number, found [1, 2]"]),
        ("train.schedule=cosin", ["train.schedule: expected 'cosine', 'inverse_sqrt'", "found 'cosin'"]),
        ("data.header=[a, [b]]", ["data.header.1: expected a valid string, found ['b']"]),
        ("data.columns=source", ["data.columns: expected a valid dictionary, found 'source'"]),
        ("data.train=true", ["data.train: ", "found True"]),
        ("train=5", ["train: expected settings inside it, such as train.steps, found 5"]),
        ("decode.length_penalty=99", ["decode.length_penalty: expected less than or equal to 10, found 99"]),
        ("task.vocab_size=3", ["task.vocab_size: expected greater than or equal to 300, found 3"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_was_expected(pair: str, parts: list[str]) -> None:
    message = refusal(pair)
    assert all(part in message for part in parts), message


def test_every_problem_is_told_at_once() -> None:
    message = refusal("train.lr=fast", "train.clip=-1", "modle.d_model=3", "modle.n_heads=3")
    for path in ("train.lr: ", "train.clip: ", "modle.d_model: unknown", "did you mean model.d_model?", "modle.n_heads: unknown"):
        assert path in message


@pytest.mark.parametrize(
    ("pairs", "parts"),
    [
        (["model.d_model=16", "model.n_heads=3"], ["model.n_heads=3", "model.d_model=16", "choose a divisor"]),
        (["decode.n_best=4", "decode.beams=3"], ["decode.n_best=4", "decode.beams=3", "raise decode.beams"]),
    ],
)
def test_an_impossible_combination_is_refused_by_both_names(pairs: list[str], parts: list[str]) -> None:
    message = refusal(*pairs)
    assert all(part in message for part in parts), message
    assert "{" not in message  # not the whole section


def test_more_answers_than_beams_are_welcome_when_sampling() -> None:
    assert validate(DecodeConfig, {"n_best": 9, "beams": 2, "top_k": 5}).sampling


@pytest.mark.parametrize(
    ("below", "over", "complaint"),
    [
        ({"sample": True}, {"beams": 5}, r"decode\.beams=5 would be ignored beside decode\.sample=true.*set decode\.sample=false"),
        ({}, {"beams": 5, "top_k": 3}, r"decode\.beams=5 would be ignored beside decode\.top_k=3.*leave out decode\.top_k"),
        ({"sample": True}, {"sample": False, "min_p": 0.1}, r"decode\.sample=false contradicts decode\.min_p=0\.1"),
    ],
)
def test_settings_of_a_search_are_refused_beside_those_that_draw(below: dict[str, Any], over: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        DecodeConfig(**below).overlaid(over)
    with pytest.raises(ConfigError, match=complaint):
        resolve({"task": "text_to_text", "decode": below}, {"decode": over})


def test_what_is_not_given_may_stand_beside_anything() -> None:
    assert DecodeConfig(beams=4).overlaid({"temperature": 0.5}).sampling
    assert DecodeConfig(sample=True).overlaid({"beams": 1, "seed": 3}).sampling


def test_sample_false_takes_back_what_draws_below_it() -> None:
    below = DecodeConfig(sample=True, temperature=0.5, top_k=3, top_p=0.5, min_p=0.1, beams=1)
    assert below.overlaid({"sample": False, "beams": 2}) == DecodeConfig(beams=2)
    recipe = {"task": "text_generation", "decode": {"temperature": 0.5}}
    assert not resolve(recipe, {"decode": {"sample": False, "beams": 2}}).decode.sampling


def test_the_settings_of_a_run_that_draws_are_a_recipe(tmp_path: Path) -> None:
    drawn = resolve("text_to_text", {"decode": {"temperature": 0.5}})
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml({"format": FORMAT, **drawn.model_dump()}), encoding="utf-8")
    assert resolve(str(path)).decode == drawn.decode.replace(sample=True, beams=1)


@pytest.mark.parametrize(("task", "name", "value"), [("text_classification", "temperature", 0.5), ("tagging", "n_best", 2)])
def test_training_refuses_settings_of_decoding_that_its_task_has_no_use_for(task: str, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"decode\.{name} would be ignored: {task} reads"):
        resolve({"task": task}, {"decode": {name: value}})
    with pytest.raises(ConfigError, match=rf"decode\.{name} would be ignored: {task} reads"):
        resolve({"task": task, "decode": {name: value}})


def test_what_has_no_default_must_be_given() -> None:
    with pytest.raises(ConfigError, match="task: is not given, and has no default"):
        validate(RunConfig, {})


def test_long_values_are_shortened_in_messages() -> None:
    assert len(refusal("train.lr=" + "x" * 5000)) < 300
    assert len(refusal("train.lrr=[" + "9," * 5000 + "]")) < 300


def test_the_place_of_a_section_stands_before_its_paths() -> None:
    with pytest.raises(ConfigError, match=r"^box\.inner\.sise: unknown setting, found 1; did you mean box\.inner\.size\?$"):
        validate(Outer, {"inner": {"sise": 1}}, "box")


def test_settings_cannot_be_changed_only_replaced() -> None:
    settings = Outer()
    with pytest.raises(ValidationError, match="frozen"):
        settings.rate = 1.0
    assert settings.replace(rate=2).rate == 2.0
    with pytest.raises(ConfigError, match=r"rate: expected a valid number.*found 'x'"):
        settings.replace(rate="x")


@pytest.mark.parametrize(
    "value", ["yes", "no", "on", "off", "5e-4x", "0x10", "1_000", "007", "2020-01-01", "12:30", "=", "<<", "1e", "+", "."]
)
def test_only_plain_numbers_true_false_and_null_are_more_than_text(value: str) -> None:
    assert parse_yaml(f"key: {value}", "x") == {"key": value}
    assert parse_overrides([f"key={value}"]) == {"key": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("5e-4", 5e-4),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1.5e-3", -0.0015),
            ("12", 12),
            ("-0", 0),
            ("+7", 7),
        ],
        *[("true", True), ("False", False), ("null", None), ("Null", None), (".inf", math.inf), ("-.INF", -math.inf)],
        *[("'no'", "no"), ('"5e-4"', "5e-4"), ("[1, no, 5e-4]", [1, "no", 5e-4]), ("{a: 1}", {"a": 1}), ("[]", []), ('"a\\tb"', "a\tb")],
    ],
)
def test_values_mean_the_same_in_recipes_and_overrides(text: str, value: Any) -> None:
    assert parse_yaml(f"key: {text}", "x") == {"key": value}
    found = parse_overrides([f"key={text}"])
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "data/train.{en,de}",
        "C:\\data\\x.tsv",
        "a b: c",
        "x # y",
        "~",
        "~/data",
        "-",
        "--",
        "---",
        "...",
        "a=b",
        "&a",
        "*a",
        "!x",
        "%",
        "|",
        "👍",
    ],
)
def test_what_is_no_plain_value_in_an_override_is_text(value: str) -> None:
    assert parse_overrides([f"data.train={value}"]) == {"data": {"train": value}}


def test_overrides_nest_by_their_dots_and_the_last_one_counts() -> None:
    assert parse_overrides(["a.b.c=1", "a.b.d=2", "e=3", "a.b.c=4"]) == {"a": {"b": {"c": 4, "d": 2}}, "e": 3}
    assert parse_overrides([]) == {}


@pytest.mark.parametrize("pair", ["init=", "data.valid= ", "decode.stop="])
def test_a_setting_without_a_value_is_refused_with_what_to_write_for_none(pair: str) -> None:
    name = pair.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"has no value; give one, or write {name}=null for none") as caught:
        parse_overrides([pair])
    assert repr(pair) in str(caught.value)


@pytest.mark.parametrize("pair", ["", "train.lr", "=5", ".lr=5", "train.=5", "train..lr=5", "."])
def test_what_is_not_key_equals_value_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_overrides([pair])


@pytest.mark.parametrize("pairs", [["task=translation", "task.vocab_size=900"], ["task.vocab_size=900", "task=translation"]])
def test_a_section_is_not_given_both_whole_and_in_parts(pairs: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"'{pairs[1]}': .*already given"):
        parse_overrides(pairs)


@pytest.mark.parametrize("pair", ["a=[1, 2", "a='x", 'a="x', "a={b: *c}", "a={!!python/name:os.system x}", "a=[1]]"])
def test_a_broken_value_is_refused_by_its_pair(pair: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        parse_overrides([pair])
    assert str(caught.value).startswith(pair)


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
BAD_YAML = {
    "alias": (LAUGHS, r":2: .*alias \*a; write the value out"),
    "circle": ("a: &a [*a]", r":1: .*alias"),
    "object": ("a: !!python/object/apply:os.system [echo]", r":1: .*tag .*python/object"),
    "own tag": ("a: !secret x", r":1: .*tag '!secret'"),
    "plain tag": ("a: !!bool maybe", r":1: .*tag"),
    "twice": ("a: 1\nb:\n  c: 1\n  c: 2", r":4: .*'c' is given twice"),
    "twice in a flow": ("a: {b: 1, b: 2}", r":1: .*'b' is given twice"),
    "list as key": ("? [1, 2]\n: 3", r":1: .*unhashable"),
    "open": ("a: [1, 2", r":1: "),
    "tab": ("a:\n\tb: 1", r":2: "),
    "two documents": ("a: 1\n---\nb: 2", r":2: .*single document"),
    "nul": ("a: x\0y", r": .*#x0000"),
    "depth": ("a: " + "[" * 20_000, r": .*recursion"),
    "digits": ("a: " + "9" * 20_000, r": .*digits"),
}


@pytest.mark.parametrize(("text", "message"), BAD_YAML.values(), ids=BAD_YAML)
def test_yaml_that_is_more_than_settings_is_refused_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(ConfigError, match="recipe.yaml" + message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just text", "5", "5: x", "~: x"])
def test_a_recipe_is_a_mapping_of_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml: expected settings as 'name: value' lines at the top level, found"):
        read_yaml(tmp_path / "recipe.yaml")


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_bytes("a: 1".encode("utf-16"))
    for path in (tmp_path, tmp_path / "absent.yaml", tmp_path / "wide.yaml", tmp_path / "nul\0.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_yaml(path)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbfseed: 3\r\n")
    assert read_yaml(tmp_path / "recipe.yaml") == {"seed": 3}


@given(text=st.text(alphabet="ab1:-?[]{},#&*!|>'\"%@` \n\t.~\\\0\ufeffé", max_size=30))
def test_any_text_is_a_value_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_yaml(text, "x")


TRICKY = [
    *[
        "no",
        "Yes",
        "on",
        "y",
        "1e3",
        "1.",
        "0x10",
        "0o17",
        "010",
        "08",
        "1_000",
        "~",
        "null",
        "",
        " ",
        "2020-01-01",
        "12:30:00",
        "=",
        "<<",
        "-",
        "---",
    ],
    *[
        "a: b",
        "a #b",
        "line\nline\n",
        "\n\nx",
        " lead",
        "trail ",
        "tab\tx",
        "\x85",
        "\u2028",
        "\ufeff",
        "\ud800",
        "\x00",
        "\x7f",
        "日本",
        "👩‍🚀",
        "*a",
        "!b",
    ],
    *["x" * 300, "word " * 60, "'", '"', "\\", "%", "@", "`", "{", "[a", "? x", "| y", "true", ".inf", "+.5", "-1"],
]
texts = st.sampled_from(TRICKY) | st.text(max_size=20)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(content=st.dictionaries(texts, plain_values, max_size=4))
@example(content={text: [text, {text: text}] for text in TRICKY})
@example(content={"numbers": [1e22, 1e-7, 5e-4, -0.0, 1e16, 123456789012345678901234567890, math.inf, -math.inf, 3.0]})
def test_what_is_dumped_is_read_back_the_same_here_and_by_any_yaml_reader(content: dict[str, Any]) -> None:
    text = dump_yaml(content)
    assert repr(parse_yaml(text, "x")) == repr(content)  # repr tells 1 from True and from 1.0
    assert repr(yaml.safe_load(text)) == repr(content)


def test_a_value_that_stands_in_two_places_is_written_twice() -> None:
    shared = ["a"]
    text = dump_yaml({"x": shared, "y": shared})
    assert "&" not in text
    assert parse_yaml(text, "x") == {"x": ["a"], "y": ["a"]}


def test_settings_are_written_in_their_own_order() -> None:
    assert list(parse_yaml(dump_yaml({"z": 1, "a": {"y": 2, "b": 3}}), "x")["a"]) == ["y", "b"]


def test_merge_lays_mappings_over_mappings_and_replaces_the_rest() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4, "e": {"f": 5}}
    over = {"a": {"c": [3]}, "d": {"g": 6}, "e": 7, "h": 8}
    assert merge(base, over) == {"a": {"b": 1, "c": [3]}, "d": {"g": 6}, "e": 7, "h": 8}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4, "e": {"f": 5}}


def test_numbers_serve_as_text_where_text_is_wanted() -> None:
    settings = resolve("translation", parse_overrides(["data.train=2024", "data.header=[1, 2]"]))
    assert (settings.data.train, settings.data.header) == ("2024", ["1", "2"])


@pytest.mark.parametrize("recipe", sorted(path.stem for path in recipe_folder().glob("*.yaml")))
def test_every_recipe_that_ships_resolves_and_survives_its_own_dump(recipe: str) -> None:
    config = resolve(recipe)
    assert validate(RunConfig, parse_yaml(dump_yaml(config.model_dump()), recipe)) == config


@pytest.mark.parametrize("kind", [TrainConfig, DecodeConfig, RunConfig])
def test_every_setting_says_what_it_means(kind: type[Settings]) -> None:
    sections = {"data", "model", "train", "lora", "decode"}
    assert all(field.description for name, field in kind.model_fields.items() if name not in sections)


def test_recipes_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: translation")
    assert find_recipe(str(path)) == path
    assert find_recipe(str(tmp_path / "other.yaml")) is None
    assert find_recipe("translation") == recipe_folder() / "translation.yaml"
    assert find_recipe("no_such_recipe") is None
    assert find_recipe("nul\0") is None


def test_an_unknown_recipe_is_refused_with_those_that_ship() -> None:
    with pytest.raises(ConfigError, match=r"translatoin: no such recipe file, and not one that ships; did you mean translation\?"):
        resolve("translatoin")
