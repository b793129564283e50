"""Which backend a setting means, on machines that can run hivemind's daemon and on others."""

import logging
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from swarmnode.errors import ConfigError
from swarmnode.swarm import backends, hivemind_p2pd


def runs() -> str:
    return ""


def does_not_run() -> str:
    return "hivemind is not installed"


@pytest.mark.parametrize(
    ("setting", "why_not", "chosen"),
    [
        ("auto", runs, "hivemind"),
        ("auto", does_not_run, "libp2p"),
        ("hivemind", runs, "hivemind"),
        ("libp2p", runs, "libp2p"),
        ("libp2p", does_not_run, "libp2p"),
    ],
)
def test_setting_means_a_backend_and_the_log_names_it(caplog, setting, why_not, chosen):
    with caplog.at_level(logging.INFO):
        assert backends.choose(setting, why_not) == chosen
    assert f"backend={chosen}" in caplog.text


def test_reason_for_the_slower_backend_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        backends.choose("auto", does_not_run)
    assert "hivemind is not installed" in caplog.text


def test_hivemind_where_it_cannot_run_is_the_users_to_change():
    with pytest.raises(ConfigError, match=r"not installed: choose --network libp2p"):
        backends.choose("hivemind", does_not_run)


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="hivemind has no wheel here"
)
def test_hivemind_runs_where_its_wheel_is():
    assert hivemind_p2pd.why_not() == ""


def test_machine_without_hivemind_says_so():
    code = (
        "import sys; sys.modules['hivemind'] = None\n"
        "from swarmnode.swarm import hivemind_p2pd\n"
        "print(hivemind_p2pd.why_not())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "hivemind is not installed" in done.stdout
