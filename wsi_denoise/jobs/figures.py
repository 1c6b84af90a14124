"""Read-only queries about the metrics of many slides, and the SQL conditions of a `JobQuery`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select

from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.jobs.database.models import JobRow, MetricRow, SlideRow
from wsi_denoise.jobs.values import JobQuery, Scanner, SlideFigures, TrendPoint

_CHUNK = 500  # values in one IN (...): well below every database's limit on parameters
_LENGTHS = (1, 8, 64, _CHUNK)


class Figures(Database):
    """Queries of the Quality page. The database filters and groups, so that few rows are transferred."""

    def figures(self, keys: Sequence[str], query: JobQuery) -> tuple[list[SlideFigures], int]:
        """Return metrics of whole slides that are done, newest first, and the number of matches without the limit.

        Parameters
        ----------
        keys : sequence of str
            Names of metrics.
        query : JobQuery
            Its `states` and `sort` are ignored.
        """
        columns = (JobRow.id, SlideRow.relative, JobRow.created, JobRow.verdict, *_scanner())
        wanted = select(*columns).join_from(JobRow, SlideRow).where(*_measured(query))
        wanted = wanted.order_by(JobRow.created.desc(), JobRow.id.desc()).limit(query.limit).offset(query.offset)
        counted = select(func.count()).select_from(JobRow).join(SlideRow).where(*_measured(query))
        with self.reading() as session:
            total = session.scalar(counted) or 0
            rows = session.execute(wanted).all()
            values: dict[int, dict[str, float | None]] = {row[0]: {} for row in rows}
            for part in chunks(list(values)):
                metrics = select(MetricRow.job_id, MetricRow.key, MetricRow.value)
                metrics = metrics.where(MetricRow.job_id.in_(part), MetricRow.key.in_(keys))
                for job, key, figure in session.execute(metrics):
                    values[job][key] = figure
        found = [
            SlideFigures(row[0], row[1], row[2], row[3], Scanner(*row[4:7]), row[7], values[row[0]]) for row in rows
        ]
        return found, total

    def metric_keys(self) -> list[str]:
        """Return the names of all metrics in the database, sorted."""
        with self.reading() as session:
            return sorted(session.scalars(select(MetricRow.key).distinct()))

    def trend(self, key: str, query: JobQuery, *, by: str = "day") -> list[TrendPoint]:
        """Return a metric's mean and range for each scanner and day or week, oldest first.

        Parameters
        ----------
        key : str
            Name of a metric.
        query : JobQuery
            Its `states`, `sort`, `limit` and `offset` are ignored.
        by : str
            ``day`` on which intake found the slide (UTC), or ``scan_week`` from the scanner's own date.
        """
        *scanner, week = _scanner()
        when: ColumnElement[Any] = week if by == "scan_week" else func.date(JobRow.created)
        value = MetricRow.value
        # The outer join makes the database read jobs first and their metrics second. With an inner join it uses the
        # index on metrics and reads jobs in random order: 3 times slower for a year, 20 times for a month.
        wanted = (
            select(when, *scanner, func.avg(value), func.min(value), func.max(value), func.count(value))
            .select_from(JobRow)
            .join(SlideRow, SlideRow.id == JobRow.slide_id)
            .outerjoin(MetricRow, and_(MetricRow.job_id == JobRow.id, MetricRow.key == key))
            .where(when.is_not(None), *_measured(query))
            .group_by(when, *scanner)
            .having(func.count(value) > 0)
            .order_by(when)
        )
        with self.reading() as session:
            rows = session.execute(wanted).all()
        return [TrendPoint(str(row[0]), Scanner(*row[1:4]), row[4], row[5], row[6], row[7]) for row in rows]


def _scanner() -> tuple[ColumnElement[Any], ...]:
    return tuple(SlideRow.facts[name].as_string() for name in ("vendor", "model", "serial_hash", "scan_week"))


def _measured(query: JobQuery) -> Iterator[ColumnElement[bool]]:
    yield JobRow.verdict.is_not(None)
    yield JobRow.region.is_(None)  # a trial on a region does not represent the slide
    yield from where(query, states=False)


def where(query: JobQuery, *, states: bool = True) -> Iterator[ColumnElement[bool]]:
    """Yield the SQL conditions of a query, for jobs joined with their slides."""
    if states and query.states:
        yield JobRow.state.in_(list(query.states))
    if query.since is not None:
        yield JobRow.created >= query.since
    if query.until is not None:
        yield JobRow.created < query.until
    if query.slide:
        yield SlideRow.path.icontains(query.slide, autoescape=True)
    if query.verdict is not None:
        yield JobRow.verdict == query.verdict
    if query.preset is not None:
        yield JobRow.preset == query.preset
    if query.error_code is not None:
        yield JobRow.error_code == query.error_code


def chunks(items: list[Any]) -> Iterator[list[Any]]:
    """Yield parts of a list that fit into one statement, each padded to one of a few lengths with its last item.

    Each length needs its own statement. A connection caches 128 statements of up to 90 kB each, and arbitrary lengths
    would fill that cache with statements that are used once.
    """
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        length = next(length for length in _LENGTHS if length >= len(part))
        yield part + part[-1:] * (length - len(part))
