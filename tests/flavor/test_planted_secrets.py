"""Secrets planted wherever a program can hold one: none is in any file of either format; a missed one is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest

from dspy_trace_flavor.decoding import Decoder
from dspy_trace_flavor.errors import SecretFound
from dspy_trace_flavor.folder import scan
from dspy_trace_flavor.formats import as_json, as_pickle, read
from dspy_trace_flavor.searching import search
from dspy_trace_flavor.summary import summary
from dspy_trace_flavor.vault import Givers, Vault

_planted: list[str] = []


def planted(form: str = "{}") -> str:
    """Return a text with one more secret in it."""
    _planted.append(f"canary{len(_planted):03}xyz")
    return form.format(_planted[-1])


@dataclasses.dataclass
class Client:
    """Holds a key as clients do."""

    url: str
    api_key: str
    headers: dict[str, str]


class Slotted:
    """Has no ``__dict__``."""

    __slots__ = ("auth_token",)


class Vaulted(pydantic.BaseModel):
    """Holds secrets as careful people do, and as others do."""

    hidden: pydantic.SecretStr
    password: str


class Search(dspy.Retrieve):  # type: ignore[misc]
    """A retriever with a client."""

    def __init__(self, client: Any) -> None:
        super().__init__(k=1)
        self.client = client


def made_with(service_key: str) -> Callable[[str], str]:
    """Return a tool that closes over a key."""

    def call(query: str) -> str:
        return f"{query}{service_key[:0]}"

    return call


def asked(query: str, access_key: str = "") -> str:
    """Take a key as an argument."""
    return f"{query}{access_key[:0]}"


class Leaky(dspy.Module):  # type: ignore[misc]
    """Holds a secret in every place that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.api_key = planted()
        self.predict = dspy.Predict("question -> answer", api_key=planted())
        self.predict.lm = lm()
        self.predict.demos = [dspy.Example(question=planted("use sk-{}abcdefghijk"), answer="no")]
        self.search = Search(
            Client(planted("https://me:{}@db.example/x"), planted(), {"Authorization": planted("Bearer {}")})
        )
        self.nested = {"service": {"password": planted()}, "pairs": [("X-Api-Key", planted())]}
        self.by_key = {planted("sk-{}abcdefghijk"): 3}
        self.tools = [dspy.Tool(made_with(planted()))]
        self.partial = functools.partial(asked, access_key=planted())
        self.slotted = Slotted()
        self.slotted.auth_token = planted()
        self.vaulted = Vaulted(hidden=pydantic.SecretStr(planted()), password=planted())
        self.raw_secret = planted().encode()
        self.embedder = dspy.Embedder("openai/small", api_key=planted(), extra_headers={"api-key": planted()})
        self.note = planted("call https://h.example/?x=1 with Bearer {}abc")

    def forward(self, question: str) -> Any:
        """Answer."""
        return self.predict(question=question)


def lm() -> Any:
    return dspy.LM(
        "openai/gpt-4o-mini",
        api_key=planted(),
        api_base=planted("http://user:{}@127.0.0.1:9/v1"),
        headers={"Authorization": planted("Bearer {}"), "X-Auth-Token": planted()},
        extra_body={"credentials": {"token": planted()}},
        aws_secret_access_key=planted(),
        aws_session_token=planted(),
        azure_ad_token=planted(),
        launch_kwargs={"api_key": planted()},
        train_kwargs={"hub_token": planted()},
        cache=False,
    )


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, dict[str, Any], dict[str, str]]]:
    """A program, its settings and an environment, with more than thirty secrets between them."""
    _planted.clear()
    environ = {"WEATHER_API_KEY": planted(), "DB_PASSWORD": planted(), "HOME": "/home/me"}
    program = Leaky()
    program.weather = environ["WEATHER_API_KEY"]
    settings = {
        "lm": lm(),
        "adapter": dspy.TwoStepAdapter(lm()),
        "my_service": {"client_secret": planted()},
    }
    for one in (program.predict.lm, settings["lm"]):
        one.history.append({"messages": planted(), "kwargs": {"api_key": planted()}})
    assert len(_planted) > 40
    yield program, settings, environ


def folder_of(program: Any, settings: dict[str, Any], environ: dict[str, str], form: str, place: Path) -> Vault:
    vault = Vault(environ)
    search(vault, program, "program")
    search(vault, settings, "settings")
    files = (as_json if form == "state" else as_pickle)(program, settings, vault)
    files["data/summary.json"] = json.dumps(summary(program, settings, vault)).encode()
    (place / "data").mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    return vault


