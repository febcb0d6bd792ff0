"""What a job runs in: its log and threads, its device, its processes, its share of the rows."""
