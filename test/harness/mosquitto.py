"""A throwaway mosquitto broker."""

import getpass
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from harness.server import Server
from harness.wait import wait_for

# Debian keeps daemons where an ordinary user's PATH does not look.
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


class Mosquitto(Server):
    """`uri` is its address. With `users` (name to password) others are turned away; `acl` is the text of an ACL
    file. Persistent: sessions and retained messages outlive stop() and, but for the last second, kill9(). Not so
    with `quiet`, for measurements: nothing is kept on disk, only errors are logged, and small messages are sent at once
    (mosquitto's default lets them wait until 64 kB are together or all before are acknowledged). `inflight` is how many
    messages may be open each way; each kill9() takes the places of some QoS 2 senders for good: mosquitto finds messages
    in its file whose PUBREL it had seen after writing it, and counts them as open."""

    name = "mosquitto"

    def __init__(
        self, users: Mapping[str, str] | None = None, acl: str | None = None, quiet: bool = False, inflight: int = 20
    ) -> None:
        super().__init__()
        self.uri = f"tcp://127.0.0.1:{self.port}"
        self.users = dict(users or {})
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'false' if users else 'true'}",
            f"user {getpass.getuser()}",  # else it gives up root and cannot write here
            f"persistence {'false' if quiet else 'true'}",
            f"persistence_location {self.dir}/",
            "autosave_interval 1",
            "max_queued_messages 0",
            f"max_inflight_messages {inflight}",
            f"log_type {'error' if quiet else 'all'}",
            f"set_tcp_nodelay {'true' if quiet else 'false'}",
            "log_timestamp_format %Y-%m-%d %H:%M:%S",
        ]
        if users:
            passwords = self.dir / "passwords"
            passwords.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
            subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
            lines.append(f"password_file {passwords}")
        if acl is not None:
            (self.dir / "acl").write_text(acl)
            lines.append(f"acl_file {self.dir}/acl")
        self.config_file = self.dir / "mosquitto.conf"
        self.config_file.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str | Path]:
        return [MOSQUITTO, "-c", self.config_file]

    def is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def client(
        self,
        client_id: str = "",
        user: str | None = None,
        keep_session: bool = False,
        on_message: mqtt.CallbackOnMessage | None = None,
        timeout: float = 90,
    ) -> mqtt.Client:
        """A connected client of MQTT 5 whose network loop runs in a thread. `keep_session` finds the session of the
        client id again, and leaves it at the broker."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
        client.max_inflight_messages_set(20)  # mosquitto takes no more, and paho does not ask
        client.on_message = on_message
        if user:
            client.username_pw_set(user, self.users[user])
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600 if keep_session else 0
        client.connect("127.0.0.1", self.port, clean_start=not keep_session, properties=properties)
        client.loop_start()
        wait_for(client.is_connected, timeout, "connection to mosquitto")
        return client

    def publish(
        self, messages: Iterable[tuple[str, bytes | str]], qos: int = 1, retain: bool = False, user: str | None = None
    ) -> None:
        """Publishes (topic, payload) pairs; returns when the broker has them all."""
        client = self.client(user=user)
        sent = [client.publish(topic, payload, qos, retain) for topic, payload in messages]
        for message in sent:
            message.wait_for_publish()
        if qos == 0:  # is not acknowledged; but this is, after what came before it
            acknowledged = threading.Event()
            client.on_subscribe = lambda *_: acknowledged.set()
            client.subscribe("nothing")
            acknowledged.wait(90)
        client.disconnect()
        client.loop_stop()

    def has_session(self, client_id: str) -> bool:
        """What the broker says to a client of that id, which takes the session over."""
        body = b"\0\4MQTT\4\0\0\x3c" + len(client_id).to_bytes(2) + client_id.encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"\x10" + bytes([len(body)]) + body)
            acknowledgement = connection.recv(4)
        assert acknowledgement[:2] == b"\x20\2" and acknowledgement[3] == 0
        return acknowledgement[2] == 1
