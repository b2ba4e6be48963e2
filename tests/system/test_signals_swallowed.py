"""A signal whose exception is swallowed, as by an import of numpy inside torch, still stops."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from whit.cli import app
from whit.system.signals import SignalHandler, StopRequested


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_swallowed_signal_stops_the_command(
    number: int, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(**options: object) -> int:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
        if not goes_on:
            raise AttributeError("module 'numpy' has no attribute 'ma'")
        with SignalHandler() as signals:
            try:
                signals.check()
            except StopRequested as stop:
                raise stop.to_error("") from None
        return 0

    monkeypatch.setattr(app, "app", command)
    assert app.main() == 128 + number
    said = capsys.readouterr().err
    assert f"stopped by {signal.Signals(number).name}" in said
    assert "Traceback" not in said
    with SignalHandler() as signals:
        signals.check()  # forgotten by the next command
