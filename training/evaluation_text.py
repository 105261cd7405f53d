"""An evaluation as a table for people and as a page with its plots. Pure: takes the data, returns text."""

from __future__ import annotations

import html
import re
from typing import Any

_NOTE = (
    "Not a medical device. These figures hold for these images and say nothing of others; "
    "specificity at a stated sensitivity is chosen on the evaluated images themselves."
)
_LOCAL = "The pictures show patients' images. Keep them where the images may be kept."


def to_markdown(result: dict[str, Any]) -> str:
    """Return the evaluation as Markdown tables."""
    images = result["images"]
    refused = images["not_analysed"]
    lines = [
        "# Evaluation",
        "",
        *([_bank(result["bank"]), ""] if result["bank"] else []),
        f"{images['normal']} normal and {images['abnormal']} abnormal images of {images['patients']} patients; "
        f"not analysed: {refused['normal']} normal, {refused['abnormal']} abnormal"
        + "".join(f"; {reason} {count}" for reason, count in refused["reasons"].items())
        + ".",
        _intervals(result["bootstrap"]),
        "",
        *(f"**Warning:** {warning}.\n" for warning in result["warnings"]),
        "| figure | value | 95 % interval |",
        "|---|---|---|",
        _line("AUROC", result["auroc"]),
        _line("average precision", result["average_precision"]),
    ]
    point = result["threshold"]
    if point is not None:
        lines += [
            _line(f"sensitivity above threshold {point['threshold']:.6g}", point["sensitivity"]),
            _line(f"specificity above threshold {point['threshold']:.6g}", point["specificity"]),
        ]
    lines += [
        f"| specificity at sensitivity {wanted} (chosen here) | {value:.3f} | |"
        for wanted, value in result["specificity_at_sensitivity"].items()
    ]
    for found in result["predictive_values"]:
        lines += [
            f"| PPV at prevalence {found['prevalence']:g} | {_number(found['positive'])} | |",
            f"| NPV at prevalence {found['prevalence']:g} | {_number(found['negative'])} | |",
        ]
    spread = result["percentiles_of_normals"]
    if spread is not None:
        lines += ["", "## Percentiles of the normal images", *_percentiles(spread)]
    if result["controls"]:
        lines += [
            "",
            "## Trivial controls",
            "What needs no method; turned towards the labels in their favour.",
            "",
            "| control | AUROC | 95 % interval | score minus control | 95 % interval | p |",
            "|---|---|---|---|---|---|",
            *(_control(found) for found in result["controls"]),
        ]
    if result["subgroups"]:
        lines += [
            "",
            "## Subgroups",
            "",
            "| column | value | normal | abnormal | AUROC | 95 % interval | sensitivity | specificity |",
            "|---|---|---|---|---|---|---|---|",
            *(_subgroup(found) for found in result["subgroups"]),
        ]
    if result["against"]:
        lines += ["", "## Against the other run", "", *_against(result["against"])]
    return "\n".join([*lines, "", _NOTE, ""])


