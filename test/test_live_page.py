"""The live page in a real browser, and what else the gateway answers by itself: /healthz and /metrics."""

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness.browser import CHROMIUM, Browser
from harness.database import Database
from harness.http import Web
from harness.server import free_port
from harness.streams import continuous
from harness.wait import wait_for

# STREAMEXT_PICTURES=docs: where pictures of the page are put
PICTURES = os.environ.get("STREAMEXT_PICTURES")

PLANT = """SELECT device, streamext.tumble('10 s', ts) AS window_start, count(*) AS n, round(avg(temperature)::numeric, 2)::float8 AS mean,
    max(temperature) AS peak FROM sensors GROUP BY device, window_start"""


@pytest.fixture
def web(db: Database) -> Web:
    """The stream sensors and the views plant (windows) and total (by device); ingest may read these and the stream, nobody nothing."""
    server = Web(db)
    db.execute("CREATE SERVER IF NOT EXISTS local_server FOREIGN DATA WRAPPER local")
    db.execute("CREATE FOREIGN TABLE sensors (device text, temperature float8, ts timestamptz) SERVER local_server OPTIONS (event_time 'ts')")
    continuous(db, "plant", PLANT, ", streamext.emit_interval = '50 ms'")
    continuous(db, "total", "SELECT device, count(*) AS n, max(temperature) AS peak FROM sensors GROUP BY device", ", streamext.emit_interval = '50 ms'")
    db.execute("GRANT SELECT ON sensors, plant, total TO ingest")
    server.wait("listening")
    return server


def send(web: Web, windows: int, devices: int = 5, first: int = 0) -> None:
    web.db.execute(
        """INSERT INTO sensors SELECT 'press ' || d, 60 + 8 * sin((w + d * 3) / 4.0) + d + i, '2026-03-01 10:00:00+00'::timestamptz + w * interval '10 s'
        FROM generate_series(1, %s) AS d, generate_series(%s::int, %s::int) AS w, generate_series(0, 2) AS i""",
        devices, first, first + windows - 1,
    )  # fmt: skip
    web.db.flush("sensors")


def test_healthz(web: Web) -> None:
    answer = web.request("GET", "/healthz", token=None)
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert web.request("POST", "/healthz", "x").status == 405
    assert "GET" in web.request("POST", "/metrics", "x").headers["allow"]


def test_metrics(web: Web) -> None:
    send(web, 2)
    assert web.request("GET", "/metrics", token=None).status == 401
    answer = web.request("GET", "/metrics")
    assert answer.status == 200 and answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.body.decode()
    database = web.db.value("SELECT current_database()")
    assert f'streamext_view_accepted_total{{database="{database}",view="public.total"}} 30\n' in text and "# EOF" not in text
    open_metrics = web.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert open_metrics.body.decode().endswith("# EOF\n") and "# TYPE streamext_view_accepted counter" in open_metrics.body.decode()
    text_first = web.request("GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4,application/openmetrics-text;q=0.5,*/*;q=0.1"})
    assert text_first.headers["content-type"].startswith("text/plain; version=0.0.4")
    nobody = web.request("GET", "/metrics", token="nobody-token")
    assert nobody.status == 200 and b"public." not in nobody.body
    assert b"token" not in answer.body


def test_the_page_is_the_same_for_all(web: Web) -> None:
    page = web.request("GET", "/", token=None)
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.body == web.request("GET", "/").body
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe" not in policy and "connect-src 'self'" in policy
    assert web.request("POST", "/", "{}").status == 404 or web.request("POST", "/", "{}").headers["allow"] == "GET"


@pytest.fixture
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium")
    browser = Browser()
    yield browser
    browser.close()


def log_in(browser: Browser, token: str) -> None:
    browser.wait("document.activeElement.id === 'token'")
    browser.value("document.activeElement.select()")
    browser.type(token)
    browser.press("Enter", 13, "\r")


