"""python -m demo [--seconds N]: runs until Ctrl-C, or for N seconds, and then checks that the views hold what was
published."""

import argparse
import math
import signal
import sys
import time
from pathlib import Path

from demo.publisher import PARTITIONS, TOPIC, Publisher
from demo.screen import Screen, table
from harness.database import Database
from harness.kafka import Kafka
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.sensors import Plant

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


def set_up(pg: Postgres, kafka: Kafka, mosquitto: Mosquitto) -> Database:
    kafka.create_topic(TOPIC, PARTITIONS)
    pg.psql("CREATE DATABASE demo")
    script = Path(__file__).parent / "plant.sql"
    variables = {"ON_ERROR_STOP": 1, "brokers": kafka.brokers, "uri": mosquitto.uri, "devices": PLANT.devices}
    pg.run("psql", "-Xq", "-d", "demo", *(f"-v{name}={value}" for name, value in variables.items()), "-f", script)
    demo = Database(pg, "demo")
    demo.flush("sensors", "floor_sensors")  # they are subscribed when this returns
    return demo


def watch(demo: Database, seconds: float) -> None:
    """Shows the views until the time is over or Ctrl-C."""
    server = demo.server
    heading = f"Join in:  {server.bindir}/psql -h {server.dir} -p {server.port} -U postgres demo"
    screen = Screen()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left, right = (
            [line for title, query in tables.items() for line in table(demo.connection, title, query)]
            for tables in (LIVE, CATALOGUE)
        )
        screen.show(heading, left, right)
        time.sleep(min(0.5 if screen.live else 5, max(end - time.monotonic(), 0)))


def check(demo: Database, publisher: Publisher) -> bool:
    """Whether the views hold exactly what was published."""
    demo.flush("sensors", "floor_sensors")
    sensors, floor_sensors = publisher.sensors, publisher.floor_sensors

    def by_device(query: str) -> dict[str, tuple[int, float]]:
        return {device: (int(n), total) for device, n, total in demo.rows(query)}

    results = {
        "device_total": by_device("SELECT device, n, total FROM device_total") == sensors.by_device,
        "device_10s": by_device("SELECT device, sum(n), sum(total) FROM device_10s GROUP BY 1") == sensors.by_device,
        "floor_device_total": by_device("SELECT device, n, total FROM floor_device_total") == floor_sensors.by_device,
        "site_minute": demo.value("SELECT sum(n) FROM site_minute") == 6 * sensors.count(),
        "line_load": demo.value("SELECT sum(n) FROM line_load") == sensors.count(),
    }
    print(f"published {sensors.count()} readings to Kafka, {floor_sensors.count()} to MQTT")
    for view, is_exact in results.items():
        print(f"{view}: {'holds exactly these' if is_exact else 'DIFFERS'}")
    return all(results.values())


def main() -> int:
    arguments = argparse.ArgumentParser(prog="demo", description=__doc__)
    arguments.add_argument("--seconds", type=float)
    seconds = arguments.parse_args().seconds
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("starting Kafka, mosquitto and PostgreSQL …", flush=True)
    try:
        with Kafka() as kafka, Mosquitto() as mosquitto, Postgres() as pg:
            demo = set_up(pg, kafka, mosquitto)
            publisher = Publisher(kafka, mosquitto, PLANT, RATE)
            publisher.start()
            try:
                watch(demo, seconds or math.inf)
            finally:
                publisher.stop()
            return 0 if check(demo, publisher) else 1
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind")
        return 0


if __name__ == "__main__":
    sys.exit(main())
