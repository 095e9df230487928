"""Mixed tables: the kind of every column, from every format, and the sentence with which the rest is refused."""

import bz2
import datetime
import decimal
import gzip
import importlib
import io
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcloop.data.mixed import MixedTable, parse_columns, read_table, typed
from mcloop.types import InputError

ROWS = 40


def write(folder, data, name="t.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refused(call, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.endswith(".") and len(message) < 400
    return message


def well_formed(table):
    """What holds of every mixed table."""
    frame = table.frame
    assert isinstance(table, MixedTable) and len(frame) >= 2
    assert list(frame.columns) == [kind.name for kind in table.kinds] and frame.columns.is_unique
    assert not set(frame.columns) & {name for name, _ in table.dropped}
    for kind in table.kinds:
        column = frame[kind.name]
        assert kind.missing == column.isna().any() and kind.why
        gaps = kind.missing
        if kind.kind == "category":
            assert isinstance(column.dtype, pd.CategoricalDtype)
            assert all(type(one) is str for one in column.cat.categories)
            assert list(column.cat.categories) == sorted(set(column.dropna()))
        else:
            kinds = {"number": "float64", "integer": "float64" if gaps else "int64", "boolean": "boolean" if gaps else "bool"}
            assert str(column.dtype) == {**kinds, "date": "datetime64[ns]"}[kind.kind]
        assert column.nunique() > 1
    return table


def kinds(table):
    return {kind.name: kind.kind + "?" * kind.missing for kind in well_formed(table).kinds}


def column(values, kind=None, **settings):
    """A column beside another one, so that a table is left where it is left out: (kind, why or remark, values)."""
    values = list(values)
    other = [(7 * i) % 11 for i in range(len(values))]
    table = typed({"it": values, "other": other}, columns={"it": kind} if kind else None, **settings)
    if "it" in dict(table.dropped):
        return "", dict(table.dropped)["it"], None
    return kinds(table)["it"], table.kinds[0].why, table.frame["it"]


def everything(rows=ROWS):
    """A frame with a column of every kind, with and without gaps."""
    rng = np.random.default_rng(0)
    gap = rng.random(rows) < 0.3
    day = np.datetime64("2020-01-01") + rng.integers(0, 999, rows)
    return pd.DataFrame(
        {
            "number": rng.normal(size=rows),
            "number?": np.where(gap, np.nan, rng.normal(size=rows)),
            "integer": rng.integers(-9, 9, rows),
            "integer?": pd.Series(rng.integers(0, 5, rows)).where(~gap),
            "category": rng.choice(["Red", "red", " dark blue"], rows),
            "category?": pd.Series(rng.choice(["a", 'b "c"', "d,e"], rows)).where(~gap),
            "boolean": rng.random(rows) < 0.5,
            "boolean?": pd.Series(rng.random(rows) < 0.5, dtype="boolean").mask(pd.Series(gap)),
            "date": pd.Series(day.astype("datetime64[s]") + rng.integers(0, 86400, rows)),
            "date?": pd.Series(day.astype("datetime64[ns]")).where(~gap),
        }
    )


KINDS = {name: name for name in everything().columns}


class Polars:
    """As much of a polars frame as is needed."""

    def __init__(self, frame):
        self._frame = frame

    def to_pandas(self):
        return self._frame


def same(a, b):
    pd.testing.assert_frame_equal(a.frame, b.frame)
    assert a.kinds == b.kinds or [k[:3] for k in a.kinds] == [k[:3] for k in b.kinds]


# ---- kinds


def test_every_kind_with_and_without_gaps():
    table = typed(everything())
    assert kinds(table) == KINDS and table.dropped == () and table.source == "the table" and table.target == ""
    np.testing.assert_array_equal(table.frame["number?"], everything()["number?"])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, 2.5, 3.5], "number"),
        ([1.0, 2.0, 3.0], "number"),
        ([3, 1, 3], "integer"),
        ([3, None, 4], "integer?"),
        ([0, 1, 0, 1], "integer"),
        ([2**60, 1, 5], "integer"),
        ([2**63, 1, 5], "number"),
        ([2**70, 1, 5], "number"),
        ([decimal.Decimal("1.5"), decimal.Decimal("2.25")], "number"),
        (["3,5", "4,25", ""], "number?"),
        (["1,234,567", "2", "3"], "integer"),
        (["5 %", "7.5 %", "9 %"], "number"),
        (["1.234,5", "17,5", "3"], "number"),
        (["12", "7", "9"], "integer"),
        ([True, False, None], "boolean?"),
        (["yes", "No", "YES"], "boolean"),
        (["t", "f", "t", "?"], "boolean?"),
        (["true", "FALSE"], "boolean"),
        (["Y", "n", "y"], "boolean"),
        (["a", "b", "a", "b"], "category"),
        (["a", "A", " a", "a", "A", " a"], "category"),
        (["a", "NA", "b", "a", "b"], "category?"),
        ([("a", "b")[i % 2] if i % 3 else 5 for i in range(12)], "category"),
        ([datetime.date(2020, 1, 2), datetime.date(2021, 1, 2), None], "date?"),
        ([datetime.datetime(2020, 1, 2, 3), datetime.datetime(2021, 1, 2)], "date"),
        ([datetime.timedelta(1), datetime.timedelta(seconds=3)], "number"),
        ([b"a", b"b", b"a", b"b"], "category"),
        (["007", "012", "007", "012"], "category"),
    ],
)
def test_the_kind_of_a_column(values, kind):
    assert column(values)[0] == kind


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["ann", "bob", "cid"], "identifiers"),
        ([f"{i:05}" for i in range(9)], "identifiers"),
        (range(30), "identifiers"),
        (range(1, 31), "identifiers"),
        ([None, None, None], "no values"),
        (["", " ", "n/a"], "no values"),
        ([5, 5, 5], "constant"),
        (["a", None, "a"], "constant"),
        (["yes", "yes", ""], "constant"),
        ([f"a long remark, all of it words, on {i % 7} things that matter" for i in range(9)], "free text"),
        ([[1], [2], [1]], "of type list"),
        ([{"a": 1}, {"a": 2}], "of type dict"),
        ([1j, 2j, 3j], "complex numbers"),
    ],
)
def test_what_nobody_can_learn_from_is_left_out(values, why):
    assert column(list(values) if not isinstance(values, np.ndarray) else values)[:2] == ("", why)


