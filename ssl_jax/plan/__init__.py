"""Plans of training runs: memory, step time and cost on devices that are not at hand."""
