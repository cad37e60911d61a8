"""Cells in processes of their own, whatever ends them."""

import json
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from filelock import FileLock

from macformer.record import RANK_ERROR_NAME, SCHEMA
from macformer.runs import cell, process, stop


@pytest.fixture
def exit_with(monkeypatch):
    """Replace the process of a cell by one that ends at once with a given code."""
    commands = []

    def replace(returncode, kills=(0, 0)):
        def popen(command, **options):
            commands.append((command, options))
            return SimpleNamespace(wait=lambda: returncode)

        stand_in = SimpleNamespace(Popen=popen, TimeoutExpired=subprocess.TimeoutExpired)
        monkeypatch.setattr(process, "subprocess", stand_in)
        counts = iter(kills)
        monkeypatch.setattr(process, "num_out_of_memory_kills", lambda: next(counts))
        return commands

    return replace


class Stoppable(SimpleNamespace):
    """A process that is waited for once, and then ends when it is asked to."""

    def __init__(self, wait):
        waits = iter([wait])
        super().__init__(wait=lambda *timeout: next(waits, lambda: 0)(), send_signal=lambda s: None)


def read_metrics(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


def write_status(run_dir, status, **keys):
    accuracy = {"best": {"test": 0.4}} if status == "finished" else None
    record = {"schema": SCHEMA, "status": status, "task": "listops", "accuracy": accuracy, **keys}
    (run_dir / "metrics.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("returncode", "reason"),
    [(-signal.SIGSEGV, "signal 11"), (-signal.SIGABRT, "signal 6"), (3, "exit code 3")],
)
def test_the_parent_records_a_cell_that_could_not(tmp_path, exit_with, returncode, reason):
    write_status(tmp_path, "running")
    exit_with(returncode)
    assert not process.run_in_process(tmp_path, overwrite=False)
    metrics = read_metrics(tmp_path)
    assert metrics["status"] == "failed" and metrics["task"] == "listops"
    assert reason in metrics["reason"]


def test_a_cell_that_dies_before_it_writes_still_has_a_row(make_run, exit_with):
    cfg, run_dir = make_run("attention=rfa")
    exit_with(-signal.SIGSEGV)
    assert not process.run_in_process(run_dir, overwrite=False)
    metrics = read_metrics(run_dir)
    assert (metrics["status"], metrics["attention"]) == ("failed", "rfa")
    assert metrics["identity"] == cfg.identity


@pytest.mark.parametrize(
    "returncode",
    [
        *(-s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)),
        *(-s for s in (signal.SIGHUP, signal.SIGKILL, signal.SIGXCPU)),
        0,  # as Lightning ends on SIGTERM up to 2.6.6
        143,  # and later
    ],
)
def test_a_cell_that_was_stopped_is_interrupted(tmp_path, exit_with, capsys, returncode):
    write_status(tmp_path, "running")
    exit_with(returncode)
    assert not process.run_in_process(tmp_path, overwrite=False)
    assert read_metrics(tmp_path)["status"] == "interrupted"
    (line,) = capsys.readouterr().err.splitlines()
    assert "interrupted" in line and "the same command goes on" in line


