"""Formulas as drawings in the page: no script, no font, and the same in every browser."""

import re
from xml.etree import ElementTree

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

SIZE = 20  # pixels an em while drawing; the page scales it to the text around
ziamath.config.svg2 = False  # otherwise two formulas would share ids
ziamath.config.precision = 2


def draw(tex: str, inline: bool) -> str:
    """SVG in the text's colour. Who can't see it hears the TeX."""
    formula = ziamath.Latex(spaced(tex), size=SIZE, inline=inline, color="currentColor")
    svg = formula.svgxml()
    for side in ("width", "height"):
        svg.set(side, f"{float(svg.get(side)) / SIZE:.3f}em")
    svg.set("style", f"vertical-align:{formula.getyofst() / SIZE:.3f}em")
    svg.set("role", "img")
    svg.set("aria-label", tex)
    return ElementTree.tostring(svg, encoding="unicode")


def spaced(tex: str) -> str:
    """Spaces as TeX sets them: none after a sign, some around mod."""
    return re.sub(r"([(=,]\s*)-", r"\1{-}", tex).replace(r"\bmod", r"\;\mathrm{mod}\;")


def inline(page: HTML5Translator, node: nodes.math) -> None:
    page.body.append(f'<span class="formula">{draw(node.astext(), inline=True)}</span>')
    raise nodes.SkipNode


def displayed(page: HTML5Translator, node: nodes.math_block) -> None:
    page.body.append(f'<div class="formula">{draw(node.astext(), inline=False)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("drawn", (inline, None), (displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
