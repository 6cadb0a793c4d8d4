"""The verdict in words: what holds, what yields first, what is known of R(T), and what was not tried."""

from __future__ import annotations

import math
from collections import Counter

from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.core.measurement import Bound, Verdict
from brinell.core.probe import Certifier, Probe
from brinell.report.answer import Answer, listed, number, percent
from brinell.report.content import YIELD, Bounds, Content, Yield
from brinell.report.grade import NORMS, Grade, Kind, common


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


def subject(content: Content) -> str:
    """What this is a report of: data, samples, suite, date."""
    n, suite, date = content.data.get("n"), content.plan.get("suite"), (content.plan.get("environment") or {}).get("date")
    nets = content.networks[0] if len(content.networks) == 1 else f"{len(content.networks) or 'no'} networks"
    parts = [f"{nets} on {data_name(content)}", f"{n} samples" if n else "", f"suite {suite}" if suite else "", str(date or "")]
    return " · ".join(part for part in parts if part)


def title(content: Content) -> str:
    """The verdict in one line: what the network yields to, or which of several yields first."""
    if len(content.networks) != 1:
        return _first_of_several(content)
    net = content.networks[0]
    if not content.clean(net).ok:
        return f"{net} cannot be judged: its clean accuracy is {content.clean(net).status}"
    if _guessing(content, net):
        return f"{net} may be guessing: {percent(content.clean(net).value or 0)} right on clean samples of {_classes(content)} classes"
    found = content.yields(net)
    to = [known.grade.brief for known in found if known.grade is not None]
    stood = [
        "corruptions" if known.kind == "corruption" else f"{known.scale} attacks"
        for known in found
        if known.grade is None and known.unanswered < known.tried
    ]
    if not found:
        return f"{net} was not tried: no corruption or attack of known size was run"
    if not to:
        return f"{net} yields to none of the {sum(known.tried for known in found)} corruptions and attacks that were tried"
    return f"{net} yields to {listed(to)}{f', to none of the {listed(stood)} tried' if stood else ''}"


def _first_of_several(content: Content) -> str:
    """On which scale which network yields before all others."""
    steps: dict[str, dict[str, Yield]] = {}
    for net in content.networks:
        for found in content.yields(net):
            steps.setdefault(found.scale, {})[net] = found
    said: dict[str, list[str]] = {}
    for scale, by_net in steps.items():
        places = {net: math.inf if found.at is None else found.at for net, found in by_net.items()}
        order = sorted(places, key=lambda net: places[net])
        first = by_net[order[0]].grade
        if first is None or len(order) < 2 or places[order[0]] == places[order[1]]:
            continue
        second = by_net[order[1]].grade
        what = "corruptions" if scale == "severity" else f"{scale} attacks"
        said.setdefault(order[0], []).append(f"to {what} (at {first.shown}, the next {f'at {second.shown}' if second else 'nowhere'})")
    parts = [f"{net} yields {listed(words)}" for net, words in said.items()]
    return f"Before the others, {listed(parts)}" if parts else headline(content)


def run_state(content: Content) -> list[str]:
    """What a reader must know of the run itself: unfinished, failed, old, unreadable. Empty for a whole new run."""
    import brinell

    said, counts = [], Counter(answer.status for *_, answer in content.gaps())
    whole = len(content.networks) * len(content.grades)
    if counts["missing"]:
        said.append(f"This run is unfinished: {counts['missing']} of {whole} cells are missing. The same command again finishes it.")
    if counts["failed"]:
        said.append(f"{counts['failed']} of {whole} cells failed; the reasons stand under “Without an answer”.")
    if counts["undefined"]:
        said.append(f"{counts['undefined']} of {whole} cells have no accuracy although they were measured; the reasons stand there too.")
    if content.damaged:
        said.append(f"Files of this run cannot be read, and what they hold is left out: {'; '.join(content.damaged)}.")
    unknown = [item.spec for item in content.grades if not item.known]
    if unknown:
        said.append(f"This installation does not know {listed(unknown)}: shown as measured, but not grouped or ordered by size.")
    made = str((content.plan.get("environment") or {}).get("brinell") or "")
    if made and made != brinell.__version__:
        said.append(f"Measured by brinell {made}; this page was made by brinell {brinell.__version__}.")
    absent = [name for name in ("networks", "data", "perturbations", "seed", "environment") if name not in content.plan]
    if absent:
        said.append(f"The plan of this run does not say its {listed(absent)}.")
    return said


def clean_sentence(content: Content, net: str) -> str:
    """The clean accuracy with its interval, or why there is none."""
    clean = content.clean(net)
    if clean.value is None:
        return f"Clean accuracy is {clean.status}: {clean.reason}."
    said = f"Right on {percent(clean.value)} of {clean.n or content.data.get('n', '?')} clean samples"
    if clean.low is not None and clean.high is not None:
        level = f"{100 * clean.confidence:g} %" if clean.confidence else "an unstated level"
        said += f"; {percent(clean.low)} to {percent(clean.high)} in the population they were drawn from (at {level})"
        if _guessing(content, net):
            said += f". That may be no better than guessing one of {_classes(content)} classes"
    return said + "."


def _classes(content: Content) -> int:
    return len(content.data.get("classes") or ())


def _guessing(content: Content, net: str) -> bool:
    """Does the interval of clean accuracy reach down to one in as many as there are classes?"""
    low, classes = content.clean(net).low, _classes(content)
    return low is not None and classes > 1 and low <= 1 / classes


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
    said = str(known)
    if known.contradictory:
        said += ": a contradiction, the lower bound lies above the upper one"
    elif (known.lower is None) != (known.upper is None):
        said += " (no lower bound)" if known.lower is None else " (no upper bound)"
    return f"{said} (in doubt: {', '.join(known.doubts)} failed)" if known.doubts else said


def figures(content: Content, net: str) -> list[tuple[str, Answer, str]]:
    """The numbers a reader asks for first: what it is, the accuracy, and under what."""
    found = [("clean accuracy", content.clean(net), "")]
    kinds: tuple[tuple[str, Kind], ...] = (("worst corruption", "corruption"), ("worst attack", "attack"))
    for said, kind in kinds:
        item = content.hardest(net, kind)
        if item is not None:
            found.append((said, content.accuracy(net, item.spec), item.brief))
    return found


def yield_rule(content: Content) -> str:
    at_once = f" (the intervals of all {content.compared} corruptions and attacks hold at once)" if content.compared > 1 else ""
    return (
        f"A network yields where the upper end of its accuracy interval{at_once} lies below {YIELD:g} of its clean accuracy; "
        "the first is the smallest size where it does, of equal sizes the costliest."
    )


def untested(content: Content) -> list[str]:
    """What this run says nothing about, each as a sentence."""
    attacks, graded = _answered(content, "attack") + _answered(content, "nearest"), _answered(content, "corruption")
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
        tried, known = {item.family.partition("(")[0] for item in graded}, common()
        absent = [name for name in known if name not in tried]
        if absent:
            said.append(f"Common corruptions that were not run, {len(absent)} of {len(known)}: {listed(absent)}.")
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
