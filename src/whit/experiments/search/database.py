"""The PostgreSQL database that drivers of one search share: its address, its locks, its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import optuna

from whit.errors import InputError

_TABLES_LOCK = 0x77686974  # "whit": of the lock under which a database gets its tables


def redact(address: str) -> str:
    """Return an address without its password, before the host or as a parameter."""
    address = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", address)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", address)


def validate_storage_url(address: str) -> None:
    """Raise InputError unless `address` is that of a PostgreSQL database."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        url = None
    drivers = ("postgresql", "postgresql+psycopg")
    if url is not None and "@" in (url.host or ""):
        raise InputError(
            f"--storage {redact(address)}: write an @ or / in a password as %40 or %2F."
        )
    if url is None or url.drivername not in drivers or not url.database:
        raise InputError(
            f"--storage {redact(address)}: expected the address of a PostgreSQL database, e.g. "
            "postgresql://user:password@host/name."
        )


def open_database(address: str) -> optuna.storages.RDBStorage:
    # Drivers that start at the same moment would create the same tables, and all but one fail.
    with advisory_lock(address, _TABLES_LOCK):
        return optuna.storages.RDBStorage(_url(address), engine_kwargs={"pool_pre_ping": True})


def _url(address: str) -> str:
    return re.sub(r"^postgresql://", "postgresql+psycopg://", address)


@contextmanager
def advisory_lock(address: str, key: int) -> Iterator[None]:
    """Hold a lock of the database, which it releases when this process dies."""
    from sqlalchemy import NullPool, create_engine, text

    with create_engine(_url(address), poolclass=NullPool).begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield


def database_errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    return (optuna.exceptions.StorageInternalError, SQLAlchemyError)
