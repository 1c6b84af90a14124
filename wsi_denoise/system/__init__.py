"""Services of the operating system: files, processes, permissions, memory, logs."""
