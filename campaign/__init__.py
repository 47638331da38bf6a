"""The campaign: random pipelines under random faults, judged from outside. Started by `scripts/campaign`."""