@pytest.mark.parametrize("form", ["state", "cloudpickle"])
def test_no_planted_secret_is_in_any_file(form: str, leaky: Any, tmp_path: Path) -> None:
    """Neither format has any of them in any spelling; the scan agrees; and the environment gives them all back."""
    program, settings, environ = leaky
    vault = folder_of(program, settings, environ, form, tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert [secret for secret in _planted if secret.encode() in written] == []
    assert b"canary" not in written
    scan(tmp_path, vault)
    given = {secret.variable: value for value, secret in vault.secrets.items()}
    loaded, saved = read(tmp_path, form, Decoder(Givers(given)))
    assert loaded.weather == environ["WEATHER_API_KEY"]
    assert loaded.search.client == program.search.client
    assert loaded.vaulted == program.vaulted
    assert (loaded.api_key, loaded.raw_secret, loaded.nested) == (program.api_key, program.raw_secret, program.nested)
    assert loaded.predict.lm.kwargs == program.predict.lm.kwargs
    assert loaded.tools[0].func.__closure__[0].cell_contents == program.tools[0].func.__closure__[0].cell_contents
    assert saved["my_service"] == settings["my_service"]
    assert vault.secrets[environ["WEATHER_API_KEY"]].variable == "WEATHER_API_KEY"


def test_missing_secrets_are_named(leaky: Any, tmp_path: Path) -> None:
    """What is not in the environment of the loading process is accounted for by the names of its variables."""
    program, settings, environ = leaky
    vault = folder_of(program, settings, environ, "state", tmp_path)
    givers = Givers({})
    loaded, _ = read(tmp_path, "state", Decoder(givers))
    assert set(givers.missing) == {secret.variable for secret in vault.used.values()}
    assert "api_key" not in loaded.predict.lm.kwargs


def test_code_that_is_pickled_by_value_is_searched(tmp_path: Path) -> None:
    """Functions of ``__main__`` take their globals, defaults and constants along: without the secrets in them."""
    module = types.ModuleType("__main__")
    source = (
        "TOKEN_OF_MINE = 'canary-global-1'\n"
        "auth = {'password': 'canary-dict-22'}\n"
        "def tool(q: str, api_key: str = 'canary-default-3') -> str:\n"
        "    return TOKEN_OF_MINE + auth['password'] + api_key + 'sk-canaryconstant4abc'\n"
    )
    exec(source, module.__dict__)
    program = dspy.ReAct("question -> answer", tools=[module.tool])
    assert sys.modules["__main__"] is not module
    vault = folder_of(program, {"access_token": "canary-global-1"}, {}, "cloudpickle", tmp_path)
    assert b"canary" not in (tmp_path / "data/program.pkl").read_bytes()
    given = {secret.variable: value for value, secret in vault.secrets.items()}
    loaded, _ = read(tmp_path, "cloudpickle", Decoder(Givers(given)))
    expected = "canary-global-1canary-dict-22canary-default-3sk-canaryconstant4abc"
    assert loaded.tools["tool"].func("q") == expected


@pytest.mark.parametrize("spelled", ["{}", '{{"key": "a{}"}}', "k=b'{}'"])
def test_the_scan_catches_a_planted_miss(spelled: str, leaky: Any, tmp_path: Path) -> None:
    """A secret that is in a file all the same fails the save, and the attribute that holds it is named."""
    program, settings, environ = leaky
    vault = folder_of(program, settings, environ, "state", tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tools.py").write_text(spelled.format(program.api_key))
    with pytest.raises(SecretFound, match=r"program\.api_key: its secret would be in code/tools\.py") as caught:
        scan(tmp_path, vault)
    assert program.api_key not in str(caught.value)


def test_the_scan_catches_what_looks_like_a_secret(tmp_path: Path) -> None:
    """A key in shipped source that nobody knows of is found by its looks."""
    (tmp_path / "tools.py").write_text("client = Client('sk-proj-abcdefghijklmnopqrstuvwxyz')")
    with pytest.raises(SecretFound, match=r"tools\.py: sk-pro\.\.\. in it looks like a secret"):
        scan(tmp_path, Vault({}))


def test_ordinary_texts_stay() -> None:
    """What is no secret is saved as it is, though it speaks of keys."""
    vault = Vault({"OPENAI_API_KEY": "EMPTY", "PWD": "/home/somebody", "DB_PASSWORD": "postgres"})
    for text in (
        "EMPTY",
        "Write SQL for postgres.",
        "/home/somebody/x",
        "max_tokens",
        "the api_key is secret",
        "http://host:8000/v1",
        "a" * 40,
    ):
        assert vault.parts(text, "program") is None
