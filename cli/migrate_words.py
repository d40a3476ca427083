"""What `csr migrate` says of a plan and of a report."""

from collections.abc import Sequence

from csr_qdrant.deployment.migrate import MigratePlan, MigrateReport

EARLIER = {
    "copy": "goes on with an earlier run",
    "verify": "goes on with verifying",
    "done": "compares a finished copy again",
    "swapped": "the copy is in use and stays as it is",
}


def costs(plan: MigratePlan) -> str:
    """Return what a migration copies, and what that takes."""
    parts = [
        _what(plan),
        f"vectors {_names((*plan.dense, *plan.sparse))}",
        f"payload indexes {_names(plan.indexes)}",
        f"set up as the source is: {_names(plan.configured)}",
    ]
    return "; ".join([*parts, *_notable(plan)])


def begins(plan: MigratePlan) -> str:
    """Return what a migration that begins is going to do, without what is as in the source."""
    return "; ".join([_what(plan), *_notable(plan)])


def _what(plan: MigratePlan) -> str:
    return (
        f"{plan.points:,} points of {plan.source} to {plan.target} with {_codes(plan)}: about "
        f"{_mb(plan.dense_bytes)} of dense vectors without graphs, {_mb(plan.index_bytes)} of "
        f"index and {_mb(plan.stored_bytes)} stored of codes, and the payloads"
    )


def _notable(plan: MigratePlan) -> list[str]:
    parts = []
    if plan.left_out:
        parts.append(f"not taken over: {_names(plan.left_out)}")
    if plan.alias is not None:
        stands = "is new" if plan.alias_from is None else f"stands for {plan.alias_from} now"
        parts.append(f"then the alias {plan.alias!r}, which {stands}, is set to the copy")
    if plan.phase is not None:
        parts.append(EARLIER[plan.phase])
    return parts


def _codes(plan: MigratePlan) -> str:
    size = f"(k={plan.k}, {plan.datatype})"
    codes = f"codes {plan.name!r} {size}"
    if not plan.encoded:
        codes = f"their codes {plan.name!r} as they are {size}"
    if plan.vector is None:
        return codes
    vector = f"vector {plan.vector!r}" if plan.vector else "the unnamed vector"
    kept = {
        "all": "",
        "rescore": ", which is kept on disk without a graph",
        "none": ", which is left out",
    }
    return f"{codes} of {vector}{kept[plan.keep]}"


def done(report: MigrateReport) -> str:
    """Return what a run has done and what is wrong with its copy, if anything is."""
    example = "".join(f" (as {each.id}: {each.reason})" for each in report.bad_examples[:1])
    changed = [
        f"{count:,} {what}"
        for count, what in (
            (report.mended, "mended"),
            (report.removed, "removed"),
            (report.without_code, "points have no active latent"),
            (
                report.bad - report.refused,
                "points cannot have a code" + ("" if report.refused else example),
            ),
            (report.refused, "points were refused" + example),
            (report.unsettled, "points kept changing: run it again"),
            (report.sampled_wrong, "of a sample are wrong: run it again"),
        )
        if count
    ]
    more = "; " + ", ".join(changed) if changed else ""
    alias = f"; the alias {report.plan.alias!r} stands for it now" if report.swapped else ""
    return (
        f"copied {report.copied:,} points to {report.plan.target} in {report.seconds:.1f} s, it "
        f"has {report.target_points:,} of {report.points:,}, {report.coded:,} with a "
        f"code{more}{alias}"
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(name or "the unnamed one" for name in names) or "none"


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