def cells(browser: Browser) -> list[list[str]]:
    script = "[...document.querySelectorAll('#rows tbody tr')].map(line => [...line.cells].slice(0, -1).map(cell => cell.textContent))"
    return list(browser.value(script))


def total(web: Web) -> list[list[str]]:
    return [list(row) for row in web.db.rows("SELECT device, n::text, trunc(peak)::text FROM total ORDER BY device")]


def shown(browser: Browser) -> list[list[str]]:
    return [[device, n.replace(",", ""), peak.split(".")[0]] for device, n, peak in cells(browser)]


def test_a_view_changes_before_ones_eyes(web: Web, browser: Browser) -> None:
    send(web, 3)
    browser.size(1280, 900)
    browser.go(f"http://127.0.0.1:{web.port}/#%ff")  # a link that names no view
    browser.wait("document.getElementById('status').textContent === 'Enter a token.'")
    assert browser.value("document.querySelectorAll('aside tbody tr').length") == 0
    log_in(browser, "wrong")
    browser.wait("document.getElementById('status').textContent === 'This token is not valid.'")
    log_in(browser, "nobody-token")
    browser.wait("document.getElementById('status').textContent.includes('no view')")
    assert browser.value("document.querySelectorAll('aside tbody tr').length") == 0
    browser.value("document.getElementById('token').focus()")
    log_in(browser, "ingest-token")
    browser.wait("document.querySelectorAll('#views tbody tr').length === 2 && document.querySelectorAll('#streams tbody tr').length === 1")
    assert "public.sensors" in browser.text("#streams") and "running" in browser.text("#streams")
    browser.wait("document.getElementById('status').textContent === 'Connected.'")
    browser.value("[...document.querySelectorAll('#views button')].find(button => button.textContent === 'public.total').focus()")
    browser.press("Enter", 13, "\r")
    wait_for(lambda: shown(browser) == total(web), what="the rows of total")
    browser.value("window.same = document.querySelector('#rows tbody tr'); window.loaded = true")
    send(web, 2, first=3)
    wait_for(lambda: shown(browser) == total(web), what="the rows of total, changed")
    assert browser.value("window.same === document.querySelector('#rows tbody tr') && window.loaded")
    browser.wait("document.querySelectorAll('#rows .spark polyline').length === 5 && document.querySelectorAll('#chart polyline').length === 5")

    # nothing of the page stands in the way of who does not see it, or has no mouse
    assert browser.value("[...document.querySelectorAll('input, select')].every(field => field.labels.length === 1)")
    assert browser.value("[...document.querySelectorAll('svg')].every(svg => svg.getAttribute('role') === 'img' && svg.getAttribute('aria-label'))")
    assert browser.value("[...document.querySelectorAll('#rows thead th button')].length") == 3
    browser.value("document.querySelector('#rows thead th[data-column=n] button').click()")
    assert browser.value("document.querySelector('#rows thead th[data-column=n]').getAttribute('aria-sort')") == "ascending"
    browser.value("document.activeElement.blur()")
    browser.press("/", 191, "/")
    assert browser.value("document.activeElement.id") == "filter"
    browser.type("press 3")
    wait_for(lambda: [row[0] for row in cells(browser)] == ["press 3"])

    # the token is in no address, and nothing was asked of anybody else
    assert browser.requests and all(url.startswith((f"http://127.0.0.1:{web.port}/", "about:")) and "token" not in url for url in browser.requests)
    assert browser.troubles == []


def test_the_server_is_started_again(web: Web, browser: Browser) -> None:
    send(web, 2)
    browser.go(f"http://127.0.0.1:{web.port}/#public.total")
    log_in(browser, "ingest-token")
    wait_for(lambda: shown(browser) == total(web), what="the rows of total")
    browser.value("window.loaded = true")
    web.db.server.restart()
    web.db.connection = web.db.connect()
    send(web, 2, devices=7, first=2)
    wait_for(lambda: shown(browser) == total(web), what="the rows of total after the restart")
    assert browser.value("window.loaded") is True
    web.db.execute("DROP USER MAPPING FOR ingest SERVER web")
    browser.wait("document.getElementById('status').textContent.startsWith('This token is not valid')")
    assert browser.value("document.getElementById('shown').hidden") is True


