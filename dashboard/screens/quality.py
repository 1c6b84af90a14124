"""quality."""

import streamlit as st

st.text("quality")
