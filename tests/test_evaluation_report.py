"""The report of an evaluation opens with what was found, and shows the worst first."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from advrad.cli import main
from advrad.data import Dataset, Item
from advrad.evaluate.evaluation_report import SHOWN, table_rows, worth_seeing
from advrad.evaluate.summary import finding


def result(good: tuple[int, int, int], defect: tuple[int, int, int], **rest: Any) -> Any:
    """Counts of OK, UNSURE, NG; and figures."""
    names = ("OK", "UNSURE", "NG")
    verdicts = {
        "good": dict(zip(names, good, strict=True)),
        "defect": dict(zip(names, defect, strict=True)),
    }
    return {"verdicts": verdicts, "image_auroc": 1.0, "image_auroc_ci": (0.54, 1.0)} | rest


class TestFinding:
    def test_all_is_well(self) -> None:
        assert finding(result((6, 0, 0), (0, 0, 17)), "stained hazelnuts") == (
            "17 of 17 stained hazelnuts were found and 0 of 6 good ones called defective; "
            "image AUROC 1.000 (95 % interval 0.54 to 1.00)."
        )

    def test_some_are_unsure(self) -> None:
        assert finding(result((4, 1, 1), (2, 3, 1))).startswith(
            "1 of 6 defective images was found, 3 more left for a second look (UNSURE), "
            "1 of 6 good ones called defective and 1 more left for a second look (UNSURE); "
        )

    def test_one_class_alone(self) -> None:
        only = result((0, 0, 0), (1, 0, 1), image_auroc=None, image_auroc_ci=None)
        assert finding(only) == "1 of 2 defective images was found."


def rows_of(scores: list[tuple[float, bool]]) -> tuple[list[dict[str, Any]], Dataset]:
    items = tuple(Item(Path(f"/x/{i}.png"), bad) for i, (_, bad) in enumerate(scores))
    rows = [
        {
            "path": str(item.path),
            "score": score,
            "defect": bad,
            "verdict": "NG" if score >= 5 else "OK",
        }
        for item, (score, bad) in zip(items, scores, strict=True)
    ]
    return rows, Dataset("x", Path("/x"), "plain", (), items, False, 0)


def test_the_worst_come_first_then_the_closest() -> None:
    rows, dataset = rows_of(
        list(
            zip(
                [9.0, 1.0, 8.0, 6.0, 2.0, 4.0, 4.5, 5.5],
                [True, False, False, True, True, False, True, False],
                strict=True,
            )
        )
    )
    shown = [item.path.stem for item in worth_seeing(rows, dataset, 5.0)]
    wrong = ["4", "2", "6", "7"]  # off by 3, 3, .5 and .5
    assert sorted(shown[:2]) == sorted(wrong[:2])
    assert sorted(shown[2:4]) == sorted(wrong[2:])
    assert shown[4:] == ["3", "0", "5", "1"]


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [(100, 100, (8, 16)), (6, 17, (6, 17)), (3, 100, (3, 21)), (100, 3, (21, 3)), (0, 9, (0, 9))],
)
def test_both_classes_are_shown(good: int, bad: int, expected: tuple[int, int]) -> None:
    rows, dataset = rows_of([(1.0, False)] * good + [(9.0, True)] * bad)
    shown = worth_seeing(rows, dataset, 5.0)
    assert len(shown) <= SHOWN
    assert (sum(not i.defect for i in shown), sum(i.defect for i in shown)) == expected


def test_only_mistakes_where_they_fill_the_page() -> None:
    rows, dataset = rows_of([(1.0, True)] * 40 + [(9.0, True)] * 40)
    assert {item.path.stem for item in worth_seeing(rows, dataset, 5.0)} <= set(
        map(str, range(40))
    )


def test_other_scores_stand_beside() -> None:
    record = result((1, 0, 0), (0, 0, 1), image_ap=1.0, f1_max=1.0, pixel_auroc=None, pro=None)
    record |= {"seconds_per_image": 0.02}
    record["beside"] = {"paper": {"image_auroc": 0.875, "image_auroc_ci": [0.5, 0.9]}}
    rows = table_rows(record)
    assert ["image AUROC of the score 'paper'", 0.875, 0.5, 0.9] in rows
    assert ["milliseconds an image", 20.0, None, None] in rows
    assert ["pixel AUROC", None, None, None] in rows


def test_the_page(trained: Path, parts: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(trained), str(parts), "--out", str(tmp_path / "e")]) == 0
    page = (tmp_path / "e" / "report.html").read_text()
    record = json.loads((tmp_path / "e" / "result.json").read_text())
    assert finding(record) in page
    assert page.count("data:image/svg+xml") == 2  # scores and ROC curve
    assert page.count('alt="heat map of') == page.count('alt="reconstruction of') == 9
    assert "its middle is the threshold of NG" in page
    shown = re.findall(r'<bdi class="file">(test/\w+/\d+\.png)</bdi>', page)
    assert len(shown) == len(set(shown)) == 9
    assert "detector_settings.widths" in page
