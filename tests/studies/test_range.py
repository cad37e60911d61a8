"""The grid of the range study, one of its points, and its table on rows made by hand."""

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from macformer.studies.range import held_to, measure, plot, points, table
from macformer.studies.runner import StudyError
from macformer.studies.toy_cells import train_cell


def test_controls_stand_at_the_ends(compose_study):
    found = points(compose_study("study=range"))
    places = {(point["attention"], point["window"]) for point in found}
    windows = ("1", "3", "all")
    expected = {(name, window) for name in ("softmax", "rmfa_exp") for window in windows}
    assert places == expected | {("none", "1"), ("uniform", "all")}
    assert len(found) == len(places)


def test_a_task_without_options_is_named(compose_study):
    with pytest.raises(StudyError, match=r"task recal is none of study\.settings\.tasks: listops"):
        points(compose_study("study=range", "study.sizes.smoke.task=[recal]"))


def test_softmax_in_a_window_of_one_token_is_no_attention(compose_study):
    """The same seed and the same arithmetic: one weight, which is one."""
    cfg = compose_study("study=range")
    point = {"task": "recall", "window": "1", "num_steps": 2, "seed": 0}
    held, none = (
        next(iter(measure({**point, "attention": name}, cfg))) for name in ("softmax", "none")
    )
    assert held["loss"] == pytest.approx(none["loss"], rel=1e-5)
    wide = next(iter(measure({**point, "attention": "softmax", "window": "all"}, cfg)))
    assert wide["loss"] != pytest.approx(none["loss"], rel=1e-5)


def test_softmax_in_a_wider_window_is_what_the_window_makes_of_it(compose_study):
    """As any other attention is held to it, and at less cost."""
    cfg = compose_study("study=range")
    torch.manual_seed(0)
    task = OmegaConf.to_container(cfg.study.settings.tasks.recall)
    options = {**task, "attention": "softmax", "seed": 0, **held_to(3, attention="another")}
    expected, _ = train_cell(options, cfg, num_steps=2)
    point = {"task": "recall", "attention": "softmax", "window": "3", "num_steps": 2, "seed": 0}
    assert next(iter(measure(point, cfg)))["loss"] == pytest.approx(expected.loss, rel=1e-5)


LEARNT = {"loss": 1.0, "chance": 2.3, "gradient_norm": 1.0, "largest_gradient_norm": 9.0}
DIVERGED = LEARNT | {"loss": float("nan")}


def made_rows() -> pd.DataFrame:
    places = [("softmax", "1", 0.3), ("softmax", "8", 0.5), ("softmax", "all", 0.6)]
    places += [("none", "1", 0.3), ("uniform", "all", 0.4)]
    return pd.DataFrame(
        {"task": "listops", "attention": name, "window": window, "seed": seed}
        | {"accuracy": accuracy, "error": 0.01}
        | (DIVERGED if (name, window, seed) == ("softmax", "all", 1) else LEARNT)
        for name, window, accuracy in places
        for seed in (0, 1)
    )


def test_table_by_hand():
    softmax, none, uniform = table(made_rows()).to_dict("records")
    assert list(softmax)[3:] == ["window 1, %", "window 8, %", "window all, %", "diverged"]
    assert (softmax["diverged"], none["diverged"]) == ("1 of 6", "0 of 2")
    assert softmax["window all, %"] == "60.0 ± 2.0"  # no spread of seeds: 1.96 errors
    assert none["window 1, %"] == "30.0 ± 2.0" and pd.isna(none["window all, %"])
    assert uniform["window all, %"] == "40.0 ± 2.0"


def test_plot_has_a_line_and_two_levels():
    (axis,) = plot(made_rows()).axes
    assert axis.lines[0].get_ydata() == pytest.approx([30, 50, 60])
    levels = {
        line.get_label(): line.get_ydata()[0] for line in axis.lines if len(line.get_xdata()) == 2
    }
    assert levels["none"] == pytest.approx(30) and levels["uniform"] == pytest.approx(40)
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "8", "all"]
