"""Links in shares, as on a cluster: each host is asked by one task, and what comes of it is what one process gets."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from stages.collect import shares, urls
from stages.collect.addresses import resolve
from stages.collect.answers import Link, Refused, web_url
from stages.collect.found import Found
from stages.collect.params import Urls
from stages.collect.shares import Share, fetch_share, share_of, shares_worth, write_lists
from stages.collect.urls import read_urls
from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.pairs import Failure
from tests.collect.server import Server
from tests.collect.test_urls import table
from tests.collect.test_urls import urls as source_of

ADDRESSES = [f"127.0.0.{last}" for last in range(1, 7)]


@pytest.fixture
def webs(in_folder: Path) -> Iterator[list[Server]]:
    """Servers of as many hosts, each share has some; and a DVC project around the test."""
    (in_folder / ".dvc").mkdir()
    with ExitStack() as stack:
        yield [stack.enter_context(Server(address)) for address in ADDRESSES]


def source(**options: Any) -> Urls:
    return source_of(allow_hosts=ADDRESSES, concurrency=256, **options)


def in_shares(count: int, monkeypatch: pytest.MonkeyPatch, workers: int = 1, root: str = ".") -> None:
    """Have links fetched by so many tasks, by these processes, with the store of the project `root`."""
    assert {share_of(address, count) for address in ADDRESSES} == set(range(count))
    Path(root, ".dvc").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("DVC_ROOT", root)
    monkeypatch.setenv("DARKROOM_WORKERS", str(workers))
    monkeypatch.setattr(urls, "cluster_workers", lambda: count)


def told(found: list[Found | Failure]) -> list[str]:
    return ["ok" if isinstance(item, Found) else item.code for item in found]


def mixed(webs: list[Server]) -> list[str]:
    """Links to all hosts, some to others, some bad, some twice."""
    paths = [f"picture/{number}" for number in range(8)]
    links = [web.url(path) for path in [*paths, "missing", "flaky/1", "tagged/noai"] for web in webs]
    for web, other in zip(webs, [*webs[3:], *webs[:3]], strict=True):
        links += [web.url(f"to/{escaped(other.url('picture/9'))}"), web.url(f"to/{escaped(other.url('missing'))}")]
    return [*links, "", "file:///etc/passwd", "http://[::1", "http://localhost:1/x", *links[:20]]


def escaped(url: str) -> str:
    return url.replace("%", "%25").replace("/", "%2F")


def chain(hops: list[Server], path: str) -> str:
    """A link that is redirected from each server to the next, to a path on the last one."""
    url = hops[-1].url(path)
    for web in reversed(hops[:-1]):
        url = web.url(f"to/{escaped(url)}")
    return url


HOSTS = st.from_regex(r"([a-c]{1,2}\.){0,3}(org|co\.uk|b)|(1\.){3}[1-4]|\[::[1-4]\]|[A-C]\.Org\.?", fullmatch=True)


@given(hosts=st.lists(HOSTS | st.text(max_size=8), max_size=30), count=st.integers(1, 9))
def test_every_link_is_in_one_share_and_every_host_in_one(hosts: list[str], count: int) -> None:
    links = [Link(f"{number}", f"http://{host}:{number + 1}/{number}", 5) for number, host in enumerate(hosts)]
    with TemporaryDirectory() as folder:
        lists = write_lists(links, Path(folder), count)
        listed = {path: [json.loads(line) for line in path.read_text().splitlines()] for path in lists}
    assert {path: len(lines) for path, lines in listed.items()} == lists
    assert sorted(int(url) for lines in listed.values() for url, *_ in lines) == list(range(len(links)))
    homes: dict[str, set[int]] = {}
    for path, lines in listed.items():
        for _, at, _ in lines:
            try:
                homes.setdefault(web_url(at).host, set()).add(int(path.stem))
            except Refused:
                continue
    assert all(len(numbers) == 1 for numbers in homes.values())


@given(host=st.from_regex(r"[a-z]{1,5}\.[a-z]{2,3}", fullmatch=True), count=st.integers(1, 99))
def test_the_hosts_of_a_site_are_together(host: str, count: int) -> None:
    assert 0 <= share_of(host, count) < count
    assert {share_of(name, count) for name in (f"www.{host}", f"a.b.{host}", f"{host}.")} == {share_of(host, count)}


def test_sites_and_addresses_are_spread_evenly() -> None:
    for name in ("site{}.org", "10.0.0.{}", "2001:db8::{}"):
        counted = Counter(share_of(name.format(number), 4) for number in range(240))
        assert max(counted.values()) < 90
    assert [shares_worth(8, requests) for requests in (1, 32, 128, 1024)] == [1, 1, 2, 8]


def test_two_tasks_never_ask_one_host_and_get_what_one_process_gets(
    webs: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task says in its User-Agent which it is. After redirects to hosts of other shares, too."""
    table(mixed(webs))
    in_shares(1, monkeypatch, root="root1")
    expected = list(read_urls(source(), Path()))
    assert Counter(told(expected)) == {"ok": 80, "http_404": 12, "noai": 6, "empty_url": 1, "bad_scheme": 1} | {
        "bad_url": 1,
        "private_address": 1,
    }

    def telling(function: "partial[list[Path]]", tasks: list[Share], label: str) -> Iterator[list[Path]]:
        told, *others = function.args
        for task in tasks:
            one = told.model_copy(update={"contact": f"{task.number}@example.org"})
            yield from map_shards(partial(fetch_share, one, *others), [task], label)

    monkeypatch.setattr(shares, "map_shards", telling)
    for count in (2, 3):
        in_shares(count, monkeypatch, root=f"root{count}")
        for web in webs:
            web.asked.clear()
            web.agents.clear()
        assert list(read_urls(source(), Path())) == expected
        agents = [f"darkroom (+{share_of(web.address, count)}@example.org)" for web in webs]
        assert [web.agents for web in webs] == [{agent} for agent in agents]
        assert {web.asked["/picture/0"] for web in webs} == {1}


