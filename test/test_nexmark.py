"""The Nexmark benchmark's queries: each is asked of continuous views over 100,000 events in Kafka, and of PostgreSQL over
ordinary tables with the same rows. STREAMEXT_NEXMARK_EVENTS sets how many there are."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from harness.database import Database
from harness.kafka import Kafka, Message
from nexmark.generator import AUCTION, BEGIN, BID, PERSON, Event, events

EVENTS = int(os.environ.get("STREAMEXT_NEXMARK_EVENTS", 100_000))
SQL = Path(__file__).parent / "nexmark" / "sql"
QUERIES = [f"q{n}" for n in range(23)]
DERIVED = {"q0", "q1", "q2", "q10", "q14", "q21", "q22"}  # their last rows are kept
QUESTION = "-- The question, over ordinary tables:\n"

ORACLE = """CREATE SCHEMA oracle;
    CREATE TABLE oracle.person (n int, id bigint, name text, email text, credit_card text, city text, state text, extra text, ts timestamptz);
    CREATE TABLE oracle.auction (n int, id bigint, item_name text, description text, initial_bid bigint, reserve bigint,
        expires timestamptz, seller bigint, category int, extra text, ts timestamptz);
    CREATE TABLE oracle.bid (n int, auction bigint, bidder bigint, price bigint, channel text, url text, extra text, ts timestamptz,
        arrived timestamptz)"""


def arrival(event: Event) -> timedelta:
    """Since the beginning: records arrive at a third of the pace of their times."""
    return timedelta(milliseconds=3 * event.number)


def fill_tables(db: Database, happened: list[Event]) -> None:
    db.execute(ORACLE)
    for kind, table in ((PERSON, "person"), (AUCTION, "auction"), (BID, "bid")):
        with db.connection.cursor() as cursor, cursor.copy(f"COPY oracle.{table} FROM STDIN") as copy:
            for event in happened:
                if event.kind == kind:
                    more = [BEGIN + arrival(event)] if kind == BID else []
                    copy.write_row([event.number, *event.fields.values(), event.time, *more])
        db.execute(f"ANALYZE oracle.{table}")


def produce(kafka: Kafka, topic: str, happened: list[Event]) -> None:
    begin = int(BEGIN.timestamp() * 1000)
    kafka.create_topic(topic)
    kafka.produce(topic, (Message(e.json(), timestamp=begin + arrival(e) // timedelta(milliseconds=1)) for e in happened))


def views_and_question(query: str) -> tuple[str, str]:
    views, question = (SQL / f"{query}.sql").read_text().split(QUESTION)
    return views, question


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_queries(db: Database, kafka: Kafka, topic: str) -> None:
    happened = list(events(EVENTS))
    db.execute("SET timezone = 'UTC'")
    for script in ((SQL / "streams.sql").read_text(), *(views_and_question(query)[0] for query in QUERIES)):
        db.execute(script.replace("{brokers}", kafka.brokers).replace("{topic}", topic))
    produce(kafka, topic, happened)
    fill_tables(db, happened)
    db.flush("event", "arrival")

    counted = db.rows("SELECT view, state, last_error, accepted, late, rejected FROM streamext.continuous_views")
    assert all(row[3:] == (EVENTS, 0, 0) for row in counted), (counted, db.rows("TABLE streamext.stream_partitions"))
    for query in QUERIES:
        question = views_and_question(query)[1]
        if query in DERIVED:
            question += f" ORDER BY n DESC LIMIT {db.value(f'SELECT count(*) FROM {query}')}"
        db.assert_same(f"TABLE {query}", question)
        assert db.value(f"SELECT count(*) > 0 FROM {query}"), query
    # A bid is joined with its auction when it arrives if that came before; one that came later may be of the same batch.
    pairs = """SELECT b.auction, b.bidder, b.price, b.ts, a.ts FROM oracle.bid b JOIN oracle.auction a ON b.auction = a.id
        WHERE a.category = 10"""
    assert db.rows(f"(TABLE q20_arrival) EXCEPT ALL ({pairs})") == []
    assert db.rows(f"({pairs} AND a.n < b.n) EXCEPT ALL (TABLE q20_arrival)") == []
