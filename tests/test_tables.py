"""The door for tables: what it reads, and the sentence with which it refuses the rest."""

import csv
import io
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mcloop.data.tables import Table, default_table, load_table, split_target, standardise
from mcloop.types import InputError


def write(folder, data, name="t.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refused(path):
    with pytest.raises(InputError) as caught:
        load_table(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.endswith(".") and len(message) < 400
    return message


def finite_or_refused(path):
    """What holds of any bytes whatever."""
    table, said = None, "."
    try:
        table = load_table(path)
    except InputError as error:
        said = str(error)
    assert len(said.splitlines()) == 1 and said.endswith(".")
    if table is None:
        return None
    rows, columns = table.values.shape
    assert table.values.dtype == np.float64 and np.isfinite(table.values).all()
    assert rows >= 2 and columns == len(table.names) == len(set(table.names)) >= 1
    assert (table.values.min(0) < table.values.max(0)).all()
    return table


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_every_dialect_reads_the_same_numbers(tmp_path, delimiter, header, end, bom):
    rows = [["1.5", "-2"], ["3e2", "4"], ["5", "6"]]
    text = end.join(delimiter.join(row) for row in ([["a", "b"]] if header else []) + rows) + end
    table = load_table(write(tmp_path, bom + text.encode()))
    np.testing.assert_array_equal(table.values, [[1.5, -2], [300, 4], [5, 6]])
    assert table.names == (("a", "b") if header else ("column 1", "column 2"))
    assert table.dropped == ()


def test_one_column_needs_no_separator(tmp_path):
    table = load_table(write(tmp_path, "x\n1\n\n2\n"))
    assert table.names == ("x",) and table.values.tolist() == [[1], [2]]


def test_the_names_that_numpy_savetxt_writes(tmp_path):
    np.savetxt(tmp_path / "t.txt", [[1, 2], [3, 4]], header="x,y", delimiter=",")
    assert load_table(tmp_path / "t.txt").names == ("x", "y")


def test_text_constant_and_empty_columns_are_left_out_and_listed(tmp_path):
    table = load_table(write(tmp_path, 'name,x,"a;b",one,x,\nann,1,u,7,5,\nbob,2,v,7,6,\n'))
    assert table.names == ("x", "x (2)")
    np.testing.assert_array_equal(table.values, [[1, 5], [2, 6]])
    assert table.dropped == (
        ("name", "text"),
        ("a;b", "text"),
        ("one", "constant"),
        ("column 6", "no name and no values"),
    )
    assert table.target == "x (2)"  # what a separator at the end of every line makes is no column


def test_a_first_row_of_numbers_is_data_even_beside_text(tmp_path):
    table = load_table(write(tmp_path, "ann,1\nbob,2\n"))
    assert table.values.tolist() == [[1], [2]] and table.names == ("column 2",)
    assert table.dropped == (("column 1", "text"),)


def test_years_in_the_row_of_names(tmp_path):
    assert load_table(write(tmp_path, "id,2019,size\n1,10,3\n2,20,4\n")).names == ("id", "2019", "size")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("a,b\n", "1 row(s)"),
        ("1,2\n", "1 row(s)"),
        ("a,b\nx,y\nz,w\n", "no column of varying numbers ('column 1': text; 'column 2': text)"),
        ("a,b\n1,2\n1,2\n", "no column of varying numbers ('a': constant; 'b': constant)"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells where the first row has 2"),
        ("a,b\n1,2\n3,\n", "Column 'b' of {} has no number at line 3"),
        ("a,b\n1,2\nNaN,3\n2,4\n", "Column 'a' of {} has no number at line 3"),
        ("a,b\n1,2\n\n3,-inf\n", "Column 'b' of {} is infinite at line 4"),
        ("a,b\n1,2\n3,1e999\n", "Column 'b' of {} is infinite at line 3"),
        ("inf,inf\n1,2\n3,4\n", "Column 'column 1' of {} is infinite at line 1"),
        ("a,b\n1,2\n3,oops\n5,6\n", "Column 'b' of {} has a word among its numbers, at line 3"),
        ("a\n1\n2\n3\nz\n", "Column 'a' of {} has a word among its numbers, at line 5"),
        ("a\n1_0\n2_0\n", "no column of varying numbers"),
        ('a,b\n1,"2\n', "not well-formed CSV"),
        (b"a,b\n1,\xff\n", "not UTF-8 text (at byte 6)"),
        (b"a,b\n1,\x00\n", "holds binary data"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is a picture"),
    ],
)
def test_what_a_csv_may_not_hold(tmp_path, text, said):
    path = write(tmp_path, text)
    assert said.format(repr(path.name)) in refused(path)


def test_what_is_no_file(tmp_path):
    assert "is not a file" in refused(tmp_path)
    assert "There is no file" in refused(tmp_path / "absent.csv")
    assert "cannot be read" in refused(write(tmp_path, "1") / "under.csv")
    assert "cannot be read" in refused(tmp_path / "nul\0.csv")
    assert "cannot be read" in refused(tmp_path / ("long" * 65))


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = write(tmp_path, "1,2\n3,4\n")

    def forbid(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", forbid)
    assert "cannot be read (Permission denied)" in refused(path)


def test_npy(tmp_path):
    path = tmp_path / "t.npy"
    for array in (
        np.arange(6).reshape(3, 2),
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        np.arange(3, dtype=">f4"),
    ):
        np.save(path, array)
        np.testing.assert_array_equal(load_table(path).values, array.reshape(3, -1))
    for array, said in [
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        (np.array(1.0), "shape ()"),
        (np.zeros((0, 3)), "shape (0, 3)"),
        (np.array(["a", "b"]), "dtype <U1"),
        (np.array([1j, 2]), "dtype complex128"),
        (np.array([{}, 1], object), "cannot be read as NPY"),
        (np.array([[1.0, 2], [3, np.nan]]), "Column 'column 2' of {} has no number at row 2"),
        (np.array([np.inf, 1.0]), "Column 'column 1' of {} is infinite at row 1"),
        (np.array([[1.0, 2.0]]), "1 row(s)"),
    ]:
        np.save(path, array, allow_pickle=True)
        assert said.format(repr(path.name)) in refused(path)
    assert "cannot be read as NPY" in refused(write(tmp_path, "1,2\n3,4\n", "no.npy"))


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [1, 2, 3], "s": ["a", "b", "c"], "y": pa.array([0.5, 1, 2], pa.float32())}), path)
    table = load_table(path)
    assert table.names == ("x", "y") and table.dropped == (("s", "of type string"),)
    np.testing.assert_array_equal(table.values, [[1, 0.5], [2, 1], [3, 2]])
    pq.write_table(pa.table({"x": [1, None, 3]}), path)
    assert "Column 'x' of" in (said := refused(path)) and "no number at row 2" in said
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [1.0, 2, 4], "c": pd.Categorical(["u", "v", "u"]), "b": [True, False, True], "y": [1, 2, 4]})
    frame["d"] = pd.Categorical([5, 6, 5])
    for index in (["k1", "k2", "k3"], [7, 9, 8]):
        for name in (None, "key"):
            frame.set_index(pd.Index(index, name=name)).to_parquet(path)
            table = load_table(path)
            assert table.target == "d" and table.names == ("x", "b", "y", "d")
            assert [n for n, why in table.dropped if why.startswith("an index")] == [name or "__index_level_0__"]
            np.testing.assert_array_equal(table.values, [[1, 1, 1, 5], [2, 0, 2, 6], [4, 1, 4, 5]])
    pq.write_table(pa.table({"x": [1, None, 3]}), path)
    whole = path.read_bytes()
    assert "cannot be read as Parquet" in refused(write(tmp_path, whole[: len(whole) // 2], "cut.parquet"))
    assert "cannot be read as Parquet" in refused(write(tmp_path, "1,2\n3,4\n", "no.parquet"))


@pytest.mark.parametrize("module", ["pyarrow", "sklearn"])
def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "pyarrow":
        assert 'pip install "mcloop[tables]"' in refused(write(tmp_path, "PAR1", "t.parquet"))
    else:
        with pytest.raises(InputError, match="pip install scikit-learn"):
            default_table("digits")


@pytest.mark.parametrize(
    ("text", "names", "rows", "target"),
    [
        # spreadsheets of other countries
        ("\ufeffx;y\n1,5;2,25\n-3,125;1.000,5\n", ("x", "y"), [[1.5, 2.25], [-3.125, 1000.5]], "y"),
        ('x,y\n"1,500",1.5\n"2,000,000",2.5\n', ("x", "y"), [[1500, 1.5], [2e6, 2.5]], "y"),
        ("x;y\n1.500;1,5\n12;2,5\n", ("x", "y"), [[1500, 1.5], [12, 2.5]], "y"),  # y tells what the point in x is
        ("x\ty\n1 234,5\t5 %\n1\u202f000\t7,5 %\n", ("x", "y"), [[1234.5, 5], [1000, 7.5]], "y"),
        ("x;y\n1'234.5;TRUE\n7;FALSE\n8;true\n", ("x", "y"), [[1234.5, 1], [7, 0], [8, 1]], "y"),
        ("sep=;\nx;y\n1;\u22122\n2;3\n", ("x", "y"), [[1, -2], [2, 3]], "y"),
        ("x|y\n1|2\n3|4\n", ("x", "y"), [[1, 2], [3, 4]], "y"),
        # the index of a saved DataFrame is no column, wherever it came from
        (",x,y\n0,1,2\n1,3,5\n", ("x", "y"), [[1, 2], [3, 5]], "y"),
        ("Unnamed: 0,x,y\n0,1,2\n1,3,5\n", ("x", "y"), [[1, 2], [3, 5]], "y"),
        (",,x,y\na,0,1,2\na,1,3,5\n", ("x", "y"), [[1, 2], [3, 5]], "y"),
        ('"x" "y"\n"1" 5 6\n'.replace(" ", ",") + '"2",7,8\n', ("x", "y"), [[5, 6], [7, 8]], "y"),
        # names that are numbers
        (",0,1,2\n0,5.5,1.5,2.5\n1,6.5,2.5,0.5\n", ("0", "1", "2"), [[5.5, 1.5, 2.5], [6.5, 2.5, 0.5]], "2"),
        ("2019,2020\n5,6\n7,9\n", ("2019", "2020"), [[5, 6], [7, 9]], "2020"),
        ("town,2019\nann,5\nbob,7\n", ("2019",), [[5], [7]], "2019"),
        ('"7","3"\n5,6\n7,9\n', ("7", "3"), [[5, 6], [7, 9]], "3"),
        ("350.5,351,351.5,352,352.5\n1,2,4,7,1\n2,1,1,1,0\n", ("350.5", "351", "351.5", "352", "352.5"), None, "352.5"),
        # numbers that are none
        ("0,1,2,3,4\n5,6,7,8,9\n10,11,12,13,14\n", tuple(f"column {j}" for j in range(1, 6)), None, "column 5"),
        ("2001,2003\n2005,1999\n2002,2003\n", ("column 1", "column 2"), None, "column 2"),
        # a last column that cannot be read is still the last one
        ("x,y,note\n1,2,good\n3,5,bad\n", ("x", "y"), [[1, 2], [3, 5]], "note"),
        ("x,y,z\n1,2,7\n3,5,7\n", ("x", "y"), [[1, 2], [3, 5]], "z"),
        ('x,note,y\n1,"two\nlines, ""and"" a comma",2\n3,b,5\n', ("x", "y"), [[1, 2], [3, 5]], "y"),
        ("x,y,\n1,2,\n3,5,\n", ("x", "y"), [[1, 2], [3, 5]], "y"),
        ("x,y\n1,2,\n3,5,\n", ("x", "y"), [[1, 2], [3, 5]], "y"),  # a comma at the end of all lines but the first
    ],
)
def test_files_as_people_have_them(tmp_path, text, names, rows, target):
    table = load_table(write(tmp_path, text))
    assert (table.names, table.target) == (names, target)
    if rows is not None:
        np.testing.assert_array_equal(table.values, rows)
    if target in names:
        assert load_table(write(tmp_path, text.encode("utf-16"))) is not None
    else:
        with pytest.raises(InputError, match=f"The target '{target}' of 't.csv', its last column, was left out .*last"):
            split_target(table)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,1,2\n5,6,8\n7,9,9\n", "first row of 't.csv' may be one of names or one of numbers"),
        ("x;y\n1,234;5\n12;6\n", "Column 'x' of 't.csv' has a comma at line 2 that may stand before decimals or between"),
        ("x;y\n5%;5\n12;6\n", "Column 'x' of 't.csv' writes its numbers in more than one way"),
        ("x;y\n1,5;5\n1.5;6\n", "Column 'x' of 't.csv' writes its numbers in more than one way"),
        ("x;y\n1,5;secret\nsecret;6\n3,5;7\n4,5;8\n", "Column 'x' of 't.csv' has a word among its numbers, at line 3"),
        (b"\x1f\x8b\x08\x00\x00", "is compressed by gzip: unpack it first"),
        (b"PK\x03\x04\x14\x00[Content_Types].xml", "is a file of Excel: save it as CSV"),
        (b"PK\x03\x04\x14\x00a.csv", "is a zip: unpack it first"),
        (b"\x00\x05\x16\x07\x00\x02", "what a Mac keeps beside a file"),
    ],
)
def test_what_nobody_can_tell_is_refused_without_a_word_of_what_is_in_it(tmp_path, text, said):
    message = refused(write(tmp_path, text))
    assert said in message and "secret" not in message and "1,234" not in message and str(tmp_path) not in message


def test_no_value_of_a_table_is_ever_told(tmp_path):
    table = load_table(write(tmp_path, "who,x,same,y\nsecret1,1,77431,2\nsecret2,3,77431,4\n"))
    told = repr((table.source, table.names, table.dropped, table.target))
    assert "secret" not in told and "77431" not in told and str(tmp_path) not in told


WAYS = {
    "point": lambda v: f"{v:.2f}",
    "comma": lambda v: f"{v:.2f}".replace(".", ","),
    "thousands": lambda v: f"{v:,.2f}",
    "both": lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,")),
    "spaces": lambda v: f"{v:,.2f}".translate(str.maketrans(",.", "\u00a0,")),
    "percent": lambda v: f"{v:.2f} %",
}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-1e7, 1e7), min_size=4, max_size=12), st.sampled_from(sorted(WAYS)), st.sampled_from(",;\t|"))
def test_every_way_of_writing_is_the_same_numbers(tmp_path_factory, numbers, way, delimiter):
    numbers = [round(v, 2) + 0.0 for v in numbers]
    file = io.StringIO(newline="")
    rows = csv.writer(file, delimiter=delimiter)
    rows.writerows([["n", "x", "y"], *([i, WAYS[way](v), f"w{i}"] for i, v in enumerate(numbers))])
    table = finite_or_refused(write(tmp_path_factory.getbasetemp(), file.getvalue()))
    assert table is not None and table.target == "y" and dict(table.dropped)["y"] == "text"
    if len(set(numbers)) > 1:
        np.testing.assert_allclose(table.values[:, list(table.names).index("x")], numbers, rtol=0, atol=1e-9)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text("0123456789.,;\t\n\r\"' eE-+naif#x", max_size=120).map(str.encode))
