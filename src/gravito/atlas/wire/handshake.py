"""The first words on a wire, pure: which commands, and what their replies mean."""

from __future__ import annotations

from typing import Any, NamedTuple

from gravito import __version__, errors

LIBRARY = "gravito"


class Credentials(NamedTuple):
    """What a wire authenticates with."""

    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password={'***' if self.password else None})"


class Step(NamedTuple):
    """One command of the handshake."""

    args: tuple[str, ...]
    required: bool  # an error ends the handshake; otherwise an older server may refuse it

    def __repr__(self) -> str:
        # nothing behind AUTH may be shown: tracebacks can print what stands in a frame
        shown = next((i for i, word in enumerate(self.args) if word == "AUTH"), len(self.args))
        hidden = " ***" if shown < len(self.args) else ""
        return f"Step({' '.join(self.args[: shown + 1])}{hidden}, required={self.required})"


def steps(protocol: int, credentials: Credentials, db: int, client_name: str | None) -> list[Step]:
    """The handshake's commands, all sent in one write.

    With RESP3, HELLO carries the credentials, so that no command before it can be refused for want of them.
    See https://redis.io/docs/latest/commands/hello/
    """
    plan: list[Step] = []
    secret = credentials.password
    if protocol == 3:
        hello = ["HELLO", "3"]
        if secret is not None:
            hello += ["AUTH", credentials.username or "default", secret]
        plan.append(Step(tuple(hello), required=True))
    elif secret is not None:
        auth = ("AUTH", credentials.username, secret) if credentials.username else ("AUTH", secret)
        plan.append(Step(auth, required=True))
    if client_name:
        plan.append(Step(("CLIENT", "SETNAME", client_name), required=True))
    plan.append(Step(("CLIENT", "SETINFO", "LIB-NAME", LIBRARY), required=False))
    plan.append(Step(("CLIENT", "SETINFO", "LIB-VER", __version__), required=False))
    if db:
        plan.append(Step(("SELECT", str(db)), required=True))
    if len(plan) == 2 and protocol == 2:
        plan.append(
            Step(("PING",), required=True)
        )  # RESP2 without a password: ask at least once if we are welcome
    return plan


def check(step: Step, reply: Any, where: str) -> None:
    """Raise what a step's reply means, in words that say what to do."""
    if not isinstance(reply, Exception):
        return
    _forget_arguments(reply)
    if isinstance(reply, errors.AuthenticationError):
        raise errors.AuthenticationError(
            f"{where} refused the credentials ({reply}). Check username and password of this connection."
        ) from reply
    if isinstance(reply, errors.ConnectionError):  # LOADING, too many clients
        raise reply
    if not step.required:
        return
    if isinstance(reply, errors.NoPermissionError) and step.args[0] in ("CLIENT", "PING"):
        return  # a name is for people who look at CLIENT LIST, and who may not ping is known to be welcome
    if step.args[0] == "HELLO":
        raise errors.ProtocolError(
            f"{where} does not speak RESP3 ({reply}). Set protocol=2 for this connection, or use "
            "Redis 6 or later."
        )
    if step.args[0] == "AUTH":
        raise errors.AuthenticationError(
            f"{where} cannot check the credentials ({reply}). Is AUTH renamed or switched off there?"
        )
    if step.args[0] == "SELECT":
        raise errors.ConfigurationError(
            f"{where} refused database {step.args[1]}: {reply}", field="db", value=step.args[1]
        ) from reply
    raise reply


def _forget_arguments(reply: Exception) -> None:
    """Cut an error reply where a server repeats the arguments of what it does not know, a password among them.

    In place, so that no frame of a traceback keeps the whole text.
    """
    reply.args = (str(reply).partition(", with args beginning with")[0],)
