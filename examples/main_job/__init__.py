"""The main job: the whole pipeline on one machine, with a verdict from independent records."""