@pytest.mark.parametrize("name", ["id", "ID", "user_id", "customerId", "UUID", "row number"])
def test_whole_numbers_that_are_called_identifiers_and_all_differ(name):
    table = typed({name: [90, 17, 33], "x": [1.5, 2, 4]})
    assert table.dropped == ((name, "identifiers"),)
    assert kinds(typed({name: [90, 17, 33], "x": [1.5, 2, 4]}, columns={name: "integer"}))[name] == "integer"
    assert kinds(typed({name: [90, 17, 17], "x": [1.5, 2, 4]}))[name] == "integer"  # the same one twice: an attribute


@pytest.mark.parametrize("name", ["paid", "humid", "year", "keys"])
def test_other_names_are_no_identifiers(name):
    assert kinds(typed({name: [1990, 1991, 1992], "x": [1.5, 2, 4]}))[name] == "integer"


@pytest.mark.parametrize("values", [range(5, 40), [*range(1, 30), 31], range(30, 0, -1), range(0, 60, 2)])
def test_numbers_that_do_not_count_the_rows_are_kept(values):
    assert column(values)[0] == "integer"


# ---- dates


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["2020-01-31", "2020-02-01"], ["2020-01-31", "2020-02-01"]),
        (["2020-1-31", "2020-2-1"], ["2020-01-31", "2020-02-01"]),
        (["2020/01/31", "2020/02/01"], ["2020-01-31", "2020-02-01"]),
        (["2020-01-31T10:20:30.25Z", "2020-02-01T00:00:00Z"], ["2020-01-31T10:20:30.25", "2020-02-01"]),
        (["2020-01-31 10:20:30+02:00", "2020-02-01 00:00"], ["2020-01-31T08:20:30", "2020-02-01"]),
        (["31/01/2020", "01/02/2020"], ["2020-01-31", "2020-02-01"]),
        (["01/31/2020", "02/01/2020"], ["2020-01-31", "2020-02-01"]),
        (["1/31/2020 1:05 PM", "2/1/2020 12:00 AM"], ["2020-01-31T13:05", "2020-02-01"]),
        (["03.04.2020", "01.02.2020"], ["2020-04-03", "2020-02-01"]),
        (["04.13.2020", "01.02.2020"], ["2020-04-13", "2020-01-02"]),
        (["03/03/2020", "04/04/2021"], ["2020-03-03", "2021-04-04"]),
        (["31 Jan 2020", "1 February 2020"], ["2020-01-31", "2020-02-01"]),
        (["31-JAN-2020", "01-Feb-2020"], ["2020-01-31", "2020-02-01"]),
        (["January 31, 2020", "Feb 1, 2020"], ["2020-01-31", "2020-02-01"]),
        (["Fri, 31 Jan 2020 10:20:30 GMT", "Sat, 1 Feb 2020 00:00:00 GMT"], ["2020-01-31T10:20:30", "2020-02-01"]),
    ],
)
def test_dates_in_common_forms(written, expected):
    kind, why, values = column([*written, None, written[0]])
    assert kind == "date?" and why.startswith("dates, ")
    assert values.iloc[:2].tolist() == [pd.Timestamp(one) for one in expected] and pd.isna(values.iloc[2])
    assert column(written, "date")[0] == "date"


