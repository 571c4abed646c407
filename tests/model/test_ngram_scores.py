"""The scores of n-grams: against counting them, and what padding and windows change."""

import math

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from torch import Tensor

from heed.config import TrainConfig, validate
from heed.data.batch import collate
from heed.errors import ConfigError
from heed.model.config import ModelConfig
from heed.model.models import Encoder, build_model
from heed.model.ngrams import GAIN, NGramScores
from heed.model.packed import pack
from heed.training.optim import build_optimizer

ROWS = 1009


@pytest.fixture
def scores() -> NGramScores:
    torch.manual_seed(3)
    module = NGramScores(3, 2, ROWS, dropout=0.0)
    torch.nn.init.normal_(module.weight)
    torch.nn.init.uniform_(module.rarity, 1, 5)
    return module


def counted(module: NGramScores, text: list[int]) -> Tensor:
    """Add the scores of a text's n-grams one by one, each once."""
    rows: set[int] = set()
    for n in range(1, module.longest + 1):
        for start in range(len(text) - n + 1):
            found = list(module.rows(torch.tensor([text[start : start + n]])))
            rows.add(int(found[n - 1][0, -1]))
    total = sum((module.rarity[row] * module.weight[row] for row in rows), torch.zeros(2))
    return GAIN * total / math.sqrt(sum(float(module.rarity[row]) ** 2 for row in rows))


def test_scores_are_those_of_all_n_grams_once_by_their_rarity(scores: NGramScores) -> None:
    texts = [[5, 9, 5, 9, 7], [4, 8]]
    for text in texts:
        torch.testing.assert_close(scores(torch.tensor([text]))[0], counted(scores, text), rtol=1e-5, atol=1e-5)


def test_rarity_is_that_of_scikit_learn_and_nothing_of_what_one_text_holds(scores: NGramScores) -> None:
    texts = ["5 9 5 9 7", "4 8 5 9", "9 5", "8", "7 7"]
    counter = CountVectorizer(ngram_range=(1, 3), token_pattern=r"\S+").fit(texts)
    expected = TfidfTransformer().fit(counter.transform(texts)).idf_
    held = (counter.transform(texts) > 0).sum(0).A1
    scores.rarity.zero_()
    batch = collate([{"text": torch.tensor([int(word) for word in text.split()])} for text in texts])
    scores.learn_rarity([(batch["text"][:2], batch.mask("text")[:2]), (batch["text"][2:], batch.mask("text")[2:])])
    for words, column in counter.vocabulary_.items():
        ids = torch.tensor([[int(word) for word in words.split()]])
        row = list(scores.rows(ids))[ids.size(1) - 1][0, -1]
        assert scores.rarity[row].item() == pytest.approx(expected[column] if held[column] > 1 else 0, abs=1e-5)
    assert int((scores.rarity > 0).sum()) == int((held > 1).sum())


def test_known_rarities_stay(scores: NGramScores) -> None:
    scores.rarity.zero_()
    ids = torch.tensor([[5], [5], [7]])
    rows = next(iter(scores.rows(ids)))[:, 0]
    scores.rarity[rows[0]] = 9.0
    scores.learn_rarity([(ids, torch.ones_like(ids, dtype=torch.bool)), (ids[2:], torch.ones(1, 1, dtype=torch.bool))])
    assert scores.rarity[rows[0]] == 9.0
    assert scores.rarity[rows[2]] == pytest.approx(1 + math.log(5 / 3))


def test_a_text_without_known_n_grams_scores_nothing(scores: NGramScores) -> None:
    scores.rarity.zero_()
    assert torch.equal(scores(torch.tensor([[5, 9]])), torch.zeros(1, 2))
    none = torch.zeros(1, 2, dtype=torch.bool)
    assert torch.equal(scores(torch.tensor([[5, 9]]), none), torch.zeros(1, 2))


def test_padding_adds_nothing(scores: NGramScores) -> None:
    ids, mask = torch.tensor([[5, 9, 7, 0, 0], [4, 8, 6, 3, 2]]), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    torch.testing.assert_close(scores(ids, mask)[:1], scores(ids[:1, :3]), rtol=1e-6, atol=1e-6)


def test_the_order_of_tokens_counts_and_their_place_does_not(scores: NGramScores) -> None:
    one, turned = torch.tensor([[5, 9]]), torch.tensor([[9, 5]])
    assert not torch.allclose(scores(one), scores(turned))
    rows = list(scores.rows(torch.tensor([[5, 9, 5, 9]])))
    assert all(torch.equal(found[0, 1], found[0, 3]) for found in rows[:2])


