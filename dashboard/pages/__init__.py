"""Pages that Streamlit shows, one module for each."""