def test_windows_on_a_phone(web: Web, browser: Browser) -> None:
    web.db.execute("SELECT streamext.set_clock('2026-03-01 10:10:00+00')")
    web.db.execute("ALTER SERVER web OPTIONS (ADD anonymous_role 'ingest')")
    send(web, 40)
    send(web, 3, first=40)
    wait_for(lambda: web.request("GET", "/views/public.plant?limit=1", token=None).status == 200)
    browser.size(390, 844, phone=True)
    browser.dark(True)
    browser.go(f"http://127.0.0.1:{web.port}/#public.plant")
    browser.wait("document.querySelectorAll('#rows tbody tr').length === 215 && document.querySelectorAll('#map .cell').length > 200")
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    picture(browser, "live-phone.png")
    browser.size(1280, 900)
    browser.dark(False)
    wait_for(lambda: send(web, 1, first=43) or browser.value("document.querySelectorAll('#chart polyline').length === 5"))
    picture(browser, "live.png")
    continuous(web.db, '"Odd ""one"".x"', "SELECT device, '<img src=x onerror=window.hacked=1>'::text AS \"<b>\", max(temperature) AS v FROM sensors GROUP BY device")
    web.db.execute('GRANT SELECT ON "Odd ""one"".x" TO ingest')
    send(web, 1, first=44)
    odd = 'public."Odd ""one"".x"'
    browser.value(f"location.hash = encodeURIComponent({odd!r})")
    browser.wait("document.querySelectorAll('#rows tbody tr').length === 5 && document.querySelector('#rows thead').textContent.includes('<b>')")
    assert "<img" in browser.text("#rows tbody") and browser.value("window.hacked") is None
    assert browser.troubles == []
    web.db.execute("SELECT streamext.set_clock(NULL)")


def picture(browser: Browser, name: str) -> None:
    if PICTURES:
        browser.picture(Path(PICTURES) / name)


def test_another_port_is_another_origin(web: Web) -> None:
    """The gateway says nothing to pages of others."""
    answer = web.request("GET", "/views/public.total", headers={"Origin": f"http://127.0.0.1:{free_port()}"})
    assert answer.status == 200 and not any(name.startswith("access-control") for name in answer.headers)
    preflight: Any = web.request("OPTIONS", "/views/public.total", token=None, headers={"Origin": "http://elsewhere"})
    assert preflight.status in (401, 405)


