"""What clients, sessions and pipelines have in common: redis-py's command methods over one method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from redis.commands import AsyncCoreCommands, AsyncRedisModuleCommands, AsyncSentinelCommands

from gravito import errors
from gravito.atlas._lean import LeanCommands
from gravito.atlas._specs import Specs
from gravito.atlas.wire import commands
from gravito.atlas.wire.entry import NEVER_DECODE, Spec


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)


class BaseClient(LeanCommands, AsyncRedisModuleCommands, AsyncCoreCommands, AsyncSentinelCommands):  # type: ignore[misc]  # redis-py's mixins disagree among themselves
    """What a client and a pipeline have in common: redis-py's command methods and the specs of commands."""

    _is_async_client: Literal[True] = True
    _event_dispatcher: Any = None  # redis-py's command protocol wants one; ours has nothing to say on it
    _specs: Specs
    _text: bool

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        """Take a command on; `args` begin with the words of its name."""
        raise NotImplementedError

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; what every method of redis-py's mixins calls.

        Args:
            *args: the command's name, as "GET" or "CONFIG GET", and its arguments: str, bytes, int or float.
            **options: for the reply's converter, as redis-py has them.

        Returns:
            An awaitable of the reply. The command is on its way at once; awaiting collects the reply.

        Raises:
            DataError: an argument that has no place on the wire; nothing is sent then.
        """
        if not args:
            raise errors.DataError("a command needs a name")
        spec = self._specs[args[0]]
        if len(spec.words) > 1:
            args = (*spec.words, *args[1:])
        if not options:
            return self._send(spec, args, None, self._text)
        options.pop("keys", None)  # redis-py's hint for its own cache
        text = options.pop(NEVER_DECODE, None) is None and self._text
        return self._send(spec, args, options or None, text)

    def execute(self, *args: Any, decode_responses: bool | None = None) -> Any:
        """Send any command, also one without a method: `await redis.execute("OBJECT", "FREQ", "k")`.

        Args:
            *args: the command's words and arguments.
            decode_responses: text or bytes for this reply; None: as the connection says.

        Returns:
            An awaitable of the reply, converted if the command has a converter; in a pipeline the pipeline.

        Raises:
            DataError: no name, or an argument that has no place on the wire.
            PubSubError: SUBSCRIBE and its kin, whose messages need a handle: use `subscribe`.
        """
        if not args:
            raise errors.DataError("a command needs a name")
        name, *rest = args
        if rest and isinstance(name, str) and name.upper() in commands.CONTAINERS:
            name = f"{name} {_text(rest.pop(0))}"
        spec = self._specs[name]
        if spec.words[0].upper() in commands.SUBSCRIBES:
            raise errors.PubSubError(
                f"{spec.name} by hand has nowhere to deliver to; use `await redis.subscribe(...)`"
            )
        return self._send(
            spec, (*spec.words, *rest), None, self._text if decode_responses is None else decode_responses
        )

    def set_response_callback(self, command: str, callback: Callable[..., Any]) -> None:
        """Convert the replies of `command` with `callback`."""
        self.response_callbacks[command] = callback

    @property
    def response_callbacks(self) -> Any:
        """redis-py's converters by command name; may be changed."""
        return self._specs.callbacks
