"""`rowcast init` on real databases: what it writes is accepted at once, and what it cannot carry is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from stack_fixture import SharedStack, random_name

from rowcast.cli.main import main
from rowcast.draft.containers import container_files
from rowcast.settings import DatabaseSettings, load_settings
from rowcast.sources.source_file import load_sources

HOSTILE = r"""
CREATE SCHEMA sales;
CREATE SCHEMA "Odd Schema";
CREATE TYPE mood AS ENUM ('fine', 'it''s "odd"', E'back\\slash');
CREATE DOMAIN price AS numeric(10,2) NOT NULL;
CREATE TABLE "on" (id int PRIMARY KEY, "select" text NOT NULL, "null" boolean, "yes" mood NOT NULL, moods mood[]);
ALTER TABLE "on" REPLICA IDENTITY FULL;
COMMENT ON TABLE "on" IS E'First line.\nSecond: {"a": ''b''} # no comment';
COMMENT ON COLUMN "on"."select" IS 'Chosen ünïcode 𝄞 "quoted"';
CREATE TABLE "MixedCase" ("Id" uuid PRIMARY KEY, "Größe, in cm" int, "a/b~c" price, " blank " text, "/slash" text,
  "line
feed" text, ancestors text, place point, doubled int GENERATED ALWAYS AS (1 + 1) STORED, tags text[], lengths numeric[],
  state varchar(9) CHECK (state IN ('open', 'it''s paid')), level smallint NOT NULL CHECK (level IN (1, 2)),
  either text CHECK (either IN ('a') OR either LIKE 'b%'), document jsonb NOT NULL, plain json);
CREATE TABLE sales.orders (region text, number bigint, placed date NOT NULL, PRIMARY KEY (number, region));
CREATE TABLE public.orders (id int PRIMARY KEY);
CREATE TABLE sales.line (id int PRIMARY KEY, region text, number int,
  FOREIGN KEY (region, number) REFERENCES sales.orders (region, number),
  CONSTRAINT again FOREIGN KEY (region, number) REFERENCES sales.orders (region, number));
CREATE TABLE tree (id int PRIMARY KEY, above int REFERENCES tree);
CREATE TABLE egg (id int PRIMARY KEY, hen int);
CREATE TABLE hen (id int PRIMARY KEY, egg int REFERENCES egg);
ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen;
CREATE TABLE chick (id int PRIMARY KEY, hen int REFERENCES hen);
CREATE TABLE two (id int PRIMARY KEY, a int REFERENCES tree, "b c" int REFERENCES tree);
CREATE TABLE typed (id int PRIMARY KEY, a smallint, b bigint, c oid, d real, e double precision, f numeric, g money,
  h "char", i name, j xml, k char(3), l uuid, m date, n timestamp(3), o timestamptz, p time, q timetz, r interval,
  s bytea, t bit(8), v point, w inet, x cidr, y macaddr, z macaddr8, aa tsvector, ab int4range, ac numrange,
  ad daterange, ae tstzrange, af int8multirange, ag numeric(5,2)[], ah date[], ai jsonb[], aj bytea[], ak price[],
  al varbit, am box, an int4, ao interval[], ap uuid[], aq timestamptz[], ar bool[], as_ mood[], at bit(100));
