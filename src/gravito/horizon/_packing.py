"""From a call to what travels to its queue."""

from __future__ import annotations

import hashlib
import os
from binascii import hexlify
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gravito.errors import ConfigurationError, PayloadError, PayloadTooLargeError
from gravito.horizon import _payload
from gravito.horizon._messages import Envelope, Limit
from gravito.horizon._payload import FORMAT, Body, Extra, Travel
from gravito.horizon.call import words
from gravito.horizon.options import PRIORITIES, Concurrency, Options, Rate

if TYPE_CHECKING:
    from gravito.horizon._carry import Carry
    from gravito.horizon._sealing import Vault
    from gravito.horizon.call import Call
    from gravito.horizon.job import Definition
    from gravito.horizon.settings import HorizonSettings, QueueLimits

__all__ = ["Packer", "Place", "new_id"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a larger whole a job stands; see `Extra`."""

    id: str | None = None
    parent: str | None = None
    batch: str | None = None
    chain: str | None = None
    then: Travel | None = None
    catch: Travel | None = None


ALONE = Place()

_LARGEST: Final = 100 * 1024 * 1024  # bytes of a body, with all the jobs that follow in its chain


def new_id() -> str:
    """An id for a job: 88 random bits."""
    return hexlify(os.urandom(11)).decode()


class Packer:
    """Makes bodies and envelopes.

    Args:
        settings: limits of queues; of the encoded arguments, unless a job says otherwise, and of what goes beside them.
        vault: encrypts.
        carry: what goes along.
    """

    def __init__(self, settings: HorizonSettings, vault: Vault, carry: Carry) -> None:
        self._max_bytes = settings.max_bytes
        self._queues = {queue: _queue_limits(limits) for queue, limits in settings.limits.items()}
        self._vault = vault
        self._carry = carry

    def limit(self, definition: Definition) -> int:
        """Bytes that the job's arguments, and its result, may have."""
        return self._max_bytes if definition.options.max_bytes is None else definition.options.max_bytes

    def pack(self, call: Call[Any], now_ms: int, place: Place = ALONE) -> Travel:
        """The queue's name and the envelope.

        Raises:
            PayloadError: it is too large; its metadata or a context variable cannot be encoded; one of its functions of
                the arguments (unique, fair_by, by) failed.
        """
        definition, how = call.definition, call.how
        options = definition.options
        job_id = place.id or how.id or new_id()
        args = self._args(call, job_id)
        due = how.at if how.at is not None else now_ms + how.delay
        extra = self._extra(call, place)
        body = Body(FORMAT, definition.name, args, options.version, now_ms, due, extra)
        try:
            data = _payload.encode(body)
        except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
            raise _about(definition, f"its metadata cannot be encoded ({error})") from error
        if extra is not None and len(data) - len(call.data) > self._max_bytes:
            self._check_rest(definition, body, extra, len(data))
        priority = PRIORITIES[options.priority] if how.priority is None else how.priority
        limits = self._queues.get(call.queue, ()) if self._queues else ()
        if not _special(options):
            return call.queue, Envelope(
                job_id, data, priority, how.delay, how.at, limits=limits, batch=place.batch
            )
        says = _Says(call, self._vault if self._seals(options) else None)
        return call.queue, Envelope(
            id=job_id,
            body=data,
            priority=priority,
            delay=how.delay,
            at=how.at,
            unique=says.unique(),
            unique_for=round((options.unique_for or 0) * 1000),
            tenant=says.tenant(),
            limits=limits + says.limits(),
            batch=place.batch,
        )

    def _args(self, call: Call[Any], job_id: str) -> msgspec.Raw:
        definition, data = call.definition, call.data
        limit = self.limit(definition)
        if len(data) > limit:
            error = _about(
                definition,
                f"its arguments take {len(data)} bytes, allowed are {limit}; store them elsewhere and pass where, or "
                "raise max_bytes",
                PayloadTooLargeError,
            )
            raise error
        if not self._seals(definition.options):
            return msgspec.Raw(data)
        if not self._vault:
            message = f"job {definition.name!r} wants encrypt=True, but the Horizon has no keys"
            raise ConfigurationError(message, field="keys")
        return msgspec.Raw(
            _payload.encode(self._vault.seal(f"arguments of {definition.name} {job_id}", data))
        )

    def _check_rest(self, definition: Definition, body: Body, extra: Extra, size: int) -> None:
        """Refuse what is too large beside the arguments. The jobs of a chain are measured one by one."""
        rest = {
            "tags": extra.tags,
            "metadata": extra.meta,
            "context variables": extra.context,
            "trace context": extra.trace,
        }
        sizes = {name: len(_payload.encode(value)) for name, value in rest.items() if value}
        total, allowed, of_what = sum(sizes.values()), self._max_bytes, "all that goes beside the arguments"
        if total <= allowed:
            sizes["following jobs"] = size - total - len(memoryview(body.args))
            total, allowed, of_what = size, _LARGEST, "a body with all jobs that follow"
        if total > allowed:
            largest = max(sizes, key=sizes.__getitem__)
            raise _about(
                definition,
                f"its {largest} take {sizes[largest]} bytes, allowed are {allowed} for {of_what}; store them "
                "elsewhere and pass where",
                PayloadTooLargeError,
            )

    def _seals(self, options: Options) -> bool:
        return bool(self._vault) if options.encrypt is None else options.encrypt

    def _extra(self, call: Call[Any], place: Place) -> Extra | None:
        options, how = call.definition.options, call.how
        context, trace, sealed = self._carry.context(), self._carry.trace(), self._seals(options)
        plain = place is ALONE and not (how.tags or how.meta or options.tags or options.secret)
        if plain and context is None and trace is None and not sealed:
            return None
        return Extra(
            batch=place.batch,
            chain=place.chain,
            then=place.then,
            catch=place.catch,
            parent=place.parent,
            tags=words((*options.tags, *how.tags)),
            meta=how.meta,
            context=context,
            trace=trace,
            secret=options.secret,
            sealed=sealed,
        )


def _special(options: Options) -> bool:
    return bool(options.unique or options.fair_by or options.rate or options.concurrency)


class _Says:
    """What a job's options say of its arguments: its unique key, its tenant, the names of its limits.

    Args:
        call: the job.
        vault: of one that is encrypted; its keyed hashes take the place of the values, which the server can see.
    """

    def __init__(self, call: Call[Any], vault: Vault | None) -> None:
        self._call = call
        self._definition = call.definition
        self._vault = vault
        self._named = call.definition.arguments.bind(call.args, call.kwargs)

    def unique(self) -> str | None:
        name, unique = self._definition.name, self._definition.options.unique
        if unique is False:
            return None
        if unique is True:
            text = hashlib.blake2b(self._call.data, digest_size=16).hexdigest()
            return f"{name}:{self._marked(f'unique {name}', text)}"
        return f"{name}:{self._of('unique', unique, f'unique {name}')}"

    def tenant(self) -> str | None:
        by = self._definition.options.fair_by
        # without the job's name: all jobs of a queue share its tenants
        return self._of("fair_by", by, "fair_by") if by is not None else None

    def limits(self) -> tuple[Limit, ...]:
        options = self._definition.options
        rate, concurrency = options.rate, options.concurrency
        return _both(
            self._limit("rate", rate.by) if rate is not None else "",
            rate,
            self._limit("concurrency", concurrency.by) if concurrency is not None else "",
            concurrency,
        )

    def _limit(self, option: str, by: Callable[..., Any] | None) -> str:
        name = self._definition.name
        return name if by is None else f"{name}:{self._of(option, by, f'{option} {name}')}"

    def _of(self, option: str, function: Callable[..., Any], label: str) -> str:
        """What a user's function of the arguments says, as text."""
        try:
            text = str(function(**self._named))
        except Exception as error:  # the user's own code
            reason = f"its function for {option} failed: {type(error).__name__}: {error}"
            raise _about(self._definition, reason) from error
        return self._marked(label, text)

    def _marked(self, label: str, text: str) -> str:
        return text if self._vault is None else self._vault.mark(label, text)


def _queue_limits(limits: QueueLimits) -> tuple[Limit, ...]:
    # a name that no job can have
    return _both("/queue", limits.rate, "/queue", limits.concurrency)


def _both(rated: str, rate: Rate | None, bounded: str, concurrency: Concurrency | None) -> tuple[Limit, ...]:
    found: tuple[Limit, ...] = ()
    if rate is not None:
        found = (Limit(rated, "rate", rate.limit, max(1, round(rate.per * 1000))),)
    if concurrency is not None:
        found += (Limit(bounded, "concurrency", concurrency.limit),)
    return found


def _about(definition: Definition, reason: str, kind: type[PayloadError] = PayloadError) -> PayloadError:
    error = kind(f"job {definition.name!r}: {reason}")
    error.job = definition.name
    return error
