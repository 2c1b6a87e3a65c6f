"""The papers behind what a study used: BibTeX for those that are cited, and one line of text for each."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isnan

from lorafile.analysis.compare.verdicts import family
from lorafile.results.results import Results
from lorafile.units import listing

# What a study may use (lorafile/results/topics.py, names of metrics, ways to judge) -> the keys of its papers.
PAPERS: dict[str, tuple[str, ...]] = {
    "lora": ("hu2022lora",),
    "rslora": ("kalajdzievski2023rslora",),
    "dora": ("liu2024dora",),
    "loraplus": ("hayou2024loraplus",),
    "start:pissa": ("meng2024pissa",),
    "start:olora": ("buyukakyuz2024olora",),
    "start:loftq": ("li2024loftq",),
    "start:eva": ("paischer2024eva",),
    "start:corda": ("yang2024corda",),
    "start:lora_ga": ("wang2024loraga",),
    "ia3": ("liu2022ia3",),
    "vera": ("kopiczko2024vera",),
    "adalora": ("zhang2023adalora",),
    "loha": ("hyeonwoo2022fedpara", "yeh2024lycoris"),
    "lokr": ("yeh2024lycoris",),
    "prompt_tuning": ("lester2021prompt",),
    "ln_tuning": ("zhao2024layernorm",),
    "base:nf4": ("dettmers2023qlora",),
    "base:fp4": ("dettmers2023qlora",),
    "base:int8": ("dettmers2022int8",),
    "base:hqq": ("badri2023hqq",),
    "base:gptq": ("frantar2022gptq",),
    "base:awq": ("lin2024awq",),
    "bleu": ("papineni2002bleu", "post2018sacrebleu"),
    "chrf": ("popovic2015chrf", "post2018sacrebleu"),
    "rouge1": ("lin2004rouge",),
    "rouge2": ("lin2004rouge",),
    "rougeL": ("lin2004rouge",),
    "squad_exact": ("rajpurkar2016squad",),
    "squad_f1": ("rajpurkar2016squad",),
    "matthews_correlation": ("matthews1975comparison",),
    "peft": ("mangrulkar2022peft",),
    "transformers": ("wolf2020transformers",),
    "verdicts": ("dorfman1992receiver", "hillis2014marginal", "satterthwaite1946approximate"),
    "family": ("holm1979simple",),
    "equivalence": ("schuirmann1987comparison",),
    "two runs": ("mcnemar1947note",),
    "bounds": ("clopper1934use",),
}
_ACCENTS = {'{\\"u}': "ü", "{\\'e}": "é", "{\\'c}": "ć"}
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
        names = [name.partition(",")[0] for name in self.fields["author"].split(" and ")]
        who = f"{names[0]} et al." if len(names) > _MOST else listing(names).replace(", and ", " and ")
        where = [self.fields.get(name, "") for name in ("booktitle", "journal", "howpublished")]
        where += [f"{name} {self.fields[name]}" for name in ("volume", "pages") if name in self.fields]
        if "eprint" in self.fields:
            where = [*(part for part in where if "arXiv" not in part), f"arXiv {self.fields['eprint']}"]
        return f"{who} ({self.fields['year']}). {self.fields['title']}. {', '.join(part for part in where if part)}."


@cache
def bibliography() -> dict[str, Paper]:
    """Return every entry that ships, by its key."""
    text = (files("lorafile.report") / "citations.bib").read_text(encoding="utf-8")
    found = {}
    for entry in re.split(r"\n(?=@)", text):
        key = entry.partition("{")[2].partition(",")[0]
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.MULTILINE))
        found[key] = Paper(key, entry.strip() + "\n", {name: _plain(value) for name, value in fields.items()})
    return found


def _plain(value: str) -> str:
    """Return a field without LaTeX: accents as letters, no braces, an en dash between pages."""
    for written, letter in _ACCENTS.items():
        value = value.replace(written, letter)
    return value.replace("{", "").replace("}", "").replace("\\_", "_").replace("--", "–")


def cited(results: Results) -> list[Paper]:
    """Return the papers behind a study's methods, metrics and verdicts, each once."""
    used = [*(["peft"] if results.topics else []), "transformers", *results.topics, *map(str, results.metrics)]
    used += _statistics(results)
    keys = dict.fromkeys(key for topic in used for key in PAPERS.get(topic, ()))
    return [bibliography()[key] for key in keys]


def _statistics(results: Results) -> list[str]:
    """Return the ways to judge that the study's family of comparisons and its claims made use of."""
    verdicts = family(results).verdicts
    judged = [verdict for verdict in verdicts if verdict.decision is not None]
    found = ["verdicts"] if judged else []
    found += ["family"] if len(judged) > 1 else []
    found += ["equivalence"] if any(verdict.margin is not None for verdict in judged) else []
    found += ["two runs"] if any(not isnan(verdict.mcnemar) for verdict in verdicts) else []
    bounded = any(claim.at_least is not None or claim.at_most is not None for claim in results.claims)
    return [*found, "bounds"] if bounded else found


def references_bib(results: Results) -> str:
    """Return `references.bib`: the entries of the papers that are cited, and no others."""
    return "\n".join(paper.bibtex for paper in cited(results))