@pytest.mark.parametrize(
    "written",
    [["01/02/2020", "03/04/2020"], ["13/01/2020", "01/13/2020"], ["1-2-2020", "3-4-2020"]],
)
def test_a_day_that_may_be_a_month_is_not_guessed(written):
    table = typed({"when": written * 4, "x": range(8)})
    assert kinds(table)["when"] == "category" and "day and month cannot be told apart" in table.remarks[0]
    assert "day and month" in column([*written])[1]  # all different: left out
    assert "day and month cannot be told apart" in refused(column, written, "date")


@pytest.mark.parametrize("written", [["31/02/2020", "13/01/2020"], ["1500-01-01", "1600-01-01"], ["2020-13-01", "2020-01-01"]])
def test_dates_that_are_in_no_calendar_of_64_bits(written):
    table = typed({"when": written * 4, "x": range(8)})
    assert kinds(table)["when"] == "category" and table.remarks


@pytest.mark.parametrize(
    "written", [["March", "May"], ["2020", "2021"], ["12:30", "13:30"], ["1/2", "3/4"], ["May 5", "Jun 6"]]
)
def test_what_is_no_date(written):
    assert column(written * 4)[0] != "date"


def test_whole_numbers_are_dates_where_asked_for():
    assert column([20200131, 20200201])[0] == "integer"
    kind, _, values = column([20200131, 20200201], "date")
    assert kind == "date" and values.iloc[0] == pd.Timestamp("2020-01-31")
    assert column(["20200131", "20200201"], "date")[0] == "date"
    assert "YYYYMMDD" in refused(column, [20201331, 20200201], "date")


def test_dates_of_numpy_of_any_unit_and_with_zones():
    days = np.array(["2020-01-01", "2021-01-01", "NaT"], "datetime64[D]")
    assert column(days)[0] == "date?"
    zoned = pd.Series(pd.to_datetime(["2020-01-01 01:00", "2021-01-01 00:00"])).dt.tz_localize("Europe/Berlin")
    values = typed({"it": zoned, "x": [1, 2]}).frame["it"]
    assert values.tolist() == [pd.Timestamp("2020-01-01"), pd.Timestamp("2020-12-31 23:00")]
    assert "between 1678 and 2261" in column([datetime.date(1500, 1, 1), datetime.date(2020, 1, 1)])[1]


# ---- overrules


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2, 1], "category", ["1", "2", "1"]),
        ([1, None, 2], "category", ["1", None, "2"]),
        ([1.5, 2.0, 1.5], "category", ["1.5", "2.0", "1.5"]),
        ([True, False, True], "category", ["True", "False", "True"]),
        (["ann", "bob", "cid"], "category", ["ann", "bob", "cid"]),
        (["yes", "no", "yes"], "category", ["yes", "no", "yes"]),
        ([np.datetime64("2020-01-01"), np.datetime64("2020-01-02")], "category", ["2020-01-01", "2020-01-02"]),
        ([1, 2, 4], "number", [1.0, 2.0, 4.0]),
        ([True, False, True], "number", [1.0, 0.0, 1.0]),
        (["007", "012"], "integer", [7, 12]),
        ([1.0, 2.0, 5.0], "integer", [1, 2, 5]),
        ([True, False, None], "integer", [1, 0, None]),
        ([0, 1, 1], "boolean", [False, True, True]),
        ([0, 1, None], "boolean", [False, True, None]),
        (["1", "0", "1"], "boolean", [True, False, True]),
    ],
)
def test_a_kind_can_be_named(values, kind, expected):
    found, why, made = column(values, kind)
    assert found.rstrip("?") == kind and why == "asked for"
    assert [None if pd.isna(one) else one for one in made] == expected


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        (["a", "1", "2"], "number", "cannot be of kind 'number': it has no number at row 1"),
        (["1", "2", "a"], "integer", "at row 3"),
        ([1.5, 2.0], "integer", "it is not whole at row 1; choose 'number' or 'category'"),
        (["1", "2.5"], "integer", "it is not whole at row 2"),
        ([1, 2, 0], "boolean", "neither 0 nor 1 at row 2"),
        (["ja", "nein"], "boolean", "its words must be yes and no"),
        (["a", "b"], "date", "write its dates as YYYY-MM-DD"),
        ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], "number", "holds dates"),
        ([1, 2, 4], "text", "cannot be of kind 'text'; choose number, integer, category, boolean or date"),
    ],
)
def test_a_kind_that_a_column_cannot_have(values, kind, said):
    assert said in refused(column, values, kind)


def test_a_constant_stays_out_whatever_is_asked_for():
    assert column([5, 5, 5], "category") == ("", "constant", None)


