"""Frame of the pages, which Streamlit runs. In a folder of its own, which Streamlit puts on ``sys.path``."""
