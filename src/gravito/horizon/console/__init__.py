"""The console: pages, live figures and a JSON API on an application's queues. Needs the extra `console`."""

from gravito.horizon.console._auth import Basic, Token
from gravito.horizon.console._security import LOOPBACK, is_loopback
from gravito.horizon.console.app import Auth, Console, ConsoleOptions, console

__all__ = ["LOOPBACK", "Auth", "Basic", "Console", "ConsoleOptions", "Token", "console", "is_loopback"]
