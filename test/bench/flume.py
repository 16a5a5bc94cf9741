"""Flume: a real agent's Avro sink into a view, beside the same agent and a receiver that only answers."""

import socket
import struct
import time

from harness.flume import Agent, Tier
from harness.wait import wait_for
from plant import Plant

BATCH = 100
# Events of its own making, as fast as they go; the netcat source tells when the agent is up.
AGENT = """
a.sources = up stress
a.channels = none c
a.sinks = none out
a.sources.up.type = netcat
a.sources.up.bind = 127.0.0.1
a.sources.up.port = {netcat}
a.sources.up.channels = none
a.channels.none.type = memory
a.sinks.none.type = null
a.sinks.none.channel = none
a.sources.stress.type = org.apache.flume.source.StressSource
a.sources.stress.size = 110
a.sources.stress.batchSize = BATCH
a.sources.stress.maxTotalEvents = EVENTS
a.sources.stress.channels = c
a.channels.c.type = memory
a.channels.c.capacity = 20000
a.channels.c.transactionCapacity = BATCH
a.sinks.out.type = avro
a.sinks.out.hostname = 127.0.0.1
a.sinks.out.port = PORT
a.sinks.out.batch-size = BATCH
a.sinks.out.channel = c
"""


def _agent(port: int, events: int) -> Agent:
    return Agent(AGENT.replace("BATCH", str(BATCH)).replace("EVENTS", str(events)).replace("PORT", str(port)), heap="512m")


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("the agent has ended the connection")
        data += piece
    return bytes(data)


def _answer(listener: socket.socket, calls: int) -> float:
    """Seconds from the first call to the last of so many, each answered at once."""
    connection, _ = listener.accept()
    begin = 0.0
    for call in range(calls):
        serial, buffers = struct.unpack("!II", _exactly(connection, 8))
        for _ in range(buffers):
            _exactly(connection, struct.unpack("!I", _exactly(connection, 4))[0])
        begin = begin or time.monotonic()
        answer = b"\0" * (7 if call == 0 else 3)
        connection.sendall(struct.pack("!III", serial, 1, len(answer)) + answer)
    seconds = time.monotonic() - begin
    connection.close()
    return seconds


def measure(plant: Plant, events: int) -> tuple[float, float]:
    """Events a second, ours and the receiver's; the clock runs from the first events that are there."""
    with socket.create_server(("127.0.0.1", 0)) as listener, _agent(listener.getsockname()[1], events):
        bare = events / _answer(listener, events // BATCH)
    plant.restart()
    db = plant.db
    tier = Tier(db)
    tier.stream("body bytea", "body_format 'raw'")
    db.execute("CREATE VIEW counted WITH (streamext.continuous) AS SELECT count(*) AS n FROM s")
    db.flush("s")
    with _agent(tier.port, events):
        first = wait_for(lambda: db.value("SELECT n FROM counted"), what="events")
        begin = time.monotonic()
        wait_for(lambda: db.value("SELECT n FROM counted") == events, what="all events")
        rate = (events - first) / (time.monotonic() - begin)
    db.execute("DROP SERVER tier CASCADE")
    return rate, bare
