"""Sentences that several protocols share. `noun` is the word for one example, `Input.noun`."""

INTERVAL = "95 % of Student's t over draws"


def score(noun: str) -> str:
    """Returns what the accuracy is."""
    return f"top-1 accuracy on the test {noun}s"


def standardised(noun: str) -> str:
    """Returns how features are standardised."""
    return (
        "without augmentation; standardised by the mean and standard deviation over the train "
        f"{noun}s"
    )
