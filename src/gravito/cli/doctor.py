"""`gravito doctor`: what is configured where, how the server does, what is wrong and how to mend it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gravito.atlas import DB, Settings
from gravito.cli import _checks, _output
from gravito.cli._checks import Finding, Report
from gravito.cli._output import clean, echo_json
from gravito.errors import ConfigurationError

__all__ = ["doctor"]

_STYLE = {"problem": "bold red", "advice": "yellow"}


def doctor(
    connection: Annotated[
        str | None, typer.Argument(help="Name of a connection; the default one if left out.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Look at this server instead of what is configured.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Check the configuration and the server: what is wrong, and the cure.

    Reads only; it changes nothing on the server. Passwords are never shown.

    Exit code: 0 if there are no problems (advice does not count), 1 if there are.

    Example: gravito doctor --url redis://127.0.0.1:6379/0
    """
    try:
        report = asyncio.run(_examine(connection, url))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        echo_json(report.as_json())
    else:
        _show(report, _output.console())
    if report.problems:
        raise typer.Exit(1)


async def _examine(connection: str | None, url: str | None) -> Report:
    report = Report(sources=_checks.sources(Path.cwd()))
    try:
        if url is not None:
            settings = Settings.from_url(url, name=connection or "url")
            report.origin = "--url"
            if settings.password is not None:
                report.findings.append(
                    Finding(
                        "advice",
                        "--url holds a password, which every user of this machine could see meanwhile.",
                        "Put the URL into REDIS_URL or into .env, and leave --url out.",
                    )
                )
        else:
            found = DB.configuration
            report.origin = found.origin
            report.names = list(found.connections)
            settings = DB.connection(connection).settings
    except ConfigurationError as error:
        report.findings.append(
            Finding(
                "problem", f"The configuration cannot be used: {error}", "Correct the setting named above."
            )
        )
        return report
    await _checks.examine(settings, report)
    return report


def _show(report: Report, console: Console) -> None:
    def line(label: str, value: Any) -> None:
        console.print(
            Text(f"  {label:<14}", style="dim").append(clean(value), style="not dim"), soft_wrap=True
        )

    console.print("Configuration", style="bold")
    if report.origin != "--url":
        for number, (source, state) in enumerate(report.sources, 1):
            line(f"{number}. looked at", f"{source}: {state}")
    line("found in", report.origin or "nothing that can be used")
    if report.names:
        line("connections", ", ".join(report.names))
    for label, value in report.connection.items():
        line(label, value)
    if report.server:
        console.print("Server", style="bold")
        for label, value in report.server.items():
            line(label, value)
    console.print("Findings", style="bold")
    if not report.findings:
        console.print("  nothing is wrong", style="green")
    for finding in report.findings:
        mark = Text(f"  {finding.level:<14}", style=_STYLE[finding.level])
        console.print(mark.append(clean(finding.what), style="default"), soft_wrap=True)
        line("", f"-> {finding.remedy}")
