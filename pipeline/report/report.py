"""The page about a data set."""

from __future__ import annotations

import datetime
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.dataset.metadata import REPORT_NAME
from pipeline.report.analysis import NEAR_DUPLICATE, NEIGHBOURS, Analysis, analyse
from pipeline.report.bokeh_map import map_item, map_script
from pipeline.report.charts import Chart, bar_chart, histogram
from pipeline.report.colours import Amounts, Classes, colourings
from pipeline.report.facts import DatasetFacts, WaveFacts, describe_spec, read_facts
from pipeline.report.page import read_asset, render
from pipeline.report.projection import MapName, Projection, project
from pipeline.report.sample import VectorSample, read_sample
from pipeline.report.text import show_key, show_text
from pipeline.report.thumbnails import DATA_URI, ThumbnailMaker, read_thumbnails
from pipeline.storage import filesystem

MAX_VECTORS = 10_000
_OUTLIERS = 24
_GROUPS = 12
_PER_GROUP = 8
_PAIRS = 24
_WAVES = 48


@dataclass(frozen=True)
class ReportSettings:
    """How a page is made.

    Attributes:
      map: `pca`, or `umap` for a second map.
      seed: chooses the sample and the start of the maps.
      thumbnail_bytes: budget of the thumbnails; 0 for none.
      max_vectors: size of the sample.
    """

    map: MapName = "pca"
    seed: int = 0
    thumbnail_bytes: int = 8_000_000
    max_vectors: int = MAX_VECTORS


@dataclass(frozen=True)
class WrittenReport:
    """A page that was written.

    Attributes:
      path: of the file.
      vectors: number of vectors that it shows.
      total: number of vectors of the data set.
      thumbnails: number of images that it shows.
      size_bytes: of the file.
    """

    path: str
    vectors: int
    total: int
    thumbnails: int
    size_bytes: int


@dataclass(frozen=True)
class Card:
    """An image of a page.

    Attributes:
      key: its key, for people.
      thumbnail: a `data:` address; empty if there is none.
      note: a text below.
    """

    key: str
    thumbnail: str
    note: str = ""


@dataclass(frozen=True)
class CardGroup:
    """Images that belong together.

    Attributes:
      title: of the group.
      cards: some of the images.
      more: number of the others.
    """

    title: str
    cards: tuple[Card, ...]
    more: int = 0


def write_report(output: str, settings: ReportSettings, path: str | None = None) -> WrittenReport:
    """Writes the page about a data set.

    Args:
      output: directory of the data set.
      settings: how the page is made.
      path: of the page; default: `report.html` in the data set.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
      UsageError: the map needs a package that is not installed.
      OSError: the page cannot be written.
    """
    output = filesystem.normalize(output)
    path = filesystem.join(output, REPORT_NAME) if path is None else filesystem.normalize(path)
    facts = read_facts(output)
    sample = read_sample(output, facts.spec.dimension, settings.max_vectors, settings.seed)
    maps = project(sample.vectors, settings.map, settings.seed)
    analysis = analyse(sample.vectors)
    featured = (sample.keys[index] for index in _featured(analysis))
    make = ThumbnailMaker(facts.spec.preprocessing.exif_orientation)
    thumbnails = read_thumbnails(output, sample.keys, featured, settings.thumbnail_bytes, make)
    page = _Page(output, facts, sample, analysis, maps, thumbnails, settings).render()
    filesystem.write_atomically(path, page)
    return WrittenReport(path, len(sample.keys), sample.total, len(thumbnails), len(page))


def _start(analysis: Analysis) -> int:
    """Returns the row that the search shows first: the one with the nearest neighbour that is no near-duplicate."""
    if not analysis.cosines.size:
        return 0
    nearest = analysis.cosines[:, 0]
    return int((nearest * (nearest < NEAR_DUPLICATE)).argmax())


def _featured(analysis: Analysis) -> Iterable[int]:
    """Yields the rows that the page shows outside of the map and the search."""
    yield from map(int, analysis.outliers[:_OUTLIERS])
    for group in analysis.duplicates[:_GROUPS]:
        yield from group[:_PER_GROUP]
    for pair in analysis.near_duplicates[:_PAIRS]:
        yield from (pair.first, pair.second)


