"""Tables of links, against a server that misbehaves in every way it can: asked for = pairs + failures."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.collect.addresses import CheckedBackend, is_public
from stages.collect.answers import Refused, forbids, is_picture, retry_after, web_url
from stages.collect.found import Found
from stages.collect.params import CollectParams, Urls
from stages.collect.run import main
from stages.collect.streams import Stream
from stages.collect.urls import read_urls
from stages.core.errors import StageError
from stages.core.files import folder_digest
from stages.core.pairs import Pair
from tests.collect.reading import read
from tests.collect.server import PICTURE, SecureServer, Server
from tests.conftest import ROOT
from tests.pictures import drawing, encoded

IMPATIENT = {"timeout": 0.7, "retries": 2, "backoff": 0.02, "longest_wait": 2.0, "most_bytes": 2**20}


@pytest.fixture
def web(in_folder: Path) -> Iterator[Server]:
    """A server, and a DVC project around the test."""
    (in_folder / ".dvc").mkdir()
    with Server() as server:
        yield server


def urls(**options: Any) -> Urls:
    knobs = {"allow_hosts": ["127.0.0.1"], **IMPATIENT, **options}
    return Urls.model_validate({"kind": "urls", "name": "links", "contact": "me@example.org", **knobs})


def table(links: Iterable[str], folder: Path = Path("links")) -> None:
    folder.mkdir(exist_ok=True)
    rows = [{"URL": link, "TEXT": f"caption {number}", "punsafe": 0.5} for number, link in enumerate(links)]
    pd.DataFrame(rows).to_csv(folder / "t.csv", index=False)


def outcomes(links: Iterable[str], **options: Any) -> dict[str, str]:
    """What came of each link: ok or a code."""
    links = list(links)
    table(links)
    pairs, failures = read(urls(**options), Path())
    codes = {**dict.fromkeys(pairs, "ok"), **failures}
    return {link: codes[f"t.csv:{number}"] for number, link in enumerate(links)}


def outcome(link: str, **options: Any) -> str:
    return outcomes([link], **options)[link]


def test_every_misbehaviour_is_a_row_or_a_code(web: Server) -> None:
    expected = {
        "picture/1": "ok",
        "wrong-type": "ok",
        "flaky/1": "ok",
        "gzipped": "ok",
        "to/%2Fpicture%2F2": "ok",
        "html": "not_a_picture",
        "empty": "empty_file",
        "missing": "http_404",
        "broken": "http_500",
        "drip": "timeout",
        "huge": "too_large",
        "endless": "too_large",
        "bomb": "too_large",
        "brotli": "bad_encoding",
        "half": "connection_failed",
        "dropped": "connection_failed",
        "gibberish": "connection_failed",
        "loop": "too_many_redirects",
        "to/file:%2F%2F%2Fetc%2Fpasswd": "bad_scheme",
        f"to/http:%2F%2Flocalhost:{web.port}%2Fpicture%2F3": "private_address",
        "to/http:%2F%2F169.254.169.254%2F": "private_address",
        "to/http:%2F%2Fme:secret@127.0.0.1%2F": "bad_url",
        "tagged/noai": "noai",
    }
    found = outcomes([web.url(path) for path in expected], concurrency=8, per_host=8)
    assert {link.partition(f":{web.port}/")[2]: code for link, code in found.items()} == expected
    assert web.agents == {"darkroom (+me@example.org)"}


def test_what_may_pass_is_asked_again_at_once_and_what_is_final_is_not(web: Server) -> None:
    found = outcomes(map(web.url, ["flaky/1", "broken", "missing", "half"]))
    assert list(found.values()) == ["ok", "http_500", "http_404", "connection_failed"]
    assert [web.asked[f"/{path}"] for path in ("flaky/1", "broken", "missing", "half")] == [3, 3, 1, 3]


def test_a_server_that_asks_for_time_gets_it(web: Server) -> None:
    began = time.monotonic()
    assert outcome(web.url("busy/1")) == "ok"
    assert time.monotonic() - began >= 1
    assert outcomes(map(web.url, ["busy/99", "away-until/99"])) == {
        web.url("busy/99"): "http_429",
        web.url("away-until/99"): "http_503",
    }
    assert (web.asked["/busy/1"], web.asked["/busy/99"], web.asked["/away-until/99"]) == (2, 1, 1)


def test_links_that_nobody_should_follow(web: Server) -> None:
    links = {
        "": "empty_url",
        "file:///etc/passwd": "bad_scheme",
        "ftp://example.org/a.png": "bad_scheme",
        "/picture/1": "bad_scheme",
        "http://": "bad_url",
        "http://me:secret@example.org/a.png": "bad_url",
        "http://example.org:99999/": "bad_url",
        "http://[::1": "bad_url",
        f"http://localhost:{web.port}/picture/1": "private_address",
        f"http://2130706433:{web.port}/picture/1": "private_address",
        f"http://[::ffff:127.0.0.1]:{web.port}/picture/1": "private_address",
        f"http://0:{web.port}/picture/1": "private_address",
        "http://10.0.0.1/": "private_address",
        "http://nothing.invalid/": "dns_failure",
    }
    assert outcomes(links) == links
    assert not web.asked


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("::7f00:1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::808:808", False),
        ("2001:0:808:808::1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """DNS rebinding: public when it is looked at, private when it is used."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "10.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    async def connect(address: str, port: int) -> Stream:
        reached.append(address)
        raise ConnectionRefusedError

    reached: list[str] = []
    backend = CheckedBackend([], rebinding, connect)
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(backend.connect_tcp("evil.example", 80))
    for _ in range(2):
        with pytest.raises(Refused, match="private_address"):
            asyncio.run(backend.connect_tcp("evil.example", 80))
    assert reached == ["93.184.216.34"]  # never the name, which would be looked up once more


