"""Reports: read the files of a run's workdir, then write figures/*.png and report.html."""