def test_columns_ignored_and_the_target():
    table = typed({"a": [1, 2], "b": [3.5, 4], "y": ["u", "v"]}, ignore=["a"], columns={"y": "category"}, target="y")
    assert kinds(table) == {"b": "number", "y": "category"} and table.target == "y"
    assert table.dropped == (("a", "asked to be left out"),)
    assert typed({"a": [1, 2], "b": [3.5, 4]}, ignore="a").dropped == (("a", "asked to be left out"),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"columns": {"z": "number"}}, "columns names 'z', which the table does not have; choose from 'a', 'who', 'one'."),
        ({"ignore": ["z"]}, "ignore names 'z'"),
        ({"target": "z"}, "target names 'z'"),
        ({"target": "who"}, "The target 'who' of the table was left out (identifiers); choose one of 'a'."),
        ({"target": "one"}, "was left out (constant)"),
        ({"target": "a", "ignore": ["a"]}, "ignore names 'a', which is the target too"),
        ({"columns": {"a": "number"}, "ignore": ["a"]}, "which is in columns too"),
    ],
)
def test_names_that_are_not_there(settings, said):
    assert said in refused(typed, {"a": [1, 2, 4], "who": ["u", "v", "w"], "one": [1, 1, 1]}, **settings)


# ---- bad input


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"a": [1]}, "has 1 row(s)"),
        ({}, "has 0 row(s)"),
        ([], "has 0 row(s)"),
        ({"a": ["x", "y"], "id": [1, 2]}, "The table has only identifiers ('a', 'id')"),
        ({"a": [None, None]}, "The table has no values: every cell is missing"),
        ({"a": [1, 1], "b": [None, None]}, "no usable column ('a': constant; 'b': no values)"),
        (np.zeros((3, 2001)), "has 2,001 columns; at most 2,000"),
        (pd.DataFrame(np.zeros((3, 2001))), "has 2,001 columns"),
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        ({"a": [1, 2], "b": [1, 2, 3]}, "have 2 to 3 rows"),
        ({"a": 5}, "must be a sequence of values"),
        ("t.csv", "must be a frame of pandas or polars"),
        (5, "and is of type int"),
        ({"a": [1.5, np.inf, 3]}, "Column 'a' of the table is infinite at row 2"),
        ({"a": ["1", "2", "3", "oops", "5"]}, "has a word among its numbers, at row 4"),
        ({"a": ["1.5", "2,5", "1.25", "3,25"]}, "writes its numbers in more than one way"),
        ({"a": ["1,234", "5,678", "91", "7"]}, "that may stand before decimals or between thousands"),
    ],
)
def test_what_a_table_may_not_be(given_, said):
    assert said in refused(typed, given_)


def test_a_word_among_few_levels_of_numbers_makes_categories_and_is_said():
    table = typed({"a": ["1", "2", "3", "none of these"] * 5, "x": range(20)}, columns={"x": "integer"})
    assert kinds(table)["a"] == "category" and "words among its numbers" in table.remarks[0]
    assert "none of these" not in "".join([*table.remarks, *(kind.why for kind in table.kinds)])


def test_cells_are_not_told(tmp_path):
    text = "a,b,c\n1,secret,x\nsecret,secret2,x\n3,secret3,x\n4,secret4,x\n5,secret5,x\n"
    path = write(tmp_path, text)
    assert "secret" not in refused(read_table, path)
    for kind in ("number", "integer", "date", "boolean"):
        said = refused(read_table, path, columns={"b": kind}, ignore=["a"])
        assert "secret" not in said and str(tmp_path) not in said
    table = read_table(path, columns={"a": "category"})
    assert "secret" not in repr((table.kinds, table.dropped, table.remarks, table.source)) and table.source == "'t.csv'"


def test_columns_of_one_name_are_numbered(tmp_path):
    assert list(read_table(write(tmp_path, "x,x,x\n1,2.5,5\n2,3.5,7\n")).frame) == ["x", "x (2)", "x (3)"]
    frame = pd.DataFrame([[1, 2], [3, 5]], columns=["x", "x"])
    assert list(typed(frame).frame) == ["x", "x (2)"]


def test_parse_columns():
    assert parse_columns(["category=zip,code", "date=when"]) == {"zip": "category", "code": "category", "when": "date"}
    assert parse_columns("category=zip, post code date=when") == {"zip": "category", "post code": "category", "when": "date"}
    assert parse_columns(['number="a,b",c=d']) == {"a,b": "number", "c=d": "number"}
    assert parse_columns([]) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zip"], "columns 'zip' must be written as kind=name,name"),
        (["category="], "must be written as kind=name,name"),
        (["text=zip"], "columns names the kind 'text'; choose number, integer, category, boolean or date."),
        (["number=a,,b"], "has an empty name"),
        (["number=a", "date=a"], "columns names 'a' as number and as date; choose one."),
        (['number="a'], "quotation mark that is not closed"),
    ],
)
def test_parse_columns_refuses(words, said):
    assert said in refused(parse_columns, words)


# ---- files