@example(b"\xef\xbb\xbf")
@example(b"\xef\xbb\xbf1\n2")
@example(b'"\n')
@example(b"\x1c\x1d\n1")
@example(b'"a\nb",1\n2,3\n4,')
def test_any_bytes_are_a_table_or_one_sentence(tmp_path_factory, data):
    finite_or_refused(write(tmp_path_factory.getbasetemp(), data))


CELLS = st.floats().map(repr) | st.integers(-9, 9).map(str) | st.text(max_size=4) | st.sampled_from(["", "nan", "1_0"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=6), st.sampled_from(",;\t"))
def test_any_grid_of_text_is_a_table_or_one_sentence(tmp_path_factory, grid, delimiter):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(grid)
    finite_or_refused(write(tmp_path_factory.getbasetemp(), text.getvalue().encode("utf-8", "surrogatepass")))


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(float, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2), elements=FINITE), st.booleans())
def test_numbers_survive_a_csv_to_the_last_bit(tmp_path_factory, values, header):
    lines = [",".join(map(repr, row)) for row in values.tolist()]
    names = [f"v{j}" for j in range(values.shape[1])]
    path = write(tmp_path_factory.getbasetemp(), "\n".join(([",".join(names)] if header else []) + lines))
    kept = values.min(0) < values.max(0)
    table = finite_or_refused(path)
    assert (table is None) == (not kept.any())
    if table is not None:
        np.testing.assert_array_equal(table.values, values[:, kept])
        assert len(table.dropped) == np.count_nonzero(~kept)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_to_an_npy_is_a_table_or_one_sentence(tmp_path_factory, data):
    file = io.BytesIO()
    np.save(file, np.arange(8.0).reshape(4, 2))
    damaged = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    finite_or_refused(write(tmp_path_factory.getbasetemp(), bytes(damaged[:cut] if data.draw(st.booleans()) else damaged)))
    junk = b"\x93NUMPY" + data.draw(st.binary(max_size=60))
    finite_or_refused(write(tmp_path_factory.getbasetemp(), junk))


