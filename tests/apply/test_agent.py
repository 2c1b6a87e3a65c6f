"""An agent on another machine: what it cannot do it says, and a message of another version ends it with a sentence."""

import json
from pathlib import Path

import pytest

from lorafile.apply.executors import agent as module
from lorafile.apply.executors import wire
from lorafile.apply.executors.agent import Agent
from lorafile.apply.executors.content import FileStore
from lorafile.apply.executors.wire import Files, Letter, encode
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import Command, Status, Work


class Outlet:
    def __init__(self) -> None:
        self.said: list[Letter] = []

    def emit(self, letter: Letter) -> None:
        self.said.append(letter)

    def publish(self, directory: Path, names: list[str]) -> Files:
        return {}


@pytest.fixture
def outlet() -> Outlet:
    return Outlet()


@pytest.fixture
def agent(outlet: Outlet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr(module, "start_server", lambda *_: None)
    return Agent(tmp_path, FileStore(tmp_path), outlet, 1)


def work(digest: str) -> Work:
    return Work([[Request("k", "predict", "a:predict", {}, {}, {"data": {"tokens": digest}})]])


def reason(outlet: Outlet) -> str:
    last = outlet.said[-1]
    assert isinstance(last, wire.Leaving)
    return last.why


def test_what_stops_an_agent_is_told(agent: Agent, outlet: Outlet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "turn", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        agent.run()
    assert reason(outlet) == "could not continue: ZeroDivisionError: division by zero"


def test_a_message_of_another_protocol_ends_it_with_a_sentence(agent: Agent, outlet: Outlet) -> None:
    agent.deliver(json.dumps(json.loads(encode(Status.IDLE)) | {"protocol": 99}))
    agent.run()
    assert "protocol 99" in reason(outlet)


def test_it_asks_for_files_that_it_lacks_and_gives_back_what_it_has_not_begun(agent: Agent, outlet: Outlet) -> None:
    agent.deliver(encode(work("d1")))
    agent.turn()
    agent.deliver(encode(Command.FINISH))
    agent.turn()
    assert outlet.said == [wire.Missing(["d1"]), Status.IDLE]
    assert not agent.busy


def test_a_detached_agent_ends_when_it_has_nothing_to_do(agent: Agent, outlet: Outlet) -> None:
    agent.deliver(encode(Command.DETACH))
    agent.run()
    assert reason(outlet) == "ended because its work was done"
