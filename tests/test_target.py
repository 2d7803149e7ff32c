"""Where traces go: from arguments and the environment to a target that holds no secret."""

from __future__ import annotations

import os
import timeit
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_trace.export.target import BadTarget, Credential, Target, target, without_secrets

PASSWORD = "pa5sw0rd"


@pytest.mark.parametrize(
    ("uri", "bare", "kind"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", "http"),
        ("HTTPS://host/team/", "https://host/team", "http"),
        (f"https://me:{PASSWORD}@host:8443/team", "https://host:8443/team", "http"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db", "database"),
        ("sqlite:////data/mlflow.db?timeout=5", "sqlite:////data/mlflow.db?timeout=5", "database"),
        ("postgresql://db/mlflow", "postgresql://db/mlflow", "database"),
        (f"postgresql+psycopg2://me:{PASSWORD}@db:5432/m?sslmode=require", None, "database"),
        (f"postgresql://db/m?user=me&password={PASSWORD}", "postgresql://db/m?user=me", "database"),
        (f"mysql+pymysql://me:a/{PASSWORD}@x@db/m", "mysql+pymysql://db/m", "database"),
        (f"mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3D{PASSWORD}", "mssql+pyodbc:///", "database"),
        ("databricks", "databricks", "database"),
        ("databricks://profile", "databricks://profile", "database"),
    ],
)
def test_a_uri_is_kept_without_what_opens_it(uri: str, bare: str | None, kind: str) -> None:
    """User-info and secret parameters go into the credential, and into nothing that is printed or stored."""
    where, credential = target(uri, None, {})
    assert where.kind == kind
    assert where.uri == (bare or "postgresql+psycopg2://db:5432/m?sslmode=require")
    assert PASSWORD not in repr(where) + repr(credential)
    assert (PASSWORD in uri) == (credential is not None)
    if credential is not None and kind == "database":
        assert credential.uri == uri
    elif credential is not None:
        assert (credential.username, credential.password) == ("me", PASSWORD)


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("file:///tmp/mlruns", "sqlite:///mlflow.db"),
        ("./mlruns", "sqlite:///mlflow.db"),
        ("mlruns", "sqlite:///mlflow.db"),
        ("/tmp/mlruns", "sqlite:///mlflow.db"),
        (r"C:\mlruns", "sqlite:///mlflow.db"),
        ("sqlite://", "sqlite:///mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///mlflow.db"),
        ("sqlite:///file:x?mode=memory&uri=true", "sqlite:///mlflow.db"),
        ("http://", "http://127.0.0.1:5000"),
        (f"http://me:{PASSWORD}/x@host", "quoted"),
        ("s3://bucket", "postgresql://"),
        (f"ftp://me:{PASSWORD}@host", "http(s)://"),
        ("postgres://db/m", "postgresql://"),
    ],
)
def test_what_traces_cannot_be_kept_in_is_refused_with_the_remedy(uri: str, remedy: str) -> None:
    """A folder, a database in memory and an unknown scheme are refused each time, and the message says what to use."""
    for _ in range(2):
        with pytest.raises(BadTarget) as refused:
            target(uri, None, {})
        assert remedy in str(refused.value)
        assert PASSWORD not in str(refused.value)


def test_the_default_is_mlflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URI it is `mlflow.db` in the folder that is the working folder at the time, spelled as MLflow does."""
    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert target(None, None, {})[0] == Target(f"sqlite:///{tmp_path}/my%20project/mlflow.db")
    monkeypatch.chdir(tmp_path)
    assert target(None, None, {})[0] == Target(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_relative_path_is_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its folder writes to the database of the folder that it was in."""
    monkeypatch.chdir(tmp_path)
    assert target("sqlite:///runs/../m.db", None, {})[0].uri == f"sqlite:///{tmp_path}/m.db"
    monkeypatch.chdir("/")
    assert target("sqlite:///m.db", None, {})[0].uri == "sqlite:////m.db"


def test_a_working_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder a relative URI means nothing; an absolute one still does."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(BadTarget, match="working folder is gone"):
        target(None, None, {})
    assert target("http://host", None, {})[0].uri == "http://host"


@pytest.mark.parametrize(
    ("argument", "environ", "expected"),
    [
        (None, {}, (None, None)),
        ("12", {}, ("12", None)),
        ("support desk", {"MLFLOW_EXPERIMENT_ID": "3"}, (None, "support desk")),
        (None, {"MLFLOW_EXPERIMENT_NAME": "desk"}, (None, "desk")),
        (None, {"MLFLOW_EXPERIMENT_NAME": "42"}, (None, "42")),
        (None, {"MLFLOW_EXPERIMENT_ID": "3", "MLFLOW_EXPERIMENT_NAME": "desk"}, ("3", None)),
        (None, {"MLFLOW_EXPERIMENT_ID": " ", "MLFLOW_EXPERIMENT_NAME": ""}, (None, None)),
    ],
)
def test_the_experiment(argument: str | None, environ: dict[str, str], expected: tuple[str | None, str | None]) -> None:
    """The argument wins; an id in the environment is what `mlflow.set_experiment` wrote last."""
    where, _ = target("http://host", argument, environ)
    assert (where.experiment_id, where.experiment_name) == expected


@pytest.mark.parametrize(
    ("environ", "credential"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "a", "MLFLOW_TRACKING_PASSWORD": "b"}, Credential("a", "b")),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, Credential(token="t")),
        ({"MLFLOW_TRACKING_USERNAME": "a", "MLFLOW_TRACKING_TOKEN": "t"}, Credential(token="t")),
        ({}, None),
    ],
)
def test_credentials_of_the_environment_are_for_servers(environ: dict[str, str], credential: Credential | None) -> None:
    """As MLflow takes them: user and password, else the token; a database has its own."""
    assert target("http://host", None, environ)[1] == credential
    assert target("sqlite:////m.db", None, environ)[1] is None


def test_a_change_of_the_environment_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next trace goes where `os.environ` says by then, however it was changed."""
    for uri in ("http://a", "http://b", "http://a"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert target(None, None, os.environ)[0].uri == uri
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "one")
    assert target(None, None)[1] == Credential(token="one")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "two")
    assert target(None, None)[1] == Credential(token="two")


def test_asking_again_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked on the program's threads for each trace: two microseconds, here with room for a busy machine."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    best = min(timeit.repeat(lambda: target(None, None, os.environ), number=200, repeat=50)) / 200
    assert best < 5e-6


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=6).map("s3cr3t".__add__))
def test_no_password_survives(password: str) -> None:
    """Whatever a password is made of, quoted or not, nothing of it is left."""
    assert "s3cr3t" not in without_secrets(f"postgresql://me:{password}@host/db")
