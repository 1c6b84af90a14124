"""system."""

import streamlit as st

st.text("system")
