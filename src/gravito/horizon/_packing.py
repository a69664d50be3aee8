"""From a call to what travels to its queue."""

from __future__ import annotations

import hashlib
import os
from binascii import hexlify
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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


def new_id() -> str:
    """An id for a job: 88 random bits."""
    return hexlify(os.urandom(11)).decode()


class Packer:
    """Makes bodies and envelopes.

    Args:
        settings: limits of queues, and of the encoded arguments unless a job says otherwise.
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
        body = Body(FORMAT, definition.name, args, options.version, now_ms, due, self._extra(call, place))
        try:
            data = _payload.encode(body)
        except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
            raise _about(definition, f"its metadata cannot be encoded ({error})") from error
        priority = PRIORITIES[options.priority] if how.priority is None else how.priority
        limits = self._queues.get(call.queue, ()) if self._queues else ()
        if not _special(options):
            return call.queue, Envelope(
                job_id, data, priority, how.delay, how.at, limits=limits, batch=place.batch
            )
        named = definition.arguments.bind(call.args, call.kwargs)
        return call.queue, Envelope(
            id=job_id,
            body=data,
            priority=priority,
            delay=how.delay,
            at=how.at,
            unique=_unique(definition, call, named),
            unique_for=round((options.unique_for or 0) * 1000),
            tenant=_text(definition, "fair_by", options.fair_by, named) if options.fair_by else None,
            limits=limits + _limits(definition, named),
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


def _unique(definition: Definition, call: Call[Any], named: dict[str, Any]) -> str | None:
    unique = definition.options.unique
    if unique is True:
        return f"{definition.name}:{hashlib.blake2b(call.data, digest_size=16).hexdigest()}"
    if unique is False:
        return None
    return f"{definition.name}:{_text(definition, 'unique', unique, named)}"


def _queue_limits(limits: QueueLimits) -> tuple[Limit, ...]:
    # a name that no job can have
    return _both("/queue", limits.rate, "/queue", limits.concurrency)


def _limits(definition: Definition, named: dict[str, Any]) -> tuple[Limit, ...]:
    rate, concurrency = definition.options.rate, definition.options.concurrency
    return _both(
        _limit_name(definition, "rate", rate.by, named) if rate is not None else "",
        rate,
        _limit_name(definition, "concurrency", concurrency.by, named) if concurrency is not None else "",
        concurrency,
    )


def _both(rated: str, rate: Rate | None, bounded: str, concurrency: Concurrency | None) -> tuple[Limit, ...]:
    found: tuple[Limit, ...] = ()
    if rate is not None:
        found = (Limit(rated, "rate", rate.limit, max(1, round(rate.per * 1000))),)
    if concurrency is not None:
        found += (Limit(bounded, "concurrency", concurrency.limit),)
    return found


def _limit_name(
    definition: Definition, option: str, by: Callable[..., Any] | None, named: dict[str, Any]
) -> str:
    return definition.name if by is None else f"{definition.name}:{_text(definition, option, by, named)}"


def _text(definition: Definition, option: str, function: Callable[..., Any], named: dict[str, Any]) -> str:
    """What a user's function of the arguments says, as text."""
    try:
        return str(function(**named))
    except Exception as error:  # the user's own code
        raise _about(
            definition, f"its function for {option} failed: {type(error).__name__}: {error}"
        ) from error


def _about(definition: Definition, reason: str, kind: type[PayloadError] = PayloadError) -> PayloadError:
    error = kind(f"job {definition.name!r}: {reason}")
    error.job = definition.name
    return error
