"""Tables of every view: what fits a terminal, and what gives way where it does not."""

from lorafile.cli.views.table import Column, fit, lines, shorten

COLUMNS = (Column("name", "name"), Column("base", omit=1), Column("peak memory", right=True), Column("why", "text"))


def text(rows: list[list[str]], width: int | None) -> list[str]:
    return list(lines(fit(COLUMNS, rows, width), lambda cell, _: cell))


def test_what_is_the_same_in_every_row_stands_above() -> None:
    table = fit(COLUMNS, [["a", "nf4", "1 GB", "new"], ["b", "nf4", "2 GB", ""]], None)
    assert table.same == "base nf4, why new"
    assert [column.title for column in table.columns] == ["name", "peak memory"]
    one = fit(COLUMNS, [["a", "nf4", "1 GB", "new"]], None)
    assert (one.same, len(one.columns)) == ("", 4), "one row has nothing in common with others"


def test_columns_go_in_their_order_and_text_wraps_at_words() -> None:
    rows = [["rank/r=8", "none", "13.9 MB", "new: r 4 → 8, compared"], ["rank/r=16", "nf4", "9 MB", "interrupted"]]
    assert text(rows, 37) == [
        "                    peak",
        "name       base   memory  why",
        "rank/r=8   none  13.9 MB  new: r 4 →",
        "                          8, compared",
        "rank/r=16  nf4      9 MB  interrupted",
    ]
    assert text(rows, 36) == [
        "              peak",
        "name        memory  why",
        "rank/r=8   13.9 MB  new: r 4 → 8,",
        "                    compared",
        "rank/r=16     9 MB  interrupted",
    ]
    assert fit(COLUMNS, rows, 36).omitted == ("base",)


def test_a_name_loses_whole_parts_from_its_middle() -> None:
    name = "rates/r=16,lora_dropout=0.05,learning_rate=0.0001"
    assert shorten(name, 49) == name
    assert shorten(name, 40) == "rates/r=16,…,learning_rate=0.0001"
    assert shorten(name, 32) == "rates/…,learning_rate=0.0001"
    assert shorten("a" * 30 + "b" * 30, 11) == "aaaaa…bbbbb"


def test_names_that_would_look_alike_stay_whole() -> None:
    names = [f"placement/target_modules=attention,lora_dropout={drop},learning_rate=0.0001" for drop in (0.1, 0.2)]
    table = fit(COLUMNS[:1], [[name] for name in names], 30)
    assert [cell.replace("\n", "") for (cell,) in table.rows] == names
    assert max(len(line) for (cell,) in table.rows for line in cell.split("\n")) <= 30
