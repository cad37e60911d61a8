"""What decides a result decides a run's identity, and nothing else does."""

import pytest


@pytest.mark.parametrize(
    "overrides",
    [
        ("seed=1",),
        ("attention=rmfa_exp",),
        ("ppsbn=with",),
        ("ppsbn=with_batch",),
        ("learning_rate=0.5",),
        ("batch_size=4",),
        ("task.brackets=drop",),
        ("model.dropout=0.0",),
    ],
)
def test_what_decides_a_result_decides_the_identity(make_run, overrides):
    base, _ = make_run(folder="base")
    other, _ = make_run(*overrides, folder="other")
    assert base.identity != other.identity


@pytest.mark.parametrize(
    "overrides",
    [
        ("logger=wandb",),
        ("sweep=elsewhere",),
        ("exclusive=false",),
        ("retry=failed",),
        ("task.num_workers=2",),
        ("+recipe.text.max_steps=1",),
        ("callbacks.progress.refresh_interval=1",),
    ],
)
def test_what_cannot_change_a_result_does_not(make_run, overrides):
    base, _ = make_run(folder="base")
    other, _ = make_run(*overrides, folder="other")
    assert base.identity == other.identity
