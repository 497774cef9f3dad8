"""The page of a study."""


def write(study):
    return study.path
