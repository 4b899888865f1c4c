"""Draw docs/two-streams.svg, the figure at the top of the README: two frozen streams, a gate and two heads.

    .venv/bin/python docs/make_figure.py

It is plain SVG text, so it needs nothing but Python. A test checks that the file is what this script draws.
"""

from __future__ import annotations

from pathlib import Path

OUT = Path(__file__).resolve().parent / "two-streams.svg"
WIDTH, HEIGHT = 980, 360
FROZEN, TRAINED, INK, SOFT = "#3b6ea5", "#c05a1c", "#1f2933", "#5b6770"
STYLE = f"""text {{ font-family: 'DejaVu Sans', Verdana, Helvetica, sans-serif; font-size: 14px; fill: {INK} }}
.small {{ font-size: 12px; fill: {SOFT} }} .bold {{ font-weight: bold }} .math {{ font-style: italic }}
.frozen {{ fill: {FROZEN} }} .trained {{ fill: {TRAINED} }} .middle {{ text-anchor: middle }}"""


def text(x: float, y: float, words: str, kind: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{words}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, *lines: str) -> str:
    """Return a rounded box with its lines of text in the middle, the first one bold."""
    top = y + height / 2 + 5 - 9 * (len(lines) - 1)
    shape = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#fff" stroke="{colour}"/>'
    kinds = ["middle bold", *["middle small"] * (len(lines) - 1)]
    return shape + "".join(
        text(x + width / 2, top + 18 * i, line, kind) for i, (line, kind) in enumerate(zip(lines, kinds, strict=True))
    )


def arrow(*points: tuple[float, float]) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{SOFT}" stroke-width="1.5" marker-end="url(#tip)"/>'


def image(x: float, y: float, side: float, cells: int = 0) -> str:
    """Return a red ball on a table, cut into cells x cells patches."""
    lines = [side * i / cells for i in range(1, cells)]
    grid = "".join(f"M{x + s:g} {y}v{side}M{x} {y + s:g}h{side}" for s in lines)
    return (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#dfe9f2"/>'
        f'<rect x="{x}" y="{y + 0.66 * side:g}" width="{side}" height="{0.34 * side:g}" fill="#b98a5a"/>'
        f'<ellipse cx="{x + 0.52 * side:g}" cy="{y + 0.8 * side:g}" rx="{0.27 * side:g}" ry="{0.06 * side:g}"'
        f' fill="#7d5a38"/>'
        f'<circle cx="{x + 0.5 * side:g}" cy="{y + 0.54 * side:g}" r="{0.27 * side:g}" fill="url(#ball)"/>'
        f'<path d="{grid}" stroke="#fff" stroke-width="1.2" fill="none"/>'
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="none" stroke="{SOFT}"/>'
    )


def panel(x: float, width: float, colour: str, kind: str, title: str) -> str:
    return f'<rect x="{x}" y="12" width="{width}" height="336" rx="12" fill="{colour}" fill-opacity="0.08"/>' + text(
        x + width / 2, 36, title, f"middle bold {kind}"
    )


def figure() -> str:
    """Return the whole figure as SVG."""
    parts = [
        panel(152, 322, FROZEN, "frozen", "frozen: encode once, keep the features"),
        panel(490, 310, TRAINED, "trained", "trained on human ratings, per score"),
        # what comes in
        image(18, 108, 104),
        text(70, 98, "image", "middle bold"),
        box(12, 270, 122, 58, SOFT, "prompt", "“a red ball”"),
        # the two streams and the text encoder
        arrow((122, 160), (138, 160), (138, 88), (164, 88)),
        arrow((122, 160), (138, 160), (138, 201), (164, 201)),
        image(170, 52, 72, 3),
        image(170, 165, 72, 8),
        arrow((242, 88), (268, 88)),
        arrow((242, 201), (268, 201)),
        box(274, 60, 142, 56, FROZEN, "coarse encoder", "large patches"),
        box(274, 173, 142, 56, FROZEN, "fine encoder", "small patches"),
        arrow((134, 299), (268, 299)),
        box(274, 271, 142, 56, FROZEN, "text encoder", "reads the prompt"),
        # what is trained
        arrow((416, 88), (476, 88), (476, 128), (500, 128)),
        arrow((416, 201), (476, 201), (476, 162), (500, 162)),
        text(446, 80, "f<tspan dy='3' font-size='10'>c</tspan>", "middle math"),
        text(446, 193, "f<tspan dy='3' font-size='10'>f</tspan>", "middle math"),
        text(446, 291, "T", "middle math"),
        box(506, 102, 126, 86, TRAINED, "gated fusion", "a share of each,", "per dimension"),
        arrow((632, 145), (650, 145), (650, 88), (662, 88)),
        arrow((632, 145), (650, 145), (650, 284), (662, 284)),
        text(641, 138, "z", "middle math"),
        arrow((416, 299), (662, 299)),
        box(668, 60, 122, 56, TRAINED, "template head", "bad … perfect"),
        box(668, 264, 122, 56, TRAINED, "prompt head", "attends to words"),
        # what comes out
        arrow((790, 88), (816, 88)),
        arrow((790, 292), (816, 292)),
        box(822, 60, 146, 56, INK, "quality", "how good it looks"),
        box(822, 264, 146, 56, INK, "correspondence", "shows the prompt"),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">\n'
        "<title>An image goes through a coarse and a fine frozen encoder; a trained gate fuses their features; one"
        " head gives quality, another one reads the prompt and gives correspondence.</title>\n"
        f"<style>{STYLE}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker>'
        '<radialGradient id="ball" cx="0.38" cy="0.32" r="0.8"><stop offset="0" stop-color="#ff8a80"/>'
        '<stop offset="0.45" stop-color="#d32f2f"/><stop offset="1" stop-color="#7f1010"/></radialGradient></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#fff"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    OUT.write_text(figure(), encoding="utf-8")
