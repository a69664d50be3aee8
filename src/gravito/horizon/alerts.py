"""Alerts: rules over what the queues say, and where to tell it.

`horizon.alert("slow mails", Waiting(60, queue="emails"), Slack(url))`. Workers and the console watch; however many of
them run, one looks at a time, and each alert is told once when it begins, once when it is over, and again while it
lasts as often as it says.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from gravito.errors import ConfigurationError, HorizonError

if TYPE_CHECKING:
    from gravito.horizon.repository import Repository

__all__ = [
    "Alert",
    "Channel",
    "Email",
    "Failures",
    "Memory",
    "Message",
    "Rule",
    "Slack",
    "Waiting",
    "Webhook",
    "Workers",
]

_PATIENCE: Final = 10.0  # seconds that a receiver gets
_HIDDEN: Final = "***"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel is given to tell.

    Args:
        alert: the alert's name.
        state: "firing" when it begins or goes on, "resolved" when it is over.
        text: what is the matter, in one line.
        since: epoch ms of its beginning.
    """

    alert: str
    state: Literal["firing", "resolved"]
    text: str
    since: int


class Rule(Protocol):
    """What is watched."""

    async def check(self, repository: Repository) -> str | None:
        """What is the matter, in one line; None if nothing is."""
        ...


class Channel(Protocol):
    """Where it is told."""

    async def send(self, message: Message) -> None:
        """Tell it. What it raises is logged, and tried again at the next look."""
        ...


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a Horizon; made by `Horizon.alert`."""

    name: str
    rule: Any  # a Rule
    channels: tuple[Any, ...]  # Channels
    repeat: float = 3600.0  # seconds between two messages while it lasts


# -- rules -----------------------------------------------------------------------------------------------------


class Waiting(msgspec.Struct, frozen=True):
    """Jobs wait too long.

    Args:
        seconds: that the oldest ready job may wait.
        queue: in this one; None for any. Paused queues are left out.
    """

    seconds: float
    queue: str | None = None

    def __post_init__(self) -> None:
        _check("Waiting", "seconds", self.seconds, self.seconds > 0, "over 0")

    async def check(self, repository: Repository) -> str | None:
        """See `Rule.check`."""
        rows = await repository.queues()
        late = [
            row
            for row in rows
            if self.queue in (None, row.name) and not row.sizes.paused and (row.oldest or 0) > self.seconds
        ]
        if not late:
            return None
        worst = max(late, key=lambda row: row.oldest or 0)
        more = f", and {len(late) - 1} more queues wait too long" if len(late) > 1 else ""
        return (
            f"queue {worst.name}: {worst.ready} jobs are ready, the oldest since {worst.oldest:.0f} s{more}"
        )


class Failures(msgspec.Struct, frozen=True):
    """Too many runs fail.

    Args:
        share: of the runs in the last hour, from 0 to 1.
        queue: of this one; None for all together.
        job: of this one alone.
        least: runs below which nothing is said.
    """

    share: float
    queue: str | None = None
    job: str | None = None
    least: int = 20

    def __post_init__(self) -> None:
        _check("Failures", "share", self.share, 0 < self.share <= 1, "over 0, up to 1")

    async def check(self, repository: Repository) -> str | None:
        """See `Rule.check`."""
        total = (await repository.metrics("1h", self.queue, self.job)).total
        failures = total.failures
        if failures is None or total.runs < self.least or failures < self.share:
            return None
        of = " of ".join(name for name in (self.job, self.queue) if name is not None) or "all jobs"
        return f"{of}: {failures:.0%} of {total.runs} runs failed in the last hour"


class Workers(msgspec.Struct, frozen=True):
    """Too few workers run.

    Args:
        least: worker processes.
        queue: that serve this one; None for any.
    """

    least: int = 1
    queue: str | None = None

    def __post_init__(self) -> None:
        _check("Workers", "least", self.least, self.least > 0, "over 0")

    async def check(self, repository: Repository) -> str | None:
        """See `Rule.check`."""
        found = [
            worker
            for worker in await repository.workers()
            if self.queue is None or self.queue in worker.queues
        ]
        if len(found) >= self.least:
            return None
        serving = "" if self.queue is None else f" on queue {self.queue}"
        return f"{len(found)} workers run{serving}, {self.least} are wanted"


class Memory(msgspec.Struct, frozen=True):
    """The server's memory is nearly full.

    Args:
        share: of its `maxmemory`, from 0 to 1. A server without that limit is measured by the machine's memory.
    """

    share: float = 0.9

    def __post_init__(self) -> None:
        _check("Memory", "share", self.share, 0 < self.share <= 1, "over 0, up to 1")

    async def check(self, repository: Repository) -> str | None:
        """See `Rule.check`."""
        info = await repository.horizon.client.info("memory")
        limit = int(info.get("maxmemory") or info.get("total_system_memory") or 0)
        used = int(info.get("used_memory", 0))
        if not limit or used < limit * self.share:
            return None
        return f"the server uses {used >> 20} of {limit >> 20} MiB"


# -- channels --------------------------------------------------------------------------------------------------


class Webhook:
    """A POST of the message as JSON: alert, state, text, since.

    Args:
        url: http or https. It is not shown anywhere, for such URLs are secrets.
        headers: further ones, as `{"Authorization": "Bearer ..."}`.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        good = isinstance(url, str) and url.startswith(("https://", "http://"))
        _check(type(self).__name__, "url", _HIDDEN, good, "an http or https URL")
        self._url = url
        self._headers = dict(headers or {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_HIDDEN}>"

    def body(self, message: Message) -> dict[str, Any]:
        """What is sent."""
        return msgspec.structs.asdict(message)

    async def send(self, message: Message) -> None:
        """See `Channel.send`.

        Raises:
            HorizonError: it did not arrive; without the URL.
        """
        await asyncio.to_thread(self._post, msgspec.json.encode(self.body(message)))

    def _post(self, data: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "gravito", **self._headers}
        request = urllib.request.Request(self._url, data, headers)  # noqa: S310  # the scheme was checked
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE):  # noqa: S310  # as above
                pass
        except urllib.error.HTTPError as error:
            error.close()  # it is a response, too
            raise HorizonError(f"the receiver of an alert answered {error.code} {error.reason}") from None
        except (OSError, ValueError) as error:
            raise HorizonError(
                f"the receiver of an alert cannot be reached: {type(error).__name__}"
            ) from None


