"""What a run would need of a machine that is not here."""