def test_the_checked_address_is_used_and_the_name_is_kept(web: Server) -> None:
    async def at_home(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host.endswith(".example") else []

    table([web.url("picture/1", "good.example"), web.url("picture/1", "bad.example"), web.url("x", "none.test")])
    found = list(read_urls(urls(allow_hosts=["good.example"]), Path(), at_home))
    assert [item.code if not isinstance(item, Found) else "ok" for item in found] == [
        "ok",
        "private_address",
        "dns_failure",
    ]
    assert web.hosts == {f"good.example:{web.port}"}


def test_http2_over_tls(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is checked, and TLS still asks for the name; a certificate that nobody vouches for is refused."""

    async def at_home(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    (in_folder / ".dvc").mkdir()
    with SecureServer("good.example", in_folder) as server:
        table([f"https://good.example:{server.port}/{number}" for number in range(20)])
        source = urls(allow_hosts=["good.example"], retries=0, per_host=2)
        refused = list(read_urls(source, Path(), at_home))
        assert {item.code for item in refused if not isinstance(item, Found)} == {"robots_unreachable"}
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        assert all(isinstance(item, Found) for item in read_urls(source, Path(), at_home))
        assert set(server.names) == {"good.example"}
        assert server.requests == 21
        assert server.connections == 1  # RFC 9113, 9.1: one to a host


def test_more_hosts_than_are_kept_connected(web: Server) -> None:
    async def at_home(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    hosts = [f"{letter}.example" for letter in "abcdefgh"]
    table([web.url(f"picture/{number}", host) for number in range(4) for host in hosts])
    found = list(read_urls(urls(allow_hosts=hosts, concurrency=1, per_host=1), Path(), at_home))
    assert [item.url for item in found if isinstance(item, Found)] == [
        web.url(f"picture/{number}", host) for number in range(4) for host in hosts
    ]
    assert web.asked["/robots.txt"] == 8


def test_proxies_of_the_environment_are_not_used(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert outcome(web.url("picture/1")) == "ok"


def test_robots_txt_is_asked_for_once_and_kept_to(web: Server) -> None:
    web.robots = (200, "User-agent: *\nDisallow: /picture/1\n\nUser-agent: darkroom\nDisallow: /picture/2\n")
    links = [web.url(path) for path in ("picture/1", "picture/2", "to/%2Fpicture%2F2", "picture/3")]
    assert list(outcomes(links).values()) == ["ok", "robots_disallowed", "robots_disallowed", "ok"]
    assert web.asked["/robots.txt"] == 1
    assert not web.asked["/picture/2"]
    assert set(outcomes(links, obey_robots=False).values()) == {"ok"}
    assert web.asked["/robots.txt"] == 1


@pytest.mark.parametrize(
    ("robots", "code"),
    [
        ((404, "User-agent: *\nDisallow: /"), "ok"),
        ((403, ""), "ok"),
        ((503, ""), "robots_unreachable"),
        ((429, ""), "robots_unreachable"),
        ((200, "#" * 600_000 + "\nUser-agent: *\nDisallow: /"), "ok"),
        ((200, "\0\xff<html>"), "ok"),
    ],
)
def test_robots_txt_that_is_missing_broken_or_long(web: Server, robots: tuple[int, str], code: str) -> None:
    """RFC 9309, 2.3.1.3 and 2.3.1.4, and 2.5 for the first 500 KiB."""
    web.robots = robots
    assert outcome(web.url("picture/1")) == code
    assert web.pictures_asked == (code == "ok")


def test_crawl_delay_and_the_rate_space_requests(web: Server) -> None:
    web.robots = (200, "User-agent: *\nCrawl-delay: 0.2\n")
    for options in ({}, {"obey_robots": False, "requests_per_second": 5.0}):
        began = time.monotonic()
        assert set(outcomes([web.url(f"picture/{number}") for number in range(4)], **options).values()) == {"ok"}
        assert time.monotonic() - began >= 0.6


def test_a_host_gets_no_more_requests_at_once_than_it_is_granted(web: Server) -> None:
    web.delay = 0.02
    outcomes([web.url(f"picture/{number}") for number in range(30)], per_host=3)
    assert web.busiest == 3
    outcomes([web.url(f"picture/{number}") for number in range(30, 60)], per_host=8, concurrency=2)
    assert web.busiest == 3


def test_waiting_for_a_turn_is_not_counted_as_the_hosts_time(web: Server) -> None:
    web.delay = 0.05
    found = outcomes([web.url(f"picture/{number}") for number in range(16)], per_host=1, timeout=0.3, retries=0)
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(
    ("tags", "directive"),
    [
        (["noai"], "noai"),
        (["NoImageAI, nofollow"], "noimageai"),
        (["nofollow, noindex"], "noindex"),
        (["none"], "noindex"),
        (["darkroom: noai"], "noai"),
        (["otherbot: noai, noindex"], ""),
        (["otherbot: nofollow", "noai"], "noai"),
        (["otherbot: noai, darkroom: nofollow, noindex"], "noindex"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], "noai"),
        (["max-snippet:5, noarchive"], ""),
        ([":", ",,", ""], ""),
        ([], ""),
    ],
)
def test_robots_tags(tags: list[str], directive: str) -> None:
    assert forbids(tags, ["noai", "noimageai", "noindex", "noimageindex"]) == directive


def test_robots_tags_that_are_not_honoured(web: Server) -> None:
    assert outcome(web.url("tagged/noindex"), noai=["noai"]) == "ok"
    assert outcome(web.url("tagged/noindex")) == "noai"


def test_retry_after() -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert retry_after("120", noon) == 120
    assert retry_after("Wed, 01 May 2024 12:00:30 GMT", noon) == 30
    assert retry_after("Wed, 01 May 2024 11:00:00 GMT", noon) == 0
    assert [retry_after(text, noon) for text in (None, "", "soon", "-1", "²")] == [0] * 5


def test_pictures_are_known_by_their_bytes() -> None:
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        assert is_picture(encoded(drawing(1), kind)[:64]), kind
    for other in (b"", b"BMW is a car, not a picture", b"<svg/>", b"RIFF1234WAVE", b"\0\0\0\x18ftypmp42\0\0\0\0isom"):
        assert not is_picture(other)


@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.text(alphabet="htps:/@[]%#?.1a\\\0\n é"))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    with suppress(Refused):
        url = web_url(text)
        assert url.scheme in ("http", "https")
        assert url.host


def test_a_second_run_asks_only_for_what_is_missing_or_may_have_passed(web: Server) -> None:
    links = [web.url(path) for path in ("picture/1", "missing", "broken", "picture/2", "html", "drip")]
    first = outcomes(links, retries=0)
    web.asked.clear()
    assert outcomes(links, retries=0) == first
    assert set(web.asked) == {"/robots.txt", "/broken", "/drip"}
    web.asked.clear()
    outcomes([*links[:2], web.url("picture/3")], contact="https://example.org/bot", concurrency=1)
    assert set(web.asked) == {"/robots.txt", "/picture/3"}
    for lost in Path(".dvc/tmp").rglob("*.contents"):
        lost.write_bytes(b"")
    web.asked.clear()
    assert outcomes(links[:2]) == dict(zip(links[:2], ["ok", "http_404"], strict=True))
    assert set(web.asked) == {"/robots.txt", "/picture/1"}


def test_another_policy_asks_anew(web: Server) -> None:
    web.robots = (200, "User-agent: *\nDisallow: /")
    link = web.url("picture/1")
    assert [outcome(link, obey_robots=obey) for obey in (False, True, False)] == ["ok", "robots_disallowed", "ok"]
    assert outcome(link, obey_robots=False, most_bytes=50) == "too_large"
    assert web.pictures_asked == 2


@pytest.mark.parametrize("concurrency", [1, 32])
def test_a_link_that_stands_twice_is_asked_once(web: Server, concurrency: int) -> None:
    """Side by side, while it is under way, and after it was answered: 600 rows are more than are read at once."""
    once = ["slow-picture/1", "broken", "missing", *(f"picture/{number}" for number in range(2, 22))]
    paths = [*once, *["picture/2"] * 600, *once]
    table(map(web.url, paths))
    pairs, failures = read(urls(retries=0, concurrency=concurrency), Path())
    assert len(pairs) == 642
    assert set(failures.values()) == {"http_500", "http_404"}
    assert len(failures) == 4
    assert set(web.asked.values()) == {1}


def test_a_link_that_is_answered_while_later_rows_are_looked_at_is_asked_once(web: Server) -> None:
    """It is under way when the rows of its second place are looked up, and answered when their turn comes."""
    first = [web.url("slow-picture/1"), *(f"file:///{number}" for number in range(499))]  # what is read at once
    web.delay = 0.02
    table([*first, *(web.url(f"picture/{number}") for number in range(2, 62)), first[0]])
    pairs, _ = read(urls(concurrency=2, per_host=2), Path())
    assert len(pairs) == 62
    assert set(web.asked.values()) == {1}


def bytes_of(out: str, **options: Any) -> str:
    params = CollectParams.model_validate({"sources": [urls(**options).model_dump()]})
    main(params, Path(), Path(out), Path(f"{out}.json"))
    return folder_digest(Path(out)) + Path(f"{out}.json").read_text()


def test_bytes_know_nothing_of_concurrency_or_who_answers_first(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    table([web.url(f"{'slow-' * (number % 7 == 0)}picture/{number}") for number in range(30)] + [web.url("missing")])
    made = []
    for concurrency in (1, 16):
        Path(f"root{concurrency}/.dvc").mkdir(parents=True)  # nothing is known there yet
        monkeypatch.setenv("DVC_ROOT", f"root{concurrency}")
        made.append(bytes_of(f"raw{concurrency}", concurrency=concurrency, per_host=16))
    monkeypatch.setenv("DVC_ROOT", "root1")
    made.append(bytes_of("again"))
    assert made[0] == made[1] == made[2]
    assert web.asked["/picture/1"] == 2


def test_killed_at_random_moments_and_then_finished_gives_the_bytes_of_one_go(web: Server) -> None:
    table([web.url(f"picture/{number}") for number in range(90)] + [web.url("missing"), web.url("html")])
    source = urls(concurrency=4).model_dump()
    Path("params.yaml").write_text(yaml.safe_dump({"collect": {"sources": [source]}}))
    command = [sys.executable, "-m", "stages.collect.run", "--sources", ".", "--out", "raw", "--metrics", "m.json"]
    web.delay = 0.06
    moments = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        enough = web.pictures_asked + moments.randint(30, 42)
        while process.poll() is None and web.pictures_asked < enough:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not Path("raw").exists()
    asked, web.delay = web.pictures_asked, 0.0
    killed = bytes_of("raw", concurrency=4)
    assert web.pictures_asked < asked + 92  # not all of them once more
    Path("whole/.dvc").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", "whole")
        assert bytes_of("whole/raw").split("{", 1) == killed.split("{", 1)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize(("url", "text"), [("URL", "TEXT"), ("image_url", "Caption")])
def test_tables(web: Server, kind: str, url: str, text: str) -> None:
    rows = [
        {url: web.url("picture/1"), text: 'one, "two"\nthree', "license": "CC0", "punsafe": 0.25},
        {url: web.url("missing"), text: None, "license": None, "punsafe": None},
        {url: None, text: "x", "license": None, "punsafe": None},
    ]
    frame = pd.DataFrame(rows)
    path = Path("some.CSV" if kind == "csv" else f"some.{kind}")  # a table by itself, in any case
    match kind:
        case "csv":
            frame.to_csv(path, index=False, encoding="utf-8-sig")
        case "tsv":
            frame.to_csv(path, index=False, sep="\t")
        case "jsonl":
            frame.to_json(path, orient="records", lines=True)
        case "parquet":
            frame.to_parquet(path)
    pairs, failures = read(urls(path=path.name), Path())
    pair = pairs[f"{path}:0"]
    assert (pair.captions, pair.url, pair.license) == (['one, "two"\nthree'], web.url("picture/1"), "CC0")
    assert float(json.loads(pair.extra)["punsafe"]) == 0.25
    assert json.loads(pair.extra).keys() == {"license", "punsafe"}
    assert failures == {f"{path}:1": "http_404", f"{path}:2": "empty_url"}


def test_tables_that_are_broken_or_lack_columns(web: Server) -> None:
    folder = Path("links")
    with pytest.raises(StageError, match="is missing; put the tables there"):
        urls().verify(Path())
    folder.mkdir()
    with pytest.raises(StageError, match=r"has no tables \(.csv, .tsv, .jsonl, .parquet\)"):
        urls().verify(Path())
    (folder / "a.jsonl").write_text(f'{{"url": "{web.url("picture/1")}", "words": ["a", "b"]}}\nno JSON\n[1]\n')
    (folder / "b.parquet").write_bytes(b"PAR1 and no more")
    (folder / "c.csv").write_text(f"url,words\n{web.url('missing')}\n{web.url('picture/2')},w,more,fields\n")
    (folder / "d.csv").symlink_to("/etc/passwd")
    (folder / "notes.txt").write_text("no table")
    pairs, failures = read(urls(caption_column="WORDS"), Path())
    assert {path: pair.captions for path, pair in pairs.items()} == {"a.jsonl:0": ["a", "b"], "c.csv:1": ["w"]}
    assert failures == {
        "a.jsonl:1": "bad_row",
        "a.jsonl:2": "bad_row",
        "b.parquet": "unreadable_table",
        "c.csv:0": "http_404",
        "d.csv": "outside_folder",
    }
    assert not read(urls(caption_column=None), Path())[0]["a.jsonl:0"].captions
    asked = web.asked.total()
    for knobs, said in (({"url_column": "link"}, r"no URL column \(link\)"), ({}, r"no caption column \(text or")):
        with pytest.raises(StageError, match=said):
            read(urls(**knobs), Path())
    assert web.asked.total() == asked
    with pytest.raises(StageError, match="is not below"):
        read(urls(path="../x.csv"), Path())


def test_failures_tell_the_link_and_the_reason(web: Server) -> None:
    table([web.url("tagged/none"), web.url("missing")])
    failures = list(read_urls(urls(), Path()))
    assert [(each.code, each.detail) for each in failures if not isinstance(each, Found)] == [
        ("noai", f"{web.url('tagged/none')} (noindex)"),
        ("http_404", web.url("missing")),
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.lists(st.sampled_from(["picture/1", "picture/2", "html", "missing", "half", "flaky/9", "to/x:y"])))
def test_asked_for_is_pairs_plus_failures(web: Server, paths: list[str]) -> None:
    table([web.url(path) for path in ["picture/0", *paths]])
    pairs, failures = read(urls(retries=0), Path())
    assert len(pairs) + len(failures) == len(paths) + 1
    assert all(isinstance(pair, Pair) and pair.data for pair in pairs.values())


def test_the_contact_must_be_one() -> None:
    for contact in ("", "nobody", "me@example.org\r\nX: y"):
        with pytest.raises(ValueError, match="pattern"):
            urls(contact=contact)
    assert PICTURE.startswith(b"\x89PNG")
