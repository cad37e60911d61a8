import pandas as pd

from macformer.tables.choices import choice_note, choices_table


def choice(attention, *, task="listops", tried=("0.001", "0.01", "0.1"), short=0, **chosen):
    facts = {"ppsbn": "without", "options": "", "own_options": "", "recipe": "smoke"}
    return {
        **facts,
        "device": "laptop",
        "task": task,
        "attention": attention,
        "chosen": chosen,
        "tried": {name: list(tried) for name in chosen},
        "num_settings": len(tried) - short,
        "num_short": short,
        "validation": 0.375,
    }


def shown(*choices) -> dict[str, list[str]]:
    table = choices_table(pd.DataFrame(choices))
    return {row.label: [entry.text for entry in row.entries] for row in table.rows}


def test_a_choice_at_an_end_of_what_was_tried_is_marked():
    assert shown(
        choice("softmax", rate="0.01"), choice("rfa", rate="0.1"), choice("uniform", rate="0.001")
    ) == {
        "softmax": ["0.01", "3", "37.50"],
        "uniform": ["0.001↓", "3", "37.50"],
        "rfa": ["0.1↑", "3", "37.50"],
    }


def test_options_are_named_where_there_are_several_and_words_have_no_ends():
    found = shown(choice("rfa", sampler="code", tried=("code", "iid")))
    assert found["rfa"][0] == "code"
    found = shown(choice("rfa", guard="0.001", tried=("0.001", "1e-05", "null")))
    assert found["rfa"][0] == "0.001"  # whether null is more or less is for nobody to say
    found = shown(choice("rfa", rate="0.01", size="0.001"))
    assert found["rfa"][0] == "rate=0.01, size=0.001↓"


def test_a_row_without_a_task_is_blank_there():
    found = shown(choice("softmax", rate="0.01"), choice("rfa", task="text", rate="0.01"))
    assert found["softmax"][3:] == ["", "", ""] and found["rfa"][:3] == ["", "", ""]


def test_settings_that_did_not_compete_are_named():
    table = choices_table(pd.DataFrame([choice("rfa", rate="0.01", short=1)]))
    assert table.notes == [
        "rfa, ListOps: 1 further setting with fewer finished seeds did not compete."
    ]


def test_the_note_under_the_first_table_states_how_many_settings_there_were():
    three, two = choice("rfa", rate="0.01"), choice("softmax", rate="0.01", short=1)
    assert "rate chosen" in choice_note(pd.DataFrame([three]))
    assert "of 3 settings each" in choice_note(pd.DataFrame([three]))
    assert "of 2 to 3 settings each" in choice_note(pd.DataFrame([three, two]))
