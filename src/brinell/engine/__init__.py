"""The lab: plans, runs, stores and resumes measurements."""