def test_tasks_at_the_same_time(webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """robots.txt is asked for once a task and host."""
    links = [web.url(f"slow-picture/{number}") for number in range(4) for web in webs]
    table(links)
    in_shares(3, monkeypatch, workers=3)
    found = list(read_urls(source(per_host=1), Path()))
    assert [item.url for item in found if isinstance(item, Found)] == links
    assert [web.asked["/robots.txt"] for web in webs] == [1] * len(webs)
    assert [web.busiest for web in webs] == [1] * len(webs)


def test_redirects_between_shares_are_counted_as_one_chain(webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (next(web for web in webs if share_of(web.address, 2) == share) for share in (0, 1))
    hops = [one, two, one, one, two, two]
    table([chain(hops[:length], f"picture/{length}") for length in range(1, 7)] + [chain(hops, "to/x:y")])
    for redirects in (0, 2, 5):
        codes = []
        for count in (1, 2):
            in_shares(count, monkeypatch, root=f"root{count}")
            codes.append(told(list(read_urls(source(redirects=redirects), Path()))))
        assert codes[0] == codes[1]
        assert codes[0].count("ok") == redirects + 1
        assert codes[0][-1] == ("bad_scheme" if redirects == 5 else "too_many_redirects")


def test_another_number_of_tasks_finds_what_there_is(webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for count, last in ((2, 10), (3, 20), (1, 30), (2, 30)):
        links = [web.url(f"picture/{number}") for number in range(last) for web in webs]
        table([*links, webs[0].url("broken")])
        in_shares(count, monkeypatch)
        found.append(list(read_urls(source(retries=0), Path())))
        assert webs[0].asked["/broken"] == len(found)  # it may pass, and nothing else is asked again
        assert {web.asked[f"/picture/{number}"] for web in webs for number in range(last)} == {1}
    assert told(found[-1]) == ["ok"] * 180 + ["http_500"]
    assert found[-1] == found[-2]
    assert not list(Path(".dvc").rglob("shares"))


def test_machines_see_no_scratch_of_the_driver(webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """What tasks read and write lies in the project, the index on the driver's own disk; a later run finds both."""
    table(web.url(f"picture/{number}") for number in range(3) for web in webs)
    monkeypatch.setenv("DARKROOM_SCRATCH", "disk")
    in_shares(2, monkeypatch)
    found = list(read_urls(source(), Path()))
    assert {path.suffix for path in Path(".dvc").rglob("*.*") if path.is_file()} == {".contents"}
    assert {path.suffix for path in Path("disk").rglob("*.*") if path.is_file()} == {".sqlite"}
    in_shares(1, monkeypatch)
    assert list(read_urls(source(), Path())) == found
    assert {web.asked["/picture/1"] for web in webs} == {1}


@pytest.mark.parametrize(("exchange", "processes"), [("", 2), ("s3://bucket", 1)])
def test_machines_that_share_no_file_are_not_asked(
    webs: list[Server], monkeypatch: pytest.MonkeyPatch, exchange: str, processes: int
) -> None:
    table(web.url("picture/1") for web in webs)
    monkeypatch.setenv("DARKROOM_EXCHANGE", exchange)
    in_shares(2, monkeypatch)
    assert told(list(read_urls(source(), Path()))) == ["ok"] * len(webs)
    assert len(list(Path(".dvc").rglob("*.contents"))) == processes


def test_what_a_stopped_run_had_found_is_kept(webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is gone after the first of three tasks, and one process goes on."""
    table(mixed(webs))

    def stopped(function: Callable[[Share], list[Path]], tasks: list[Share], label: str) -> Iterator[list[Path]]:
        yield from map_shards(function, tasks[:1], label)
        raise KeyboardInterrupt

    in_shares(3, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(shares, "map_shards", stopped)
        with pytest.raises(KeyboardInterrupt):
            list(read_urls(source(), Path()))
    assert {web.asked["/picture/1"] for web in webs} == {0, 1}
    monkeypatch.setattr(urls, "cluster_workers", lambda: 1)
    found = list(read_urls(source(), Path()))
    assert {web.asked["/picture/1"] for web in webs} == {1}
    in_shares(2, monkeypatch, root="another")
    assert found == list(read_urls(source(), Path()))


def test_who_takes_over_asks_only_for_what_is_left(webs: list[Server]) -> None:
    """A journal ends in the middle of a line where a machine was lost."""
    links = [Link(url, url, 5) for url in (webs[0].url(f"picture/{number}") for number in range(20))]
    number = share_of(webs[0].address, 2)
    (path,) = write_lists(links, Path(), 2)
    work = partial(fetch_share, source(), Path(), resolve)
    work(Share(path, number, 2, 64))
    (journal,) = Path().glob("*.answers")
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 20
    journal.write_text("".join(lines[:12]) + lines[12][:30])
    webs[0].asked.clear()
    work(Share(path, number, 2, 64))
    assert set(webs[0].asked) == {"/robots.txt", *(web_url(json.loads(line)[0]).path for line in lines[12:])}
    assert len(list(Path().glob("*.answers"))) == 2


def test_a_machine_that_does_not_see_the_lists(in_folder: Path) -> None:
    with pytest.raises(StageError, match=r"^0\.links: isn't seen on .+; let \.dvc/tmp lie on the file system"):
        fetch_share(source(), in_folder, resolve, Share(Path("0.links"), 0, 2, 64))


class Watched(Progress):
    """Remembers how far it was."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self.seen: set[float] = set()

    def update(self, task_id: Any, **fields: Any) -> None:
        self.seen.add(fields.get("completed", 0))
        super().update(task_id, **fields)


def test_the_driver_shows_how_far_the_tasks_are(webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    links = [web.url(f"slow-picture/{number}") for number in range(4) for web in webs]
    table(links)
    bars: list[Watched] = []

    def progress() -> Watched:
        bars.append(Watched())
        return bars[-1]

    monkeypatch.setattr(shares, "progress", progress)
    monkeypatch.setattr(shares, "LOOK", 0.005)
    in_shares(2, monkeypatch)
    list(read_urls(source(per_host=1), Path()))
    assert [bar.tasks[0].description for bar in bars] == ["links: lists", "links: links", "links: lists"]
    assert bars[1].tasks[0].total == len(links)
    assert len(bars[1].seen) > 2
    assert max(bars[1].seen) <= len(links)
