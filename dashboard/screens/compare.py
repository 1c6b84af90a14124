"""compare."""

import streamlit as st

st.text("compare")
