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
        ("name", "text, 'ann'"),
        ("a;b", "text, 'u'"),
        ("one", "constant, 7"),
        ("column 6", "no values"),
    )


def test_a_first_row_of_numbers_is_data_even_beside_text(tmp_path):
    table = load_table(write(tmp_path, "ann,1\nbob,2\n"))
    assert table.values.tolist() == [[1], [2]] and table.names == ("column 2",)
    assert table.dropped == (("column 1", "text, 'ann'"),)


def test_years_in_the_row_of_names(tmp_path):
    assert load_table(write(tmp_path, "id,2019,size\n1,10,3\n2,20,4\n")).names == ("id", "2019", "size")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("a,b\n", "1 row(s)"),
        ("1,2\n", "1 row(s)"),
        ("a,b\nx,y\nz,w\n", "no column of varying numbers ('column 1': text, 'a'; 'column 2': text, 'b')"),
        ("a,b\n1,2\n1,2\n", "no column of varying numbers ('a': constant, 1; 'b': constant, 2)"),
        ("1,5;2,5\n3,5;4,5\n", "no column of varying numbers ('column 1': text, '1,5'"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells where the first row has 2"),
        ("a,b\n1,2\n3,\n", "Column 'b' of {} has no number at line 3"),
        ("a,b\n1,2\nNaN,3\n2,4\n", "Column 'a' of {} has no number at line 3"),
        ("a,b\n1,2\n\n3,-inf\n", "Column 'b' of {} is infinite at line 4"),
        ("a,b\n1,2\n3,1e999\n", "Column 'b' of {} is infinite at line 3"),
        ("a,b\n1,2\n3,oops\n5,6\n", "Column 'b' of {} has 'oops' among its numbers, at line 3"),
        ("a\n1\n2\n3\nz\n", "Column 'a' of {} has 'z' among its numbers, at line 5"),
        ("a\n1_0\n2_0\n", "no column of varying numbers"),
        ('a,b\n1,"2\n', "not well-formed CSV"),
        (b"a,b\n1,\xff\n", "not UTF-8 text (at byte 6)"),
        (b"a,b\n1,\x00\n", "holds binary data"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8 text (at byte 0)"),
    ],
)
def test_what_a_csv_may_not_hold(tmp_path, text, said):
    path = write(tmp_path, text)
    assert said.format(repr(str(path))) in refused(path)


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
        assert said.format(repr(str(path))) in refused(path)
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
    table = Table(np.arange(6.0).reshape(2, 3), ("a", "b", "c"), "here", (("s", "text, 'u'"),))
    x, y, names = split_target(table)
    assert x.tolist() == [[0, 1], [3, 4]] and y.tolist() == [2, 5] and names == ("a", "b")
    x, y, names = split_target(table, "a")
    assert x.tolist() == [[1, 2], [4, 5]] and y.tolist() == [0, 3] and names == ("b", "c")
    with pytest.raises(InputError, match=r"The target 'z' of here is not in it; choose one of 'a', 'b', 'c'\."):
        split_target(table, "z")
    with pytest.raises(InputError, match=r"The target 's' of here was left out \(text, 'u'\)"):
        split_target(table, "s")
    with pytest.raises(InputError, match="needs a column besides the target 'a'"):
        split_target(Table(np.arange(2.0)[:, None], ("a",), "here"))
