"""The README's reliability table, from what the last long run counted: the last step of `make torture`.

Keeps the counts in docs/torture.json and writes them between the two marks in README.md and README.zh-CN.md.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torture.counts import REPORT

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "torture.json"
PAGES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
BEGIN, END = "<!-- torture -->", "<!-- /torture -->"
FAULTS = ("problems", "failed", "wrong")
HEADS = {"en": ("What is done to an index", "How often", "Faults"), "zh": ("对索引做什么", "次数", "错误")}


class Line(NamedTuple):
    """One line of the table: the names it sums begin with `start`, and its texts name their counts."""

    start: str
    en: tuple[str, str]
    zh: tuple[str, str]


LINES = (
    Line(
        "kill -9, embedded",
        ("the process killed (`-9`) while it adds, replaces and deletes", "{kills} kills, {within_a_change} within a change"),
        ("在新增、替换、删除时强制终止进程（`-9`）", "{kills} 次终止，其中 {within_a_change} 次在写入当中"),
    ),
    Line(
        "kill -9, with a server",
        (
            "the same with `chroma run`, and the server killed too",
            "{kills} kills, {within_a_change} within a change; Chroma's own files mended {servers_mended} times",
        ),
        (
            "同上，使用 `chroma run`，服务器也被终止",
            "{kills} 次终止，其中 {within_a_change} 次在写入当中；修复 Chroma 自身文件 {servers_mended} 次",
        ),
    ),
    Line("no room", ("the disk fills up", "{disks} disks"), ("磁盘写满", "{disks} 个磁盘")),
    Line(
        "files cut short",
        ("a file cut short", "{cuts} cuts: {answered} right answers, {refused} errors"),
        ("文件被截断", "{cuts} 次：{answered} 次结果正确，{refused} 次报错"),
    ),
    Line(
        "flipped bits",
        ("a bit flipped in a file", "{flips} flips: {same} right answers, {mended} mended, {refused} errors"),
        ("文件中一位翻转", "{flips} 次：{same} 次结果正确，{mended} 次修复，{refused} 次报错"),
    ),
    Line(
        "threads",
        ("threads that search, add and delete", "{threads} threads, {queries} queries, {adds} adds, {deletes} deletes"),
        ("多线程检索、新增、删除", "{threads} 个线程，{queries} 次查询，{adds} 次新增，{deletes} 次删除"),
    ),
    Line(
        "filters as isolation",
        ("drawn tenants, filters and ways to ask", "{cases} cases, {answers} answers"),
        ("随机的租户、筛选条件和查询方式", "{cases} 例，{answers} 个回答"),
    ),
    Line(
        "moves",
        ("documents moved to another tenant", "{moves} moves, {looks} looks, {searches} searches meanwhile"),
        ("文档移到另一租户", "{moves} 次移动，{looks} 次查看，期间 {searches} 次检索"),
    ),
    Line("batches of odd documents", ("odd texts, ids, metadata", "{cases} batches"), ("异常的文本、id、元数据", "{cases} 批")),
    Line("odd settings", ("odd settings and filters", "{cases} calls"), ("异常的设置和筛选条件", "{cases} 次调用")),
    Line("broken vectors", ("broken vectors", "{cases} batches"), ("损坏的向量", "{cases} 批")),
    Line(
        "files with broken lines",
        ("JSONL with broken lines", "{files} files, {bad_lines} bad lines"),
        ("含坏行的 JSONL", "{files} 个文件，{bad_lines} 个坏行"),
    ),
    Line("interruptions", ("work interrupted", "{interrupted} times"), ("操作被中断", "{interrupted} 次")),
)


def kept(report: Iterable[str]) -> list[dict[str, object]]:
    """The lines of a run's report, the last of each name, by name."""
    lines = {line["name"]: line for line in map(json.loads, report)}
    return [lines[name] for name in sorted(lines)]


def table(lines: Iterable[Mapping[str, object]], language: str) -> str:
    """The table in Markdown; KeyError where a run did not count what a line tells."""
    lines = list(lines)
    head = HEADS[language]
    rows = [head, ("---", "---", "---:")]
    for line in LINES:
        told: Counter[str] = Counter()
        for one in lines:
            if str(one["name"]).startswith(line.start):
                told.update(one["counts"])  # type: ignore[call-overload]  # numbers by name
        what, often = getattr(line, language)
        shown = {name: f"{number:,}" for name, number in told.items()}
        rows.append((what, often.format_map(shown), f"{sum(told[name] for name in FAULTS):,}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def placed(page: str, inside: str) -> str:
    """The page with this between its marks."""
    return re.sub(f"(?s){BEGIN}.*{END}", lambda _: f"{BEGIN}\n{inside}\n{END}", page)


def main() -> None:
    """Keep what the last run counted, and write both tables; SystemExit where only a part was run."""
    lines = kept(REPORT.read_text(encoding="utf-8").splitlines())
    try:
        table(lines, "en")
    except KeyError as error:
        raise SystemExit(f"{REPORT} has no count of {error}: not all was run, the README's table stays as it is") from None
    KEPT.write_text("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n", encoding="utf-8")
    for language, page in PAGES.items():
        page.write_text(placed(page.read_text(encoding="utf-8"), table(lines, language)), encoding="utf-8")


if __name__ == "__main__":
    main()
