import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import UsageError
from pipeline.report.analysis import Pair, analyse
from pipeline.report.charts import histogram
from pipeline.report.colours import MISSING, OTHER, Amounts, Classes, colourings
from pipeline.report.projection import project


def arc(*angles, lengths=None):
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))], axis=1).astype(np.float32)
    return vectors * np.float32(lengths)[:, np.newaxis] if lengths else vectors


def test_neighbours_are_by_cosine_whatever_the_lengths_are():
    found = analyse(arc(0, 0.5, 1.2, 3, lengths=[1, 50, 2, 1]))
    assert found.neighbours.tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]
    np.testing.assert_allclose(found.cosines[0], np.cos([0.5, 1.2, 3]), atol=1e-6)
    np.testing.assert_allclose(found.norms, [1, 50, 2, 1], rtol=1e-6)
    np.testing.assert_allclose(found.nearest_distances[3], 1 - np.cos(1.8), atol=1e-6)
    assert found.outliers[0] == 3


def test_duplicates_are_equal_to_the_bit_and_near_duplicates_are_not():
    found = analyse(arc(0, 0, 0, 0.1, 2, 2))
    assert found.duplicates == ((0, 1, 2), (4, 5))
    assert [(pair.first, pair.second) for pair in found.near_duplicates] == [(0, 3), (1, 3), (2, 3)]
    assert found.near_duplicates[0].cosine == pytest.approx(np.cos(0.1), abs=1e-6)
    assert analyse(arc(0, 0, lengths=[1, 2])).near_duplicates == (Pair(0, 1, 1.0),)


def test_zeros_and_few_vectors():
    assert analyse(np.zeros((0, 3), np.float32)).neighbours.shape == (0, 0)
    single = analyse(arc(1))
    assert (single.cosines.shape, single.nearest_distances.shape) == ((1, 0), (0,))
    zeros = analyse(np.array([[0, 0, 0], [1, 0, 0]], np.float32))
    assert zeros.cosines.tolist() == [[0], [0]]


def test_histograms():
    values = np.array([0, 0, 1, 3.2, 32], np.float32)
    chart = histogram(values, "Norms", "L2 norm")
    assert [bar.value for bar in chart.bars][:4] == ["2", "1", "0", "1"]
    assert (len(chart.bars), chart.bars[-1].value, chart.bars[-1].height) == (32, "1", 0.5)
    assert (chart.bars[0].label, chart.ends) == ("0 to 1", ("0", "32"))
    equal = histogram(np.array([1, 1, 1 + 1e-7], np.float32), "Norms", "L2 norm")
    assert [bar.value for bar in equal.bars] == ["3"]
    assert histogram(np.zeros(0, np.float32), "Norms", "L2 norm") is None


def test_columns_that_can_colour_a_map():
    table = pa.table(
        {
            "class": pa.array([[b"cat"], [b"dog"], [b"cat"], []]),
            "id": pa.array([[3], [1], [3], None]),
            "score": pa.array([0.5, None, float("nan"), 2.0]),
            "size": pa.array([[1, 2], [1, 2], [1, 2], [1, 2]]),
            "nothing": pa.array([None] * 4, pa.string()),
        }
    )
    assert colourings(table) == (
        Classes("class", ("cat", "dog", MISSING), (0, 1, 0, 2)),
        Classes("id", ("3", "1", MISSING), (0, 1, 0, 2)),
        Amounts("score", (0.5, None, None, 2.0)),
    )


def test_many_classes_and_many_numbers():
    rows = range(120)
    table = pa.table(
        {"class": [f"{n % 30:02d}" for n in rows], "number": list(rows), "name": [f"name {n}" for n in rows]}
    )
    classes, numbers = colourings(table)
    assert classes.labels == (*(f"{n:02d}" for n in range(9)), OTHER)
    assert classes.codes[:11] == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9)
    assert numbers == Amounts("number", tuple(map(float, rows)))


def test_a_map_separates_groups_and_is_the_same_again():
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(20, dtype=np.float32)[:2], 30, axis=0)
    vectors = centres + random.normal(0, 0.05, centres.shape).astype(np.float32)
    (pca,) = project(vectors, "pca", seed=0)
    assert (pca.name, pca.points.shape, pca.points.dtype) == ("PCA", (60, 2), np.float32)
    assert (np.sign(pca.points[:30, 0]) == -np.sign(pca.points[30:, 0])).all()
    np.testing.assert_array_equal(project(vectors, "pca", seed=0)[0].points, pca.points)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (2, 1), (3, 2)])
def test_maps_of_little(shape):
    (pca,) = project(np.ones(shape, np.float32), "pca", seed=0)
    assert pca.points.shape == (shape[0], 2)


def test_umap_without_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(UsageError, match=r"^--map=umap needs the package umap-learn; install the extra 'report', or"):
        project(np.eye(9, dtype=np.float32), "umap", seed=0)


@pytest.mark.slow  # numba compiles UMAP for some seconds
def test_umap_is_a_second_map():
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(20, dtype=np.float32)[:2], 30, axis=0)
    umap, pca = project(centres + random.normal(0, 0.05, centres.shape).astype(np.float32), "umap", seed=0)
    assert (umap.name, pca.name, umap.points.shape) == ("UMAP", "PCA", (60, 2))
    middle = umap.points[:30].mean(axis=0) - umap.points[30:].mean(axis=0)
    assert np.linalg.norm(middle) > 2 * umap.points[:30].std()
