"""Settings: which layer wins, what an error names, and that a secret is never shown."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.settings import DATA_DIR_DEFAULT, Loaded, SettingsError, describe, load_settings


def load(tmp_path: Path, toml: str = "", env: dict[str, str] | None = None, **flags: Any) -> Loaded:
    (tmp_path / "gridtally.toml").write_text(toml, "utf-8")
    return load_settings(data_dir=tmp_path, flags=flags.get("flags"), environment=env or {})


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    toml = "[kafka]\npartitions = 5\nretention_days = 6\nreplication_factor = 2\n"
    env = {"GRIDTALLY_KAFKA__PARTITIONS": "7", "GRIDTALLY_KAFKA__RETENTION_DAYS": "8", "OTHER": "ignored"}
    loaded = load(tmp_path, toml, env, flags={"kafka.partitions": "9"})
    kafka = loaded.settings.kafka
    assert (kafka.partitions, kafka.retention_days, kafka.replication_factor) == (9, 8, 2)
    assert kafka.topic_prefix == ""
    assert loaded.origins["kafka.partitions"] == "flag --set"
    assert loaded.origins["kafka.retention_days"] == "GRIDTALLY_KAFKA__RETENTION_DAYS"
    assert loaded.origins["kafka.replication_factor"] == str(tmp_path / "gridtally.toml")
    assert "kafka.topic_prefix" not in loaded.origins


def test_data_dir_is_taken_from_flag_then_environment_then_given_file_then_default(tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text('data_dir = "from-file"\n', "utf-8")
    env = {"GRIDTALLY_DATA_DIR": "from-env"}

    def where(**given: Any) -> tuple[str, str]:
        loaded = load_settings(**given)
        return str(loaded.settings.data_dir), loaded.origins.get("data_dir", "default")

    assert where(data_dir=tmp_path, config=config, environment=env) == (str(tmp_path), "flag --data-dir")
    assert where(config=config, environment=env) == ("from-env", "GRIDTALLY_DATA_DIR")
    assert where(config=config, environment={}) == ("from-file", str(config))
    assert where(environment={}) == (str(DATA_DIR_DEFAULT), "default")


@pytest.mark.parametrize(
    ("toml", "env", "flags", "named"),
    [
        pytest.param(
            "[kafka]\npartition = 4\n", {}, {}, "kafka.partition (from {file}): unknown setting", id="file key"
        ),
        pytest.param("speed = 4\n", {}, {}, "speed (from {file}): unknown setting", id="file top-level key"),
        pytest.param(
            "", {"GRIDTALLY_MQTT__URLL": "x"}, {}, "mqtt.urll (from GRIDTALLY_MQTT__URLL): unknown", id="env key"
        ),
        pytest.param("", {}, {"settle.x": "1"}, "settle.x (from flag --set): unknown setting", id="flag key"),
        pytest.param("", {}, {"validate_.future_max_s": "1"}, "validate_ (from default)", id="attribute is no key"),
        pytest.param(
            "[kafka]\npartitions = 0\n", {}, {}, "kafka.partitions (from {file}): Input should", id="file value"
        ),
        pytest.param(
            "", {"GRIDTALLY_CONSOLE__PORT": "70000"}, {}, "console.port (from GRIDTALLY_CONSOLE__PORT)", id="env value"
        ),
        pytest.param("", {}, {"bridge.batch_wait_s": "soon"}, "bridge.batch_wait_s (from flag --set)", id="flag value"),
        pytest.param("", {}, {"mqtt.url": "http://x:1"}, "mqtt.url (from flag --set)", id="not an MQTT address"),
        pytest.param("mqtt = 5\n", {}, {}, "mqtt (from {file})", id="value instead of section"),
        pytest.param("mqtt = 5\n", {"GRIDTALLY_MQTT__URL": "x"}, {}, "mqtt is a value, not a section", id="both"),
        pytest.param(
            "[mqtt]\ntopic_filters = [1]\n", {}, {}, "mqtt.topic_filters.0 (from {file})", id="item of a list"
        ),
        pytest.param("", {"GRIDTALLY_MQTT__TOPIC_FILTERS": ""}, {}, "mqtt.topic_filters.0 (from GRID", id="no filter"),
        pytest.param("a = \n", {}, {}, "{file}: Invalid value", id="no TOML"),
        pytest.param(
            '[database]\ndsn_file = "/no/such"\n', {}, {}, "database.dsn_file (from {file})", id="no such secret"
        ),
        pytest.param(
            "[mqtt]\npassword_file = 5\n", {}, {}, "mqtt.password_file (from {file})", id="secret file no path"
        ),
    ],
)
def test_a_fault_names_the_setting_and_where_it_came_from(
    tmp_path: Path, toml: str, env: dict[str, str], flags: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError) as fault:
        load(tmp_path, toml, env, flags=flags)
    assert named.format(file=tmp_path / "gridtally.toml") in str(fault.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as fault:
        load(tmp_path, "[kafka]\npartitions = 0\nx = 1\n[metrics]\nport_base = -1\n")
    assert [line.split()[0] for line in str(fault.value).splitlines()] == [
        "kafka.partitions",
        "kafka.x",
        "metrics.port_base",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[kafka"], ids=["not UTF-8", "cut off"])
def test_a_file_that_is_no_toml_is_a_settings_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gridtally.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"gridtally\.toml: "):
        load_settings(data_dir=tmp_path, environment={})


def test_a_given_file_must_be_there_and_the_usual_one_need_not(tmp_path: Path) -> None:
    assert load_settings(data_dir=tmp_path, environment={}).settings.kafka.partitions == 4
    with pytest.raises(SettingsError, match=r"none\.toml: .*No such file"):
        load_settings(data_dir=tmp_path, config=tmp_path / "none.toml", environment={})


def test_secrets_are_read_from_files_and_hidden(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("postgresql://u:s3cret@h/db\n", "utf-8")
    toml = f'[database]\ndsn_file = "{secret}"\n[mqtt]\nusername = "u"\npassword = "s3cret"\n'
    loaded = load(tmp_path, toml)
    assert loaded.settings.database.dsn == SecretStr("postgresql://u:s3cret@h/db")
    rows = {name: (value, origin) for name, value, origin in describe(loaded)}
    assert rows["database.dsn"] == ("********", "file of database.dsn_file")
    assert rows["mqtt.password"] == ("********", str(tmp_path / "gridtally.toml"))
    assert rows["mqtt.username"][0] == "u"
    assert "s3cret" not in json.dumps(describe(loaded)) + repr(loaded)


def test_of_a_secret_and_its_file_the_later_layer_holds(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("from the file", "utf-8")

    def password(toml: str, env: dict[str, str]) -> str:
        found = load(tmp_path, toml, env).settings.mqtt.password
        assert found
        return found.get_secret_value()

    by_file = {"GRIDTALLY_MQTT__PASSWORD_FILE": str(secret)}
    assert password('[mqtt]\npassword = "plain"\n', by_file) == "from the file"
    assert password(f'[mqtt]\npassword_file = "{secret}"\n', {"GRIDTALLY_MQTT__PASSWORD": "plain"}) == "plain"


def test_a_bad_secret_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as fault:
        load(tmp_path, '[mqtt]\nurl = "mqtt://u:s3cret@h:1"\npassword = ["s3cret"]\n')
    assert "mqtt.password" in str(fault.value)
    assert "s3cret" not in str(fault.value)


def test_config_command_shows_value_and_origin_of_every_setting(tmp_path: Path) -> None:
    (tmp_path / "gridtally.toml").write_text('[mqtt]\npassword = "s3cret"\n[kafka]\npartitions = 3\n', "utf-8")
    command = [sys.executable, "-m", "gridtally", "config", "--data-dir", str(tmp_path), "--json"]
    done = subprocess.run([*command, "--set", "settle.checkpoint_s=2"], capture_output=True, text=True, check=True)
    rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)}
    assert rows["kafka.partitions"] == ("3", str(tmp_path / "gridtally.toml"))
    assert rows["settle.checkpoint_s"] == ("2.0", "flag --set")
    assert rows["bridge.heartbeat_s"] == ("5.0", "default")
    assert rows["mqtt.password"][0] == "********"
    assert "s3cret" not in done.stdout
