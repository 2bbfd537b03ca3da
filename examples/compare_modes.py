"""What each mode says on its own, and what the hybrid makes of it: three questions on a small help desk.

Run: python examples/compare_modes.py [--model mini|BAAI/bge-m3]
The index is made in a temporary folder; a mode that finds nothing (no shared token) shows a dash.
"""

import argparse
import tempfile

from m3retriever import Document, M3Index

DOCUMENTS = [
    Document("reset", "To choose a new password, open the login page and follow the link sent to your email."),
    Document("e4102", "Error E4102: the VAT number has a wrong check digit. Correct it in the billing form."),
    Document("e4103", "Error E4103: the VAT number belongs to another country. Choose the country first."),
    Document("refund", "Money for a cancelled order is returned to your card within five working days."),
    Document("export", "You can download all invoices of a year as one archive from the reports page."),
    Document("lock", "After five wrong attempts an account is locked for one hour to keep it safe."),
]
QUESTIONS = ["I forgot my credentials", "E4103", "when do I get my money back"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder, M3Index.open(folder, model=model) as index:
        index.add(DOCUMENTS)
        for question in QUESTIONS:
            print(f"\n{question}")
            for mode in ("dense", "sparse", "colbert"):
                hits = index.search(question, 1, mode=mode)
                print(f"  {mode:<8} {hits[0].document.id if hits else '-':<8}")
            [best] = index.search(question, 1)
            parts = ", ".join(f"{mode} {score:.3f} (rank {best.ranks[mode]})" for mode, score in best.scores.items())
            print(f"  hybrid   {best.document.id:<8} {best.score:.3f} from {parts}")


if __name__ == "__main__":
    main()
