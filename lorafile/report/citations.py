"""The papers behind what a study used: BibTeX for those that are cited, and one line of text for each."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isnan

import tomli

from lorafile.analysis.compare.verdicts import family
from lorafile.results.results import Results
from lorafile.specs.tables.methods import METHODS
from lorafile.units import listing

_TOPICS = (files("lorafile.report") / "citations.toml").read_text(encoding="utf-8")
PAPERS: dict[str, list[str]] = tomli.loads(_TOPICS)  # what a study may use -> the keys of its papers
_ACCENTS = {'{\\"a}': "ä", '{\\"u}': "ü", "{\\'e}": "é", "{\\'c}": "ć"}
_MOST = 3  # authors in a line of text


@dataclass(frozen=True)
class Paper:
    """One entry of the bibliography.

    :ivar bibtex: the entry as it stands in `references.bib`
    """

    key: str
    bibtex: str
    fields: dict[str, str]

    @property
    def text(self) -> str:
        """The entry as one line: authors, year, title, where."""
        if "author" not in self.fields:  # a method's row says where it was published, and no more
            return f"{self.fields['title']}. {self.fields['howpublished'].replace(':', ' ', 'eprint' in self.fields)}."
        names = [name.partition(",")[0] for name in self.fields["author"].split(" and ")]
        who = f"{names[0]} et al." if len(names) > _MOST else listing(names).replace(", and ", " and ")
        place = [self.fields.get(name, "") for name in ("booktitle", "journal", "howpublished")]
        place += [f"{name} {self.fields[name]}" for name in ("volume", "pages") if name in self.fields]
        if "eprint" in self.fields:
            place = [*(part for part in place if "arXiv" not in part), f"arXiv {self.fields['eprint']}"]
        return f"{who} ({self.fields['year']}). {self.fields['title']}. {', '.join(filter(None, place))}."


@cache
def bibliography() -> dict[str, Paper]:
    """Return every entry that ships, by its key."""
    text = (files("lorafile.report") / "citations.bib").read_text(encoding="utf-8")
    papers = {}
    for entry in re.split(r"\n(?=@)", text):
        key = entry.partition("{")[2].partition(",")[0]
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.MULTILINE))
        papers[key] = Paper(key, entry.strip() + "\n", {name: _plain(value) for name, value in fields.items()})
    return papers


def _plain(value: str) -> str:
    """Return a field without LaTeX: accents as letters, no braces, an en dash between pages."""
    for written, letter in _ACCENTS.items():
        value = value.replace(written, letter)
    return value.replace("{", "").replace("}", "").replace("\\_", "_").replace("--", "–")


def cited(results: Results) -> list[Paper]:
    """Return the papers behind a study's methods, metrics and verdicts, each once."""
    used = [*(["peft"] if results.topics else []), "transformers", *results.topics, *map(str, results.metrics)]
    used += _statistics(results)
    papers = [paper for topic in used for paper in papers_of(topic)]
    return list({paper.key: paper for paper in papers}.values())


def papers_of(topic: str) -> list[Paper]:
    """Return the papers of a topic: its entries of the bibliography, or what the table of methods says of a method."""
    if topic in PAPERS:
        return [bibliography()[key] for key in PAPERS[topic]]
    return [_method_paper(topic)] if topic in METHODS else []


def _method_paper(name: str) -> Paper:
    """Return the entry of a method: its name, and where its paper is."""
    title, paper = METHODS[name].title, METHODS[name].paper
    fields = {"title": title, "howpublished": paper}
    if "/" not in paper:
        fields = {"title": title, "howpublished": f"arXiv:{paper}", "archiveprefix": "arXiv", "eprint": paper}
    lines = ",\n".join(f"  {field} = {{{value}}}" for field, value in fields.items())
    return Paper(name, f"@misc{{{name},\n{lines}\n}}\n", fields)


def _statistics(results: Results) -> list[str]:
    """Return the ways to judge that the study's family of comparisons and its claims made use of."""
    verdicts = family(results).verdicts
    judged = [verdict for verdict in verdicts if verdict.decision is not None]
    used = {
        "verdicts": bool(judged),
        "family": len(judged) > 1,
        "equivalence": any(verdict.margin is not None for verdict in judged),
        "two runs": any(not isnan(verdict.mcnemar) for verdict in verdicts),
        "bounds": any(claim.at_least is not None or claim.at_most is not None for claim in results.claims),
    }
    return [name for name, is_used in used.items() if is_used]


def references_bib(results: Results) -> str:
    """Return `references.bib`: the entries of the papers that are cited, and no others."""
    return "\n".join(paper.bibtex for paper in cited(results))
