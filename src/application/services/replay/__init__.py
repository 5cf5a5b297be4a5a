"""Runs a recorded deliberation again, from its record alone."""

from application.services.replay.recorded_run import NotReplayableError, RecordedRun
from application.services.replay.replay import Difference, ReplayReport, ReplayTools, replay

__all__ = ["Difference", "NotReplayableError", "RecordedRun", "ReplayReport", "ReplayTools", "replay"]