class Slack(Webhook):
    """A message by an incoming webhook of Slack, or of what is compatible with it.

    Args:
        url: of the webhook.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)

    def body(self, message: Message) -> dict[str, Any]:
        """What is sent: `&`, `<` and `>` are control characters there."""
        text = f"{message.alert}: {message.text}" if message.state == "firing" else f"{message.alert}: over"
        return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


class Email:
    """A mail.

    Args:
        to: addresses.
        sender: the address that it comes from.
        host: of the mail server.
        port: there.
        username: None: without logging in.
        password: not shown anywhere.
        security: "starttls", "tls" from the first byte, or "none".
    """

    def __init__(
        self,
        to: Sequence[str],
        sender: str,
        host: str = "127.0.0.1",
        port: int = 587,
        *,
        username: str | None = None,
        password: str | None = None,
        security: Literal["starttls", "tls", "none"] = "starttls",
    ) -> None:
        addresses = (sender, *(() if isinstance(to, str) else to))
        good = len(addresses) > 1 and all("@" in each and each.isprintable() for each in addresses)
        _check("Email", "to, sender", addresses, good, "mail addresses, `to` a list of them")
        _check("Email", "security", security, security in ("starttls", "tls", "none"), "starttls, tls, none")
        self._to = tuple(to)
        self._sender = sender
        self._host, self._port = host, port
        self._login = None if username is None else (username, password or "")
        self._security = security

    def __repr__(self) -> str:
        return f"<Email to {', '.join(self._to)} by {self._host}:{self._port}>"

    async def send(self, message: Message) -> None:
        """See `Channel.send`.

        Raises:
            HorizonError: the mail server did not take it.
        """
        await asyncio.to_thread(self._send, message)

    def _send(self, message: Message) -> None:
        mail = EmailMessage()
        state = "" if message.state == "firing" else " (over)"
        mail["Subject"] = " ".join(f"[gravito] {message.alert}{state}".split())
        mail["From"], mail["To"] = self._sender, ", ".join(self._to)
        mail.set_content(message.text)
        context = ssl.create_default_context() if self._security != "none" else None
        try:
            with self._server(context) as server:
                if self._security == "starttls":
                    server.starttls(context=context)
                if self._login is not None:
                    server.login(*self._login)
                server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise HorizonError(f"the mail server {self._host}:{self._port}: {type(error).__name__}") from None

    def _server(self, context: ssl.SSLContext | None) -> smtplib.SMTP:
        if self._security == "tls":
            return smtplib.SMTP_SSL(self._host, self._port, timeout=_PATIENCE, context=context)
        return smtplib.SMTP(self._host, self._port, timeout=_PATIENCE)


def _check(kind: str, field: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        message = f"{kind}: {field} is {value!r}; allowed: {allowed}"
        raise ConfigurationError(message, field=field, value=value, allowed=allowed)