def test_every_kind_comes_through_a_csv(tmp_path):
    everything().to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv")
    assert kinds(table) == KINDS and table.source == "'t.csv'" and table.remarks == ()
    same(table, typed(everything()))
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv").frame, table.frame)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_every_dialect(tmp_path, delimiter, end, encoding):
    rows = ["naïve,size,when", "Zoë,1.5,2020-01-02", '"Zoë",,2020-01-03', "Jos\u00e9,2.5,", ",1e3,2020-01-02"]
    text = end.join(row.replace(",", delimiter) for row in rows) + end
    table = read_table(write(tmp_path, text.encode(encoding)))
    assert kinds(table) == {"naïve": "category?", "size": "number?", "when": "date?"}
    assert table.frame["naïve"].cat.categories.tolist() == ["José", "Zoë"]
    assert bool(table.remarks) == (encoding == "latin-1") and all("Latin-1" in one for one in table.remarks)


@pytest.mark.parametrize("wide", [0.5, 1234.5])
def test_decimal_commas(tmp_path, wide):
    shown = [f"{wide + i:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".") for i in range(9)]
    text = "a;b;c;d\n" + "\n".join(f"{one};{i},25;1.{i}00;{i % 3}" for i, one in enumerate(shown))
    table = read_table(write(tmp_path, text))
    assert kinds(table) == {"a": "number", "b": "number", "c": "integer", "d": "integer"}
    np.testing.assert_array_equal(table.frame["a"], wide + np.arange(9))
    np.testing.assert_array_equal(table.frame["c"], 1000 + 100 * np.arange(9))  # told by the others


def test_decimal_commas_that_come_late_are_told_all_the_same(tmp_path):
    rows = [f"{'' if i < 2500 else '3,5' if i % 2 else '4,25'};{i % 9 + 1}.{i % 7}00" for i in range(3000)]
    table = read_table(write(tmp_path, "late;thousands\n" + "\n".join(rows)))
    assert kinds(table) == {"late": "number?", "thousands": "integer"}
    assert table.frame["thousands"].iloc[10] == 2300


def test_numbers_with_a_decimal_point_stay_where_another_column_has_commas(tmp_path):
    text = "a;b\n" + "\n".join(f"{i}.5;{i},25" for i in range(9))
    assert read_table(write(tmp_path, text)).frame["a"].iloc[1] == 1.5


def test_codes_with_a_zero_in_front(tmp_path):
    text = "zip,month,x\n" + "\n".join(f"{7 * (i % 5):05},0{i % 9 + 1},{i}" for i in range(1, 40))
    table = read_table(write(tmp_path, text))
    assert kinds(table) == {"zip": "category", "month": "category"} and table.dropped == (("x", "identifiers"),)
    assert table.frame["zip"].iloc[0] == "00007"
    assert kinds(read_table(write(tmp_path, text), columns={"zip": "integer"}))["zip"] == "integer"


def test_named_categories_are_kept_as_they_are_written(tmp_path):
    table = read_table(write(tmp_path, "a,b\n1.50,1\n2,2\n 1.50,3\n,4\n"), columns={"a": "category"})
    assert table.frame["a"].cat.categories.tolist() == [" 1.50", "1.50", "2"] and kinds(table)["a"] == "category?"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("colour,size\nred,S\nblue,M\nred,M\n", ["colour", "size"]),
        ("red,S\nblue,M\nred,M\nblue,S\n", ["column 1", "column 2"]),
        ("red,1\nblue,2\nred,5\n", ["column 1", "column 2"]),
        ("2020-01-01,a\n2020-02-01,b\n2020-03-01,a\n", ["column 1", "column 2"]),
        (",a,b\n0,x,1\n1,y,2\n2,x,4\n", ["a", "b"]),
        ("a,b\nr1,x,1\nr2,y,2\nr3,x,4\n", ["a", "b"]),
        ("a,b,\nx,1,\ny,2,\nx,4,\n", ["a", "b"]),
        ("\n\na,b\n\nx,1\n\ny,2\nx,4\n\n", ["a", "b"]),
        ("sep=;\na;b\nx;1\ny;2\nx;4\n", ["a", "b"]),
        ('"a\nb",c\nx,1\ny,2\nx,4\n', ["a\nb", "c"]),
    ],
)
def test_where_names_come_from(tmp_path, text, names):
    assert list(well_formed(read_table(write(tmp_path, text))).frame) == names


def test_a_single_column_of_a_csv(tmp_path):
    assert kinds(read_table(write(tmp_path, "a\n1.5\n\n2\n"))) == {"a": "number"}
    assert kinds(read_table(write(tmp_path, "a\nx\ny\nx\nx\n"))) == {"a": "category"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n", "1 row(s)"),
        ("a,b\nx,1\n", "1 row(s)"),
        ("a,b\nx,1\ny\n", "is ragged: line 3 has 1 cells where the first row has 2"),
        ("a,b\nx,1\ny,2,3\n", "is ragged: line 3 has 3 cells"),
        ('a,b\nx,"1\ny,2\n', "not well-formed CSV"),
        ("a,b\nx,1\n\ny,inf\nx,2\n", "Column 'b' of 't.csv' is infinite at line 4"),
        ("a,b\nx,1\ny,2\nx,oops\n\ny,3\ny,4", "Column 'b' of 't.csv' has a word among its numbers, at line 4"),
        (b"a,b\n1,\x00\n", "holds binary data"),
        (b"\xff\xfea\x00\xd8", "not UTF-16 text"),
        (b"\xffab\x01\x02", "holds binary data"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is a picture; a mixed table is a CSV, Parquet, Feather, Excel, NPY or JSON lines"),
        (",".join(f"c{i}" for i in range(2001)) + "\n" + ",".join("1" * 2001), "has 2,001 columns; at most 2,000"),
    ],
)
def test_what_a_csv_may_not_hold(tmp_path, text, said):
    assert said in refused(read_table, write(tmp_path, text))


