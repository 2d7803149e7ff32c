"""What is taken for a secret, and that it is found wherever and however it stands in a text."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from dspy_trace import secrets
from dspy_trace.secrets import REPLACEMENT, learn, looks_secret, scrub, scrub_json, scrub_text
from tests.planted import nothing_known  # noqa: F401  # a fixture

KEY = "ck-7Hq2Zt9LpX4vB8nM1sD6"


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "API_KEY", "apiKey", "apikey", "X-Api-Key", "x-goog-api-key", "Ocp-Apim-Subscription-Key"),
        *("token", "access_token", "hf_token", "azure_ad_token", "aws_session_token", "api_tokens", "token2"),
        *("password", "DB_PASSWORD", "userPassword", "passwd", "pwd", "secret", "client_secret", "secrets"),
        *("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "auth", "helicone-auth", "jwt"),
        *("aws_access_key_id", "aws_secret_access_key", "aws_external_id", "credentials", "vertex_credentials"),
        *("private_key", "AccountKey", "connection_string", "connectionString", "session_key"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    """In whatever style they are written, and with whatever stands before them."""
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "key", "cache_key", "primary_key", "keys", "max_tokens", "tokens", "token_count", "completion_tokens"),
        *("input_tokens", "tokenUsage", "tokenizer", "next_page_token", "eos_token", "time_to_first_token"),
        *("token_ids", "author", "authority", "passage", "pass", "passed", "signature", "question", "secretary"),
        *("aws_region_name", "AWS_PROFILE", "password_length", "credentials_path", "token_type", "cookie_name"),
        "AWS_CA_BUNDLE",
        *("gen_ai.usage.input_tokens", "gen_ai.token.type", "mlflow.chat.tokenUsage", "x" * 300 + "_password"),
    ],
)
def test_names_of_anything_else(name: str) -> None:
    """Counts of tokens, keys of tables and what only tells about a secret are none."""
    assert not looks_secret(name)


@pytest.mark.parametrize(
    "value", [None, 7, b"bytes-that-are-long", ["a-list-of-it"], "short77", "x" * 4097, "", object()]
)
def test_what_is_no_text_of_the_right_length_is_not_searched_for(value: Any) -> None:
    """A short value stands in any text; what is no text is not compared with one."""
    learn(value, "a test")
    assert secrets.known() == {}


SECRETS = [
    KEY,
    "only-lower-case-words",
    'quote"in-it',
    "quote'in-it-and-more",
    "line\nbreak\tand\\backslash",
    "schlüssel-日本-\U0001f511",
    "nabcdefghij",
    "control\x01\x7fcharacters",
    "p@ss:w/rd?&=%20 #+",
    "lone\udc80surrogate",
    "[secret]x",
    "x" * 4096,
]


def forms(secret: str) -> Iterator[str]:
    """Yield a text for each way in which a secret may have got into it."""
    yield f"before {secret} after"
    yield json.dumps({"text": f"before {secret} after"})
    yield json.dumps(json.dumps({"text": secret}))
    yield json.dumps({"text": secret}, ensure_ascii=False)
    yield f"ValueError({secret!r})"
    yield f"https://host/{quote(secret, errors='replace')}"


@pytest.mark.parametrize("secret", SECRETS, ids=ascii)
def test_a_known_secret_is_found_in_all_its_forms(secret: str) -> None:
    """As it is, in JSON, in JSON within JSON, in a ``repr`` and in a URL; in plain text and in JSON text."""
    clean = secret.encode("utf-8", "replace").decode()
    learn(secret, "a test")
    for text in forms(secret):
        hidden = scrub_text(text)
        assert REPLACEMENT in hidden
        assert secret not in hidden.replace(REPLACEMENT, "")
        assert json.dumps(secret)[1:-1] not in hidden.replace(REPLACEMENT, "")
        told = orjson.dumps({"text": text.encode("utf-8", "replace").decode(), clean: [clean]}).decode()
        (_, found), (name, values) = json.loads(scrub_json(told)).items()
        assert REPLACEMENT in found
        assert (name, values) == (REPLACEMENT, [REPLACEMENT])


def test_json_stays_valid_where_an_escape_looks_like_its_beginning() -> None:
    """The n of a line break is none of the secret's."""
    learn("nabcdefghij", "a test")
    assert json.loads(scrub_json(json.dumps("a\nabcdefghij"))) == "a\nabcdefghij"
    assert json.loads(scrub_json(json.dumps("a\\nabcdefghij"))) == f"a\\{REPLACEMENT}"


def test_secrets_within_secrets() -> None:
    """The longest is replaced first, so that nothing of it remains; the shorter one is found elsewhere."""
    for secret in ("abcdefgh", "abcdefgh-and-more", "0-abcdefgh-and-more-9"):
        learn(secret, "a test")
    assert scrub_text("0-abcdefgh-and-more-9 abcdefgh abcdefgh-and-more") == " ".join([REPLACEMENT] * 3)
    assert scrub_json('"0-abcdefgh-and-more-9 abcdefgh"') == f'"{REPLACEMENT} {REPLACEMENT}"'


