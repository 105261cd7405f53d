"""What we hold: files, instances, studies, reports."""