def test_what_is_no_file(tmp_path):
    assert "There is no file" in refused(read_table, tmp_path / "none.csv")
    assert "is not a file" in refused(read_table, tmp_path)


def zipped(data, names=("t.csv",)):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return out.getvalue()


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zip": zipped}


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_tables(tmp_path, suffix):
    text = everything().to_csv(index=False).encode()
    for name in (f"t.csv{suffix}", "t.csv"):  # what a file is says how it begins, and not its name
        table = read_table(write(tmp_path, PACKERS[suffix](text), name))
        same(table, typed(everything()))
        assert table.source == repr(name)
    damaged = PACKERS[suffix](text)[:-20]
    assert "is damaged and cannot be unpacked" in refused(read_table, write(tmp_path, damaged, f"t.csv{suffix}"))


def test_archives_of_one_table(tmp_path):
    text = b"a,b\nx,1\ny,2\nx,4\n"
    assert "holds 2 files" in refused(read_table, write(tmp_path, zipped(text, ("a.csv", "b.csv")), "t.zip"))
    assert len(read_table(write(tmp_path, zipped(text, ("__MACOSX/._a.csv", "a.csv")), "t.zip")).frame) == 3
    lines = "\n".join(json.dumps({"a": i % 3, "b": i / 4}) for i in range(9)).encode()
    assert kinds(read_table(write(tmp_path, zipped(lines, ("t.jsonl",)), "t.zip"))) == {"a": "integer", "b": "number"}
    assert "is empty" in refused(read_table, write(tmp_path, gzip.compress(b" "), "t.csv.gz"))


def test_zstd_with_and_without_its_package(tmp_path, monkeypatch):
    path = write(tmp_path, b"\x28\xb5\x2f\xfd\x00\x00", "t.csv.zst")
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        zstandard = None
    if zstandard:
        packed = write(tmp_path, zstandard.ZstdCompressor().compress(b"a,b\nx,1\ny,2\nx,4\n"), "u.csv.zst")
        assert len(read_table(packed).frame) == 3
        write(tmp_path, packed.read_bytes() * 2, packed.name)  # two frames behind one another
        assert len(read_table(packed, columns={"b": "category"}).frame) == 7
        assert "is damaged" in refused(read_table, write(tmp_path, packed.read_bytes()[:-3], packed.name))
        assert "is damaged" in refused(read_table, path)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    assert "needs zstandard: pip install zstandard, or unpack it first" in refused(read_table, path)


@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_tables_of_arrow(tmp_path, form):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    getattr(everything(), f"to_{form}")(tmp_path / "t.x")
    table = read_table(tmp_path / "t.x")
    assert kinds(table) == KINDS
    pd.testing.assert_frame_equal(table.frame, typed(everything()).frame)
    (tmp_path / "t.x").write_bytes((tmp_path / "t.x").read_bytes()[:-30])
    assert f"cannot be read as {form.title()}" in refused(read_table, tmp_path / "t.x")


