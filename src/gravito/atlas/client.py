"""The client: redis-py's commands over one method, `execute_command`, on wires that all tasks share."""

from __future__ import annotations

import asyncio
import copy
from asyncio import Future, get_running_loop
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, cast

from gravito import errors
from gravito.atlas import _fork
from gravito.atlas._specs import Specs
from gravito.atlas._state import LoopState, LoopStates, no_loop
from gravito.atlas._surface import RedisPySurface
from gravito.atlas.config import Retry, Settings, Timeouts
from gravito.atlas.wire import commands
from gravito.atlas.wire.credentials import current_credentials
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.failures import late_reply
from gravito.atlas.wire.meter import Event, Hooks, Stats
from gravito.atlas.wire.resp import check_size, encode, pack

if TYPE_CHECKING:
    from gravito.atlas._session import Session
    from gravito.atlas.pipeline import Pipeline
    from gravito.atlas.pubsub import Hub
    from gravito.atlas.script import Script
    from gravito.atlas.subscription import Subscription
    from gravito.atlas.tracking import Tiers, Tracked


def _policy(retry: Any) -> Retry:
    if isinstance(retry, Retry):
        return retry
    allowed = "a Retry object, as Retry(attempts=0)"
    message = f"with_options: retry is of type {type(retry).__name__}; allowed: {allowed}"
    raise errors.ConfigurationError(message, field="retry", allowed=allowed)


