"""Horizon: one application's jobs on one connection."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload

from gravito.atlas import DB, Client
from gravito.errors import ConfigurationError, PayloadError, UnknownJobError
from gravito.horizon import _current
from gravito.horizon._batches import Batches
from gravito.horizon._broker import Broker
from gravito.horizon._carry import Carry
from gravito.horizon._given import check_middleware, check_settings, pass_by
from gravito.horizon._lifetime import Lifetime
from gravito.horizon._packing import ALONE, Packer, Place
from gravito.horizon._payload import Travel
from gravito.horizon._sealing import Vault
from gravito.horizon.alerts import Alert, Channel, Rule
from gravito.horizon.batch import Batch, BatchHandle
from gravito.horizon.call import Call
from gravito.horizon.chain import Chain
from gravito.horizon.handle import JobHandle
from gravito.horizon.job import (
    Definition,
    FunctionJob,
    Job,
    JobDecorator,
    catalogue,
    make_function_job,
    refuse_duplicate,
)
from gravito.horizon.middleware import Hooks, Middleware, tell
from gravito.horizon.options import JobOptions
from gravito.horizon.schedule import Schedule
from gravito.horizon.settings import HorizonSettings

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gravito.horizon.console import Console, ConsoleOptions
    from gravito.horizon.testing import Fake
    from gravito.horizon.worker import Tally

__all__ = ["Horizon"]

P = ParamSpec("P")
R = TypeVar("R")

_CHUNK = 2000  # jobs of push_many that are on their way at the same time


class Horizon(Lifetime):
    """An application's queues and jobs. Making one does no I/O.

    Args:
        connection: a connection's name, or a client; None for the default connection.
        settings: see `HorizonSettings`.
        keys: from `new_key()`; given, arguments, results and error texts are encrypted. The first one encrypts, all
            decrypt.
        carry: context variables whose values go along with each job.
        middleware: see `Middleware`.

    Raises:
        ConfigurationError: a key that is none, or the package for it is missing; something else than settings, context
            variables or middleware was given for them.
    """

    def __init__(
        self,
        connection: str | Client | None = None,
        *,
        settings: HorizonSettings | None = None,
        keys: Sequence[str | bytes] = (),
        carry: Sequence[ContextVar[Any]] = (),
        middleware: Sequence[Middleware] = (),
    ) -> None:
        super().__init__()
        check_settings(settings)
        check_middleware(middleware)
        self.settings = settings or HorizonSettings()
        self.carry = Carry(carry)
        self.hooks = Hooks(middleware)
        self.schedules: dict[str, Schedule] = {}
        self.alerts: dict[str, Alert] = {}
        self.batches = Batches(self)
        self._connection = connection
        self.vault = Vault(keys)
        self._packer = Packer(self.settings, self.vault, self.carry)
        self._jobs: dict[str, Definition] = {}  # of this Horizon alone
        self.faked: Fake | None = None  # stands in for the queues, in tests
        # per event loop, since a broker's futures belong to one
        self._brokers: dict[asyncio.AbstractEventLoop, dict[str, Broker]] = {}
        _current.enter(self)

    def __repr__(self) -> str:
        where = self._connection if isinstance(self._connection, (str, Client)) else "the default connection"
        return f"<Horizon {self.settings.prefix!r} on {where}, {len(self.jobs)} jobs>"

    def use(self) -> Self:
        """Make this the one that `push` of a job means where several Horizons are open."""
        _current.use(self)
        return self

    async def aclose(self) -> None:
        """Wait for pushes on their way, and give up the name: jobs no longer mean this Horizon by themselves."""
        brokers = self._brokers.get(asyncio.get_running_loop(), {})
        for broker in list(brokers.values()):
            await broker.aclose()
        brokers.clear()
        _current.leave(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # -- jobs ------------------------------------------------------------------------------------------------

    @overload
    def job(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> FunctionJob[P, R]: ...
    @overload
    def job(self, function: Callable[P, R], /) -> FunctionJob[P, R]: ...
    @overload
    def job(self, **options: Unpack[JobOptions]) -> JobDecorator: ...

    def job(self, function: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]  # Any takes all of it
        """As `@gravito.horizon.job`, for a job of this Horizon alone."""
        if function is None:
            return lambda decorated: make_function_job(decorated, options, self)
        return make_function_job(function, options, self)

    def register(self, job: FunctionJob[Any, Any] | type[Job]) -> None:
        """Add a job to this Horizon alone.

        Raises:
            DuplicateJobError: another job has its name.
        """
        definition = job.definition
        known = self._jobs.get(definition.name) or catalogue().get(definition.name)
        refuse_duplicate(known, definition)
        self._jobs[definition.name] = definition

    @property
    def jobs(self) -> Mapping[str, Definition]:
        """All jobs by name: this Horizon's own, and those that belong to none in particular."""
        return {**catalogue(), **self._jobs}

    def find(self, name: str) -> Definition:
        """A job by name.

        Raises:
            UnknownJobError: with the names that come closest.
        """
        found = self._jobs.get(name) or catalogue().get(name)
        if found is not None:
            return found
        close = difflib.get_close_matches(name, self.jobs, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "is the module that defines it imported?"
        error = UnknownJobError(f"there is no job {name!r} in this process; {hint}")
        error.job = name
        raise error

    # -- pushing ---------------------------------------------------------------------------------------------

    async def push(self, call: Call[R]) -> JobHandle[R]:
        """Queue a job; see `Call.push`. All pushes of a turn of the event loop travel together."""
        (queue, envelope), handle = self.prepare(call)
        handle.settle(await self.broker(queue).push(envelope))
        if self.hooks.pushed:
            await tell(self.hooks.pushed, call, handle)
        return handle

    async def push_many(
        self, calls: Iterable[Call[R]], progress: Callable[[int], Any] | None = None
    ) -> list[JobHandle[R]]:
        """Queue many jobs, some hundred in a call to the server.

        Args:
            calls: any iterable; it is read as the pushing goes on.
            progress: called with how many are queued so far.

        Returns:
            Their handles, in order.

        Raises:
            PayloadError, ConnectionError, TimeoutError: as `push`; jobs that came before may be queued, and the
                error's note says how many are.
        """
        handles: list[JobHandle[R]] = []
        rest = iter(calls)
        while chunk := list(islice(rest, _CHUNK)):
            handles += await self._push_chunk(chunk, len(handles))
            if progress is not None:
                progress(len(handles))
        return handles

    async def _push_chunk(self, calls: list[Call[R]], before: int) -> list[JobHandle[R]]:
        prepared = [self.prepare(call) for call in calls]  # all of them, before the first is sent
        by_queue: dict[str, list[int]] = {}
        for at, ((queue, _), _) in enumerate(prepared):
            by_queue.setdefault(queue, []).append(at)
        answers: list[Any] = [None] * len(prepared)
        pushes = [
            self.broker(queue).push_all([prepared[at][0][1] for at in places])
            for queue, places in by_queue.items()
        ]
        for places, found in zip(by_queue.values(), await asyncio.gather(*pushes), strict=True):
            for at, answer in zip(places, found, strict=True):
                answers[at] = answer
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if failed:
            failed[0].add_note(f"{before + len(answers) - len(failed)} jobs of push_many are queued")
            raise failed[0]
        handles = [handle for _, handle in prepared]
        for call, handle, answer in zip(calls, handles, answers, strict=True):
            handle.settle(answer)
            if self.hooks.pushed:
                await tell(self.hooks.pushed, call, handle)
        return handles

    def prepare(
        self, call: Call[R], place: Place = ALONE, loop: asyncio.AbstractEventLoop | None = None
    ) -> tuple[Travel, JobHandle[R]]:
        """What would be pushed, and the handle on it. Nothing is sent.

        Args:
            call: the job.
            place: where in a larger whole it stands.
            loop: of the handle; None for the running one.
        """
        if not isinstance(call, Call):
            raise PayloadError(f"{call!r} cannot be pushed; build it by `job.make(...)`")
        for hook in self.hooks.pushing:
            call = pass_by(hook, call)
        travel = self._packer.pack(call, self.broker(call.queue, loop).now_ms(), place)
        queue, envelope = travel
        return travel, JobHandle(self, queue, envelope.id, call.definition)

    def handle(
        self, job_id: str, queue: str = "default", job: FunctionJob[Any, R] | None = None
    ) -> JobHandle[R]:
        """A handle on a job that was pushed elsewhere. No I/O.

        Args:
            job_id: its id.
            queue: where it is.
            job: what it is, so that its result gets the right type.
        """
        return JobHandle(self, queue, job_id, job.definition if job is not None else None)

    def batch(self, calls: Iterable[Call[Any]], name: str = "") -> Batch:
        """Jobs that belong together; see `Batch`."""
        return Batch(self, tuple(calls), name)

    def batch_handle(self, batch_id: str) -> BatchHandle:
        """A handle on a batch that was pushed elsewhere. No I/O."""
        return BatchHandle(self, batch_id)

    def chain(self, *calls: Call[Any]) -> Chain:
        """Jobs that run one after the other, as long as all goes well; see `Chain`."""
        return Chain(self, calls)

    def schedule(self, name: str, what: Any = None) -> Schedule:
        """A new schedule, whose methods say when it fires; see `Schedule`.

        Raises:
            ConfigurationError: this name is taken.
        """
        if name in self.schedules:
            raise ConfigurationError(f"there is a schedule {name!r} already", field="schedule", value=name)
        made = self.schedules[name] = Schedule(name, what)
        return made

    def alert(self, name: str, rule: Rule, *channels: Channel, repeat: float = 3600.0) -> None:
        """Watch something, and tell when it is not as it should be; workers and the console do so.

        Example: `horizon.alert("slow mails", Waiting(60, queue="emails"), Slack(url))`

        Args:
            name: for the messages; unique within the application.
            rule: of `gravito.horizon.alerts`, or of one's own.
            *channels: where it is told; none: only in the log and the console.
            repeat: seconds between two messages while it lasts.

        Raises:
            ConfigurationError: this name is taken, or what was given is no rule or channel.
        """
        if not name or name in self.alerts:
            raise ConfigurationError(
                f"an alert needs a name of its own, not {name!r}", field="alert", value=name
            )
        if not hasattr(rule, "check") or not all(hasattr(channel, "send") for channel in channels):
            raise ConfigurationError(
                f"alert {name!r}: a rule has a method `check`, a channel one of the name `send`",
                field="alert",
            )
        if not repeat > 0:
            raise ConfigurationError(
                f"alert {name!r}: repeat is {repeat!r}; allowed: seconds, over 0", field="repeat"
            )
        self.alerts[name] = Alert(name=name, rule=rule, channels=channels, repeat=repeat)

    # -- tests of the application ----------------------------------------------------------------------------

    def fake(self) -> Fake:
        """For tests: `with horizon.fake() as queue:` records what is pushed and sends nothing; see `Fake`."""
        from gravito.horizon.testing import Fake  # noqa: PLC0415  # only tests need it

        return Fake(self)

    async def work(self, *queues: str, everything: bool = False) -> Tally:
        """For tests: run what there is to run, in this process, until nothing is ready; see `testing.burst`.

        Args:
            *queues: of these; none for all.
            everything: jobs that are due later, too; time is moved on to each.
        """
        from gravito.horizon.testing import burst  # noqa: PLC0415  # only tests need it

        return await burst(self, queues or None, everything=everything)

    # -- the console -----------------------------------------------------------------------------------------

    def console(self, **options: Unpack[ConsoleOptions]) -> Console:
        """Pages on these queues, as an ASGI application: serve it, or mount it under any path; see `console.console`.

        Needs the extra `console`.

        Raises:
            ConfigurationError: the extra is not installed, or an option cannot be used.
        """
        try:
            from gravito.horizon.console import console  # noqa: PLC0415  # its packages are an extra
        except ModuleNotFoundError as missing:
            package = (missing.name or "").partition(".")[0]
            if package not in ("starlette", "jinja2", "markupsafe", "prometheus_client"):
                raise
            text = f"the console needs the package {package}: pip install 'gravito[console]'"
            raise ConfigurationError(text) from missing
        return console(self, **options)

    # -- what the parts of the room need ---------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The connection's client."""
        given = self._connection
        return given if isinstance(given, Client) else DB.connection(given)

    def broker(self, queue: str, loop: asyncio.AbstractEventLoop | None = None) -> Broker:
        """The broker of a queue, for the running event loop, or for the one that is named."""
        if self.faked is not None:
            return self.faked.broker(queue)
        if loop is None:
            loop = asyncio.get_running_loop()
        brokers = self._brokers.get(loop)
        if brokers is None:
            self._brokers = {known: item for known, item in self._brokers.items() if not known.is_closed()}
            brokers = self._brokers[loop] = {}
        broker = brokers.get(queue)
        if broker is None:
            settings = self.settings
            broker = brokers[queue] = Broker(
                self.client,
                queue,
                prefix=settings.prefix,
                lease_ms=round(settings.lease * 1000),
                retention=settings.keep,
                patience=settings.patience,
                allow_eviction=settings.allow_eviction,
            )
            broker.on_note(self.batches.noted)
        return broker

    def max_bytes(self, definition: Definition) -> int:
        """Bytes that a job's arguments, and its result, may have."""
        return self._packer.limit(definition)
