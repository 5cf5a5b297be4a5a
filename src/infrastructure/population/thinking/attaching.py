"""Makes what a population is run with where its agents act by inference, or some of them think."""

from __future__ import annotations

from pathlib import Path

from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from infrastructure.population.attachment import Attachment, Host
from infrastructure.population.mover import Mover
from infrastructure.population.thinking.answer_record import RECORD, AnswerRecord
from infrastructure.population.thinking.talk import Talk

__all__ = ["attached_minds"]


def attached_minds(host: Host) -> list[Attachment]:
    """Inference, then thinking agents, with one desk and one record between them.

    Raises `InvalidPopulationError`, `DamagedRecordError` and `PopulationFolderError`.
    """
    spec = host.spec
    mover = host.mover or Mover(host.columns)
    talk = Talk(host.minds)
    record = AnswerRecord(host.folder / RECORD if host.folder is not None else None)
    found: list[Attachment] = []
    try:
        if spec.inference != "none":
            found.append(_inference(host, mover, talk, record))
        if spec.thinkers:
            from infrastructure.population.thinking.thinking import Thinking

            found.append(Thinking(host, mover, talk, record))
    except BaseException:
        for one in found:
            one.close()
        record.close()
        raise
    return found


def _inference(host: Host, mover: Mover, talk: Talk, record: AnswerRecord) -> Attachment:
    from infrastructure.population.inference.acting import ActingByInference

    spec = host.spec
    if spec.inference == "openai":
        from infrastructure.population.inference.text_model import TextModel

        text = TextModel(talk, record, topic=spec.topic, seed=spec.seed, deadline_s=spec.ask_deadline_s)
        return ActingByInference(host, mover, text, foresees=False)
    from infrastructure.population.inference.network import seeded_network, stored_network

    network = stored_network(Path(spec.inference_weights)) if spec.inference_weights else seeded_network(spec.seed)
    # Between ticks that follow each other at once there is no time that nobody needs.
    foresees = spec.tick_interval_s > 0
    if spec.inference == "policy":
        from infrastructure.population.inference.policy import PolicyModel

        return ActingByInference(host, mover, PolicyModel(network), foresees=foresees)
    if spec.inference == "torch":
        from infrastructure.population.inference.torch_policy import TorchModel

        return ActingByInference(host, mover, TorchModel(network), foresees=foresees)
    raise InvalidPopulationError([FieldProblem("/inference", f"{spec.inference!r} is no kind of inference")])
