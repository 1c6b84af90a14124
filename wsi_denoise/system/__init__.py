"""What the operating system provides: files, processes, permissions, memory, logs."""
