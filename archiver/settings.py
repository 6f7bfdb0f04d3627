"""Settings of every program: TOML file < environment (``SESSIONLAKE_…``) < command-line flags.

Credentials are not settings: they come from boto3's own chain only, so no file, dump or log of ours
can hold one.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from archiver.errors import SettingsError

Durability = Literal["process", "interval", "power"]
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(b|kb|mb|gb|tb|kib|mib|gib|tib)?", re.IGNORECASE)
_USERINFO = re.compile(r"//[^/@\s]+@")
_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def _bytes(value: object) -> object:
    """``"1 GiB"`` and ``1073741824`` are the same size; units are powers of 1024."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if not match:
            raise ValueError(f"not a size: {value!r}; write it like 512 MiB or 1 GiB")
        return int(float(match[1]) * _UNITS[(match[2] or "b")[0].lower()])
    return value


Bytes = Annotated[int, BeforeValidator(_bytes)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageSettings(_Section):
    """Where the lake lives: archive, tables and exports under one URL."""

    url: str = Field("file:./data/lake", description="file:///dir, file:./dir or s3://bucket/prefix")
    endpoint_url: str | None = Field(None, description="S3-compatible server; absent: Amazon S3")
    region: str | None = Field(None, description="absent: boto3's own chain decides, then us-east-1")
    path_style: bool | None = Field(
        None, description="bucket in the path instead of the host name; absent: where there is an endpoint_url"
    )
    checksums: Literal["when_supported", "when_required"] = Field(
        "when_supported", description="when_required for servers that refuse the newer checksum headers"
    )
    sse: Literal["AES256", "aws:kms"] | None = Field(None, description="server-side encryption of every object")
    sse_kms_key_id: str | None = Field(None, description="key of aws:kms")
    storage_class: str | None = Field(None, description="storage class of segments, e.g. STANDARD_IA")
    connect_timeout_seconds: float = Field(5, gt=0)
    read_timeout_seconds: float = Field(60, gt=0)
    max_attempts: int = Field(3, ge=1, le=10, description="tries of one request, the first included")
    workers: int = Field(8, ge=1, le=64, description="requests under way at once")

    @field_validator("url", "endpoint_url")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        if value is not None and _USERINFO.search(value):
            raise ValueError("holds credentials; boto3's own chain finds them (environment, ~/.aws, instance role)")
        return value

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if not re.match(r"file:.+|s3://[^/]+", value):
            raise ValueError("permitted are file:///dir, file:./dir and s3://bucket/prefix")
        return value.rstrip("/")

    @property
    def bucket_in_path(self) -> bool:
        """Whether the bucket stands in the path: as said, else on every server that is not Amazon's."""
        return self.endpoint_url is not None if self.path_style is None else self.path_style


class HotSettings(_Section):
    """The live store on local disk."""

    path: Path = Field(Path("data/sessions"), description="directory of hot.db and the spool")
    durability: Durability = Field("interval", description="what an append survives when it returns")
    max_sessions: int = Field(1000, ge=1, description="live sessions; the least recently active above it are archived")
    session_max_age_hours: float = Field(24, ge=0, description="without activity for so long: expired; 0 at once")
    busy_timeout_seconds: float = Field(30, gt=0, description="how long a call waits for the store")


class ArchiveSettings(_Section):
    """When a segment is sealed and how hard the archiver tries."""

    segment_bytes: Bytes = Field(64 * 1024**2, gt=0, description="seal at this much source text")
    segment_sessions: int = Field(20_000, ge=1, description="seal at this many sessions")
    max_wait_minutes: float = Field(15, ge=0, description="seal when the oldest expired session has waited so long")
    spool_bytes: Bytes = Field(2 * 1024**3, gt=0, description="stop claiming while the spool holds more than this")
    min_free_bytes: Bytes = Field(256 * 1024**2, ge=0, description="stop claiming while the disk has less than this")
    retry_cap_seconds: float = Field(300, gt=0, description="longest pause between two tries at a failing storage")


class TableSettings(_Section):
    """The Parquet tables."""

    memory_limit: Bytes = Field(1024**3, ge=64 * 1024**2, description="memory of one run, all processes together")
    retention_hours: float = Field(24, ge=0, description="how long superseded files and older versions stay")
    max_segments_per_run: int = Field(1000, ge=1)
    redact: bool = Field(False, description="redact the tables too (exports always are)")


class RunnerSettings(_Section):
    """Where tasks run."""

    kind: Literal["local", "dask"] = "local"
    workers: int = Field(0, ge=0, description="processes; 0: one for every core")
    address: str | None = Field(None, description="scheduler of a Dask cluster; absent: a local one is started")


class ExportSettings(_Section):
    """Rules of the training sets."""

    consent_default: Literal["none", "analytics", "training"] = "training"
    split_salt: str = "v1"
    redact: bool = True
    shard_bytes: Bytes = Field(256 * 1024**2, gt=0, description="uncompressed size at which a new file starts")


class TimeSettings(_Section):
    """How naive timestamps are read."""

    assume_tz: str = Field("UTC", description="IANA zone of timestamps without one")

    @field_validator("assume_tz")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("not an IANA time zone, write it like Europe/Berlin") from error
        return value

    @property
    def zone(self) -> tzinfo:
        """The zone as a tzinfo."""
        return ZoneInfo(self.assume_tz)


class LogSettings(_Section):
    """Log lines on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"
    json_lines: bool = False


class Settings(_Section):
    """All settings, frozen. Build them with :func:`load_settings`."""

    storage: StorageSettings = StorageSettings()
    hot: HotSettings = HotSettings()
    archive: ArchiveSettings = ArchiveSettings()
    tables: TableSettings = TableSettings()
    runner: RunnerSettings = RunnerSettings()
    exports: ExportSettings = ExportSettings()
    time: TimeSettings = TimeSettings()
    log: LogSettings = LogSettings()


def load_settings(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the TOML file, then the environment, then ``flags`` (``{"storage.url": …}``); later wins.

    Raises SettingsError that names the key, where it was read and what is permitted.
    """
    values: dict[str, dict[str, Any]] = {}
    origin: dict[str, str] = {}
    sources = [(str(config) if config else "", _from_file(config)), ("environment", _from_environment())]
    for name, flat in [*sources, ("command line", dict(flags or {}))]:
        for key, value in flat.items():
            section, _, field = key.partition(".")
            values.setdefault(section, {})[field] = value
            origin[key] = (
                f"{name} variable SESSIONLAKE_{key.upper().replace('.', '__')}" if name == "environment" else name
            )
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _settings_error(error, origin) from error


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        data = tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}", operation="config", key=str(config)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"is not TOML: {error}", operation="config", key=str(config)) from error
    flat: dict[str, Any] = {}
    for section, body in data.items():
        if not isinstance(body, dict):
            raise SettingsError(
                f"{section} stands outside a section", operation="config", key=str(config),
                hint=f"sections are {', '.join(Settings.model_fields)}",
            )  # fmt: skip
        flat.update({f"{section}.{field}": value for field, value in body.items()})
    return flat


def _from_environment() -> dict[str, Any]:
    prefix = "SESSIONLAKE_"
    flat = {}
    for name, value in os.environ.items():
        if name.startswith(prefix) and "__" in name:
            section, _, field = name.removeprefix(prefix).lower().partition("__")
            flat[f"{section}.{field}"] = value
    return flat


def _settings_error(error: ValidationError, origin: Mapping[str, str]) -> SettingsError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location[:2])
    where = origin.get(key) or next((o for k, o in origin.items() if k.startswith(f"{key}.")), "settings")
    if first["type"] == "extra_forbidden":
        section = Settings.model_fields.get(location[0])
        known = Settings.model_fields if len(location) == 1 or section is None else section.annotation.model_fields  # type: ignore[union-attr]
        message, hint = "no such setting", f"permitted are {', '.join(sorted(known))}"
    else:
        message = (
            f"{first['msg'].removeprefix('Value error, ')}, got {_USERINFO.sub('//…@', repr(first.get('input'))):.80}"
        )
        hint = ""
    return SettingsError(f"{message} in {where}", operation="config", key=key, hint=hint)
