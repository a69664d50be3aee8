"""How processes are spread over queues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gravito.horizon._balance import Load, balance, step_towards

LOADS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(Load, ready=st.integers(0, 10**6), run_time=st.floats(0, 100)),
    min_size=1,
    max_size=8,
)


@given(LOADS, st.integers(0, 64), st.integers(0, 3))
def test_every_process_is_given_away_and_each_queue_has_its_minimum(
    loads: dict[str, Load], processes: int, at_least: int
) -> None:
    shares = balance(loads, processes, at_least=at_least)
    assert list(shares) == list(loads)
    assert sum(shares.values()) == max(processes, at_least * len(loads))
    assert min(shares.values()) >= at_least


@given(LOADS, st.integers(8, 64))
def test_more_work_never_means_fewer_processes(loads: dict[str, Load], processes: int) -> None:
    shares = balance(loads, processes)
    busier = {queue for queue in loads if loads[queue].work > max(loads[q].work for q in loads) - 1e-9}
    for queue in busier:
        assert shares[queue] >= max(shares.values()) - 1


def test_the_queue_whose_jobs_wait_longest_gets_most() -> None:
    loads = {"slow": Load(100, 2.0), "fast": Load(1000, 0.01), "idle": Load(0, 1.0)}
    assert balance(loads, 12) == {"slow": 10, "fast": 1, "idle": 1}


def test_no_work_is_spread_evenly() -> None:
    assert balance({"a": Load(0, 0), "b": Load(0, 0), "c": Load(0, 0)}, 7) == {"a": 3, "b": 2, "c": 2}


@given(LOADS, LOADS, st.integers(1, 30), st.integers(1, 4))
def test_steps_arrive_and_never_use_more(
    before: dict[str, Load], after: dict[str, Load], processes: int, most: int
) -> None:
    names = list(dict.fromkeys([*before, *after]))
    idle = Load(0, 0)
    now = balance({name: before.get(name, idle) for name in names}, processes)
    wanted = balance({name: after.get(name, idle) for name in names}, processes)
    for _ in range(sum(wanted.values())):
        following = step_towards(now, wanted, most=most)
        assert sum(following.values()) <= sum(wanted.values())
        assert sum(max(following[name] - now[name], 0) for name in names) <= most
        now = following
    assert now == wanted


@pytest.mark.parametrize(("loads", "processes", "least"), [({}, 1, 1), ({"a": Load(0, 0)}, -1, 0)])
def test_what_makes_no_sense_is_refused(loads: dict[str, Load], processes: int, least: int) -> None:
    with pytest.raises(ValueError, match="balance"):
        balance(loads, processes, at_least=least)
