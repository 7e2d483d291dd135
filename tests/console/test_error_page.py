"""What a visitor and a program are told when something does not answer."""

import asyncio
import json
import logging
import re
import socket

import httpx
import pytest
from fastapi import FastAPI

from console.app import create_app
from console.stream import WATCHERS_MAX
from schemas.addresses import Addresses
from schemas.settings import Settings

SECRET = "dr0wssap-secret"
PAGES = ("/meters/m-1", "/meters/m-1/usage.csv")
RESTS = ("/api/v1/meters/m-1", "/api/v1/meters/m-1/usage", "/api/v1/alarms", "/api/v1/dead-letters")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """Give a console whose database and Kafka do not answer; its live feed is not started."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("nothing"))
    dsn = f"postgresql://gridtally:{SECRET}@127.0.0.1:{free_port()}/gridtally"
    return create_app(settings, Addresses("mqtt://127.0.0.1:1", f"127.0.0.1:{free_port()}", dsn, "http://127.0.0.1:1"))


def get(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("path", PAGES)
def test_a_page_without_database_says_so_in_the_visitors_language(app: FastAPI, path: str) -> None:
    for language, sentence, tag in (("zh-CN", "数据库没有应答", "zh-CN"), ("en", "The database does not answer", "en")):
        answer = get(app, path, **{"Accept-Language": language})
        assert answer.status_code == 503
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.headers["Retry-After"]
        assert sentence in answer.text
        assert f'<html lang="{tag}"' in answer.text


@pytest.mark.parametrize("path", RESTS)
def test_a_program_without_database_gets_json(app: FastAPI, path: str) -> None:
    answer = get(app, path)
    assert (answer.status_code, answer.json()) == (503, {"detail": "the database does not answer; try again"})


def test_the_control_room_comes_up_without_database_and_shows_missing_figures(app: FastAPI) -> None:
    answer = get(app, "/", **{"Accept-Language": "en"})
    assert answer.status_code == 200
    assert re.search(r'<span id="load">–</span>', answer.text)
    assert re.search(r'<span id="readings">–</span>', answer.text)
    assert "The curve has not been read yet" in answer.text
    assert "No alarm needs anyone" not in answer.text


def test_status_without_database_still_says_which_processes_run(app: FastAPI) -> None:
    answer = get(app, "/api/v1/status")
    assert answer.status_code == 200
    assert answer.json()["progress"] is None


def test_no_answer_and_no_log_holds_the_password(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        texts = [get(app, path).text for path in ("/", "/api/v1/status", "/api/v1/openapi.json", *PAGES, *RESTS)]
    assert SECRET not in "".join(texts)
    assert SECRET not in "".join(f"{record.getMessage()} {getattr(record, 'fields', '')}" for record in caplog.records)


def test_a_raw_message_without_kafka_says_so(app: FastAPI) -> None:
    answer = get(app, "/raw/0/5/0", **{"Accept-Language": "en"})
    assert answer.status_code == 503
    assert "Kafka does not answer" in answer.text


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nowhere", 404), ("/raw/x/1/2", 422), ("/raw/0/99999999999999999999/0", 422), ("/raw/0/-1/0", 422),
        ("/meters/m-1?days=0", 422), ("/meters/m-1?days=x", 422), ("/meters/m-1?explain=-1", 422),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_answered_with_a_page(app: FastAPI, path: str, code: int) -> None:
    answer = get(app, path, **{"Accept-Language": "en"})
    assert answer.status_code == code
    assert answer.text.startswith("<!doctype html>")
    assert ("There is no such page" if code == 404 else "cannot be used") in answer.text


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/api/v1/alarms?limit=0", "limit"),
        ("/api/v1/alarms?limit=1001", "limit"),
        ("/api/v1/alarms?active=perhaps", "active"),
        ("/api/v1/dead-letters?code=A%00", "code"),
        ("/api/v1/dead-letters?before_id=99999999999999999999", "before_id"),
        ("/api/v1/meters/a%00b", "meter_id"),
        ("/api/v1/meters/" + "x" * 65, "meter_id"),
        ("/api/v1/meters/m/usage?start=yesterday", "start"),
        ("/api/v1/meters/m/usage?end=0001-01-01T00:00:00Z", "end"),
        ("/api/v1/meters/m/usage?start=9999-12-31T23:59:59Z", "start"),
        ("/api/v1/meters/m/readings?start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "start"),
        ("/api/v1/meters/m/readings?start=2020-01-01T00:00:00Z&end=2026-01-01T00:00:00Z", "start"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(app: FastAPI, path: str, word: str) -> None:
    answer = get(app, path)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{word}: ")


def test_an_unforeseen_error_is_a_page_with_an_incident_number_that_the_log_has(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("console.pages.room_page", fail)
    answer = get(app, "/", **{"Accept-Language": "en"})
    assert answer.status_code == 500
    assert "planted" not in answer.text
    assert "Content-Security-Policy" in answer.headers
    logged = next(record.fields for record in caplog.records if record.getMessage() == "request_failed")  # type: ignore[attr-defined]
    assert logged["incident"] in answer.text


def test_every_answer_has_the_security_headers_and_pages_are_not_kept(app: FastAPI) -> None:
    for path in ("/", "/nowhere", "/api/v1/status", "/static/live.js"):
        headers = get(app, path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert get(app, "/").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("en-US,en;q=0.9", "en"),
        ("zh-TW,en", "zh-CN"),
        ("de,en;q=0.7", "en"),
        ("de", "zh-CN"),
        ("", "zh-CN"),
        ("," * 99, "zh-CN"),
    ],
)
def test_the_browsers_first_known_language_is_taken(app: FastAPI, accepted: str, language: str) -> None:
    assert f'<html lang="{language}"' in get(app, "/", **{"Accept-Language": accepted}).text


def test_a_choice_of_language_and_theme_is_kept_and_nothing_else_gets_into_the_page(app: FastAPI) -> None:
    answer = get(app, "/?lang=en&theme=dark")
    assert {"lang=en", "theme=dark"} <= {value.split(";")[0] for value in answer.headers.get_list("set-cookie")}
    assert 'data-theme="dark"' in answer.text
    assert 'data-theme="dark"' in get(app, "/", Cookie="theme=dark").text
    hostile = get(app, '/?lang="><script>&theme="onload=x', Cookie='theme="x')
    assert "<script>" not in hostile.text
    assert "onload" not in hostile.text.split("<main")[0].replace("onload%3Dx", "")
    assert not hostile.headers.get_list("set-cookie")


def test_a_meter_search_cannot_leave_the_console(app: FastAPI) -> None:
    for wanted in ("//evil.example/x", "https://evil.example", "../api/v1/status", "a b?c#d"):
        answer = get(app, str(httpx.URL("/meters", params={"q": wanted})))
        assert answer.status_code == 303
        assert re.fullmatch(r"/meters/[A-Za-z0-9%._-]+", answer.headers["Location"])


def test_the_page_of_a_meter_that_cannot_be_escapes_its_name(app: FastAPI) -> None:
    answer = get(app, "/meters/%3Cimg%20src=x%3E")
    assert answer.status_code == 404
    assert "&lt;img src=x&gt;" in answer.text
    assert "<img" not in answer.text


async def test_a_heartbeat_comes_when_there_is_no_snapshot_and_the_newest_snapshot_at_once(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.stream.HEARTBEAT_S", 0.05)
    broadcast, feed = app.state.broadcast, app.state.console.feed
    broadcast.attach()
    number = feed.snapshot.number
    assert await broadcast.newer_than(number) is None
    found = await broadcast.newer_than(number - 1)
    assert found is not None
    assert found.number == number
    waiting = asyncio.create_task(broadcast.newer_than(number))
    await asyncio.sleep(0)
    feed.snapshot = feed.board.snapshot(1)
    await asyncio.to_thread(feed.on_snapshot)
    woken = await waiting
    assert woken is not None
    assert json.loads(woken.text)["id"] == number + 1


def test_more_watchers_than_the_bound_are_refused(app: FastAPI) -> None:
    app.state.broadcast.watchers = WATCHERS_MAX
    answer = get(app, "/stream")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
