"""Runs found and read: everything that a folder of runs can look like."""

import pytest
from helpers.runs import write_run

from common.layout import read_progress, read_table
from curves.lines import arrange, group
from curves.read import load


def test_a_last_line_that_is_being_written_does_not_count(tmp_path):
    run = write_run(tmp_path, "a", 0, [1, 2])
    with open(run / "progress.txt", "a") as file:
        file.write("3\tnan\t3\t3000\t0.1")  # all its cells, but the last may go on
    notes: list[str] = []
    assert read_progress(run, notes.append)["AverageTestEpRet"].tolist() == [1, 2]
    assert notes == [f"{run / 'progress.txt'}: the last line has no end yet and is left out"]


def test_a_comma_between_quotes_ends_no_cell(tmp_path):
    (tmp_path / "a.csv").write_text('step,"return, mean"\n1,"2"\n')
    assert {name: list(column) for name, column in read_table(tmp_path / "a.csv").items()} == {
        "step": [1.0],
        "return, mean": [2.0],
    }


@pytest.mark.parametrize("damage", ["\0" * 1_000_000, "1\r2", '"1'])
def test_a_damaged_line_is_left_out_and_noted(tmp_path, damage):
    (tmp_path / "a.txt").write_bytes(f"step\treturn\n1\t2\n{damage}\n3\t4\n".encode())
    notes: list[str] = []
    assert read_table(tmp_path / "a.txt", notes.append)["return"].tolist() == [2.0, 4.0]
    assert [note.split(": ")[1] for note in notes] == ["line 3 has 1 cells, the header 2; the line is left out"]


@pytest.mark.parametrize("change", ["commas", "spaces", "quotes", "crlf", "mark"])
def test_tables_of_other_programs_are_read(tmp_path, change):
    run = write_run(tmp_path, "a", 0, [1, 2])
    text = (run / "progress.txt").read_text()
    changed = {
        "commas": text.replace("\t", ","),
        "spaces": text.replace("\t", ", "),
        "quotes": "".join('"' + line.replace("\t", '","') + '"\n' for line in text.splitlines()),
        "crlf": text.replace("\n", "\r\n"),
        "mark": "\ufeff" + text,
    }
    (run / "progress.txt").write_bytes(changed[change].encode())
    columns = read_progress(run)
    assert (columns["AverageTestEpRet"].tolist(), columns["LossQ"].tolist()) == ([1, 2], [0.5, 0.25])
    assert [*columns] == text.split("\n")[0].split("\t")


def test_a_damaged_line_is_left_out_and_named(tmp_path, capsys):
    run = write_run(tmp_path, "a", 0, [1])
    with open(run / "progress.txt", "a") as file:
        file.write("2\tnan\n3\tnan\t3\t3000\t0.1\n")
    assert read_progress(run)["AverageTestEpRet"].tolist() == [1, 3]
    assert "progress.txt: line 3 has 2 cells, the header 5" in capsys.readouterr().err


def test_a_cell_that_is_no_number_is_bridged(tmp_path):
    write_run(tmp_path, "a", 0, [1, "None", 3])  # type: ignore[list-item]
    write_run(tmp_path, "a", 1, [1, 2, 3])
    (panel,) = arrange(group(load([str(tmp_path)])))
    assert panel.lines[0].values.tolist() == [[1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("text", ["", "Epoch\tAverage", "Epoch\tAverageTestEpRet\n", "\n\n"])
def test_a_run_without_a_row_is_left_out_and_named(tmp_path, capsys, text):
    write_run(tmp_path, "a", 0, [1, 2])
    (write_run(tmp_path, "a", 1, [1]) / "progress.txt").write_text(text)
    assert [run.seed for run in load([str(tmp_path)])] == ["0"]
    assert "a_s1/progress.txt has no row yet; the run is left out" in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "", '{"env": "Ga', "[1, 2]", "\xff"])
def test_a_run_without_readable_settings_is_left_out_and_named(tmp_path, capsys, text):
    write_run(tmp_path, "a", 0, [1, 2])
    config = write_run(tmp_path, "a", 1, [1]) / "config.json"
    config.unlink() if text is None else config.write_bytes(text.encode("latin-1"))
    assert [run.seed for run in load([str(tmp_path)])] == ["0"]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a_s1/config.json" in error


def test_a_logdir_that_does_not_exist_is_a_prefix(tmp_path):
    for name in ("i2q_a", "i2q_b", "iddpg"):
        write_run(tmp_path, name, 0, [1])
    assert [run.name for run in load([str(tmp_path / "i2q")])] == ["i2q_a", "i2q_b"]


def test_a_logdir_that_exists_is_no_prefix(tmp_path):
    for name in ("i2q", "i2q_old"):
        write_run(tmp_path, name, 0, [1])
    assert [run.name for run in load([str(tmp_path / "i2q")])] == ["i2q"]


def test_a_run_met_twice_counts_once(tmp_path):
    write_run(tmp_path, "a", 0, [1])
    assert len(load([str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "a_s0")])) == 1


def test_links_are_followed_and_count_once(tmp_path):
    write_run(tmp_path / "data", "a", 0, [1])
    (tmp_path / "data" / "a" / "a_s1").symlink_to(write_run(tmp_path / "scratch", "a", 1, [1]))
    (tmp_path / "data" / "a" / "again").symlink_to(tmp_path / "data" / "a" / "a_s1")
    (tmp_path / "data" / "a" / "above").symlink_to(tmp_path / "data")
    assert [run.seed for run in load([str(tmp_path / "data")])] == ["0", "1"]


def test_seed_ten_comes_after_seed_two(tmp_path):
    for seed in (10, 2):
        write_run(tmp_path, "a", seed, [1])
    assert [run.seed for run in load([str(tmp_path)])] == ["2", "10"]


def test_lambda_zero_comes_before_lambda_one_fifth(tmp_path):
    for name in ("lam0.2", "lam0", "lam10"):
        write_run(tmp_path, name, 0, [1])
    assert [run.name for run in load([str(tmp_path)])] == ["lam0", "lam0.2", "lam10"]


def test_select_wants_every_string_and_exclude_none(tmp_path):
    for name in ("i2q_lam1", "i2q_lam2", "iddpg"):
        for seed in (0, 1):
            write_run(tmp_path, name, seed, [1])
    runs = load([str(tmp_path)], select=["i2q", "lam"], exclude=["lam2", "_s1"])
    assert [run.path.name for run in runs] == ["i2q_lam1_s0"]


def test_a_string_that_ends_in_a_digit_is_a_whole_number(tmp_path):
    for seed in (1, 10, 11, 2):
        write_run(tmp_path, "a", seed, [1])
    assert [run.seed for run in load([str(tmp_path)], exclude=["_s1"])] == ["2", "10", "11"]
    assert [run.seed for run in load([str(tmp_path)], select=["_s1"])] == ["1"]