def test_many_secrets() -> None:
    """Each of many is found, and of more than 128 the latest; what is known says where it was seen."""
    drawn = random.Random(7)
    values = ["".join(drawn.choices(string.ascii_letters + string.digits, k=drawn.randint(8, 60))) for _ in range(200)]
    for number, value in enumerate(values):
        learn(value, f"place {number}")
    assert secrets.known() == {value: f"place {number}" for number, value in enumerate(values) if number >= 72}
    text = " ".join(values[72:])
    assert scrub_text(text) == " ".join([REPLACEMENT] * 128)
    assert scrub_json(json.dumps(text)) == json.dumps(scrub_text(text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://me:p4ss@db:5432/x", "postgresql://[secret]@db:5432/x"),
        ("http://abc@host and me@example.com", "http://[secret]@host and me@example.com"),
        ("see http://host/@handle?q=1&max_tokens=5", "see http://host/@handle?q=1&max_tokens=5"),
        ("GET /v1?api-key=abc&q=Paris", "GET /v1?api-key=[secret]&q=Paris"),
        ("https://g.example/v1:generate?key=AIzb&alt=sse", "https://g.example/v1:generate?key=[secret]&alt=sse"),
        ("https://a.example/c?sv=1&sig=ab%2Fc", "https://a.example/c?sv=1&sig=[secret]"),
        ("{'Authorization': 'Bearer abc', 'n': 1}", "{'Authorization': '[secret]', 'n': 1}"),
        ('{"password": "a\\"b\\\\", "user": "me"}', '{"password": "[secret]", "user": "me"}'),
        ('{"password": 12345678, "max_tokens": 5}', '{"password": "[secret]", "max_tokens": 5}'),
        ('"{\\"token\\": \\"a b\\", \\"n\\": 1}"', '"{\\"token\\": \\"[secret]\\", \\"n\\": 1}"'),
        ("Incorrect API key provided: sk-proj-abc4567890abcdef.", "Incorrect API key provided: [secret]."),
        ("header was Bearer eyJhbGciOi.x-1_2", "header was Bearer [secret]"),
        ("header was BEARER eyJhbGciOi.x-1_2", "header was BEARER [secret]"),
        ("the bearer instruments of sk-learn", "the bearer instruments of sk-learn"),
        ("LM(model='gpt', api_key='k v', n=2)", "LM(model='gpt', api_key='[secret] v', n=2)"),
        ("host=db password=hunter2 dbname=x", "host=db password=[secret] dbname=x"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\nabc=\n-----END PRIVATE KEY-----", None),
    ],
)
def test_what_looks_like_a_secret_is_replaced_though_nobody_knows_it(text: str, told: str | None) -> None:
    """In URLs, headers, keyword arguments and JSON in texts, and by the form of a provider's key."""
    assert scrub_text(text) == (told or f"-----BEGIN PRIVATE KEY-----{REPLACEMENT}-----END PRIVATE KEY-----")


IN_JSON: list[Any] = [
    {"text": '{"password": "p\\"q", "n": "1"}'},
    {"text": json.dumps(json.dumps({"a": {"api_key": 'x"y\\', "n": [1]}}))},
    {"text": "{'token': 'it\"s', 'n': 1} and \"more\""},
    {"text": "{'token': 'cut off"},
    {"text": '{"token": "cut off\\'},
    {"text": 'redis://:pw@host/0?token=a"b'},
    {"text": '-----BEGIN RSA PRIVATE KEY-----\nMI\\"-----END'},
]


@pytest.mark.parametrize("value", IN_JSON, ids=range(len(IN_JSON)))
def test_json_stays_valid(value: Any) -> None:
    """Whatever is replaced in JSON text, and however it is escaped, the text stays JSON of the same shape."""
    text = json.dumps({**value, "end": "unharmed"})
    told = json.loads(scrub_json(text))
    assert told["end"] == "unharmed"
    assert list(told) == [*value, "end"]
    assert REPLACEMENT in json.dumps(told)
    assert not any(piece in json.dumps(told) for piece in ("cut off", 'it\\"s', "x\\", "p\\\\", ":pw"))


def test_plain_data() -> None:
    """By name at any depth, by value and by looks, in keys too; a copy, the original is left alone."""
    learn(KEY, "a test")
    value = {"a": [{"password": "x", "cookies": {"id": "y"}, "token": None, "secret": False}], KEY: (KEY, 1), 5: "fine"}
    before = json.dumps(value, default=str)
    assert scrub(value) == {
        "a": [{"password": REPLACEMENT, "cookies": REPLACEMENT, "token": None, "secret": False}],
        REPLACEMENT: (REPLACEMENT, 1),
        5: "fine",
    }
    assert json.dumps(value, default=str) == before
    loop: list[Any] = []
    loop.append(loop)
    assert REPLACEMENT in repr(scrub(loop))


def test_a_schema_of_a_secret_is_none() -> None:
    """A tool that takes a password is told with what it takes, without a password that stands in it."""
    schema = {"password": {"type": "string", "description": "yours", "default": "hunter22"}, "token": {"anyOf": [1]}}
    assert scrub(schema) == {
        "password": {"type": "string", "description": "yours", "default": REPLACEMENT},
        "token": {"anyOf": [1]},
    }
