"""What arms were matched on and what was left over, as planned and as recorded."""

from __future__ import annotations

from finetrial.report.facts import Facts
from finetrial.report.match_table import match_table
from finetrial.report.model import view
from finetrial.spec.match import Match, Solved


def matched(study, quantity: str, value: int, own: float, other: float, option: str = ""):
    solved = Solved(value=value, own={"tiny-gpt": own}, other={"tiny-gpt": other})
    changed = {"match": Match(arm="full", quantity=quantity, option=option, solved=solved)}
    return study.model_copy(update={"arms": tuple(arm.model_copy(update=changed) if arm.name == "lora-r8" else arm
                                                  for arm in study.arms)})


def row_of(study, results) -> list[str]:
    facts = Facts(study, results)
    table = match_table(facts, facts.paths[0])
    row, = table.rows
    return [cell.text for cell in row.cells]


def with_costs(results, **columns):
    """Costs of the two arms: pairs of (lora-r8, full)."""
    values = {"lora-r8": 0, "full": 1}
    costs = tuple(cost.model_copy(update={name: pair[values[cost.arm]] for name, pair in columns.items()})
                  if cost.arm in values else cost for cost in results.costs)
    return results.model_copy(update={"costs": costs})


def test_parameters(study, results):
    found = row_of(matched(study, "parameters", 48, 786_432, 789_760, "rank"),
                   with_costs(results, params_trainable=(786_432, 789_760)))
    assert found == ["LoRA r=8 (attention)", "Full fine-tuning", "parameters", "rank 48", "786,432", "789,760", "-0.4 %",
                     "-0.4 %"]


def test_tokens_are_equal_as_planned_and_nearly_so_as_recorded(study, results):
    found = row_of(matched(study, "tokens", 75_000, 75_000, 75_000), with_costs(results, train_tokens=(75_900, 75_000)))
    assert found[2:] == ["tokens", "budget 75k tokens", "75,000 tokens", "75,000 tokens", "equal", "+1.2 %"]


def test_operations_are_not_recorded(study, results):
    found = row_of(matched(study, "flops", 75_000, 2.02e12, 2e12), results)
    assert found[2] == "operations" and found[4:] == ["2.02e+12 operations", "2e+12 operations", "+1.0 %", "unknown"]


def test_training_time(study, results):
    found = row_of(matched(study, "train_time", 75_000, 30.3, 30.0), with_costs(results, train_seconds=(33.0, 30.0)))
    assert found[2] == "training time" and found[4:] == ["30.3 seconds", "30 seconds", "+1.0 %", "+10.0 %"]


def test_the_report_shows_it_beside_the_costs(study, results):
    shown = view(matched(study, "tokens", 75_000, 75_000, 75_000), results)
    assert [table.caption.partition(":")[0] for table in shown.costs].count("Matched budgets") == 1
    assert not any(table.caption.startswith("Matched") for table in view(study, results).costs)
