"""The tables. Only this package and the migrations use these classes; other packages use values.py."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from wsi_denoise.jobs.states import JobState

HEAD = "0002"
"""The revision of these tables. A constant, so that a check of the version does not import Alembic."""

_UNDECODABLE = {0xDC00 + byte: 0xEF00 + byte for byte in range(0x80, 0x100)}
_DECODABLE = {private: lone for lone, private in _UNDECODABLE.items()}
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Utc(TypeDecorator[datetime]):
    """A time in UTC with its time zone on every database. SQLite itself does not store the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PathText(TypeDecorator[str]):
    """A path as Python represents it.

    Python represents names that are not UTF-8 with lone surrogates, which databases reject. They are stored as
    characters of the private use area (U+EF80 to U+EFFF) and restored on reading.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002, D102
        return None if value is None else value.translate(_UNDECODABLE)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002, D102
        return None if value is None else value.translate(_DECODABLE)


class Readable(TypeDecorator[str]):
    """Text for users. It may quote a damaged header, so characters that databases reject are stored as escapes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002, D102
        return None if value is None else _UNSTORABLE.sub(lambda found: ascii(found.group())[1:-1], value)


class Base(DeclarativeBase):
    """Base of the tables. Constraints have names, so that a migration can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: Utc(),
        str: Readable(),
        float: Double(),
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        JobState: Enum(
            JobState, native_enum=False, length=16, values_callable=lambda states: [state.value for state in states]
        ),
    }


class SlideRow(Base):
    """One content of one path. The same path with new content is another row."""

    __tablename__ = "slides"
    __table_args__ = (Index("ix_slides_path", "path"), Index("ix_slides_fingerprint", "fingerprint"))

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(PathText())
    relative: Mapped[str] = mapped_column(PathText())
    size_bytes: Mapped[int] = mapped_column(BigInteger())
    mtime_ns: Mapped[int] = mapped_column(BigInteger())
    fingerprint: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    mpp_x: Mapped[float | None]
    mpp_y: Mapped[float | None]
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    place: Mapped[str | None] = mapped_column(PathText())


class JobRow(Base):
    """One slide with one preset and one set of settings."""

    __tablename__ = "jobs"
    __table_args__ = (
        # Not "priority DESC", the order of claiming: Alembic reads such an index from SQLite as a different one.
        Index("ix_jobs_claim", "state", "priority", "created"),
        Index("ix_jobs_created", "created"),
        Index("ix_jobs_finished", "finished"),
        Index("ix_jobs_verdict", "verdict", "created"),
        Index("ix_jobs_error_code", "error_code", "created"),
        Index("ix_jobs_slide_id", "slide_id"),
        Index("ix_jobs_daemon_id", "daemon_id"),
        {"sqlite_autoincrement": True},  # otherwise SQLite reuses the number of a removed job
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    slide_id: Mapped[int] = mapped_column(ForeignKey("slides.id"))
    state: Mapped[JobState]
    preset: Mapped[str]
    priority: Mapped[int] = mapped_column(default=0)
    origin: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    settings_hash: Mapped[str] = mapped_column(default="")
    region: Mapped[str | None]
    duplicate_of: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))

    created: Mapped[datetime]
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    next_try: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    error_code: Mapped[str | None]
    error: Mapped[str | None]

    daemon_id: Mapped[int | None] = mapped_column(ForeignKey("daemons.id"))
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)

    blocks_done: Mapped[int] = mapped_column(default=0)
    blocks_total: Mapped[int] = mapped_column(default=0)
    blocks_resumed: Mapped[int] = mapped_column(default=0)
    rate: Mapped[float | None]
    seconds_left: Mapped[float | None]

    verdict: Mapped[str | None]
    reasons: Mapped[list[str]] = mapped_column(default=list)
    output: Mapped[str | None] = mapped_column(PathText())
    output_sha256: Mapped[str | None]
    maps: Mapped[str | None] = mapped_column(PathText())
    model_checksum: Mapped[str | None]
    provenance: Mapped[dict[str, Any]] = mapped_column(default=dict)

    slide: Mapped[SlideRow] = relationship(lazy="joined", innerjoin=True)


class AttemptRow(Base):
    """One attempt of a daemon at a job."""

    __tablename__ = "attempts"
    __table_args__ = (Index("uq_attempts_job_id_number", "job_id", "number", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    daemon_id: Mapped[int] = mapped_column(ForeignKey("daemons.id"))
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error_code: Mapped[str | None]
    error: Mapped[str | None]
    blocks_done: Mapped[int] = mapped_column(default=0)
    blocks_resumed: Mapped[int] = mapped_column(default=0)


class MetricRow(Base):
    """One metric of one job. Each key has its own row, so that a new metric needs no migration."""

    __tablename__ = "metrics"
    __table_args__ = (Index("ix_metrics_key_value", "key", "value"),)

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float | None]


class EventRow(Base):
    """One event; never changed afterwards."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job_id", "job_id"), Index("ix_events_time", "time"))

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    time: Mapped[datetime]
    origin: Mapped[str]
    kind: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)


class DaemonRow(Base):
    """A daemon that registered."""

    __tablename__ = "daemons"
    __table_args__ = ({"sqlite_autoincrement": True},)  # numbers are not reused: an event's "daemon:3" stays valid

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    device: Mapped[str | None]
    started: Mapped[datetime]
    heartbeat: Mapped[datetime]
    stopped: Mapped[datetime | None]
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)


class PauseRow(Base):
    """A pause of the queue by one origin. The queue is paused while this table has a row."""

    __tablename__ = "pauses"

    origin: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    since: Mapped[datetime]


class FolderRow(Base):
    """A folder for outputs or quarantine notes, and its marker."""

    __tablename__ = "folders"

    path: Mapped[str] = mapped_column(PathText(), primary_key=True)
    marker: Mapped[str]
    place: Mapped[str] = mapped_column(PathText())
    since: Mapped[datetime]