def test_tokens_share_what_their_n_grams_say(scores: NGramScores) -> None:
    ids, mask = torch.tensor([[5, 9, 7, 0], [4, 8, 6, 3]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    shares = scores.by_token(ids, mask)
    torch.testing.assert_close(shares.sum(1), scores(ids, mask), rtol=1e-5, atol=1e-6)
    assert shares[0, 3].eq(0).all()
    alone = torch.tensor([[5, 9]])
    weights = [scores.weight[found[0]] for found in scores.rows(alone)][:2]
    rarity = [scores.rarity[found[0]] for found in scores.rows(alone)][:2]
    expected = rarity[0][0] * weights[0][0] + rarity[1][1] * weights[1][1] / 2  # the word itself, and half of the pair
    length = (rarity[0].square().sum() + rarity[1][1] ** 2).sqrt()
    torch.testing.assert_close(scores.by_token(alone)[0, 0], GAIN * expected / length, rtol=1e-5, atol=1e-6)


def test_rows_spread_evenly() -> None:
    module = NGramScores(2, 2, 64, dropout=0.0)
    pairs = torch.cartesian_prod(torch.arange(100), torch.arange(100))
    *_, rows = module.rows(pairs)
    counts = torch.bincount(rows[:, 1], minlength=64).double()
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert 20 < chi2 < 130  # 63 degrees of freedom: the mean is 63, four deviations 45 on either side


def test_dropout_keeps_what_is_expected(scores: NGramScores) -> None:
    dropped = NGramScores(3, 2, ROWS, dropout=0.5).train()
    dropped.load_state_dict(scores.state_dict())
    ids = torch.tensor([[5, 9, 7, 4]])
    found = torch.stack([dropped(ids) for _ in range(4000)])
    deviation = found.std(0) / math.sqrt(4000)
    assert ((found.mean(0) - scores(ids)).abs() < 5 * deviation).all()
    torch.testing.assert_close(dropped.eval()(ids), scores(ids))


def test_a_text_of_no_tokens_scores_nothing(scores: NGramScores) -> None:
    none = torch.zeros(2, 0, dtype=torch.long)
    assert torch.equal(scores(none), torch.zeros(2, 2))
    scores.learn_rarity([(none, none.bool())])


def config(**changes: object) -> ModelConfig:
    settings = {
        "architecture": "encoder",
        "vocab_size": 11,
        "n_classes": 2,
        "d_model": 8,
        "n_heads": 2,
        "n_layers": 1,
        "d_ff": 12,
        "dropout": 0.0,
    }
    return validate(ModelConfig, settings | changes, "model")


def test_the_network_beside_n_grams_is_what_it_would_be_without() -> None:
    torch.manual_seed(1)
    plain = build_model(config())
    torch.manual_seed(1)
    wide = build_model(config(n_grams=3, n_gram_rows=ROWS))
    ids = torch.tensor([[5, 9, 7, 4]])
    assert isinstance(plain, Encoder)
    assert isinstance(wide, Encoder)
    assert wide.n_grams is not None
    torch.nn.init.normal_(wide.n_grams.weight)
    torch.nn.init.uniform_(wide.n_grams.rarity, 1, 5)
    assert torch.equal(wide.classify(ids), plain.classify(ids))
    packed = pack(wide, torch.float32)
    torch.testing.assert_close(packed.classify(ids), wide.eval().classify(ids), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed.n_grams(ids), wide.n_grams(ids), rtol=1e-5, atol=1e-5)


def test_the_table_is_not_decayed_nor_orthogonalised() -> None:
    wide = build_model(config(n_grams=2, n_gram_rows=ROWS))
    assert isinstance(wide, Encoder)
    assert wide.n_grams is not None
    groups = build_optimizer(wide, TrainConfig()).param_groups
    (group,) = [group for group in groups if any(one is wide.n_grams.weight for one in group["params"])]
    assert group["weight_decay"] == 0


@pytest.mark.parametrize(
    "changes", [{"architecture": "causal", "n_classes": None, "n_grams": 2}, {"hierarchical": True, "n_grams": 2}, {"n_gram_rows": 5}]
)
def test_n_grams_that_would_be_ignored_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="n_gram"):
        config(**changes)
