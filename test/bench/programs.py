"""The benchmark's C++ programs."""

import hashlib
import os
import subprocess
from pathlib import Path

from harness.postgres import pg_config

HERE = Path(__file__).parent
LIBRARIES = {
    "limit": ["simdjson", "rdkafka"],
    "generate": ["rdkafka"],
    "byhand": ["simdjson", "rdkafka", "pq"],
    "fresh": ["rdkafka", "pq"],
    "subscribe": ["paho-mqtt3as", "rdkafka"],
    "channels": ["microhttpd", "curl"],
}


def build() -> dict[str, Path]:
    """Compiles what has changed since it was last compiled; the paths by name."""
    sources = sorted([*HERE.glob("*.cpp"), *HERE.glob("*.h")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    to = Path(os.environ.get("STREAMEXT_DEPS", ".deps")).resolve() / "bench" / digest
    to.mkdir(parents=True, exist_ok=True)
    programs = {name: to / name for name in LIBRARIES}
    compilers = {
        path: subprocess.Popen(
            ["g++", "-std=c++17", "-O3", "-Wall", "-Wextra", f"-I{pg_config('includedir')}", "-o", f"{path}.{os.getpid()}",
             HERE / f"{name}.cpp", *(f"-l{library}" for library in LIBRARIES[name])]
        )
        for name, path in programs.items() if not path.exists()
    }  # fmt: skip
    for path, compiler in compilers.items():
        if compiler.wait():
            raise RuntimeError(f"{path.name}.cpp does not compile")
        Path(f"{path}.{os.getpid()}").rename(path)
    return programs