def to_html(result: dict[str, Any]) -> str:
    """Return the evaluation as a page beside its pictures; it loads nothing from elsewhere."""
    pictures = "\n".join(
        f'<figure><img src="{html.escape(name)}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, caption in result["plots"].items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ border-bottom: 1px solid #ddd; padding: .25rem .8rem; text-align: left }}
figure {{ display: inline-block; margin: .5rem; vertical-align: top }}
img {{ max-width: 100%; height: auto }}
img:not([src="errors.png"]) {{ max-height: 24rem; width: auto }}
figcaption {{ color: #555; max-width: 28rem }}
.warning {{ background: #fff3cd; padding: .5rem 1rem }}
</style></head><body>
{_tables(to_markdown(result))}
<h2>Plots</h2>
{pictures}
<p>{_LOCAL}</p>
</body></html>
"""


def _tables(markdown: str) -> str:
    """Turn the Markdown that `to_markdown` writes, and no other, into HTML."""
    out, table = [], False
    for line in markdown.splitlines():
        if line.startswith("|"):
            if set(line) <= set("|-"):
                continue
            tag = "td" if table else "th"
            cells = (cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1]))
            row = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            out.append(f"{'' if table else '<table>'}<tr>{row}</tr>")
            table = True
            continue
        if table:
            out.append("</table>")
            table = False
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            out.append(f"<h{level}>{html.escape(line.lstrip('# '))}</h{level}>")
        elif line.startswith("**Warning:**"):
            out.append(f'<p class="warning">{html.escape(line.replace("**", ""))}</p>')
        elif line:
            out.append(f"<p>{html.escape(line)}</p>")
    return "\n".join([*out, *(["</table>"] if table else [])])


def _intervals(found: dict[str, Any]) -> str:
    return (
        f"Intervals: 95 %, {found['draws']} draws of patients within each class, seed {found['seed']}; "
        "shares of images by Wilson."
    )


def _bank(bank: dict[str, Any]) -> str:
    how = f"backbone {bank['backbone']['name']}, head {bank['head']}, k {bank['k']}, {len(bank['views'])} views"
    return (
        f"Bank {bank['name']}, hash {bank['bank_hash']}: {bank['normal_images']} normals, {how}; threshold "
        f"from {bank['calibration_images']} scores ({bank['calibration']}) at a false-positive rate of "
        f"{bank['false_positive_rate']:g}."
    )


def _line(name: str, found: dict[str, float] | None) -> str:
    return f"| {name} | {_value(found)} | {_range(found)} |"


def _value(found: dict[str, float] | None) -> str:
    return "none" if found is None else f"{found['value']:.3f}"


def _range(found: dict[str, float] | None) -> str:
    return "" if found is None else f"{found['low']:.3f} to {found['high']:.3f}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _percentiles(spread: dict[str, Any]) -> list[str]:
    words = (
        f"{spread['images']} images; evenly spread where the calibration holds. At or above percentile "
        f"95: {100 * spread['above_95']:.1f} % (5 % is right). Kolmogorov-Smirnov {spread['ks']:.3f}, "
        f"p {spread['p']:.2g}."
    )
    return [
        words,
        "",
        "| tenth | " + " | ".join(f"{10 * at}-{10 * at + 10}" for at in range(10)) + " |",
        "|---" * 11 + "|",
        "| % of images | " + " | ".join(f"{100 * part:.1f}" for part in spread["deciles"]) + " |",
    ]


def _difference(found: dict[str, float]) -> str:
    return f"{found['value']:+.3f} | {found['low']:+.3f} to {found['high']:+.3f} | {found['p']:.2g}"


def _control(found: dict[str, Any]) -> str:
    turned = "" if found["sign"] > 0 else ", lower is abnormal"
    ranked = f"{_value(found['auroc'])} | {_range(found['auroc'])}"
    return f"| {found['name']}{turned} | {ranked} | {_difference(found['difference'])} |"


def _subgroup(found: dict[str, Any]) -> str:
    point = found["point"] or {"sensitivity": None, "specificity": None}
    value = str(found["value"]).replace("|", "\\|")
    return (
        f"| {found['column']} | {value} | {found['normal']} | {found['abnormal']} | {_value(found['auroc'])} | "
        f"{_range(found['auroc'])} | {_value(point['sensitivity'])} | {_value(point['specificity'])} |"
    )


def _against(found: dict[str, Any]) -> list[str]:
    precision = _difference(found["difference_average_precision"])
    return [
        "| figure | other run | this minus other | 95 % interval | p |",
        "|---|---|---|---|---|",
        f"| AUROC | {found['auroc']:.3f} | {_difference(found['difference_auroc'])} |",
        f"| average precision | {found['average_precision']:.3f} | {precision} |",
    ]
