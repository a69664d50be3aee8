"""`@job` and `Job`: the two ways to write a job, and what both become.

A function stays what it was: calling it runs it here and now. `push` queues it, `make` only builds what can be queued.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    get_type_hints,
    overload,
)

from gravito.errors import ConfigurationError, DuplicateJobError
from gravito.horizon._arguments import Arguments, injections, typed_decoder
from gravito.horizon.call import PLAIN, Call, Choices, Pending
from gravito.horizon.options import NAMES, JobOptions, Options, read_options

if TYPE_CHECKING:
    import msgspec

    from gravito.horizon.handle import JobHandle
    from gravito.horizon.horizon import Horizon

__all__ = ["Definition", "FunctionJob", "Job", "job"]

P = ParamSpec("P")
R = TypeVar("R")
Kind = Literal["async", "thread", "process"]

log = logging.getLogger("gravito.horizon")

_CHARACTERS: Final = "letters, digits and _ . : -, at most 100"


class Definition:
    """A job as the queue knows it: its name, its options, and how it is called.

    Args:
        name: what its bodies say.
        target: the function, or the class.
        method: for a class, its `handle`.
        options: see `Options`.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        options: Options,
        method: Callable[..., Any] | None = None,
    ) -> None:
        self.name = _check_name(name)
        self.target = target
        self.method = method
        self.options = options
        self.source = (getattr(target, "__module__", ""), getattr(target, "__qualname__", repr(target)))
        self.kind = _kind(name, method or target, options)

    def __repr__(self) -> str:
        return f"<Definition {self.name!r} {self.kind} {'.'.join(self.source)}>"

    @functools.cached_property
    def arguments(self) -> Arguments:
        """Its parameters. They are read at the first use, when all names of its module exist.

        Raises:
            ConfigurationError: an annotation that cannot be resolved or decoded to.
        """
        arguments = Arguments(self.name, self.target)
        for option in self.options.secret:
            if option not in arguments.names:
                message = f"job {self.name!r}: secret names {option!r}, which is not among its parameters"
                raise ConfigurationError(message, field="secret", value=option, allowed=arguments.names)
        if self.method is not None and arguments.injected:
            message = f"job {self.name!r}: inject() belongs to handle(), not to __init__()"
            raise ConfigurationError(message, field="inject")
        return arguments

    @functools.cached_property
    def injected(self) -> dict[str, Any]:
        """Parameters that the worker fills in, with their types."""
        found = self.arguments.injected if self.method is None else injections(self.name, self.method)
        if found and self.kind == "process":
            message = (
                f"job {self.name!r} runs in a process of its own (cpu=True), where nothing can be injected; make "
                f"{', '.join(found)} there"
            )
            raise ConfigurationError(message, field="cpu")
        return found

    @functools.cached_property
    def result(self) -> msgspec.msgpack.Decoder[Any]:
        """Decodes what it returned, to the annotated type where msgspec knows it."""
        try:
            hints = get_type_hints(self.method or self.target, include_extras=True)
            return typed_decoder(hints.get("return", Any))
        except (NameError, TypeError):
            return typed_decoder(Any)

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], injected: Mapping[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any], Job | None]:
        """What to call: function, arguments, and for a class its instance."""
        if self.method is None:
            return self.target, args, {**kwargs, **injected} if injected else kwargs, None
        instance = self.target(*args, **kwargs)
        return instance.handle, (), dict(injected), instance

    def portable(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The same for another process: function, arguments and keyword arguments that can be pickled."""
        return _call_by_name, (*self.source, args, dict(kwargs)), {}


class FunctionJob(Choices["Pending[P, R]"], Generic[P, R]):
    """A function that can be queued. Made by `@job`."""

    def __init__(
        self, function: Callable[P, Any], definition: Definition, horizon: Horizon | None = None
    ) -> None:
        self.definition = definition
        self.horizon = horizon  # None: the current one, at each push
        self.function = function
        functools.update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<job {self.definition.name!r} on {self.definition.options.queue!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself, here and now."""
        return self.function(*args, **kwargs)

    def make(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """The job with these arguments, to be pushed later.

        Raises:
            PayloadError: an argument that does not fit, or cannot be encoded: names the job, the parameter, the type.
        """
        return Call(self.definition, args, kwargs, PLAIN, self.horizon)

    async def push(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Queue it with these arguments; see `Call.push`."""
        # without the type's argument: the run-time form of `Call[R](...)` is slow
        call: Call[R] = Call(self.definition, args, kwargs, PLAIN, self.horizon)
        return await call.push()

    def _chosen(self, **changes: Any) -> Pending[P, R]:
        return Pending[P, R](self.definition, PLAIN, self.horizon)._chosen(**changes)


class Job:
    """The class form: the constructor takes the arguments, `handle` does the work.

    Options are class attributes of the names that `@job` takes; `name` is the job's name, the class's own by default. One
    that is a function takes the arguments, as `@job`'s, and no `self`: a lambda, or a `@staticmethod`.
    `handle` may be `async` or not (then it runs in a thread, or with `cpu = True` in a process); its parameters are
    those marked with `inject()`. A class without `handle` is a base for others.

    Example::

        class BuildReport(Job):
            queue = "reports"

            def __init__(self, month: str) -> None:
                self.month = month

            async def handle(self, store: Store = inject()) -> None: ...

        await BuildReport.push("2026-01")
        await BuildReport.make("2026-01").delay(60).push()
    """

    definition: ClassVar[Definition]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if getattr(cls, "handle", None) is None:
            return
        given = {name: _plain(cls, name) for name in NAMES if hasattr(cls, name)}
        name = _plain(cls, "name") if "name" in cls.__dict__ else cls.__name__
        method: Callable[..., Any] = cls.handle  # type: ignore[attr-defined]  # each has its own parameters
        cls.definition = Definition(name, cls, read_options(name, given), method)
        catalogue_add(cls.definition)

    def failed(self, error: Any) -> Awaitable[None] | None:
        """Called once when the job is dead: out of retries, or an error that is not retried.

        Write it `async`, or plain: then it runs in a thread.

        Args:
            error: what the last run raised; an Exception, or what ends a program, as SystemExit.
        """
        return None

    @classmethod
    def make(cls: Callable[P, Job], *args: P.args, **kwargs: P.kwargs) -> Call[Any]:
        """The job with these arguments, to be pushed later.

        Raises:
            PayloadError: an argument that does not fit, or cannot be encoded: names the job, the parameter, the type.
        """
        definition: Definition | None = getattr(cls, "definition", None)
        if definition is None:
            raise ConfigurationError(f"{cls!r} has no handle()", field="handle")
        return Call(definition, args, kwargs, PLAIN, None)

    @classmethod
    async def push(cls: Callable[P, Job], *args: P.args, **kwargs: P.kwargs) -> JobHandle[Any]:
        """Queue it with these arguments; see `Call.push`."""
        call: Call[Any] = cls.make(*args, **kwargs)  # type: ignore[attr-defined]  # a class
        return await call.push()


class JobDecorator(Protocol):
    """What `job(...)` gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> FunctionJob[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> FunctionJob[P, R]: ...


@overload
def job(function: Callable[P, Coroutine[Any, Any, R]], /) -> FunctionJob[P, R]: ...
@overload
def job(function: Callable[P, R], /) -> FunctionJob[P, R]: ...
@overload
def job(**options: Unpack[JobOptions]) -> JobDecorator: ...


def job(function: Any = None, /, **options: Unpack[JobOptions]) -> Any:
    """Make a function a job, bare (`@job`) or with options (`@job(queue="emails")`).

    Async functions run on the worker's event loop, others in threads, those with `cpu=True` in processes. The job's
    name is the function's, unless `name` is given; all jobs of a process have different names.

    Args:
        options: see `Options`; and `name`.

    Raises:
        ConfigurationError: an option that cannot be used.
        DuplicateJobError: another function or class has this name.
    """
    if function is None:
        return lambda decorated: make_function_job(decorated, options)
    return make_function_job(function, options)


def make_function_job(
    function: Callable[..., Any], options: Mapping[str, Any], horizon: Horizon | None = None
) -> FunctionJob[Any, Any]:
    """The decorator's work; with a Horizon, the job belongs to it alone."""
    if not callable(function) or isinstance(function, (type, FunctionJob)):
        raise ConfigurationError(
            f"@job is for functions, not for {function!r}; a class derives from Job", field="job"
        )
    rest = {key: value for key, value in options.items() if key != "name"}
    name = str(options.get("name") or getattr(function, "__name__", ""))
    definition = Definition(name, function, read_options(name, rest))
    made: FunctionJob[Any, Any] = FunctionJob(function, definition, horizon)
    if horizon is None:
        catalogue_add(definition)
    else:
        horizon.register(made)
    return made


_catalogue: weakref.WeakValueDictionary[str, Definition] = weakref.WeakValueDictionary()
"""Jobs that belong to no Horizon in particular, by name."""


def catalogue_add(definition: Definition) -> None:
    """Note a job; one that is defined again in the same place, or inside of a function, replaces its former self.

    Raises:
        DuplicateJobError: another function or class has this name.
    """
    refuse_duplicate(_catalogue.get(definition.name), definition)
    _catalogue[definition.name] = definition


def catalogue() -> dict[str, Definition]:
    """All jobs that belong to no Horizon in particular."""
    return dict(_catalogue)


def refuse_duplicate(known: Definition | None, new: Definition) -> None:
    """Raise DuplicateJobError if these are two jobs."""
    if known is None or known.source == new.source or "<locals>" in known.source[1] + new.source[1]:
        return
    raise DuplicateJobError(
        f"two jobs are called {new.name!r}: {'.'.join(known.source)} and {'.'.join(new.source)}; give one another "
        f"name, as @job(name=...)"
    )


def _plain(cls: type, name: str) -> Any:
    """A class attribute as it was written: a function is not to become a method."""
    for base in cls.__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            if _is_method(found):
                allowed = (
                    f"a value, or `@staticmethod def {name}(...)`, which takes the arguments and no self"
                )
                message = f"job {cls.__name__!r}: {name} is a method, and there is no object yet when it is asked; allowed: {allowed}"
                raise ConfigurationError(message, field=name, value=found, allowed=allowed)
            return found.__func__ if isinstance(found, staticmethod) else found
    return getattr(cls, name)


def _is_method(found: Any) -> bool:
    if isinstance(found, (classmethod, property)):
        return True
    return inspect.isfunction(found) and next(iter(inspect.signature(found).parameters), "") in (
        "self",
        "cls",
    )


def _kind(name: str, function: Callable[..., Any], options: Options) -> Kind:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"job {name!r} is a generator; it has to return", field="job")
    call = getattr(function, "__call__", function)  # noqa: B004  # an object's own method may be the async one
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        if options.cpu:
            message = f"job {name!r}: cpu=True runs in a process of its own, which a plain `def` can and an async one not"
            raise ConfigurationError(message, field="cpu", value=True, allowed="for a plain function")
        return "async"
    return "process" if options.cpu else "thread"


def _check_name(name: Any) -> str:
    good = isinstance(name, str) and 0 < len(name) <= 100 and name.replace(".", "").replace(":", "")
    if not good or not all(part.isalnum() or part in "_.:-" for part in name):
        raise ConfigurationError(
            f"{name!r} is no name for a job; allowed: {_CHARACTERS}",
            field="name",
            value=name,
            allowed=_CHARACTERS,
        )
    return str(name)


def _call_by_name(module: str, qualname: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs in the job's process: find the job where it was defined, and call it."""
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if isinstance(found, type):
        return found(*args, **kwargs).handle()
    return getattr(found, "function", found)(*args, **kwargs)


Handler = Callable[..., Awaitable[Any]]