class Client(RedisPySurface):
    """A connection to Redis or Valkey for any number of tasks, threads' loops included.

    Making one does no I/O; it connects at the first command. All ordinary commands of a loop travel on one
    shared wire and are written once per loop turn; those that block or change the connection's state take a
    leased wire by themselves. Methods, parameters and replies are those of `redis.asyncio.Redis`.

    Args:
        settings: where and how to connect; `Client.from_url` takes a URL instead.
    """

    def __new__(cls, settings: Settings | None = None) -> Self:
        """A cluster's client is a subclass, so that the plain one asks nothing for each command."""
        if cls is Client and settings is not None and settings.driver == "cluster":
            from gravito.atlas._cluster_client import ClusterClient  # noqa: PLC0415  # it imports this module

            return cast(Self, super().__new__(ClusterClient))
        return super().__new__(cls)

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings if settings is not None else Settings(driver="embedded")
        self._specs = Specs(self.settings.protocol, self.settings.key_prefix)
        self._text = self.settings.decode_responses
        self._lease_over = self.settings.limits.lease_over
        self._observe: Callable[[Client], None] | None = None  # telemetry: makes a view tell, too
        self._timeout: float | None = None  # a view's own deadline
        self._retry: Retry | None = None  # a view's own policy
        self._hooks = Hooks()
        self._states = LoopStates(self.settings, self._hooks)
        _fork.watch(self)
        self._users = 0  # nested `async with`
        self._root: Self | None = None  # of a view: the client that it was made from
        self._tiers: Tiers | None = None  # made by the first `tracked`
        if self._specs.prefix is not None:
            self._bind()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """A client for a URL, without the manager.

        Args:
            url: `redis://`, `rediss://`, `unix://`, `embedded://` or `embedded:///some/dir`.
            **options: any setting by name, for example `decode_responses=False` or `client_name="web"`.

        Raises:
            ConfigurationError: names the part of the URL or the option that cannot be used.
        """
        return cls(Settings.from_url(url, **options))

    def __repr__(self) -> str:
        return f"<Client '{self.settings.name}' {self.settings.address}>"

    # -- sending ---------------------------------------------------------------------------------------------

    def _send(self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool) -> Any:
        try:
            packed = pack(args)
        except (TypeError, UnicodeEncodeError):
            packed = encode(args)
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise no_loop(spec.name) from None
        state = self._states.get(loop) or self._states.open(loop, self)
        entry = Entry(Future(loop=loop), packed, spec, options, text)
        if spec.leased or len(packed) > self._lease_over:
            check_size(packed, args)
            self._send_apart(state, entry, args[len(spec.words) :])
        else:
            state.topology.send(entry)
        return entry

    def _send_apart(self, state: LoopState, entry: Entry, rest: tuple[Any, ...]) -> None:
        name = entry.spec.name
        if not commands.needs_lease(name, rest) and len(entry.packed) <= self._lease_over:
            state.topology.send(entry)
            return
        state.topology.send_apart(
            entry, hold=commands.blocking_timeout(name, rest), clean=commands.leaves_clean(name, rest)
        )

    def with_options(
        self,
        *,
        decode_responses: bool | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> Self:
        """A view of this client on the same wires with other options for its calls.

        Args:
            decode_responses: text or bytes.
            timeout: seconds for each command of the view, from call to reply. A longer time than the connection's
                own `timeouts.command` makes the command take a leased wire, so that nobody else waits with it.
            retry: the policy for each command of the view, for example `Retry(attempts=0)` or `Retry(writes=True)`.

        Raises:
            ConfigurationError: a timeout that is not positive, or a retry that is no `Retry`.
        """
        view = copy.copy(self)
        view._root = self._root or self
        if decode_responses is not None:
            view._text = decode_responses
        if timeout is not None:
            view._timeout = Timeouts(command=timeout).command
        if retry is not None:
            view._retry = _policy(retry)
        view._bind()
        if view._observe is not None:
            view._observe(view)
        return view

    def _bind(self) -> None:
        """Put what this client's options need in the way of its commands; the plain path asks no questions."""
        for shadow in ("_send", "pipeline", "client"):  # they are bound to the client that they were made for
            self.__dict__.pop(shadow, None)
        if self._timeout is not None or self._retry is not None:
            self._send = self._send_with_options  # type: ignore[method-assign]  # see above
        if self._specs.prefix is not None:
            self._send = self._specs.prefix.over(self._send)  # type: ignore[method-assign]  # see above

    def tracked(
        self, *, max_entries: int = 10_000, max_bytes: int = 64 * 1024 * 1024, heartbeat: float = 5.0
    ) -> Tracked:
        """A view of this client on the same wires that keeps the replies of reads until the server announces a change.

        Reads of one key, and MGET. RESP3 only. See https://redis.io/docs/latest/develop/reference/client-side-caching/

        Args:
            max_entries: replies kept in each event loop.
            max_bytes: bytes of these, estimated.
            heartbeat: seconds; a reply that is kept is not given out when the server has been silent for longer,
                so on a link that died unseen nothing is older than this.

        Raises:
            ConfigurationError: the connection is one of protocol 2 or reads from replicas, a bound is no positive number, or the client
                has a tier with other bounds.
        """
        if self.settings.read_from != "primary":
            raise errors.ConfigurationError(
                f"connection '{self.settings.name}': a tier is kept by the primary's word; set read_from to 'primary'",
                field="read_from",
                value=self.settings.read_from,
                allowed="primary",
            )
        from gravito.atlas.tracking import track  # noqa: PLC0415  # it imports this module

        return track(self, max_entries, max_bytes, heartbeat)

    def _send_with_options(
        self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool
    ) -> Any:
        patience = self._patience
        if not patience:
            entry: Entry = Client._send(self, spec, args, options, text)
        else:
            packed, rest = encode(args), args[len(spec.words) :]
            check_size(packed, args)
            state = self._state(spec.name)
            entry = Entry(get_running_loop().create_future(), packed, spec, options, text)
            hold = commands.blocking_timeout(spec.name, rest)
            state.topology.send_apart(entry, hold, commands.leaves_clean(spec.name, rest), patience)
        self._limit(entry)
        return entry

    @property
    def _patience(self) -> float:
        """Seconds that this view waits beyond the connection's own deadline; such a wait is for a leased wire."""
        command = self.settings.timeouts.command
        return max(self._timeout - command, 0.0) if self._timeout is not None and command is not None else 0.0

    def _limit(self, entry: Entry) -> None:
        """Put this view's own deadline and retry policy on an entry."""
        if self._retry is not None:
            entry.retry = self._retry
        if self._timeout is not None and not entry.future.done():
            loop = get_running_loop()
            entry.deadline = loop.time() + self._timeout
            timer = loop.call_at(entry.deadline, self._expire, entry, self._timeout)
            entry.future.add_done_callback(lambda _: timer.cancel())

    def _expire(self, entry: Entry, timeout: float) -> None:
        if entry.future.done():
            return
        address = self.settings.address
        if entry.since:  # it waits for a wire, for room, or to be tried again
            away = self._state().topology.shared.connecting
            kind = errors.ConnectTimeoutError if away else errors.LeaseTimeoutError
            what = f"{entry.spec.name}: could not be sent to {address} within {timeout:g} s"
            entry.fail(kind(f"{what}; it was not applied" if not entry.doubt else what).about(node=address))
            return
        self._state().topology.meter.timeouts += 1
        entry.fail(late_reply(entry, address, timeout))

    def _state(self, command: str = "this client") -> LoopState:
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise no_loop(command) from None
        return self._states.get(loop) or self._states.open(loop, self)

    # -- what goes on ----------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Counters of this client in all its loops, and what its wires hold now. Costs no command."""
        return self._states.summary()

    def on_connect(self, callback: Callable[[Event], object]) -> Callable[[Event], object]:
        """Call `callback(event)` whenever the shared wire was opened; usable as a decorator, like its kin."""
        self._hooks.add("connect", callback)
        return callback

    def on_disconnect(self, callback: Callable[[Event], object]) -> Callable[[Event], object]:
        """Call `callback(event)` whenever the shared wire was lost."""
        self._hooks.add("disconnect", callback)
        return callback

    def on_retry(self, callback: Callable[[Event], object]) -> Callable[[Event], object]:
        """Call `callback(event)` whenever a command is sent again."""
        self._hooks.add("retry", callback)
        return callback

    def on_gap(self, callback: Callable[[Event], object]) -> Callable[[Event], object]:
        """Call `callback(event)` whenever subscriptions came back and may have missed messages."""
        self._hooks.add("gap", callback)
        return callback

    async def reauthenticate(self) -> None:
        """Ask for the credentials again and send AUTH on this loop's shared wire; idle leased wires are closed.

        For a credential provider whose answer has changed; new connections ask it in any case.

        Raises:
            AuthenticationError: the server refused them; the wire goes on with those it has.
        """
        credentials = await current_credentials(self.settings)
        topology = self._state().topology
        if topology.shared.wire is not None and credentials.password is not None:
            args = ("AUTH", credentials.username or "default", credentials.password)
            entry = Entry(get_running_loop().create_future(), encode(args), Spec.of("AUTH"), None, True)
            topology.send(entry)
            await entry
        topology.pool.drop_idle()

    # -- pipelines, transactions, scripts, messages ----------------------------------------------------------

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Collect commands and send them in one write; with `transaction`, between MULTI and EXEC.

        Example: `await redis.pipeline().set("a", 1).get("a").exec()`. https://redis.io/docs/latest/develop/using-commands/pipelining/
        """
        from gravito.atlas.pipeline import Pipeline  # noqa: PLC0415  # it imports this module

        return Pipeline(self, transaction)

    async def transaction(
        self,
        func: Callable[[Pipeline], Any],
        *watches: Any,
        shard_hint: str | None = None,
        value_from_callable: bool = False,
        watch_delay: float | None = None,
    ) -> Any:
        """Run `func(pipe)` and its pipeline as one transaction, again for as long as a watched key changes.

        Args:
            func: reads through `pipe`, calls `pipe.multi()`, queues writes; plain or async.
            *watches: keys to watch. https://redis.io/commands/watch
            value_from_callable: return what `func` returned instead of the replies.
            watch_delay: seconds between tries.
        """
        async with self.pipeline(True) as pipe:
            while True:
                try:
                    if watches:
                        await pipe.watch(*watches)
                    value = func(pipe)
                    if isinstance(value, Awaitable) and value is not pipe:
                        value = await value
                    replies = await pipe.execute()
                    return value if value_from_callable else replies
                except errors.WatchError:
                    if watch_delay:
                        await asyncio.sleep(watch_delay)

    def client(self) -> Session:
        """A session: commands on one leased wire, for SELECT, MULTI by hand, WAIT after one's own writes."""
        from gravito.atlas._session import Session  # noqa: PLC0415  # it imports this module

        return Session(self)

    def script(self, source: Any, name: str | None = None) -> Script:
        """A Lua script that is sent by its digest and loaded where it is missing.

        Args:
            source: the script's text, or a `pathlib.Path` to it.
            name: for error messages; the file's name, or a part of the digest, if None.
        """
        from gravito.atlas.script import Script  # noqa: PLC0415  # it imports this module

        return Script(self, source, name)

    def register_script(self, script: Any) -> Script:  # type: ignore[override]  # redis-py's sync and async classes overlap
        """redis-py's name for `script`."""
        return self.script(script)

    async def subscribe(self, *channels: Any, **options: Any) -> Subscription:
        """Listen on channels: `await redis.subscribe("news", print)`; see `Hub.subscribe` for the options."""
        return await self._hub().subscribe("subscribe", channels, self._text, **options)

    async def psubscribe(self, *patterns: Any, **options: Any) -> Subscription:
        """Listen on channels by pattern, as `news.*`. https://redis.io/commands/psubscribe"""
        return await self._hub().subscribe("psubscribe", patterns, self._text, **options)

    async def ssubscribe(self, *channels: Any, **options: Any) -> Subscription:
        """Listen on sharded channels. https://redis.io/commands/ssubscribe"""
        return await self._hub().subscribe("ssubscribe", channels, self._text, **options)

    def _hub(self) -> Hub:
        state = self._state()
        if state.hub is None:
            from gravito.atlas.pubsub import Hub  # noqa: PLC0415  # only who subscribes pays for it

            state.hub = Hub(self.settings, state.topology)
        return state.hub

    # -- the end ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        root = self._root or self
        root._users += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        root = self._root or self
        root._users -= 1
        if root._users == 0:
            await self.aclose()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Finish what is in flight and close the wires of this loop; the next command opens new ones.

        Wires of other loops are closed in their own loop where it runs.
        """
        await self._states.aclose(self)

    async def close(self, close_connection_pool: bool | None = None) -> None:
        """Alias of `aclose`, for code written for older redis-py."""
        await self.aclose()

    def __del__(self) -> None:
        if self.__dict__.get("_root") is not None:
            return
        for loop, state in self.__dict__.get("_states", {}).items():
            state.warn(self, closed_loop=loop.is_closed())
