"""Places by URL: which are taken, and what each library is told of the store."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from pipelines import places
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError

_ELSEWHERE = "http://store:9000"


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/lake",
        "s3://bucket/lake?versionId=1",
        "s3://bucket/a b",
        "s3://bucket/a%20b",
        "s3://bucket/a//b",
        "s3://bucket/..",
        "s3://bucket/a/../b",
        "s3://bucket/./a",
        "s3://Bucket/lake",
        "s3://",
        "gs://bucket/lake",
        "file:///lake",
        "s3://bucket/a\n",
        "s3:/bucket/lake",
        "file:/lake",
    ],
)
@pytest.mark.parametrize("name", ["LAKE", "LANDING", "REPORTS", "MODELS"])
def test_what_is_no_url_of_a_store_is_refused_with_the_way_out(name: str, url: str) -> None:
    with pytest.raises(UsageError, match=rf"NIGHTSHIFT_{name}.* is not .*s3://bucket/folder"):
        Environment.read({f"NIGHTSHIFT_{name}": url})


@pytest.mark.parametrize("url", ["s3://key:hunter2@bucket/home", "s3:/bucket/home", "file:/home"])
def test_a_home_by_url_is_refused_and_no_folder_below_the_working_one(url: str) -> None:
    with pytest.raises(UsageError, match="NIGHTSHIFT_HOME.* is not a path on this machine") as no:
        Environment.read({"NIGHTSHIFT_HOME": url})
    assert "hunter2" not in str(no.value)


@pytest.mark.parametrize("name", ["LAKE", "LANDING", "REPORTS", "MODELS"])
def test_a_refused_url_may_hold_a_password_which_nobody_sees(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        Environment.read({f"NIGHTSHIFT_{name}": "s3://key:hunter2@bucket/lake"})
    assert "hunter2" not in str(refused.value)


_TEXT = st.text("abcXYZ019._=+-", min_size=1, max_size=8)
_PART = _TEXT.filter(lambda part: part.strip("."))


@given(
    st.lists(_PART, max_size=4),
    st.sampled_from(["s3", "s3a", "s3n"]),
    st.booleans(),
)
def test_every_way_to_write_a_place_is_the_same_place(
    parts: list[str], scheme: str, has_slash: bool
) -> None:
    folder = "".join(f"/{part}" for part in parts)
    found = places.parse_url(f"{scheme}://a-bucket{folder}{'/' if has_slash else ''}")
    assert found == f"s3://a-bucket{folder}"
    assert places.parse_url(found) == found


def test_all_libraries_are_told_of_the_same_store() -> None:
    told = places.agreed({places.ENDPOINT: _ELSEWHERE})
    assert told == {
        "AWS_FORCE_CREDENTIAL_LOAD": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path",
        "AWS_ALLOW_HTTP": "true",
    }
    assert places.agreed({places.ENDPOINT: _ELSEWHERE, **told}) == {}


def test_amazons_own_store_needs_no_word_but_the_region_twice() -> None:
    assert places.agreed({}) == {}
    assert places.agreed({"AWS_DEFAULT_REGION": "eu-central-1"}) == {"AWS_REGION": "eu-central-1"}


def test_what_a_person_has_set_stays() -> None:
    mine = {places.ENDPOINT: _ELSEWHERE, "AWS_ALLOW_HTTP": "false", "AWS_REGION": "here"}
    assert not places.agreed(mine).keys() & mine.keys()


def test_neither_spark_nor_executors_are_handed_credentials() -> None:
    known = {
        places.ENDPOINT: _ELSEWHERE,
        "AWS_ACCESS_KEY_ID": "the-key",
        "AWS_SECRET_ACCESS_KEY": "the-secret",
        "AWS_SESSION_TOKEN": "the-token",
    }
    told = {**places.settings_of_hadoop(known), **places.address_of_store(known)}
    assert told["spark.hadoop.fs.s3a.endpoint"] == _ELSEWHERE
    assert told["AWS_REGION"] == "us-east-1"
    assert not [value for value in told.values() if value.startswith("the-")]


def test_with_keys_in_variables_no_library_looks_for_others() -> None:
    told = places.agreed({places.ENDPOINT: _ELSEWHERE, "AWS_ACCESS_KEY_ID": "key"})
    assert "AWS_FORCE_CREDENTIAL_LOAD" not in told


@pytest.mark.parametrize(
    ("one", "other", "do_overlap"),
    [
        ("s3://nights", "s3://nights", True),
        ("s3://nights", "s3://nights/reports", True),
        ("/var/night", "/var/night/reports", True),
        ("s3://nights/lake", "s3://nights/lake2", False),
        ("s3://nights/lake", "/nights/lake", False),
    ],
)
def test_what_is_cleaned_up_in_one_place_is_no_part_of_another(
    one: str, other: str, do_overlap: bool
) -> None:
    given = {"NIGHTSHIFT_LAKE": one, "NIGHTSHIFT_REPORTS": other, "NIGHTSHIFT_HOME": "/home/of"}
    if not do_overlap:
        Environment.read(given)
        return
    with pytest.raises(UsageError, match=r"NIGHTSHIFT_LAKE and NIGHTSHIFT_REPORTS are the same"):
        Environment.read(given)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize(
    "address",
    [
        *("store:9000", "HTTP://store:9000", "ftp://store", "http://", "http://store:port"),
        *("http://store?key=hunter2", "http://store\n", "http://a store", "s3://store"),
    ],
)
def test_what_is_no_address_of_a_store_is_refused_when_it_is_read(
    variable: str, address: str
) -> None:
    given = {"NIGHTSHIFT_LAKE": "s3://nights/lake", variable: address}
    with pytest.raises(UsageError, match=rf"{variable} is not .*https://store") as refused:
        Environment.read(given)
    assert "hunter2" not in str(refused.value)


def test_the_address_for_s3_alone_is_everybodys_and_goes_first() -> None:
    known = {"AWS_ENDPOINT_URL_S3": _ELSEWHERE, places.ENDPOINT: "http://of-other-services"}
    for told in (known, {"AWS_ENDPOINT_URL_S3": _ELSEWHERE}):
        assert places.agreed(told)["AWS_ALLOW_HTTP"] == "true"
        assert places.settings_of_hadoop(told)["spark.hadoop.fs.s3a.endpoint"] == _ELSEWHERE
        assert places.address_of_store(told)["AWS_ENDPOINT_URL_S3"] == _ELSEWHERE


_BY_TLS = {places.ENDPOINT: "https://store.example:9000"}


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        # As Python's own libraries have it.
        ({"https_proxy": "", "HTTPS_PROXY": "http://proxy:3128"}, ""),
        ({"http_proxy": "http://proxy:3128"}, ""),
        ({"http_proxy": "http://proxy", places.ENDPOINT: _ELSEWHERE}, "http://proxy"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "a,.example"}, ""),
        ({"https_proxy": "http://proxy:3128", "NO_PROXY": "store.example:9000"}, ""),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "store"}, "http://proxy:3128"),
        ({"https_proxy": "socks5://proxy:1080"}, ""),
        ({}, ""),
    ],
)
def test_the_proxy_of_the_store_is_the_one_that_other_libraries_find(
    told: dict[str, str], found: str
) -> None:
    assert places.proxy({**_BY_TLS, **told}) == found


def test_amazons_own_store_may_be_reached_without_the_proxy() -> None:
    world = {"https_proxy": "http://proxy:3128", "AWS_REGION": "eu-central-1"}
    assert places.proxy(world) == "http://proxy:3128"
    assert places.proxy({**world, "no_proxy": ".amazonaws.com"}) == ""
    assert places.proxy({**world, "no_proxy": "s3.eu-central-1.amazonaws.com"}) == ""


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("http://ann:hunter2@proxy:3128", ("proxy", "3128", "false")),
        ("http://proxy", ("proxy", "80", "false")),
        ("https://proxy", ("proxy", "443", "true")),
        ("http://[::1]:3128", ("::1", "3128", "false")),
    ],
)
def test_spark_is_told_of_the_proxy_and_of_no_password(
    address: str, place: tuple[str, str, str]
) -> None:
    told = places.settings_of_hadoop({**_BY_TLS, "https_proxy": address})
    names = ("host", "port", "ssl.enabled")
    assert tuple(told[f"spark.hadoop.fs.s3a.proxy.{name}"] for name in names) == place
    assert "hunter2" not in str(told)
    without = places.settings_of_hadoop(_BY_TLS)
    assert not [name for name in without if "proxy" in name]


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_password_in_the_address_of_the_store_is_refused_and_not_shown(variable: str) -> None:
    given = {"NIGHTSHIFT_LAKE": "s3://nights/lake", variable: "http://me:hunter2@store"}
    with pytest.raises(UsageError, match=variable) as refused:
        Environment.read(given)
    assert "hunter2" not in str(refused.value)


def test_the_variables_of_a_process_stay_as_they_are_where_no_place_is_a_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(places.ENDPOINT, _ELSEWHERE)
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("NIGHTSHIFT_LAKE", raising=False)
    Environment.read()
    assert "AWS_REGION" not in os.environ


def test_what_was_recorded_on_a_disk_is_not_below_a_store_and_the_other_way_round() -> None:
    store = places.place("s3://nights/reports")
    assert places.below("s3://nights/reports/toy/index.html", store) == "toy/index.html"
    assert places.below("/var/reports/toy/index.html", store) is None
    assert places.below("s3://nights/reports/toy/index.html", Path("/var/reports")) is None
    assert places.below("/var/reports/toy/index.html", Path("/var/reports")) == "toy/index.html"
    assert places.below("/elsewhere/index.html", Path("/var/reports")) is None


def test_a_place_on_a_disk_needs_no_library() -> None:
    program = (
        "import sys; from pipelines.environment import Environment; Environment.read(); "
        "sys.exit('upath' in sys.modules)"
    )
    variables = {name: value for name, value in os.environ.items() if "NIGHTSHIFT" not in name}
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=variables,
        check=True,
    )


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    places.write_whole(file, b"one")
    places.write_whole(file, b"two")
    assert file.read_bytes() == b"two"
    assert list(file.parent.iterdir()) == [file]


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "page.html"
    places.write_whole(file, b"one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        places.write_whole(file, b"two")
    assert file.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [file]


def test_of_many_writers_one_writes_what_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "began.json"
    contents = [bytes([number]) * 100 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: places.write_once(file, content), contents))
    assert file.read_bytes() in contents
    places.write_once(file, b"later")
    assert file.read_bytes() != b"later"
    assert list(file.parent.iterdir()) == [file]


def test_what_a_store_that_is_away_keeps_is_not_deleted_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = places.place("s3://nights/jobs/job-1")
    of_store: Any = folder
    asked = []

    def away(path: str, recursive: bool) -> None:
        asked.append(path)
        # Unlike most of what s3fs raises, it is no `OSError`.
        raise EndpointConnectionError(endpoint_url=_ELSEWHERE)

    monkeypatch.setattr(of_store.fs, "rm", away)
    places.remove(folder)
    assert asked == ["nights/jobs/job-1"]


def test_a_place_follows_its_folder_where_it_is_there(tmp_path: Path) -> None:
    before = "/before/reports/toy/run/index.html"
    assert places.followed(before, tmp_path, parts=3) == before
    now = tmp_path / "toy" / "run" / "index.html"
    now.parent.mkdir(parents=True)
    now.touch()
    assert places.followed(before, tmp_path, parts=3) == str(now)
    assert places.followed("s3://nights/reports/toy/run/index.html", tmp_path, parts=3) == str(now)
    assert places.followed(str(now), tmp_path, parts=3) == str(now)
