"""Every change that the console makes. Each is a POST, which the guard has checked before it arrives here.

An action is a function that takes an `Ask`, reads its form, and returns a `Notice` for the page that comes after it, or
a `Question` to be answered first: the same form is then posted once more, with `sure=yes` in it. One that takes long
returns a `Progress` after a while; its form is posted again until it is done, so that no request lasts long and no
process has to remember anything.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gravito.errors import ConfigurationError, HorizonError
from gravito.horizon._acts import ALLOWED, Acted, Action
from gravito.horizon._index import State
from gravito.horizon._keys import check_id, check_queue
from gravito.horizon._rows import Filter
from gravito.horizon.console._fields import FILTER, QUEUE, InvalidError, Parameter, check
from gravito.horizon.console._format import count
from gravito.horizon.console._security import add_cookie
from gravito.horizon.console._site import Ask, NotFoundError, Site
from gravito.horizon.console._visit import THEMES, Notice

__all__ = ["ACTIONS", "Act", "Progress", "Question", "action", "actions_route", "api_action", "read_filter"]

_PATIENCE: Final = 1.0  # seconds that one request works on many jobs, before it tells how far it is
_OURS: Final = ("csrf", "sure", "done", "total")  # fields that the next page adds by itself
_Part = Literal["ready", "delayed", "parked", "done", "dead"]
_OF: Final = Parameter("queue", "Its name.", required=True)
_WORKER: Final = Parameter("worker", "Its id.", required=True)
_SCHEDULE: Final = Parameter("schedule", "Its name.", required=True)
_TAG: Final = Parameter("tag", "As jobs have it.", required=True)
_DO: Final = Parameter("do", "What is done to them.", Action, required=True)

# Words of each action: as a button, and as what was done.
WORDS: Final = {
    "retry": ("Retry", "back in their queue"),
    "discard": ("Discard", "discarded"),
    "cancel": ("Cancel", "cancelled"),
    "run_now": ("Run now", "ready to run now"),
    "delete": ("Delete", "deleted"),
}


class Question(msgspec.Struct, frozen=True):
    """What is asked before a change that reaches far.

    Args:
        text: the question, with its count.
        button: the answer that does it.
    """

    text: str
    button: str


class Progress(msgspec.Struct, frozen=True):
    """How far an action is that goes on when its form is posted again.

    Args:
        text: what was done so far.
        done: jobs that were dealt with.
        total: jobs that there were in the beginning.
    """

    text: str
    done: int
    total: int


Reply = Notice | Question | Progress
Function = Callable[[Ask], Awaitable[Reply]]


class Act(msgspec.Struct, frozen=True):
    """An action.

    Args:
        do: the function.
        fields: what its form has; anything else is refused.
    """

    do: Function
    fields: tuple[Parameter, ...]


ACTIONS: Final[dict[str, Act]] = {}  # by name, the last part of its path


def action(name: str, *fields: Parameter) -> Callable[[Function], Function]:
    """Decorator: an action of this name, at `POST /actions/<name>` and `POST /api/actions/<name>`, with these fields."""

    def enter(function: Function) -> Function:
        assert name not in ACTIONS
        ACTIONS[name] = Act(function, fields)
        return function

    return enter


def _asked(ask: Ask) -> Function:
    """The function that a request is for, once its form has nothing that the function would not read."""
    name = ask.place("name")
    if name not in ACTIONS:
        raise NotFoundError(f"There is no action {name!r}; there are {', '.join(sorted(ACTIONS))}.")
    fields = ACTIONS[name].fields
    for key in ask.request.query_params:
        allowed = ", ".join(field.name for field in fields)
        raise InvalidError(f"{key[:50]!r} is in the address; an action takes the fields of a form: {allowed}")
    check(ask.form.items(), fields, (*_OURS, "back"))
    return ACTIONS[name].do


def actions_route(site: Site) -> Route:
    """The actions of the pages."""

    async def endpoint(request: Request) -> Response:
        ask = Ask(site, request)
        if ask.place("name") == "theme":
            return _theme(ask)
        do = _asked(ask)
        try:
            reply = await do(ask)
        except (HorizonError, ConfigurationError) as error:
            reply = Notice(str(error), "bad")
        site.forget()
        if isinstance(reply, Notice):
            return ask.back(reply)
        fields = [(key, value) for key, values in ask.form.items() for value in values if key not in _OURS]
        back = ask.visit.local(ask.form.one("back"))
        if isinstance(reply, Question):
            return ask.render("confirm.html", question=reply, fields=fields, back=back)
        return ask.render("progress.html", progress=reply, fields=fields, back=back)

    return Route("/actions/{name}", endpoint, methods=["POST"], name="action")


async def api_action(ask: Ask) -> Response:
    """The same for programs."""
    do = _asked(ask)
    try:
        reply = await do(ask)
    except (HorizonError, ConfigurationError) as error:
        return JSONResponse({"error": str(error)}, 409)
    ask.site.forget()
    if isinstance(reply, Question):
        return JSONResponse({"error": f"{reply.text} Say so with sure=yes."}, 409)
    if isinstance(reply, Progress):
        return JSONResponse({"text": reply.text, "done": False, "more": True})
    return JSONResponse({"text": reply.text, "done": reply.kind == "good"})


def _theme(ask: Ask) -> Response:
    response = ask.back(Notice(""))
    del response.headers["set-cookie"]
    theme = ask.form.one("theme")
    add_cookie(
        response.headers, ask.request, "theme", theme if theme in THEMES else "auto", life=365 * 86_400
    )
    return response


# -- queues --------------------------------------------------------------------------------------------------


@action("queue.pause", _OF)
async def pause(ask: Ask) -> Reply:
    """Pause a queue: no worker claims its jobs."""
    name = check_queue(ask.form.one("queue"))
    await ask.repository.pause(name)
    return Notice(f"{name} is paused; running jobs go on.")


@action("queue.resume", _OF)
async def resume(ask: Ask) -> Reply:
    """Resume a queue: workers claim its jobs again."""
    name = check_queue(ask.form.one("queue"))
    await ask.repository.resume(name)
    return Notice(f"{name} goes on.")


@action("queue.purge", _OF, Parameter("part", "What is forgotten of it.", _Part, required=True))
async def purge(ask: Ask) -> Reply:
    """Forget all jobs of a part of a queue; running ones stay."""
    name, part = check_queue(ask.form.one("queue")), ask.form.one("part")
    if part not in get_args(_Part):
        raise HorizonError(f"{part!r} is no part of a queue; allowed: {', '.join(get_args(_Part))}")
    if not ask.sure:
        number = await ask.repository.count(cast("State", part), name)
        if not number:
            return Notice(f"{name} has no {part} jobs.")
        return Question(f"Delete {count(number)} {part} jobs of {name} for good?", f"Delete {count(number)}")
    gone, left, end = _so_far(ask, "done"), 0, time.monotonic() + _PATIENCE
    before = gone
    async for some, rest in ask.repository.purging(name, cast("Any", part)):
        gone, left = gone + some, rest
        if time.monotonic() > end:
            break
    text = f"{count(gone)} {part} jobs of {name} are deleted."
    return Progress(text, gone, gone + left) if left and gone > before else Notice(text)


@action("queue.forget", _OF)
async def forget(ask: Ask) -> Reply:
    """Take an empty queue off the list."""
    name = check_queue(ask.form.one("queue"))
    await ask.repository.forget(name)
    return Notice(f"{name} is off the list; its next job puts it there again.")


# -- workers -------------------------------------------------------------------------------------------------


@action("worker.drain", _WORKER)
async def drain(ask: Ask) -> Reply:
    """Drain a worker: it finishes its jobs and ends."""
    name = ask.form.one("worker")
    await ask.repository.order(name, "drain")
    return Notice(f"{name} finishes its jobs and ends.")


@action("worker.restart", _WORKER)
async def restart(ask: Ask) -> Reply:
    """Restart a worker: it finishes its jobs and ends, and its supervisor starts another one."""
    name = ask.form.one("worker")
    await ask.repository.order(name, "restart")
    return Notice(f"{name} finishes its jobs and starts anew, if a supervisor runs it.")


# -- jobs ----------------------------------------------------------------------------------------------------


@action("jobs.act", _DO, Parameter("job", "queue/id, once for each.", required=True, repeated=True))
async def act(ask: Ask) -> Reply:
    """Do something to jobs that are named."""
    do = _which(ask)
    chosen: dict[str, list[str]] = {}
    for text in ask.form.all("job"):
        queue, _, job_id = text.partition("/")
        chosen.setdefault(check_queue(queue), []).append(check_id(job_id))
    number = sum(map(len, chosen.values()))
    if not number:
        return Notice("No jobs were chosen.", "bad")
    if not ask.sure and (number > 1 or do == "delete"):
        return _question(do, number)
    acted = Acted()
    for queue, ids in chosen.items():
        acted = acted.plus(await ask.repository.act(do, queue, ids))
    return _told(do, acted)


@action("jobs.all", _DO, Parameter("state", "Which jobs.", State, required=True), QUEUE, *FILTER)
async def act_on_all(ask: Ask) -> Reply:
    """Do something to all jobs that a search finds."""
    do, state = _which(ask), ask.form.one("state")
    if state not in ALLOWED[do]:
        raise HorizonError(f"{do} is for jobs that are {' or '.join(ALLOWED[do])}, not {state!r}")
    queue = check_queue(ask.form.one("queue")) if ask.form.one("queue") else None
    for (
        field
    ) in FILTER:  # an empty one may be a variable that was never set, or a group whose error is not known
        if field.name in ask.form and not ask.form.one(field.name).strip():
            raise HorizonError(f"{field.name} is empty; leave it out to mean any")
    wanted = read_filter(ask.form.one)
    if not ask.sure:
        number = await ask.repository.count(state, queue, wanted)
        return _question(do, number) if number else Notice("There are no such jobs.")
    acted, before, end = Acted(), _so_far(ask, "done"), time.monotonic() + _PATIENCE
    async for acted in ask.repository.acting(do, state, queue, wanted):
        if time.monotonic() > end and acted.done:
            done = before + acted.done
            total = _so_far(ask, "total") or done + await ask.repository.count(state, queue, wanted)
            text = _told(do, Acted(done=done)).text
            return Progress(text, done, max(done, total))
    return _told(do, acted.plus(Acted(done=before)))


def _so_far(ask: Ask, name: str) -> int:
    """A number that the page of a progress has brought along."""
    given = ask.form.one(name)
    return int(given) if given.isascii() and given.isdigit() and len(given) < 12 else 0


def read_filter(text: Callable[[str], str]) -> Filter:
    """A search from a form, or from an address.

    Args:
        text: gives the value of a name; empty for none.

    Raises:
        HorizonError: a time that is none.
    """
    given = {name: text(name).strip() for name in Filter.__struct_fields__}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value}
    for name in ("since", "until"):
        if name in wanted:
            wanted[name] = _moment(name, wanted[name])
    return Filter(**wanted)


def _moment(name: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise HorizonError(f"{name} is {text!r}; say it as 2030-12-31T18:00") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _which(ask: Ask) -> Action:
    do = ask.form.one("do")
    if do not in get_args(Action):
        raise HorizonError(f"{do!r} is nothing to do to jobs; allowed: {', '.join(get_args(Action))}")
    return cast("Action", do)


def _question(do: str, number: int) -> Question:
    verb = WORDS[do][0]
    return Question(f"{verb} {count(number)} {'job' if number == 1 else 'jobs'}?", f"{verb} {count(number)}")


def _told(do: str, acted: Acted) -> Notice:
    parts = []
    if acted.done or not (acted.asked or acted.left):
        parts.append(f"{count(acted.done)} {'job is' if acted.done == 1 else 'jobs are'} {WORDS[do][1]}.")
    if acted.asked:
        parts.append(f"{count(acted.asked)} running {'was' if acted.asked == 1 else 'were'} asked to end.")
    if acted.left:
        parts.append(f"{count(acted.left)} had moved on, or cannot be changed like this.")
    return Notice(" ".join(parts), "good" if acted.done or acted.asked else "bad")


# -- schedules, batches --------------------------------------------------------------------------------------


@action("schedule.pause", _SCHEDULE)
async def pause_schedule(ask: Ask) -> Reply:
    """Pause a schedule: it fires no more."""
    name = ask.form.one("schedule")
    await ask.repository.pause_schedule(name)
    return Notice(f"{name} does not fire until it is resumed.")


@action("schedule.resume", _SCHEDULE)
async def resume_schedule(ask: Ask) -> Reply:
    """Resume a schedule: it fires again."""
    name = ask.form.one("schedule")
    await ask.repository.pause_schedule(name, False)
    return Notice(f"{name} fires again.")


@action("schedule.run", _SCHEDULE)
async def run_schedule(ask: Ask) -> Reply:
    """Push a schedule's job now."""
    name = ask.form.one("schedule")
    job_id = await ask.repository.run_schedule(name)
    return Notice(f"{name} was fired out of turn: job {job_id}.")


@action("batch.cancel", Parameter("batch", "Its id.", required=True))
async def cancel_batch(ask: Ask) -> Reply:
    """Cancel what has not ended of a batch."""
    name = ask.form.one("batch")
    status = await ask.repository.batch(name)
    if not ask.sure:
        return Question(
            f"Cancel the {count(status.left)} jobs of this batch that have not ended?", "Cancel them"
        )
    await ask.repository.cancel_batch(name)
    return Notice("What had not ended of the batch is cancelled.")


# -- watched tags ----------------------------------------------------------------------------------------------


@action("tag.watch", _TAG)
async def watch_tag(ask: Ask) -> Reply:
    """Show a tag among the watched ones."""
    tag = ask.form.one("tag").strip()
    await ask.repository.watch_tag(tag)
    return Notice(f"{tag} is watched.")


@action("tag.unwatch", _TAG)
async def unwatch_tag(ask: Ask) -> Reply:
    """Show a tag among them no longer."""
    tag = ask.form.one("tag")
    await ask.repository.watch_tag(tag, False)
    return Notice(f"{tag} is no longer watched.")