def test_what_else_parquet_can_hold(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "day": pa.array([datetime.date(2020, 1, 1), None, datetime.date(2021, 1, 1)]),
            "dec": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25"), None]),
            "dict": pa.array(["a", "b", "a"]).dictionary_encode(),
            "list": pa.array([[1], [2], [3]]),
            "small": pa.array([1, 2, 7], pa.uint8()),
            "none": pa.nulls(3),
            "zoned": pa.array([0, 1, 2], pa.timestamp("s", "Europe/Berlin")),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert kinds(read) == {"day": "date?", "dec": "number?", "dict": "category", "small": "integer", "zoned": "date"}
    assert read.dropped == (("list", "of type ndarray"), ("none", "no values"))
    same(read, typed(table))
    frame = everything().set_index("category")
    frame.to_parquet(tmp_path / "t.parquet")
    assert ("category", "an index, which is no column of data") in read_table(tmp_path / "t.parquet").dropped
    assert kinds(read_table(tmp_path / "t.parquet", columns={"category": "category"}))["category"] == "category"


def test_a_frame_of_arrow_types_and_of_strings():
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame = everything()
    for backend in ("pyarrow", "numpy_nullable"):
        pd.testing.assert_frame_equal(typed(frame.convert_dtypes(dtype_backend=backend)).frame, typed(frame).frame)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert 'needs pyarrow: pip install "mcloop[tables]"' in refused(read_table, write(tmp_path, b"PAR1....PAR1", "t.parquet"))


def test_excel_or_the_package_that_it_needs(tmp_path):
    path = tmp_path / "t.xlsx"
    try:
        importlib.import_module("openpyxl")
    except ImportError:
        book = zipped(b"", ("[Content_Types].xml", "xl/workbook.xml"))
        assert "Reading 't.xlsx' needs openpyxl: pip install openpyxl" in refused(read_table, write(tmp_path, book, path.name))
        return
    with pd.ExcelWriter(path) as book:
        everything().drop(columns="date").to_excel(book, index=False, startrow=2, startcol=1)
        everything().to_excel(book, sheet_name="other")
    table = read_table(path)
    assert kinds(table) == {name: kind for name, kind in KINDS.items() if name != "date"}
    assert "has 2 sheets, of which the first was read" in table.remarks[0]
    pd.testing.assert_series_equal(table.frame["category?"], typed(everything()).frame["category?"])


def test_an_excel_that_is_none(tmp_path):
    said = refused(read_table, write(tmp_path, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "t.xls"))
    assert "needs xlrd: pip install xlrd" in said or "cannot be read as Excel" in said


def test_arrays(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.normal(size=(9, 3)).astype("f4")
    np.save(tmp_path / "t.npy", array)
    table = read_table(tmp_path / "t.npy")
    assert kinds(table) == dict.fromkeys(["column 1", "column 2", "column 3"], "number")
    same(table, typed(array))
    assert kinds(typed(np.array(["a", "b", "a"]))) == {"column 1": "category"}
    assert kinds(typed(np.array([["a", 1], ["b", 2], ["a", 5]], object))) == {"column 1": "category", "column 2": "integer"}
    np.save(tmp_path / "t.npy", np.array([{}, 1], object), allow_pickle=True)
    assert "cannot be read as NPY" in refused(read_table, tmp_path / "t.npy")


def test_structured_arrays(tmp_path):
    fields = [
        ("x", ">f4"),
        ("half", "f2"),
        ("n", "u1"),
        ("who", "U3"),
        ("raw", "S2"),
        ("on", "?"),
        ("day", "M8[D]"),
        ("v", "f8", 2),
    ]
    array = np.zeros(6, [*fields, ("one", "i4")])
    array["x"] = array["half"] = np.arange(6) / 4
    array["n"], array["who"], array["raw"] = [5, 5, 1, 1, 2, 2], list("ababab"), [b"u", b"v", b"u", b"u", b"v", b"v"]
    array["on"], array["day"] = [1, 0, 1, 1, 0, 0], np.datetime64("2020-01-01") + np.arange(6)
    np.save(tmp_path / "t.npy", array)
    table = read_table(tmp_path / "t.npy")
    found = {
        "x": "number",
        "half": "number",
        "n": "integer",
        "who": "category",
        "raw": "category",
        "on": "boolean",
        "day": "date",
    }
    assert kinds(table) == found
    assert table.dropped == (("v", "of type float64 and shape (2,)"), ("one", "constant"))
    same(table, typed(array.view(np.recarray)))


def test_lines_of_json(tmp_path):
    records = [
        {"a": i % 3, "b": ["u", "v"][i % 2], "c": None if i % 4 else i / 8, "d": {"e": 1}, "t": i % 2 == 0} for i in range(9)
    ]
    records[3].pop("b")
    text = "\n".join(map(json.dumps, records))
    expected = {"a": "integer", "b": "category?", "c": "number?", "t": "boolean"}
    for name in ("t.jsonl", "t.ndjson", "t.txt"):
        table = read_table(write(tmp_path, text, name))
        assert kinds(table) == expected and table.dropped == (("d", "of type dict"),)
    same(read_table(write(tmp_path, json.dumps(records), "t.json")), table)
    same(typed(records), table)
    assert "Line 2 of 't.jsonl' is no JSON" in refused(read_table, write(tmp_path, '{"a": 1}\n{"a"\n', "t.jsonl"))
    assert "another thing at line 2" in refused(read_table, write(tmp_path, '{"a": 1}\n5\n', "t.jsonl"))
    assert "at line 5" in refused(read_table, write(tmp_path, '{"a": 1}\n\n{"a": 2}\n\n{"a": "x"}\n{"a": 7}', "t.jsonl"))


def test_frames_of_others():
    frame = everything()
    same(typed(Polars(frame)), typed(frame))
    same(typed({name: frame[name] for name in frame}), typed(frame))
    same(typed(frame.set_index(pd.Index(range(100, 100 + ROWS)))), typed(frame))
    assert kinds(typed(frame.set_index("category"))) == {name: kind for name, kind in KINDS.items() if name != "category"}
    assert list(typed(pd.DataFrame([[1, "a"], [2, "b"], [4, "a"]], columns=[("u", "v"), 7])).frame) == ["u v", "column 8"]
    assert kinds(typed(pd.Series([1, 2, 4], name="s"))) == {"s": "integer"}
    assert typed({"a": [1, 2]}, source="the answers").source == "the answers"


def test_what_is_given_is_not_changed():
    frame = everything()
    kept = frame.copy(deep=True)
    made = typed(frame).frame
    for name in made:
        made.loc[:, name] = made[name].iloc[::-1].to_numpy()
    pd.testing.assert_frame_equal(frame, kept)


def test_categories_of_pandas_stay_what_they_are():
    frame = pd.DataFrame({"a": pd.Categorical(["2", "10", "2", None]), "b": pd.Categorical([3, 1, 3, 1]), "x": [1, 2, 4, 8]})
    table = typed(frame)
    assert kinds(table) == {"a": "category?", "b": "category", "x": "integer"}
    assert table.frame["b"].tolist() == ["3", "1", "3", "1"]
    assert typed(frame, columns={"a": "integer"}).frame["a"].tolist()[:3] == [2, 10, 2]
    assert typed(frame.iloc[:3]).frame["a"].cat.categories.tolist() == ["10", "2"]


# ---- real tables


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_tables_that_scikit_learn_ships(tmp_path, name):
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    data = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = data.frame
    if hasattr(data, "target_names") and name != "diabetes":
        frame = frame.assign(target=data.target_names[data.target])
    table = typed(frame, target="target")
    found = kinds(table)
    assert len(table.frame) == len(frame) and not table.dropped
    assert found["target"] == ("number" if name == "diabetes" else "category") and found[frame.columns[0]] == "number"
    frame.to_csv(tmp_path / "t.csv", index=False)
    same(read_table(tmp_path / "t.csv", target="target"), table)


def test_clips_of_motion(data_folder):
    """A table of people's motions: styles, actions and lengths, with the name of each clip."""
    path = data_folder / "bandai_motion.npz"
    if not path.is_file():
        pytest.skip("bandai_motion.npz is not in the folder of real data")
    with np.load(path) as held:
        names, lengths = held["clip_names"], held["clip_lengths"]
    parts = [str(name).split("_") for name in names]
    table = typed(
        {"clip": names, "set": [p[0] for p in parts], "action": [p[1] for p in parts], "style": [p[2] for p in parts]}
        | {"frames": lengths}
    )
    assert kinds(table) == {"set": "category", "action": "category", "style": "category", "frames": "integer"}
    assert table.dropped == (("clip", "identifiers"),) and len(table.frame) == 3076


# ---- round trips

TEXTS = st.sampled_from(
    ["red", "Red", " a b", 'q"uote', "com,ma", "semi;colon", "line\nbreak", "é", "x'y", "日本", "a\tb", "|"]
)
COLUMNS = {
    "number": st.floats(allow_nan=True, allow_infinity=False),
    "integer": st.integers(-(2**62), 2**62),
    "category": st.one_of(st.none(), TEXTS),
    "boolean": st.sampled_from([True, False, None]),
    "date": st.one_of(st.none(), st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))),
}


