"""What is held for the calls of a member whose crew decides what a model is told."""

from __future__ import annotations

from dataclasses import replace

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.ports.model_desk import Forecast, NullModelDesk
from domain.models.agent import CrewReference
from infrastructure.orchestrators.crewai_exchange import CREW_PROMPT_TOKENS
from infrastructure.orchestrators.crewai_orchestrator import CrewDesk
from infrastructure.orchestrators.prompts import build_prompt
from infrastructure.orchestrators.token_estimate import most_tokens

PLAIN = AgentRequest("archon-1", ContextBundle("t-1", "Should it be?"), persona="You look twice.", model="m")
CREWED = replace(PLAIN, crew=CrewReference("crews.py:crew"))


class Told(NullModelDesk):
    """Remembers what it was asked to foresee."""

    paces = True

    def foresee(self, request: AgentRequest) -> Forecast:
        self.request = request
        return Forecast(request.model, "a prompt")


def test_a_member_without_a_crew_is_foreseen_as_ever() -> None:
    desk = Told()
    assert CrewDesk(desk).foresee(PLAIN) == Forecast("m", "a prompt")
    assert desk.request is PLAIN
    assert CrewDesk(desk).paces
    assert CrewDesk(desk).route("m") == ("m",)


def test_for_a_crew_the_most_that_it_may_tell_is_held_and_no_prompt_is_committed_to() -> None:
    desk = Told()
    assert CrewDesk(desk).foresee(CREWED) == Forecast("m", None)
    prompt = build_prompt(CREWED)
    foreseen = most_tokens("\n\n".join(text for _, text in desk.request.messages or ()))
    assert foreseen >= most_tokens(f"{prompt.system}\n\n{prompt.user}") + CREW_PROMPT_TOKENS
