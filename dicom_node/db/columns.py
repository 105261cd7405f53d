"""What the tables' columns have in common, and the metadata that all tables belong to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, String

from dicom_node.db.moment import UtcDateTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = BigInteger().with_variant(Integer, "sqlite")


def uid(name: str, **kwargs: Any) -> Column[str]:
    """Return a column of DICOM UIDs."""
    return Column(name, String(64), nullable=False, **kwargs)


def text(name: str, length: int) -> Column[str]:
    """Return a column of short texts, "" by default."""
    return Column(name, String(length), nullable=False, default="", server_default="")


def moment(name: str, *, nullable: bool = False) -> Column[datetime]:
    """Return a column of moments, in UTC."""
    return Column(name, UtcDateTime(), nullable=nullable)


def kept() -> Column[str]:
    """Return the column that says what became of a file."""
    return Column("kept", String(8), nullable=False, default="yes", server_default="yes")
