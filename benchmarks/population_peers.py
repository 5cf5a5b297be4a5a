"""The population of one rule, bounded confidence, as others would build it: objects, asyncio actors, mesa-frames, Ray actors.

Each gives a `Run` that takes one tick: every agent says its opinion to one random neighbour of eight, and whoever heard opinions near
its own moves half of the way to their mean.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.measurement import Run

DEGREE = 8
BOUND = 0.2


class Agent:
    """An agent as an object: its opinion, whom it knows, and what it was sent."""

    __slots__ = ("heard", "known", "opinion")

    def __init__(self, opinion: float) -> None:
        self.opinion = opinion
        self.known: list[Any] = []
        self.heard: list[float] = []

    def hear(self) -> None:
        """Move by what was heard, and forget it."""
        near = [opinion for opinion in self.heard if abs(opinion - self.opinion) <= BOUND]
        if near:
            self.opinion += 0.5 * (sum(near) / len(near) - self.opinion)
        self.heard.clear()


@asynccontextmanager
async def objects(agents: int) -> AsyncIterator[Run]:
    """Objects in a list, one loop to speak and one to hear."""
    draw = random.Random(1)
    town = [Agent(draw.random()) for _ in range(agents)]
    for agent in town:
        agent.known = draw.choices(town, k=DEGREE)

    async def run() -> None:
        for agent in town:
            draw.choice(agent.known).heard.append(agent.opinion)
        for agent in town:
            agent.hear()

    yield run


@asynccontextmanager
async def actors(agents: int) -> AsyncIterator[Run]:
    """A task with a queue for each agent."""
    draw = random.Random(1)
    queues: list[asyncio.Queue[float | None]] = [asyncio.Queue() for _ in range(agents)]
    town = [Agent(draw.random()) for _ in range(agents)]
    done = asyncio.Semaphore(0)
    for agent in town:
        agent.known = draw.choices(queues, k=DEGREE)

    async def act(agent: Agent, queue: asyncio.Queue[float | None]) -> None:
        while True:
            found = await queue.get()
            if found is None:
                agent.hear()
                done.release()
            else:
                agent.heard.append(found)

    tasks = [asyncio.create_task(act(agent, queue)) for agent, queue in zip(town, queues, strict=True)]

    async def run() -> None:
        for agent in town:
            draw.choice(agent.known).put_nowait(agent.opinion)
        for queue in queues:
            queue.put_nowait(None)
        for _ in range(agents):
            await done.acquire()

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def mesa_frames(agents: int) -> AsyncIterator[Run]:
    """mesa-frames on Polars: agents are rows of a data frame, messages a frame that is grouped and joined."""
    import numpy as np
    import polars as pl
    from mesa_frames import AgentSetPolars, ModelDF

    chance = np.random.default_rng(1)

    class Town(AgentSetPolars):  # type: ignore[misc]
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self += pl.DataFrame({"unique_id": pl.arange(agents, eager=True), "opinion": chance.random(agents)})
            self.known = chance.integers(0, agents, (agents, DEGREE))

        def step(self) -> None:
            opinion = self.agents["opinion"]
            targets = self.known[np.arange(agents), chance.integers(0, DEGREE, agents)]
            said = pl.DataFrame({"unique_id": targets, "said": opinion, "own": opinion.gather(targets)})
            near = said.filter((pl.col("said") - pl.col("own")).abs() <= BOUND)
            means = near.group_by("unique_id").agg(pl.col("said").mean())
            both = self.agents.join(means, on="unique_id", how="left", maintain_order="left")
            way = pl.col("said").fill_null(pl.col("opinion")) - pl.col("opinion")
            self["opinion"] = both.select((pl.col("opinion") + 0.5 * way).alias("opinion"))["opinion"]

    model = ModelDF()
    model.agents += Town(model)

    async def run() -> None:
        model.agents.do("step")

    yield run


@asynccontextmanager
async def ray_actors(agents: int) -> AsyncIterator[Run]:
    """An actor, which is a process, for each agent; messages are calls of its methods."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 << 20,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(["src", "."])}},
    )

    class Member:
        def __init__(self, number: int) -> None:
            self.agent = Agent(random.Random(number).random())
            self.draw = random.Random(number)

        def meet(self, known: list[Any]) -> None:
            self.agent.known = known

        def speak(self) -> None:
            ray.get(self.draw.choice(self.agent.known).listen.remote(self.agent.opinion))

        def listen(self, opinion: float) -> None:
            self.agent.heard.append(opinion)

        def step(self) -> None:
            self.agent.hear()

    # One call at a time would let two that speak to each other wait for ever.
    kind = ray.remote(num_cpus=0, max_concurrency=4)(Member)
    town = [kind.remote(number) for number in range(agents)]
    draw = random.Random(1)
    ray.get([one.meet.remote(draw.choices(town, k=DEGREE)) for one in town])

    async def run() -> None:
        ray.get([one.speak.remote() for one in town])
        ray.get([one.step.remote() for one in town])

    try:
        yield run
    finally:
        ray.shutdown()
