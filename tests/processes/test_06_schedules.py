"""Random fault schedules: 25 a store here, any number by `python -m tests.processes.schedules`."""

from __future__ import annotations

import pytest

from tests.processes.schedules.generator import schedule
from tests.processes.schedules.grounds import FAULTS
from tests.processes.schedules.lanes import run
from tests.processes.schedules.steps import HOLDER
from tests.processes.stores import KINDS

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

SEEDS = range(1, 26)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_goes_wrong_everyone_is_answered_and_no_token_is_spent_twice(kind: str) -> None:
    result = run(kind, SEEDS, lanes=4, stop_after=3)

    for one in result.failures:
        replay = f"python -m tests.processes.schedules --store {kind} --seed {one.seed}"
        print(f"{one.report}\n\n{replay}")  # noqa: T201 - shown on failure
    assert [one.seed for one in result.failures] == []
    assert len(result.played) == len(SEEDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_is_a_function_of_its_seed(kind: str) -> None:
    for seed in range(200):
        plan = schedule(kind, seed, FAULTS[kind])
        assert plan == schedule(kind, seed, FAULTS[kind])
        assert str(plan) == str(schedule(kind, seed, FAULTS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_schedule_does_it_also_ends(kind: str) -> None:
    ends = {"stop": {"wake", "kill"}, "hold": {"release"}, "down": {"up"}, "freeze": {"thaw"}}
    for seed in range(500):
        steps = schedule(kind, seed, FAULTS[kind]).steps
        for i, step in enumerate(steps):
            later = {(other.do, other.who) for other in steps[i:]}
            assert step.do not in ends or later & {(end, step.who) for end in ends[step.do]}, seed


def test_the_schedules_of_a_thousand_seeds_have_everything_in_them() -> None:
    steps = [step for seed in range(1000) for step in schedule("redis", seed, FAULTS["redis"]).steps]

    wanted = {"kill", "stop", "drop", "fail", "delay", "sign_in", "sign_out", "revoke", "close", "start"}
    assert wanted | FAULTS["redis"] <= {step.do for step in steps}
    assert {"kill", "stop"} <= {step.do for step in steps if step.who == HOLDER}
    assert {step.how for step in steps if step.do == "hold"} == {"before", "after"}
