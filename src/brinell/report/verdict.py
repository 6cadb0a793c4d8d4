"""The verdict in words: what holds, what yields first, what is known of R(T), and what was not tried."""

from __future__ import annotations

from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.core.measurement import Bound, Verdict
from brinell.core.probe import Certifier, Probe
from brinell.report.content import YIELD, Bounds, Content, Yield, listed, number, percent
from brinell.report.grade import NORMS, Grade, Kind


def data_name(content: Content) -> str:
    return str(content.data.get("spec") or "unnamed data")


def headline(content: Content) -> str:
    """One sentence about the whole run."""
    many = len(content.networks)
    if many == 1:
        return f"{content.networks[0]} on {data_name(content)}: {_in_short(content, content.networks[0])}"
    return f"{many or 'No'} networks on {data_name(content)}, side by side"


def _in_short(content: Content, net: str) -> str:
    clean = content.clean(net)
    if clean.value is None:
        return f"clean accuracy is {clean.status} ({clean.reason})"
    uppers = [(known.upper, known) for known in content.bounds(net) if known.upper is not None]
    said = f"{percent(clean.value)} right on clean samples"
    hardest = content.hardest(net, "attack")
    if uppers:
        said += f", at most {percent(min(value for value, _ in uppers))} robust"
    elif hardest is not None:
        said += f", {percent(content.accuracy(net, hardest.spec).value or 0)} under {hardest.title}"
    return said


def clean_sentence(content: Content, net: str) -> str:
    """The clean accuracy with its interval, or why there is none."""
    clean = content.clean(net)
    if clean.value is None:
        return f"Clean accuracy is {clean.status}: {clean.reason}."
    said = f"Right on {percent(clean.value)} of {clean.n or content.data.get('n', '?')} clean samples"
    if clean.low is not None and clean.high is not None:
        level = f"{100 * clean.confidence:g} %" if clean.confidence else "an unstated level"
        classes = len(content.data.get("classes") or ())
        said += f"; {percent(clean.low)} to {percent(clean.high)} in the population they were drawn from (at {level})"
        if classes and clean.low <= 1 / classes:
            said += f". That may be no better than guessing one of {classes} classes"
    return said + "."


def yield_sentence(content: Content, net: str, found: Yield) -> str:
    """Where the network yields first on one scale."""
    what = "Corruptions" if found.kind == "corruption" else f"{found.scale} attacks"
    lost = f" ({found.unanswered} of {found.tried} without an answer)" if found.unanswered else ""
    if not content.clean(net).ok:
        return f"{what}: cannot be judged without a clean accuracy."
    if found.unanswered == found.tried:
        return f"{what}: none of the {found.tried} planned has an answer."
    if found.grade is None:
        return f"{what}: none of the {found.tried - found.unanswered} tried makes it yield{lost}."
    return f"{what}: {found.grade.title}, accuracy {found.answer}{lost}."


def bound_text(known: Bounds) -> str:
    """A statement on R(T), with what is missing from it or wrong with it."""
    if known.contradictory:
        return f"{known}: a contradiction, the lower bound lies above the upper one"
    if known.lower is None and known.upper is not None:
        return f"{known} (no lower bound)"
    return f"{known} (no upper bound)" if known.upper is None and known.lower is not None else str(known)


def yield_rule() -> str:
    return (
        f"A network yields where the upper end of its accuracy interval lies below {YIELD:g} of its clean accuracy; "
        "the first is the smallest size where it does, of equal sizes the costliest."
    )


def untested(content: Content) -> list[str]:
    """What this run says nothing about, each as a sentence."""
    attacks, graded = _answered(content, "attack"), _answered(content, "corruption")
    said = []
    if not _certified(content):
        said.append("No certificate was computed: nothing bounds R(T) from below, and a stronger attack may find more errors.")
    if not attacks:
        said.append("No attack was run, or none has an answer: nothing is known of the worst case.")
    else:
        if not any(item.black_box or _without_gradients(content, item.spec) for item in attacks):
            said.append("No black-box attack was run: masked gradients would go unnoticed by attacks that follow them.")
        absent = [norm for norm in reversed(NORMS.values()) if all(item.scale != norm for item in attacks)]
        if absent:
            said.append(f"No attack in {listed(absent, 'or')} was run.")
        controlled = {item.scale for item in _answered(content, "control")}
        alone = [norm for norm in content.norms() if norm not in {*absent, *controlled}]
        if alone:
            said.append(f"No noise control was run in {listed(alone)}: attacks there are not compared with chance.")
    if not graded:
        said.append("No graded corruption was run, or none has an answer.")
    else:
        sizes = sorted({item.size for item in graded})
        if len(sizes) < 5:
            families = {item.family for item in graded}
            kinds = "one kind" if len(families) == 1 else f"{len(families)} kinds"
            said.append(f"Corruptions: {kinds}, at severity {listed(f'{size:g}' for size in sizes)} only.")
    gaps = sum(1 for _ in content.gaps())
    if gaps:
        said.append(f"Cells without an accuracy: {gaps} of {len(content.networks) * len(content.grades)}.")
    said.append(_sample_size(content))
    return said


def _answered(content: Content, kind: Kind) -> list[Grade]:
    """The perturbations of a kind under which some network has an accuracy."""
    return [item for item in content.of_kind(kind) if any(content.accuracy(net, item.spec).ok for net in content.networks)]


def _sample_size(content: Content) -> str:
    answers = [content.accuracy(net, item.spec) for net in content.networks for item in content.grades]
    widths = [answer.high - answer.low for answer in answers if answer.low is not None and answer.high is not None]
    n = content.data.get("n") or max((answer.n for answer in answers), default=0)
    said = f"Samples: {n}"
    if content.data.get("note"):
        said += f" ({content.data['note']})"
    if widths:
        said += f". The widest interval spans {number(max(widths))} of accuracy; a smaller difference may be chance"
    return said + "."


def _certified(content: Content) -> bool:
    if any(row["name"] == "robust_accuracy" and row.get("bound") in (Bound.LOWER, Bound.EXACT) for row in content.table.rows):
        return True
    for text in content.plan.get("probes", ()):
        try:
            if isinstance(parse(text, Probe), Certifier):
                return True
        except SpecError:
            continue
    return False


def _without_gradients(content: Content, spec: str) -> bool:
    """Did the attack answer without a single backward pass, wherever it was run?"""
    rows = [row for net in content.networks for row in content.cell(net, spec) if row.get("status") == "ok"]
    return any(row.get("forwards") for row in rows) and not any(row.get("backwards") for row in rows)


def findings_in_words(content: Content) -> str:
    """How many checks failed, were flagged, passed."""
    if not content.findings:
        return "No check was run"
    failed, flagged, passed = (content.count(verdict) for verdict in (Verdict.FAIL, Verdict.FLAG, Verdict.PASS))
    return f"{failed} failed, {flagged} flagged, {passed} passed"
