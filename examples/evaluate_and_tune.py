"""From questions with known answers to a profile: measure, tune, calibrate, and see what it is worth on other questions.

Run: python examples/evaluate_and_tune.py [--out profile.toml]
The documents are docstrings of Python's standard library; half of the questions fit the profile, the other half judges it.
"""

import argparse
import tempfile
from pathlib import Path

from m3retriever import M3Index, Profile, load_profile, save_profile
from m3retriever.calibrating import Wanted
from m3retriever.demo.run import documents, golden
from m3retriever.evaluation import compare, evaluate
from m3retriever.fitting import calibrate_index, tune_index

MEASURE = "nDCG@10"
NO_ANSWER = [  # questions that no docstring answers, so that a threshold can learn to say nothing
    "how long do i boil an egg",
    "when does the next train to Basel leave",
    "who won the football match last night",
    "what does a visa for Japan cost",
    "my tomato plants have yellow leaves",
    "how do i get red wine out of a shirt",
    "which vaccine does a puppy need first",
    "what time does the pharmacy close on sunday",
    "how do i transfer money to my landlord",
    "is the road over the pass open in april",
    "what is the best route to cycle along the danube",
    "how much salt goes into bread dough",
]


def corpus():
    """A third of the docstrings, with every one that answers a question; the questions, and what answers them."""
    everything = documents()
    questions = golden([document.id for document in everything])
    answers = {id for question in questions for id in question.relevant}
    kept = [document for number, document in enumerate(everything) if number % 3 == 0 or document.id in answers]
    queries = {question.id: question.question for question in questions}
    qrels = {question.id: dict.fromkeys(question.relevant, 1) for question in questions}
    return kept, queries, qrels


def fit(index, queries, qrels):
    """A profile whose weights and thresholds suit these questions."""
    tuning, profile = tune_index(index, queries, qrels, measure=MEASURE, fusions=["weighted_sum"])
    print(f"tuned to {tuning.best}; {MEASURE} by cross-validation:")
    for name in ("default", "dense", "sparse", "colbert"):
        against = tuning.against[name]
        print(f"  {name:<8} {against.first:.3f}, tuned {against.second:.3f} (p {against.p_value:.3f})")
    index.profile = profile
    found, profile = calibrate_index(index, queries, qrels, Wanted("fpr", 0.1), unanswerable=NO_ANSWER)
    print(f"threshold {found['hybrid'].threshold:.3f}: at most a tenth of the questions without an answer pass it")
    return profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where to keep the profile")
    out = parser.parse_args().out
    kept, queries, qrels = corpus()
    mine = dict(list(qrels.items())[::2])
    others = {query: judged for query, judged in qrels.items() if query not in mine}
    with tempfile.TemporaryDirectory() as folder, M3Index.open(folder, model="mini") as index:
        index.add(kept, split=True)  # longer texts become passages; questions are judged by document
        print(f"{len(kept)} documents; {len(mine)} questions to fit on, {len(others)} to judge by\n")
        path = out or Path(folder, "fitted.toml")
        save_profile(fit(index, queries, mine), path)

        runs = {}
        for name, profile in {"default": Profile(), "fitted": load_profile(path)}.items():
            index.profile = profile
            runs[name] = evaluate(index, queries, others, [MEASURE])
        print(f"\nthe other half, {MEASURE}:")
        for mode in ("dense", "sparse", "colbert", "hybrid"):
            print(f"  {mode:<8} " + ", ".join(f"{name} {one.mean(mode, MEASURE):.3f}" for name, one in runs.items()))
        judged = compare(runs["default"].runs["hybrid"], runs["fitted"].runs["hybrid"], others, MEASURE)
        print(f"  fitted against default: {judged.wins} won, {judged.losses} lost, p {judged.p_value:.3f}", end="; ")
        better = judged.difference > 0 and judged.p_value < 0.05
        print("use it" if better else f"{len(mine)} questions do not tell them apart: keep the default weights", end="\n\n")

        for question in ("split a shell command into its arguments", "what does a haircut cost"):
            hits = index.search_documents(question, 3, threshold="profile")
            print(question + ("" if hits else ": nothing is good enough"))
            for hit in hits:
                print(f"  {hit.id:<24} score {hit.score:.3f}, relevant with probability {hit.best.probability:.2f}")


if __name__ == "__main__":
    main()
