"""The report of a run: reads the files of its workdir, writes figures/*.png and report.html."""
