"""The glossary: every term that a report uses without saying what it means, in one line each."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("arm", "one way to adapt the base model; all arms get the same data, order and budget"),
    ("base", "the pretrained model before anything is done to it"),
    ("interval", "a range made so that it covers the true value at the stated confidence, as a rule for new seeds and items"),
    ("seed", "one repetition with its own data order and initialisation; the same seed is paired across arms"),
    ("cluster", "items that belong together, such as functions of one file; they count as one observation"),
    ("nats/token", "the loss: mean over target tokens of minus the log of their probability; lower is better"),
    ("perplexity", "e to the power of the loss in nats/token; lower is better"),
    ("learned (plasticity)", "how much better the arm scores on the new task than the base"),
    ("forgotten (forgetting)", "how much worse the arm scores on old text or an earlier task; positive is worse"),
    ("phase", "one task of a sequence being learned; phase 0 is the untouched base"),
    ("forward, backward transfer", "what earlier phases do for a later task, what later phases do to an earlier one"),
    ("retention", "the share of the gain on a task that later phases left"),
    ("LATEST, ORACLE routing", "every task answered by the newest weights, or by those that were trained on it"),
    ("by construction", "follows from how the arm is made, here from untouched weights; nothing was measured"),
    ("floor", "an output that needs no model, such as the input copied: what any model should beat"),
    ("margin", "the largest difference that does not matter, set before the run"),
    ("detectable", "the smallest true difference that this comparison would have found with 80 % probability"),
    ("pairing", "arms are compared run by run and item by item; r says how alike two arms score there"),
    ("Holm-adjusted", "corrected for asking several questions at once, so that all verdicts hold together"),
    ("positive control", "an arm with a known effect: the trial has to see it, else it could not see anything"),
    ("A/A", "the same arm run twice with other random streams: shows how large no difference looks"),
    ("OOM, DIVERGED, TIMEOUT, FAILED", "out of memory, loss without bound, out of time, error: shown as words"),
)
