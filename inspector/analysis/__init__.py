"""Everything the pages show, computed from scores and vectors. No Streamlit, no HTML, no model."""
