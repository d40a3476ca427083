"""Resampled corpora: the same rows however they are cut, near the rows that they come from."""

from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks import resampled
from csr_qdrant.benchmarks.neighbours import Matrix, exact_neighbours
from csr_qdrant.benchmarks.resampled import CHUNK, NEIGHBOURS, Resampler, write_resampled
from csr_qdrant.errors import ConfigError

D = 12


def _real(n: int = 600) -> Matrix:
    """Rows on a curved surface of three dimensions, of different norms."""
    random = np.random.default_rng(3)
    bent = np.tanh(random.standard_normal((n, 3)) @ random.standard_normal((3, D)))
    return np.asarray(bent * random.uniform(0.5, 2, (n, 1)), np.float32)


REAL = _real()


def test_a_row_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    resampler = Resampler.fitted_to(REAL, seed=1)
    n = CHUNK + 300
    whole = write_resampled(tmp_path / "whole.npy", resampler, n)
    cut = write_resampled(tmp_path / "cut.npy", Resampler.fitted_to(REAL, seed=1), n, block=777)
    assert whole.shape == (n, D)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(
        resampler.rows(CHUNK - 5, CHUNK + 5), whole[CHUNK - 5 : CHUNK + 5]
    )
    assert resampler.rows(7, 7).shape == (0, D)
    assert isinstance(whole, np.memmap)
    assert not np.allclose(Resampler.fitted_to(REAL, seed=2).rows(0, 50), whole[:50])


def test_without_noise_rows_are_the_real_ones() -> None:
    rows = Resampler.fitted_to(REAL, scale=0.0).rows(0, 500)
    nearest = exact_neighbours(rows, REAL, 1).rows[:, 0]
    np.testing.assert_allclose(rows, REAL[nearest], atol=1e-5)
    assert len(np.unique(nearest)) > 250  # drawn evenly, with repetition


def test_noise_keeps_norms_and_grows_with_its_scale() -> None:
    own = [Resampler.fitted_to(REAL, scale=scale).rows(0, 500) for scale in (0.0, 0.5, 2.0)]
    for moved in own[1:]:
        np.testing.assert_allclose(
            np.linalg.norm(moved, axis=1), np.linalg.norm(own[0], axis=1), rtol=1e-4
        )
    near, far = (np.linalg.norm(moved - own[0], axis=1).mean() for moved in own[1:])
    assert 0 < 2 * near < far


def test_noise_stays_among_a_rows_neighbours() -> None:
    """On a line of a plane, neighbours' differences have no part outside of the plane."""
    flat = np.zeros((300, 8), np.float32)
    flat[:, :2] = np.random.default_rng(0).standard_normal((300, 2))
    rows = Resampler.fitted_to(flat).rows(0, 400)
    assert np.abs(rows[:, 2:]).max() == 0
    assert np.ptp(rows[:, 0]) > 1


def test_neighbours_are_others_even_among_duplicates() -> None:
    same = np.ones((40, 4), np.float32)
    found = Resampler.fitted_to(same).neighbours
    assert found.shape == (40, NEIGHBOURS)
    assert not (found == np.arange(40)[:, None]).any()
    exact = exact_neighbours(REAL, REAL, NEIGHBOURS + 1).rows[:, 1:]
    np.testing.assert_array_equal(Resampler.fitted_to(REAL).neighbours, exact)


def test_too_many_real_rows_are_sampled() -> None:
    resampler = Resampler.fitted_to(REAL, most=100, seed=5)
    assert resampler.real.shape == (100, D)
    assert len(np.unique(exact_neighbours(resampler.real, REAL, 1).rows)) == 100


def test_structure_counts_a_row_not_as_its_own_neighbour() -> None:
    own = resampled.structure(REAL[:50], REAL, itself=True)
    others = exact_neighbours(REAL[:50], REAL, 101).scores[:, 1:]
    assert own.cosine_1 == pytest.approx(float(np.median(others[:, 0])))
    assert own.cosine_100 == pytest.approx(float(np.median(others[:, 99])))
    assert resampled.structure(REAL[:50], REAL).cosine_1 == pytest.approx(1, abs=1e-5)
    assert 1.5 < own.dimension < 4.5  # a surface of three dimensions


def test_the_structure_of_grown_corpora_is_compared() -> None:
    real = _real(2400)
    found = resampled.compared_structures(real[:2000], real[2000:], share=4, sample=100)
    queries = {name: kinds["queries"] for name, kinds in found.items()}
    # Growing a part back brings queries' hundredth neighbour nearer to where it really is.
    missing = queries["real"].cosine_100 - queries["part"].cosine_100
    assert missing > 0
    assert abs(queries["real"].cosine_100 - queries["resampled"].cosine_100) < missing / 2


def test_a_file_lends_its_last_rows_as_queries(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", REAL)
    real = resampled.real_vectors(tmp_path / "x.npy")
    np.testing.assert_array_equal(real.vectors, REAL[:540])
    np.testing.assert_array_equal(real.queries, REAL[540:])


def test_the_command_writes_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", _real(2000))
    resampled.main(
        tmp_path / "y.npy", rows=50, vectors=tmp_path / "x.npy", scale=1.0, seed=0, compare=True
    )
    assert np.load(tmp_path / "y.npy").shape == (50, D)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[1].startswith("resampled: real, from queries: cosine_1 ")


def test_what_cannot_be_resampled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than 10 real rows, got 10"):
        Resampler.fitted_to(REAL[:10])
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        Resampler.fitted_to(REAL, scale=-1)
    with pytest.raises(ConfigError, match="must be at least 1, got 0"):
        write_resampled(tmp_path / "x.npy", Resampler.fitted_to(REAL), 0)
    assert list(tmp_path.iterdir()) == []
    np.save(tmp_path / "flat.npy", np.arange(3))
    with pytest.raises(ConfigError, match="must hold a matrix of floats"):
        resampled.real_vectors(tmp_path / "flat.npy")
    with pytest.raises(ConfigError, match="cannot be read"):
        resampled.real_vectors(tmp_path / "none.npy")
    with pytest.raises(ConfigError, match="needs 100 rows, got 50"):
        resampled.structure(REAL[:5], REAL[:50])
