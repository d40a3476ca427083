"""One run of a migration: from where an earlier one stopped to the end."""

import time
from contextlib import suppress
from dataclasses import replace

from csr_qdrant.deployment.attach_bad import BadPoints, bad_points
from csr_qdrant.deployment.migrate_checks import Task
from csr_qdrant.deployment.migrate_config import MigrateConfig, MigrateReport
from csr_qdrant.deployment.migrate_earlier import refuse_use
from csr_qdrant.deployment.migrate_journal import migrate_journal
from csr_qdrant.deployment.migrate_passes import Passes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.stores.whole_points import NewPlace, WholePoints


class Run:
    """One run, from where an earlier one stopped to the end."""

    def __init__(
        self,
        task: Task,
        source: WholePoints,
        target: WholePoints,
        place: NewPlace,
        config: MigrateConfig,
        started: float,
    ) -> None:
        """Prepare the run; `started` is when it began, by `time.perf_counter`."""
        self._task, self._source, self._target = task, source, target
        self._place, self._config, self._started = place, config, started
        self._journal = migrate_journal(target, task.settings)

    def carry_out(self, passes: Passes) -> MigrateReport:
        """Copy, verify, move the alias; a copy that is in use is only looked at.

        Raises CsrError for a copy that was in use and is not any more, and if the alias cannot be
        moved.
        """
        alias = self._config.alias
        in_use = self._place.aliases()
        refuse_use(self._place.location, in_use, self._journal.phase, alias)
        if in_use and self._journal.phase == "done":  # stopped between the swap and its record
            self._journal.enter("swapped")
        bad = BadPoints(None) if in_use else self._write(passes)
        copied = time.perf_counter()
        if self._config.optimise and not in_use:
            self._target.optimise()
        optimised = time.perf_counter() - copied
        report = self._report(passes, bad, copied - self._started, optimised)
        return report if alias is None or in_use else self._swap(report, alias)

    def _check_unused(self) -> None:
        """Raise CsrError if an alias stands for the copy by now, which another run or hand set."""
        in_use = self._place.aliases()
        if in_use:
            self._journal.phase = "swapped"
            raise CsrError(
                f"{self._place.location} came into use as {', '.join(map(repr, in_use))} while it "
                "was written, so this run stops: its points are left as they are"
            )

    def _write(self, passes: Passes) -> BadPoints:
        journal, config = self._journal, self._config
        passes.watch(self._check_unused)
        self._target.ensure_indexes(self._task.setup.indexes)
        try:
            with bad_points(config.bad_rows) as bad:
                if journal.phase == "copy":
                    passes.copy(BadPoints(None) if config.verify else bad, journal)
                if config.verify:
                    journal.enter("verify")
                    passes.verify(bad)
                    passes.remove_gone()
            journal.enter("done")
            return bad
        except BaseException:
            self._target.insist(False)  # nobody waits minutes for a run that has ended
            with suppress(CsrError):  # what went wrong first is what the user must hear of
                journal.write()
            raise
        finally:
            self._source.insist(True)
            self._target.insist(True)

    def _report(
        self, passes: Passes, bad: BadPoints, seconds: float, optimised: float
    ) -> MigrateReport:
        sampled, wrong = passes.check_sample()
        counts, plan = passes.counts, self._task.plan
        return MigrateReport(
            plan=plan,
            copied=counts.copied,
            mended=counts.mended,
            removed=counts.removed,
            without_code=counts.without_code,
            bad=bad.count,
            refused=counts.refused,
            bad_examples=tuple(bad.examples),
            points=self._source.size(),
            target_points=self._target.size(),
            coded=self._target.size(plan.name),
            sampled=sampled,
            sampled_wrong=wrong,
            unsettled=counts.unsettled,
            swapped=plan.alias is not None and plan.alias in self._place.aliases(),
            seconds=seconds,
            optimise_seconds=optimised,
        )

    def _swap(self, report: MigrateReport, alias: str) -> MigrateReport:
        """Move the alias, after a last look at where it leads and at what it is to lead to."""
        where = self._place.location
        if not report.complete or (report.points and not report.sampled):
            raise CsrError(
                f"the alias {alias!r} was not moved: {where} has {report.target_points:,} of "
                f"{report.points:,} points, {report.refused:,} refused, {report.unsettled:,} "
                f"changing, {report.sampled_wrong:,} of a sample of {report.sampled:,} wrong: run "
                "it again with verify, once nobody writes to the source"
            )
        if not self._place.wait_ready(self._config.wait):
            raise CsrError(
                f"the alias {alias!r} was not moved: {where} is still building its indexes after "
                f"{self._config.wait:.0f} s: run it again later"
            )
        if self._source.size() != self._target.size():
            raise CsrError(
                f"the alias {alias!r} was not moved: points were written to or deleted from "
                f"{self._source.location} meanwhile: run it again, once nobody does that"
            )
        leads = self._place.alias(alias)
        if leads not in (None, self._source.location):
            raise ConfigError(
                f"the alias {alias!r} stands for {leads} by now and was not moved: see who did that"
            )
        self._place.swap(alias)
        self._journal.enter("swapped")
        return replace(report, swapped=True)