def test_what_is_not_there(web: Web, browser: Browser) -> None:
    """Views without rows, without keys, of another name, and with large numbers say so, or fit."""
    web.db.execute("ALTER SERVER web OPTIONS (ADD anonymous_role 'ingest')")
    continuous(web.db, "empty", "SELECT device, count(*) AS n FROM sensors GROUP BY device HAVING count(*) > 1000000")
    continuous(web.db, "keyless", "SELECT count(*) AS n FROM sensors GROUP BY device")
    continuous(web.db, "large", "SELECT device, sum(temperature * 1e12) AS a_long_name_for_the_energy_of_all_machines, count(*) AS n FROM sensors GROUP BY device")
    web.db.execute("GRANT SELECT ON empty, keyless, large TO ingest")
    send(web, 2)
    wait_for(lambda: web.request("GET", "/views/public.large?limit=1", token=None).status == 200)
    browser.size(390, 844, phone=True)
    browser.go(f"http://127.0.0.1:{web.port}/#public.nothing")
    browser.wait("document.getElementById('none').textContent === 'There is no view public.nothing that this role may read.'")
    assert browser.value("[...document.querySelectorAll('#views tbody th')].map(cell => cell.textContent)") == [
        "public.empty", "public.keyless", "public.large", "public.plant", "public.total"
    ]  # fmt: skip
    browser.value("location.hash = 'public.empty'")
    browser.wait("document.getElementById('count').textContent === 'The view has no rows now.'")
    assert browser.value("document.getElementById('column-label').hidden && document.title.startsWith('public.empty')")
    browser.value("location.hash = 'public.keyless'")
    browser.wait("document.getElementById('live').textContent.includes('not available')")
    assert "GROUP BY" in browser.text("#hint") or "groups by" in browser.text("#hint")
    browser.value("location.hash = 'public.large'")
    browser.wait("document.querySelectorAll('#rows tbody tr').length === 5")
    wait_for(lambda: send(web, 1, first=2) or browser.value("document.querySelectorAll('#chart polyline').length === 5"))
    assert browser.value("[...document.querySelectorAll('#chart text')].every(text => text.getBBox().x >= 0)")
    assert browser.value("scrollY > 0 && document.documentElement.scrollWidth <= innerWidth && document.getElementById('column').getBoundingClientRect().right <= innerWidth")
    assert browser.troubles == []


def test_the_document_s_page(web: Web, browser: Browser) -> None:
    """What docs/delivery.md has for a page of one's own has the view, and goes on from `last`."""
    document = (Path(__file__).parents[1] / "docs/delivery.md").read_text()
    code = document[document.index("    const answer = await fetch(") : document.index("The gateway serves no pages of others")]
    code = code.replace("public.device_minute", "public.total")
    assert "answer.body" in code
    send(web, 2)
    browser.go(f"http://127.0.0.1:{web.port}/healthz")
    browser.value(f"window.page = async (token, last) => {{ {code.replace('rows = new Map();', 'rows = window.rows = new Map();')} }}; void window.page('ingest-token')")

    def same() -> bool:
        rows = browser.value("[...(window.rows || [])].map(([key, row]) => [row.device, row.n])")
        return sorted(map(tuple, rows)) == web.db.rows("SELECT device, n FROM total ORDER BY device")

    wait_for(same, what="the view in the page")
    send(web, 1, devices=7, first=2)
    wait_for(same, what="the view in the page, changed")


def test_the_document_s_panel(web: Web) -> None:
    """What docs/delivery.md has for Grafana, as its data sources ask: the filter is BETWEEN two times in UTC; a time, a name and a number come back, and by HTTP the same."""
    document = (Path(__file__).parents[1] / "docs/delivery.md").read_text()
    recipe = document[document.index("**Grafana.**") : document.index("**A chat.**")]
    query = re.findall(r"^    (SELECT .*)$", recipe, re.MULTILINE)[0].replace("device_minute", "plant")
    query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN '2026-03-01T10:00:10Z' AND '2026-03-01T10:00:30Z'", query)
    (path,) = re.findall(r"`http://127.0.0.1:8088(/views/[^`]*)`", recipe)
    send(web, 5)
    web.db.execute("SET ROLE ingest")
    found = web.db.connection.execute(query)
    assert [(column.name, column.type_display) for column in found.description or []] == [("time", "timestamptz"), ("metric", "text"), ("value", "float8")]
    rows = found.fetchall()
    assert len(rows) == 3 * 5 and rows == sorted(rows, key=lambda row: row[0])
    answer = web.request("GET", path.replace("device_minute", "plant"))
    assert answer.status == 200 and answer.headers["content-type"].startswith("application/json")
    told = {(datetime.fromisoformat(row["window_start"]), row["device"], row["mean"]) for row in json.loads(answer.body)}
    assert len(told) == 5 * 5 and set(rows) < told
    assert web.request("GET", path.replace("device_minute", "plant"), token=None).status == 401
    web.db.execute("RESET ROLE")