@pytest.mark.parametrize("how", ["the cell", "the parent"])
def test_who_overwrites_is_told_how_to_go_on_and_not_begin_anew(
    tmp_path, exit_with, capsys, monkeypatch, how
):
    write_status(tmp_path, "running")
    exit_with(-signal.SIGTERM)
    if how == "the parent":

        def wait():
            raise stop.Stopped("SIGTERM", 143)

        monkeypatch.setattr(process.subprocess, "Popen", lambda *args, **options: Stoppable(wait))
        with pytest.raises(SystemExit):
            process.run_in_process(tmp_path, overwrite=True)
    else:
        assert not process.run_in_process(tmp_path, overwrite=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; the same command without overwrite=true goes on from here")


@pytest.mark.parametrize(("kills", "status"), [((4, 5), "failed"), ((None, None), "interrupted")])
def test_the_system_kills_for_want_of_memory(tmp_path, exit_with, kills, status):
    write_status(tmp_path, "running")
    exit_with(-signal.SIGKILL, kills)
    assert not process.run_in_process(tmp_path, overwrite=False)
    assert read_metrics(tmp_path)["status"] == status
    assert ("memory" in read_metrics(tmp_path)["reason"]) == (status == "failed")


def test_a_cell_that_another_process_runs_is_left_alone(tmp_path, exit_with):
    write_status(tmp_path, "running")
    exit_with(os.EX_TEMPFAIL)
    assert not process.run_in_process(tmp_path, overwrite=False)
    assert read_metrics(tmp_path)["status"] == "running"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_stopped_parent_stops_its_cell_and_says_so(tmp_path, monkeypatch, capsys, signum):
    write_status(tmp_path, "running")
    sent = []

    def wait(*timeout):
        if not timeout:
            os.kill(os.getpid(), signum)
        return -signal.SIGTERM

    cell = SimpleNamespace(wait=wait, send_signal=sent.append)
    stand_in = SimpleNamespace(
        Popen=lambda *args, **options: cell, TimeoutExpired=subprocess.TimeoutExpired
    )
    monkeypatch.setattr(process, "subprocess", stand_in)
    with pytest.raises(SystemExit) as exit_:
        process.run_in_process(tmp_path, overwrite=False)
    assert exit_.value.code == 128 + signum and sent == [signal.SIGTERM]
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert read_metrics(tmp_path)["status"] == "interrupted"


def test_a_second_signal_ends_the_cell_and_its_parent_at_once(tmp_path, monkeypatch, capsys):
    write_status(tmp_path, "running")
    sent = []

    def wait(*timeout):
        if "killed" not in sent:
            os.kill(os.getpid(), signal.SIGINT)
        return -signal.SIGKILL

    cell = SimpleNamespace(
        wait=wait, send_signal=sent.append, kill=lambda: sent.append("killed"), args=[]
    )
    monkeypatch.setattr(process.subprocess, "Popen", lambda *args, **options: cell)
    with pytest.raises(SystemExit) as exit_:
        process.run_in_process(tmp_path, overwrite=False)
    assert exit_.value.code == 130 and sent == [signal.SIGTERM, "killed"]
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert read_metrics(tmp_path)["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_cell_that_recorded_its_failure_keeps_its_reason(tmp_path, exit_with):
    write_status(tmp_path, "failed", reason="no data")
    exit_with(1)
    assert not process.run_in_process(tmp_path, overwrite=False)
    assert read_metrics(tmp_path)["reason"] == "no data"


def test_a_finished_cell_starts_no_process(tmp_path, exit_with):
    write_status(tmp_path, "finished")
    commands = exit_with(0)
    assert process.run_in_process(tmp_path, overwrite=False)
    assert commands == []
    process.run_in_process(tmp_path, overwrite=True)
    assert len(commands) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("returncode", [1, 120, -signal.SIGSEGV, -signal.SIGTERM])
def test_a_result_that_was_recorded_stays_whatever_ends_its_process(
    tmp_path, exit_with, monkeypatch, returncode, overwrite
):
    """A closed terminal may end it behind the last record, or a library as it is unloaded."""
    write_status(tmp_path, "finished" if overwrite else "running")
    exit_with(returncode)

    def popen(*args, **options):
        write_status(tmp_path, "finished", seed=1)
        return SimpleNamespace(wait=lambda: returncode)

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    assert process.run_in_process(tmp_path, overwrite=overwrite)
    assert read_metrics(tmp_path)["status"] == "finished"


def test_an_old_result_is_not_that_of_a_process_that_has_failed(tmp_path, exit_with):
    write_status(tmp_path, "finished")
    exit_with(-signal.SIGSEGV)
    assert not process.run_in_process(tmp_path, overwrite=True)
    assert read_metrics(tmp_path)["status"] == "failed"


def test_a_cell_that_says_finished_without_any_score_is_run(tmp_path, exit_with):
    write_status(tmp_path, "finished", accuracy=None)
    commands = exit_with(os.EX_TEMPFAIL)
    assert not process.run_in_process(tmp_path, overwrite=False)
    assert len(commands) == 1


def test_a_running_cell_starts_no_second_process(tmp_path, exit_with):
    commands = exit_with(0)
    with process.run_lock(tmp_path):
        assert process.is_running(tmp_path)
        assert not process.run_in_process(tmp_path, overwrite=False)
    assert commands == [] and not process.is_running(tmp_path)


def test_two_that_look_do_not_take_each_other_for_a_running_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_LOOK_SECONDS", 5.0)  # the other thread may get its turn late
    other = FileLock(process.run_lock(tmp_path).lock_file, thread_local=False)
    other.acquire()
    threading.Timer(0.01, other.release).start()
    assert not process.is_running(tmp_path)


@pytest.fixture
def composed(make_run, monkeypatch, tmp_path):
    """A configuration as Hydra has composed it, and the folder of its run."""
    cfg, run_dir = make_run()
    monkeypatch.setattr(process, "output_folder", lambda: run_dir)
    monkeypatch.setattr(process, "calling_folder", lambda: tmp_path)
    return cfg, run_dir


def test_a_finished_cell_keeps_its_configuration(composed, exit_with):
    cfg, run_dir = composed
    exit_with(0)
    write_status(run_dir, "finished")
    (run_dir / "config.yaml").write_text("as it was")
    assert process.run_composed(cfg)
    assert (run_dir / "config.yaml").read_text() == "as it was"


def test_a_cell_that_is_finished_on_other_data_is_not_finished(
    composed, exit_with, monkeypatch, capsys
):
    cfg, run_dir = composed
    commands = exit_with(0)
    write_status(run_dir, "finished")
    monkeypatch.setattr(process.DataNow, "change", lambda self, cfg, run_dir: "other data")
    assert not process.run_composed(cfg) and commands == []
    assert capsys.readouterr().err == "run: other data; overwrite=true trains it again\n"
    cfg.overwrite = True
    assert process.run_composed(cfg) and len(commands) == 1


def test_a_late_rank_joins_the_run_that_the_first_one_has_locked(composed, exit_with, monkeypatch):
    cfg, run_dir = composed
    commands = exit_with(0)
    before = (run_dir / "config.yaml").read_bytes()
    monkeypatch.setenv("SLURM_PROCID", "1")
    cfg.trainer.devices = 2
    with process.run_lock(run_dir):
        assert process.run_composed(cfg)
    ((command, _),) = commands
    assert command[3] == str(run_dir) and command[4] != str(run_dir)
    assert (run_dir / "config.yaml").read_bytes() == before


def test_a_task_without_a_device_takes_no_part(composed, exit_with, monkeypatch, capsys):
    """It would write beside the first task, or train a seed whose results nothing records."""
    cfg, _ = composed
    commands = exit_with(0)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not process.run_composed(cfg) and not commands
    assert "Slurm task 3 has no part in a run of one device" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_nobodys_run(tmp_path, monkeypatch):
    """As of a colleague, or in an archive; a finished one is read there."""

    def refuse(folder):
        raise PermissionError(folder / ".lock")

    monkeypatch.setattr(process, "run_lock", refuse)
    assert not process.is_running(tmp_path)


def test_a_closed_terminal_does_not_keep_a_stopped_run_alive(composed, monkeypatch):
    cfg, _ = composed

    def popen(*args, **options):
        raise stop.Stopped("stopped by SIGHUP", 129)

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as gone, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        patch.setattr(sys, "stderr", gone)
        with pytest.raises(SystemExit) as end:
            process.run_composed(cfg)
    assert end.value.code == 129


def test_the_reason_of_another_rank_is_that_of_the_run(composed, exit_with, capsys):
    """Lightning kills the first rank where it waits for the others, one of which has failed."""
    cfg, run_dir = composed
    exit_with(-signal.SIGKILL)
    write_status(run_dir, "running")
    (run_dir / RANK_ERROR_NAME).write_text("rank 1: out of memory: no room\n")
    assert not process.run_composed(cfg)
    end = read_metrics(run_dir)
    assert (end["status"], end["reason"]) == ("failed", "rank 1: out of memory: no room")
    assert "failed: rank 1: out of memory: no room" in capsys.readouterr().err


SHADOWS = ("tasks.py", "configs.py", "macformer.py")


def test_modules_of_the_user_do_not_hide_ours(tmp_path, monkeypatch):
    for name in SHADOWS:
        (tmp_path / name).write_text("raise RuntimeError('the user's own')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code = "import tasks, configs, macformer; print(macformer.__path__)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, env=process.cell_environment(), capture_output=True, text=True, check=True
    )
    assert str(tmp_path) not in result.stdout
    assert process.cell_environment()["PYTHONSAFEPATH"] == "1"


def test_threads_spin_a_little_unless_the_user_says_otherwise(monkeypatch):
    for name in process.WAIT_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert process.cell_environment()["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "100")
    assert process.cell_environment()["GOMP_SPINCOUNT"] == "100"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in process.cell_environment()


def test_a_cell_whose_parent_has_gone_ends(monkeypatch):
    calls = []
    libc = SimpleNamespace(prctl=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(stop.ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(stop.sys, "platform", "linux")
    monkeypatch.setenv(stop.PARENT, str(os.getppid()))
    stop.die_with_parent()
    assert calls == [(1, signal.SIGKILL)]
    assert os.environ[stop.PARENT] == str(os.getpid())  # for the ranks that it starts
    with pytest.raises(SystemExit):  # the parent of this process is another one
        stop.die_with_parent()


def test_a_cell_takes_the_first_request_to_stop_and_is_not_ended_by_more(monkeypatch):
    """Ctrl-C reaches it by itself and through its parent, while it still writes what it knows."""
    written = []

    def run(run_dir, *, config_dir):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            written.append("all that it knows")

    monkeypatch.setattr(cell, "run", run)
    monkeypatch.setattr(cell, "die_with_parent", lambda: None)
    monkeypatch.setattr(sys, "argv", ["cell", "folder"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert cell.main() == 128 + signal.SIGTERM
    assert written


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_folder_of_another_run_is_left_alone(make_run, exit_with, monkeypatch, capsys, rank):
    """By every rank: the second would wait half an hour for the first one."""
    monkeypatch.setenv("SLURM_PROCID", rank)
    cfg, run_dir = make_run()
    commands = exit_with(0)
    write_status(run_dir, "interrupted", identity="of another", name="another")
    monkeypatch.setattr(process, "output_folder", lambda: run_dir)
    monkeypatch.setattr(process, "calling_folder", lambda: run_dir)
    monkeypatch.setattr(process, "check_once", lambda cfg: None)
    assert not process.run_composed(cfg)
    message = "holds another run, another (of another); overwrite=true"
    assert (message in capsys.readouterr().err) == (rank == "0")
    assert not commands
    cfg.overwrite, cfg.trainer.devices = True, 2
    process.run_composed(cfg)
    assert len(commands) == 1
