from math import isnan

import pytest

from macformer.tables import TableError, main
from macformer.tables.decision import MEANINGS, read_rates


def test_rates_are_read_from_the_command_line_or_a_file(tmp_path):
    file = tmp_path / "rates.yaml"
    file.write_text("# of our provider\nhour: 1.2\ndocuments: 2e5\nmonths: 12\n")
    assert read_rates(str(file)) == read_rates("hour=1.2, documents=200000,months=12")


def test_what_is_not_given_has_no_value():
    rates = read_rates("loss=1")
    assert rates.loss == 1 and rates.is_given("loss")
    assert all(isnan(getattr(rates, name)) for name in MEANINGS if name != "loss")


MISTAKES = {
    "houre=1": "no rate houre; there are hour, kwh,",
    "hour=cheap": "hour=cheap is no number from 0 on; it is the price of one device",
    "hour=-1": "hour=-1 is no number",
    "documents=0": "documents=0 is no number above 0",
    "hour=nan": "hour=nan is no number",
    "hour=1,hour=2": "hour is given twice",
    "saving=150": "saving=150 is above 100 %",
    "months=12": "months=... needs documents=",
    "outputs": "outputs is neither a rate such as hour=1.2 nor a .yaml file; folders stand before",
    "missing.yaml": "cannot read missing.yaml",
}


@pytest.mark.parametrize(("text", "line"), MISTAKES.items())
def test_a_mistake_gives_one_line_before_anything_is_written(
    text, line, write_run, sweep, capsys, monkeypatch
):
    monkeypatch.chdir(write_run().parent)
    assert main([str(sweep), "--decide", text]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("macformer-tables: --decide: ") and line in error
    assert not (sweep / "table.md").exists()


@pytest.mark.parametrize("content", ["- 1", "hour: true", "hour: {", "hour: [1]", "1: 2"])
def test_a_file_that_holds_no_rates_is_refused(content, tmp_path):
    file = tmp_path / "rates.yaml"
    file.write_text(content)
    with pytest.raises(TableError, match="--decide"):
        read_rates(str(file))
