from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.serve.events import EngineLost
from hasten.serve.policy import Policy
from hasten.serve.roster import INSTANCE, Happening, Roster, State


@pytest.mark.parametrize("state", ["idle", "busy", "leaving", "down"])
def test_a_happening_that_the_table_does_not_name_changes_nothing(state: State) -> None:
    roster = Roster(Policy(), up=True)
    [instance] = roster.instances
    instance.state = state
    assert not roster.move(instance, "engine lost" if state != "down" else "dispatch")
    assert instance.state == state


def test_every_state_can_be_reached_and_left() -> None:
    states = {state for state, _ in INSTANCE} | set(INSTANCE.values())
    assert {state for state, _ in INSTANCE} == set(INSTANCE.values()) == states


def test_the_lowest_free_instance_is_taken_where_all_are_alike() -> None:
    roster = Roster(Policy(instances=3), up=True)
    roster.move(roster.instances[0], "dispatch")
    best = roster.best(0.0, lambda: 1.0, lone=True)
    assert best is roster.instances[1]


def test_the_fastest_free_instance_is_taken_where_they_differ() -> None:
    roster = Roster(Policy(instances=2, speeds=(1.0, 4.0)), up=True)
    assert roster.best(0.0, lambda: 1.0, lone=True) is roster.instances[1]


def test_a_lone_batch_waits_for_a_busy_instance_that_answers_it_sooner() -> None:
    roster = Roster(Policy(instances=2, speeds=(1.0, 4.0)), up=True)
    fast = roster.instances[1]
    roster.move(fast, "dispatch")
    fast.busy_until = 0.5
    assert roster.best(0.0, lambda: 1.0, lone=True) is None
    assert roster.best(0.0, lambda: 1.0, lone=False) is roster.instances[0]
    fast.busy_until = 0.9
    assert roster.best(0.0, lambda: 1.0, lone=True) is roster.instances[0]


def test_nothing_waits_for_engines_of_which_all_are_lost() -> None:
    roster = Roster(Policy(instances=2, max_instances=3), up=False)
    for number, pause in ((0, 3.0), (1, 1.0)):
        assert roster.loss is None
        roster.instances[number].loss = EngineLost(pause, number)
        roster.move(roster.instances[number], "engine lost")
    loss = roster.loss
    assert loss is not None
    assert loss.retry_after_s == 1.0


def test_an_instance_that_is_about_to_leave_is_kept_rather_than_another_started() -> None:
    roster = Roster(Policy(instances=2, max_instances=3), up=True)
    roster.move(roster.instances[1], "dispatch")
    roster.move(roster.instances[1], "stop")
    assert roster.wanted == 1
    assert roster.startable() is roster.instances[1]


def test_an_instance_that_does_nothing_is_given_up_first() -> None:
    roster = Roster(Policy(instances=2), up=True)
    roster.move(roster.instances[1], "dispatch")
    assert roster.stoppable() is roster.instances[0]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted({what for _, what in INSTANCE}))), max_size=60))
def test_what_is_counted_follows_the_states_whatever_happens(steps: list[tuple[int, Happening]]) -> None:
    roster = Roster(Policy(instances=3, max_instances=4), up=True)
    for number, happening in steps:
        roster.move(roster.instances[number], happening)
        states = [instance.state for instance in roster.instances]
        assert roster.free == ("idle" in states)
        assert roster.runs == ("busy" in states or "leaving" in states)
        assert roster.working == states.count("idle") + states.count("busy")
        assert roster.wanted == len(states) - states.count("off") - states.count("leaving")
