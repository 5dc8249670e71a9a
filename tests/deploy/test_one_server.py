"""The files for one server: settings that start every service, and units and proxies that their programs accept."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Authority
from tests.deploy.environments import ROOT, SETTINGS, all_variables, settings

FOLDER: Final = ROOT / "deploy/one-server"
UNITS: Final = ("nest@.service", "nest-topics.service", "nest.target")
LINES: Final = re.findall(r"^(NEST_\w+)=(.*)$", (FOLDER / "nest.env").read_text(), re.MULTILINE)
FILLED: Final = {
    "NEST_SEALING_KEYS": "nest:" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "NEST_INTERNAL_KEYS": "operator:8d1f0c3b5a7e92460b1d3f5a7c9e1b2d74a60f83",
    "NEST_MONGO_URL": "mongodb://nest:password@127.0.0.1:27017/?replicaSet=rs0&authSource=admin",
    "NEST_STRIPE_API_KEY": "sk_live_1234567890abcdef",
    "NEST_STRIPE_WEBHOOK_SECRETS": "whsec_1234567890abcdef",
    "NEST_STRIPE_TRIAL_PRICE": "price_1",
    "NEST_SMTP_PASSWORD": "a password of the mail server",
}
"""Values for the lines that the page leaves empty."""


@pytest.mark.parametrize("service", SETTINGS)
def test_the_sample_settings_start_every_service_in_production(service: str) -> None:
    empty = {name for name, value in LINES if not value}
    assert empty == set(FILLED)
    settings(service, dict(LINES) | FILLED)


def test_the_sample_settings_exist() -> None:
    assert {name for name, _ in LINES} <= all_variables()


def test_a_wrong_setting_is_not_restarted_and_a_stop_waits_for_messages() -> None:
    unit = (FOLDER / "nest@.service").read_text()
    assert "RestartPreventExitStatus=78" in unit
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    drain = settings("auth", dict(LINES) | FILLED).drain_seconds
    assert int(stop) > drain


def run(*words: str | Path) -> str:
    name = str(words[0])
    assert shutil.which(name), f"needs {name}: apt-get install caddy nginx-light systemd"
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.slow
def test_systemd_accepts_the_units_and_finds_them_confined(tmp_path: Path) -> None:
    for name in UNITS:
        text = (FOLDER / name).read_text().replace("/opt/nest/.venv/bin/nest", str(ROOT / ".venv/bin/nest"))
        (tmp_path / name).write_text(text)
    names = [tmp_path / "nest@auth.service", tmp_path / "nest-topics.service", tmp_path / "nest.target"]
    assert run("systemd-analyze", "verify", *names) == ""
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", tmp_path / "nest@.service")


@pytest.mark.slow
def test_caddy_accepts_its_file() -> None:
    run("caddy", "validate", "--adapter", "caddyfile", "--config", FOLDER / "Caddyfile")


@pytest.mark.slow
def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("nest.example.com")
    site = (FOLDER / "nginx.conf").read_text()
    for directive, file in (("ssl_certificate", certificate.certificate), ("ssl_certificate_key", certificate.key)):
        site = re.sub(rf"{directive} \S+;", f"{directive} {file};", site)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{site}\n}}\n")
    run("nginx", "-t", "-c", config)
