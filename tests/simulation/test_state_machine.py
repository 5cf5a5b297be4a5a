"""The same worlds, led by Hypothesis, which looks for the shortest way to a broken promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.simulation.run import LivingWorld
from tests.simulation.scenarios import DEEDS, STORMS, Deed, draw_scenario

_PLACES = st.integers(0, 3)
_AMOUNTS = {
    "crash": (0, 1, 5, 20, 80),
    "stop": (0,),
    "freeze": (0.3, 2.0, 6.0, 9.0),
    "away": (0.1, 1.0, 4.0, 8.0),
    "halt": (0.5, 3.0),
    "doubt": (0.3, 2.0),
    "jump": (-3600.0, -3.0, 20.0),
    "store-jump": (-3.0, 10.0),
    "junk": (0,),
    "cancel": (0,),
    "read": (0,),
    "stream": (0, 3),
    "wait": (0.1, 30.0),
}


class Worlds(RuleBasedStateMachine):
    """Anything may be done to a world, in any order."""

    living: LivingWorld | None = None

    @initialize(seed=st.integers(0, 10_000))
    def begin(self, seed: int) -> None:
        """Deliberations, processes and weather of some world, without its schedule."""
        self.living = LivingWorld(replace(draw_scenario(seed), deeds=()))
        self.living.__enter__()

    @rule(which=_PLACES)
    def submit(self, which: int) -> None:
        self._act("submit", which, 0.0)

    @rule(kind=st.sampled_from(sorted(STORMS)), which=_PLACES, draw=st.data())
    def go_wrong(self, kind: str, which: int, draw: st.DataObject) -> None:
        self._act(kind, which, draw.draw(st.sampled_from(_AMOUNTS[kind])))

    @rule(kind=st.sampled_from(sorted(DEEDS)), which=_PLACES, draw=st.data())
    def ask(self, kind: str, which: int, draw: st.DataObject) -> None:
        self._act(kind, which, draw.draw(st.sampled_from(_AMOUNTS[kind])))

    @rule(seconds=st.sampled_from((0.0, 0.05, 0.3, 1.0, 3.0, 7.0)))
    def pass_time(self, seconds: float) -> None:
        if self.living is not None:
            self.living.pass_time(seconds)

    @invariant()
    def nothing_is_broken(self) -> None:
        if self.living is not None:
            self.living.world.look()
            assert self.living.world.broken == []

    def teardown(self) -> None:
        living, self.living = self.living, None
        if living is not None:
            try:
                broken = living.rest()
            finally:
                living.__exit__(None, None, None)
            assert broken == []

    def _act(self, kind: str, which: int, amount: float) -> None:
        if self.living is not None:
            self.living.act(Deed(self.living.world.now, kind, which, amount))


def test_no_order_of_deeds_breaks_a_promise(sized: Callable[[int, int], int]) -> None:
    bounded = settings(
        max_examples=sized(60, 2_000),
        stateful_step_count=25,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(Worlds, settings=bounded)
