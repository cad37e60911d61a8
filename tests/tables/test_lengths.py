import pytest

from macformer.tables import TableError, make_tables
from macformer.tables.lengths import draw_lengths, read_benchmark

BENCH = """attention,mode,length,ms,ratio,peak MiB,failure
rfa,forward,512,2.0,0.5,1.0,
softmax,forward,1024,16.0,1.0,8.0,
softmax,forward,512,4.0,1.0,2.0,
rfa,forward,1024,,,,out of memory
softmax,forward_backward,512,9.0,1.0,0.0,
"""


@pytest.fixture
def bench(tmp_path):
    file = tmp_path / "named.csv"
    file.write_text(BENCH)
    return file


def test_nothing_is_drawn_of_what_failed_or_is_zero(bench, tmp_path):
    head, *lines = BENCH.splitlines(keepends=True)

    def titles(lines: list[str]) -> list[str]:
        bench.write_text("".join([head, *lines]))
        return [plot.title for plot in draw_lengths(bench, out=tmp_path)]

    assert titles(lines) == ["Time against length", "Memory against length"]
    assert titles(lines[4:]) == ["Time against length"]
    assert titles(lines[3:4]) == []


@pytest.mark.parametrize("named", [True, False])
def test_the_page_shows_a_benchmark(write_run, sweep, bench, named):
    write_run()
    bench.with_suffix(".md").write_text("cpu, <1> thread\n\n| attention |\n")
    if not named:
        bench.rename(sweep / "bench.csv")
    files = make_tables([sweep], bench=bench if named else None)
    assert {sweep / "length_time.png", sweep / "length_memory.svg"} <= set(files)
    page = (sweep / "index.html").read_text()
    assert page.count('<svg role="group"') == 3  # and the front
    assert "Memory against length" in page
    assert page.count("cpu, &lt;1&gt; thread") == (2 if named else 0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a,b\n1,2\n", "lacks the columns attention"),
        (BENCH.replace("16.0", "slow"), "not all of its column ms are numbers"),
        ("", "cannot read"),
    ],
)
def test_another_file_is_refused(tmp_path, content, complaint):
    file = tmp_path / "other.csv"
    file.write_text(content)
    with pytest.raises(TableError, match=complaint):
        read_benchmark(file)
