import pytest
import torch
from toy_runs import toy_pairs

from heed.config import DecodeConfig
from heed.data.batch import collate
from heed.data.text import Tokenizer
from heed.errors import ConfigError
from heed.model import ModelConfig, Seq2Seq, build_model
from heed.tasks import Answer
from heed.tasks.translation import Translation, TranslationSettings, longest_translation

PAIRS = toy_pairs(60)
SHAPE = ModelConfig(d_model=12, n_heads=2, n_layers=1, d_ff=20, dropout=0.0)


def prepared(*, label_smoothing: float = 0.0, **settings: object) -> Translation:
    task = Translation(TranslationSettings.model_validate({"vocab_size": 300, **settings}), label_smoothing=label_smoothing)
    task.prepare(PAIRS)
    return task


def model_for(task: Translation) -> Seq2Seq:
    torch.manual_seed(1)
    model = build_model(task.shape(SHAPE))
    assert isinstance(model, Seq2Seq)
    return model.eval()


@pytest.fixture(scope="module")
def joint() -> Translation:
    return prepared()


@pytest.fixture(scope="module")
def separate() -> Translation:
    return prepared(vocab="separate")


def test_a_joint_vocabulary_is_one_part_and_separate_ones_are_two(joint: Translation, separate: Translation) -> None:
    assert joint.parts.keys() == {"tokenizer"}
    assert separate.parts.keys() == {"source_tokenizer", "target_tokenizer"}
    assert joint.shape(SHAPE).source_vocab_size is None
    shape = separate.shape(SHAPE)
    sizes = shape.source_vocab_size, shape.vocab_size
    assert sizes == (separate.source_tokenizer.vocab_size, separate.target_tokenizer.vocab_size)


def test_a_separate_vocabulary_knows_its_own_language_better(separate: Translation) -> None:
    text = PAIRS[3]["source"]
    assert len(separate.source_tokenizer.encode(text)) < len(separate.target_tokenizer.encode(text))


@pytest.mark.parametrize("name", ["joint", "separate"])
def test_both_sides_end_with_the_end_token_and_decode_to_their_text(request: pytest.FixtureRequest, name: str) -> None:
    task = request.getfixturevalue(name)
    for pair in PAIRS[:9]:
        encoded = task.encode(pair, training=True)
        for side, tokenizer in (("source", task.source_tokenizer), ("target", task.target_tokenizer)):
            *ids, last = encoded[side].tolist()
            assert last == Tokenizer.eos_id
            assert Tokenizer.eos_id not in ids
            assert tokenizer.decode(ids) == pair[side]


def test_encoding_for_an_answer_needs_no_target(joint: Translation) -> None:
    assert joint.encode({"source": "the dog"}).keys() == {"source"}


def test_many_are_encoded_as_each_alone(joint: Translation) -> None:
    together = joint.encode_all(PAIRS, training=True)
    for one, pair in zip(together, PAIRS, strict=True):
        alone = joint.encode(pair, training=True)
        assert all(torch.equal(one[side], alone[side]) for side in ("source", "target"))


def test_another_architecture_is_refused(joint: Translation) -> None:
    with pytest.raises(ConfigError, match="translation needs seq2seq, found causal"):
        joint.shape(SHAPE.replace(architecture="causal"))


def test_the_loss_is_the_sum_over_target_tokens_given_those_before(joint: Translation) -> None:
    model = model_for(joint)
    total, units, right = joint.loss(model, collate(joint.encode_all(PAIRS[:5], training=True)))
    expected, n_tokens, n_right = 0.0, 0, 0
    for pair in PAIRS[:5]:
        encoded = joint.encode(pair, training=True)
        target = encoded["target"]
        read = torch.cat([torch.tensor([Tokenizer.bos_id]), target[:-1]])
        logits = model(encoded["source"][None], None, read[None])[0]
        expected += torch.nn.functional.cross_entropy(logits, target, reduction="sum").item()
        n_tokens += len(target)
        n_right += int((logits.argmax(-1) == target).sum())
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert (units.item(), right.item()) == (n_tokens, n_right)


def test_the_loss_is_smoothed_in_training_only() -> None:
    plain, smooth = prepared(), prepared(label_smoothing=0.2)
    batch = collate(plain.encode_all(PAIRS[:5], training=True))
    model = model_for(plain)
    assert smooth.loss(model, batch)[0].item() == plain.loss(model, batch)[0].item()
    model.train()
    assert smooth.loss(model, batch)[0].item() != plain.loss(model, batch)[0].item()


def test_answers_never_hold_special_tokens_and_keep_to_their_limits(joint: Translation) -> None:
    model = model_for(joint)
    batch = collate(joint.encode_all([{"source": pair["source"]} for pair in PAIRS[:6]]))
    for options in (DecodeConfig(beams=3, n_best=3), DecodeConfig(sample=True, temperature=5.0)):
        for answer, n in zip(joint.predict(model, batch, options), batch.mask("source").sum(1).tolist(), strict=True):
            for one in (answer, *answer.others):
                assert not any(special in one.text for special in ("<pad>", "<bos>", "<unk>", "<eos>"))
                assert len(one.text.encode("utf-8", "replace")) <= 30 * longest_translation(n)


def test_an_empty_source_gets_an_empty_answer_in_any_company(joint: Translation) -> None:
    model = model_for(joint)
    batch = collate(joint.encode_all([{"source": "the dog"}, {"source": ""}, {"source": "\u200b "}]))
    answers = joint.predict(model, batch, DecodeConfig(beams=2))
    assert [answer.text for answer in answers[1:]] == ["", ""]


def test_references_are_cleaned_as_training_targets_are() -> None:
    task = prepared()
    example = {"source": "x", "target": "<b>ein</b>  Hund"}
    assert task.score([Answer("ein Hund")], [example]).to_json()["exact_match"]["value"] > 0


def test_a_picture_has_one_row_per_target_token_and_one_column_per_source_token(joint: Translation) -> None:
    picture = joint.pictures(model_for(joint), PAIRS[0], Answer("der Hund"))
    assert picture is not None
    assert picture["source"][-1] == picture["target"][-1] == "<eos>"
    weights = torch.tensor(picture["weights"])
    assert weights.shape == (len(picture["target"]), len(picture["source"]))
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)), rtol=0, atol=2e-3)


def test_there_is_no_picture_of_an_answer_that_learned_positions_cannot_hold(joint: Translation) -> None:
    learned = build_model(joint.shape(SHAPE.replace(positions="learned", max_length=16)))
    assert joint.pictures(learned, {"source": "dog"}, Answer("\ufffd" * 12)) is None