class _Page:
    """The values of the template."""

    def __init__(
        self,
        output: str,
        facts: DatasetFacts,
        sample: VectorSample,
        analysis: Analysis,
        maps: Sequence[Projection],
        thumbnails: Mapping[bytes, str],
        settings: ReportSettings,
    ) -> None:
        self._output = output
        self._facts = facts
        self._sample = sample
        self._analysis = analysis
        self._maps = maps
        self._thumbnails = thumbnails
        self._settings = settings
        self._shown = [show_key(key) for key in sample.keys]

    def render(self) -> bytes:
        analysis = self._analysis
        columns = self._columns()
        return render(
            "report.html.j2",
            scripts=[read_asset("report.js"), map_script()] if self._sample.keys else [],
            title=show_text(posixpath.basename(filesystem.absolute(self._output).rstrip("/")) or self._output),
            output=show_text(self._output),
            made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            facts=self._facts,
            spec=describe_spec(self._facts.spec),
            total=self._sample.total,
            sampled=len(self._sample.keys),
            seed=self._settings.seed,
            has_thumbnails=bool(self._thumbnails),
            without_thumbnail=len(self._sample.keys) - len(self._thumbnails),
            maps=[item.name for item in self._maps],
            columns=[item.name for item in columns],
            data=self._data(columns),
            map=map_item(),
            charts=[
                chart
                for chart in (
                    histogram(analysis.nearest_distances, "Distance to the nearest neighbour", "Cosine distance"),
                    histogram(analysis.norms, "Length of the vectors", "L2 norm"),
                )
                if chart
            ],
            wave_charts=self._wave_charts(),
            waves=self._facts.waves[-_WAVES:],
            outliers=[
                self._card(int(index), f"similarity {analysis.cosines[index].mean():.3f}")
                for index in analysis.outliers[:_OUTLIERS]
                if analysis.cosines.shape[1]
            ],
            duplicates=[self._group(group) for group in analysis.duplicates[:_GROUPS]],
            duplicate_groups=len(analysis.duplicates),
            duplicate_rows=sum(map(len, analysis.duplicates)),
            pairs=[
                CardGroup(f"similarity {pair.cosine:.4f}", (self._card(pair.first), self._card(pair.second)))
                for pair in analysis.near_duplicates[:_PAIRS]
            ],
            near_duplicates=len(analysis.near_duplicates),
            near_duplicate=NEAR_DUPLICATE,
            neighbours=NEIGHBOURS,
        )

    def _card(self, index: int, note: str = "") -> Card:
        thumbnail = self._thumbnails.get(self._sample.keys[index])
        return Card(self._shown[index], DATA_URI + thumbnail if thumbnail else "", note)

    def _group(self, rows: tuple[int, ...]) -> CardGroup:
        cards = tuple(map(self._card, rows[:_PER_GROUP]))
        return CardGroup(f"{len(rows)} identical vectors", cards, len(rows) - len(cards))

    def _columns(self) -> list[Classes | Amounts]:
        found: list[Classes | Amounts] = [*colourings(self._sample.columns)]
        if self._analysis.cosines.size:
            found.append(Amounts.of("distance to the nearest neighbour", self._analysis.nearest_distances))
        found.append(Amounts.of("length of the vector", self._analysis.norms))
        return found

    def _data(self, columns: Sequence[Classes | Amounts]) -> object:
        """Returns what the page's script needs."""
        return {
            "start": _start(self._analysis),
            "keys": self._shown,
            "thumbnails": [self._thumbnails.get(key, "") for key in self._sample.keys],
            "neighbours": self._analysis.neighbours.tolist(),
            "cosines": [[round(value, 4) for value in row] for row in self._analysis.cosines.tolist()],
            "maps": [
                {"name": item.name, "x": _rounded(item.points[:, 0]), "y": _rounded(item.points[:, 1])}
                for item in self._maps
            ],
            "columns": [
                {"name": show_text(item.name), "labels": list(map(show_text, item.labels)), "codes": item.codes}
                if isinstance(item, Classes)
                else {"name": show_text(item.name), "values": item.values}
                for item in columns
            ],
        }

    def _wave_charts(self) -> list[Chart]:
        waves = self._facts.waves[-_WAVES:]
        if len(waves) < 2:
            return []
        return [
            bar_chart("Vectors by wave", _span(waves), ("Wave", "Vectors"), [(w.started, w.embedded) for w in waves]),
            bar_chart(
                "Speed by wave",
                f"{self._facts.images_per_second:,.1f} images/s over all waves.",
                ("Wave", "Images/s"),
                [(wave.started, wave.images_per_second) for wave in waves],
            ),
        ]


def _span(waves: Sequence[WaveFacts]) -> str:
    return f"{len(waves)} waves, from {waves[0].started} to {waves[-1].started} UTC."


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
