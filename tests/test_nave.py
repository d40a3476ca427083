"""The shipped data set, against the figures in its README."""

import numpy as np
import pytest

from csr_qdrant.benchmarks.metrics import mean_ndcg, unseen_judgements
from csr_qdrant.benchmarks.nave import SPLITS, Nave
from csr_qdrant.errors import CsrError

FIGURES = {"train": (6231, 38180), "dev": (1046, 6896), "test": (2609, 17918)}


@pytest.fixture(scope="module")
def nave() -> Nave:
    return Nave()


def test_corpus(nave: Nave) -> None:
    assert len(nave.ids) == len(nave.texts) == len(set(nave.ids)) == 31_095
    assert nave.ids[0] == "Gen.1.1"
    # Titles are empty and must leave no trace in the text.
    assert nave.texts[0] == "In the beginning, Godcreated the heavens and the earth."
    assert nave.ids[-1].startswith("Rev.")
    assert all(nave.texts)


@pytest.mark.parametrize("name", SPLITS)
def test_splits_hold_what_the_readme_says(nave: Nave, name: str) -> None:
    split = nave.split(name)
    verses = [verse for grades in split.qrels.values() for verse in grades]
    assert (len(split.query_ids), len(verses)) == FIGURES[name]
    assert len(split.texts) == len(split.query_ids)
    assert list(split.qrels) == list(split.query_ids)
    assert set(verses) <= set(nave.ids)
    assert {grade for grades in split.qrels.values() for grade in grades.values()} == {1}
    assert all(2 <= len(grades) <= 30 for grades in split.qrels.values())


def test_queries_have_their_own_texts(nave: Nave) -> None:
    train, test = nave.split("train"), nave.split("test")
    assert not set(train.query_ids) & set(test.query_ids)
    topics = [{text.split(":")[0] for text in split.texts} for split in (train, test)]
    assert not topics[0] & topics[1]


def test_judgements_on_verses_that_no_train_pair_names(nave: Nave) -> None:
    test = nave.split("test")
    unseen = unseen_judgements(test.qrels, nave.seen_in_training)
    assert sum(map(len, unseen.values())) == 6456
    perfect = {q: dict.fromkeys(grades, 1.0) for q, grades in unseen.items()}
    assert mean_ndcg(perfect, unseen) == pytest.approx(1)
    assert 0 < mean_ndcg(perfect, test.qrels) < np.mean([q in unseen for q in test.qrels])


def test_unknown_split(nave: Nave) -> None:
    with pytest.raises(CsrError, match=r"no judgements 'val' .*dev, test, train"):
        nave.split("val")
