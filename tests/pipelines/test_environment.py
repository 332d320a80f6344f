"""What the environment variables mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from pipelines.cores import at_least_one
from pipelines.environment import ROOT, SERVICES, Environment, setting
from pipelines.errors import UsageError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lakes/mine", "{cwd}/lakes/mine"),
        ("~/mine", "{home}/mine"),
        ("s3://bucket/lake", "s3://bucket/lake"),
        ("s3a://bucket/lake/", "s3://bucket/lake"),
        ("", "{cwd}/var/lake"),
    ],
)
def test_a_lake_is_the_same_place_for_processes_in_other_folders(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of-tests")
    environment = Environment.read({"NIGHTSHIFT_HOME": "var", "NIGHTSHIFT_LAKE": given})
    assert environment.lake == meant.format(cwd=tmp_path.resolve(), home="/home/of-tests")


def test_its_variables_recreate_an_environment() -> None:
    variables = {
        "NIGHTSHIFT_HOME": "/a/b",
        "NIGHTSHIFT_LAKE": "s3://bucket/lake",
        "NIGHTSHIFT_LANDING": "s3://bucket/landing",
        "SPARK_REMOTE": "sc://cluster",
        "NIGHTSHIFT_RANKS": "3",
        "NIGHTSHIFT_WEBHOOK_URL": "https://chat.example/hook/abc",
        "NIGHTSHIFT_AIRFLOW_PORT": "9000",
        "NIGHTSHIFT_SPARK_CORES": "7",
    }
    environment = Environment.read(variables)
    assert environment.variables() | variables == environment.variables()
    assert Environment.read(environment.variables()) == environment


def test_nothing_set_means_a_laptop() -> None:
    home = ROOT / "var"
    assert Environment.read({}) == Environment(
        home=home,
        lake=f"{home}/lake",
        landing=home / "landing",
        reports=home / "reports",
        models=home / "mlartifacts",
        spark_remote=None,
        mlflow_uri=f"sqlite:///{home}/mlflow.db",
        spark_master=None,
        spark_properties=None,
        spark_host="127.0.0.1",
        spark_port=15002,
        mlflow_port=5000,
        jdbc_memory="1g",
        sql_memory="4GB",
        airflow_port=8080,
        airflow_host="127.0.0.1",
        airflow_url=None,
        airflow_api=None,
        services=None,
        queues=None,
        secret=None,
        jdbc_port=None,
        airflow_database=f"sqlite:///{home}/airflow/airflow.db",
        users=None,
        auth="simple",
        lineage=None,
        spark_memory="3g",
        spark_cores=at_least_one(),
        ranks=None,
        rank_hosts=None,
        host_command=None,
        rank_pod=None,
        train_pod=None,
        rank_executors="off",
        kubernetes_api="https://kubernetes.default.svc",
        kubernetes_account=Path("/var/run/secrets/kubernetes.io/serviceaccount").resolve(),
        rendezvous_address=None,
        jobs=home / "jobs",
        timeline="off",
        retention_days=30,
        webhook_url=None,
        warehouse_url=None,
        smtp_url=None,
        email_from=None,
        email_to=None,
    )


def test_hosts_that_train_are_read_with_their_ranks() -> None:
    told = Environment.read({"NIGHTSHIFT_RANK_HOSTS": "one:2, two,10.0.0.7:4"})
    assert told.hosts == {"one": 2, "two": 1, "10.0.0.7": 4}
    assert Environment.read(told.variables()).hosts == told.hosts
    assert Environment.read({}).hosts == {}


def test_ranks_are_on_hosts_in_pods_or_on_executors_and_nowhere_twice() -> None:
    executors = {"NIGHTSHIFT_RANK_EXECUTORS": "on"}
    assert Environment.read(executors).place_of_ranks == "NIGHTSHIFT_RANK_EXECUTORS"
    assert Environment.read({}).place_of_ranks is None
    twice = {"NIGHTSHIFT_RANK_POD": "/pod.json", **executors}
    with pytest.raises(UsageError, match=r"RANK_POD and NIGHTSHIFT_RANK_EXECUTORS both say"):
        Environment.read(twice)
    both = {"NIGHTSHIFT_RANK_HOSTS": "one", "NIGHTSHIFT_RANK_POD": "/pod.json"}
    found = Environment.read({"NIGHTSHIFT_RANK_POD": "/pod.json"})
    assert found.place_of_ranks == "NIGHTSHIFT_RANK_POD"
    with pytest.raises(UsageError, match=r"RANK_HOSTS and NIGHTSHIFT_RANK_POD both say"):
        Environment.read(both)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("NIGHTSHIFT_RANK_HOSTS", "one:0"),
        ("NIGHTSHIFT_RANK_HOSTS", "one,,two"),
        ("NIGHTSHIFT_RANK_HOSTS", "one,one:2"),
        # It would be an option of ssh.
        ("NIGHTSHIFT_RANK_HOSTS", "-oProxyCommand=reboot"),
        ("NIGHTSHIFT_RANK_HOSTS", "one two"),
        ("NIGHTSHIFT_HOST_COMMAND", "ssh"),
        ("NIGHTSHIFT_HOST_COMMAND", "{host}"),
        ("NIGHTSHIFT_HOST_COMMAND", "ssh '{host}"),
        ("NIGHTSHIFT_KUBERNETES_API", "http://10.0.0.1"),
        ("NIGHTSHIFT_KUBERNETES_API", "https://10.0.0.1/api"),
        ("NIGHTSHIFT_RENDEZVOUS_ADDRESS", "0.0.0.0"),
        ("NIGHTSHIFT_RENDEZVOUS_ADDRESS", "8.8.8.8"),
        ("NIGHTSHIFT_RENDEZVOUS_ADDRESS", "fd00::5"),
        ("NIGHTSHIFT_RENDEZVOUS_ADDRESS", "224.0.0.1"),
        ("NIGHTSHIFT_RENDEZVOUS_ADDRESS", "trainer"),
    ],
)
def test_what_cannot_start_ranks_elsewhere_is_refused(variable: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"{variable}='{re.escape(text)}' is not"):
        Environment.read({variable: text})


def test_a_machine_runs_all_services_or_those_that_are_named() -> None:
    everything = Environment.read({})
    assert all(map(everything.runs, SERVICES))
    assert not everything.is_part
    told = Environment.read({"NIGHTSHIFT_SERVICES": "spark, stages,scheduler"})
    assert [name for name in SERVICES if told.runs(name)] == ["spark", "stages", "scheduler"]
    assert Environment.read(told.variables()).services == told.services


@pytest.mark.parametrize(
    ("names", "is_part"),
    [
        ("spark,stages", False),
        ("scheduler", True),
        ("spark,stages,worker", True),
        ("airflow-api,dag-processor,triggerer,mlflow", True),
        ("airflow-api,scheduler,dag-processor,triggerer", False),
    ],
)
def test_who_runs_a_part_of_airflow_needs_others(names: str, is_part: bool) -> None:
    assert Environment.read({"NIGHTSHIFT_SERVICES": names}).is_part == is_part


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("NIGHTSHIFT_SERVICES", "schedulers"),
        ("NIGHTSHIFT_SERVICES", "spark,spark"),
        ("NIGHTSHIFT_SERVICES", "spark,"),
        ("NIGHTSHIFT_QUEUES", "default,,big"),
        ("NIGHTSHIFT_QUEUES", "big --all"),
        ("NIGHTSHIFT_AIRFLOW_URL", "pages:8080"),
        ("NIGHTSHIFT_SPARK_MASTER", "spark://one:7077,two:77077"),
        ("NIGHTSHIFT_SPARK_MASTER", "yarn-cluster"),
        ("NIGHTSHIFT_SPARK_MASTER", "k8s://ftp://one:6443"),
        ("NIGHTSHIFT_SPARK_MASTER", "k8s://one:77077"),
        ("NIGHTSHIFT_AIRFLOW_URL", "http://pages:8080/airflow"),
        ("NIGHTSHIFT_AIRFLOW_API", "http://pages:8080?a=b"),
    ],
)
def test_what_tells_no_part_of_a_platform_is_refused(variable: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"{variable}='{re.escape(text)}' is not"):
        Environment.read({variable: text})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("NIGHTSHIFT_AIRFLOW_URL", "http://admin:hunter2@pages:8080"),
        ("NIGHTSHIFT_SPARK_MASTER", "spark://admin:hunter2@host:7077"),
        ("NIGHTSHIFT_SPARK_MASTER", "k8s://https://admin:hunter2@host:6443"),
    ],
)
def test_a_password_where_none_belongs_is_refused_and_not_shown(variable: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"{variable} is not") as refused:
        Environment.read({variable: text})
    assert "hunter2" not in str(refused.value)


def test_places_in_the_home_are_seen_by_no_other_machine() -> None:
    variables = {"NIGHTSHIFT_HOME": "/home", "NIGHTSHIFT_LAKE": "s3://nights/lake"}
    own = Environment.read({**variables, "NIGHTSHIFT_REPORTS": "/of-all/reports"}).own_places()
    assert own == ["NIGHTSHIFT_LANDING", "NIGHTSHIFT_MODELS", "NIGHTSHIFT_JOBS"]


def test_a_short_secret_is_refused_and_not_told() -> None:
    with pytest.raises(UsageError, match="NIGHTSHIFT_SECRET is not a secret of") as refused:
        Environment.read({"NIGHTSHIFT_SECRET": "guess-me"})
    assert "guess-me" not in str(refused.value)
    secret = "x" * 32
    read = Environment.read({"NIGHTSHIFT_SECRET": secret})
    assert secret not in repr(read)
    # As a file ends that a Secret of Kubernetes is made from.
    assert Environment.read({"NIGHTSHIFT_SECRET": f"{secret}\n"}) == read


def test_every_field_is_a_setting_with_a_variable_of_its_own_and_a_word_about_it() -> None:
    settings = Environment.settings()
    assert list(settings) == [one.name for one in fields(Environment)]
    assert len({one.variable for one in settings.values()}) == len(settings)
    assert all(one.does and one.variable.isupper() for one in settings.values())


def test_a_new_setting_is_read_and_handed_on_by_its_declaration_alone() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Larger(Environment):
        colour: str = field(
            metadata=setting("NIGHTSHIFT_COLOUR", "colour of the night", "{home}/blue")
        )

    assert Larger.read({"NIGHTSHIFT_HOME": "/a"}).colour == "/a/blue"
    larger = Larger.read({"NIGHTSHIFT_COLOUR": "red"})
    assert larger.variables()["NIGHTSHIFT_COLOUR"] == "red"


@pytest.mark.parametrize(
    "given", ["hook", "ftp://a/b", "https://", "http://[", "https://a/\nb", "//host/path"]
)
def test_a_webhook_that_is_no_web_address_is_refused_without_being_shown(given: str) -> None:
    with pytest.raises(UsageError) as refused:
        Environment.read({"NIGHTSHIFT_WEBHOOK_URL": given})
    assert str(refused.value) == (
        "NIGHTSHIFT_WEBHOOK_URL is not an http or https address. Unset it to use the default."
    )


@pytest.mark.parametrize(
    "given",
    [
        "mysql://u:s3cret@db/x",
        "host=db password=s3cret",
        "postgresql://u:s3cret@db:x/y",
        "postgresql://u:p@s3cret@db/x",
        "postgresql://u:12/s3cret@db/x",
        "postgresql://u:12?s3cret@db/x",
        "postgresql://u:12#s3cret@db/x",
    ],
)
def test_what_is_no_address_of_postgresql_is_refused_without_its_password(given: str) -> None:
    with pytest.raises(UsageError, match="NIGHTSHIFT_WAREHOUSE_URL is not an address") as refused:
        Environment.read({"NIGHTSHIFT_WAREHOUSE_URL": given})
    assert "s3cret" not in str(refused.value)


def test_a_secret_is_not_in_the_environments_own_words() -> None:
    environment = Environment.read({"NIGHTSHIFT_WEBHOOK_URL": "https://chat.example/hook/abc"})
    assert environment.webhook_url == "https://chat.example/hook/abc"
    assert "chat.example" not in repr(environment)


@pytest.mark.parametrize("name", Environment.settings())
def test_a_field_is_left_out_of_the_environments_words_when_it_may_hold_a_secret(
    name: str,
) -> None:
    shown = {one.name for one in fields(Environment) if one.repr}
    setting = Environment.settings()[name]
    assert (name not in shown) == (setting.is_secret or setting.is_address)


@pytest.mark.parametrize(
    "given",
    [
        "sc://cluster",
        "sc://cluster:15002/",
        "sc://cluster:15002/;use_ssl=true;token=a%3D",
        "sc://[::1]:15002/;token=",
    ],
)
def test_a_spark_connect_address_is_taken_as_it_stands(given: str) -> None:
    assert Environment.read({"SPARK_REMOTE": given}).spark_remote == given


@pytest.mark.parametrize(
    "given",
    [
        "local[2]",
        "spark://cluster:7077",
        "sc://cluster;token=SECRET",
        "sc://cluster:15002/path;token=SECRET",
        "sc://cluster:15002/;token:SECRET",
        "sc://cluster:15002/;token=SECRET==",
        "sc://cluster:15002/;token=SEC;RET",
        "sc://ann:SECRET@cluster:15002",
        "sc:/cluster/;token=SECRET",
    ],
)
def test_an_address_that_spark_cannot_read_is_refused_without_being_shown(given: str) -> None:
    with pytest.raises(UsageError) as refused:
        Environment.read({"SPARK_REMOTE": given})
    message = str(refused.value)
    assert message.startswith(
        "SPARK_REMOTE is not a Spark Connect address, such as sc://host:15002/"
    )
    assert given not in message
    assert "SEC" not in message


@pytest.mark.parametrize("given", ["0", "1", "-30", "30.5", "a month"])
def test_a_retention_that_a_stage_could_outlast_is_wrong_usage(given: str) -> None:
    message = f"NIGHTSHIFT_RETENTION_DAYS='{given}' is not a whole number from 2 to 36500"
    with pytest.raises(UsageError, match=message):
        Environment.read({"NIGHTSHIFT_RETENTION_DAYS": given})


@pytest.mark.parametrize("given", ["80", "65536", "8080.0", "-1", "port"])
def test_a_port_out_of_range_is_wrong_usage(given: str) -> None:
    message = (
        f"NIGHTSHIFT_AIRFLOW_PORT='{given}' is not a whole number from 1024 to 65535. "
        "Unset it to use 8080"
    )
    with pytest.raises(UsageError, match=message):
        Environment.read({"NIGHTSHIFT_AIRFLOW_PORT": given})


@pytest.mark.parametrize("variable", ["NIGHTSHIFT_HOME", "NIGHTSHIFT_LAKE"])
def test_a_folder_that_deltas_writer_would_not_find_is_refused(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = rf"{variable}.* is not a folder for tables: no part of its path may hold '%'"
    with pytest.raises(UsageError, match=refusal):
        Environment.read({variable: str(tmp_path / "my%20home" / "lake")})
    # Also where it is a folder above that was not given, and where nothing was given at all.
    odd = tmp_path / "100%"
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(UsageError, match=refusal):
        Environment.read({variable: "var"})
    parse = Environment.settings()["home"].parse
    default = setting("X", "where", str(odd), parse)["setting"]
    with pytest.raises(UsageError, match=r"The default of X, '.*100%', is not .*Set it\."):
        default.read({})


@pytest.mark.parametrize(
    "variable",
    [
        "NIGHTSHIFT_AIRFLOW_API",
        "NIGHTSHIFT_AIRFLOW_URL",
        "NIGHTSHIFT_WEBHOOK_URL",
        "NIGHTSHIFT_LINEAGE",
        "NIGHTSHIFT_KUBERNETES_API",
    ],
)
def test_a_web_address_with_a_port_that_is_none_is_refused(variable: str) -> None:
    for port in ("99999", "port"):
        with pytest.raises(UsageError, match=rf"{variable}.* is not an https? "):
            Environment.read({variable: f"https://10.0.0.5:{port}"})
    assert Environment.read({variable: "https://10.0.0.5:8443"})


@pytest.mark.parametrize("blanked", ["{} ", " {}", "{}\u00a0"])
@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("NIGHTSHIFT_AIRFLOW_URL", "https://nights.example.org"),
        ("NIGHTSHIFT_AIRFLOW_API", "http://10.0.0.5"),
        ("NIGHTSHIFT_WEBHOOK_URL", "https://example.org/hooks/secret"),
        ("NIGHTSHIFT_KUBERNETES_API", "https://10.0.0.1:6443/"),
        ("NIGHTSHIFT_WAREHOUSE_URL", "postgresql://user:secret@host/db"),
        ("NIGHTSHIFT_AIRFLOW_DATABASE", "postgresql://user:secret@host/db"),
        ("MLFLOW_TRACKING_URI", "https://mlflow.example.org"),
    ],
)
def test_an_address_with_a_blank_at_an_end_is_refused_and_the_blank_is_told(
    variable: str, address: str, blanked: str
) -> None:
    Environment.read({variable: address})
    with pytest.raises(UsageError, match=rf"{variable}.* It begins or ends with a blank\. Unset"):
        Environment.read({variable: blanked.format(address)})


@pytest.mark.parametrize("name", ["what?", "a,b", "Team #1", "one ;two", "$HOME", "of ${USER}"])
def test_a_home_that_some_program_would_look_for_elsewhere_is_refused(
    name: str, tmp_path: Path
) -> None:
    refusal = "NIGHTSHIFT_HOME=.* is not a folder for a home: no part of its path may hold"
    with pytest.raises(UsageError, match=refusal):
        Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / name / "var")})
    # A lake has no databases, and nothing in it is supervised.
    lake = tmp_path / name / "lake"
    assert Environment.read({"NIGHTSHIFT_LAKE": str(lake)}).lake == str(lake)


@pytest.mark.parametrize("name", ["C#", "a;b", "# of nights", "two words", "US$", "$ and €"])
def test_a_home_may_have_signs_that_no_program_reads(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    assert Environment.read({"NIGHTSHIFT_HOME": str(home)}).home == home


def test_a_path_below_a_working_folder_that_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="is not a whole path, and the working folder is gone"):
        Environment.read({"NIGHTSHIFT_HOME": "var"})


@pytest.mark.parametrize(
    "sign",
    ["[", "]", "^", "|", "\\", "\t", "\n", "\x7f"],
)
@pytest.mark.parametrize("variable", ["NIGHTSHIFT_HOME", "NIGHTSHIFT_LAKE"])
def test_a_path_that_deltas_writer_cannot_read_holds_no_tables(
    variable: str, sign: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"(?s){variable}.* is not a folder for tables"):
        Environment.read({variable: str(tmp_path / f"of{sign}night")})


@pytest.mark.parametrize("variable", ["NIGHTSHIFT_SPARK_MEMORY", "NIGHTSHIFT_JDBC_MEMORY"])
@pytest.mark.parametrize("given", ["abc", "3GB", "0g", "3 g", "1.5g", "4096", "-1g"])
def test_a_heap_that_java_would_not_take_is_wrong_usage(variable: str, given: str) -> None:
    message = f"{variable}='{given}' is not a size as Java writes it, such as 3g or 512m. Unset it"
    with pytest.raises(UsageError, match=message):
        Environment.read({variable: given})


@pytest.mark.parametrize("variable", ["NIGHTSHIFT_SPARK_MEMORY", "NIGHTSHIFT_JDBC_MEMORY"])
def test_a_heap_in_which_spark_does_not_start_is_wrong_usage(variable: str) -> None:
    for least in ("450m", "460800K", "1g"):
        Environment.read({variable: least})
    for given in ("512k", "449m", "1k"):
        with pytest.raises(UsageError, match=f"{variable}='{given}' is not at least 450m: Spark"):
            Environment.read({variable: given})


def test_the_folder_of_a_user_who_is_not_there_is_wrong_usage() -> None:
    message = "NIGHTSHIFT_HOME='~of-nobody/home' is not a path whose ~ leads anywhere. Unset it"
    with pytest.raises(UsageError, match=message):
        Environment.read({"NIGHTSHIFT_HOME": "~of-nobody/home"})


@pytest.mark.parametrize(
    ("variable", "given", "why"),
    [
        ("NIGHTSHIFT_USERS", "ann", "a list such as ann:viewer,bob:user"),
        ("NIGHTSHIFT_USERS", "ann:boss", "a role is one of viewer, user, op, admin"),
        ("NIGHTSHIFT_USERS", "../ann:user", "a list such as"),
        ("NIGHTSHIFT_USERS", "ann:user,ann:op", "names each user once"),
        ("NIGHTSHIFT_USERS", "admin:viewer", "not 'admin', which is there"),
        ("NIGHTSHIFT_AUTH", "ldap", "'simple' or 'fab'"),
        ("NIGHTSHIFT_LINEAGE", "ftp://host/x", "an http or https address"),
        ("NIGHTSHIFT_AIRFLOW_DATABASE", "sqlite:///relative.db", "an address of a database"),
        ("NIGHTSHIFT_AIRFLOW_DATABASE", "mysql://host/airflow", "an address of a database"),
        ("NIGHTSHIFT_AIRFLOW_DATABASE", "postgresql://u:p@s@h/a", "write %40 for @"),
        ("NIGHTSHIFT_AIRFLOW_DATABASE", "postgresql+psycopg2://u:p/s@h/a", "%2F for /"),
        ("NIGHTSHIFT_AIRFLOW_DATABASE", "postgresql://ann:pw@host:port/airflow", "an address of"),
        ("MLFLOW_TRACKING_URI", "sqlite:///relative.db", "sqlite:////folder/mlflow.db"),
        ("MLFLOW_TRACKING_URI", "mlruns", "sqlite:////folder/mlflow.db"),
        ("MLFLOW_TRACKING_URI", "file:///mlruns", "sqlite:////folder/mlflow.db"),
        ("MLFLOW_TRACKING_URI", "postgres://host/mlflow", "postgresql://user"),
        ("MLFLOW_TRACKING_URI", "postgresql://ann:p/w@host/mlflow", "%2F for /"),
        ("MLFLOW_TRACKING_URI", "https://", "https://mlflow.example.org"),
    ],
)
def test_settings_of_airflow_are_refused_at_the_border(variable: str, given: str, why: str) -> None:
    with pytest.raises(UsageError, match=variable) as refused:
        Environment.read({variable: given})
    assert why in str(refused.value)


def test_the_password_of_a_database_is_shown_to_nobody() -> None:
    given = {"NIGHTSHIFT_AIRFLOW_DATABASE": "mysql://ann:SECRET@host/airflow"}
    with pytest.raises(UsageError) as refused:
        Environment.read(given)
    assert "SECRET" not in str(refused.value)
    Environment.read({"NIGHTSHIFT_AIRFLOW_DATABASE": "sqlite:////home/a@b/c@d/airflow.db"})
    Environment.read({"MLFLOW_TRACKING_URI": "sqlite:////home/a@b/c@d/mlflow.db"})
    right = {"NIGHTSHIFT_AIRFLOW_DATABASE": "postgresql://ann:SECRET@host/airflow"}
    assert "SECRET" not in repr(Environment.read(right))


_AIRFLOWS = "postgresql://night:airflows-own@db.example.org/nights"


@pytest.mark.parametrize(
    "mlflows",
    [
        _AIRFLOWS,
        "postgresql://mlflow:mlflows-own@db.example.org:5432/nights",
        "postgresql+psycopg2://db.example.org/nights?sslmode=require",
    ],
)
def test_one_database_for_airflow_and_mlflow_is_refused(mlflows: str, tmp_path: Path) -> None:
    told = {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_AIRFLOW_DATABASE": _AIRFLOWS}
    with pytest.raises(UsageError, match="give each one of its own") as refused:
        Environment.read({**told, "MLFLOW_TRACKING_URI": mlflows})
    message = str(refused.value)
    assert "NIGHTSHIFT_AIRFLOW_DATABASE and MLFLOW_TRACKING_URI name one database" in message
    assert "-own" not in message


@pytest.mark.parametrize(
    "mlflows",
    [
        "postgresql://night:airflows-own@db.example.org/mlflow",
        "postgresql://night:airflows-own@db.example.org:5433/nights",
        "postgresql://night:airflows-own@other.example.org/nights",
        f"{_AIRFLOWS}?options=-csearch_path%3Dmlflow",
        "mysql://night:airflows-own@db.example.org/nights",
        "https://db.example.org/nights",
    ],
)
def test_what_may_be_another_database_is_taken(mlflows: str, tmp_path: Path) -> None:
    told = {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_AIRFLOW_DATABASE": _AIRFLOWS}
    read = Environment.read({**told, "MLFLOW_TRACKING_URI": mlflows})
    assert read.mlflow_uri == mlflows


def test_one_file_for_airflow_and_mlflow_is_refused(tmp_path: Path) -> None:
    file = f"sqlite:///{tmp_path}/both.db"
    both = {"NIGHTSHIFT_AIRFLOW_DATABASE": file, "MLFLOW_TRACKING_URI": file}
    with pytest.raises(UsageError, match="name one database"):
        Environment.read({"NIGHTSHIFT_HOME": str(tmp_path), **both})
