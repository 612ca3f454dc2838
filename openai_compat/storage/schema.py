"""The schema of the store: its tables, and their creation. SQLAlchemy is imported inside functions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from openai_compat.storage.circuit import StoreFailed

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table
    from sqlalchemy.types import TypeEngine

#: version of the schema, stored in the database, so that a later version can migrate from it
VERSION = 2
#: bytes that are charged for a link, which has four numbers and two indexes
LINK = 16
#: the key of PostgreSQL's advisory lock: "oaicompa" in ASCII, so that no other program has the same
_SCHEMA_LOCK = 0x6F61_6963_6F6D_7061


class Tables(NamedTuple):
    """The tables of the store."""

    #: one row: the version of the schema
    version: Table
    #: number of each owner's objects, and the bytes of all that belongs to the owner
    owners: Table
    objects: Table
    #: the metadata of objects, for searching; the JSON in ``objects`` is what is returned
    labels: Table
    #: each item once, however many objects have it in their lists
    items: Table
    #: the lists of objects: which item stands at which position
    links: Table
    #: objects that a process works on at present
    runs: Table
    #: what a run emitted, in batches
    events: Table


def encode(text: str) -> bytes:
    """Encode text as it is stored. Lone surrogates are allowed."""
    return text.encode("utf-8", "surrogatepass")


def _column_types() -> tuple[type[TypeEngine[bytes]], type[TypeEngine[str]]]:
    """Return the types of bytes and of text."""
    import sqlalchemy as sa

    class Blob(sa.LargeBinary):
        """Bytes. A damaged value of another type is returned as it is, so that the other rows of a result can be read.

        SQLite stores what it is given, such as text by an operator's statement.
        """

        def result_processor(self, dialect: Any, coltype: Any) -> Any:
            return lambda value: encode(value) if isinstance(value, str) else value

    class Text(sa.TypeDecorator[str]):
        """Text stored as bytes: comparison does not depend on a collation, and NUL and lone surrogates are allowed.

        A damaged value is returned as it is.
        """

        impl = Blob
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:
            return None if value is None else encode(value)

        def process_result_value(self, value: Any, dialect: Any) -> Any:
            try:
                return value.decode("utf-8", "surrogatepass")
            except (AttributeError, UnicodeDecodeError):
                return value

    return Blob, Text


class _Definitions:
    """The definitions of tables, with what they have in common."""

    def __init__(self) -> None:
        import sqlalchemy as sa

        self.schema = sa.MetaData()
        self.blob, self.text = _column_types()
        self.serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
        self.column = functools.partial(sa.Column, nullable=False)
        self.key = functools.partial(self.column, primary_key=True)

    def table(self, name: str, *parts: Any, **options: Any) -> Table:
        import sqlalchemy as sa

        return sa.Table(f"openai_compat_{name}", self.schema, *parts, **options)

    def index(self, name: str, *columns: str) -> Any:
        import sqlalchemy as sa

        return sa.Index(f"openai_compat_{name}", *columns)

    def of_object(self) -> Any:
        """Return the column of a table that belongs to an object, and whose rows go with it."""
        import sqlalchemy as sa

        return self.key("object", self.serial, sa.ForeignKey("openai_compat_objects.seq", ondelete="CASCADE"))

    def objects(self) -> Table:
        import sqlalchemy as sa

        column, big = self.column, sa.BigInteger
        return self.table(
            "objects",
            self.key("seq", self.serial),
            column("created", big),
            column("expires", sa.Double),
            column("bytes", big),  # of the object alone, its links and its events
            column("context", big),  # of the items in its list, whichever objects share them
            sa.Column("parent", big),  # seq; of an object that is gone if another program deleted it
            # links at lower positions are inherited, or are in the list of the extended object too
            column("shared", sa.Integer),
            *[column(name, self.text) for name in ("owner", "kind", "id", "model", "metadata")],
            column("body", self.blob),
            sa.UniqueConstraint("owner", "kind", "id"),
            *[self.index("by_age", "owner", "seq", "kind"), self.index("by_use", "owner", "expires", "seq")],
            *[self.index("by_expiry", "expires"), self.index("by_parent", "parent")],
            # otherwise SQLite would reuse the number of the newest object once that is deleted
            sqlite_autoincrement=True,
        )

    def items(self) -> Table:
        import sqlalchemy as sa

        column, text = self.column, self.text
        columns = [column("owner", text), column("id", text), column("body", self.blob), column("bytes", sa.BigInteger)]
        by_id = self.index("items_by_id", "owner", "id")
        return self.table("items", self.key("seq", self.serial), *columns, by_id)

    def links(self) -> Table:
        import sqlalchemy as sa

        # no cascade: deleting an item that is in a list is a fault, and fails
        item = self.column("item", self.serial, sa.ForeignKey("openai_compat_items.seq"))
        position, section = self.key("position", sa.Integer), self.column("section", sa.SmallInteger)
        return self.table("links", self.of_object(), position, item, section, sa.UniqueConstraint("item", "object"))


@functools.cache
def tables() -> Tables:
    """Return the definitions of the tables, which are the same in both databases."""
    import sqlalchemy as sa

    d = _Definitions()
    table, column, key, of_object, big, text = d.table, d.column, d.key, d.of_object, sa.BigInteger, d.text
    return Tables(
        version=table("version", column("version", sa.Integer)),
        owners=table("owners", key("owner", text), column("objects", big), column("bytes", big)),
        objects=d.objects(),
        labels=table("labels", of_object(), key("position", sa.Integer), column("key", text), column("value", text)),
        items=d.items(),
        links=d.links(),
        runs=table("runs", of_object(), column("holder", text), column("heartbeat", sa.Double)),
        events=table("events", of_object(), key("last", big), column("first", big), column("data", d.blob)),
    )


def create_schema(tx: Connection) -> None:
    """Create the tables unless they exist, or bring them from an earlier version to this one.

    :raises StoreFailed: the database has a version of the schema that this version of the package does not know.
    """
    import sqlalchemy as sa

    if tx.dialect.name == "postgresql":  # where even IF NOT EXISTS fails if two processes create a table at once
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
    table = tables().version
    table.create(tx, checkfirst=True)
    version = tx.scalar(table.select())
    if version is None:
        table.metadata.create_all(tx)
        tx.execute(table.insert().values(version=VERSION))
    elif version == 1:
        _migrate_from_1(tx)
        tx.execute(table.update().values(version=VERSION))
    elif version != VERSION:
        raise StoreFailed(f"The store has schema {version}; this version of openai_compat knows {VERSION}.")


def _migrate_from_1(tx: Connection) -> None:
    """Turn the items of each object into items and links, and count the bytes anew.

    It copies every item within the time of one operation: a large store needs a longer one for its first start.
    """
    import sqlalchemy as sa

    _, owners, objects, _, items, links, _, _ = tables()
    old: Any = sa.table(f"{items.name}_1", *map(sa.column, ("object", "position", "id", "body")))
    for column in ("parent BIGINT", "shared INTEGER DEFAULT 0 NOT NULL", "context BIGINT DEFAULT 0 NOT NULL"):
        tx.exec_driver_sql(f"ALTER TABLE {objects.name} ADD COLUMN {column}")
    tx.exec_driver_sql(f"ALTER TABLE {items.name} RENAME TO {old.name}")
    objects.metadata.create_all(tx)
    for index in objects.indexes:  # create_all passes over those of a table that exists
        index.create(tx, checkfirst=True)
    number = sa.func.row_number().over(order_by=(old.c.object, old.c.position))
    numbered = sa.select(number.label("number"), old).subquery()
    size = sa.func.length(numbered.c.id) + sa.func.length(numbered.c.body)
    values = sa.select(numbered.c.number, objects.c.owner, numbered.c.id, numbered.c.body, size)
    values = values.join(objects, objects.c.seq == numbered.c.object)
    tx.execute(items.insert().from_select(["seq", "owner", "id", "body", "bytes"], values))
    places = sa.select(numbered.c.object, numbered.c.position, numbered.c.number, sa.literal(0))
    tx.execute(links.insert().from_select(["object", "position", "item", "section"], places))
    if tx.dialect.name == "postgresql":
        sequence = sa.func.pg_get_serial_sequence(items.name, "seq")
        following = sa.select(sa.func.coalesce(sa.func.max(items.c.seq), 0) + 1).scalar_subquery()
        tx.execute(sa.select(sa.func.setval(sequence, following, False)))
    tx.exec_driver_sql(f"DROP TABLE {old.name}")
    _count_bytes(tx, owners, objects, items, links)


def _count_bytes(tx: Connection, owners: Table, objects: Table, items: Table, links: Table) -> None:
    """Count the bytes of all objects and owners."""
    import sqlalchemy as sa

    def total(column: ColumnElement[int], *conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return sa.func.coalesce(sa.select(sa.func.sum(column)).where(*conditions).scalar_subquery(), 0)

    is_linked = links.c.object == objects.c.seq
    of_links = sa.select(sa.func.count() * LINK).where(is_linked).scalar_subquery()
    size = sa.func.length(objects.c.id) + sa.func.length(objects.c.body) + of_links
    context = total(items.c.bytes, items.c.seq == links.c.item, is_linked)
    tx.execute(objects.update().values(bytes=size, context=context))
    of_owner = (total(table.c.bytes, table.c.owner == owners.c.owner) for table in (objects, items))
    tx.execute(owners.update().values(bytes=sum(of_owner)))