def test_standardise_undoes_any_shift_and_scale():
    values = np.random.default_rng(0).normal(size=(50, 4)) * [1, 1e-300, 1e300, 3] + [0, 0, 0, 1e6]
    z, mean, scale = standardise(values)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)
    np.testing.assert_allclose(z * scale + mean, values, rtol=1e-9)
    with pytest.raises(InputError, match="Column 2"):
        standardise(np.array([[1.0, 5.0], [2.0, 5.0]]))


def test_the_built_in_tables():
    digits, diabetes = default_table("digits"), default_table("diabetes")
    assert digits.values.shape == (1797, 8) and diabetes.values.shape == (442, 11)
    assert diabetes.names[-1] == "target" and diabetes.values[:, -1].mean() == pytest.approx(152.13, abs=0.01)
    covariance = np.cov(digits.values.T)  # principal components: uncorrelated, in falling order of variance
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diff(np.diag(covariance)) < 0).all()
    from sklearn import datasets, decomposition

    pixels = np.asarray(datasets.load_digits(return_X_y=True)[0])
    pca = decomposition.PCA(8, svd_solver="full").fit(pixels)
    np.testing.assert_allclose(np.diag(covariance), pca.explained_variance_, rtol=1e-9)
    signs = np.array([np.sign(axis[np.abs(axis).argmax()]) for axis in np.asarray(pca.components_)])
    np.testing.assert_allclose(digits.values, pca.transform(pixels) * signs, atol=1e-9)
    with pytest.raises(InputError, match="'iris' is not built in; choose 'digits' or 'diabetes'"):
        default_table("iris")


def test_split_target():
    table = Table(np.arange(6.0).reshape(2, 3), ("a", "b", "c"), "here", (("s", "text"),))
    x, y, names = split_target(table)
    assert x.tolist() == [[0, 1], [3, 4]] and y.tolist() == [2, 5] and names == ("a", "b")
    x, y, names = split_target(table, "a")
    assert x.tolist() == [[1, 2], [4, 5]] and y.tolist() == [0, 3] and names == ("b", "c")
    with pytest.raises(InputError, match=r"The target 'z' of here is not in it; choose one of 'a', 'b', 'c'\."):
        split_target(table, "z")
    with pytest.raises(InputError, match=r"The target 's' of here was left out \(text\)"):
        split_target(table, "s")
    with pytest.raises(InputError, match="needs a column besides the target 'a'"):
        split_target(Table(np.arange(2.0)[:, None], ("a",), "here"))