ALTER TABLE typed REPLICA IDENTITY FULL;
CREATE TABLE code (id int PRIMARY KEY, code text UNIQUE);
CREATE TABLE coded (id int PRIMARY KEY, code text REFERENCES code (code));
CREATE TABLE measure (at timestamptz, id int, value float8, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE reading (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE reading_1 PARTITION OF reading FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE no_key (a int, b text);
CREATE TABLE of_no_key (id int PRIMARY KEY);
CREATE TABLE keyed_by_number (id numeric PRIMARY KEY);
CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY);
CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (of_no_key);
CREATE TABLE "tägliche Zahlen" (id int PRIMARY KEY);
CREATE TABLE "line
feed: x" (id int PRIMARY KEY);
CREATE TABLE "Odd Schema".t (id int PRIMARY KEY);
CREATE TABLE "Twin" (id int PRIMARY KEY);
CREATE TABLE twin (id int PRIMARY KEY);
CREATE TABLE a_name_of_more_than_forty_eight_characters_is_long (id int PRIMARY KEY);
CREATE TABLE keys_alone (a int, b int, PRIMARY KEY (b, a));
CREATE VIEW looked_at AS SELECT 1 AS id;
CREATE TABLE secured (id int PRIMARY KEY);
"""


# How the file names them, where that is not as they are.
LEFT_OUT = {
    **dict.fromkeys(("public.heir", "public.keyed_by_number", "public.looked_at", "public.no_key", "public.of_no_key")),
    **dict.fromkeys(("public.Twin", "public.twin", "public.volatile")),
    "public.a_name_of_more_than_forty_eight_characters_is_long": None,
    "Odd Schema.t": "'Odd Schema.t'",
    "public.tägliche Zahlen": "'public.tägliche Zahlen'",
    "public.line\nfeed: x": "'public.line\\nfeed: x'",
}


def load(stack: SharedStack, script: str) -> DatabaseSettings:
    """A fresh database in which *script* was run."""
    database = stack.new_database("init")
    with psycopg.connect(database.url) as connection:
        connection.execute(script.encode())
    return database


@pytest.fixture
def folder(stack: SharedStack, tmp_path: Path) -> Path:
    """An empty project folder that knows the stack's parts."""
    control = stack.new_database("ctl")
    lines = (
        f'brokers = "{stack.brokers}"\nconnect_url = "{stack.connect_url}"\n[databases.rowcast]\nurl = "{control.url}"'
    )
    (tmp_path / "rowcast.toml").write_text(lines)
    return tmp_path


def init(folder: Path, capsys: pytest.CaptureFixture[str], *options: str, expected: int = 0) -> dict[str, Any]:
    """What `init --json` says; it has to end with *expected*."""
    code = main(["--project", str(folder), "init", "--json", *options])
    captured = capsys.readouterr()
    assert code == expected, captured
    document: dict[str, Any] = json.loads(captured.out)
    return document


@contextmanager
def readable_by_connect(stack: SharedStack, folder: Path) -> Iterator[None]:
    """The Connect of the shared stack reads in its own folder alone: the drafted secret is there, for a moment."""
    settings, (own,) = folder / "rowcast.toml", (folder / ".rowcast/secrets").glob("*.properties")
    text, place = settings.read_text(), stack.folder / ".rowcast/secrets" / f"{random_name('drafted')}.properties"
    place.parent.mkdir(exist_ok=True)
    shutil.copy(own, place)
    settings.write_text(text.replace(str(own.resolve()), str(place)))
    try:
        yield
    finally:
        settings.write_text(text)
        place.unlink()


def assert_accepted(stack: SharedStack, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Contracts pass the check; the lint and plan miss nothing but classes of personal data."""
    command = ["--project", str(folder)]
    assert main([*command, "schemas", "check"]) == 0, capsys.readouterr().out
    capsys.readouterr()
    assert main([*command, "schemas", "lint", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {each["rule"] for each in findings} == {"PII_UNCLASSIFIED"}
    assert main([*command, "sources", "plan"]) == 2
    assert "nobody has said whether it is personal data, so it is not published" in capsys.readouterr().err
    drafts = {path: path.read_text() for path in folder.glob("schemas/*/*/v1.0.json")}
    for path, text in drafts.items():
        path.write_text(text.replace('"unclassified"', '"none"'))
    with readable_by_connect(stack, folder):
        assert main([*command, "sources", "plan"]) == 1, capsys.readouterr().err
    for path, text in drafts.items():
        path.write_text(text)
    capsys.readouterr()


def contract(folder: Path, source: str, aggregate: str) -> dict[str, Any]:
    """The contract of an aggregate."""
    document: dict[str, Any] = json.loads((folder / f"schemas/{source}/{aggregate}/v1.0.json").read_text())
    return document


def test_a_hostile_schema_is_drafted_without_a_guess(
    stack: SharedStack, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be carried is accepted by check and plan at once; all else is left out, with its reason in the file."""
    document = init(folder, capsys, "--database", load(stack, HOSTILE).url, "--source", "odd")
    assert_accepted(stack, folder, capsys)
    text = (folder / "connectors/odd.yaml").read_text()
    (source,) = load_sources(folder)
    parents = {each.name: each.parent and (each.parent.aggregate, each.parent.columns) for each in source.aggregates}
    assert parents == {
        **dict.fromkeys(("code", "coded", "egg", "hen", "keys_alone", "mixed_case", "on", "public_orders", "reading")),
        **dict.fromkeys(("measure", "sales_orders", "secured", "tree", "two", "typed")),
        "chick": ("hen", ("hen",)),
        "line": ("sales_orders", ("number", "region")),
    }
    assert sorted(document["left_out"]) == sorted(LEFT_OUT)
    for table, shown in LEFT_OUT.items():
        assert f"# {shown or table}: " in text
    notes = {each["aggregate"]: " ".join(each["notes"]) for each in document["aggregates"]}
    assert "2 foreign keys could be the link" in notes["two"]
    assert '# parent: {aggregate: tree, column: "b c"}' in text
    assert "refers to the table itself" in notes["tree"]
    assert "circle (egg → hen → egg)" in notes["egg"]
    assert "other columns of public.code than its primary key" in notes["coded"]
    for column in ("'/slash'", "'ancestors'", "'place'", "'doubled'", "'lengths'"):
        assert f"column {column} is left out" in notes["mixed_case"]


def test_a_draft_says_what_the_catalogue_knows(
    stack: SharedStack, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comments, nullability, enumerations, lists of values and hierarchy reach the contract as they are."""
    init(folder, capsys, "--database", load(stack, HOSTILE).url, "--source", "odd")
    words, mixed = contract(folder, "odd", "on"), contract(folder, "odd", "mixed_case")["properties"]
    assert words["description"] == "First line.\nSecond: {\"a\": 'b'} # no comment"
    assert words["properties"]["select"]["description"] == 'Chosen ünïcode 𝄞 "quoted"'
    labels = ["fine", 'it\'s "odd"', "back\\slash"]
    assert words["properties"]["yes"]["enum"] == labels
    assert words["properties"]["moods"]["items"]["enum"] == [*labels, None]
    assert words["properties"]["null"]["type"] == ["boolean", "null"]
    assert mixed["state"]["enum"] == ["open", "it's paid", None]
    assert mixed["level"] == {**mixed["level"], "type": "integer", "enum": [1, 2]}
    assert "enum" not in mixed["either"]
    assert mixed["a/b~c"]["type"] == "string"
    assert {"Größe, in cm", " blank ", "line\nfeed", "document", "plain"} <= set(mixed)
    assert contract(folder, "odd", "line")["x-ancestors"] == ["sales_orders"]
    assert yaml.safe_load((folder / ".github/workflows/contracts.yml").read_text())


def test_what_is_there_is_kept_and_named(stack: SharedStack, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second draft changes nothing; an edited file stays, with what belongs to it, until --overwrite is said."""
    url = load(stack, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)").url
    (folder / "README.md").write_text("ours")
    command = ("--database", url, "--source", "shop")
    first = {each["path"]: each["outcome"] for each in init(folder, capsys, *command)["files"]}
    assert (first["README.md"], first["connectors/shop.yaml"]) == ("kept", "written")
    again = init(folder, capsys, *command)["files"]
    assert {each["outcome"] for each in again if each["path"].startswith(("connectors", "schemas"))} == {"unchanged"}

    edited = folder / "schemas/shop/a/v1.0.json"
    edited.write_text(edited.read_text().replace("unclassified", "none"))
    (folder / "schemas/shop/a/v1.0.event.json").unlink()
    kept = {each["path"]: each["outcome"] for each in init(folder, capsys, *command, expected=1)["files"]}
    assert kept["schemas/shop/a/v1.0.json"] == "kept"
    assert not (folder / "schemas/shop/a/v1.0.event.json").exists()
    replaced = {each["path"]: each["outcome"] for each in init(folder, capsys, *command, "--overwrite")["files"]}
    assert (replaced["schemas/shop/a/v1.0.json"], replaced["README.md"]) == ("replaced", "kept")
    assert "unclassified" in edited.read_text()
    assert (folder / "README.md").read_text() == "ours"


def test_the_password_of_a_url_goes_into_a_private_file(
    stack: SharedStack, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is in no other file and in no output; the settings find it again, and Connect is given a reference."""
    url, role = load(stack, "CREATE TABLE a (id int PRIMARY KEY)").url, random_name("role")
    secret = "p w'\\=:ü"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} SUPERUSER LOGIN")
        connection.pgconn.exec_(f"ALTER ROLE {role} PASSWORD {psycopg.sql.quote(secret)}".encode())
    try:
        url = make_conninfo(**{**conninfo_to_dict(url), "user": role, "password": secret})
        document = init(folder, capsys, "--database", url, "--source", "shop")
        place = folder / ".rowcast/secrets/shop.properties"
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        texts = [path.read_text() for path in folder.rglob("*") if path.is_file() and path != place]
        assert not [text for text in [*texts, json.dumps(document)] if "p w'" in text]
        assert_accepted(stack, folder, capsys)
        declared = load_settings(folder, {}).database("shop")
        assert (declared.parameters()["password"], declared.connect_password) == (
            secret,
            f"${{file:{place.resolve()}:password}}",
        )
    finally:
        with psycopg.connect(load_settings(stack.folder, {}).database("postgres").url, autocommit=True) as connection:
            connection.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--database", "nonsense://x y"], "is no connection string or URI"),
        (["--table", "x"], "needs --database"),
        (["--database", "host=127.0.0.1 port=1 dbname=x user=x"], "127.0.0.1"),
        (["--database", "{url}", "--table", "nothing"], "there is no table public.nothing"),
        (["--database", "{url}", "--source", "Not A Name"], "is no name"),
        (["--database", "{url}"], "no table can be captured\n  public.a: has no primary key"),
    ],
)
def test_what_cannot_be_drafted_is_told_and_nothing_is_written(
    stack: SharedStack, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """Exit code 2, the thing and the fix; the folder stays as it was."""
    url = load(stack, "CREATE TABLE a (id int)").url if "{url}" in options else ""
    assert main(["--project", str(folder), "init", *(each.replace("{url}", url) for each in options)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["rowcast.toml"]


def test_without_a_database_the_frame_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings, workflow, containers and README; settings that are there are kept, which is no finding."""
    outcomes = {each["path"]: each["outcome"] for each in init(folder, capsys)["files"]}
    frame = {"README.md", ".github/workflows/contracts.yml", *map(str, container_files("project"))}
    assert outcomes == dict.fromkeys(frame, "written") | {"rowcast.toml": "kept"}


SAMPLES = {
    "chinook": (
        "chinook/Chinook_PostgreSql.sql",
        11,
        {"album": "artist", "customer": "employee", "invoice": "customer"},
    ),
    "northwind": ("northwind/northwind.sql", 14, {"territories": "region"}),
}


@pytest.mark.slow
@pytest.mark.skipif("ROWCAST_TEST_DATA" not in os.environ, reason="ROWCAST_TEST_DATA names no folder of databases")
@pytest.mark.parametrize("name", SAMPLES)
def test_known_databases_are_drafted_whole(
    stack: SharedStack, folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Every table becomes an aggregate that check and plan accept, with its parent where there is one choice."""
    path, count, parents = SAMPLES[name]
    script = (Path(os.environ["ROWCAST_TEST_DATA"]) / "databases" / path).read_text(encoding="utf-8")
    script = re.sub(r"(?m)^(DROP DATABASE|CREATE DATABASE|\\c).*$", "", script)
    document = init(folder, capsys, "--database", load(stack, script).url, "--source", random_name(name))
    assert_accepted(stack, folder, capsys)
    assert (len(document["aggregates"]), document["left_out"]) == (count, {})
    assert {each["aggregate"]: each["ancestors"][0] for each in document["aggregates"] if each["ancestors"]} == parents
