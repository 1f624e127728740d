"""The pieces of `bench/train_against_trl.py`: one measurement (job), its inputs (inputs), the two sides, the report."""
