"""SQuAD's figures, against the official script, and the words of ROUGE and BLEU, against their libraries."""

import collections
import random
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafile.engine.metrics.registry import METRICS
from lorafile.errors import NodeError


# The official script, evaluate-v2.0.py, transcribed as it stands.
def normalize_answer(s: str) -> str:
    def remove_articles(text: str) -> str:
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def remove_punc(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def compute_exact(a_gold: str, a_pred: str) -> int:
    return int(normalize_answer(a_gold) == normalize_answer(a_pred))


def compute_f1(a_gold: str, a_pred: str) -> float:
    gold_toks = normalize_answer(a_gold).split() if a_gold else []
    pred_toks = normalize_answer(a_pred).split() if a_pred else []
    num_same = sum((collections.Counter(gold_toks) & collections.Counter(pred_toks)).values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision, recall = 1.0 * num_same / len(pred_toks), 1.0 * num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


def official(answers: list[str], a_pred: str) -> tuple[float, float]:
    gold_answers = [a for a in answers if normalize_answer(a)] or [""]
    return max(compute_exact(a, a_pred) for a in gold_answers), max(compute_f1(a, a_pred) for a in gold_answers)


WORDS = st.lists(st.sampled_from(["the", "a", "Denver", "Broncos", "broncos!", "of", "10", "--", "é"]), max_size=6)


@given(st.lists(st.tuples(st.lists(WORDS.map(" ".join), max_size=3), WORDS.map(" ".join)), min_size=1, max_size=8))
def test_squad_figures_are_the_official_script_s(pairs: list[tuple[list[str], str]]) -> None:
    rows: list[dict[str, Any]] = [{"answer": answer, "references": golds} for golds, answer in pairs]
    expected = [official(golds, answer) for golds, answer in pairs]
    exact, each_exact = METRICS["squad_exact"].compute(rows)
    f1, each_f1 = METRICS["squad_f1"].compute(rows)
    assert each_exact == [e for e, _ in expected]
    assert each_f1 == pytest.approx([f for _, f in expected])
    assert exact == pytest.approx(sum(e for e, _ in expected) / len(rows))
    assert f1 == pytest.approx(sum(f for _, f in expected) / len(rows))


def test_a_question_without_an_answer_wants_the_phrase_for_none() -> None:
    none = {"references": [], "unanswerable": "unanswerable"}
    some = {"references": ["Denver Broncos"], "unanswerable": "unanswerable"}
    rows = [{**none, "answer": " Unanswerable."}, {**none, "answer": "Denver"}, {**some, "answer": "unanswerable"}]
    assert METRICS["squad_exact"].compute(rows)[1] == [1, 0, 0]
    assert METRICS["squad_f1"].compute(rows)[1] == [1, 0, 0]
    assert METRICS["squad_f1"].compute([{**some, "answer": "the Broncos"}])[0] == pytest.approx(2 / 3)


def test_squad_s_figures_take_the_best_of_all_answers_as_torchmetrics_has_them() -> None:
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.text import squad

    noise = random.Random(4)
    words = ["Denver", "Broncos", "the", "a", "of", "1,000", "Beyoncé", "--", "co-op", "U.S."]

    def text() -> str:
        return "Denver " + " ".join(noise.choices(words, k=noise.randint(0, 4)))

    rows = [
        {"answer": noise.choice([golds[-1], text(), ""]), "references": golds}
        for golds in ([text() for _ in range(noise.randint(1, 4))] for _ in range(60))
    ]
    theirs = squad(
        [{"prediction_text": row["answer"], "id": str(n)} for n, row in enumerate(rows)],
        [{"answers": {"text": row["references"], "answer_start": [0]}, "id": str(n)} for n, row in enumerate(rows)],
    )
    assert 100 * METRICS["squad_exact"].compute(rows)[0] == pytest.approx(float(theirs["exact_match"]), rel=1e-5)
    assert 100 * METRICS["squad_f1"].compute(rows)[0] == pytest.approx(float(theirs["f1"]), rel=1e-5)


PAIRS = [
    ("我喜欢猫和狗。", "我也喜欢猫和两只狗。"),
    ("Привет, Мир! Как дела сегодня?", "привет, мир, как дела у вас?"),
    ("Total: 1,000.50 dollars (net)", "In total 1,000.50 dollars, net"),
    ("안녕하세요 세계 여러분 모두", "안녕 세계 여러분 모두 반가워요"),
]
NAMES = ("13a", "intl", "zh", "char", "none")


def rows_of(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"row": n, "answer": a, "reference": b} for n, (a, b) in enumerate(pairs)]


@pytest.mark.parametrize("name", NAMES)
def test_bleu_s_tokenizers_are_sacrebleu_s(name: str) -> None:
    import sacrebleu

    pairs = PAIRS if name in ("zh", "char") else PAIRS[1:]
    figure, each = METRICS["bleu"].compute(rows_of(*pairs), tokenize=name)
    hypotheses, references = [a for a, _ in pairs], [b for _, b in pairs]
    assert figure == sacrebleu.corpus_bleu(hypotheses, [references], tokenize=name).score
    assert each == [sacrebleu.sentence_bleu(a, [b], tokenize=name).score for a, b in pairs]
    influence = METRICS["bleu"].influence
    assert influence is not None
    without = sacrebleu.corpus_bleu(hypotheses[1:], [references[1:]], tokenize=name).score
    n = len(pairs)
    assert influence(rows_of(*pairs), tokenize=name)[0] == pytest.approx(n * figure - (n - 1) * without)


@pytest.mark.parametrize("metric", ["rouge1", "rouge2", "rougeL"])
@pytest.mark.parametrize("name", NAMES)
def test_rouge_takes_the_same_tokenizers(name: str, metric: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    class Theirs:
        def tokenize(self, text: str) -> list[str]:
            return str(BLEU(tokenize=name).tokenizer(text.lower())).split()

    pairs = PAIRS if name in ("zh", "char") else PAIRS[1:]
    scorer = RougeScorer([metric], tokenizer=Theirs())
    expected = [scorer.score(target=b, prediction=a)[metric].fmeasure for a, b in pairs]
    assert METRICS[metric].compute(rows_of(*pairs), tokenize=name)[1] == expected


@pytest.mark.parametrize(
    ("metric", "reference", "tokenize", "told"),
    [
        ("rouge1", "我喜欢猫和狗", "", "rouge1 finds few or no words in the reference of row 1"),
        ("rougeL", "Привет, мир", "", 'Set evaluate.tokenize to "intl"'),
        ("rouge1", "В 2023 году компания Apple представила телефон", "", "keeps only a to z and digits"),
        ("rouge1", "…!", "", "few or no words"),
        ("bleu", "我喜欢猫和狗，也喜欢鸟", "", 'with the tokenizer "13a". Set evaluate.tokenize to "zh" for Chinese'),
        ("bleu", "我喜欢猫和狗，也喜欢鸟", "intl", 'with the tokenizer "intl"'),
        ("rouge1", "ありがとうございます", "zh", 'with the tokenizer "zh". Set evaluate.tokenize to "zh"'),
        ("rouge1", "ขอบคุณมากครับ", "none", '"char" for any script'),
        ("bleu", "a short answer", "", "bleu counts 4 words in a row, and the longest reference has 3"),
        ("rouge2", "Paris", "", "rouge2 counts 2 words in a row, and the longest reference has 1"),
    ],
)
def test_a_reference_without_words_is_an_error_and_never_a_zero(
    metric: str, reference: str, tokenize: str, told: str
) -> None:
    first = ("a b", "") if metric != "rouge1" else ("a b", "a b")
    with pytest.raises(NodeError) as error:
        METRICS[metric].compute(rows_of(first, (reference, reference)), **({"tokenize": tokenize} if tokenize else {}))
    assert told in str(error.value)


def test_texts_in_latin_letters_with_marks_and_empty_references_are_read_as_before() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [("Tôi yêu mèo", "Tôi yêu chó"), ("Đường phố đẹp", "Đường phố"), ("yes", ""), ("für Gäste", "für Gäste")]
    scorer = RougeScorer(["rouge1"])
    expected = [scorer.score(target=b, prediction=a)["rouge1"].fmeasure for a, b in pairs]
    assert METRICS["rouge1"].compute(rows_of(*pairs))[1] == expected


def test_a_tokenizer_that_cannot_be_loaded_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.tokenizers import tokenizer_ja_mecab

    from lorafile.engine.metrics import tokenizers

    tokenizers._sacrebleu_tokenizer.cache_clear()
    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    with pytest.raises(
        NodeError, match=r'evaluate\.tokenize: "ja-mecab" cannot be loaded: .*pip install .sacrebleu\[ja\]'
    ):
        METRICS["rouge1"].compute(rows_of(("猫", "猫")), tokenize="ja-mecab")
