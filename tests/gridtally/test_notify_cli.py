"""gridtally notify: receivers and rules are kept with who entered them; secrets are never shown; bad addresses are refused."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from gridtally.cli import app

SECRET = "0123456789abcdef"


@pytest.fixture
def call(database: str, tmp_path: Path) -> Any:
    (tmp_path / "secret").write_text(SECRET, "utf-8")
    env = {"GRIDTALLY_DATABASE__DSN": database}
    return lambda *words: CliRunner().invoke(app, ["notify", *words, "--data-dir", str(tmp_path)], env=env)


def test_a_receiver_and_its_rule_come_and_go_and_no_secret_is_shown(call: Any, database: str, tmp_path: Path) -> None:
    web = ["--channel", "webhook", "--address", "https://a.example/x", "--secret-file", str(tmp_path / "secret")]
    assert call("receiver", "add", "desk", *web, "--as", "ann").exit_code == 0
    assert call("receiver", "add", "desk", *web, "--as", "ann").exit_code == 1
    assert call("rule", "add", "desk", "--kind", "tamper", "--as", "ann").exit_code == 0
    shown = call("receiver", "list", "--json").stdout + call("rule", "list").stdout
    assert "desk" in shown
    assert "tamper" in shown
    assert SECRET not in shown
    assert call("rule", "remove", "1", "--as", "ann").exit_code == 0
    assert call("rule", "remove", "1", "--as", "ann").exit_code == 1
    assert call("receiver", "remove", "desk", "--as", "ann").exit_code == 0
    assert "desk" not in call("receiver", "list").stdout
    with psycopg.connect(database) as conn:
        done = conn.execute("select who, action, detail::text from audit order by audit_no").fetchall()
    assert [row[:2] for row in done] == [
        ("ann", word) for word in ("receiver.add", "rule.add", "rule.remove", "receiver.remove")
    ]
    assert SECRET not in str(done)


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        ("webhook", "ftp://a/"),
        ("webhook", "https://u:p@a/"),
        ("mail", "a@b\r\nBcc: c@d"),
        ("mqtt", "a/#"),
        ("fax", "1"),
    ],
)
def test_an_unfit_address_is_2(call: Any, channel: str, address: str) -> None:
    assert call("receiver", "add", "x", "--channel", channel, "--address", address, "--as", "ann").exit_code == 2


def test_only_what_has_failed_is_tried_again(call: Any) -> None:
    assert call("retry", "1", "--as", "ann").exit_code == 1
