"""python -m demo [--seconds N] [--channels all]: runs until Ctrl-C, or for N seconds, and then checks that the views hold what
was published."""

import argparse
import math
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from demo.channels import PARTITIONS, TOKEN, TOPIC, Channel, FeedChannel, FlumeChannel, HttpChannel, KafkaChannel, MqttChannel, flume_agent
from demo.publisher import Publisher
from demo.screen import Screen, table
from harness.database import Database
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.sensors import Plant
from harness.server import free_port
from harness.wait import wait_for

RATE = 2000
PLANT = Plant(devices=200, sites=10)

LIVE = {
    "line_load: the views joined to the table devices": "SELECT * FROM line_load ORDER BY line",
    "site_minute: hop('1 min', '10 s')": """
        SELECT site, window_start, n, mean, damp FROM site_minute
        WHERE window_start = (SELECT max(window_start) FROM site_minute) - interval '50 s' ORDER BY site LIMIT 5""",
    "floor_now: ts > now() - interval '1 minute'": "SELECT * FROM floor_now ORDER BY site LIMIT 5",
    "device_10s: the hottest of now": """
        SELECT device, window_start, n, mean, peak FROM device_10s
        WHERE window_start = (SELECT max(window_start) FROM device_10s) ORDER BY mean DESC LIMIT 5""",
}
CATALOGUE = {
    "streamext.streams": "SELECT stream, connector, state, rows_in, rate, lag_rows, rejected FROM streamext.streams",
    "streamext.continuous_views": """
        SELECT view, state, groups, open_windows, state_bytes, accepted, late, rejected
        FROM streamext.continuous_views""",
}


def run_script(pg: Postgres, name: str, **variables: object) -> None:
    script = Path(__file__).parent / name
    pg.run("psql", "-Xq", "-d", "demo", "-vON_ERROR_STOP=1", *(f"-v{name}={value}" for name, value in variables.items()), "-f", script)


def set_up(pg: Postgres, kafka: Kafka, mosquitto: Mosquitto, all_channels: bool, stack: ExitStack) -> tuple[Database, list[Channel], str]:
    """The database, its channels, and where HTTP is served. What is started ends with the stack."""
    kafka.create_topic(TOPIC, PARTITIONS)
    pg.psql("CREATE DATABASE demo")
    port = free_port()
    run_script(pg, "plant.sql", brokers=kafka.brokers, uri=mosquitto.uri, devices=PLANT.devices, listen=f"127.0.0.1:{port}", token=TOKEN)
    demo = Database(pg, "demo")
    channels: list[Channel] = [KafkaChannel(kafka), MqttChannel(mosquitto), HttpChannel(port)]
    if all_channels:
        feed = FeedChannel()
        run_script(pg, "firehose.sql", url=feed.url)
        tier = free_port()
        run_script(pg, "flume.sql", listen=f"127.0.0.1:{tier}")
        channels += [feed, FlumeChannel(stack.enter_context(flume_agent(tier)))]
    demo.flush("sensors", "floor_sensors")  # they are subscribed when this returns
    wait_for(lambda: not demo.rows("SELECT 1 FROM streamext.gateways WHERE state <> 'listening'"), what="the gateways")
    return demo, channels, f"http://127.0.0.1:{port}"


def received(channels: Sequence[Channel]) -> str:
    return " UNION ALL ".join(
        f"SELECT '{channel.name}' AS channel, '{channel.stream}' AS stream, count(*) AS devices, sum(n) AS readings, max(peak) AS peak FROM {channel.total}"
        for channel in channels
    )


def watch(demo: Database, channels: Sequence[Channel], web: str, seconds: float) -> None:
    """Shows the views until the time is over or Ctrl-C."""
    server = demo.server
    heading = (
        f"Join in:  {server.bindir}/psql -h {server.dir} -p {server.port} -U postgres demo\n"
        f"or        curl -H 'Authorization: Bearer {TOKEN}' '{web}/views/public.gate_device_total?device=device-0007'\n"
        f"or        {web}/#public.gate_device_total in a browser, with the token {TOKEN}"
    )
    live = {"each channel's devices": received(channels), **LIVE}
    end = time.monotonic() + seconds
    with Screen() as screen:
        while time.monotonic() < end:
            left, right = ([table(demo.connection, *titled) for titled in tables.items()] for tables in (live, CATALOGUE))
            screen.show(heading, left, right)
            time.sleep(min(0.5 if screen.live else 5, max(end - time.monotonic(), 0)))


def check(demo: Database, channels: Sequence[Channel]) -> bool:
    """Whether the views hold exactly what was published."""
    sensors = channels[0]
    demo.flush(*(channel.stream for channel in channels))

    def by_device(query: str) -> dict[str, tuple[int, float]]:
        return {device: (int(n), total) for device, n, total in demo.rows(query)}

    def is_exact(channel: Channel) -> bool:
        return by_device(f"SELECT device, n, total FROM {channel.total}") == channel.by_device

    def arrives(channel: Channel) -> bool:
        try:
            wait_for(lambda: is_exact(channel), 10)  # what a firehose has sent may be on its way
        except TimeoutError:
            pass
        return is_exact(channel)

    results = {channel.total: arrives(channel) for channel in channels} | {
        "device_10s": by_device("SELECT device, sum(n), sum(total) FROM device_10s GROUP BY 1") == sensors.by_device,
        "site_minute": demo.value("SELECT sum(n) FROM site_minute") == 6 * sensors.count(),
        "line_load": demo.value("SELECT sum(n) FROM line_load") == sensors.count(),
    }
    print("published " + ", ".join(f"{channel.count()} readings to {channel.name}" for channel in channels))
    for view, exact in results.items():
        print(f"{view}: {'holds exactly these' if exact else 'DIFFERS'}")
    return all(results.values())


def main() -> int:
    arguments = argparse.ArgumentParser(prog="demo", description=__doc__)
    arguments.add_argument("--seconds", type=float)
    arguments.add_argument("--channels", choices=["all"], help="also a firehose and a Flume agent")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("starting Kafka, mosquitto and PostgreSQL …", flush=True)
    try:
        with Kafka() as kafka, Mosquitto() as mosquitto, Postgres() as pg, ExitStack() as stack:
            demo, channels, web = set_up(pg, kafka, mosquitto, given.channels == "all", stack)
            publisher = Publisher(channels, PLANT, RATE)
            publisher.start()
            try:
                watch(demo, channels, web, given.seconds or math.inf)
            finally:
                publisher.stop()
            return 0 if check(demo, channels) else 1
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind")
        return 0


if __name__ == "__main__":
    sys.exit(main())
