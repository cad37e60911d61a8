"""A mistyped option is answered by what may have been meant."""

import pytest

from macformer.runs.config import ConfigError, compose


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ("maxsteps=3", "there is no option maxsteps; did you mean max_steps? there are "),
        (
            "attention.num_features=3",
            "there is no option attention.num_features; in attention there is dropout",
        ),
        (
            "data={batch_siez:4}",
            "there is no option data.batch_siez; in data did you mean batch_size? there are ",
        ),
        ("hidden_share=0.2", "there is no option hidden_share; did you mean data.hidden_share?"),
        (
            "attention=rmfa_exp mixer.attention.num_features=3",  # below what the mixer follows
            "there is no option mixer.attention.num_features; did you mean attention.num_features?",
        ),
        ("model.encoder.num_layer=3", "in model.encoder did you mean num_layers? "),
        ("scheduler=cosine", "the recipe names the scheduler; a recipe of your own can"),
        ("attention=rmfa-exp", "there is no attention=rmfa-exp; did you mean rmfa_exp? there are "),
    ],
)
def test_a_mistyped_option_is_answered_by_near_ones(options, answer):
    with pytest.raises(ConfigError) as caught:
        compose("task=listops_short", *options.split())
    message = str(caught.value)
    assert answer in message
    assert "\n" not in message and "_rmfa" not in message


def test_an_empty_file_is_asked_after(tmp_path):
    """As a redirection leaves it that a command has failed behind."""
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").touch()
    with pytest.raises(ConfigError, match="names has no name; is it empty"):
        compose("task=mine", config_dirs=[tmp_path])
