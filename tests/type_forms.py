"""
The JSON forms of PostgreSQL's types: what SELECT shows and what an event has, for each documented type.

docs/reference/types.md has its table from here, and the tests of the stack try every value: in a first snapshot, in
the stream and in a preview, and, where the form can be read by PostgreSQL, back into the column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/types.md"
# Set up before the table is made; what is not there without an extension says so.
EXTENSIONS = ("citext", "hstore", "ltree")
PREPARATION = """
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN email AS text;
CREATE DOMAIN moment AS timestamptz(3);
"""
_TEXT_BACK = "(%s)::text::{type}::text"
_BACKS = {
    "bytea": "decode(%s, 'base64')::text",
    "hstore": "(SELECT coalesce(hstore(array_agg(key), array_agg(value)), '') FROM jsonb_each_text(%s::jsonb))::text",
    "point": "(SELECT point((v ->> 'x')::float8, (v ->> 'y')::float8) FROM (SELECT %s::jsonb AS v) AS d)::text",
    "bytea[]": "ARRAY(SELECT decode(v, 'base64') FROM jsonb_array_elements_text(%s::jsonb) AS v)::text",
}
_ARRAY_BACK = "ARRAY(SELECT jsonb_array_elements_text(%s::jsonb))::{type}::text"


@dataclass(frozen=True)
class Value:
    """A *type* as DDL has it, the *text* that SELECT shows, and the *form* in events."""

    type: str
    text: str
    form: Any
    readable: bool = True

    @property
    def back(self) -> str | None:
        """An expression that gives the text again, with the form as its parameter; None: there is none."""
        if not self.readable:
            return None
        template = _BACKS.get(self.type, _ARRAY_BACK if self.type.endswith("]") else _TEXT_BACK)
        return template.format(type=self.type)

    @property
    def parameter(self) -> str:
        """The form as the parameter of `back`."""
        return self.form if isinstance(self.form, str) else json.dumps(self.form)


def lossy(kind: str, text: str, form: Any) -> Value:
    """A value whose form PostgreSQL does not read, or does not show again as it was."""
    return Value(kind, text, form, readable=False)


@dataclass(frozen=True)
class Row:
    """A row of the table: *types* as it names them, the *json* type, the *form* in words, and its values."""

    types: str
    json: str
    form: str
    values: list[Value] = field(default_factory=list)

    def line(self) -> str:
        """As Markdown; long values are for the tests only."""
        shown = [
            f"`{each.text or ' '}` → `{json.dumps(each.form, ensure_ascii=False)}`"
            for each in self.values
            if len(each.text) < _SHOWN_MAX and each.text.isprintable()
        ]
        examples = "<br>".join(shown[:_EXAMPLES_MAX]).replace("|", "\\|")
        return f"| {self.types} | {self.json} | {self.form} | {examples} |"


_SHOWN_MAX = 60
_EXAMPLES_MAX = 10
V = Value
ROWS = [
    Row(
        "`smallint`, `integer`, `bigint`, `oid`",
        "integer",
        "digits; numbers above 2^53 are exact in the text of the JSON",
        [
            V("smallint", "-32768", -32768),
            V("integer", "7", 7),
            V("bigint", "9007199254740993", 9007199254740993),
            V("oid", "4294967295", 4294967295),
        ],
    ),
    Row(
        "`real`, `double precision`",
        "number",
        "shortest exact form; what is no number is a string",
        [
            V("real", "0.1", 0.1),
            V("double precision", "1e+300", 1e300),
            V("double precision", "-0", -0.0),
            V("real", "NaN", "NaN"),
            V("double precision", "Infinity", "Infinity"),
            V("double precision", "-Infinity", "-Infinity"),
        ],
    ),
    Row(
        "`numeric`",
        "string",
        "exact, with the column's scale",
        [
            V("numeric(10,2)", "12.50", "12.50"),
            V("numeric", "1.50", "1.50"),
            V("numeric", "1" + "0" * 5000, "1" + "0" * 5000),
            V("numeric", "0." + "1" * 300, "0." + "1" * 300),
            V("numeric", "NaN", "NaN"),
            V("numeric", "Infinity", "Infinity"),
            V("numeric", "-Infinity", "-Infinity"),
            V("numeric(10,2)", "NaN", "NaN"),
        ],
    ),
    Row(
        "`money`",
        "string",
        "exact, in a database whose `lc_monetary` writes dollars",
        [V("money", "$12.50", "12.50"), V("money", "-$92,233,720,368,547,758.08", "-92233720368547758.08")],
    ),
    Row("`boolean`", "boolean", "", [V("boolean", "true", True), V("boolean", "false", False)]),
    Row(
        '`text`, `varchar`, `"char"`, `name`, `citext`, `ltree`, `xml`, enumerations',
        "string",
        "",
        [
            V("text", "Grüße \U0001f600", "Grüße \U0001f600"),
            V("text", "", ""),
            V("text", 'a\nb\t\x01"\\', 'a\nb\t\x01"\\'),
            V("text", "￿\u2028NaN", "￿\u2028NaN"),
            V("varchar(5)", "ab  ", "ab  "),
            V('"char"', "x", "x"),
            V("name", "abc", "abc"),
            V("citext", "AbC", "AbC"),
            V("ltree", "a.b", "a.b"),
            V("xml", '<a b="1">x</a>', '<a b="1">x</a>'),
            V("mood", 'it\'s "ok"', 'it\'s "ok"'),
        ],
    ),
    Row("`char(n)`", "string", "padded with blanks, as PostgreSQL keeps it", [lossy("char(4)", "x   ", "x   ")]),
    Row(
        "`uuid`",
        "string",
        "lower case, with hyphens",
        [V("uuid", "0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1", "0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1")],
    ),
    Row(
        "`date`",
        "string",
        "RFC 3339 full-date; outside the years 1 to 9999 ISO 8601 with counted years (year 0 is 1 BC), or `infinity`",
        [
            V("date", "2026-03-02", "2026-03-02"),
            V("date", "1582-10-10", "1582-10-10"),
            V("date", "0001-01-01", "0001-01-01"),
            lossy("date", "10000-01-01", "+10000-01-01"),
            lossy("date", "5874897-12-31", "+5874897-12-31"),
            lossy("date", "0001-12-31 BC", "0000-12-31"),
            lossy("date", "0044-03-15 BC", "-0043-03-15"),
            lossy("date", "4713-01-01 BC", "-4712-01-01"),
            V("date", "infinity", "infinity"),
            V("date", "-infinity", "-infinity"),
        ],
    ),
    Row(
        "`timestamp with time zone`",
        "string",
        "RFC 3339, UTC, microseconds or as many digits as declared; else as `date`",
        [
            V("timestamptz", "2026-03-02 07:15:00.5+00", "2026-03-02T07:15:00.500000Z"),
            V("timestamptz(0)", "2026-03-02 07:15:00+00", "2026-03-02T07:15:00Z"),
            V("timestamptz(3)", "2026-03-02 07:15:00+00", "2026-03-02T07:15:00.000Z"),
            V("timestamptz", "1582-10-10 12:00:00+00", "1582-10-10T12:00:00.000000Z"),
            lossy("timestamptz", "294276-12-31 23:59:59.999999+00", "+294276-12-31T23:59:59.999999Z"),
            lossy("timestamptz", "0044-03-15 12:00:00+00 BC", "-0043-03-15T12:00:00.000000Z"),
            V("timestamptz", "infinity", "infinity"),
            V("timestamptz", "-infinity", "-infinity"),
        ],
    ),
    Row(
        "`timestamp`",
        "string",
        "the same without `Z`; fraction only as far as needed",
        [
            V("timestamp", "2026-03-02 09:15:00.5", "2026-03-02T09:15:00.5"),
            V("timestamp", "2026-03-02 00:00:00", "2026-03-02T00:00:00"),
            V("timestamp(0)", "2026-03-02 09:15:01", "2026-03-02T09:15:01"),
            V("timestamp", "1582-10-10 12:00:00", "1582-10-10T12:00:00"),
            lossy("timestamp", "294276-12-31 23:59:59.999999", "+294276-12-31T23:59:59.999999"),
            lossy("timestamp", "0044-03-15 12:00:00 BC", "-0043-03-15T12:00:00"),
            V("timestamp", "infinity", "infinity"),
            V("timestamp", "-infinity", "-infinity"),
        ],
    ),
    Row(
        "`time`",
        "string",
        "",
        [
            V("time", "09:15:00.25", "09:15:00.25"),
            V("time", "00:00:00", "00:00:00"),
            V("time(0)", "23:59:59", "23:59:59"),
            V("time", "23:59:59.999999", "23:59:59.999999"),
        ],
    ),
    Row(
        "`time with time zone`",
        "string",
        "UTC",
        [
            lossy("timetz", "09:15:00+02", "07:15:00Z"),
            lossy("timetz", "23:59:59.999999-15:59", "15:58:59.999999Z"),
            lossy("timetz", "24:00:00+00", "24:00:00Z"),
        ],
    ),
    Row(
        "`interval`",
        "string",
        "ISO 8601 duration",
        [
            V("interval", "1 year 2 mons 3 days 04:05:06.7", "P1Y2M3DT4H5M6.7S"),
            V("interval", "-1 days +02:00:00", "P0Y0M-1DT2H0M0S"),
            V("interval", "-178000000 years", "P-178000000Y0M0DT0H0M0S"),
            V("interval", "-00:00:00.000001", "P0Y0M0DT0H0M-0.000001S"),
            V("interval", "100000:00:00", "P0Y0M0DT100000H0M0S"),
        ],
    ),
    Row(
        "`bytea`",
        "string",
        "base64",
        [V("bytea", "\\x0102ff", "AQL/"), V("bytea", "\\x", ""), V("bytea", "\\x" + "61" * 100, "YWFh" * 33 + "YQ==")],
    ),
    Row(
        "`bit(n)`",
        "string",
        "the bits",
        [
            V("bit(1)", "1", "1"),
            V("bit(8)", "00000011", "00000011"),
            V("bit(12)", "000000000000", "000000000000"),
            V("bit(70)", "1100000000" * 7, "1100000000" * 7),
        ],
    ),
    Row(
        "`json`, `jsonb`",
        "any",
        "the document itself",
        [
            V("jsonb", '{"a": [1, null, 0.5]}', {"a": [1, None, 0.5]}),
            V("jsonb", "18446744073709551615", 18446744073709551615),
            V("jsonb", "null", None),
            lossy("json", '{"b":1,"a":1.0,"b":2}', {"b": 2, "a": 1.0}),
            lossy("json", '"\\u0000"', "\x00"),
        ],
    ),
    Row(
        "`hstore`",
        "object",
        "values are strings or null",
        [V("hstore", '"a"=>"1", "b c"=>NULL', {"a": "1", "b c": None}), V("hstore", "", {})],
    ),
    Row(
        "`point`",
        "object",
        "",
        [V("point", "(1.5,-2)", {"x": 1.5, "y": -2.0}), V("point", "(NaN,1e+300)", {"x": "NaN", "y": 1e300})],
    ),
    Row(
        "`inet`, `cidr`, `macaddr`, `macaddr8`",
        "string",
        "as PostgreSQL prints them",
        [
            lossy("inet", "10.0.0.1/32", "10.0.0.1"),
            V("inet", "10.0.0.1/8", "10.0.0.1/8"),
            V("inet", "2001:db8::/32", "2001:db8::/32"),
            V("cidr", "10.0.0.0/8", "10.0.0.0/8"),
            V("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:03"),
            V("macaddr8", "08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:05"),
        ],
    ),
    Row("`tsvector`", "string", "as PostgreSQL prints it", [V("tsvector", "'a':1A 'b':2,3", "'a':1A 'b':2,3")]),
    Row(
        "ranges: `int4range`, `int8range`, `numrange`, `daterange`, `tsrange`, `tstzrange`",
        "string",
        "as PostgreSQL prints them, times in UTC",
        [
            V("int4range", "[1,5)", "[1,5)"),
            V("int8range", "empty", "empty"),
            V("numrange", "(,5.50]", "(,5.50]"),
            V("daterange", "[2026-01-01,infinity)", "[2026-01-01,infinity)"),
            V("tsrange", '["2026-01-01 00:00:00",)', '["2026-01-01 00:00:00",)'),
            V(
                "tstzrange",
                '["2026-01-01 00:00:00+00","2026-02-01 00:00:00+00")',
                '["2026-01-01 00:00:00+00","2026-02-01 00:00:00+00")',
            ),
        ],
    ),
    Row(
        "multiranges of these",
        "string",
        "likewise",
        [
            V("int4multirange", "{[1,5),[7,9)}", "{[1,5),[7,9)}"),
            V("nummultirange", "{}", "{}"),
            V("tstzmultirange", '{["2026-01-01 00:00:00+00",)}', '{["2026-01-01 00:00:00+00",)}'),
        ],
    ),
    Row(
        "array of one dimension",
        "array",
        "each element in the form of its type",
        [
            V("text[]", '{eng,NULL,"","a,b"}', ["eng", None, "", "a,b"]),
            V("int[]", "{1,NULL}", [1, None]),
            V("int[]", "{}", []),
            V("varchar(5)[]", "{NULL}", [None]),
            V("smallint[]", "{1}", [1]),
            V("bigint[]", "{9223372036854775807}", [9223372036854775807]),
            V("double precision[]", "{0.1,NaN}", [0.1, "NaN"]),
            V("real[]", "{1.5}", [1.5]),
            V("numeric[]", "{1.50,1e30}".replace("1e30", "1" + "0" * 30), ["1.50", "1" + "0" * 30]),
            V("numeric(5,2)[]", "{1.50}", ["1.50"]),
            V("boolean[]", "{t,f,NULL}", [True, False, None]),
            V("uuid[]", "{0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1}", ["0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1"]),
            V("date[]", "{2026-03-02,infinity}", ["2026-03-02", "infinity"]),
            V("date[]", "{-infinity}", ["-infinity"]),
            lossy("date[]", "{10000-01-01}", ["+10000-01-01"]),
            V("timestamp[]", '{"2026-03-02 09:15:00.5",-infinity}', ["2026-03-02T09:15:00.5", "-infinity"]),
            V("timestamptz[]", '{"2026-03-02 07:15:00.5+00",infinity}', ["2026-03-02T07:15:00.500000Z", "infinity"]),
            V("timestamptz[]", "{-infinity}", ["-infinity"]),
            V("time[]", "{09:15:00}", ["09:15:00"]),
            lossy("timetz[]", "{09:15:00+02}", ["07:15:00Z"]),
            lossy("bytea[]", '{"\\\\x00ff"}', ["AP8="]),
            lossy("json[]", '{"{\\"a\\":1}"}', [{"a": 1}]),
            lossy("jsonb[]", '{"{\\"a\\": 1}",NULL}', [{"a": 1}, None]),
            V("inet[]", "{10.0.0.1}", ["10.0.0.1"]),
            V("cidr[]", "{10.0.0.0/8}", ["10.0.0.0/8"]),
            V("macaddr[]", "{08:00:2b:01:02:03}", ["08:00:2b:01:02:03"]),
            V("mood[]", '{sad,"it\'s \\"ok\\""}', ["sad", 'it\'s "ok"']),
            V("citext[]", "{AbC}", ["AbC"]),
            lossy("hstore[]", '{"\\"a\\"=>\\"1\\""}', [{"a": "1"}]),
            V("int4range[]", '{"[1,5)"}', ["[1,5)"]),
            V("char(4)[]", '{"x   "}', ["x   "]),
            V("oid[]", "{1}", [1]),
        ],
    ),
    Row(
        "domain",
        "as the type under it",
        "",
        [V("positive", "5", 5), V("moment", "2026-03-02 07:15:00+00", "2026-03-02T07:15:00.000Z")],
    ),
    Row(
        "array of a domain over `text`, `varchar`, `uuid`, `boolean`, `numeric` or whole numbers",
        "array",
        "",
        [V("email[]", "{A@b}", ["A@b"]), V("positive[]", "{5}", [5])],
    ),
]

SEVERAL = "an array of several dimensions, which the connector does not carry"
SEVERAL_OR_NULL = "an array of several dimensions, or of nothing but NULL, which the connector does not tell apart"
# Values that an event cannot carry: their type, the value, and what the refusal says.
REFUSED = [
    ("text[]", "'{{a,b},{c,d}}'", SEVERAL),
    ("int[]", "'{{1,2},{3,4}}'", SEVERAL_OR_NULL),
    ("int[]", "'{NULL}'", SEVERAL_OR_NULL),
    ("uuid[]", "'{{0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1}}'", SEVERAL),
    ("date[]", "'{0044-03-15 BC}'", "an array with a date before 1582-10-25, which the connector does not keep"),
    ("timestamp[]", "'{1000-01-01}'", "an array with a date before 1582-10-25, which the connector does not keep"),
    ("jsonb", "'1e400'", "a number of the document has more than 64 bits"),
    ("jsonb", "'0.12345678901234567891'", "a number of the document has more digits than a double holds"),
]


def values(extensions: bool) -> Iterator[Value]:
    """Every value; those of extensions only where there are any, and XML, for which a server may not be built."""
    elsewhere = () if extensions else (*EXTENSIONS, "xml")
    for row in ROWS:
        yield from (each for each in row.values if each.type.removesuffix("[]") not in elsewhere)


def table() -> str:
    """The table of docs/reference/types.md."""
    head = ["| PostgreSQL type | JSON type | Form | What SELECT shows → what an event has |", "|---|---|---|---|"]
    return "\n".join([*head, *(row.line() for row in ROWS)]) + "\n"


def main() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text().partition("| PostgreSQL type |")
    PAGE.write_text(before + table() + rest.partition("\n\n")[2].join(("\n", "")))


if __name__ == "__main__":
    main()
