"""Why a log is compacted, or is not: a compaction plan in sentences. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logstore.quantities import format_bytes, format_ms
from logstore.storage.retention_explained import format_moment

if TYPE_CHECKING:
    from logstore.storage.compaction_plan import CompactionPlan
    from logstore.storage.config import TopicConfig

__all__ = ["bytes_until_due", "explain_compaction"]


def bytes_until_due(plan: CompactionPlan, config: TopicConfig) -> int | None:
    """How many more uncompacted bytes make a compaction due; 0 where it is, None where no number of them does."""
    if plan.is_due:
        return 0
    least = config["min.cleanable.dirty.ratio"]
    if not config.is_compacted or least >= 1:
        return None
    # The share has to rise above the setting, not only to it.
    return max(int(least * plan.clean_bytes / (1 - least)) + 1 - plan.cleanable_bytes, 0)


def explain_compaction(plan: CompactionPlan, config: TopicConfig, now_ms: int) -> list[str]:
    """What compaction has done, would do, and what it waits for; a sentence an item.

    Parameters
    ----------
    plan : CompactionPlan
    config : TopicConfig
        The settings it was made for.
    now_ms : int
    """
    if not config.is_compacted:
        return ["It is not compacted: cleanup.policy does not say compact."]
    sentences = []
    if plan.clean_bytes:
        sentences.append(
            f"Compaction has been through all below offset {plan.first_dirty_offset}; "
            f"{format_bytes(plan.clean_bytes)} are left of that."
        )
    else:
        sentences.append("It has not been compacted yet.")
    if plan.cleanable_bytes:
        sentences.append(
            f"{format_bytes(plan.cleanable_bytes)} can be compacted, up to offset {plan.first_uncleanable_offset}: "
            f"{plan.dirty_ratio:.0%} of what would be read."
        )
    else:
        sentences.append("There is nothing that can be compacted now.")
    sentences.append(_due(plan, config, now_ms))
    if plan.uncleanable_bytes:
        size = format_bytes(plan.uncleanable_bytes)
        sentences.append(f"{size} can't be compacted yet: {_held_back(plan, config, now_ms)}")
    return sentences


def _due(plan: CompactionPlan, config: TopicConfig, now_ms: int) -> str:
    least = config["min.cleanable.dirty.ratio"]
    if plan.is_due and plan.reason == "max.compaction.lag.ms":
        return f"It is due: a record is older than max.compaction.lag.ms = {format_ms(config['max.compaction.lag.ms'])}."
    if plan.is_due:
        return f"It is due: that is more than min.cleanable.dirty.ratio = {least:g}."
    more = bytes_until_due(plan, config)
    if more is None:
        sentence = f"min.cleanable.dirty.ratio = {least:g} is never exceeded, so size alone never makes it due"
    elif not plan.clean_bytes and not plan.cleanable_bytes:
        return "It is due as soon as something can be compacted."
    else:
        sentence = (
            f"It waits until that is more than min.cleanable.dirty.ratio = {least:g}, "
            f"after {format_bytes(more)} more in sealed segments"
        )
    if plan.due_at_ms >= 0:
        sentence += (
            f", or until {format_moment(plan.due_at_ms)} (in {format_ms(max(plan.due_at_ms - now_ms, 0))}) by "
            "max.compaction.lag.ms"
        )
    return f"{sentence}; `logstore compact run TOPIC` does not wait."


def _held_back(plan: CompactionPlan, config: TopicConfig, now_ms: int) -> str:
    if plan.held_back_by == "open transaction":
        return (
            f"a transaction is open from offset {plan.first_uncleanable_offset} on; it has to be committed or aborted first."
        )
    if plan.held_back_by == "min.compaction.lag.ms":
        return (
            f"they are younger than min.compaction.lag.ms = {format_ms(config['min.compaction.lag.ms'])}; the first of them "
            f"can be at {format_moment(plan.held_back_until_ms)} (in {format_ms(max(plan.held_back_until_ms - now_ms, 0))})."
        )
    if plan.held_back_by == "flushed offset":
        return "they are not on disk yet; the next flush brings them there."
    return (
        "the active segment never is. An append begins a new one when it reaches segment.bytes = "
        f"{format_bytes(config['segment.bytes'])} or spans segment.ms = {format_ms(config.roll_ms)}; housekeeping does when "
        "it was not written for as long; `logstore compact run TOPIC --roll` at once."
    )
