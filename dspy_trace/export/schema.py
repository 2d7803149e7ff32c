"""The tables of a spool."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

SCHEMA = 2
"""Version of the tables. A newer one is left alone."""

TABLES = """
CREATE TABLE targets (
    id INTEGER PRIMARY KEY, uri TEXT NOT NULL, experiment_id TEXT NOT NULL, experiment_name TEXT NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0, folder TEXT NOT NULL DEFAULT '', UNIQUE (uri, experiment_id, experiment_name));
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL, trace_id TEXT NOT NULL, owner TEXT NOT NULL,
    holder TEXT NOT NULL, until REAL NOT NULL, created REAL NOT NULL, spans INTEGER NOT NULL, bytes INTEGER NOT NULL,
    complete INTEGER NOT NULL, payload BLOB NOT NULL, info BLOB);
CREATE INDEX batches_by_target ON batches (target);
CREATE INDEX batches_by_owner ON batches (owner);
CREATE INDEX batches_by_trace ON batches (trace_id);
CREATE TABLE followups (
    id INTEGER PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL, trace_id TEXT NOT NULL, kind TEXT NOT NULL,
    owner TEXT NOT NULL, holder TEXT NOT NULL, until REAL NOT NULL, created REAL NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0, payload BLOB NOT NULL);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL, trace_id TEXT NOT NULL, kind TEXT NOT NULL,
    owner TEXT NOT NULL, created REAL NOT NULL, spans INTEGER NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE accounts (owner TEXT, name TEXT, n INTEGER NOT NULL, PRIMARY KEY (owner, name)) WITHOUT ROWID;
CREATE TABLE problems (
    uri TEXT, cause TEXT, message TEXT NOT NULL, since REAL NOT NULL, last REAL NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (uri, cause)) WITHOUT ROWID;
CREATE TABLE workers (slot TEXT PRIMARY KEY, state TEXT NOT NULL, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO totals VALUES ('bytes', 0);
CREATE TRIGGER batches_in AFTER INSERT ON batches BEGIN
    UPDATE totals SET n = n + new.bytes WHERE name = 'bytes'; END;
CREATE TRIGGER batches_out AFTER DELETE ON batches BEGIN
    UPDATE totals SET n = n - old.bytes WHERE name = 'bytes'; END;
"""


RUNS = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL, run TEXT NOT NULL, owner TEXT NOT NULL,
    created REAL NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL, ends INTEGER NOT NULL DEFAULT 0);
CREATE INDEX runs_by_target ON runs (target, run);
CREATE INDEX runs_by_owner ON runs (owner);
INSERT INTO totals VALUES ('run bytes', 0);
CREATE TRIGGER runs_in AFTER INSERT ON runs BEGIN
    UPDATE totals SET n = n + new.bytes WHERE name = 'run bytes'; END;
CREATE TRIGGER runs_out AFTER DELETE ON runs BEGIN
    UPDATE totals SET n = n - old.bytes WHERE name = 'run bytes'; END;
CREATE TABLE run_ids (run TEXT PRIMARY KEY, mlflow_id TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE run_rows (
    run TEXT, name TEXT, key TEXT, created REAL NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (run, name, key))
    WITHOUT ROWID;
"""
"""What schema 2 has beyond the first: records of runs, the ids that MLflow gave, and rows of tables that grow."""

NAMES = frozenset(re.findall(r"CREATE TABLE (\w+)", TABLES))
"""Tables by which a spool is told from another program's database."""


def statements(text: str) -> Iterator[str]:
    """Split a script: ``executescript`` would commit before it begins."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
