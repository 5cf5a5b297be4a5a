"""What an orchestrator is given and what it gives back."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pkgutil import iter_modules
from uuid import uuid4

import pytest

import application.ports
from application.ports import message_bus
from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest, ContextBundle
from domain.models.budget import Usage
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub

CONTEXT = ContextBundle(topic_id="t-1", topic_content="Should the city centre be closed to private cars?")


def test_a_context_bundle_needs_a_topic_and_has_an_identity_of_its_own() -> None:
    other = ContextBundle(topic_id="t-1", topic_content=CONTEXT.topic_content)
    assert (CONTEXT.topic_id, CONTEXT.metadata, CONTEXT.background) == ("t-1", None, None)
    assert other.bundle_id != CONTEXT.bundle_id
    assert CONTEXT.created_at.utcoffset() is not None


def test_a_context_bundle_cannot_be_changed_for_one_agent() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONTEXT.topic_content = "another question"  # type: ignore[misc]


def test_a_request_needs_an_agent_and_a_context() -> None:
    request = AgentRequest(agent_id="archon-1", context=CONTEXT)
    assert (request.agent_id, request.context, request.attempt, request.expected) == ("archon-1", CONTEXT, 1, None)
    assert request.request_id != AgentRequest(agent_id="archon-1", context=CONTEXT).request_id


def test_an_output_needs_agent_request_and_content_and_defaults_the_rest() -> None:
    request_id = uuid4()
    output = AgentOutput(agent_id="archon-1", request_id=request_id, content="yes")
    assert (output.batch_id, output.content_type, output.usage) == ("", "text/plain", Usage())
    assert output.output_id != AgentOutput(agent_id="archon-1", request_id=request_id, content="yes").output_id


async def test_anyone_may_write_an_orchestrator_with_one_call() -> None:
    class Echo:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            return AgentOutput(request.agent_id, request.request_id, request.context.topic_content)

    orchestrator: AgentOrchestratorProtocol = Echo()
    output = await orchestrator.invoke(AgentRequest(agent_id="archon-1", context=CONTEXT))
    assert output.content == CONTEXT.topic_content


def test_the_stub_is_an_orchestrator() -> None:
    orchestrator: AgentOrchestratorProtocol = AgentOrchestratorStub()
    assert callable(orchestrator.invoke)


def test_the_ports_are_exported_by_name() -> None:
    homes = [import_module(each.name) for each in iter_modules(application.ports.__path__, "application.ports.")]
    for name in application.ports.__all__:
        assert getattr(application.ports, name) in [getattr(home, name) for home in homes if name in home.__all__]


def test_every_name_of_the_message_bus_is_exported() -> None:
    for name in message_bus.__all__:
        assert name in application.ports.__all__
        assert getattr(application.ports, name) is getattr(message_bus, name)