@st.composite
def frames(draw):
    rows = draw(st.integers(2, 12))
    kinds_ = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=6))
    dtypes = {"number": "float64", "integer": "int64", "category": object, "boolean": "boolean", "date": "datetime64[ns]"}
    columns = {}
    for j, kind in enumerate(kinds_):
        held = draw(st.lists(COLUMNS[kind], min_size=rows, max_size=rows))
        columns[f"{kind} {j}"] = pd.Series(held, dtype=dtypes[kind])
    return pd.DataFrame(columns), {f"{kind} {j}": kind for j, kind in enumerate(kinds_)}


@settings(max_examples=25)
@given(frames(), st.sampled_from([",", ";", "\t", "|"]))
def test_a_frame_comes_back_from_a_csv(tmp_path_factory, drawn, delimiter):
    frame, named = drawn
    path = tmp_path_factory.mktemp("frames") / "t.csv"
    frame.to_csv(path, index=False, sep=delimiter)
    try:
        table = typed(frame, columns=named)
    except InputError:  # nothing but constants, say
        assert "t.csv" in refused(read_table, path, columns=named)
        return
    read = read_table(path, columns=named)
    well_formed(read)
    assert read.dropped == table.dropped
    pd.testing.assert_frame_equal(read.frame, table.frame)
    pd.testing.assert_frame_equal(read_table(path, columns=named).frame, read.frame)


@settings(max_examples=150)
@given(st.binary(max_size=300) | st.text("ab01.,;\n\"'-: \t", max_size=120).map(str.encode))
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("bytes"), data)
    try:
        table, said = read_table(path), "."
    except InputError as error:
        table, said = None, str(error)
    assert len(said.splitlines()) == 1 and said.endswith(".")
    if table:
        well_formed(table)
