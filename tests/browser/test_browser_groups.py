"""What is changed many at a time: groups of dead letters, batches, and what a search finds."""

from __future__ import annotations

from tests.browser import application as app
from tests.browser.test_browser_actions import fresh, sure
from tests.browser.visitor import Visitor
from tests.browser.world import World

from gravito.horizon._search import DeadGroup


def died(world: World, queue: str, number: int) -> list[str]:
    """So many dead jobs in a queue of their own, and one of another kind."""
    ids = [world.push(app.fail.on(queue).make(str(one))) for one in range(number)]
    ids.append(world.push(app.planted.on(queue).make("another")))
    world.work_off(queue)
    assert {world.state(queue, one) for one in ids} == {"dead"}
    return ids


def groups(world: World, queue: str) -> list[DeadGroup]:
    return world.do(lambda: world.repository.dead_groups(queue))


def test_a_group_of_dead_letters_is_discarded(visitor: Visitor, world: World) -> None:
    queue = fresh()
    *ids, other = died(world, queue, 3)
    name = world.detail(ids[0], queue).name
    visitor.get(f"/dead?queue={queue}")
    assert [group.count for group in groups(world, queue)] == [3, 1]
    visitor.press(f"Discard all of {name}, LookupError")
    assert {world.state(queue, one) for one in ids} == {"dead"}  # nothing before the answer
    sure(visitor, "Discard 3 jobs?")
    assert "3 jobs are discarded" in visitor.notice
    assert {world.state(queue, one) for one in ids} == {"unknown"}
    assert world.state(queue, other) == "dead"
    assert [group.error for group in groups(world, queue)] == [f"tests.browser.application.{app.PLANTED}"]


def test_a_group_of_dead_letters_is_retried(visitor: Visitor, world: World) -> None:
    queue = fresh()
    *ids, other = died(world, queue, 3)
    name = world.detail(ids[0], queue).name
    visitor.get(f"/dead?queue={queue}")
    visitor.press(f"Retry all of {name}, LookupError")
    sure(visitor, "Retry 3 jobs?")
    assert "3 jobs are back in their queue" in visitor.notice
    assert {world.state(queue, one) for one in ids} == {"ready"}
    assert world.state(queue, other) == "dead"
    world.work_off(queue)
    assert [group.count for group in groups(world, queue)] == [3, 1]
    visitor.press("Discard all")
    sure(visitor, "Discard 4 jobs?")
    assert groups(world, queue) == []
    assert world.sizes(queue).dead == 0


def test_a_batch_is_cancelled(visitor: Visitor, world: World) -> None:
    queue = fresh()
    calls = [app.greet.on(queue).make(str(number)) for number in range(4)]
    batch = world.do(lambda: world.horizon.batch(calls, "Unwanted").push())
    visitor.get(f"/batches/{batch.id}")
    count = "return document.querySelectorAll('[data-find] tbody tr').length"
    visitor.until(lambda: visitor.run(count) == 4, "its jobs are not listed")
    visitor.press("Cancel", ".head-actions")
    assert world.do(lambda: world.repository.batch(batch.id)).left == 4
    sure(visitor, "Cancel the 4 jobs of this batch that have not ended?")
    status = world.do(lambda: world.repository.batch(batch.id))
    assert (status.state, status.cancelled, status.left) == ("cancelled", 4, 0)
    assert sum(world.sizes(queue).ready) == 0
    assert "cancelled" in visitor.text(".head-actions")


def test_a_search_goes_on_by_itself_until_it_has_found(visitor: Visitor, world: World) -> None:
    """A rare tag behind thousands of other jobs: nobody presses anything."""
    queue = fresh()
    world.push_many(app.greet.on(queue).make(str(number)) for number in range(9000))
    rare = [world.push(app.greet.on(queue).tags("rare").make(str(number))) for number in range(3)]
    visitor.get(f"/jobs?state=ready&queue={queue}&tag=rare")
    count = "return document.querySelectorAll('#found tbody tr').length"
    visitor.until(lambda: visitor.run(count) == 3, "they were not found")
    visitor.until(lambda: "That is all: 9,003 jobs were looked at" in visitor.text("#found"))
    shown = visitor.run(
        "return [...document.querySelectorAll('#found input[name=job]')].map(one => one.value)"
    )
    assert shown == [f"{queue}/{one}" for one in rare]
    visitor.find("[data-select-all]").click()
    assert visitor.text("[data-count]") == "3"
    visitor.press("Delete all")
    sure(visitor, "Delete 3 jobs?")
    assert {world.state(queue, one) for one in rare} == {"unknown"}
    assert sum(world.sizes(queue).ready) == 9000


def test_a_job_shows_its_children_chain_and_batch(visitor: Visitor, world: World) -> None:
    parent = world.push(app.parent.make())
    visitor.until(lambda: world.state("default", parent) == "ok")
    children = world.detail(parent, "default").result
    visitor.get(f"/jobs/default/{parent}")
    count = "return document.querySelectorAll('[data-find] tbody tr').length"
    visitor.until(lambda: visitor.run(count) == 3, "the children are not listed")
    links = visitor.run("return [...document.querySelectorAll('[data-find] th a')].map(one => one.pathname)")
    assert sorted(links) == sorted(f"/jobs/default/{one}" for one in children)
    visitor.get(links[0])
    assert "Pushed by" in visitor.text()
    visitor.find(f'a[href="/jobs/default/{parent}"]').click()
    visitor.until(lambda: visitor.path == f"/jobs/default/{parent}" and visitor.is_complete)
    chain = world.do(lambda: world.repository.chain(world.ids["chain"]))
    visitor.get(f"/jobs/{chain.jobs[1].queue}/{chain.jobs[1].id}")
    shown = visitor.run(
        "return [...document.querySelectorAll('[aria-labelledby=h-chain] td a')].map(a => a.pathname)"
    )
    assert shown == [f"/jobs/{one.queue}/{one.id}" for one in chain.jobs]
    visitor.shot("jobs-of-a-chain")
