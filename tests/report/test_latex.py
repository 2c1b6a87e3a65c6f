import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hostile_fixture import hostile
from results_fixture import empty, study

from lorafile.report.citations import PAPERS, bibliography, cited, papers_of, references_bib
from lorafile.report.latex import best_by_verdict, escaped, table_of_results
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.specs.tables.methods import METHODS

DOCUMENT = r"\documentclass{article}\usepackage{booktabs}\begin{document}"


def rows(tex: str) -> list[list[str]]:
    """Return the cells of the body of a table."""
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")].splitlines()[1:]
    assert all(line.endswith(r" \\") for line in body)
    return [re.split(r"(?<!\\)&", line.removesuffix(r" \\")) for line in body]


def check_syntax(tex: str) -> None:
    """Check what stops LaTeX: braces without partner, half a formula, a bare special, rows of unequal length."""
    assert len(re.findall(r"(?<!\\)\$", tex)) % 2 == 0
    depth = 0
    for brace in re.findall(r"\\.|[{}]", tex.replace(r"\\", "")):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        assert depth >= 0
    assert depth == 0
    inner = tex[tex.index(r"\begin{table}") :]
    assert not re.search(r"(?<!\\)[%#_]", re.sub(r"\\label\{.*?\}", "", inner))
    (layout,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", tex)
    assert {len(row) for row in rows(tex)} <= {len(layout)}


def small(names: tuple[str, ...]) -> Results:
    """Return the study with a few configurations, each compared with each."""
    results = study()
    tables = {
        name: getattr(results, name)[getattr(results, name)["configuration"].isin(names)].reset_index(drop=True)
        for name in ("configurations", "runs", "profiles")
    }
    compare = AnalysisTable(kind="compare", factor="lora.r", pairs="all")
    return replace(results, **tables, declared=(compare,))


def test_the_table_has_every_configuration_with_its_figures() -> None:
    results = study()
    tex = table_of_results(results)
    check_syntax(tex)
    runs = results.runs[results.runs["configuration"] == "rank/r=8"]["test.exact_match"] * 100
    row = next(cells for cells in rows(tex) if cells[0].strip() == "rank/r=8")
    assert row[1].strip() == rf"{runs.mean():.1f} $\pm$ {runs.std(ddof=1):.1f}"
    assert r"1\,703\,936" in row[4]
    assert len(rows(tex)) == len(results.configurations)
    lost = next(cells for cells in rows(tex) if "0.005" in cells[0])
    assert lost[3].strip() == "2 of 3: 1 diverged"


def test_hostile_names_are_text_in_latex_too() -> None:
    tex = table_of_results(hostile())
    check_syntax(tex)
    assert r"\textless{}script\textgreater{}" in tex
    assert "U+202E" in tex
    assert escaped('[x]*"') == r"{[}x{]}{*}\char34{}"  # a row that begins so is no argument of the break before it
    assert escaped("\\input{x} 5% $1_a^2 ~#& y") == (
        r"\textbackslash{}input\{x\} 5\% \$1\_a\textasciicircum{}2 \textasciitilde{}\#\& y"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
@pytest.mark.parametrize("results", [study(), hostile()])
def test_latex_sets_the_table(results: Results, tmp_path: Path) -> None:
    (tmp_path / "a.tex").write_text(f"{DOCUMENT}{table_of_results(results)}\\end{{document}}", encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


def test_bold_is_a_verdict_and_not_a_point_estimate() -> None:
    clear = small(("rank/r=1", "rank/r=2", "rank/r=8"))
    assert best_by_verdict(clear) == "rank/r=8"
    (winner,) = [row for row in rows(table_of_results(clear)) if r"\textbf" in row[1]]
    assert winner[0].strip() == "rank/r=8"
    close = small(("rank/r=1", "rank/r=16", "rank/r=32"))  # the last two differ by a fifth of a point
    assert best_by_verdict(close) is None
    assert r"\textbf" not in "".join(cell for row in rows(table_of_results(close)) for cell in row)
    assert "Nothing is bold" in table_of_results(close)
    unjudged = replace(clear, declared=(AnalysisTable(kind="compare", factor="lora.r", baseline="rank/r=1"),))
    assert best_by_verdict(unjudged) is None  # 2 and 8 were never compared


def test_a_study_without_figures_still_has_a_table() -> None:
    check_syntax(table_of_results(empty()))
    begun = study().runs.assign(outcome="missing")
    check_syntax(table_of_results(replace(study(), runs=begun, profiles=pd.DataFrame(), outcomes={})))


def test_every_method_that_was_published_has_its_paper() -> None:
    assert all(papers_of(name) for name in METHODS)
    assert {key for keys in PAPERS.values() for key in keys} == set(bibliography())


def test_papers_are_those_that_the_study_used() -> None:
    keys = [paper.key for paper in cited(replace(study(), topics=("lora", "dora", "start:pissa", "base:nf4")))]
    assert {"hu2022lora", "liu2024dora", "meng2024pissa", "dettmers2023qlora", "holm1979simple"} <= set(keys)
    assert not {"liu2022ia3", "papineni2002bleu", "schuirmann1987comparison", "dettmers2022int8"} & set(keys)
    untuned = {paper.key for paper in cited(empty())}
    assert untuned == {"wolf2020transformers"}


def test_the_bibliography_is_bibtex_and_reads_well() -> None:
    text = references_bib(replace(study(), topics=tuple(PAPERS)))
    assert len(re.findall(r"^@(inproceedings|article|misc)\{\w+,$", text, re.MULTILINE)) == text.count("\n}\n")
    assert text.count("{") == text.count("}")
    for paper in bibliography().values():
        assert {"author", "title", "year"} <= paper.fields.keys()
        assert not re.search(r"[{}\\]", paper.text)
    assert bibliography()["buyukakyuz2024olora"].text == (
        "Büyükakyüz (2024). OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models. arXiv 2406.01775."
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_paper_of_its_row(name: str) -> None:
    """Entries of the bibliography and the table of methods name the same paper."""
    papers, row = papers_of(name), METHODS[name].paper
    assert papers
    assert row in [paper.fields.get("eprint", row) for paper in papers]
    assert all(paper.text.endswith(".") and paper.bibtex.startswith("@") for paper in papers)
    assert name in PAPERS or row.partition("//")[2] in papers[0].text
